import math
from dataclasses import dataclass
from typing import List, Optional

from tidemill_plugin._native.err import Err
from tidemill_plugin._native.fake import host

MAX_KEY_BYTES = 1024


@dataclass
class Change:
    key: str
    value: Optional[bytes]
    ttl_ms: int


def get(key: str) -> Optional[bytes]:
    value, until = host.state.get(key, (b"", -math.inf))
    return value if until > host.now_us else None


def get_many(keys: List[str]) -> List[Optional[bytes]]:
    return [get(key) for key in keys]


def set(key: str, value: bytes) -> None:
    set_many([Change(key, value, 0)])


def set_many(changes: List[Change]) -> None:
    if any(len(change.key.encode()) > MAX_KEY_BYTES for change in changes):
        raise Err(f"a key has at most {MAX_KEY_BYTES} bytes")
    for change in changes:
        if change.value is None:
            host.state.pop(change.key, None)
        else:
            until = host.now_us + 1000 * change.ttl_ms if change.ttl_ms else math.inf
            host.state[change.key] = (change.value, until)


def delete(key: str) -> None:
    host.state.pop(key, None)


def keys(prefix: str, after: Optional[str], limit: int) -> List[str]:
    found = (key for key in sorted(host.state) if key.startswith(prefix) and get(key) is not None)
    return [key for key in found if after is None or key > after][:limit]
