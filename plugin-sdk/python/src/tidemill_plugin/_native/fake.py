"""The host in memory: what a test sets and looks at."""

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Tuple


def _denied(request: Any) -> Any:
    from tidemill_plugin._native import http
    from tidemill_plugin._native.err import Err

    raise Err(http.Error_Denied(f"the test grants nothing, and {request.url} was asked for"))


@dataclass
class Host:
    """The host's services."""

    now_us: int = 0
    """The time, in microseconds since the Unix epoch."""
    randoms: List[float] = field(default_factory=lambda: [0.5])
    """What `random` gives, one after the other and then again from the first."""
    lines: List[Tuple[str, str]] = field(default_factory=list)
    """Lines of the log: their levels and texts."""
    counters: Dict[str, float] = field(default_factory=dict)
    gauges: Dict[str, float] = field(default_factory=dict)
    histograms: Dict[str, List[float]] = field(default_factory=dict)
    state: Dict[str, Tuple[bytes, float]] = field(default_factory=dict)
    """The values of the state, and when they end."""
    requests: List[Any] = field(default_factory=list)
    """The requests that were sent."""
    answer: Callable[[Any], Any] = _denied
    """Answers a request with a `Response`, or raises one of `http`'s errors."""
    turn: int = 0

    def reset(self) -> None:
        """Forgets everything."""
        self.__init__()  # type: ignore[misc]


host = Host()
"""The one host of the process."""
