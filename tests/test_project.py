"""The rules of CONTRIBUTING.md that a program can check, read off the source itself.

Each check is a function from sources to a list of problems, so that every check is also shown to
find the problem that it exists for.
"""

import ast
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the lowest to the highest: a folder or file imports from its own layer and those below it.
LAYERS = (
    ("trees", "mesh", "console", "files"),
    ("config", "data", "convert"),
    ("models", "runs", "plots"),
    ("methods", "evaluation"),
    ("training",),
    ("train", "predict", "sweeps", "explain"),
    ("main", "cli", "configs", "scripts"),
)
# Narrower than the order: what these may not import although it stands above them.
FORBIDDEN = {
    "config": ("data", "convert", "mesh", "files"),
    "data": ("convert",),
    "convert": ("mesh", "console", "runs", "data"),
    "configs": ("main", "cli", "scripts", "train", "predict", "training", "runs", "plots"),
}
# Libraries that one place wraps, so that a change of theirs changes one file here. The oracles
# never become a dependency: only what compares with them may import them.
ONLY_IN = {
    "orbax": ("fgc_jax/runs/checkpoint.py",),
    "clu": ("fgc_jax/runs/writer.py", "fgc_jax/runs/wandb_writer.py"),
    "wandb": ("fgc_jax/runs/wandb_writer.py",),
    "tensorflow": (),
    "torch": (
        "scripts/make_golden.py",
        "scripts/benchmark.py",
        "scripts/benchmark_data.py",
        "scripts/benchmark_methods.py",
        "scripts/sides.py",
    ),
    "torchvision": ("scripts/make_golden.py", "scripts/benchmark_data.py"),
    "timm": ("scripts/make_golden.py", "scripts/benchmark.py", "scripts/benchmark_methods.py"),
}
# NNX builds modules and nothing more; `models.apply` is the bridge to plain JAX.
NNX_ONLY_IN = {"merge": ("fgc_jax/models/bridge.py",)}
NNX_BANNED = frozenset(
    "jit grad value_and_grad vmap pmap scan remat cond Optimizer ModelAndOptimizer Metric "
    "MultiMetric List Dict Sequential".split()
)
MAX_LINES, MAX_PARAMETERS, MAX_AT_TOP = 350, 7, 8
# Functions whose parameters are the options of a config, or a layer's.
OPTIONS = "csv_file:load attention:make pim:make_herbs plain:make vit:__init__ layers:__init__"

Sources = Mapping[str, str]  # path relative to the repository root -> text


def read_sources(*patterns: str) -> dict[str, str]:
    paths = sorted(path for pattern in patterns for path in ROOT.glob(pattern))
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


CODE = read_sources("fgc_jax/**/*.py", "configs/*.py", "scripts/*.py")
TESTS = read_sources("tests/**/*.py")
PAGES = read_sources("*.md", "docs/*.md")


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def unit(module: str) -> str:
    """'fgc_jax.models.backbones.resnet' -> 'models', 'scripts.evaluate' -> 'scripts'."""
    parts = module.split(".")
    return parts[1] if parts[0] == "fgc_jax" and len(parts) > 1 else parts[0]


def imports(path: str, text: str, modules: set[str]) -> Iterator[str]:
    """Every module that a file imports, anywhere in it; own ones as deep as they are files."""
    package = module_name(path).split(".")
    if not path.endswith("__init__.py"):
        package = package[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            outer = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*outer, *([node.module] if node.module else [])])
            for alias in node.names:
                deeper = f"{base}.{alias.name}"
                own = base == "fgc_jax" and not alias.name.startswith("__")
                yield deeper if own or deeper in modules else base


def import_graph(sources: Sources) -> dict[str, set[str]]:
    modules = {module_name(path) for path in sources}
    return {module_name(path): set(imports(path, text, modules)) for path, text in sources.items()}


def wrong_directions(sources: Sources) -> list[str]:
    row = {name: i for i, names in enumerate(LAYERS) for name in names}
    problems = []
    for module, targets in import_graph(sources).items():
        here = unit(module)
        if module == "fgc_jax":
            problems += [f"fgc_jax/__init__ imports {t}" for t in targets if "fgc_jax" in t]
            continue
        if here not in row:
            problems.append(f"{module} is in none of LAYERS: give it one")
            continue
        for target in sorted(targets):
            there = unit(target)
            if target.split(".")[0] not in ("fgc_jax", "configs", "scripts") or there == here:
                continue
            if there == "fgc_jax":  # only __version__ lives there
                continue
            if row.get(there, len(LAYERS)) > row[here] or there in FORBIDDEN.get(here, ()):
                problems.append(f"{module} must not import {target}")
    return problems


def cycles(sources: Sources) -> list[str]:
    graph = import_graph(sources)
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> list[str]:
        if module in trail:
            return [" -> ".join([*trail[trail.index(module) :], module])]
        if module in done or module not in graph:
            return []
        found = [c for target in sorted(graph[module]) for c in visit(target, (*trail, module))]
        done.add(module)
        return found

    return [cycle for module in graph for cycle in visit(module, ())]


