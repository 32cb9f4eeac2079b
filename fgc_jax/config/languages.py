"""The small languages of a config: texts with a grammar, parsed once, when a config is read.

Each is a dataclass with the parts of the text; `str` returns the text, and `bool` is False for an
empty text.
"""

import dataclasses
import re
from typing import ClassVar, Self


@dataclasses.dataclass(frozen=True)
class Text:
    """`FORMS`: each form as error messages show it -> its regular expression, whose named groups
    are fields."""

    text: str
    FORMS: ClassVar[dict[str, str]]

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The parts of a text, or None if it has none of the forms."""
        kinds = {field.name: field.type for field in dataclasses.fields(cls)}
        for pattern in cls.FORMS.values():
            if found := re.fullmatch(pattern, text):
                parts = {name: part for name, part in found.groupdict().items() if part}
                return cls(text, **{name: kinds[name](part) for name, part in parts.items()})
        return None

    @classmethod
    def allowed(cls) -> str:
        """The forms, for an error message."""
        return ("one of " if len(cls.FORMS) > 1 else "") + ", ".join(cls.FORMS)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return repr(self.text)

    def __bool__(self) -> bool:
        return bool(self.text)


@dataclasses.dataclass(frozen=True, repr=False)
class Average(Text):
    """Which weights are averaged: "ema 0.999", "swa 5" (the last epochs) or "" for none."""

    kind: str = ""  # "ema" or "swa"
    decay: float = 0.0  # of "ema"
    epochs: int = 0  # of "swa"

    FORMS = {
        "''": "",
        "'ema DECAY' (as 'ema 0.999')": r"(?P<kind>ema) (?P<decay>0\.\d*[1-9]\d*)",
        "'swa N' (the last N > 1 epochs)": r"(?P<kind>swa) (?P<epochs>[2-9]|[1-9]\d+)",
    }


NO_AVERAGE = Average("")


@dataclasses.dataclass(frozen=True, repr=False)
class Layers(Text):
    """Which parameters train: "head", "last 3" layers, "from layer4", "all", "bias" or "lora"."""

    kind: str = ""  # the first word
    count: int = 0  # of "last"
    layer: str = ""  # of "from"

    WHOLE = {
        "'last N'": r"(?P<kind>last) (?P<count>[1-9]\d*)",
        "'from LAYER'": r"(?P<kind>from) (?P<layer>\S+)",
        "'all'": "(?P<kind>all)",
    }
    LEAVES = {"'bias'": "(?P<kind>bias)", "'lora'": "(?P<kind>lora)"}
    FORMS = {"'head'": "(?P<kind>head)", **WHOLE, **LEAVES}


@dataclasses.dataclass(frozen=True, repr=False)
class NewLayers(Layers):
    """Which layers are re-initialised: "last 3", "from layer4", "all" or "" for none."""

    FORMS = {"''": "", **Layers.WHOLE}


@dataclasses.dataclass(frozen=True, repr=False)
class Duration(Text):
    """ "500 steps", "1.5 epochs", "30 %" of a phase, or ""."""

    number: float = 0.0
    unit: str = ""  # "step", "epoch" or "%"

    NUMBER = r"(?P<number>\d+(?:\.\d+)?) ?"
    FORMS = {
        "'N steps'": f"{NUMBER}(?P<unit>step)s?",
        "'N epochs'": f"{NUMBER}(?P<unit>epoch)s?",
        "'N %'": f"{NUMBER}(?P<unit>%)",
        "''": "",
    }


@dataclasses.dataclass(frozen=True, repr=False)
class Sampling(Text):
    """The order of train images: "shuffle", "balanced", or "4 classes x 8" images in each batch."""

    kind: str = "classes"  # or "shuffle", "balanced"
    classes: int = 0
    images: int = 0  # of each class

    FORMS = {
        "'shuffle'": "(?P<kind>shuffle)",
        "'balanced'": "(?P<kind>balanced)",
        "'N classes x M'": r"(?P<classes>[1-9]\d*) classes x (?P<images>[1-9]\d*)",
    }


@dataclasses.dataclass(frozen=True, repr=False)
class FeatureMaps(Text):
    """Which maps a head reads: "stage3+features", or "" for that of the published classifier."""

    names: tuple[str, ...] = ()

    FORMS = {"different names of maps joined by '+'": ""}

    @classmethod
    def parse(cls, text: str) -> Self | None:
        names = tuple(text.split("+")) if text else ()
        return cls(text, names) if len(set(names)) == len(names) else None


@dataclasses.dataclass(frozen=True, repr=False)
class Weights(Text):
    """Where weights are: "hub:timm/NAME.TAG", "package:NAME", a file or directory; "" for none."""

    kind: str = "path"  # or "hub", "package"
    name: str = ""  # after the colon; of "path" the whole text
    revision: str = ""  # of "hub"

    FORMS = {
        "''": "",
        "'hub:OWNER/NAME[@REVISION]'": "(?P<kind>hub):(?P<name>[^@]*)@?(?P<revision>.*)",
        "'package:NAME'": "(?P<kind>package):(?P<name>.*)",
        "a file or directory": "(?s:(?P<name>.+))",
    }


@dataclasses.dataclass(frozen=True, repr=False)
class Monitor(Text):
    """The number that selects the best epoch: the `metric` of the weights or of their average."""

    source: str = ""  # "val", or "val_average" for averaged weights
    metric: str = ""  # "loss" or "top1"

    FORMS = {
        f"'{source}_{metric}'": f"(?P<source>{source})_(?P<metric>{metric})"
        for source in ("val", "val_average")
        for metric in ("loss", "top1")
    }
