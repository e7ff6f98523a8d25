import unittest
from dataclasses import dataclass
from typing import Any, Optional

from tidemill_plugin import http
from tidemill_plugin._native import http as wit_http
from tidemill_plugin._native.dialler import Attempt as WitAttempt, Dial as WitDial, Ending, Refusal
from tidemill_plugin._native.err import Err
from tidemill_plugin._native.types import Payload_Text
from tidemill_plugin.connector import Attempt, Connector, Dial, Later, export_connector
from tidemill_plugin.testing import host


@dataclass
class Config:
    url: str


class Token(Connector):
    Config = Config
    tick_every = "1s"

    def before_connect(self, dial: Dial, attempt: Attempt) -> None:
        if attempt.number > 2:
            raise Later("too often", after=1.5)
        if attempt.number == 2:
            raise KeyError("mistake")
        outcome = attempt.last.outcome if attempt.last else None
        answer = http.post(self.config.url, json={"last": outcome}).success()
        dial.set_header("authorization", f"Bearer {answer.text()}")
        dial.set_query("token", "n w!")
        dial.send_first({"op": "login"})

    def tick(self, now_us: int) -> None:
        raise RuntimeError("not alive")


class Connectors(unittest.TestCase):
    def setUp(self) -> None:
        host.reset()
        self.dialler = export_connector(Token)()
        self.described = self.dialler.init('{"url":"https://login.example.com/"}', [])

    def dialled(self, number: int, last: Optional[Ending] = None) -> Any:
        dial = WitDial("wss://example.com/?token=old&x=1", [("Authorization", "old")], ["a"], [], [])
        return self.dialler.before_connect(WitAttempt(dial, number, last, []))

    def refusal(self, number: int) -> Any:
        with self.assertRaises(Err) as raised:
            self.dialled(number)
        return raised.exception.value

    def test_half_of_a_surrogate_pair_which_has_no_utf_8_becomes_a_replacement_character(self) -> None:
        class Halves(Connector):
            def before_connect(self, dial: Dial, attempt: Attempt) -> None:
                if attempt.number == 2:
                    raise Later("\ud800", after=-5)
                if attempt.number == 3:
                    raise ValueError("\ud800")
                dial.url += "\ud800"
                dial.set_header("x", "\ud800")
                dial.subprotocols.append("\ud800")
                dial.send_first("\ud800")

        self.dialler = export_connector(Halves)()
        self.dialler.init("{}", [])
        dial = self.dialled(1)
        texts = [dial.url[-1], dial.headers[1][1], dial.subprotocols[1], dial.first_messages[0].value]
        self.assertEqual(texts, 4 * ["\ufffd"])
        self.assertEqual(self.refusal(2), Refusal("\ufffd", 0))
        self.assertEqual(self.refusal(3), Refusal("\ufffd", None))

    def test_a_connector_changes_what_is_dialled(self) -> None:
        self.assertEqual(self.described.tick_ms, 1000)
        host.answer = lambda request: wit_http.Response(200, [("Content-Type", "text/plain")], b"t0ken")
        dial = self.dialled(1, Ending("closed", "", None, None, 0))
        self.assertEqual(dial.url, "wss://example.com/?x=1&token=n%20w%21")
        self.assertEqual((dial.headers, dial.subprotocols), ([("authorization", "Bearer t0ken")], ["a"]))
        self.assertEqual(dial.first_messages, [Payload_Text('{"op":"login"}')])
        [request] = host.requests
        self.assertEqual((request.method, request.body), ("POST", b'{"last":"closed"}'))
        self.assertEqual(request.headers, [("content-type", "application/json")])

    def test_a_connector_refuses_with_a_reason_and_says_when_to_try_again(self) -> None:
        self.assertEqual(self.refusal(3), Refusal("too often", 1500))
        self.assertRegex(self.refusal(2).reason, r"^KeyError: 'mistake' \(at before_connect .*test_connector.py:\d+\)$")
        self.assertRegex(self.refusal(1).reason, "^the request is denied: ")
        host.answer = lambda request: wit_http.Response(503, [], b"")
        self.assertEqual(self.refusal(1), Refusal("the answer has the status 503", None))
        with self.assertRaises(Err) as raised:
            self.dialler.tick(1)
        self.assertRegex(raised.exception.value, "^RuntimeError: not alive ")

    def test_several_requests_go_side_by_side_each_with_an_answer_of_its_own(self) -> None:
        def answer(request: Any) -> Any:
            if request.url.endswith("slow"):
                raise Err(wit_http.Error_Timeout())
            return wit_http.Response(200, [("x-a", "1")], b'{"a":1}')

        host.answer = answer
        good, slow = http.send_all([http.Request("https://a/", timeout=0.0001), http.Request("https://a/slow")])
        assert isinstance(good, http.Response) and isinstance(slow, http.HttpError)
        self.assertEqual((good.json(), good.header("X-A"), good.ok, slow.kind), ({"a": 1}, "1", True, "timeout"))
        self.assertEqual(host.requests[0].timeout_ms, 1)
        with self.assertRaisesRegex(http.HttpError, "the answer took too long"):
            http.get("https://a/slow")

    def test_a_query_is_added_where_there_is_none(self) -> None:
        dial = Dial("wss://a/b")
        dial.set_query("k", "v")
        self.assertEqual(dial.url, "wss://a/b?k=v")

    def test_a_connector_that_changes_nothing_is_refused_before_there_is_a_configuration(self) -> None:
        with self.assertRaisesRegex(TypeError, r"^Idle has no before_connect\(self, dial, attempt\), which every connector has$"):
            export_connector(type("Idle", (Connector,), {}))
