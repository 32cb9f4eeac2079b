"""The files of a prepared data set: the plan of the shards, writing them, and the index.

A shard gets its name when it is complete. Until the data set is complete, the plan and a note
about each written shard are in the folder `unfinished`.
"""

import hashlib
import itertools
import json
import math
import os
import re
import shutil
import zipfile
from concurrent import futures

import numpy as np
from array_record.python import array_record_module

from fgc_jax import files
from fgc_jax.data import concurrency, dataset, records
from fgc_jax.data.sources import prepared

PLAN, BAD_IMAGES, METADATA = "plan.json", "unreadable.txt", "metadata"
# Each shard that is read takes a file descriptor; systems allow 1,024 of them by default.
MOST_SHARDS = 256
SAMPLES = 48  # images that are encoded first, to estimate the total size
SPARE = 2**26  # bytes that stay free on the disk
# Uncompressed: image files hardly shrink, and reading them takes twice as long.
WRITER_OPTIONS = "group_size:1,uncompressed"


def plan(encoder, output, identity):
    """The plan in `output`, written there if there is none: {"identity", "record_bytes",
    "shards": [{"split", "start", "stop", "file"}]}. ValueError if the disk is too small."""
    path = os.path.join(output, prepared.UNFINISHED, PLAN)
    if os.path.isfile(path):
        made = files.read_json(path)
    else:
        mean = _record_bytes(encoder)
        made = {"identity": identity, "record_bytes": mean, "shards": []}
        for name, split in encoder.data.splits.items():
            wanted = math.ceil(mean * len(split) / identity["shard_bytes"])
            count = min(max(1, wanted), MOST_SHARDS, len(split))
            bounds = np.linspace(0, len(split), count + 1).round().astype(int).tolist()
            for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
                file = f"{_file_name(identity['name'])}-{name}.array_record"
                file = f"{file}-{number:05d}-of-{count:05d}"
                made["shards"].append({"split": name, "start": start, "stop": stop, "file": file})
    needed = made["record_bytes"] * sum(map(len, encoder.data.splits.values())) + SPARE
    written = (os.path.join(output, shard["file"]) for shard in made["shards"])
    needed -= sum(os.path.getsize(file) for file in written if os.path.isfile(file))
    free = shutil.disk_usage(output).free
    if needed > free:
        raise ValueError(
            f"{output}: about {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free there"
        )
    if not os.path.isfile(path):
        files.write_json(path, made)
    return made


def _file_name(name):
    """A data set's name in the form that TFDS allows in file names."""
    return re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_") or "prepared"


def _record_bytes(encoder):
    """Mean size of a record in bytes, from SAMPLES images."""
    splits = encoder.data.splits
    step = math.ceil(sum(map(len, splits.values())) / SAMPLES)
    some = list(itertools.islice(concurrency.places(splits), 0, None, step))
    with futures.ThreadPoolExecutor(concurrency.available()) as pool:
        sizes = [len(record.data) for record in pool.map(encoder, some)]
    return sum(sizes) / max(1, sum(size > 0 for size in sizes))


def write(encoder, output, plan, skip, threads):
    """Writes the missing shards.

    `skip` leaves unreadable images out. Without it, shards with unreadable images are not written.

    Raises:
        ValueError: images cannot be read; raised after all other shards are written.
    """
    for entry in os.scandir(os.path.join(output, prepared.UNFINISHED)):
        if entry.name.endswith(files.UNFINISHED):
            os.remove(entry.path)
    missing = [shard for shard in plan["shards"] if not _complete(encoder, output, shard, skip)]
    total = sum(shard["stop"] - shard["start"] for shard in plan["shards"])
    left = sum(shard["stop"] - shard["start"] for shard in missing)
    places = (
        (shard["split"], i) for shard in missing for i in range(shard["start"], shard["stop"])
    )
    results = concurrency.ordered(
        encoder, places, "prepare", total, threads=threads, initial=total - left
    )
    bad = []
    for shard in missing:
        stamp = _stamp(encoder, shard)
        bad += _write_shard(output, shard, results, stamp, skip)
    results.close()
    if bad and not skip:
        path = os.path.join(output, prepared.UNFINISHED, BAD_IMAGES)
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{problem}\n" for problem in bad)
        refuse(
            f"{len(bad)} images cannot be read (all in {path}); repair them and run the command "
            "again, or leave them out with --on_bad_image=skip",
            bad,
        )


