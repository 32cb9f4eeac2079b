"""What every test shares: one platform, strict broadcasting, a compile cache, quiet TensorFlow.

JAX reads these variables when it is first imported, and processes that tests start inherit them,
so they are set in the environment rather than through `jax.config`.
"""

import os
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "jax"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import jax  # noqa: E402  (after the environment)
import pytest  # noqa: E402
from absl import flags  # noqa: E402


def pytest_configure() -> None:
    """Lets tests read absl flags, which libraries define and only `absl.app` parses."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with `run`, a run directory as if trained, and its `data`: see tests/tiny_run.py."""
    from tests import tiny_run

    return tiny_run.write_both(tmp_path_factory.mktemp("tiny"), feature_map="stage1")


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """24 images of three classes, of which 6 become the validation split, and 15 to test."""
    from tests import tiny_run

    return tiny_run.write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def compiled_quickly():
    """Programs are compiled without LLVM's optimisations: for modules whose programs run once.

    XLA's own passes stay, so what a program computes, and keeps in memory, is the same.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
