"""Durations in configurations, as the host writes its own: "250ms", "1.5s", "1m30s", "1d"."""

import math
import re
from datetime import timedelta
from typing import Optional, Union

_UNITS = {
    "d": 86_400_000_000_000,
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
}
"""Units of time, in nanoseconds."""
_MOST_PLACES = 18
"""Most digits behind the point: more than any unit has places."""
_MOST_NANOSECONDS = 2**64 - 1
"""The host's largest duration."""
_MOST_MS = 2**32 - 1
"""Milliseconds cross in 32 bits."""
_PIECE = re.compile(r"([0-9]+)(?:\.([0-9]+))?([a-z]+)")


def nanoseconds(text: str) -> Optional[int]:
    """The nanoseconds of a duration; None where it is none."""
    total, smallest, at = 0, _MOST_NANOSECONDS, 0
    while match := _PIECE.match(text, at):
        whole, places, unit = match.groups(default="")
        size = _UNITS.get(unit)
        if size is None or size >= smallest or len(places) > _MOST_PLACES:
            return None
        smallest, at = size, match.end()
        product, rest = divmod(int(whole + places) * size, 10 ** len(places))
        if rest:
            return None
        total += product
    return total if at > 0 and at == len(text) and total <= _MOST_NANOSECONDS else None


def parse(text: str) -> timedelta:
    """The duration that a text such as "1m30s" is, to the microsecond."""
    total = nanoseconds(text)
    if total is None:
        raise ValueError(f'{text!r} is not a duration such as "250ms", "10s" or "1m30s"')
    return timedelta(microseconds=total / 1000)


def milliseconds(duration: Union[timedelta, str, float]) -> float:
    """The milliseconds of a duration, of a text that is one, or of a number of seconds."""
    if isinstance(duration, str):
        duration = parse(duration)
    if isinstance(duration, timedelta):
        return duration / timedelta(milliseconds=1)
    return 1000.0 * duration


def whole_milliseconds(duration: Union[timedelta, str, float]) -> int:
    """The same as it crosses: at least so much, and what is below 0 is 0."""
    ms = milliseconds(duration)
    if not ms == ms:
        raise ValueError("the duration is NaN, and must be a number of seconds")
    return min(max(math.ceil(min(ms, _MOST_MS)), 0), _MOST_MS)
