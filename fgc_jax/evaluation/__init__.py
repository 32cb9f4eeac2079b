"""What is measured: metrics, views of an image, predictions, and their files."""
