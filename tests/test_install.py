"""The lock files fit pyproject.toml, and an installed package is complete."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

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


def test_make_lists_its_targets_and_refuses_an_unknown_accelerator() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listing, refusal = (
        subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        for words in ([], ["env", "ACCELERATOR=abacus"])
    )
    assert [target for target in targets if f"make {target} " not in listing.stdout] == []
    assert refusal.returncode != 0 and "allowed are cpu and cuda12" in refusal.stderr
