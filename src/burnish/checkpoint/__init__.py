"""Checkpoints: folders that are whole or do not count. Files and hashes only; torch stays with the learner.

`save` writes one, `steps_on_disk` lists them, `latest` finds the newest whole one, `whole` all of them, `clean` removes
what a killed process left.
`manifest.py` says what whole means, `save.py` writes and deletes, `restore.py` finds, `durable.py` syncs.
"""

from burnish.checkpoint.restore import CheckpointError, Found, clean, latest, steps_on_disk, whole
from burnish.checkpoint.save import last_good, save

__all__ = ["CheckpointError", "Found", "clean", "last_good", "latest", "save", "steps_on_disk", "whole"]
