"""What comes in: a batch of messages, read from the columns in which it crossed."""

import json
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, Mapping, Optional, Sequence, Type, Union

from tidemill_plugin._contract import types
from tidemill_plugin._names import place
from tidemill_plugin.fields import Field


class Batch:
    """Messages in the order in which they came."""

    __slots__ = ("_shape", "_raw", "_payloads", "_columns")

    def __init__(self, shape: Any, raw: Any) -> None:
        self._shape = shape
        self._raw = raw
        self._payloads = None if raw.payloads is None else raw.payloads.value
        self._columns = [column.value.value for column in raw.columns[len(shape.reads) :]] if shape.fields else []

    def __len__(self) -> int:
        """How many messages there are; at least one."""
        return int(self._raw.count)

    def __iter__(self) -> "Iterator[Message]":
        make = self._shape.message
        return (make(self, index) for index in range(self._raw.count))

    def __getitem__(self, index: int) -> "Message":
        return self._shape.message(self, index)  # type: ignore[no-any-return]

    def column(self, field: str) -> Sequence[Any]:
        """The values of a field, one a message: NaN (of a number) or None where a message does not have it."""
        return self._columns[place(self._shape.fields, field, "fields")]  # type: ignore[no-any-return]

    def _metadata(self, key: str, index: int) -> str:
        column = self._raw.columns[place(self._shape.reads, key, "reads")]
        return column.value if isinstance(column, types.Column_Same) else column.value[index]  # type: ignore[no-any-return]


class Message:
    """One message of a batch. Each field that the plugin declares is an attribute of it."""

    __slots__ = ("_batch", "index")

    def __init__(self, batch: Batch, index: int) -> None:
        self._batch = batch
        self.index = index
        """Its place in the batch."""

    if TYPE_CHECKING:

        def __getattr__(self, field: str) -> Any:
            """The value of a field; None where the message does not have it."""

    @property
    def is_text(self) -> bool:
        """Whether it is a text message; true if the plugin does without payloads."""
        payloads = self._batch._payloads
        return payloads is None or isinstance(payloads[self.index], types.Payload_Text)

    @property
    def payload(self) -> Union[str, bytes]:
        """Its text or bytes; "" if the plugin does without payloads."""
        payloads = self._batch._payloads
        return "" if payloads is None else payloads[self.index].value

    def parse(self) -> Any:
        """What its payload is as JSON. Fields that are declared are much faster."""
        return json.loads(self.payload)

    @property
    def received_us(self) -> Optional[int]:
        """When it was received, in microseconds since the Unix epoch; None unless the plugin wants `times`."""
        times = self._batch._raw.times
        return None if times is None else times[self.index]

    def metadata(self, key: str) -> str:
        """The value of a metadata key; "" if the message does not have it."""
        return self._batch._metadata(key, self.index)

    def raw(self, field: str) -> Optional[str]:
        """A `json` field as it stands in the message; None where it is not there."""
        return self._batch.column(field)[self.index]  # type: ignore[no-any-return]


def message_with(fields: Mapping[str, Field]) -> Type[Message]:
    """The class of messages that have these fields as attributes."""
    attributes: Dict[str, Any] = {"__slots__": ()}
    for number, (name, field) in enumerate(fields.items()):
        if hasattr(Message, name) or not name.isidentifier():
            raise TypeError(f"a field cannot be named {name!r}")
        attributes[name] = property(_GETTERS[field.kind](number))
    return type("Message", (Message,), attributes)


def _number(number: int) -> Callable[[Message], Optional[float]]:
    def get(message: Message) -> Optional[float]:
        value = message._batch._columns[number][message.index]
        return value if value == value else None

    return get


def _text(number: int) -> Callable[[Message], Optional[str]]:
    return lambda message: message._batch._columns[number][message.index]


def _json(number: int) -> Callable[[Message], Any]:
    def get(message: Message) -> Any:
        value = message._batch._columns[number][message.index]
        return None if value is None else json.loads(value)

    return get


_GETTERS: Dict[str, Callable[[int], Callable[[Message], Any]]] = {"NUMBER": _number, "TEXT": _text, "JSON": _json}
