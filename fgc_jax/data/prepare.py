"""Writes any data set as ArrayRecord shards that TFDS can open: few files, pictures resized once.

Each shard is a fixed range of a split. So after an interruption only the missing shards are
written, and the result has the same bytes as without the interruption.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil

import numpy as np

from fgc_jax import files
from fgc_jax.data import concurrency, pipeline, records, shards
from fgc_jax.data.sources import prepared

LOCK = "lock"


def prepare(data, output, *, name, options=None, form=None, on_bad_image="raise", threads=None):
    """Writes the Dataset `data` to the folder `output`, verifies it and returns its facts.

    `name`, `options`: those that fgc_jax.data.load made it with. `form`: a records.Form. Image
    files that need no change are stored byte for byte. Labels, names, boxes, "parts" and "objects"
    are kept and scaled with the pixels; masks are not kept. `threads`: None is one for each core.
    If `output` is complete already, it is only verified.

    Raises:
        ValueError: images cannot be read ("skip" leaves them out); `output` contains other files or
            was begun with other data or options; the disk is too small; the result is damaged.
    """
    if on_bad_image not in pipeline.ON_BAD_IMAGE:
        allowed = ", ".join(pipeline.ON_BAD_IMAGE)
        raise ValueError(f"on_bad_image is {on_bad_image!r}, allowed: {allowed}")
    form = form or records.Form()
    encoder = records.Encoder(data, form)
    identity = _identity(data, name, options or {}, form)
    _check_folder(output, identity)
    with _locked(output):
        if os.path.isfile(os.path.join(output, prepared.INFO)):
            _verify(output, threads)
            return prepared.read_facts(output)
        plan = shards.plan(encoder, output, identity)
        shards.write(encoder, output, plan, on_bad_image == "skip", threads)
        facts = shards.write_metadata(encoder, output, plan)
        _verify(output, threads, remove=True)
        shards.publish(output)
    return facts


def check_outside(output, root):
    """ValueError if `output` is the folder `root` of the source or a folder inside it: the next
    load could read the result as classes."""
    if not root or not os.path.isdir(root):
        return
    inner, outer = os.path.realpath(output), os.path.realpath(root)
    if os.path.commonpath([inner, outer]) == outer:
        raise ValueError(
            f"{output} is inside {root}, which the data set is read from: choose another folder"
        )


def verify(folder, *, threads=None):
    """Reads every record of a finished prepared folder; returns the number of images.

    Each record must have the checksum, label, file name and picture size of the index, and its
    picture must be decodable. Each class must have as many images as in the source.

    Raises:
        ValueError: something differs; the message names it.
    """
    prepared.check_finished(folder)
    return _verify(folder, threads)


def _verify(folder, threads, remove=False):
    """As `verify`; `remove` deletes damaged shards, so that `prepare` writes them again."""
    facts = prepared.read_facts(folder)
    splits = {name: prepared.read_split(folder, facts, name) for name in facts["splits"]}
    checks = {name: _check(folder, name, split) for name, split in splits.items()}
    total = sum(map(len, splits.values()))
    problems, damaged = [], set()
    results = concurrency.ordered(
        lambda place: checks[place[0]](place[1]),
        concurrency.places(splits),
        "verify",
        total,
        threads=threads,
    )
    for (name, i), problem in zip(concurrency.places(splits), results, strict=True):
        if problem:
            problems.append(f"{splits[name].names[i]}: {problem}")
            damaged.add(splits[name].read.shard(i))
    if remove:
        for path in damaged:
            os.remove(path)
    if problems:
        again = "run the command again" if remove else "prepare the data set again"
        shards.refuse(f"{folder}: {len(problems)} records are damaged, {again}", problems)
    for name, split in splits.items():
        counts = np.bincount(split.labels, minlength=len(facts["dataset"]["class_names"]))
        if counts.tolist() != facts["splits"][name]["class_counts"]:
            raise ValueError(
                f"{folder}: the classes of {name!r} have other image counts than the source"
            )
    return total


def _check(folder, name, split):
    """A function of a record's number: what is wrong with it, or ""."""
    index = prepared.read_index(folder, name)

    def check(i):
        try:
            data = split.read.record(i)
            if records.checksum(data) != index["checksums"][i]:
                return "another checksum than in the index"
            features = prepared.parse(data)
            if features["label"].int64_list.value[0] != split.labels[i]:
                return "another label than in the index"
            if features["filename"].bytes_list.value[0].decode() != split.names[i]:
                return "another file name than in the index"
            if split.read(i).shape[1::-1] != tuple(index["sizes"][i]):
                return "another picture size than in the index"
        except ValueError as error:
            return str(error)
        return ""

    return check


def _identity(data, name, options, form):
    """The facts that must be equal when the command is started again, as read back from JSON."""
    splits = {}
    facts = data.facts()
    encodes = form.resize or not all(records.copied(split.read) for split in data.splits.values())
    for split_name, split in data.splits.items():
        boxes = None if split.raw_boxes is None else hashlib.sha256(split.raw_boxes).hexdigest()
        kinds = sorted(split.annotations)
        splits[split_name] = facts["splits"][split_name] | {"boxes": boxes, "annotations": kinds}
    identity = {
        "format": prepared.FORMAT,
        "name": name,
        "options": options,
        "resize": form.resize,
        "resize_mode": form.mode if form.resize else None,
        "jpeg_quality": form.quality if encodes else None,
        "shard_bytes": form.shard_bytes,
        "class_names": facts["class_names"],
        "splits": splits,
    }
    return json.loads(json.dumps(identity))


def _check_folder(output, identity):
    """ValueError unless `output` is new, empty, or the same data set, finished or not."""
    if not os.path.lexists(output):
        return
    if not os.path.isdir(output):
        raise ValueError(f"{output} is not a folder")
    plan = os.path.join(output, prepared.UNFINISHED, shards.PLAN)
    if os.path.isfile(os.path.join(output, prepared.INFO)):
        there = prepared.read_facts(output)["identity"]
    elif os.path.isfile(plan):
        there = files.read_json(plan)["identity"]
    elif set(os.listdir(output)) <= {prepared.UNFINISHED}:
        return
    else:
        raise ValueError(
            f"{output} is not empty and is not a prepared data set: choose another folder"
        )
    differing = [key for key in identity if there.get(key) != identity[key]]
    if differing:
        shown = "; ".join(
            f"{key}: {there.get(key)!r} there, {identity[key]!r} now"
            if key not in ("class_names", "splits")
            else f"{key} differ"
            for key in differing
        )
        raise ValueError(
            f"{output} was made from other data or options ({shown}): choose another folder, or "
            "delete it"
        )


@contextlib.contextmanager
def _locked(output):
    """Keeps other processes from writing to `output`; removes its own files if there is no plan."""
    unfinished = os.path.join(output, prepared.UNFINISHED)
    os.makedirs(unfinished, exist_ok=True)
    with open(os.path.join(unfinished, LOCK), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{output}: another process is preparing it now") from None
        try:
            yield
        finally:
            if not os.path.isfile(os.path.join(unfinished, shards.PLAN)):
                shutil.rmtree(unfinished, ignore_errors=True)
                with contextlib.suppress(OSError):  # not empty: a finished data set
                    os.rmdir(output)
