"""What the JSON fields of a message say is to become of it."""

from dataclasses import dataclass, field
from typing import Callable, Dict, Optional

from tidemill_plugin import Field, Message, Out, json, number, text


@dataclass
class Mode:
    """What a mode declares, and how it decides on a message."""

    decide: Callable[[Message, Out], None]
    fields: Dict[str, Field]
    edits: Dict[str, str] = field(default_factory=dict)


def show_or_edit(message: Message, out: Out) -> None:
    order = message.order
    if order == "drop":
        return
    if order == "show":
        cents = None if message.price is None else round(100 * message.price)
        shown = [cents, message.words, message.raw("first"), message.raw("second")]
        out.emit("|".join("-" if value is None else str(value) for value in shown))
        return
    out.forward()
    if order == "edit":
        if message.price is not None:
            out.set("price", 2 * message.price)
        note(out, "note", message.raw("first"))
        note(out, "deep_note", message.raw("second"))


def note(out: Out, edit: str, value: Optional[str]) -> None:
    """An empty string stands for removal."""
    if value == '""':
        out.remove(edit)
    elif value is not None:
        out.set_json(edit, value)


def filter(message: Message, out: Out) -> None:
    if (message.price or 0) > 100 and message.symbol == "BTCUSDT":
        out.forward()


def notional(message: Message, out: Out) -> None:
    out.forward()
    if message.price is not None and message.quantity is not None:
        out.set("notional", message.price * message.quantity)


def symbol(message: Message, out: Out) -> None:
    out.emit("-" if message.symbol is None else message.symbol)


MODES = {
    "fields": Mode(
        show_or_edit,
        {
            "price": number("/price"),
            "order": text("/do"),
            "words": text("/a~1b"),
            "first": json("/set/0"),
            "second": json("/set/1"),
        },
        {"price": "/price", "note": "/note", "deep_note": "/deep/note"},
    ),
    "filter": Mode(filter, {"price": number("/p"), "symbol": text("/s")}),
    "notional": Mode(notional, {"price": number("/p"), "quantity": number("/q")}, {"notional": "/notional"}),
    "symbol": Mode(symbol, {"symbol": text("/s")}),
}
