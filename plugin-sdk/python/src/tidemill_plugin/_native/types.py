"""The contract's types, as componentize-py makes them of `wit/transform.wit`."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, List, Optional, Tuple


class Form(Enum):
    PACKED = 0
    EACH = 1


class Kind(Enum):
    NUMBER = 0
    TEXT = 1
    JSON = 2


@dataclass
class Payload_Text:
    value: str


@dataclass
class Payload_Binary:
    value: bytes


@dataclass
class Payloads_Each:
    value: List[Any]


@dataclass
class Field:
    pointer: str
    kind: Kind


@dataclass
class Values_Numbers:
    value: List[float]


@dataclass
class Values_Each:
    value: List[Optional[str]]


@dataclass
class Column_Same:
    value: str


@dataclass
class Column_Each:
    value: List[str]


@dataclass
class Column_Field:
    value: Any


@dataclass
class Batch:
    count: int
    payloads: Optional[Payloads_Each]
    times: Optional[List[int]]
    columns: Optional[List[Any]]


@dataclass
class Forward_Nothing:
    pass


@dataclass
class Forward_All:
    pass


@dataclass
class Forward_These:
    value: List[int]


@dataclass
class Rejection:
    message: int
    reason: str


@dataclass
class Retry:
    message: int
    reason: str
    after_ms: int


@dataclass
class Setting:
    index: int
    value: str


@dataclass
class Writing_Inherit:
    pass


@dataclass
class Writing_Same:
    value: str


@dataclass
class Writing_Each:
    value: List[str]


@dataclass
class Writing_Sparse:
    value: List[Setting]


@dataclass
class Emissions:
    payloads: Any
    origins: List[int]
    outputs: List[int]
    metadata: List[Any]


@dataclass
class Outcome:
    forward: Any
    forward_outputs: List[int]
    forward_metadata: List[Any]
    edits: List[Any]
    emissions: Optional[Emissions]
    rejections: List[Rejection]
    retry: Optional[Retry]


@dataclass
class Description:
    outputs: List[str]
    reads: List[str]
    writes: List[str]
    fields: List[Field]
    edits: List[str]
    json: bool
    form: Form
    payloads: bool
    times: bool
    tick_ms: int
    options: List[Tuple[str, str]]
