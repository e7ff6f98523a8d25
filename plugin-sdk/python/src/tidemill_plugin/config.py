"""Configurations: a dataclass says what each key holds, and what is wrong is told by key.

    @dataclass
    class Config:
        by: Pointer
        above: float = 100.0
        window: timedelta = timedelta(minutes=1)
        match: Literal["all", "any"] = "all"

Keys may be `str`, `int`, `float`, `bool`, `timedelta` (written "1m30s"), `Pointer` (a JSON pointer), `Literal`, a
dataclass, `list[...]`, `dict[str, ...]`, `Any`, and `Optional` of these.
"""

import dataclasses
import json
import re
import types
import typing
from datetime import timedelta
from typing import Any, Dict, List, Type, TypeVar, Union

from tidemill_plugin import _names
from tidemill_plugin.duration import parse

C = TypeVar("C")

_TILDE = re.compile(r"~([^01]|$)")


class ConfigError(ValueError):
    """What is wrong with a configuration. Its text is for the person who wrote it."""


class Pointer(str):
    """A JSON pointer, such as "/data/0/p"."""

    __slots__ = ()

    def __new__(cls, text: str) -> "Pointer":
        if text and not text.startswith("/"):
            raise ValueError(f'{text!r} is not a JSON pointer: it does not begin with "/"')
        if _TILDE.search(text):
            raise ValueError(f'{text!r} is not a JSON pointer: "~" is written "~0", and "/" in a name "~1"')
        return super().__new__(cls, text)


def read_config(of: Type[C], text: str) -> C:
    """Makes a dataclass of a configuration."""
    config = json.loads(text)
    if not isinstance(config, dict):
        raise ConfigError(f"the configuration is {_named(config)}, and must be a table")
    return typing.cast(C, _entries(of, config, ""))


def no_config(text: str) -> None:
    """Refuses every key."""
    for key in json.loads(text):
        raise ConfigError(f"{key} is not known: the plugin has no configuration")


def _entries(of: Any, table: Dict[str, Any], path: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(of) if field.init}
    for key in table:
        if key not in fields:
            guess = _names.nearest(key, fields)
            hint = "" if guess is None else f", did you mean {guess}?"
            raise ConfigError(f"{_join(path, key)} is not known{hint} (the keys are {', '.join(fields)})")
    hints = typing.get_type_hints(of)
    values = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _read(hints[name], table[name], _join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{_join(path, name)} is missing, which is {_expected(hints[name])}")
    try:
        return of(**values)
    except ConfigError:
        raise
    except ValueError as error:
        # What the dataclass checks itself, in __post_init__.
        raise ConfigError(f"{path}: {error}" if path else str(error)) from error


def _read(of: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(of), typing.get_args(of)
    if of is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kinds = [kind for kind in arguments if kind is not type(None)]
        if len(kinds) == 1:
            return _read(kinds[0], value, path)
        for kind in kinds:
            try:
                return _read(kind, value, path)
            except ConfigError:
                continue
    elif origin is typing.Literal and any(value == known and type(value) is type(known) for known in arguments):
        return value
    elif origin is list and isinstance(value, list):
        return [_read(arguments[0], one, f"{path}[{n}]") for n, one in enumerate(value)]
    elif origin is dict and isinstance(value, dict):
        return {key: _read(arguments[1], one, _join(path, key)) for key, one in value.items()}
    elif of is list and isinstance(value, list) or of is dict and isinstance(value, dict):
        return value
    elif of is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif of is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    elif of in (str, bool) and type(value) is of:
        return value
    elif of in (timedelta, Pointer) and isinstance(value, str):
        try:
            return parse(value) if of is timedelta else Pointer(value)
        except (ValueError, OverflowError):
            pass
    elif dataclasses.is_dataclass(of) and isinstance(value, dict):
        return _entries(of, value, path)
    raise ConfigError(f"{path} is {_named(value)}, and must be {_expected(of)}")


_EXPECTED = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    timedelta: 'a duration such as "250ms", "10s" or "1m30s"',
    Pointer: 'a JSON pointer such as "/data/p"',
    list: "a list",
    dict: "a table",
}


def _expected(of: Any) -> str:
    origin, arguments = typing.get_origin(of), typing.get_args(of)
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(kind) for kind in arguments if kind is not type(None))
    if origin is typing.Literal:
        return " or ".join(json.dumps(known) for known in arguments)
    if dataclasses.is_dataclass(of):
        return "a table"
    return _EXPECTED.get(origin or of, f"a {getattr(of, '__name__', of)}")


def _named(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 42 else f'{text[:41]}…"'


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


__all__: List[str] = ["ConfigError", "Pointer", "no_config", "read_config"]
