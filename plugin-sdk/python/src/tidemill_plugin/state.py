"""Values that the host keeps for the transform: they outlive the instance, its faults and swaps.

Each function is a call into the host, which costs as much as to forward several messages: `get_many` and `set_many`,
once a batch, are the fast way.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Iterable, List, Optional, Sequence, Union

from tidemill_plugin._columns import well_formed
from tidemill_plugin._contract import Err, interface
from tidemill_plugin.duration import milliseconds

_host = interface("state")
_MOST_KEYS = 2**32 - 1

Value = Union[str, bytes]
"""What a value is given as: bytes, or a text as its UTF-8."""
Ttl = Union[timedelta, str, float, None]
"""How long a key has a value: a `timedelta`, a text such as "1m", or seconds; None is until it is changed."""


@dataclass
class Change:
    """A change of one key; without a value the key is removed."""

    key: str
    value: Optional[Value]
    ttl: Ttl = None


class StateError(Exception):
    """The limit that a change would break."""


def get(key: str) -> Optional[bytes]:
    """The value of a key, if it has one."""
    return _bytes(_host.get(well_formed(key)))


def get_many(keys: Sequence[str]) -> List[Optional[bytes]]:
    """The value of each key, if it has one."""
    return [_bytes(value) for value in _host.get_many([well_formed(key) for key in keys])] if keys else []


def set(key: str, value: Value, ttl: Ttl = None) -> None:
    """Gives a key a value. Raises a StateError."""
    set_many([Change(key, value, ttl)])


def set_many(changes: Iterable[Change]) -> None:
    """Makes all changes, in their order, or none. Raises a StateError."""
    lowered = [_lowered(change) for change in changes]
    if not lowered:
        return
    try:
        _host.set_many(lowered)
    except Err as error:
        raise StateError(error.value) from None


def delete(key: str) -> None:
    """Removes a key."""
    _host.delete(well_formed(key))


def keys(prefix: str = "", after: Optional[str] = None, limit: int = _MOST_KEYS) -> List[str]:
    """The keys that start with `prefix` and come after `after`, ascending, at most `limit`."""
    return list(_host.keys(prefix, after, limit))


def _lowered(change: Change) -> Any:
    value = well_formed(change.value).encode() if isinstance(change.value, str) else change.value
    if value is not None and not isinstance(value, bytes):
        raise TypeError(f"a value of the state is a text or bytes, and not {type(value).__name__}")
    ttl_ms = 0 if change.ttl is None else max(1, int(milliseconds(change.ttl)))
    return _host.Change(well_formed(change.key), value, ttl_ms)


def _bytes(value: Any) -> Optional[bytes]:
    return None if value is None else bytes(value)
