"""Requests to the origins that the `allow` of the transform grants. A call waits for its answer."""

import json as _json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from tidemill_plugin._columns import dumps, well_formed
from tidemill_plugin._contract import Err, interface
from tidemill_plugin.duration import milliseconds

_host = interface("http")
_MOST_MS = 2**32 - 1


class HttpError(Exception):
    """Why there is no answer: `kind` is "invalid", "denied", "timeout", "too-large" or "failed"."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass
class Request:
    """What is asked for. A `json` is the body as JSON, with its content type."""

    url: str
    method: str = "GET"
    headers: Union[Mapping[str, str], Sequence[Tuple[str, str]]] = ()
    body: Union[str, bytes] = b""
    json: Any = None
    timeout: Union[timedelta, str, float, None] = None


@dataclass
class Response:
    """What was answered. Statuses of 400 and above are answers, not errors."""

    status: int
    headers: List[Tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status < 300

    def success(self) -> "Response":
        """The same, if its status is one of success; else raises a ValueError."""
        if not self.ok:
            raise ValueError(f"the answer has the status {self.status}")
        return self

    def header(self, name: str) -> Optional[str]:
        """The first value of a header, whose name has any case."""
        return next((value for known, value in self.headers if known.lower() == name.lower()), None)

    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return _json.loads(self.body)


def send(request: Request) -> Response:
    """Sends a request and waits for the answer, whatever its status. Raises an HttpError."""
    try:
        return _lifted(_host.send(_lowered(request)))
    except Err as error:
        raise _failed(error.value) from None


def send_all(requests: Iterable[Request]) -> List[Union[Response, HttpError]]:
    """Sends all requests side by side; of each the response, or the error that there is in its place."""
    answers = _host.send_all([_lowered(request) for request in requests])
    return [_failed(answer.value) if isinstance(answer, Err) else _lifted(answer.value) for answer in answers]


def get(url: str, **options: Any) -> Response:
    """`GET`; the options are those of `Request`."""
    return send(Request(url, "GET", **options))


def post(url: str, **options: Any) -> Response:
    """`POST`; the options are those of `Request`."""
    return send(Request(url, "POST", **options))


def _lowered(request: Request) -> Any:
    given = request.headers.items() if isinstance(request.headers, Mapping) else request.headers
    headers = [(well_formed(name), well_formed(value)) for name, value in given]
    body = well_formed(request.body).encode() if isinstance(request.body, str) else request.body
    if request.json is not None:
        headers.append(("content-type", "application/json"))
        body = dumps(request.json).encode()
    timeout_ms = 0 if request.timeout is None else max(1, int(milliseconds(request.timeout)))
    return _host.Request(well_formed(request.method), well_formed(request.url), headers, body, min(timeout_ms, _MOST_MS))


def _lifted(response: Any) -> Response:
    return Response(response.status, list(response.headers), bytes(response.body))


def _failed(error: Any) -> HttpError:
    if isinstance(error, _host.Error_Timeout):
        return HttpError("timeout", "the answer took too long")
    if isinstance(error, _host.Error_TooLarge):
        return HttpError("too-large", f"the answer has more than {error.value} bytes")
    for kind, of in (("invalid", _host.Error_Invalid), ("denied", _host.Error_Denied), ("failed", _host.Error_Failed)):
        if isinstance(error, of):
            said = "the request failed" if kind == "failed" else f"the request is {kind}"
            return HttpError(kind, f"{said}: {error.value}")
    raise TypeError(f"the host answered with {error!r}")
