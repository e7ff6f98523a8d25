"""The host's random numbers, which a replay may repeat. Not for secrets."""

from tidemill_plugin._contract import interface

_host = interface("random")


def next() -> float:
    """The next number, uniform in [0, 1)."""
    return float(_host.next())
