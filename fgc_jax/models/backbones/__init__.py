"""The networks that compute feature maps from images: a file for each family; `models.table` lists
them."""
