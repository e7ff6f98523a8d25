from dataclasses import dataclass
from typing import Any, List, Tuple

from tidemill_plugin._native.err import Err
from tidemill_plugin._native.fake import host


@dataclass
class Request:
    method: str
    url: str
    headers: List[Tuple[str, str]]
    body: bytes
    timeout_ms: int


@dataclass
class Response:
    status: int
    headers: List[Tuple[str, str]]
    body: bytes


@dataclass
class Error_Invalid:
    value: str


@dataclass
class Error_Denied:
    value: str


@dataclass
class Error_Timeout:
    pass


@dataclass
class Error_TooLarge:
    value: int


@dataclass
class Error_Failed:
    value: str


@dataclass
class Ok:
    value: Response


def send(request: Request) -> Any:
    host.requests.append(request)
    return host.answer(request)


def send_all(requests: List[Request]) -> List[Any]:
    answers: List[Any] = []
    for request in requests:
        try:
            answers.append(Ok(send(request)))
        except Err as error:
            answers.append(error)
    return answers
