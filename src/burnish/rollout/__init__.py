"""Rollout engines: they draw completions, each from seeds that travel with the request."""
