"""Worker processes of the data pipeline do not outlive the run."""

import glob
import os
import subprocess
import sys
import textwrap
import time

from tests import data_files


def test_workers_end_when_their_parent_is_killed(tmp_path):
    root = data_files.write_folder(tmp_path / "data", classes=("a", "b"), splits=17)
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent("""
        import sys, time
        from absl import flags
        from fgc_jax import data
        from fgc_jax.data import pipeline

        if __name__ == "__main__":
            flags.FLAGS.mark_as_parsed()
            split = data.load("folder", sys.argv[1], {"test_fraction": 0}).splits["train"]
            transform = pipeline.Transform(32, "squash", 24, True, "bilinear")
            batches = pipeline.train_batches(
                split, transform, pipeline.Reader(workers=1), batch_size=8, seed=0
            )
            next(batches)
            print("ready", flush=True)
            time.sleep(60)
        """)
    )
    path = os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])])
    parent = subprocess.Popen(
        [sys.executable, script, root],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": path},
        text=True,
    )
    try:
        assert parent.stdout.readline() == "ready\n"
        children = _descendants(parent.pid)
        assert children
        parent.kill()
        parent.wait(10)
        deadline = time.monotonic() + 15
        while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not [pid for pid in children if _alive(pid)]
    finally:
        parent.kill()
        parent.wait(10)
        parent.stdout.close()


def _descendants(pid):
    """Process numbers of the children of `pid`, and of theirs."""
    children = [child for child, (_, parent) in _processes().items() if parent == pid]
    return children + [grandchild for child in children for grandchild in _descendants(child)]


def _alive(pid):
    return _processes().get(pid, ("Z", 0))[0] != "Z"


def _processes():
    """{process number: (state, parent's number)} of all there are."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        found[int(path.split("/")[2])] = (state, int(parent))
    return found
