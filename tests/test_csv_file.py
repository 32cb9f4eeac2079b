"""Tables of images: columns, splits, labels, boxes, and every wrong row named."""

import numpy as np
import pytest

from fgc_jax import data
from fgc_jax.data.sources import csv_file
from tests import data_files


def load(root, **options):
    return data.load("csv", root, {"label_column": "label", **options})


def sizes(dataset):
    return {name: len(split) for name, split in dataset.splits.items()}


def table(folder, rows, header=("path", "label"), missing=()):
    """A CSV file, and a picture for each of its paths but the `missing`."""
    for row in rows:
        if row and row[0] and row[0] not in missing:
            data_files.write_image(folder / row[0], data_files.picture(0, 0))
    return data_files.write_table(folder / "table.csv", header, rows)


def test_columns_by_name_and_number(tmp_path):
    path = data_files.write_csv(tmp_path)
    named = load(path, path_column="path", split_column="split")
    assert named.class_names == ("gull", "tern", "wren")
    assert sizes(named) == {"train": 12, "val": 6, "test": 6}
    np.testing.assert_array_equal(named.splits["val"].labels, [0, 0, 1, 1, 2, 2])
    assert named.splits["val"].names[2] == "val_1_0.jpg"
    assert named.splits["val"].boxes is None
    assert named.splits["val"].read(0).shape == (40, 48, 3)
    for numbers in ((0, 1, 2), ("0", "1", "2")):  # a command line gives text
        columns = zip(("path_column", "label_column", "split_column"), numbers, strict=True)
        assert load(path, **dict(columns)).facts() == named.facts()


def test_a_column_named_like_a_number_is_that_column(tmp_path):
    path = table(tmp_path, [["a.jpg", "x", "p"], ["b.jpg", "x", "q"]], ("path", "2", "1"))
    assert load(path, label_column="1", test_fraction=0).class_names == ("p", "q")


def test_without_splits_a_test_split_is_cut(tmp_path):
    path = data_files.write_csv(tmp_path, splits={"train": 10})
    assert sizes(load(path)) == {"train": 24, "test": 6}
    assert sizes(load(path, test_fraction=0.1)) == {"train": 27, "test": 3}
    assert sizes(load(path, split_column="split")) == {"train": 30}
    assert load(path, seed=1).facts() != load(path, seed=2).facts()


def test_project_ds_cars_layout(tmp_path):
    root = data_files.write_cars_csv(tmp_path, classes=11)
    options = {"label_column": 5, "box_columns": (1, 2, 3, 4), "box_origin": 1}
    dataset = load(root, image_root="cars_{split}", **options)
    assert dataset.class_names == tuple(str(i) for i in range(1, 12))  # not 1, 10, 11, 2
    assert sizes(dataset) == {"train": 44, "test": 22}
    np.testing.assert_array_equal(dataset.splits["train"].labels[:12], [*range(11), 0])
    np.testing.assert_array_equal(dataset.splits["train"].boxes[0], [0, 0, 48, 40])
    options = {"label_column": "5", "image_root": root / "cars_test"}
    split = data.labelled_split(str(root / "test.csv"), dataset.class_names, **options)
    np.testing.assert_array_equal(split.labels, dataset.splits["test"].labels)


def test_boxes(tmp_path):
    path = data_files.write_csv(tmp_path)
    columns = ("x0", "y0", "x1", "y1")
    dataset = load(path, split_column="split", box_columns=columns)
    np.testing.assert_array_equal(dataset.splits["test"].boxes, [[4, 6, 46, 37]] * 6)
    from_one = load(path, split_column="split", box_columns=columns, box_origin=1)
    np.testing.assert_array_equal(from_one.splits["test"].boxes, [[3, 5, 46, 37]] * 6)


def test_bad_box_options(tmp_path):
    path, names = str(data_files.write_csv(tmp_path)), ["a", "b"]
    with pytest.raises(ValueError, match="box_columns must be the four columns"):
        data.labelled_split(path, names, label_column=0, box_columns=("x0", "y0"))
    with pytest.raises(ValueError, match="box_origin must be 0 or 1, got 2"):
        data.labelled_split(path, names, label_column=0, box_origin=2)


def test_two_objects_of_one_image(tmp_path):
    rows = [["a.jpg", "x", 0, 0, 9, 9], ["a.jpg", "y", 9, 9, 30, 30], ["b.jpg", "y", 0, 0, 9, 9]]
    path = table(tmp_path, rows, ("path", "label", "x0", "y0", "x1", "y1"))
    options = {"box_columns": (2, 3, 4, 5), "test_fraction": 0}
    assert sizes(load(path, **options)) == {"train": 3}
    path = table(tmp_path, [*rows, rows[0]], ("path", "label", "x0", "y0", "x1", "y1"))
    with pytest.raises(ValueError, match=r"1 images listed twice: table.csv row 5: .*row 2"):
        load(path, **options)


