"""The contract's fixture guest in Python: ../README.md says what it does."""

from typing import Dict, List, Optional, Tuple

import fields
from columns import Emitted, marks
from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import state, types

OUTPUTS = ["default", "side"]


class Transformer(exports.Transformer):
    # The class's own, because componentize-py makes an object of it for each call.
    count = 0
    mode = ""

    def init(self, config: str, facts: List[Tuple[str, str]]) -> types.Description:
        if '"refuse"' in config:
            raise Err("refused, as asked")
        observe = '"observe"' in config
        blind = '"blind"' in config
        Transformer.mode = "blind" if blind else ""
        for mode in fields.MODES:
            if f'"{mode}"' in config:
                Transformer.mode = mode
        described, edits = fields.MODES.get(self.mode, ([], []))
        return types.Description(
            outputs=["side"],
            reads=["room"] if observe else [],
            writes=["mark"],
            fields=[types.Field(pointer, kind) for pointer, kind in described],
            edits=edits,
            json='"json"' in config,
            form=types.Form.EACH,
            payloads=not blind,
            times=observe,
            tick_ms=50,
            options=[],
        )

    def process(self, batch: types.Batch) -> types.Outcome:
        if self.mode == "":
            return obey(batch)
        Transformer.count += batch.count
        if self.mode == "blind":
            return types.Outcome(types.Forward_All(), [], [], [], None, [], None)
        return fields.decide(self.mode, batch)

    def tick(self, now_us: int) -> Optional[types.Emissions]:
        if self.count == 0:
            return None
        text = types.Payload_Text(f"tick:{now_us}:{self.count}")
        return types.Emissions(types.Payloads_Each([text]), [], [], [types.Writing_Same("timer")])

    def finish(self) -> Optional[types.Emissions]:
        text = types.Payload_Text(f"finish:{self.count}")
        return types.Emissions(types.Payloads_Each([text]), [], [1], [])

    def snapshot(self) -> Optional[bytes]:
        return str(self.count).encode() if self.count else None

    def restore(self, snapshots: List[bytes], part: int, parts: int) -> None:
        kept = 0
        for line in b"\n".join(snapshots).decode().split("\n"):
            key, _, count = line.rpartition("=")
            if not count.isdigit():
                raise Err("not a count")
            if (fnv1a(key) % parts if key else 0) == part:
                kept += int(count)
        Transformer.count = kept


def obey(batch: types.Batch) -> types.Outcome:
    """Does with each message what its text says."""
    messages = batch.payloads.value
    loaded = save_and_load([payload.value for payload in messages if isinstance(payload, types.Payload_Text)])
    emitted = Emitted()
    forwarded: List[int] = []
    forward_outputs: List[int] = []
    forward_marks: List[str] = []
    rejections: List[types.Rejection] = []
    retry: Optional[types.Retry] = None

    def forward(index: int, output: int = 0, mark: str = "") -> None:
        forwarded.append(index)
        forward_outputs.append(output)
        forward_marks.append(mark)

    for index, payload in enumerate(messages):
        Transformer.count += 1
        value = payload.value
        if isinstance(payload, types.Payload_Binary):
            emitted.add(index, 0, types.Payload_Binary(bytes(reversed(value))))
            continue
        command, _, rest = value.partition(":")
        if command in ("drop", "save"):
            pass
        elif command == "emit":
            output, mark, text = rest.split(":", 2)
            emitted.add(index, OUTPUTS.index(output), types.Payload_Text(text), mark)
        elif command == "both":
            forward(index)
            emitted.add(index, 0, types.Payload_Text(rest))
        elif command == "mark":
            forward(index, mark=rest)
        elif command == "room":
            emitted.add(index, 0, types.Payload_Text(room(batch, index)))
        elif command == "time":
            time = batch.times[index] if batch.times else 0
            emitted.add(index, 0, types.Payload_Text(str(time)))
        elif command == "count":
            emitted.add(index, 0, types.Payload_Text(str(Transformer.count)))
        elif command == "load":
            emitted.add(index, 0, types.Payload_Text(loaded[rest]))
        elif command == "later":
            after, _, why = rest.partition(":")
            retry = types.Retry(index, why, int(after))
            break
        elif command == "reject":
            rejections.append(types.Rejection(index, rest))
        elif command == "fail":
            raise Err(rest)
        else:
            forward(index, 1 if value == "forward:side" else 0)

    all_or_these: types.Forward = types.Forward_Nothing()
    if len(forwarded) == len(messages):
        all_or_these = types.Forward_All()
    elif forwarded:
        all_or_these = types.Forward_These(forwarded)
    if not any(forward_outputs):
        forward_outputs = []
    return types.Outcome(
        all_or_these, forward_outputs, marks(forward_marks), [], emitted.columns(), rejections, retry
    )


def save_and_load(texts: List[str]) -> Dict[str, str]:
    """Does what a batch says of the host's state, in one call each; gives what was loaded."""
    changes = []
    keys = []
    for text in texts:
        command, _, rest = text.partition(":")
        if command == "save":
            key, ttl, value = rest.split(":", 2)
            changes.append(state.Change(key, None if value == "-" else value.encode(), int(ttl)))
        elif command == "load":
            keys.append(rest)
    if changes:
        state.set_many(changes)
    values = state.get_many(keys) if keys else []
    return {key: "-" if value is None else value.decode() for key, value in zip(keys, values)}


def room(batch: types.Batch, index: int) -> str:
    """The value of the metadata key `room` of one message."""
    if not batch.columns:
        return ""
    column = batch.columns[0]
    return column.value if isinstance(column, types.Column_Same) else column.value[index]


def fnv1a(key: str) -> int:
    """The hash by which instances share out keys."""
    hashed = 14695981039346656037
    for byte in key.encode():
        hashed = (hashed ^ byte) * 1099511628211 % 2**64
    return hashed
