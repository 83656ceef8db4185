"""burnish: post-train language models with group-relative reinforcement learning."""

__version__ = "0.1.0"
