"""`burnish base`: base models for the built-in tasks, made here from nothing."""
