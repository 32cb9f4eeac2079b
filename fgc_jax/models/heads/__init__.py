"""The heads that turn feature maps into logits; `models.table` lists them."""
