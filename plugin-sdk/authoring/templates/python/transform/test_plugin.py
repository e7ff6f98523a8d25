import unittest

from plugin import Trades
from tidemill_plugin.testing import Harness


class TradesTest(unittest.TestCase):
    def test_a_trade_says_what_it_was_worth(self) -> None:
        plugin = Harness(Trades, {"above": 1})
        processed = plugin.process(
            [
                '{"data":{"e":"trade","p":"2.5","q":"3"}}',
                '{"data":{"e":"trade","p":"2.5","q":"0.1"}}',
                '{"data":{"e":"depthUpdate"}}',
            ]
        )
        self.assertEqual(processed.payloads(), ['{"data":{"e":"trade","p":"2.5","q":"3"},"notional":7.5}'])


if __name__ == "__main__":
    unittest.main()