def test_one_image_in_two_splits_is_refused(tmp_path):
    rows = [["a.jpg", "x", "train", 0, 0, 9, 9], ["b.jpg", "y", "train", 0, 0, 9, 9]]
    rows.append(["a.jpg", "x", "test", 9, 9, 20, 20])  # another part of the same picture
    path = table(tmp_path, rows, ("path", "label", "split", "x0", "y0", "x1", "y1"))
    with pytest.raises(ValueError, match=r"row 4: .*a.jpg' .test., first table.csv row 2 .train."):
        load(path, split_column=2, box_columns=(3, 4, 5, 6))


@pytest.mark.parametrize("spelling", ["./a.jpg", "sub/../a.jpg", "link.jpg", "linked/a.jpg"])
def test_an_image_is_known_by_its_real_path(tmp_path, spelling):
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    (tmp_path / "linked").symlink_to(".")
    header = ("path", "label", "split", "x0", "y0", "x1", "y1")
    rows = [["a.jpg", "x", "train", 0, 0, 9, 9], ["b.jpg", "y", "train", 0, 0, 9, 9]]
    path = table(tmp_path, rows, header)
    for split in ("train", "test"):
        data_files.write_table(path, header, [*rows, [spelling, "x", split, 0, 0, 9, 9]])
        with pytest.raises(ValueError, match=r"row 4: .*a?.jpg' .*, first table.csv row 2"):
            load(path, split_column=2, box_columns=(3, 4, 5, 6))
    data_files.write_table(path, header, [*rows, [spelling, "x", "train", 9, 9, 20, 20]])
    objects = load(path, split_column=2, box_columns=(3, 4, 5, 6)).splits["train"]
    assert list(objects.names) == ["a.jpg", "b.jpg", "a.jpg"]


