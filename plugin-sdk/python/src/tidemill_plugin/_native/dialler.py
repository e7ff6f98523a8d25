"""The types of connectors."""

from dataclasses import dataclass
from typing import Any, List, Optional, Tuple


@dataclass
class Dial:
    url: str
    headers: List[Tuple[str, str]]
    subprotocols: List[str]
    first_messages: List[Any]
    options: List[Tuple[str, str]]


@dataclass
class Ending:
    outcome: str
    detail: str
    status: Optional[int]
    close_code: Optional[int]
    lasted_ms: int


@dataclass
class Attempt:
    dial: Dial
    number: int
    last: Optional[Ending]
    facts: List[Tuple[str, str]]


@dataclass
class Refusal:
    reason: str
    retry_after_ms: Optional[int]


@dataclass
class ConnectorDescription:
    tick_ms: int
    options: List[Tuple[str, str]]
