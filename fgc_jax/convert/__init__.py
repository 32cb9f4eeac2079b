"""Weights of PyTorch networks: reading files without torch, and renaming keys."""
