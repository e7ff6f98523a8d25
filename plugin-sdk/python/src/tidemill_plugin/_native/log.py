from enum import Enum

from tidemill_plugin._native.fake import host


class Level(Enum):
    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4


def write(level: Level, text: str) -> None:
    host.lines.append((level.name.lower(), text))
