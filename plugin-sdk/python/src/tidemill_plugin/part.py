"""How several instances of a plugin share out the keys of their state, and what they left."""

import json
from dataclasses import dataclass
from typing import Any

_BASIS = 14695981039346656037
_PRIME = 1099511628211


@dataclass(frozen=True)
class Part:
    """Which of several instances this one is."""

    number: int = 0
    """Its number, from 0."""
    of: int = 1
    """How many there are."""

    @property
    def is_whole(self) -> bool:
        """Whether it is the only one."""
        return self.of <= 1

    def has(self, key: str) -> bool:
        """Whether a key belongs to this instance. To the only one there is, every key does."""
        return self.is_whole or key_hash(key) % self.of == self.number


def key_hash(key: str) -> int:
    """The hash of a key by which the host shares out messages: 64-bit FNV-1a of its UTF-8 bytes."""
    found = _BASIS
    for byte in key.encode():
        found = (found ^ byte) * _PRIME & 0xFFFF_FFFF_FFFF_FFFF
    return found


@dataclass(frozen=True)
class Snapshot:
    """The state of an instance, as it was given by its `snapshot`."""

    data: bytes

    def text(self) -> str:
        """As text."""
        return self.data.decode()

    def json(self) -> Any:
        """As JSON, which is what `snapshot` makes of everything but bytes."""
        try:
            return json.loads(self.data)
        except ValueError as error:
            raise ValueError(f"the state is not JSON: {error}") from error
