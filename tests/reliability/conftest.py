"""The command line and small models, as the end-to-end tests have them."""

import pytest

pytest.register_assert_rewrite("tests.reliability.same_run")

from tests.e2e.conftest import burnish, model_dir, sums  # noqa: E402

__all__ = ["burnish", "model_dir", "sums"]
