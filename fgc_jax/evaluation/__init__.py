"""What is measured: metrics, views of an image, predictions, and the files that hold them."""
