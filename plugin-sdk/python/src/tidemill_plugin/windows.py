"""Windows in event time, of each key: tumbling, sliding, sessions.

They are half-open and exist from their first value on; those of a size are aligned to the epoch. A window closes when a
value of its key is as late as its end and `allowed_lateness`; with `idle_close` also when nothing comes for that long.
Nothing here knows messages or JSON.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import reduce
from typing import Any, Callable, Dict, Generic, Iterator, List, Optional, Protocol, Tuple, TypeVar, Union

from tidemill_plugin import log, metrics
from tidemill_plugin.duration import milliseconds
from tidemill_plugin.outcome import Emissions
from tidemill_plugin.part import Part, Snapshot

Duration = Union[timedelta, str, float]
"""A `timedelta`, a text such as "1m", or seconds."""
T = TypeVar("T")
V = TypeVar("V")

_MOST_MS = 2**53
"""Times lie this close to the epoch, in milliseconds."""
_MOST_KEYS = 100_000
_UNSENT = "windows_unsent"
"""The counter of open windows that were not sent at the end."""


@dataclass
class Closed(Generic[T]):
    """A window that is closed. Times are in milliseconds, and the end is not part of it."""

    key: str
    start: int
    end: int
    value: T
    final: bool
    """False where it was closed before its time."""


@dataclass
class _Window(Generic[T]):
    start: int
    end: int
    value: T


@dataclass
class _Series(Generic[T]):
    """The windows of one key."""

    open: List[_Window[T]]
    closed_until: Optional[int] = None
    received_us: int = 0
    turn: int = 0

    def is_closed(self, end: int) -> bool:
        return self.closed_until is not None and end <= self.closed_until


class _Kind(Protocol):
    """Where values go. Its text says which windows they are."""

    is_apart: bool
    """Whether a time is in one window alone, which values do not change."""

    def places(self, time: int, series: _Series[Any]) -> List[Tuple[int, int]]:
        """The windows of a time that are not closed yet."""

    def window(self, open: List[_Window[Any]], start: int, end: int, initial: Callable[[], Any]) -> _Window[Any]:
        """The window that a value goes to, which is made if it is not there."""


class Windows(Generic[T, V]):
    """The windows of all keys. `tumbling`, `sliding` and `sessions` make them."""

    def __init__(
        self,
        kind: _Kind,
        initial: Callable[[], T],
        add: Callable[[T, V], Optional[T]],
        allowed_lateness: Duration = 0,
        idle_close: Duration = 0,
        max_keys: int = _MOST_KEYS,
        meaning: str = "",
    ) -> None:
        if max_keys < 1:
            raise ValueError("max_keys must be a number from 1 on")
        self._kind = kind
        self._meaning = meaning
        self._initial = initial
        self._add = add
        self._lateness_ms = _span("allowed_lateness", allowed_lateness, 0)
        self._idle_close_us = 1000 * _span("idle_close", idle_close, 0)
        self._max_keys = max_keys
        # All keys by when they were heard of, the longest ago first.
        self._known: Dict[str, _Series[T]] = {}
        # Those of them that have open windows, in any order.
        self._active: Dict[str, _Series[T]] = {}
        self._turn = 0
        self.late = 0
        """How many values came too late to count."""
        self.forgotten = 0
        """How many keys were forgotten because there were too many."""

    def __len__(self) -> int:
        """How many keys are known."""
        return len(self._known)

    def add(self, key: str, time_ms: float, value: V, received_us: int = 0) -> List[Closed[T]]:
        """Counts a value of a key at a time, and gives the windows that are closed now.

        With `idle_close` it also takes when the message was received, in microseconds. Where `add` raises, nothing has
        changed.
        """
        if not abs(time_ms) <= _MOST_MS:
            raise ValueError(f"the time {time_ms} is out of range")
        if self._joins_only(key, time_ms, value, received_us):
            return []
        closed: List[Closed[T]] = []
        known = self._known.get(key)
        # A copy, which takes its place once the value is added.
        series = _Series[T]([]) if known is None else replace(known, open=known.open[:])
        if self._idle_close_us and series.open and received_us - series.received_us >= self._idle_close_us:
            self._close(key, series, lambda window: True, closed)
        series.received_us = received_us
        time = int(time_ms // 1)
        places = self._kind.places(time, series)
        if not places:
            self.late += 1
        else:
            self._close(key, series, lambda window: time >= window.end + self._lateness_ms, closed)
            windows = [self._kind.window(series.open, start, end, self._initial) for start, end in places]
            totals = [self._add(window.value, value) for window in windows]
            for window, total in zip(windows, totals):
                if total is not None:
                    window.value = total
        self._hear(key, series, known is None, closed)
        return closed

    def close_idle(self, now_us: int) -> List[Closed[T]]:
        """Closes the windows of keys of which nothing came for `idle_close`; for `tick`."""
        closed: List[Closed[T]] = []
        if self._idle_close_us:
            silent = [
                (series.turn, key)
                for key, series in self._active.items()
                if now_us - series.received_us >= self._idle_close_us
            ]
            # A key that is closed keeps its place among those that may have to make room: it was not heard of.
            for _, key in sorted(silent):
                self._close(key, self._active.pop(key), lambda window: True, closed)
        return closed

    def close_all(
        self, out: Optional[Emissions] = None, write: Optional[Callable[[Closed[T]], None]] = None
    ) -> List[Closed[T]]:
        """Closes all windows, which are not final, by key and time; for `finish`.

        With the way out of `finish`, and a function that emits a window there, those for which the call has no room any
        more are not sent, which the log says, and the metric `windows_unsent` counts.
        """
        if (out is None) != (write is None):
            raise TypeError("close_all takes out and write(window), or none of them")
        closed = [one for key in sorted(self._active) for one in _early(key, self._active[key])]
        for key in self._active:
            del self._known[key]
        self._active.clear()
        if out is not None and write is not None:
            _send_what_fits(closed, out, write)
        return closed

    def snapshot(self) -> Any:
        """The state, as JSON has it; what totals are is kept as it is."""
        series = [
            [
                key,
                [[window.start, window.end, window.value] for window in series.open],
                series.closed_until,
                series.received_us,
                series.turn,
            ]
            for key, series in self._known.items()
        ]
        return {
            "windows": str(self._kind),
            "meaning": self._meaning,
            "late": self.late,
            "forgotten": self.forgotten,
            "series": series,
        }

    def restore(self, state: Any) -> None:
        """Goes on from the state of this or another instance. Raises a ValueError where it is that of other windows."""
        self._restore([state], Part())

    def restore_part(self, snapshots: List[Snapshot], part: Part) -> None:
        """Goes on from the snapshots of all instances there were, with the keys that belong to this part."""
        self._restore([snapshot.json() for snapshot in snapshots], part)

    def _restore(self, states: List[Any], part: Part) -> None:
        for state in states:
            self._check(state)
        self._known.clear()
        self._active.clear()
        found = [one for state in states for one in state["series"] if part.has(one[0])]
        for key, open, closed_until, received_us, turn in sorted(found, key=lambda one: one[4]):
            windows = [_Window(start, end, value) for start, end, value in open]
            self._place(key, _Series(windows, closed_until, received_us, turn))
            self._turn = max(self._turn, turn)

    def _check(self, state: Any) -> None:
        """Refuses a state that is none of these windows."""
        if not (isinstance(state, dict) and isinstance(state.get("series"), list) and "windows" in state):
            raise ValueError("the state is not that of windows")
        if state["windows"] != str(self._kind):
            raise _changed(state["windows"], self._kind)
        if state.get("meaning") != self._meaning:
            raise _changed(f"windows of {state.get('meaning')}", self._meaning)

    def _joins_only(self, key: str, time_ms: float, value: V, received_us: int) -> bool:
        """What happens most often, in few steps: a value of the one window that is open of its key. Says whether it was
        one."""
        series = self._active.get(key) if self._kind.is_apart else None
        if series is None or len(series.open) != 1:
            return False
        window = series.open[0]
        if not window.start <= time_ms < window.end:
            return False
        if self._idle_close_us and received_us - series.received_us >= self._idle_close_us:
            return False
        total = self._add(window.value, value)
        if total is not None:
            window.value = total
        if series.turn != self._turn:
            # It is heard of last now.
            self._known[key] = self._known.pop(key)
            self._turn += 1
            series.turn = self._turn
        series.received_us = received_us
        return True

    def _hear(self, key: str, series: _Series[T], is_new: bool, closed: List[Closed[T]]) -> None:
        """Puts a key behind all others; of a new one makes room first."""
        if is_new:
            while len(self) >= self._max_keys:
                self._forget(closed)
        else:
            self._known.pop(key, None)
        self._turn += 1
        series.turn = self._turn
        self._place(key, series)

    def _place(self, key: str, series: _Series[T]) -> None:
        self._known[key] = series
        if series.open:
            self._active[key] = series
        else:
            self._active.pop(key, None)

    def _forget(self, closed: List[Closed[T]]) -> None:
        """Forgets the key that was silent longest; its windows are closed before their time."""
        key = next(iter(self._known))
        closed.extend(_early(key, self._known.pop(key)))
        self._active.pop(key, None)
        self.forgotten += 1

    def _close(
        self, key: str, series: _Series[T], closes: Callable[[_Window[T]], bool], closed: List[Closed[T]]
    ) -> None:
        for window in series.open:
            if closes(window):
                closed.append(Closed(key, window.start, window.end, window.value, True))
                series.closed_until = max(window.end, series.closed_until or window.end)
        series.open = [window for window in series.open if not closes(window)]


def tumbling(
    size: Duration, initial: Callable[[], T], add: Callable[[T, V], Optional[T]], **options: Any
) -> Windows[T, V]:
    """Windows of one size, one after the other.

    `initial` makes the total of a window without values, and `add` adds a value: it gives the new total, or changes the
    one that it is given. Options are `allowed_lateness`, `idle_close`, `max_keys` and `meaning`: what totals mean, in
    words. State of windows that mean something else is refused, and so is that of windows of another kind or size.
    """
    return Windows(_Sized(_span("size", size), _span("size", size)), initial, add, **options)


def sliding(
    size: Duration, slide: Duration, initial: Callable[[], T], add: Callable[[T, V], Optional[T]], **options: Any
) -> Windows[T, V]:
    """Windows of one size, of which one begins every `slide`: a value counts in several."""
    return Windows(_Sized(_span("size", size), _span("slide", slide)), initial, add, **options)


def sessions(
    gap: Duration,
    initial: Callable[[], T],
    add: Callable[[T, V], Optional[T]],
    merge: Callable[[T, T], T],
    **options: Any,
) -> Windows[T, V]:
    """Windows that last as long as no `gap` is between two values: `[first, last + gap)`.

    `merge` joins the totals of two, for a late value may join two sessions.
    """
    return Windows(_Gapped(_span("gap", gap), merge), initial, add, **options)


class _Sized:
    """Windows of a size, of which one begins every so often."""

    def __init__(self, size: int, slide: int) -> None:
        if slide > size:
            raise ValueError("slide is longer than size: some values would count nowhere")
        self.size = size
        self.slide = slide
        self.is_apart = slide == size

    def __str__(self) -> str:
        size = f"`size` {_shown(self.size)}"
        return f"tumbling windows with {size}" if self.is_apart else f"sliding windows with {size} and `slide` {_shown(self.slide)}"

    def places(self, time: int, series: _Series[Any]) -> List[Tuple[int, int]]:
        newest = time // self.slide * self.slide
        starts = range(newest, time - self.size, -self.slide)
        return [(start, start + self.size) for start in reversed(starts) if not series.is_closed(start + self.size)]

    def window(self, open: List[_Window[Any]], start: int, end: int, initial: Callable[[], Any]) -> _Window[Any]:
        place = len(open)
        while place > 0 and open[place - 1].start > start:
            place -= 1
        if place > 0 and (open[place - 1].start, open[place - 1].end) == (start, end):
            return open[place - 1]
        window = _Window(start, end, initial())
        open.insert(place, window)
        return window


class _Gapped:
    """Sessions."""

    is_apart = False

    def __init__(self, gap: int, merge: Callable[[Any, Any], Any]) -> None:
        self.gap = gap
        self.merge = merge

    def __str__(self) -> str:
        return f"sessions with `gap` {_shown(self.gap)}"

    def places(self, time: int, series: _Series[Any]) -> List[Tuple[int, int]]:
        return [] if series.is_closed(time + 1) else [(time, time + self.gap)]

    def window(self, open: List[_Window[Any]], start: int, end: int, initial: Callable[[], Any]) -> _Window[Any]:
        joined = [window for window in open if window.start < end and start < window.end]
        place = sum(other.end <= start for other in open)
        bounds = [(start, end), *((other.start, other.end) for other in joined)]
        value = reduce(self.merge, (other.value for other in joined)) if joined else initial()
        window = _Window(min(first for first, _ in bounds), max(last for _, last in bounds), value)
        # In the place of one session, or of several that are one from now on.
        open[place : place + len(joined)] = [window]
        return window


def _changed(state: str, configuration: object) -> ValueError:
    """What the state has and what the configuration says now."""
    return ValueError(
        f"the state has {state}, and the configuration says {configuration}; a transform of another `name` begins without "
        "state"
    )


def _shown(ms: int) -> str:
    """A time as it is told: 1500 as 1.5s."""
    return f"{ms}ms" if ms < 1000 else f"{ms // 1000}s" if ms % 1000 == 0 else f"{ms / 1000}s"


def _early(key: str, series: _Series[T]) -> Iterator[Closed[T]]:
    return (Closed(key, window.start, window.end, window.value, False) for window in series.open)


def _send_what_fits(closed: List[Closed[T]], out: Emissions, write: Callable[[Closed[T]], None]) -> None:
    """Emits windows as long as one call takes them."""
    for sent, window in enumerate(closed):
        if not out._emit_if_it_fits(write, window):
            unsent = len(closed) - sent
            metrics.add(_UNSENT, unsent)
            log.warn(
                f"{unsent} open windows are not sent, for which one call has no room: let `limits.output` be larger, and "
                "`limits.memory` four times as large as that at least"
            )
            return


def _span(name: str, given: Duration, least: int = 1) -> int:
    """A time in whole milliseconds."""
    ms = milliseconds(given)
    if ms < least:
        raise ValueError(f"{name} is {given!r}, and must be a duration such as \"1m\"")
    return int(ms)
