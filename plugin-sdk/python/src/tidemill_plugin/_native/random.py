from tidemill_plugin._native.fake import host


def next() -> float:
    host.turn += 1
    return host.randoms[(host.turn - 1) % len(host.randoms)]
