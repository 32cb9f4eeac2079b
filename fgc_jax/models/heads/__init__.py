"""The heads, which compute logits from feature maps; `models.table` lists them."""