def test_objects_of_one_image_stay_in_one_split(tmp_path):
    objects = [(f"{i}.jpg", "xy"[i % 2], x) for i in range(20) for x in (0, 3)]
    rows = [[name, label, x, 0, x + 9, 9] for name, label, x in objects]
    path = table(tmp_path, rows, ("path", "label", "x0", "y0", "x1", "y1"))
    dataset = load(path, box_columns=(2, 3, 4, 5))
    dataset = data.splitting.with_validation(dataset, 0.25, seed=0)
    assert sizes(dataset) == {"train": 24, "val": 8, "test": 8}
    photos = [set(split.names) for split in dataset.splits.values()]
    assert [len(names) for names in photos] == [12, 4, 4] and len(set.union(*photos)) == 20
    for split in dataset.splits.values():
        assert set(np.bincount(split.labels)) == {len(split) // 2}


@pytest.mark.parametrize("words", [("10", "9", "2"), ("b10", "b9", "b2"), ("10", "9", "x")])
def test_labels_are_sorted_as_what_they_are(tmp_path, words):
    path = table(tmp_path, [[f"{i}.jpg", word] for i, word in enumerate(words)])
    expected = ("2", "9", "10") if words[2] == "2" else tuple(sorted(words))
    assert load(path, test_fraction=0).class_names == expected


def test_spaces_zeros_and_blank_lines(tmp_path):
    path = table(tmp_path, [["a.jpg", " 07"], ["b.jpg", "7 "], [], ["c.jpg", "8"]])
    dataset = load(path, test_fraction=0)
    assert dataset.class_names == ("7", "8")
    np.testing.assert_array_equal(dataset.splits["train"].labels, [0, 0, 1])


def test_other_delimiters_quotes_and_a_byte_order_mark(tmp_path):
    data_files.write_image(tmp_path / "a;1.jpg", data_files.picture(0, 0))
    data_files.write_image(tmp_path / "b.jpg", data_files.picture(0, 0))
    text = '\ufeffpath;label\n"a;1.jpg";"common ""tern"""\nb.jpg;gull\n'
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    dataset = load(tmp_path / "t.csv", path_column="path", delimiter=";", test_fraction=0)
    assert dataset.class_names == ('common "tern"', "gull")


WRONG_ROWS = {
    "a missing file": ([["a.jpg", "x"], ["gone.jpg", "y"]], r"row 3: there is no file .*gone\.jpg"),
    "an empty path": ([["a.jpg", "x"], ["", "y"]], "row 3: there is no file"),
    "an empty label": ([["a.jpg", "x"], ["b.jpg", " "]], "row 3: the label is empty"),
    "too few columns": ([["a.jpg"], ["b.jpg", "x"]], "row 2: 1 columns, at least 2 needed"),
    "a repeat": ([["a.jpg", "x"], ["b.jpg", "y"], ["a.jpg", "x"]], "row 4: .*a.jpg.*first .*row 2"),
    "another label": ([["a.jpg", "x"], ["a.jpg", "y"]], "row 3: .*a.jpg.*first .*row 2"),
    "one class": ([["a.jpg", "x"], ["b.jpg", "x"]], "at least 2 classes are needed, found: x"),
    "no rows": ([], "no rows below the header"),
}


@pytest.mark.parametrize("kind", WRONG_ROWS)
def test_wrong_rows_are_named(tmp_path, kind):
    rows, message = WRONG_ROWS[kind]
    with pytest.raises(ValueError, match=message):
        load(table(tmp_path, rows, missing=["gone.jpg"]))


def test_many_wrong_rows_are_counted(tmp_path):
    names = [f"{i}.jpg" for i in range(9)]
    path = table(tmp_path, [[name, "x"] for name in names], missing=names)
    with pytest.raises(ValueError, match="9 bad rows: row 2: .*; row 6: .*; and 4 more$"):
        load(path)


def test_wrong_splits_are_named(tmp_path):
    header = ("path", "label", "split")
    rows = [["a.jpg", "x", "train"], ["b.jpg", "y", "Validation"], ["c.jpg", "y", "dev"]]
    with pytest.raises(ValueError, match="row 4: unknown split 'dev', allowed: train, val, test"):
        load(table(tmp_path, rows, header), split_column=2)
    rows = [["a.jpg", "x", "train"], ["b.jpg", "y", "train"], ["c.jpg", "z", "test"]]
    with pytest.raises(ValueError, match="1 unknown labels .allowed: x, y.: row 4: 'z'"):
        load(table(tmp_path, rows, header), split_column=2)
    rows = [["a.jpg", "x", "train"], ["b.jpg", "y", "train"], ["a.jpg", "x", "test"]]
    with pytest.raises(ValueError, match=r"row 4: .*a.jpg' .test., first table.csv row 2 .train."):
        load(table(tmp_path, rows, header), split_column=2)
    with pytest.raises(ValueError, match="no rows of the split 'train'"):
        load(table(tmp_path, [["a.jpg", "x", "test"]], header), split_column=2)


def test_wrong_columns_are_named(tmp_path):
    path = table(tmp_path, [["a.jpg", "x"], ["b.jpg", "y"]])
    for column in ("class", 2, "7", -1):
        with pytest.raises(ValueError, match=f"no column '?{column}'?; columns 0 to 1: path, "):
            load(path, label_column=column)
    twice = table(tmp_path, [["a.jpg", "x", "y"]], ("path", "label", "label"))
    with pytest.raises(ValueError, match="2 columns are named 'label'"):
        load(twice)


def test_wrong_roots(tmp_path):
    with pytest.raises(ValueError, match="no train.csv in this folder"):
        load(tmp_path)
    data_files.write_cars_csv(tmp_path)
    with pytest.raises(ValueError, match="split_column must be None"):
        load(tmp_path, label_column=5, split_column=0)
    with pytest.raises(ValueError, match="has test rows, so test_fraction must be None"):
        load(tmp_path, label_column=5, image_root="cars_{split}", test_fraction=0.1)
    (tmp_path / "bytes.csv").write_bytes(b"path,label\n\xff\xfe\x00,x\n")
    with pytest.raises(ValueError, match=r"bytes\.csv: cannot be read as CSV"):
        load(tmp_path / "bytes.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match=r"empty\.csv: the file is empty"):
        load(tmp_path / "empty.csv")


def test_labelled_split_of_an_existing_model(tmp_path):
    path = table(tmp_path, [["a.jpg", "tern"], ["b.jpg", "gull"]])
    names = ("gull", "tern", "wren")
    assert data.labelled_split(path, names, label_column="label").labels.tolist() == [1, 0]
    with pytest.raises(ValueError, match="unknown labels .allowed: gull, wren.: row 2: 'tern'"):
        data.labelled_split(path, ("gull", "wren"), label_column=1)
    with pytest.raises(ValueError, match="give the label column"):
        data.labelled_split(path, names)


def test_labelled_split_by_number(tmp_path):
    path = table(tmp_path, [["a.jpg", "1"], ["b.jpg", "2"]])
    names = ("gull", "tern", "wren")
    for first, expected in ((0, [1, 2]), (1, [0, 1])):
        split = data.labelled_split(path, names, label_column=1, first_label=first)
        np.testing.assert_array_equal(split.labels, expected)
    with pytest.raises(ValueError, match="outside of the numbers 2 to 4: row 2: '1'"):
        data.labelled_split(path, names, label_column=1, first_label=2)
    with pytest.raises(ValueError, match="unknown labels .*row 2: '1'"):
        data.labelled_split(path, names, label_column=1)


def test_a_large_table_is_read_quickly(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_file.os.path, "isfile", lambda path: True)
    rows = [[f"{i:06d}.jpg", i % 50] for i in range(50_000)]
    path = data_files.write_table(tmp_path / "t.csv", ("path", "label"), rows)
    assert sizes(load(path)) == {"train": 40_000, "test": 10_000}
