"""Lines in the host's log, under the target `guest`."""

from typing import Any

from tidemill_plugin._columns import well_formed
from tidemill_plugin._contract import interface

_host = interface("log")


def trace(text: Any) -> None:
    """Writes a line for following single steps."""
    _write(_host.Level.TRACE, text)


def debug(text: Any) -> None:
    """Writes a line for finding mistakes."""
    _write(_host.Level.DEBUG, text)


def info(text: Any) -> None:
    """Writes a line about the normal course."""
    _write(_host.Level.INFO, text)


def warn(text: Any) -> None:
    """Writes a line about what may need attention."""
    _write(_host.Level.WARN, text)


def error(text: Any) -> None:
    """Writes a line about what failed."""
    _write(_host.Level.ERROR, text)


def _write(level: Any, text: Any) -> None:
    _host.write(level, well_formed(str(text)))
