"""What became of a batch: which messages go on, what is new, what is refused."""

from datetime import timedelta
from typing import Any, Callable, List, Mapping, Optional, TypeVar, Union

from tidemill_plugin._columns import EditColumn, MetadataColumn, dumps, lowered, well_formed
from tidemill_plugin._contract import types
from tidemill_plugin._names import place
from tidemill_plugin.duration import whole_milliseconds

T = TypeVar("T")

_EMISSION_BYTES = 192
"""What the host counts for an emission and its payload beside their bytes."""
_METADATA_BYTES = 64
"""What the host counts for metadata beside its bytes: of an emission if any has some, and of each value."""
_OUTPUT_BYTES = 16 << 20
_MEMORY_BYTES = 64 << 20
"""What there is where the host says nothing."""


def most_bytes(facts: Mapping[str, str]) -> int:
    """How much one call may send. What is sent is there twice for a moment, beside all that the plugin knows."""
    output, memory = facts.get("output_bytes", _OUTPUT_BYTES), facts.get("memory_bytes", _MEMORY_BYTES)
    return min(int(output), int(memory) // 4)


class Emissions:
    """New messages that have no origin: the way out of `tick` and `finish`."""

    __slots__ = ("_shape", "_payloads", "_outputs", "_metadata", "_most_bytes", "_bytes")

    def __init__(self, shape: Any, most_bytes: Optional[int] = None) -> None:
        self._shape = shape
        # What the host takes, and what it counts for what is there, where that is looked at.
        self._most_bytes = most_bytes
        self._bytes = 0
        self._payloads: List[Any] = []
        self._outputs: List[int] = []
        self._metadata: Optional[List[MetadataColumn]] = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self._payloads)

    def emit(
        self, value: Any, output: Optional[str] = None, metadata: Optional[Mapping[str, str]] = None
    ) -> None:
        """Sends a new message.

        `str` and `bytes` go as they are, anything else as JSON. `output` names a way out, and `metadata` has values for
        keys, of which "" removes the key; what is not given is inherited from the origin.
        """
        if isinstance(value, (bytes, bytearray, memoryview)):
            payload = types.Payload_Binary(bytes(value))
        else:
            payload = types.Payload_Text(well_formed(value) if type(value) is str else dumps(value))
        number = 0 if output is None else place(self._shape.outputs, output, "outputs")
        if metadata:
            for key, text in metadata.items():
                column = place(self._shape.writes, key, "writes")
                if self._metadata is None:
                    self._metadata = [MetadataColumn() for _ in self._shape.writes]
                self._metadata[column].set(len(self._payloads), text)
                if self._most_bytes is not None:
                    self._bytes += _METADATA_BYTES + _length(text)
        if self._most_bytes is not None:
            self._bytes += _EMISSION_BYTES + _length(payload.value)
        self._payloads.append(payload)
        self._outputs.append(number)

    def _emit_if_it_fits(self, emit: Callable[[T], None], what: T) -> bool:
        """Has a function emit, and takes that back if the host would not take it with the others. Says whether it
        stays."""
        count, before = len(self._payloads), self._bytes
        emit(what)
        of_metadata = len(self._payloads) * _METADATA_BYTES if self._metadata else 0
        if self._most_bytes is None or self._bytes + of_metadata <= self._most_bytes:
            return True
        self._keep(count)
        self._bytes = before
        return False

    def _keep(self, count: int) -> None:
        """Forgets those from this number on."""
        del self._payloads[count:], self._outputs[count:]
        for column in self._metadata or ():
            column.keep(count)

    def _lower(self, origins: List[int]) -> Any:
        """As the contract wants them; None if there are none."""
        payloads = self._payloads
        if not payloads:
            return None
        outputs = self._outputs if any(self._outputs) else []
        metadata = lowered(self._metadata, list(range(len(payloads)))) if self._metadata else []
        return types.Emissions(types.Payloads_Each(payloads), origins, outputs, metadata)


def _length(value: Union[str, bytes]) -> int:
    """The bytes of a text in UTF-8, or of bytes. Half a surrogate pair becomes a character of three bytes."""
    return len(value) if isinstance(value, bytes) or value.isascii() else len(value.encode(errors="surrogatepass"))


