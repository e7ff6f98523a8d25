"""JSON fields that the host finds in messages, and members that it edits."""

from dataclasses import dataclass

from tidemill_plugin.config import Pointer


@dataclass(frozen=True)
class Field:
    """A place in JSON messages, and what is wanted of it."""

    pointer: str
    kind: str

    def __post_init__(self) -> None:
        Pointer(self.pointer)


def number(pointer: str) -> Field:
    """A field as a number: a JSON number, or a string that holds one."""
    return Field(pointer, "NUMBER")


def text(pointer: str) -> Field:
    """A field as what a string says."""
    return Field(pointer, "TEXT")


def json(pointer: str) -> Field:
    """A field of any type, parsed when it is looked at."""
    return Field(pointer, "JSON")
