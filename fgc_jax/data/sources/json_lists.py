"""Large JSON files of lists (such as COCO's), read item by item in constant memory."""

import array
import codecs
import json
import re

import numpy as np

CHUNK = 2**22  # bytes read at a time
LARGEST = 2**26  # characters of one item; a longer one is treated as damaged
ITEM = "*"
_AFTER = tuple(" \t\n\r,:]}")
_SPACE = re.compile(r"[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*(?=\{)")  # the usual case, in one step


def items(path):
    """Yields (name, item) for every item of every list directly in the JSON object of a file.

    Values that are not lists are skipped. ValueError naming the file if it is missing, truncated or
    not such JSON; the items before the error have been yielded by then.
    """
    try:
        with open(path, "rb") as stream:
            yield from _items(stream)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise ValueError(f"{path}: damaged or not the expected JSON ({error})") from error


def columns(path, wanted):
    """{list: {field: values of all its items}} of the lists and fields `wanted`.

    `wanted`: {list: {field: type}}; the type is a code of array.array, whose values come as one
    numpy array, or "" for any value. The field ITEM is the whole item.
    Raises:
        ValueError: as for `items`; or an item lacks a field or has one of another type; or a list
            is missing or empty.
    """
    found = {
        name: {field: array.array(code) if code else [] for field, code in fields.items()}
        for name, fields in wanted.items()
    }
    append = {name: [(f, v.append) for f, v in of.items()] for name, of in found.items()}
    filled = set()
    for name, item in items(path):
        filled.add(name)
        try:
            for field, add in append.get(name, ()):
                add(item if field == ITEM else item[field])
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"{path}: bad item of {name!r}: {str(item)[:200]}") from error
    absent = [name for name in wanted if name not in filled]
    if absent:
        raise ValueError(f"{path}: missing or empty lists: {', '.join(absent)}")
    return {
        name: {f: v if isinstance(v, list) else np.asarray(v) for f, v in of.items()}
        for name, of in found.items()
    }


def _items(stream):
    decode_item = json.JSONDecoder().raw_decode
    decode_text = codecs.getincrementaldecoder("utf-8-sig")().decode
    text, at = "", 0

    def extend():
        nonlocal text, at
        data = stream.read(CHUNK)
        text, at = text[at:] + decode_text(data, not data), 0
        if not data:
            raise ValueError("it ends too early")
        if len(text) > LARGEST:
            raise ValueError(f"an item of more than {LARGEST} characters")

    def peek():
        nonlocal at
        while True:
            at = _SPACE.match(text, at).end()
            if at < len(text):
                return text[at]
            extend()

    def take(allowed):
        nonlocal at
        found = peek()
        if found not in allowed:
            raise ValueError(f"found {found!r} instead of one of {allowed!r}")
        at += 1
        return found

    def comma():
        nonlocal at
        found = _COMMA.match(text, at)
        at = found.end() if found else at
        return found

    def value():
        nonlocal at
        if text[at : at + 1] != "{":
            peek()
        while True:
            try:
                found, end = decode_item(text, at)
            except json.JSONDecodeError:  # incomplete in this chunk, or damaged: extend() decides
                end = len(text)
            if text[end : end + 1] in _AFTER:  # else a number might continue
                at = end
                return found
            extend()

    take("{")
    while True:
        name = value()
        take(":")
        if peek() != "[":
            value()
        else:
            take("[")
            if peek() == "]":
                take("]")
            else:
                yield name, value()
                while comma() or take(",]") == ",":
                    yield name, value()
        if take(",}") == "}":
            return
