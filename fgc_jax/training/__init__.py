"""From settings to a trained network: one loop for every task."""
