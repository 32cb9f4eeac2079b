"""The lock files fit pyproject.toml, and the Makefile's environments are made once and repaired."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("requirements.lock", "requirements-parity.txt")


def read_lock(name: str) -> dict[str, str]:
    """Package name -> its one pinned version."""
    pins: dict[str, str] = {}
    for line in (ROOT / name).read_text().splitlines():
        if line.lstrip().startswith("#"):
            continue
        found = re.fullmatch(r"([\w.-]+)==([\w.+!]+)( ; .+)?", line)
        assert found, f"{name}: {line!r} is not a plain pin"
        package = str(canonicalize_name(found[1]))
        assert pins.setdefault(package, found[2]) == found[2], f"{name}: {package} twice"
    return pins


def unlocked(requirements: list[str], pins: dict[str, str]) -> list[str]:
    problems = []
    for text in requirements:
        requirement = Requirement(text)
        version = pins.get(str(canonicalize_name(requirement.name)))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{text}: locked is {version}; run `make lock`")
    return problems


def test_lock_satisfies_every_dependency() -> None:
    project = PROJECT["project"]
    extras = [text for extra in project["optional-dependencies"].values() for text in extra]
    assert unlocked(project["dependencies"] + extras, read_lock(LOCKS[0])) == []
    assert unlocked(PROJECT["dependency-groups"]["parity"], read_lock(LOCKS[1])) == []
    assert len(unlocked(["jax<0.1", "coffee"], read_lock(LOCKS[0]))) == 2


def test_locks_agree() -> None:
    main, parity = map(read_lock, LOCKS)
    different = {name for name in main.keys() & parity.keys() if main[name] != parity[name]}
    assert different == set()


def test_oracles_are_no_dependency() -> None:
    assert not {"torch", "torchvision", "timm"} & read_lock(LOCKS[0]).keys()


OWN_RECIPE = """
from configs import common, own


def get_config(variant=""):
    assert "bundled" in common.__file__ and "bundled" not in own.__file__
    return common.get_config()
"""
PROGRAM = """
import pathlib, sys

# An editable installation of a checkout would help out.
sys.path = [x for x in sys.path if not pathlib.Path(x, "configs", "common.py").exists()]
from fgc_jax.cli import recipe
from {module} import {function}

for name in ("mine", "quickstart:tiny", "configs/quickstart.py"):
    assert recipe.read(name).seed == 0
    assert recipe.find(name.partition(":")[0]).exists()
sys.exit({function}())
"""


def test_an_installed_package_has_its_recipes_and_its_program(tmp_path: Path) -> None:
    """The wheel's files, laid out as pyproject.toml says, away from the checkout; the user's own
    recipes import each other and those of the package."""
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    files = {name: name for name in wheel["packages"]} | wheel["force-include"]
    assert {Path(target).parts[0] for target in files.values()} == {"fgc_jax"}
    for source, target in files.items():
        no_caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / source, tmp_path / "site" / target, ignore=no_caches)
    own = tmp_path / "work" / "configs"
    own.mkdir(parents=True)
    (own / "mine.py").write_text(OWN_RECIPE)
    (own / "own.py").touch()
    module, _, function = PROJECT["project"]["scripts"]["fgc"].partition(":")
    program = tmp_path / "fgc"
    program.write_text(PROGRAM.format(module=module, function=function))
    out = subprocess.run(
        [sys.executable, program, "--help"],
        cwd=own.parent,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "evaluate" in out


# Stands in for Python: answers the version check, makes an "environment" that holds itself, and
# records pip's arguments; pip fails while FAIL exists.
FAKE_PYTHON = """#!/bin/sh
case "$1 $2" in
"-c "*) cat "{version}" ;;
"-m venv") mkdir -p "$3/bin" "$3/lib/python$(cat "{version}")" && cp "$0" "$3/bin/python" ;;
"-m pip") echo "$@" >> "{log}"; [ ! -e "{fail}" ] ;;
*) echo "unexpected: $@" >&2; exit 2 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what `make` reads, with a stand-in for Python."""
    for name in ("Makefile", "pyproject.toml", *LOCKS):
        shutil.copy(ROOT / name, tmp_path)
    names = {name: tmp_path / name for name in ("version", "log", "fail")}
    names["version"].write_text("3.12\n")
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON.format(**names))
    python.chmod(0o755)
    return tmp_path


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    command = ["make", f"PYTHON={checkout / 'python'}", *arguments]
    return subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def installs(checkout: Path) -> list[str]:
    return (checkout / "log").read_text().splitlines()


def test_environment_is_made_once_and_again_after_a_change(checkout: Path) -> None:
    (checkout / "fail").touch()
    assert make(checkout, "env").returncode != 0
    (checkout / "fail").unlink()
    for made in (2, 2):  # a failed installation is not taken for an environment
        assert make(checkout, "env").returncode == 0
        assert len(installs(checkout)) == made
    assert "requirements.lock" in installs(checkout)[0]
    stamp = checkout / ".venv/installed-cpu"
    later = stamp.stat().st_mtime + 10
    os.utime(checkout / "requirements.lock", (later, later))
    (checkout / "version").write_text("3.13\n")
    assert make(checkout, "env").returncode == 0
    assert len(installs(checkout)) == 3
    assert [path.name for path in (checkout / ".venv/lib").iterdir()] == ["python3.13"]


def test_accelerator_and_parity_are_installed_from_the_lock(checkout: Path) -> None:
    assert make(checkout, "env", "ACCELERATOR=cuda12").returncode == 0
    assert installs(checkout)[0].endswith(".[cuda12,quickstart,test]")
    refused = make(checkout, "env", "ACCELERATOR=abacus")
    assert refused.returncode != 0 and "allowed are cpu and cuda12" in refused.stderr
    assert make(checkout, "parity-env").returncode == 0
    assert "--constraint requirements.lock" in installs(checkout)[1]
    assert "--requirement requirements-parity.txt" in installs(checkout)[1]


def test_no_suitable_python_is_said_clearly(checkout: Path) -> None:
    (checkout / "python").write_text("#!/bin/sh\nexit 1\n")
    result = make(checkout, "env")
    assert result.returncode != 0
    assert "Python 3.11, 3.12 or 3.13" in result.stderr
    assert not (checkout / ".venv").exists()


def test_help_lists_every_target(checkout: Path) -> None:
    text = make(checkout).stdout
    targets = re.findall(r"^([a-z][a-z-]*):", (checkout / "Makefile").read_text(), re.MULTILINE)
    assert [target for target in targets if f"make {target} " not in text] == []
