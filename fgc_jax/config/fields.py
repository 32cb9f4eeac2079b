"""From a mapping to typed values: of a dataclass's fields, or of a function's options.

A field or option says by its annotation what it may be: bool, int, float (finite in float32), str,
dict, None, `Literal`, a tuple or union of these, a dataclass, a text with a grammar
(`languages.Text`), or `Annotated` with `limits`. Integers are taken for floats, lists for tuples.
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

LARGEST = 3.4e38  # of float32, nearly
WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "a dictionary",
    type(None): "None",
}


class _Misfit(Exception):
    """A value is not what its annotation says."""


def read(kind: type, values: Any, at: str):
    """The mapping `values` as the dataclass `kind`; errors call its fields `at`.NAME.

    Raises:
        ValueError: a key is missing or unknown, or a value is not what its field says.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{at} must hold the keys of {kind.__name__}, not {values!r}")
    return kind(**checked(typing.get_type_hints(kind, include_extras=True), values, f"{at}."))


def options(function: Callable, given: Mapping[str, Any], at: str) -> dict[str, Any]:
    """All options of a function or class, the `given` ones and the defaults of the others.

    Its options are its annotated keyword-only parameters. `at` stands before their names in errors,
    as in "config.method_options.".

    Raises:
        ValueError: an option that there is not, one without default that is not given, or a value
            that is not what its annotation says.
    """
    known = _parameters(function)
    hints = {name: each.annotation for name, each in known.items()}
    return checked(hints, {**defaults(function), **given}, at)


def defaults(kind: Callable) -> dict[str, Any]:
    """Name -> default of the fields of a dataclass, or of a function's options, that have one."""
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
    """The values as their annotations `hints` say. Raises ValueError as `read` and `options`."""
    for name in values:
        if name not in hints:
            close = difflib.get_close_matches(str(name), hints, n=1)
            similar = "".join(f"did you mean {each!r}? " for each in close)
            known = f"there is {', '.join(map(repr, hints))}" if hints else "there are no options"
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
    """`value` as `hint` says. Raises _Misfit; ValueError within a dataclass."""
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
    """What a value must be, for an error message."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return f"{_words(parts[0])} {' and '.join(limit.words for limit in parts[1:])}"
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(sorted(map(_words, parts), key=lambda words: words != "None"))
    if origin is tuple:
        if parts[1:] == (...,):
            return f"a tuple, each {_words(parts[0])}"
        if len(set(parts)) == 1:
            return f"a tuple of {len(parts)}, each {_words(parts[0])}"
        return f"({', '.join(map(_words, parts))})"
    if issubclass(hint, Text):
        return hint.allowed()
    return WORDS.get(hint) or f"the keys of {hint.__name__}"