def _write_shard(output, shard, results, stamp, skip):
    """Writes one shard and its note; returns the reasons why images are not in it."""
    unfinished = os.path.join(output, prepared.UNFINISHED)
    temporary = os.path.join(unfinished, shard["file"] + files.UNFINISHED)
    bad, kept, ragged, payload = {}, [], [], 0
    try:
        writer = array_record_module.ArrayRecordWriter(temporary, WRITER_OPTIONS)
        for index in range(shard["start"], shard["stop"]):
            record = next(results)
            if record.error:
                bad[index] = record.error
                continue
            writer.write(record.data)
            payload += len(record.data)
            kept.append({"source_indices": np.int64(index), **record.row})
            ragged.append(record.ragged)
        writer.close()
    except RuntimeError as error:
        raise ValueError(f"{temporary}: cannot be written ({error})") from error
    if bad and not skip:
        os.remove(temporary)
        return list(bad.values())
    note = {"records": len(kept), "bytes": os.path.getsize(temporary), "payload": payload}
    note |= {"bad": bad, "stamp": stamp}
    columns = {key: np.stack([row[key] for row in kept]) for key in (kept or [{}])[0]}
    for kind in (ragged or [{}])[0]:
        columns[kind] = np.concatenate([arrays[kind] for arrays in ragged])
        columns[f"{kind}_rows"] = np.array([len(arrays[kind]) for arrays in ragged], np.int32)
    files.sync(temporary)
    _write_arrays(_note(output, shard), columns | {"note": np.array(json.dumps(note))})
    os.replace(temporary, os.path.join(output, shard["file"]))
    return list(bad.values())


def _complete(encoder, output, shard, skip):
    """Whether a shard is there, from the files as they are now."""
    note, path = _read_note(output, shard), os.path.join(output, shard["file"])
    if note is None or not os.path.isfile(path):
        return False
    facts = note["note"]
    if facts["bad"] and not skip:
        return False
    return os.path.getsize(path) == facts["bytes"] and facts["stamp"] == _stamp(encoder, shard)


def _stamp(encoder, shard):
    """A hash of the sizes of the files that a shard is made from."""
    digest = hashlib.sha256()
    read = encoder.data.splits[shard["split"]].read
    for index in range(shard["start"], shard["stop"]):
        path = records.source_file(read, index)
        if path is None:
            continue
        try:
            digest.update(b"%d " % os.path.getsize(path))
        except OSError:
            digest.update(b"missing ")
    return digest.hexdigest()


