"""Errors that speak to the user, by what they mean for the run. Wrong input is a plain `ValueError`."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """The run cannot go on: nothing to train on, a grader that fails, numbers that are not finite."""


class StorageError(OSError):
    """The record or a checkpoint cannot be written."""


class ResumeError(RuntimeError):
    """The run cannot be continued as it was asked to."""
