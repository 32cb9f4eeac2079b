"""Decoding of every kind of file, the damaged ones refused, and resizing compared with Pillow."""

import subprocess
import sys
import tracemalloc

import cv2
import numpy as np
import pytest
from PIL import Image

from fgc_jax.data import images
from tests import data_files

PICTURE = data_files.picture(1, 0, (200, 150))


def noise(height, width, dtype=np.uint8):
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".bmp", ".gif", ".tif", ".ppm"])
def test_formats_equal_pillow(tmp_path, extension):
    path = data_files.write_image(tmp_path / f"a{extension}", PICTURE)
    assert extension in images.EXTENSIONS
    decoded = images.decode(path)
    with Image.open(path) as file:
        expected = np.asarray(file.convert("RGB"))
    assert decoded.dtype == np.uint8
    assert decoded.shape == (150, 200, 3)
    np.testing.assert_array_equal(decoded, expected)
    np.testing.assert_array_equal(images.decode(path.read_bytes()), expected)


def test_lossless_pixels_are_rgb():
    np.testing.assert_array_equal(images.decode(data_files.encode(PICTURE, ".png")), PICTURE)


def test_modes():
    rgb = Image.fromarray(PICTURE)
    grey = rgb.convert("L")
    alpha = rgb.copy()
    alpha.putalpha(grey)
    palette = rgb.quantize(32)
    cases = {
        "grey": (grey, ".png"),
        "grey JPEG": (grey, ".jpg"),
        "grey with alpha": (alpha.convert("LA"), ".png"),
        "RGBA": (alpha, ".png"),
        "RGBA WebP": (alpha, ".webp"),
        "palette": (palette, ".png"),
        "black and white": (grey.convert("1"), ".png"),
        "CMYK": (rgb.convert("CMYK"), ".jpg"),
        "CMYK TIFF": (rgb.convert("CMYK"), ".tif"),
    }
    for name, (image, extension) in cases.items():
        options = {"lossless": True} if extension == ".webp" else {}
        data = data_files.encode(image, extension, **options)
        decoded = images.decode(data, name)
        with Image.open(data_files.io.BytesIO(data)) as file:
            expected = np.asarray(file.convert("RGB"))
        assert decoded.shape == (150, 200, 3), name
        tolerance = 1 if name == "CMYK" else 0
        difference = np.abs(decoded.astype(int) - expected)
        assert difference.max() <= tolerance, (name, difference.max())


def test_alpha_is_dropped_not_blended():
    image = np.dstack([PICTURE, np.zeros(PICTURE.shape[:2], np.uint8)])
    data = data_files.encode(Image.fromarray(image), ".png")
    np.testing.assert_array_equal(images.decode(data), PICTURE)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_keep_the_upper_eight(channels):
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30, channels), np.uint16)
    stored = deep if channels == 1 else deep[..., [2, 1, 0, 3][:channels]]
    decoded = images.decode(cv2.imencode(".png", stored)[1].tobytes())
    expected = np.broadcast_to(deep[..., :3] >> 8, (20, 30, 3))
    np.testing.assert_array_equal(decoded, expected)


def test_pillow_fallback_scales_sixteen_bits(monkeypatch):
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30), np.uint16)
    data = cv2.imencode(".png", deep)[1].tobytes()
    monkeypatch.setattr(images.cv2, "imdecode", lambda *_: None)
    np.testing.assert_array_equal(images.decode(data)[..., 1], deep >> 8)


def test_what_opencv_does_not_read_goes_to_pillow():
    data = data_files.encode(PICTURE, ".sgi")
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is None
    np.testing.assert_array_equal(images.decode(data), PICTURE)


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_orientation_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    rotated = data_files.encode(PICTURE, ".jpg", exif=exif)
    assert b"Exif" in rotated
    plain = data_files.encode(PICTURE, ".jpg")
    np.testing.assert_array_equal(images.decode(rotated), images.decode(plain))


@pytest.mark.parametrize("shape", [(1, 1), (3, 30_000), (30_000, 3), (1, 70_000), (2_000, 30_000)])
def test_extreme_sizes(shape):
    image = np.zeros((*shape, 3), np.uint8)
    image[-1, -1] = (9, 8, 7)
    decoded = images.decode(data_files.encode(image, ".png", compress_level=1))
    assert decoded.shape == (*shape, 3)
    assert tuple(decoded[-1, -1]) == (9, 8, 7)
    if max(shape) <= 65_500:  # the format's limit
        assert images.decode(data_files.encode(image, ".jpg")).shape == (*shape, 3)


@pytest.mark.parametrize("side", [20_000, 40_000])
def test_a_huge_claim_with_no_pixels_is_refused(side):
    with pytest.raises(ValueError, match=r"bomb\.png: damaged or not an image"):
        images.decode(data_files.png_header(side, side), "bomb.png")


