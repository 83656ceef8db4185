"""Launchers: where the loop runs, and everything around it that a command does."""
