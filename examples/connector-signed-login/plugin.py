"""OKX's way: the first message is a login, which the secret of an account signs with HMAC-SHA256."""

import base64
import hashlib
import hmac
from dataclasses import dataclass

from tidemill_plugin import clock
from tidemill_plugin.connector import Attempt, Connector, Dial, export_connector


@dataclass
class Config:
    """What stands in `config` of `before_connect`."""

    key: str
    passphrase: str
    secret: str


class SignedLogin(Connector):
    Config = Config

    def before_connect(self, dial: Dial, attempt: Attempt) -> None:
        """Puts the login before all other messages. It is signed anew for each dial: it holds the time."""
        timestamp = str(clock.now_us() // 1_000_000)
        signed = f"{timestamp}GET/users/self/verify".encode()
        digest = hmac.new(self.config.secret.encode(), signed, hashlib.sha256).digest()
        subscriptions, dial.first_messages = dial.first_messages, []
        login = {
            "apiKey": self.config.key,
            "passphrase": self.config.passphrase,
            "timestamp": timestamp,
            "sign": base64.b64encode(digest).decode(),
        }
        dial.send_first({"op": "login", "args": [login]})
        dial.first_messages.extend(subscriptions)


Dialler = export_connector(SignedLogin)
