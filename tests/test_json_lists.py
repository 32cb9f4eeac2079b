"""Lists of large JSON files, item by item, wherever a chunk ends."""

import json

import numpy as np
import pytest

from fgc_jax.data.sources import json_lists

CONTENT = {
    "info": {"year": 2021, "nested": [1, {"a": [2]}]},
    "images": [{"id": i, "name": f'\u5f35 {{]"{i}'} for i in range(7)],
    "empty": [],
    "numbers": [1, 2.5, -3e5, 41],
    "none": None,
    "nested": [[1, [2]], {"a": {"b": "]"}}, "text", True],
}


def written(tmp_path, text):
    path = tmp_path / "index.json"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 10**6])
@pytest.mark.parametrize("style", [{}, {"indent": 2}, {"separators": (",", ":")}])
def test_all_items_in_order(tmp_path, monkeypatch, chunk, style):
    monkeypatch.setattr(json_lists, "CHUNK", chunk)
    path = written(tmp_path, json.dumps(CONTENT, ensure_ascii=chunk % 2 == 0, **style) + "\n")
    found = list(json_lists.items(path))
    lists = {name: value for name, value in CONTENT.items() if isinstance(value, list)}
    assert found == [(name, item) for name, value in lists.items() for item in value]


def test_columns(tmp_path):
    path = written(tmp_path, json.dumps(CONTENT))
    wanted = {"images": {"id": "q", "name": ""}, "numbers": {json_lists.ITEM: "d"}}
    found = json_lists.columns(path, wanted)
    np.testing.assert_array_equal(found["images"]["id"], range(7))
    assert found["images"]["id"].dtype == np.int64
    assert found["images"]["name"][1] == '\u5f35 {]"1'
    np.testing.assert_array_equal(found["numbers"][json_lists.ITEM], [1, 2.5, -3e5, 41])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": {"width": "q"}}, r"bad item of 'images': \{'id': 0"),
        ({"images": {"name": "q"}}, "bad item of 'images'"),
        ({"numbers": {"id": "q"}}, "bad item of 'numbers': 1"),
        ({"empty": {"id": "q"}, "labels": {"id": "q"}}, "empty lists: empty, labels"),
    ],
)
def test_wrong_fields_are_named(tmp_path, fields, message):
    path = written(tmp_path, json.dumps(CONTENT))
    with pytest.raises(ValueError, match=rf"index\.json: .*{message}"):
        json_lists.columns(path, fields)


@pytest.mark.parametrize("length", [0, 1, 9, 60, 130, -4, -1])
def test_files_that_are_cut_short_are_named(tmp_path, length):
    path = written(tmp_path, json.dumps(CONTENT)[:length])
    with pytest.raises(ValueError, match=r"index\.json: .* \(it ends too early\)"):
        list(json_lists.items(path))


@pytest.mark.parametrize(
    "text", ["[1, 2]", "7", '{"a" 1}', '{"a": [1 2]}', '{"a": [{"b": tru}]}', '{"a": [1]]}']
)
def test_other_json_is_named(tmp_path, text):
    path = written(tmp_path, text + " " * 50)
    with pytest.raises(ValueError, match=r"index\.json: damaged or not the expected JSON"):
        list(json_lists.items(path))


def test_a_damaged_item_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lists, "CHUNK", 1000)
    monkeypatch.setattr(json_lists, "LARGEST", 5000)
    path = written(tmp_path, '{"a": ["' + "x" * 20_000)
    with pytest.raises(ValueError, match="an item of more than 5000 characters"):
        list(json_lists.items(path))


def test_missing_and_binary_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.json: cannot be read"):
        list(json_lists.items(tmp_path / "gone.json"))
    (tmp_path / "index.json").write_bytes(b'{"a": ["\xff\xfe"]}')
    with pytest.raises(ValueError, match=r"index\.json: damaged"):
        list(json_lists.items(tmp_path / "index.json"))
