"""Keeps the trades that are worth more than `above`, with a field more: `notional`, what the trade was worth."""

from dataclasses import dataclass

from tidemill_plugin import Message, Out, Plugin, export, number, text


@dataclass
class Config:
    """What stands in `config` at the transform."""

    above: float = 0.0


class Trades(Plugin):
    Config = Config
    fields = {"event": text("/data/e"), "price": number("/data/p"), "quantity": number("/data/q")}
    edits = {"notional": "/notional"}
    only_json = True
    payloads = False

    def process(self, message: Message, out: Out) -> None:
        """Decides on one message. One that nothing is said of is filtered."""
        if message.event != "trade" or message.price is None or message.quantity is None:
            return
        notional = message.price * message.quantity
        if notional > self.config.above:
            out.forward()
            out.set("notional", notional)


Transformer = export(Trades)
