from dataclasses import dataclass

from tidemill_plugin import Message, Out, Plugin, export, number


@dataclass
class Config:
    above: float = 100.0


class Notional(Plugin):
    Config = Config
    fields = {"price": number("/price"), "quantity": number("/qty")}
    edits = {"notional": "/notional"}
    only_json = True
    payloads = False

    def process(self, message: Message, out: Out) -> None:
        if message.price and message.price > self.config.above:
            out.forward()
            out.set("notional", message.price * (message.quantity or 0.0))


Transformer = export(Notional)
