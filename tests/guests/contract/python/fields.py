"""What the JSON fields of a message say is to become of it."""

import math
from typing import List, Optional

from columns import Emitted
from wit_world.imports import types

NUMBER, TEXT, JSON = types.Kind.NUMBER, types.Kind.TEXT, types.Kind.JSON

# The fields and the edits that each mode describes.
MODES = {
    "fields": (
        [("/price", NUMBER), ("/do", TEXT), ("/a~1b", TEXT), ("/set/0", JSON), ("/set/1", JSON)],
        ["/price", "/note", "/deep/note"],
    ),
    "filter": ([("/p", NUMBER), ("/s", TEXT)], []),
    "notional": ([("/p", NUMBER), ("/q", NUMBER)], ["/notional"]),
    "symbol": ([("/s", TEXT)], []),
}

ABOVE = 100.0
SYMBOL = "BTCUSDT"


def decide(mode: str, batch: types.Batch) -> types.Outcome:
    # No metadata is read in these modes.
    columns = [column.value.value for column in batch.columns]
    if mode == "filter":
        pairs = enumerate(zip(*columns))
        return forwarding(batch, [n for n, (price, symbol) in pairs if price > ABOVE and symbol == SYMBOL])
    if mode == "notional":
        worth = [price * quantity for price, quantity in zip(*columns)]
        return types.Outcome(types.Forward_All(), [], [], [types.Values_Numbers(worth)], None, [], None)
    emitted = Emitted()
    if mode == "symbol":
        for index, symbol in enumerate(columns[0]):
            emitted.add(index, 0, types.Payload_Text("-" if symbol is None else symbol))
        return types.Outcome(types.Forward_Nothing(), [], [], [], emitted.columns(), [], None)

    forwarded: List[int] = []
    prices: List[float] = []
    notes: List[Optional[str]] = []
    deep_notes: List[Optional[str]] = []
    for index, (price, order, text, first, second) in enumerate(zip(*columns)):
        if order == "drop":
            continue
        if order == "show":
            cents = None if math.isnan(price) else str(round(100 * price))
            shown = "|".join("-" if value is None else value for value in (cents, text, first, second))
            emitted.add(index, 0, types.Payload_Text(shown))
            continue
        edit = order == "edit"
        forwarded.append(index)
        prices.append(2 * price if edit else math.nan)
        notes.append(note(first) if edit else None)
        deep_notes.append(note(second) if edit else None)
    outcome = forwarding(batch, forwarded)
    if forwarded:
        outcome.edits = [types.Values_Numbers(prices), types.Values_Each(notes), types.Values_Each(deep_notes)]
    outcome.emissions = emitted.columns()
    return outcome


def note(value: Optional[str]) -> Optional[str]:
    """An empty string stands for removal."""
    return "" if value == '""' else value


def forwarding(batch: types.Batch, forwarded: List[int]) -> types.Outcome:
    forward: types.Forward = types.Forward_These(forwarded)
    if len(forwarded) == batch.count:
        forward = types.Forward_All()
    return types.Outcome(forward, [], [], [], None, [], None)
