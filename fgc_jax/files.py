"""Files that are written completely or not at all, and the folders of cached files."""

import contextlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

UNFINISHED = ".tmp"  # ending of a file that is being written, or whose writer was killed


def cache(name: str) -> Path:
    """The folder for one kind of files in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fgc_jax" / name


def keep_compiled() -> None:
    """Caches compiled programs in JAX_COMPILATION_CACHE_DIR, or else in the user's cache folder.
    Call it before jax is imported, because jax reads these variables at import."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache("jax")))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yields the name of a temporary file to write; it is renamed to `path` if there is no error.

    The temporary file is in the folder of `path`, which is created. Its name is random: if several
    processes, threads or machines write the same file, the last one wins. A reader never reads an
    incomplete file, even after a power cut.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{UNFINISHED}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: str | Path) -> None:
    """Waits until a file is on the disk. Without this, a power cut may keep the renamed file but
    lose its content."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_json(path: str | Path, value: Any) -> None:
    """Writes JSON, completely or not at all. NaN and infinity become null."""
    with whole(path) as temporary:
        text = json.dumps(_finite(value), indent=2, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file. Raises ValueError naming the file if it is missing or invalid."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: is {path.parent} the right folder?") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
