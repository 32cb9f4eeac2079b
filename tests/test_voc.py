"""VOC annotation files: their boxes, and what is refused."""

import pytest

from fgc_jax.data.sources import voc

TWO = """<annotation>
  <folder>02085620</folder><filename>n02085620_1</filename>
  <size><width>333</width><height>500</height><depth>3</depth></size>
  <object><name>Chihuahua</name><truncated>0</truncated>
    <bndbox><xmin>25</xmin><ymin>10</ymin><xmax>276</xmax><ymax>498</ymax></bndbox></object>
  <object><name>Papillon</name>
    <bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax> 30 </xmax><ymax>40</ymax></bndbox></object>
</annotation>"""


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "n02085620_1"
    path.write_text(text, encoding=encoding)
    return path


def test_objects_are_read_in_order(tmp_path):
    assert voc.read(written(tmp_path, TWO)) == [
        ("Chihuahua", (25.0, 10.0, 276.0, 498.0)),
        ("Papillon", (1.0, 2.5, 30.0, 40.0)),
    ]
    assert voc.read(written(tmp_path, "<annotation></annotation>")) == []


LAUGHS = '<!DOCTYPE a [<!ENTITY b "lol">]>\n' + TWO.replace("Chihuahua", "&b;")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not XML"),
        (TWO[:300], "not XML"),
        (LAUGHS, "declares a DTD"),
        (TWO.replace("Chihuahua", "&b;"), "not XML.*undefined entity"),
        (TWO.replace("<name>Papillon</name>", ""), "an object has no name"),
        (TWO.replace("<ymin>10</ymin>", ""), "boxes of 'Chihuahua' are not four numbers"),
        (TWO.replace("276", "wide"), "boxes of 'Chihuahua'.*wide"),
        (TWO.replace("276", "nan"), "boxes of 'Chihuahua'"),
        (TWO + " " * 2**20, "larger than 1048576 bytes"),
    ],
)
def test_damaged_files_are_named(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=f"{path}.*{message}"):
        voc.read(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp037"])
def test_no_encoding_hides_a_dtd(tmp_path, encoding):
    path = written(tmp_path, f'<?xml version="1.0" encoding="{encoding}"?>{LAUGHS}', encoding)
    with pytest.raises(ValueError, match="not XML"):
        voc.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.xml: cannot be read"):
        voc.read(tmp_path / "gone.xml")
