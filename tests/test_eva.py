from fgc_jax import models
from tests import networks, seeded

NAME = "vit_small_patch16_dinov3"


def test_the_published_head_reads_the_mean_and_the_class_token_is_there_too():
    images = seeded.images(2, 32, 48)
    _, out = networks.forward(NAME, 5)(images)
    assert models.abstract(seeded.config(NAME), 5).feature_maps == (("features",),)
    assert out["features"].shape == (2, 2, 3, 384)
    assert out["class_token"].shape == (2, 1, 1, 384)
    logits, _ = networks.forward(NAME, 5, feature_map="class_token")(images)
    assert logits.shape == (2, 5)
