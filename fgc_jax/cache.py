"""Where compiled programs and embeddings are kept between runs."""

import os
from pathlib import Path


def folder(name: str) -> Path:
    """The place for one kind of files in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fgc_jax" / name


def enable() -> None:
    """Keeps compiled programs in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR says
    another place. To be called before jax is imported, which reads these variables then."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder("jax")))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
