"""The contract's fixture guest in Python: ../README.md says what it does."""

from typing import List, Optional, Tuple

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import types

OUTPUTS = ["default", "side"]


class Marked:
    """The emissions of one call, collected as columns."""

    def __init__(self) -> None:
        self.payloads: List[types.Payload] = []
        self.origins: List[int] = []
        self.outputs: List[int] = []
        self.marks: List[str] = []

    def add(self, origin: int, output: int, payload: types.Payload, mark: str = "") -> None:
        self.payloads.append(payload)
        self.origins.append(origin)
        self.outputs.append(output)
        self.marks.append(mark)

    def columns(self) -> Optional[types.Emissions]:
        """As the contract wants them; `None` if there are none."""
        if not self.payloads:
            return None
        outputs = self.outputs if any(self.outputs) else []
        return types.Emissions(
            types.Payloads_Each(self.payloads), self.origins, outputs, self.metadata()
        )

    def metadata(self) -> List[types.Writing]:
        settings = [
            types.Setting(emission, "" if mark == "-" else mark)
            for emission, mark in enumerate(self.marks)
            if mark
        ]
        if not settings:
            return []
        if len(settings) == len(self.marks):
            return [types.Writing_Each([setting.value for setting in settings])]
        return [types.Writing_Sparse(settings)]


class Transformer(exports.Transformer):
    # The class's own, because componentize-py makes an object of it for each call.
    count = 0

    def init(self, config: str, facts: List[Tuple[str, str]]) -> types.Description:
        if '"refuse"' in config:
            raise Err("refused, as asked")
        observe = '"observe"' in config
        return types.Description(
            outputs=["side"],
            reads=["room"] if observe else [],
            writes=["mark"],
            payloads=types.Form.EACH,
            times=observe,
            tick_ms=50,
            options=[],
        )

    def process(self, batch: types.Batch) -> types.Outcome:
        emitted = Marked()
        forwarded: List[int] = []
        forward_outputs: List[int] = []
        rejections: List[types.Rejection] = []
        for index, payload in enumerate(batch.payloads.value):
            Transformer.count += 1
            value = payload.value
            if isinstance(payload, types.Payload_Binary):
                emitted.add(index, 0, types.Payload_Binary(bytes(reversed(value))))
                continue
            command, _, rest = value.partition(":")
            if command == "drop":
                pass
            elif command == "emit":
                output, mark, text = rest.split(":", 2)
                emitted.add(index, OUTPUTS.index(output), types.Payload_Text(text), mark)
            elif command == "both":
                forwarded.append(index)
                forward_outputs.append(0)
                emitted.add(index, 0, types.Payload_Text(rest))
            elif command == "room":
                emitted.add(index, 0, types.Payload_Text(room(batch, index)))
            elif command == "time":
                time = batch.times[index] if batch.times else 0
                emitted.add(index, 0, types.Payload_Text(str(time)))
            elif command == "count":
                emitted.add(index, 0, types.Payload_Text(str(self.count)))
            elif command == "reject":
                rejections.append(types.Rejection(index, rest))
            elif command == "fail":
                raise Err(rest)
            else:
                forwarded.append(index)
                forward_outputs.append(1 if value == "forward:side" else 0)

        forward: types.Forward = types.Forward_Nothing()
        if len(forwarded) == len(batch.payloads.value):
            forward = types.Forward_All()
        elif forwarded:
            forward = types.Forward_These(forwarded)
        if not any(forward_outputs):
            forward_outputs = []
        return types.Outcome(forward, forward_outputs, emitted.columns(), rejections)

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

    def restore(self, snapshot: bytes) -> None:
        if not snapshot.isdigit():
            raise Err("not a count")
        Transformer.count = int(snapshot)


def room(batch: types.Batch, index: int) -> str:
    """The value of the metadata key `room` of one message."""
    if not batch.metadata:
        return ""
    column = batch.metadata[0]
    return column.value if isinstance(column, types.Column_Same) else column.value[index]
