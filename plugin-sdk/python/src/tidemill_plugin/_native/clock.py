from tidemill_plugin._native.fake import host


def now_us() -> int:
    return host.now_us
