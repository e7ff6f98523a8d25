"""The contract's fixture guest in Python, with the SDK: ../README.md says what it does."""

from dataclasses import dataclass
from typing import Any, List, Mapping, Optional

from commands import obey, save_and_load
from fields import MODES
from tidemill_plugin import Batch, Emissions, Outcome, Part, Plugin, Snapshot, export


@dataclass
class Words:
    """The words of ../README.md."""

    refuse: bool = False
    observe: bool = False
    blind: bool = False
    json: bool = False
    guards: bool = False
    fields: bool = False
    filter: bool = False
    notional: bool = False
    symbol: bool = False


class Contract(Plugin):
    Config = Words
    outputs = ["side"]
    writes = ["mark"]
    tick_every = "50ms"

    def __init__(self, config: Words, facts: Mapping[str, str]) -> None:
        if config.refuse:
            raise ValueError("refused, as asked")
        self.count = 0
        self.blind = config.blind
        self.mode = next((mode for name, mode in MODES.items() if getattr(config, name)), None)
        if self.mode is not None:
            self.fields = self.mode.fields
            self.edits = self.mode.edits
        self.reads = ["room"] if config.observe else []
        self.times = config.observe
        self.only_json = config.json
        self.guards = config.guards
        self.payloads = not config.blind

    def process_batch(self, batch: Batch, outcome: Outcome) -> None:
        if self.mode is None and self.blind:
            self.count += len(batch)
            outcome.forward_all(batch)
            return
        loaded = save_and_load(batch) if self.mode is None else {}
        for message in batch:
            self.count += 1
            out = outcome.of(message.index)
            if self.mode is None:
                obey(message, out, self.count, loaded)
            else:
                self.mode.decide(message, out)
            if outcome.is_stopped:
                break

    def tick(self, now_us: int, out: Emissions) -> None:
        if self.count:
            out.emit(f"tick:{now_us}:{self.count}", metadata={"mark": "timer"})

    def finish(self, out: Emissions) -> None:
        out.emit(f"finish:{self.count}", output="side")

    # A number is its digits as JSON.
    def snapshot(self) -> Optional[int]:
        return self.count or None

    def restore_part(self, snapshots: List[Snapshot], part: Part) -> None:
        self.count = 0
        for line in (line for snapshot in snapshots for line in snapshot.text().split("\n")):
            key, has_key, count = line.rpartition("=")
            if not count.isdigit():
                raise ValueError("not a count")
            if part.has(key) if has_key else part.number == 0:
                self.count += int(count)


Transformer = export(Contract)