def write_metadata(encoder, output, plan):
    """Writes the index, the facts and the files of TFDS, except INFO, which `publish` moves."""
    import tensorflow_datasets as tfds

    data, identity = encoder.data, plan["identity"]
    index, splits, skipped, infos = {}, {}, {}, []
    template = tfds.core.ShardedFileTemplate(
        data_dir=output,
        dataset_name=_file_name(identity["name"]),
        filetype_suffix="array_record",
    )
    for name, split in data.splits.items():
        mine = [shard for shard in plan["shards"] if shard["split"] == name]
        notes = [_read_note(output, shard) for shard in mine]
        lengths = [note["note"]["records"] for note in notes]
        full = [note for note in notes if note["note"]["records"]]
        if not full:
            raise ValueError(f"{data.name}: no image of {name!r} can be read")
        columns = {
            key: np.concatenate([note[key] for note in full]) for key in full[0] if key != "note"
        }
        kept = columns["source_indices"]
        names = dataset.text_array(split.names)[kept]
        columns["names"] = np.frombuffer("\0".join(names).encode(), np.uint8)
        columns["labels"] = split.labels[kept]
        index |= {f"{name}/{key}": value for key, value in columns.items()}
        sizes = [note["note"]["bytes"] for note in notes]
        rows = zip(mine, lengths, sizes, strict=True)
        counts = np.bincount(split.labels[kept], minlength=len(data.class_names))
        splits[name] = {
            "shards": [{"file": s["file"], "records": n, "bytes": b} for s, n, b in rows],
            "class_counts": counts.tolist(),
        }
        bad = {int(i): text for note in notes for i, text in note["note"]["bad"].items()}
        for i, text in bad.items():  # two splits may have images of the same name
            file = str(split.names[i])
            skipped[f"{name}/{file}" if file in skipped else file] = text
        payload = sum(note["note"]["payload"] for note in notes)
        infos.append(
            tfds.core.SplitInfo(
                name=name,
                shard_lengths=lengths,
                num_bytes=payload,
                filename_template=template.replace(split=name),
            )
        )
    facts = _facts(encoder, identity, splits, skipped)
    _write_arrays(os.path.join(output, prepared.INDEX), index)
    files.write_json(os.path.join(output, prepared.FACTS), facts)
    _write_info(encoder, output, template.dataset_name, facts["dataset"], infos)
    return facts


def _facts(encoder, identity, splits, skipped):
    data = encoder.data
    kinds = {kind for split in data.splits.values() for kind in split.annotations}
    left_out = sorted(kinds - set(prepared.RAGGED))
    notes = [data.notes, str(encoder.form)]
    if left_out:
        notes.append(f"without {', '.join(left_out)}")
    if skipped:
        notes.append(f"without {len(skipped)} unreadable images")
    about = data.facts() | {
        "notes": "; ".join(filter(None, notes)),
        "hierarchy": data.hierarchy,
        "part_names": data.part_names,
    }
    del about["splits"]
    return {
        "format": prepared.FORMAT,
        "identity": identity,
        "dataset": about,
        "splits": splits,
        "skipped": skipped,
    }


def _write_info(encoder, output, name, about, infos):
    import tensorflow_datasets as tfds

    folder = os.path.join(output, prepared.UNFINISHED, METADATA)
    os.makedirs(folder, exist_ok=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name, version=tfds.core.Version("1.0.0"), data_dir=output, module_name=""
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description=f"{about['name']}: {about['notes']}",
        features=encoder.features,
        supervised_keys=("image", "label"),
        license=about["licence"] or None,
    )
    info.set_file_format("array_record")
    info.set_splits(tfds.core.splits.SplitDict(infos))
    info.write_to_directory(folder)
    for file in os.listdir(folder):
        if file != prepared.INFO:
            os.replace(os.path.join(folder, file), os.path.join(output, file))


def publish(output):
    """The last step: after it the folder is a complete data set."""
    unfinished = os.path.join(output, prepared.UNFINISHED)
    made = os.path.join(unfinished, METADATA, prepared.INFO)
    files.sync(made)
    os.replace(made, os.path.join(output, prepared.INFO))
    shutil.rmtree(unfinished)


def refuse(message, problems, most=20):
    """Raises ValueError: the message and the first `most` of the `problems`, one on each line."""
    more = [f"and {len(problems) - most} more"] if len(problems) > most else []
    raise ValueError("\n  ".join([f"{message}:", *map(str, problems[:most]), *more]))


def _write_arrays(path, arrays):
    with files.whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _note(output, shard):
    return os.path.join(output, prepared.UNFINISHED, shard["file"] + ".npz")


def _read_note(output, shard):
    """The note about a written shard; None if the shard is not complete."""
    path = _note(output, shard)
    if not os.path.isfile(path):
        return None
    try:
        with np.load(path, allow_pickle=False) as members:
            note = {key: members[key] for key in members.files}
        return note | {"note": json.loads(str(note["note"]))}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
