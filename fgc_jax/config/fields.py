"""Turns a mapping into typed values: the fields of a dataclass, or the options of a function.

The annotation of a field or option gives the allowed values: bool, int, float (finite in float32),
str, dict, None, `Literal`, a tuple or union of these, a dataclass, a text with a grammar
(`languages.Text`), or `Annotated` with `limits`. An int is accepted for a float and a list for a
tuple.
"""

import dataclasses
import difflib
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from fgc_jax.config.languages import Text

LARGEST = 3.4e38  # approximately the largest float32
WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "a dictionary",
    type(None): "None",
}


class _Misfit(Exception):
    """A value that its annotation does not allow."""


def read(kind: type, values: Any, at: str):
    """The dataclass `kind` made of the mapping `values`; errors name its fields `at`.NAME.

    Raises:
        ValueError: a key is missing or unknown, or a value is not allowed by its annotation.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{at} must be a dict with the keys of {kind.__name__}, not {values!r}")
    return kind(**checked(typing.get_type_hints(kind, include_extras=True), values, f"{at}."))


def options(function: Callable, given: Mapping[str, Any], at: str) -> dict[str, Any]:
    """All options of a function or class: the `given` ones, and the defaults of the others.

    The options are its annotated keyword-only parameters. In errors `at` precedes their names, for
    example "config.method_options.".

    Raises:
        ValueError: an unknown option, an option without a default that is not given, or a value
            that the annotation does not allow.
    """
    known = _parameters(function)
    hints = {name: each.annotation for name, each in known.items()}
    return checked(hints, {**defaults(function), **given}, at)


def defaults(kind: Callable) -> dict[str, Any]:
    """Name -> default, of the fields of a dataclass or the options of a function that have one."""
    if not dataclasses.is_dataclass(kind):
        known = _parameters(kind).items()
        return {name: each.default for name, each in known if each.default is not each.empty}
    missing, found = dataclasses.MISSING, {}
    for field in dataclasses.fields(kind):
        if field.default is not missing:
            text = isinstance(field.default, Text)
            found[field.name] = str(field.default) if text else field.default
        elif field.default_factory is not missing:
            found[field.name] = field.default_factory()
    return found


def _parameters(function: Callable) -> dict[str, inspect.Parameter]:
    bound = getattr(function, "keywords", {})  # of a functools.partial
    if inspect.isclass(function):
        function = function.__init__
    return {
        name: each
        for name, each in inspect.signature(function).parameters.items()
        if each.kind is each.KEYWORD_ONLY and each.annotation is not each.empty
        if name not in bound
    }


def checked(hints: Mapping[str, Any], values: Mapping[str, Any], at: str) -> dict[str, Any]:
    """The values, converted to their annotations `hints`. Raises ValueError like `read`."""
    for name in values:
        if name not in hints:
            close = difflib.get_close_matches(str(name), hints, n=1)
            similar = "".join(f"did you mean {each!r}? " for each in close)
            known = f"allowed: {', '.join(map(repr, hints))}" if hints else "there are no options"
            raise ValueError(f"{at}{name} is unknown: {similar}{known}")
    for name in hints:
        if name not in values:
            raise ValueError(f"{at}{name} must be given")
    found = {}
    for name, hint in hints.items():
        try:
            found[name] = _value(hint, values[name], f"{at}{name}")
        except _Misfit:
            raise ValueError(f"{at}{name}={values[name]!r} must be {_words(hint)}") from None
    return found


def _value(hint: Any, value: Any, at: str):
    """`value`, converted to the annotation `hint`. Raises _Misfit; in a dataclass ValueError."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        value = _value(parts[0], value, at)
        return _fitting(value, all(limit.holds(value) for limit in parts[1:]))
    if origin is Literal:
        return _fitting(value, any(value == each and type(value) is type(each) for each in parts))
    if origin in (typing.Union, types.UnionType):
        for each in parts:
            try:
                return _value(each, value, at)
            except _Misfit:
                continue
        raise _Misfit
    if origin is tuple:
        _fitting(value, isinstance(value, (tuple, list)))
        if parts[1:] == (...,):
            parts = parts[:1] * len(value)
        _fitting(value, len(parts) == len(value))
        pairs = zip(parts, value, strict=True)
        return tuple(_value(part, each, f"{at}[{i}]") for i, (part, each) in enumerate(pairs))
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return _fitting(value, hint is not float or abs(value) <= LARGEST)
    if issubclass(hint, Text):
        found = hint.parse(value) if isinstance(value, str) else None
        return _fitting(found, found is not None)
    if dataclasses.is_dataclass(hint):
        return read(hint, value, at)
    if hint is dict and isinstance(value, Mapping):
        return dict(value)
    number = {int: numbers.Integral, float: numbers.Real}.get(hint)
    fits = number and isinstance(value, number) and not isinstance(value, bool)
    return hint(_fitting(value, fits and abs(value) <= LARGEST))


def _fitting(value: Any, fits: bool) -> Any:
    if not fits:
        raise _Misfit
    return value


def _words(hint: Any) -> str:
    """The values that an annotation allows, for an error message."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        # In the words of a tuple, those of its entries follow a comma.
        kind, comma, entries = _words(parts[0]).partition(",")
        limits = " and ".join(limit.words for limit in parts[1:])
        return f"{kind} {limits}{comma}{entries}"
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(sorted(map(_words, parts), key=lambda words: words != "None"))
    if origin is tuple:
        if parts[1:] == (...,):
            return f"a tuple, each {_words(parts[0])}"
        if len(set(parts)) == 1:
            return f"a tuple of {len(parts)} entries, each {_words(parts[0])}"
        return f"({', '.join(map(_words, parts))})"
    if issubclass(hint, Text):
        return hint.allowed()
    return WORDS.get(hint) or f"a dictionary with the keys of {hint.__name__}"
