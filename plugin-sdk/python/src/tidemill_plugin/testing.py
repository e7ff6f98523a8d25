"""Unit tests of plugins without WebAssembly: a harness that does what the host does, and its services in memory."""

import json
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple, Type, Union

from tidemill_plugin._contract import types
from tidemill_plugin._native.err import Err
from tidemill_plugin._native.fake import host as host
from tidemill_plugin.plugin import Plugin, export

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_NOT_JSON = object()
_ABSENT = object()


@dataclass
class Given:
    """A message with metadata, or a time at which it was received."""

    payload: Union[str, bytes]
    metadata: Mapping[str, str] = ()  # type: ignore[assignment]
    received_us: Optional[int] = None


@dataclass
class Sent:
    """A message that goes on, or is new."""

    payload: Union[str, bytes]
    output: str
    metadata: Dict[str, str]
    origin: Optional[int]
    """The index of the message that it is, or came from."""


@dataclass
class Processed:
    """What became of a batch."""

    sent: List[Sent]
    rejected: List[Tuple[int, str]]
    retry: Any

    def payloads(self) -> List[Union[str, bytes]]:
        """What was sent."""
        return [sent.payload for sent in self.sent]


class PluginError(Exception):
    """What the host is told of a call that failed."""


class Harness:
    """Runs a plugin in a test. An edited message is written anew: its spaces are not those it came with."""

    def __init__(
        self, plugin: Type[Plugin], config: Any = None, facts: Optional[Mapping[str, str]] = None
    ) -> None:
        """Makes the plugin of this configuration; raises what is wrong with it."""
        self._transformer = export(plugin)()
        self.description = self._call("init", json.dumps(config or {}), list((facts or {}).items()))

    def process(self, messages: Iterable[Union[str, bytes, Given]]) -> Processed:
        """Gives the plugin messages."""
        given = [message if isinstance(message, Given) else Given(message) for message in messages]
        parsed = [_parsed(message.payload) for message in given]
        seen = [n for n in range(len(given)) if not self.description.json or parsed[n] is not _NOT_JSON]
        rejected = [(n, "not JSON") for n in range(len(given)) if n not in seen]
        if not seen:
            return Processed([], rejected, None)
        outcome = self._call("process", self._batch([given[n] for n in seen], [parsed[n] for n in seen]))
        sent: List[Sent] = []
        for place, index in enumerate(_forwarded(outcome.forward, seen)):
            payload = self._edited(given[index].payload, parsed[index], outcome.edits, place)
            if payload is None:
                rejected.append((index, "the message has no object for an edit"))
                continue
            output = self._output(outcome.forward_outputs, place)
            metadata = self._written(dict(given[index].metadata), outcome.forward_metadata, place)
            sent.append(Sent(payload, output, metadata, index))
        sent += self._emitted(outcome.emissions, seen, given)
        rejected += [(seen[rejection.message], rejection.reason) for rejection in outcome.rejections]
        # Of one origin what is forwarded goes out first, and sorting keeps the order of equals.
        sent.sort(key=lambda message: message.origin or 0)
        if outcome.retry is not None:
            outcome.retry.message = seen[outcome.retry.message]
        return Processed(sent, sorted(rejected), outcome.retry)

    def tick(self, now_us: int = 0) -> List[Sent]:
        """Lets the timer go off."""
        return self._emitted(self._call("tick", now_us), [], [])

    def finish(self) -> List[Sent]:
        """Says that no message will follow."""
        return self._emitted(self._call("finish"), [], [])

    def snapshot(self) -> Optional[bytes]:
        """The bytes of the state, if there is one."""
        saved: Optional[bytes] = self._call("snapshot")
        return saved

    def restore(self, *snapshots: bytes, part: int = 0, parts: int = 1) -> None:
        """Gives it the state of one instance, or of several."""
        self._call("restore", list(snapshots), part, parts)

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self._transformer, name)(*arguments)
        except Err as error:
            raise PluginError(error.value) from None

    def _batch(self, given: List[Given], parsed: List[Any]) -> Any:
        described = self.description
        columns: List[Any] = []
        for key in described.reads:
            columns.append(types.Column_Each([dict(message.metadata).get(key, "") for message in given]))
        for field in described.fields:
            values = [_field(_at(value, field.pointer), field.kind.name) for value in parsed]
            made = types.Values_Numbers if field.kind.name == "NUMBER" else types.Values_Each
            columns.append(types.Column_Field(made(values)))
        return types.Batch(
            len(given),
            types.Payloads_Each([_crossing(message.payload) for message in given]) if described.payloads else None,
            [message.received_us or 0 for message in given] if described.times else None,
            columns or None,
        )

    def _edited(self, payload: Any, parsed: Any, edits: List[Any], place: int) -> Any:
        edited = None
        for edit, pointer in zip(edits, self.description.edits):
            change = edit.value[place]
            if change is None or change != change:
                continue
            edited = json.loads(payload) if edited is None else edited
            *path, name = _names(pointer)
            parent = edited
            for key in path:
                parent = _own(parent, key)
            if not isinstance(parent, dict):
                return None
            if change == "":
                parent.pop(name, None)
            else:
                parent[name] = json.loads(change) if isinstance(change, str) else change
        if edited is None:
            return payload
        return json.dumps(edited, ensure_ascii=False, separators=(",", ":"))

    def _emitted(self, emissions: Any, seen: List[int], given: List[Given]) -> List[Sent]:
        if emissions is None:
            return []
        sent = []
        for place, payload in enumerate(emissions.payloads.value):
            origin = seen[emissions.origins[place]] if emissions.origins else None
            inherited = {} if origin is None else dict(given[origin].metadata)
            metadata = self._written(inherited, emissions.metadata, place)
            sent.append(Sent(payload.value, self._output(emissions.outputs, place), metadata, origin))
        return sent

    def _output(self, outputs: List[int], place: int) -> str:
        number = outputs[place] if outputs else 0
        return "default" if number == 0 else str(self.description.outputs[number - 1])

    def _written(self, metadata: Dict[str, str], writings: List[Any], place: int) -> Dict[str, str]:
        for key, writing in zip(self.description.writes, writings):
            value: Optional[str] = None
            if isinstance(writing, types.Writing_Same):
                value = writing.value
            elif isinstance(writing, types.Writing_Each):
                value = writing.value[place]
            elif isinstance(writing, types.Writing_Sparse):
                value = {setting.index: setting.value for setting in writing.value}.get(place)
            if value == "":
                metadata.pop(key, None)
            elif value is not None:
                metadata[key] = value
        return metadata


def _forwarded(forward: Any, seen: List[int]) -> List[int]:
    if isinstance(forward, types.Forward_All):
        return seen
    return [seen[place] for place in forward.value] if isinstance(forward, types.Forward_These) else []


def _crossing(payload: Union[str, bytes]) -> Any:
    return types.Payload_Text(payload) if isinstance(payload, str) else types.Payload_Binary(payload)


def _parsed(payload: Union[str, bytes]) -> Any:
    try:
        return json.loads(payload)
    except ValueError:
        return _NOT_JSON


def _names(pointer: str) -> List[str]:
    return [name.replace("~1", "/").replace("~0", "~") for name in pointer.split("/")[1:]]


def _at(value: Any, pointer: str) -> Any:
    for name in _names(pointer):
        value = _own(value, name)
    return value


def _own(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value.get(name, _ABSENT)
    if isinstance(value, list) and name.isdigit() and int(name) < len(value):
        return value[int(name)]
    return _ABSENT


def _field(value: Any, kind: str) -> Any:
    if kind == "JSON":
        is_there = value is not _ABSENT and value is not _NOT_JSON
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if is_there else None
    if kind == "TEXT":
        return value if isinstance(value, str) else None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else float("nan")
