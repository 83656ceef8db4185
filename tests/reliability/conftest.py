"""The command line and small models, as the end-to-end tests have them."""

from tests.e2e.conftest import burnish, model_dir, sums

__all__ = ["burnish", "model_dir", "sums"]
