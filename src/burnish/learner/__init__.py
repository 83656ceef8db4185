"""Learners: they hold the trained weights, turn a prepared mini-batch into gradients and make the updates."""
