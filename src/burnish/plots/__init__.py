"""A run as pictures, read from its store."""