DAMAGED = {
    "empty": b"",
    "text": b"this is not an image\n" * 20,
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "header only": b"\xff\xd8\xff\xe0",
    "zeros": bytes(5000),
}
JPEGS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restart": {"restart_marker_blocks": 4},
}
for _kind, _options in JPEGS.items():
    _jpeg = data_files.encode(PICTURE, ".jpg", **_options)
    for _part in (0.05, 0.3, 0.6, 0.95):
        DAMAGED[f"{_kind} JPEG cut at {_part}"] = _jpeg[: int(len(_jpeg) * _part)]
    DAMAGED[f"{_kind} JPEG without its end"] = _jpeg[:-2]
    DAMAGED[f"{_kind} JPEG, second half zeros"] = _jpeg[: len(_jpeg) // 2] + bytes(len(_jpeg) // 2)
for _extension in (".png", ".webp", ".gif", ".bmp", ".tif"):
    _data = data_files.encode(PICTURE, _extension)
    for _part in (0.1, 0.5, 0.9):
        DAMAGED[f"{_extension} cut at {_part}"] = _data[: int(len(_data) * _part)]


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_files_are_refused_by_name(tmp_path, kind):
    path = tmp_path / "broken.jpg"
    path.write_bytes(DAMAGED[kind])
    with pytest.raises(ValueError, match=r"broken\.jpg: (damaged or )?not an image"):
        images.decode(path)


def test_an_empty_file_is_called_empty():
    with pytest.raises(ValueError, match="a.jpg: not an image, the file is empty .0 bytes."):
        images.decode(b"", "a.jpg")


def test_unreadable_paths_are_value_errors(tmp_path):
    for path in (tmp_path / "missing.jpg", tmp_path):
        with pytest.raises(ValueError, match=f"{path.name}: cannot be read"):
            images.decode(path)


def test_bytes_after_the_end_are_no_damage():
    data = data_files.encode(PICTURE, ".jpg")
    np.testing.assert_array_equal(images.decode(data + b"maker notes"), images.decode(data))


def test_decoding_damage_prints_nothing():
    """OpenCV's log would fill the terminal of a run that skips bad images."""
    data = data_files.encode(PICTURE, ".bmp")[:500]
    code = (
        "import sys; from fgc_jax.data import images\n"
        "try: images.decode(sys.stdin.buffer.read())\n"
        "except ValueError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"refused\n", b"")


def test_read_shape(tmp_path):
    assert images.read_shape(data_files.write_image(tmp_path / "a.jpg", PICTURE)) == (150, 200)
    (tmp_path / "b.jpg").write_bytes(b"")
    assert images.read_shape(tmp_path / "b.jpg") is None


def test_resized_shape():
    assert images.resized_shape((300, 401, 3), 256, "squash") == (256, 256)
    # torchvision's Resize(256): int(256 * 401 / 300) = 342
    assert images.resized_shape((300, 401, 3), 256, "short_side") == (256, 342)
    assert images.resized_shape((401, 300, 3), 256, "short_side") == (342, 256)
    assert images.resized_shape((1, 1, 3), 256, "short_side") == (256, 256)
    assert images.resized_shape((3, 30_000, 3), 256, "short_side") == (256, 2_560_000)
    with pytest.raises(ValueError, match="unknown resize mode 'fit': one of squash, short_side"):
        images.resized_shape((10, 10), 5, "fit")


def photo(height, width):
    """Smooth structure with edges and noise, somewhat like a photograph."""
    image = cv2.resize(noise(12, 16), (width, height), interpolation=cv2.INTER_CUBIC)
    image = cv2.rectangle(
        image, (width // 5, height // 4), (width // 2, height // 2), (250, 20, 0), -1
    )
    grain = np.random.default_rng(1).normal(0, 6, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("source", "resized", "mean", "largest"),
    [
        ((224, 224), (224, 224), 0.0, 0),
        ((180, 240), (256, 256), 0.3, 2),  # enlarged
        ((480, 640), (256, 341), 0.1, 2),  # shrunk
        ((300, 200), (256, 256), 0.1, 2),  # one side each
        ((900, 1200), (256, 256), 0.1, 2),  # shrunk 3.5 and 4.7 times
        ((1100, 1401), (256, 256), 0.4, 8),  # shrunk 4.3 and 5.5 times, odd
        ((2500, 2303), (256, 256), 0.4, 8),  # shrunk 9.8 and 9.0 times, odd
        ((1, 1), (256, 256), 0.0, 0),
    ],
)
def test_resize_crop_is_pillows(interpolation, source, resized, mean, largest):
    image = photo(*source)
    top, left, size = 11, 25, 192
    got = images.resize_crop(image, resized, (top, left, size, size), interpolation)
    whole = Image.fromarray(image).resize(resized[::-1], images.INTERPOLATIONS[interpolation])
    expected = np.asarray(whole)[top : top + size, left : left + size].astype(int)
    assert got.shape == (size, size, 3) and got.dtype == np.uint8 and got.flags.c_contiguous
    difference = np.abs(got - expected)
    assert difference.mean() <= mean
    assert difference.max() <= largest


def test_shrinking_is_antialiased():
    """A fine chequerboard becomes grey; picking pixels would keep its black and white."""
    board = np.indices((512, 512)).sum(0) % 2 * 255
    board = np.repeat(board.astype(np.uint8)[..., None], 3, axis=2)
    for size in (200, 60):
        got = images.resize_crop(board, (size, size), (0, 0, size, size)).astype(int)
        assert np.abs(got - 127.5).max() < 12


def test_long_images_are_not_resized_whole():
    """30,000 x 4 at a short side of 256 would be 1.4 GB; only the window is made."""
    image = np.zeros((4, 30_000, 3), np.uint8)
    image[:, 15_000:] = 200
    resized = images.resized_shape(image.shape, 256, "short_side")
    tracemalloc.start()
    got = images.resize_crop(image, resized, (16, resized[1] // 2 - 112, 224, 224))
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert got[:, :80].max() == 0 and got[:, -80:].min() == 200
