import json
import unittest
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Dict, List, Literal, Optional

from tidemill_plugin.config import ConfigError, Pointer, read_config
from tidemill_plugin.duration import milliseconds, nanoseconds


@dataclass
class Where:
    at: Pointer
    value: int = 0


@dataclass
class Config:
    by: Pointer
    above: float = 100.0
    window: timedelta = timedelta(minutes=1)
    match: Literal["all", "any"] = "all"
    label: Optional[str] = None
    limit: "int | str" = 0
    where: List[Where] = field(default_factory=list)
    outputs: Dict[str, str] = field(default_factory=dict)
    on: bool = False

    def __post_init__(self) -> None:
        if self.above < 0:
            raise ValueError("above must not be below 0")


class Configurations(unittest.TestCase):
    def read(self, **keys: Any) -> Config:
        return read_config(Config, json.dumps(keys))

    def test_keys_are_read_and_have_defaults(self) -> None:
        self.assertEqual(self.read(by="/s"), Config(Pointer("/s")))
        self.assertEqual(self.read(by="", window="1.5s").window, timedelta(seconds=1.5))
        config = self.read(by="", above=1, label="x", limit="no", where=[{"at": "/a"}], outputs={"a": "b"}, on=True)
        self.assertEqual((config.above, type(config.above), config.label, config.limit), (1.0, float, "x", "no"))
        self.assertEqual((config.where, config.outputs, config.on), ([Where(Pointer("/a"))], {"a": "b"}, True))

    def test_what_is_wrong_is_told_by_key_with_what_was_expected(self) -> None:
        keys = "(the keys are by, above, window, match, label, limit, where, outputs, on)"
        cases: List[Any] = [
            ({}, 'by is missing, which is a JSON pointer such as "/data/p"'),
            ({"by": "s"}, 'by is "s", and must be a JSON pointer such as "/data/p"'),
            ({"by": "", "above": "x"}, 'above is "x", and must be a number'),
            ({"by": "", "above": True}, "above is true, and must be a number"),
            ({"by": "", "above": -1}, "above must not be below 0"),
            ({"by": "", "window": "1 m"}, 'window is "1 m", and must be a duration such as "250ms", "10s" or "1m30s"'),
            ({"by": "", "match": "some"}, 'match is "some", and must be "all" or "any"'),
            ({"by": "", "abov": 1}, f"abov is not known, did you mean above? {keys}"),
            ({"by": "", "label": 1}, "label is 1, and must be a text"),
            ({"by": "", "limit": []}, "limit is a list, and must be a whole number or a text"),
            ({"by": "", "where": [{"at": ""}, {"at": "", "value": 1.5}]}, "where[1].value is 1.5, and must be a whole number"),
            ({"by": "", "where": [{"aat": ""}]}, "where[0].aat is not known, did you mean at? (the keys are at, value)"),
            ({"by": "", "where": {}}, "where is a table, and must be a list"),
            ({"by": "", "outputs": {"a": None}}, "outputs.a is null, and must be a text"),
        ]
        for given, said in cases:
            with self.assertRaises(ConfigError) as raised:
                self.read(**given)
            self.assertEqual(str(raised.exception), said)
        with self.assertRaisesRegex(ConfigError, "the configuration is a list, and must be a table"):
            read_config(Config, "[]")

    def test_durations_are_read_as_the_host_reads_them(self) -> None:
        cases = (Path(__file__).parent / "../../rust/tests/durations.txt").read_text()
        for line in cases.splitlines():
            if not line.startswith("#"):
                given, _, expected = line.rpartition(" ")
                self.assertEqual(nanoseconds(given[1:-1]), None if expected == "none" else int(expected), line)
        self.assertEqual([milliseconds(given) for given in ("1m", timedelta(seconds=2), 0.5)], [60_000, 2000, 500])
