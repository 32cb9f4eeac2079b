"""Small prepared data sets."""

from fgc_jax.data import prepare
from fgc_jax.data.sources import folder
from tests import data_files


def folder_data(tmp_path, **options):
    return folder.load(data_files.write_folder(tmp_path / "photos", **options))


def prepared_folder(tmp_path, **options):
    data = folder_data(tmp_path)
    prepare.prepare(data, tmp_path / "out", name="folder", **options)
    return data, tmp_path / "out"


def flip_byte(path, place=0.5):
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)
