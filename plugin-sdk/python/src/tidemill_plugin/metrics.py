"""The plugin's own metrics, `tidemill_guest_<name>` beside the host's."""

from tidemill_plugin._contract import interface

_host = interface("metrics")


def add(counter: str, by: float = 1) -> None:
    """Adds to a counter; what is below 0 is ignored."""
    _host.add(counter, float(by))


def set(gauge: str, value: float) -> None:
    """Sets a gauge."""
    _host.set(gauge, float(value))


def observe(histogram: str, value: float) -> None:
    """Records a value in a histogram."""
    _host.observe(histogram, float(value))
