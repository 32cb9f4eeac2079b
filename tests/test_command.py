"""What the commands share: the program that starts them, recipes by name, errors and exit codes."""

import subprocess
import sys

import pytest

from fgc_jax import train
from fgc_jax.cli import command, program, recipe
from fgc_jax.runs import checkpoint, meter, stop
from tests import commands

CONVERT = "convert_weights --output=a.safetensors"
OWN = """'''My birds.

More of it.'''
from configs import common

def get_config(variant=""):
    config = common.get_config()
    config.seed = 77
    return config
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder is an empty one, with no other place of recipes than the package's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_help_lists_the_commands_at_once():
    """Without jax, which takes a second to import."""
    code = "import sys; from fgc_jax.cli import program; program.main(['--help']); "
    code += "assert not {'jax', 'tensorflow', 'absl'} & set(sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=commands.ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert out.startswith("example: fgc train --config=")
    for name, module in program.COMMANDS.items():
        assert f"  {name:18}  {module.__doc__.splitlines()[0]}\n" in out


@pytest.mark.parametrize("name", program.COMMANDS)
def test_help_of_each_command_begins_with_an_example_of_it(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        program.main([name.replace("_", "-"), "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: fgc {name}")


def test_each_command_has_its_script():
    tools = {"benchmark", "benchmark_data", "benchmark_methods", "make_golden", "sides"}
    tools |= {"checkout", "show_vit_collapse"}
    scripts = {path.stem for path in (commands.ROOT / "scripts").glob("*.py")} - tools
    assert scripts | {"train"} == program.COMMANDS.keys()


def test_an_unknown_command_names_the_nearest(capsys):
    assert program.main(["evalute"]) == 2
    assert "did you mean 'evaluate'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compare a --output=b.jpg", "must end in .png"),
        (CONVERT, "give either --model and --input, or --workdir"),
        (f"{CONVERT} --input=b --workdir=c", "give either --model and --input, or --workdir"),
        (f"{CONVERT} --input=b", "--input needs --model"),
        (f"{CONVERT} --input=b --model=vgg11 --checkpoint=last", "needs --model, and has no"),
        (f"{CONVERT} --workdir=b --model=vgg11", "--model has no effect with --workdir"),
        ("convert_weights --output=a.pth --input=b --model=vgg11", "must end in .safetensors"),
        (f"{CONVERT} --input=b --model=resnet19", "--model=resnet19 is unknown; similar: 'resnet1"),
        ("evaluate", "required: --workdir"),
        ("evaluate --workdir=a stray", "unrecognized arguments: stray"),
        ("evaluate --workdir=a --chekpoint=best", "unrecognized arguments"),
        ("evaluate --workdir=a --check=best", "unrecognized arguments"),  # no abbreviations
        ("evaluate --workdir=a --split=dev", "invalid choice: 'dev'"),
        ("evaluate --workdir=a --average=mean", "invalid choice: 'mean'"),
        ("evaluate --workdir=a --split=val --input=b", "--input replaces --split"),
        ("evaluate --workdir=a --label_column=1", "--label_column needs a CSV file"),
        ("evaluate --workdir=a --batch_size=0", "--batch_size: must be a whole number of at least"),
        ("inspect_dataset --name=folder --output=a --near_distance=17", "--near_distance"),
        ("list_models --tag", "unrecognized arguments: --tag"),
        ("plot_augmentations --output=a.jpg", "--output: 'a.jpg' must end in .png"),
        ("plot_augmentations --draws=0", "--draws: must be a whole number of at least 1"),
        ("plot_augmentations --size=8", "--size: must be a whole number of at least 32"),
        ("plot_augmentations --seed=-1", "--seed: must be a whole number of at least 0"),
        ("plot_schedule --config=a --output=b.pdf", "--output: 'b.pdf' must end in .png"),
        ("plot_schedule --config=a --train_images=0", "--train_images: must be a whole number"),
        ("plot_schedule --config=quickstart --epochs=3", "unrecognized arguments: --epochs=3"),
        ("prepare_dataset --output=a", "either --name"),
        ("prepare_dataset --output=a --verify --name=b", "either --name"),
        ("prepare_dataset --name=folder", "--output"),
        ("prepare_dataset --output=a --verify --threads=2 --root b", "--root has no effect"),
        ("prepare_dataset --output=a --verify --jpeg_quality=95", "--jpeg_quality has no effect"),
        ("prepare_dataset --output=a --name=b --resize_mode=short_side", "needs --resize"),
        ("probe", "one of the arguments --config --workdir is required"),
        ("probe --config=a --workdir=b", "not allowed with"),
        ("probe --workdir=a --config.seed=1", "has no effect with --workdir"),
        ("probe --config=a --checkpoint=best", "need --workdir"),
        ("probe --config=a --k=3", "need --method=knn"),
        ("probe --config=a --method=knn --temperature=0", "--temperature must be above 0"),
        ("probe --config=a stray", "unrecognized arguments: stray"),
        ("sweep", "required: --workdir"),
        ("sweep --workdir=a", "required: --config"),
        ("sweep --workdir=a --config=b stray", "unrecognized arguments: stray"),
        ("sweep --workdir=a --config=b --accelerators=-1", "a whole number of at least 0"),
        ("sweep --workdir=a --table --seeds=1", "give only --workdir"),
    ],
)
def test_wrong_usage_exits_with_2(words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        program.main(words.split())
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.rsplit("error: ", 1)[1]


def test_training_lists_the_recipes(capsys):
    with pytest.raises(SystemExit):
        program.main(["train", "--help"])
    out = capsys.readouterr().out
    names = {path.stem for path in (commands.ROOT / "configs").glob("*.py")}
    assert recipe.listing().keys() == names - {"common", "bundles"}
    for name, about in recipe.listing().items():
        assert about and f"{name:22}  {about}\n" in out


def test_a_recipe_is_found_by_its_name_or_file(folder):
    theirs = commands.ROOT / "configs" / "quickstart.py"
    assert recipe.find("quickstart") == recipe.find("configs/quickstart.py") == theirs
    (folder / "configs").mkdir()
    own = folder / "configs" / "mine.py"
    own.write_text(OWN)
    assert recipe.find("mine").resolve() == recipe.find(str(own)) == own
    assert recipe.listing()["mine"] == "My birds."
    assert recipe.read("mine", ["--config.log_every=5"]).to_dict()["seed"] == 77
    (folder / "configs" / "quickstart.py").write_text(OWN)
    assert recipe.read("quickstart").seed == 77  # the user's own comes first
    with pytest.raises(ValueError, match="there is no .*; did you mean 'quickstart'"):
        recipe.find("quikstart")
    (folder / "configs" / "broken.py").write_text("def get_config(")
    assert "cannot be read" in recipe.listing()["broken"]


def test_a_recipe_starts_from_the_files_beside_it(folder):
    """Those of the package from the package's common.py, whatever the user's configs/ contains."""
    (folder / "configs").mkdir()
    (folder / "configs" / "common.py").write_text("from ml_collections import ConfigDict as get")
    own = (
        "from configs import common\n\ndef get_config(variant=''):\n    return common.get({'a': 1})"
    )
    (folder / "configs" / "mine.py").write_text(own)
    for _ in range(2):
        assert recipe.read("mine").to_dict() == {"a": 1}
        assert recipe.read("quickstart:tiny", ["--config.seed=3"]).seed == 3


def test_a_run_goes_to_a_directory_named_after_its_recipe(folder, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(train, "run", lambda settings, workdir: trained.append(str(workdir)))
    for words in (
        ["--config=quickstart"],
        ["--config", "configs/bcnn_aircraft.py:sgd,tiny", "--config.seed=3"],
        ["--config=quickstart:tiny", "--workdir", "here"],
    ):
        assert program.main(["train", *words]) == 0
    assert trained == ["runs/quickstart", "runs/bcnn_aircraft-sgd-tiny", "here"]
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "The run directory is runs/quickstart; choose another one with --workdir=DIR."
    assert len(out) == 2


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ValueError("no"), 1, "error: no\n"),
        (FileNotFoundError(2, "gone", "a.jpg"), 1, "error: [Errno 2] gone: 'a.jpg'\n"),
        (meter.NonFiniteLoss("nan"), 1, "error: nan\n"),
        (checkpoint.CheckpointError("disk full"), 1, "error: disk full\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (stop.Stopped("stopped at step 3"), 143, "stopped at step 3; the same command continues\n"),
    ],
)
def test_errors_become_a_line_and_an_exit_code(error, code, told, capsys):
    def work(arguments):
        raise error

    parser = command.parser("Does nothing.\n\nExamples:\n    fgc nothing\n")
    assert command.run(work, parser.parse_args([])) == code
    assert capsys.readouterr().err == told
    if code == 1:
        with pytest.raises(type(error)):
            command.run(work, parser.parse_args(["--traceback"]))


def test_errors_in_the_code_are_not_hidden():
    def work(arguments):
        raise KeyError("bug")

    with pytest.raises(KeyError):
        command.run(work, command.parser("Fails.").parse_args([]))
