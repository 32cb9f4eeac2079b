"""Explanations of a trained network: attention maps, their pictures, and how well they localise."""
