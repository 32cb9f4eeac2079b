"""A run directory and what it keeps: files, checkpoints, progress, metrics, requests to stop."""
