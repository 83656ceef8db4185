"""Other systems' commands, scripts and configuration files: read, explained, and written."""
