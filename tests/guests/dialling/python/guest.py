"""A connector, as ../src/lib.rs is one in Rust: before a later dial it does what the ending of the last says."""

from dataclasses import dataclass
from typing import Mapping

from tidemill_plugin import http
from tidemill_plugin.connector import Attempt, Connector, Dial, Later, export_connector


@dataclass
class Config:
    """What stands in `config` of `before_connect`."""

    key: str
    tick_ms: int = 0


class Dialling(Connector):
    Config = Config

    def __init__(self, config: Config, facts: Mapping[str, str]) -> None:
        self.key = config.key
        self.tick_every = f"{config.tick_ms}ms" if config.tick_ms else None

    def before_connect(self, dial: Dial, attempt: Attempt) -> None:
        last = attempt.last
        if last is None:
            dial.set_header("Authorization", f"Bearer {self.key}")
            dial.send_first("hello żółw")
            return
        order, _, argument = last.detail.partition(":")
        if order == "told":
            numbers = f"{last.status or 0} {last.close_code or 0} {last.lasted_ms}"
            dial.set_header("X-Told", f"{attempt.number} {last.outcome} {numbers}")
        elif order == "url":
            dial.url = argument
        elif order == "ask":
            dial.set_header("X-Answer", http.get(argument).text())
        elif order == "later":
            raise Later(argument, "250ms")
        else:
            raise ValueError(argument)

    def tick(self, now_us: int) -> None:
        if now_us % 2:
            raise ValueError(f"{now_us} is odd")


Dialler = export_connector(Dialling)
