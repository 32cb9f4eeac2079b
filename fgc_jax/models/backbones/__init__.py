"""The networks that turn images into maps: a family a file, listed in `models.table`."""