def misplaced_libraries(sources: Sources) -> list[str]:
    problems = []
    for path, text in sources.items():
        for target in imports(path, text, set()):
            library = target.split(".")[0]
            if library in ONLY_IN and path not in ONLY_IN[library]:
                problems.append(f"{path} imports {target}; allowed in {ONLY_IN[library]}")
    return problems


def nnx_names(text: str) -> Iterator[str]:
    """X of every `nnx.X`, `flax.nnx.X` and `from flax.nnx import X`."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            owner = node.value
            if getattr(owner, "id", None) == "nnx" or getattr(owner, "attr", None) == "nnx":
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module == "flax.nnx":
            yield from (alias.name for alias in node.names)


def wrong_nnx(sources: Sources) -> list[str]:
    problems = []
    for path, text in sources.items():
        for name in nnx_names(text):
            if name in NNX_BANNED:
                problems.append(f"{path} uses nnx.{name}: plain JAX does that here")
            elif name in NNX_ONLY_IN and not path.startswith(NNX_ONLY_IN[name]):
                problems.append(f"{path} uses nnx.{name}: allowed in {NNX_ONLY_IN[name]}")
    return problems


def config_gets(sources: Sources) -> list[str]:
    """A second default for a key, away from the config file that shows the run."""
    problems = []
    for path, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = getattr(node.func.value, "id", getattr(node.func.value, "attr", ""))
            if node.func.attr == "get" and re.fullmatch(r"(\w+_)?(config|cfg)", owner):
                problems.append(f"{path}:{node.lineno} {owner}.get()")
    return problems


def long_files(sources: Sources) -> list[str]:
    lengths = {path: len(text.splitlines()) for path, text in sources.items()}
    return [f"{path} has {n} lines" for path, n in lengths.items() if n > MAX_LINES]


def long_signatures(sources: Sources) -> list[str]:
    problems = []
    for path, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                known = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                number = sum(each.arg not in ("self", "cls") for each in known)
                name = f"{Path(path).stem}:{node.name}"
                if number > MAX_PARAMETERS and name not in OPTIONS.split():
                    problems.append(f"{path}: {node.name} has {number} parameters")
    return problems


def crowded_top(sources: Sources) -> list[str]:
    top = [path for path in sources if re.fullmatch(r"fgc_jax/\w+\.py", path)]
    return [f"{len(top)} files in fgc_jax/: {', '.join(top)}"] if len(top) > MAX_AT_TOP else []


def code_spans(page: str) -> Iterator[str]:
    """Lines of fenced blocks (continued lines joined) and inline code of a Markdown page."""
    fence = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
    for block in fence.findall(page):
        yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"`([^`\n]+)`", fence.sub("", page))


def dead_commands(pages: Sources, sources: Sources, makefile: str, files: set[str]) -> list[str]:
    """Commands, flags, paths and links in the documentation that lead nowhere."""
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    problems = []
    for path, page in pages.items():
        folder = Path(path).parent
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page):
            if (folder / link).as_posix() not in files:
                problems.append(f"{path}: link to {link}")
        for span in code_spans(page):
            problems += [
                f"{path}: make {name}"
                for name in re.findall(r"^(?:\$ )?make ([a-z][\w-]*)", span)
                if name not in targets
            ]
            named = re.findall(r"(?<![\w/])(?:fgc_jax|configs|scripts|tests|docs)/[\w/.-]+\w", span)
            named = [name for name in named if "NAME" not in name]
            problems += [f"{path}: {name}" for name in named if name not in files]
            run = re.search(r"python -m fgc_jax\.(\w+)|python scripts/(\w+)\.py|\bfgc (\w+)", span)
            if run is None:
                continue
            # A command's flags are those of its module in cli/; developers' tools have their own.
            command = run[2] or run[3] or ("train" if run[1] == "main" else "")
            program = f"fgc_jax/cli/{command}.py"
            program = program if program in sources else f"scripts/{run[2]}.py"
            if program not in sources:
                problems += [f"{path}: {run[0]}"] if not run[2] else []
                continue
            text = sources[program] + sources["fgc_jax/cli/command.py"]
            for shared in ("recipe", "run_flags", "data_flags"):
                if f"{shared}.add" in text:
                    text += sources[f"fgc_jax/cli/{shared}.py"]
            problems += [
                f"{path}: {program} has no flag --{flag}"
                for flag in re.findall(r"\s--(\w+)", span[run.end() :])
                if not re.search(rf"[\"'](--)?{flag}[\"']", text)
            ]
    return problems


def repository_files() -> set[str]:
    found = set()
    for folder, names, files in os.walk(ROOT):
        left_out = ("runs", "build", "dist") if Path(folder) == ROOT else ()
        names[:] = [n for n in names if not n.startswith(".") and n not in left_out]
        found |= {Path(folder, name).relative_to(ROOT).as_posix() for name in names + files}
    return found


def check_pages(pages: Sources) -> list[str]:
    return dead_commands(pages, CODE, (ROOT / "Makefile").read_text(), repository_files())


CHECKS = {
    "direction": lambda: wrong_directions(CODE),
    "cycles": lambda: cycles(CODE),
    "libraries": lambda: misplaced_libraries(CODE),
    "nnx": lambda: wrong_nnx(CODE),
    "config_get": lambda: config_gets(CODE),
    "length": lambda: long_files(CODE | TESTS),
    "signatures": lambda: long_signatures(CODE),
    "top": lambda: crowded_top(CODE),
    "pages": lambda: check_pages(PAGES),
}


@pytest.mark.parametrize("name", CHECKS)
def test_source_keeps_the_rule(name: str) -> None:
    problems = CHECKS[name]()
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("check", "sources"),
    [
        (wrong_directions, {"fgc_jax/trees.py": "from fgc_jax import models"}),
        (wrong_directions, {"fgc_jax/models/backbones/vgg.py": "import fgc_jax.train"}),
        (wrong_directions, {"fgc_jax/models/backbones/vgg.py": "from ... import train"}),
        (wrong_directions, {"fgc_jax/models/conv.py": "def f():\n    import fgc_jax.train"}),
        (wrong_directions, {"fgc_jax/data/folder.py": "from fgc_jax.models import conv"}),
        (wrong_directions, {"fgc_jax/convert/timm.py": "from fgc_jax import mesh"}),
        (wrong_directions, {"fgc_jax/utils.py": ""}),
        (wrong_directions, {"fgc_jax/__init__.py": "from fgc_jax import models"}),
        (wrong_directions, {"fgc_jax/train.py": "import scripts.evaluate"}),
        (wrong_directions, {"configs/vgg.py": "from fgc_jax import train"}),
        (
            cycles,
            {
                "fgc_jax/training/step.py": "from fgc_jax.training import optim",
                "fgc_jax/training/optim.py": "from fgc_jax.training import step",
            },
        ),
        (misplaced_libraries, {"fgc_jax/train.py": "import orbax.checkpoint as ocp"}),
        (misplaced_libraries, {"fgc_jax/train.py": "from clu import metric_writers"}),
        (misplaced_libraries, {"fgc_jax/convert/torch_file.py": "def f():\n    import torch"}),
        (wrong_nnx, {"fgc_jax/train.py": "step = nnx.jit(f)"}),
        (wrong_nnx, {"fgc_jax/training/step.py": "from flax.nnx import Optimizer"}),
        (wrong_nnx, {"fgc_jax/training/step.py": "import flax\nflax.nnx.grad(f)"}),
        (wrong_nnx, {"fgc_jax/train.py": "model = nnx.merge(graphdef, state)"}),
        (config_gets, {"fgc_jax/train.py": "x = config.get('seed', 0)"}),
        (config_gets, {"fgc_jax/train.py": "x = self.model_config.get('seed')"}),
        (long_files, {"fgc_jax/train.py": "x = 1\n" * (MAX_LINES + 1)}),
        (long_signatures, {"fgc_jax/train.py": "def f(a, b, c, d, e, f, *, g, h):\n    pass"}),
        (crowded_top, {f"fgc_jax/{name}.py": "" for name in "abcdefghi"}),
        (check_pages, {"README.md": "Run `make coffee`."}),
        (check_pages, {"README.md": "```\npython -m fgc_jax.coffee\n```"}),
        (check_pages, {"README.md": "```\npython scripts/coffee.py\n```"}),
        (check_pages, {"README.md": "```\nfgc coffee\n```"}),
        (check_pages, {"README.md": "```\nfgc train --coffee=black\n```"}),
        (check_pages, {"README.md": "```\npython scripts/evaluate.py --coffee=black\n```"}),
        (check_pages, {"README.md": "```\npython scripts/benchmark.py --coffee=black\n```"}),
        (check_pages, {"README.md": "```\npython -m fgc_jax.main \\\n  --coffee=black\n```"}),
        (check_pages, {"README.md": "see `configs/coffee.py`"}),
        (check_pages, {"docs/data.md": "see [there](coffee.md)"}),
    ],
)
def test_check_finds_the_problem(check, sources: dict[str, str]) -> None:
    assert len(check(sources)) == 1


def test_checks_pass_what_is_right() -> None:
    sources = {
        "fgc_jax/models/__init__.py": "from fgc_jax.models import conv\nfrom fgc_jax import trees",
        "fgc_jax/models/backbones/vgg.py": "from flax import nnx\nfrom fgc_jax.models import conv",
        "fgc_jax/models/conv.py": "import jax",
        "fgc_jax/models/bridge.py": "from flax import nnx\nnnx.merge(g, s)",
        "fgc_jax/training/step.py": "from fgc_jax import data",
        "fgc_jax/runs/checkpoint.py": "import orbax.checkpoint",
    }
    checks = (wrong_directions, cycles, misplaced_libraries, wrong_nnx, config_gets, long_files)
    assert [check(sources) for check in checks] == [[]] * len(checks)
