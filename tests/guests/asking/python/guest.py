"""Asks over HTTP what each message says, as ../src/lib.rs does in Rust.

A message has a request a line: a method, a url, headers as `name:value` and, after ` # `, a body. Several lines are sent
side by side.
"""

from dataclasses import dataclass
from typing import Mapping, Union

from tidemill_plugin import Message, Out, Plugin, export, http


@dataclass
class Asked:
    """How long each request may take, in milliseconds."""

    timeout_ms: int = 0


class Asking(Plugin):
    Config = Asked

    def __init__(self, config: Asked, facts: Mapping[str, str]) -> None:
        self.timeout = f"{config.timeout_ms}ms" if config.timeout_ms else None

    def process(self, message: Message, out: Out) -> None:
        requests = [self.request(line) for line in str(message.payload).split("\n")]
        answers = [send(requests[0])] if len(requests) == 1 else http.send_all(requests)
        out.emit("\n".join(map(told, answers)))

    def request(self, line: str) -> http.Request:
        head, _, body = line.partition(" # ")
        method, url, *headers = head.split(" ")
        pairs = [(name, value) for name, _, value in (header.partition(":") for header in headers)]
        return http.Request(url, method, headers=pairs, body=body, timeout=self.timeout)


def send(request: http.Request) -> Union[http.Response, http.HttpError]:
    try:
        return http.send(request)
    except http.HttpError as error:
        return error


def told(answer: Union[http.Response, http.HttpError]) -> str:
    return str(answer) if isinstance(answer, http.HttpError) else f"{answer.status} {answer.text()}"


Transformer = export(Asking)