class Outcome:
    """What became of the messages of a batch, told one message after the other. Those it is told nothing of are
    filtered."""

    __slots__ = (
        "_shape",
        "_index",
        "_forwarded",
        "_outputs",
        "_edits",
        "_metadata",
        "_emissions",
        "_origins",
        "_rejections",
        "_rejected",
        "_retry",
    )

    def __init__(self, shape: Any) -> None:
        self._shape = shape
        self._index = -1
        self._forwarded: List[int] = []
        self._outputs: List[int] = []
        self._edits: Optional[List[EditColumn]] = None
        self._metadata: Optional[List[MetadataColumn]] = None
        self._emissions: Optional[Emissions] = None
        self._origins: List[int] = []
        self._rejections: List[Any] = []
        # No message, and none that `_index` says.
        self._rejected = -2
        self._retry: Any = None

    def of(self, index: int) -> "Outcome":
        """The way out of the message at an index: what is said next is about that one, and after it of later ones
        only."""
        if self._retry is not None:
            raise RuntimeError("nothing is decided on behind a message that is to be offered again")
        if index < self._index:
            raise RuntimeError("messages are decided on in their order")
        if self._rejected == self._index:
            self._take_back()
        self._index = index
        return self

    @property
    def is_stopped(self) -> bool:
        """Whether a message is to be offered again: then those behind it are not decided on."""
        return self._retry is not None

    def forward(self, output: Optional[str] = None) -> None:
        """Lets the message go on, as a rule to the output "default". Of several calls the last counts."""
        number = 0 if output is None else place(self._shape.outputs, output, "outputs")
        forwarded = self._forwarded
        if forwarded and forwarded[-1] == self._index:
            self._outputs[-1] = number
        else:
            forwarded.append(self._index)
            self._outputs.append(number)

    def forward_all(self, batch: Any) -> None:
        """Lets all messages of a batch go on that nothing was said of yet."""
        first, count = self._index + 1, len(batch)
        if first < count:
            self.of(count - 1)
            self._forwarded.extend(range(first, count))
            self._outputs.extend([0] * (count - first))

    def set(self, edit: str, value: Any) -> None:
        """Sets a member of the message, if it goes on.

        A `float` is written as a number with a point and an `int` without one; NaN becomes null. Anything else is what
        `json` makes of it.
        """
        self._edit(edit).set(self._index, value)

    def set_json(self, edit: str, text: str) -> None:
        """Sets a member of the message, if it goes on, to a JSON text."""
        if not text:
            raise ValueError("set_json takes a JSON text")
        self._edit(edit).set_json(self._index, text)

    def remove(self, edit: str) -> None:
        """Removes a member of the message, if it goes on."""
        self._edit(edit).set_json(self._index, "")

    def set_metadata(self, key: str, value: str) -> None:
        """Gives the message a value of a metadata key, if it goes on; "" removes the key."""
        column = place(self._shape.writes, key, "writes")
        if self._metadata is None:
            self._metadata = [MetadataColumn() for _ in self._shape.writes]
        self._metadata[column].set(self._index, value)

    def emit(
        self, value: Any, output: Optional[str] = None, metadata: Optional[Mapping[str, str]] = None
    ) -> None:
        """Sends a new message that came from this one and inherits its metadata; see `Emissions.emit`."""
        if self._emissions is None:
            self._emissions = Emissions(self._shape)
        self._emissions.emit(value, output, metadata)
        self._origins.append(self._index)

    def reject(self, reason: Any) -> None:
        """Refuses the message, and takes back what was told of it."""
        self._take_back()
        if self._rejected == self._index:
            self._rejections.pop()
        self._retry = None
        self._rejected = self._index
        self._rejections.append(types.Rejection(self._index, well_formed(str(reason))))

    def retry(self, reason: Any, after: Union[timedelta, str, float]) -> None:
        """Says that nothing can be decided yet.

        The host offers this message, and all behind it, again after this time (a `timedelta`, a text such as "500ms", or
        seconds; below 0 it is 0); after as many times as the transform's `retries` say, it counts as rejected for this
        reason.
        """
        after_ms = whole_milliseconds(after)
        self._take_back()
        if self._rejected == self._index:
            self._rejections.pop()
            self._rejected = -2
        self._retry = types.Retry(self._index, well_formed(str(reason)), after_ms)

    def _edit(self, name: str) -> EditColumn:
        column = place(self._shape.edits, name, "edits")
        if self._edits is None:
            self._edits = [EditColumn() for _ in self._shape.edits]
        return self._edits[column]

    def _take_back(self) -> None:
        index = self._index
        if self._forwarded and self._forwarded[-1] == index:
            self._forwarded.pop()
            self._outputs.pop()
        while self._origins and self._origins[-1] == index:
            self._origins.pop()
        if self._emissions is not None:
            self._emissions._keep(len(self._origins))
        for column in (*(self._edits or ()), *(self._metadata or ())):
            column.keep(index)

    def _lower(self, count: int) -> Any:
        """As the contract wants it."""
        # What was told of a message after it was refused, or put off, does not count.
        if self._rejected == self._index or self._retry is not None:
            self._take_back()
        forwarded = self._forwarded
        if not forwarded:
            forward = types.Forward_Nothing()
        elif len(forwarded) == count:
            forward = types.Forward_All()
        else:
            forward = types.Forward_These(forwarded)
        return types.Outcome(
            forward,
            self._outputs if any(self._outputs) else [],
            lowered(self._metadata, forwarded),
            lowered(self._edits, forwarded),
            None if self._emissions is None else self._emissions._lower(self._origins),
            self._rejections,
            self._retry,
        )


Out = Outcome
"""The way out of one message: what `process` is given."""
