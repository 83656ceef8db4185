"""Sinks: where metrics go besides the record. One that fails warns and never stops a run."""
