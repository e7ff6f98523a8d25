from tidemill_plugin._native.fake import host


def add(counter: str, by: float) -> None:
    host.counters[counter] = host.counters.get(counter, 0) + max(by, 0)


def set(gauge: str, value: float) -> None:
    host.gauges[gauge] = value


def observe(histogram: str, value: float) -> None:
    host.histograms.setdefault(histogram, []).append(value)
