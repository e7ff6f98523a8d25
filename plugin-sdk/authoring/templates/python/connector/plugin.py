"""Has an endpoint dial with the header `Authorization`, which holds a token out of the configuration."""

from dataclasses import dataclass

from tidemill_plugin.connector import Attempt, Connector, Dial, export_connector


@dataclass
class Config:
    """What stands in `config` of `before_connect`."""

    token: str


class Token(Connector):
    Config = Config

    def before_connect(self, dial: Dial, attempt: Attempt) -> None:
        """Changes what is about to be dialled."""
        dial.set_header("Authorization", f"Bearer {self.config.token}")


Dialler = export_connector(Token)
