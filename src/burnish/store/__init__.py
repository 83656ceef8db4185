"""The record: one SQLite file per run, written by one thread, read by anybody. No torch."""
