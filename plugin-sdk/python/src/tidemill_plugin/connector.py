"""Connectors: plugins that have the last word on what an endpoint dials, and may fetch a fresh token first."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Dict, List, Mapping, Optional, Tuple, Type, Union
from urllib.parse import quote

from tidemill_plugin._columns import dumps, well_formed
from tidemill_plugin._contract import Err, dialler, types
from tidemill_plugin._failure import fault_text, guarded, refuse_async, refusing
from tidemill_plugin.duration import milliseconds, whole_milliseconds
from tidemill_plugin.plugin import make

_wit = dialler()


class Later(Exception):
    """An error of `before_connect` that says when to try again: not before `after`; a time below 0 is 0."""

    def __init__(self, reason: str, after: Union[timedelta, str, float]) -> None:
        super().__init__(reason)
        self.after_ms = whole_milliseconds(after)


@dataclass
class Dial:
    """What is dialled."""

    url: str
    headers: List[Tuple[str, str]] = field(default_factory=list)
    subprotocols: List[str] = field(default_factory=list)
    first_messages: List[Union[str, bytes]] = field(default_factory=list)
    options: List[Tuple[str, str]] = field(default_factory=list)

    def header(self, name: str) -> Optional[str]:
        """The value of a header, whose name has any case."""
        return next((value for known, value in self.headers if known.lower() == name.lower()), None)

    def set_header(self, name: str, value: str) -> None:
        """Sets a header, in the place of one of this name."""
        self.headers = [header for header in self.headers if header[0].lower() != name.lower()]
        self.headers.append((name, value))

    def set_query(self, name: str, value: str) -> None:
        """Sets a value of the url's query, in the place of one of this name; both are percent-encoded."""
        base, _, query = self.url.partition("?")
        encoded = quote(name, safe="")
        others = [pair for pair in query.split("&") if pair and pair.partition("=")[0] != encoded]
        pairs = [*others, f"{encoded}={quote(value, safe='')}"]
        self.url = f"{base}?{'&'.join(pairs)}"

    def send_first(self, value: Any) -> None:
        """Adds a message that is sent as soon as the connection is there: `str`, `bytes`, anything else as JSON."""
        self.first_messages.append(value if isinstance(value, (str, bytes)) else dumps(value))


@dataclass
class Attempt:
    """Which dial it is."""

    number: int
    """1 for the first since the last connection, or since the start."""
    last: Optional[Any]
    """What the last one came to, if there was one: `outcome`, `detail`, `status`, `close_code`, `lasted_ms`."""
    facts: Dict[str, str]


class Connector:
    """A plugin that is asked before each dial of an endpoint. Only `before_connect` must be written."""

    Config: Optional[type] = None
    """A dataclass that says what the configuration holds; see `tidemill_plugin.config`."""
    tick_every: Union[timedelta, str, float, None] = None
    """How often `tick` is called while the connection stands."""

    def __init__(self, config: Any, facts: Mapping[str, str]) -> None:
        """Makes the connector. A ValueError refuses the configuration; what may fail for a while belongs into
        `before_connect`."""
        self.config = config
        self.facts = facts

    def before_connect(self, dial: Dial, attempt: Attempt) -> None:
        """Changes what is about to be dialled. What it raises refuses to dial now; `Later` says until when."""
        raise NotImplementedError("the connector has no before_connect(self, dial, attempt)")

    def tick(self, now_us: int) -> None:
        """Called at the interval. What it raises goes to the log; the connection stands."""


def export_connector(connector: Type[Connector]) -> type:
    """Makes the component's class of a connector: `Dialler = export_connector(MyConnector)` in the main module."""
    if not (isinstance(connector, type) and issubclass(connector, Connector)):
        raise TypeError("export_connector takes a class that derives from Connector")
    if connector.before_connect is Connector.before_connect:
        raise TypeError(f"{connector.__name__} has no before_connect(self, dial, attempt), which every connector has")
    refuse_async(connector, ("before_connect", "tick"))

    class Dialler:
        """What the host calls. componentize-py makes an object of it for each call."""

        connector: Connector

        def init(self, config: str, facts: List[Tuple[str, str]]) -> Any:
            def start() -> Any:
                Dialler.connector = made = make(connector, config, dict(facts))
                tick_ms = 0 if made.tick_every is None else max(1, round(milliseconds(made.tick_every)))
                return _wit.ConnectorDescription(tick_ms, [])

            return refusing(start)

        def before_connect(self, attempt: Any) -> Any:
            given = attempt.dial
            first = [message.value for message in given.first_messages]
            dial = Dial(given.url, list(given.headers), list(given.subprotocols), first, list(given.options))
            try:
                Dialler.connector.before_connect(dial, Attempt(attempt.number, attempt.last, dict(attempt.facts)))
            except Later as later:
                raise Err(_wit.Refusal(well_formed(str(later)), later.after_ms)) from None
            except Exception as error:
                # A refusal is an error of the plugin's own; a mistake of its code says where it is.
                is_own = isinstance(error, ValueError) or type(error).__name__ == "HttpError"
                reason = well_formed(str(error) if is_own else fault_text(error))
                raise Err(_wit.Refusal(reason, None)) from None
            messages = [
                types.Payload_Text(well_formed(message)) if isinstance(message, str) else types.Payload_Binary(message)
                for message in dial.first_messages
            ]
            headers = [(well_formed(name), well_formed(value)) for name, value in dial.headers]
            subprotocols = [well_formed(name) for name in dial.subprotocols]
            return _wit.Dial(well_formed(dial.url), headers, subprotocols, messages, dial.options)

        def tick(self, now_us: int) -> None:
            guarded(Dialler.connector.tick, now_us)

    return Dialler
