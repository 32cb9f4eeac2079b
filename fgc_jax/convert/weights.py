"""Reads a set of weights from a file, a directory, an installed package or the Hugging Face hub."""

import importlib.metadata
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors

from fgc_jax.config import Weights
from fgc_jax.convert import torch_file

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_PREFERRED = ("model.safetensors", "pytorch_model.bin")
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read(spec: str, advice: str = "") -> dict[str, np.ndarray]:
    """State dict of `spec`: names as stored -> arrays as stored.

    spec: a file (.safetensors, .pth, .pt, .bin), a directory with one, "package:NAME" (an
    installed distribution that contains one) or "hub:OWNER/NAME[@REVISION]" (cached by
    huggingface_hub; HF_HUB_OFFLINE=1 reads the cache only). advice: text for the end of the error
    message if the weights are missing.

    Raises:
        ValueError: the weights are missing or not readable, or contain other things than tensors.
    """
    return read_file(locate(Weights.parse(spec), advice))


def read_file(path: Path) -> dict[str, np.ndarray]:
    """State dict of a file, even if it has the suffix of the other format. Raises ValueError."""
    with path.open("rb") as file:
        first = file.read(9)
    # A safetensors file is the length of a JSON header, then the header; a PyTorch file is a ZIP
    # archive or a pickle. For any other file the suffix decides about the error message.
    torch = first.startswith((b"PK", b"\x80\x02")) or path.suffix != ".safetensors"
    if first[8:] == b"{" or not torch:
        return _read_safetensors(path)
    return torch_file.read(path)


def metadata(path: Path) -> dict[str, str]:
    """The metadata of a .safetensors file; {} for a file of any other kind."""
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return file.metadata() or {}
    except safetensors.SafetensorError:
        return {}


def locate(source: Weights, advice: str = "") -> Path:
    """The local file of a source; downloads it from the hub if necessary. Raises ValueError."""
    try:
        if source.kind == "package":
            return _in_package(source.name)
        if source.kind == "hub":
            return _from_hub(source.name, source.revision)
        path = Path(source.name).expanduser()
        if path.is_dir():
            return _choose([p for p in sorted(path.iterdir()) if p.suffix in SUFFIXES], str(path))
        if not path.is_file():
            raise ValueError(f"no such file or directory: {path}")
        if path.suffix not in SUFFIXES:
            raise ValueError(f"{path} must end in one of {', '.join(SUFFIXES)}")
        return path
    except ValueError as error:
        advice = f"\n{advice}" if advice else ""
        raise ValueError(f"cannot get the weights {source!r}: {error}{advice}") from error


def _choose(files, place):
    for name in _PREFERRED:
        for path in files:
            if path.name == name:
                return path
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise ValueError(
            f"{place} must contain one weights file ({', '.join(SUFFIXES)}) or one named "
            f"{' or '.join(_PREFERRED)}; found: {names}"
        )
    return files[0]


def _in_package(name):
    try:
        files = importlib.metadata.distribution(name).files or ()
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"the package {name} is not installed: pip install {name}") from None
    # Located through the package's list of files, so that none of its code is imported.
    found = [Path(file.locate()) for file in files if Path(file.name).suffix in SUFFIXES]
    return _choose([path for path in found if path.is_file()], f"package {name}")


def _from_hub(repo, revision):
    # Imported here, because it takes half a second and other sources do not need it.
    import huggingface_hub
    from huggingface_hub import errors

    # The cache first: published weights do not change, and this needs no network.
    for local in (True, False):
        for file in _PREFERRED:
            try:
                path = huggingface_hub.hf_hub_download(
                    repo, file, revision=revision or None, local_files_only=local
                )
                return Path(path)
            except errors.LocalEntryNotFoundError as error:
                if not local:
                    off = huggingface_hub.constants.HF_HUB_OFFLINE
                    why = "HF_HUB_OFFLINE is set" if off else "the hub cannot be reached"
                    raise ValueError(f"{repo} is not in the local cache, and {why}") from error
            except errors.EntryNotFoundError:
                continue
            except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
                raise ValueError(f"{repo}: {error}") from error
    raise ValueError(f"the hub repository {repo} contains neither {' nor '.join(_PREFERRED)}")


def _read_safetensors(path):
    try:
        entries = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is truncated or not a safetensors file: "
            f"{error}"
        ) from None
    state = {}
    for key, entry in entries:
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"{path}: {key} has the type {entry['dtype']}, which is not supported")
        data = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]])
        state[key] = data.reshape(entry["shape"])
    return state
