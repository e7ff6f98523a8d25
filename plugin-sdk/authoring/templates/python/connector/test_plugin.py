import unittest

from plugin import Config, Token
from tidemill_plugin.connector import Attempt, Dial


class TokenTest(unittest.TestCase):
    def test_the_token_is_in_the_handshake(self) -> None:
        dial = Dial("wss://example.com/")
        Token(Config("t0ken"), {}).before_connect(dial, Attempt(1, None, {}))
        self.assertEqual(dial.header("authorization"), "Bearer t0ken")


if __name__ == "__main__":
    unittest.main()
