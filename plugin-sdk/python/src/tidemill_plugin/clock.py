"""The host's time, which a replay may set."""

from tidemill_plugin._contract import interface

_host = interface("clock")


def now_us() -> int:
    """The time, in microseconds since the Unix epoch."""
    return int(_host.now_us())
