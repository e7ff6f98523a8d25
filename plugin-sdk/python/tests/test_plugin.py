import contextlib
import io
import sys
import unittest
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Callable, List, Type

from tests.notional import Notional
from tidemill_plugin import (
    Batch,
    Emissions,
    Message,
    Out,
    Outcome,
    Part,
    Plugin,
    Snapshot,
    clock,
    export,
    json,
    key_hash,
    log,
    metrics,
    number,
    random,
    state,
    text,
)
from tidemill_plugin._contract import Err, types
from tidemill_plugin.testing import Given, Harness, PluginError, Sent, host


def deciding(process: Callable[[Message, Out], Any], **declared: Any) -> Type[Plugin]:
    """A plugin that declares this and decides so."""
    return type("Deciding", (Plugin,), {**declared, "process": lambda self, message, out: process(message, out)})


class Filtering(Plugin):
    """A plugin that lets nothing go on, and does no more than each plugin has to."""

    def process(self, message: Message, out: Out) -> None:
        pass


def decided(plugin: Type[Plugin], count: int) -> Any:
    """What crosses for so many messages without anything."""
    transformer = export(plugin)()
    transformer.init("{}", [])
    return transformer.process(types.Batch(count, None, None, None))


def shown(sent: List[Sent]) -> List[Any]:
    return [(one.payload, one.origin, one.output, one.metadata) for one in sent]


class Plugins(unittest.TestCase):
    def setUp(self) -> None:
        host.reset()

    def test_the_plugin_of_the_readme_is_the_one_that_is_tested(self) -> None:
        here = Path(__file__).parent
        self.assertIn((here / "notional.py").read_text(), (here.parent / "README.md").read_text())

    def test_fields_come_in_and_edits_go_out(self) -> None:
        plugin = Harness(Notional, {"above": 2})
        messages = ['{"price":"2.5","qty":3}', '{"price":1,"qty":1}', "{}", "no JSON", '{"price":4,"qty":0.5}']
        processed = plugin.process(messages)
        expected = ['{"price":"2.5","qty":3,"notional":7.5}', '{"price":4,"qty":0.5,"notional":2.0}']
        self.assertEqual(processed.payloads(), expected)
        self.assertEqual(processed.rejected, [(3, "not JSON")])

    def test_an_edit_is_numbers_as_long_as_all_are_floats(self) -> None:
        values = [0.5, 2, "two", {"x": [1]}, True, None, Decimal("1.10"), float("nan"), 3.0]

        def each(message: Message, out: Out) -> None:
            out.forward()
            out.set("x", values[message.index])

        mixed = decided(deciding(each, edits={"x": "/x"}), 9)
        expected = ["0.5", "2", '"two"', '{"x":[1]}', "true", "null", "1.10", "null", "3.0"]
        self.assertEqual(mixed.edits, [types.Values_Each(expected)])

        def second(message: Message, out: Out) -> None:
            out.forward()
            if message.index != 1:
                out.set("x", message.index + 0.5)

        [column] = decided(deciding(second, edits={"x": "/x"}), 3).edits
        self.assertEqual([str(value) for value in column.value], ["0.5", "nan", "2.5"])
        none = decided(deciding(lambda m, out: out.forward(), edits={"x": "/x"}), 3)
        self.assertEqual((none.edits, none.forward), ([], types.Forward_All()))

    def test_only_what_goes_on_is_edited(self) -> None:
        def odd(message: Message, out: Out) -> None:
            out.set("x", message.index)
            if message.index % 2 == 1:
                out.forward()

        outcome = decided(deciding(odd, edits={"x": "/x"}), 5)
        self.assertEqual((outcome.forward, outcome.edits), (types.Forward_These([1, 3]), [types.Values_Each(["1", "3"])]))

    def test_messages_have_fields_metadata_times_and_payloads(self) -> None:
        seen: List[Any] = []

        def look(m: Message, out: Out) -> None:
            seen.append((m.n, m.s, m.j, m.raw("j"), m.metadata("room"), m.received_us, m.is_text, m.payload))

        fields = {"n": number("/n"), "s": text("/s"), "j": json("/j")}
        plugin = Harness(deciding(look, reads=["room"], times=True, fields=fields))
        plugin.process([Given('{"n":1,"s":"","j":{"a":["ż"]}}', {"room": "7"}, 5), b"\xff"])
        self.assertEqual(
            seen,
            [
                (1.0, "", {"a": ["ż"]}, '{"a":["ż"]}', "7", 5, True, '{"n":1,"s":"","j":{"a":["ż"]}}'),
                (None, None, None, None, "", 0, False, b"\xff"),
            ],
        )

    def test_emissions_have_outputs_and_metadata_of_their_own(self) -> None:
        def emit(message: Message, out: Out) -> None:
            out.forward()
            out.emit({"n": message.index}, output="side", metadata={"mark": "" if message.index == 0 else "m"})
            out.emit(b"\x01\x02")
            out.emit("\ud800ż")
            out.set_metadata("other", "same")

        plugin = Harness(deciding(emit, outputs=["side"], writes=["mark", "other"]))
        self.assertEqual(
            shown(plugin.process([Given("a", {"mark": "old"}), "b"]).sent),
            [
                ("a", 0, "default", {"mark": "old", "other": "same"}),
                ('{"n":0}', 0, "side", {}),
                (b"\x01\x02", 0, "default", {"mark": "old"}),
                ("\ufffdż", 0, "default", {"mark": "old"}),
                ("b", 1, "default", {"other": "same"}),
                ('{"n":1}', 1, "side", {"mark": "m"}),
                (b"\x01\x02", 1, "default", {}),
                ("\ufffdż", 1, "default", {}),
            ],
        )

    def test_a_refused_message_takes_back_what_was_told_of_it_before_and_after(self) -> None:
        def tell(out: Out) -> None:
            out.forward("side")
            out.set("x", 1.5)
            out.set_metadata("mark", "m")
            out.emit("new")

        def refuse(message: Message, out: Out) -> None:
            tell(out)
            if message.index == 1:
                out.reject("first")
                tell(out)
                out.reject("refused")
                tell(out)

        plugin = Harness(deciding(refuse, outputs=["side"], writes=["mark"], edits={"x": "/x"}))
        processed = plugin.process(["{}", "{}", "{}"])
        self.assertEqual(processed.rejected, [(1, "refused")])
        expected = [
            one
            for origin in (0, 2)
            for one in (('{"x":1.5}', origin, "side", {"mark": "m"}), ("new", origin, "default", {}))
        ]
        self.assertEqual(shown(processed.sent), expected)

    def test_a_message_to_be_offered_again_ends_the_batch(self) -> None:
        seen: List[Any] = []

        def wait(message: Message, out: Out) -> None:
            seen.append(message.payload)
            out.emit(message.payload)
            if message.payload == "b":
                out.reject("no")
                out.retry("not yet", after=0.0005)
                out.forward()

        processed = Harness(deciding(wait)).process(["a", "b", "c"])
        self.assertEqual((processed.payloads(), processed.rejected, seen), (["a"], [], ["a", "b"]))
        self.assertEqual(processed.retry, types.Retry(1, "not yet", 1))

    def test_a_message_is_offered_again_at_once_after_a_time_below_0(self) -> None:
        def after(time: Any) -> Any:
            return Harness(deciding(lambda message, out: out.retry("not yet", time))).process(["a"]).retry.after_ms

        self.assertEqual([after(-5), after(timedelta(seconds=-1)), after(1e12)], [0, 0, 2**32 - 1])
        with self.assertRaisesRegex(Exception, "the duration is NaN"):
            after(float("nan"))

    def test_half_of_a_surrogate_pair_can_be_printed(self) -> None:
        def decide(message: Any, out: Out) -> None:
            print("\ud800")

        printed = io.BytesIO()
        with contextlib.redirect_stdout(io.TextIOWrapper(printed, "utf-8")) as stdout:
            Harness(deciding(decide)).process(["a"])
            stdout.flush()
            self.assertEqual(printed.getvalue(), b"\\ud800\n")

    def test_half_of_a_surrogate_pair_which_has_no_utf_8_becomes_a_replacement_character(self) -> None:
        class Halves(Plugin):
            writes = ["mark"]
            edits = {"value": "/a", "raw": "/b"}

            def process(self, message: Message, out: Out) -> None:
                if message.index == 1:
                    return out.reject("no \ud800")
                if message.index == 2:
                    return out.retry("later \udfff", 1)
                out.forward()
                out.set_metadata("mark", "\ud800")
                out.set("value", "\ud800")
                out.set_json("raw", '"\ud800"')
                out.emit("\udfff", metadata={"mark": "\ud800"})
                out.emit({"half": "\udfff"})

            def tick(self, now_us: int, out: Emissions) -> None:
                raise RuntimeError("half \ud800")

            def snapshot(self) -> Any:
                return {"half": "\ud800"}

        plugin = export(Halves)()
        plugin.init("{}", [])
        batch = types.Batch(3, types.Payloads_Each([types.Payload_Text("{}")] * 3), None, None)
        outcome = plugin.process(batch)
        self.assertEqual(outcome.forward_metadata, [types.Writing_Same("\ufffd")])
        # JSON has an escape for it.
        self.assertEqual([values.value for values in outcome.edits], [['"\\ud800"'], ['"\ufffd"']])
        self.assertEqual([one.value for one in outcome.emissions.payloads.value], ["\ufffd", '{"half":"\\udfff"}'])
        self.assertEqual(outcome.emissions.metadata, [types.Writing_Sparse([types.Setting(0, "\ufffd")])])
        self.assertEqual([outcome.rejections[0].reason, outcome.retry.reason], ["no \ufffd", "later \ufffd"])
        self.assertEqual(plugin.snapshot(), b'{"half":"\\ud800"}')
        with self.assertRaises(Err) as raised:
            plugin.tick(1)
        self.assertTrue(raised.exception.value.startswith("RuntimeError: half \ufffd"))

    def test_a_batch_may_be_decided_on_as_columns(self) -> None:
        class Columns(Plugin):
            fields = {"price": number("/p")}

            def process_batch(self, batch: Batch, outcome: Outcome) -> None:
                for index, price in enumerate(batch.column("price")):
                    if price > 1:
                        outcome.of(index).forward()
                with test.assertRaisesRegex(RuntimeError, "in their order"):
                    outcome.of(0)

        test = self
        self.assertEqual(Harness(Columns).process(['{"p":1}', '{"p":2}', "{}"]).payloads(), ['{"p":2}'])

        class All(Plugin):
            def process_batch(self, batch: Batch, outcome: Outcome) -> None:
                outcome.forward_all(batch)

        self.assertEqual(Harness(All).process(["a", "b"]).payloads(), ["a", "b"])

    def test_a_name_that_was_not_declared_is_refused_with_those_that_were(self) -> None:
        plugin = Harness(deciding(lambda m, out: out.set("notionl", 1), edits={"notional": "/n"}))
        with self.assertRaisesRegex(PluginError, "'notionl' is not declared in edits, did you mean 'notional'"):
            plugin.process(["{}"])
        lost = Harness(deciding(lambda m, out: out.forward("other"), outputs=["trades"]))
        with self.assertRaisesRegex(PluginError, r"\(declared: 'default', 'trades'\)"):
            lost.process(["{}"])

    def test_what_cannot_be_declared_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "'price' is not a JSON pointer: it does not begin with"):
            number("price")
        with self.assertRaisesRegex(ValueError, "is not a JSON pointer"):
            text("/a~b")
        cases: List[Any] = [
            ({"fields": {"payload": text("/t")}}, "a field cannot be named 'payload'"),
            ({"fields": {"price": "/p"}}, "the field 'price' is not made by number, text or json"),
            ({"outputs": "side"}, "outputs is a text, and must be a list of texts"),
            ({"tick_every": "1 s"}, "'1 s' is not a duration"),
        ]
        for declared, said in cases:
            with self.assertRaisesRegex(PluginError, said):
                Harness(deciding(lambda m, out: None, **declared))
        with self.assertRaisesRegex(PluginError, "above is not known: the plugin has no configuration"):
            Harness(deciding(lambda m, out: None), {"above": 1})
        with self.assertRaisesRegex(TypeError, r"^Idle has no process\(self, message, out\), which every plugin has$"):
            export(type("Idle", (Plugin,), {}))
        export(type("Whole", (Plugin,), {"process_batch": lambda self, batch, outcome: None}))
        with self.assertRaisesRegex(TypeError, "derives from Plugin"):
            export(dict)  # type: ignore[arg-type]

        class Late(Plugin):
            async def process(self, message: Message, out: Out) -> None:  # type: ignore[override]
                out.forward()

        with self.assertRaisesRegex(TypeError, "Late.process is async, and nothing waits for it: write `def process`"):
            export(Late)

    def test_what_is_raised_says_where_in_the_files_of_the_plugin(self) -> None:
        def wrong(message: Message, out: Out) -> None:
            raise KeyError("no")

        line = wrong.__code__.co_firstlineno + 1
        with self.assertRaises(PluginError) as raised:
            Harness(deciding(wrong)).process(["a"])
        self.assertTrue(str(raised.exception).startswith("KeyError: 'no' (at wrong "), raised.exception)
        self.assertIn(f"test_plugin.py:{line}, ", str(raised.exception))
        self.assertNotIn("process_batch", str(raised.exception))

    def test_a_late_import_is_told_what_to_do(self) -> None:
        def late(message: Message, out: Out) -> None:
            import no_such_module  # type: ignore[import-not-found]  # noqa: F401

        with self.assertRaisesRegex(PluginError, "ModuleNotFoundError: .*: a plugin's modules are imported when it is built"):
            Harness(deciding(late)).process(["a"])

    def test_nothing_that_is_raised_gets_past(self) -> None:
        for error in (SystemExit(1), KeyboardInterrupt(), RecursionError("deep"), AssertionError()):

            def leave(message: Message, out: Out) -> None:
                raise error

            with self.assertRaisesRegex(PluginError, type(error).__name__):
                Harness(deciding(leave)).process(["a"])

    def test_timers_and_the_end_emit_without_an_origin(self) -> None:
        class Timed(Filtering):
            writes = ["mark"]
            tick_every = 0.0001

            def tick(self, now_us: int, out: Emissions) -> None:
                out.emit(f"{now_us}", metadata={"mark": "t"})

            def finish(self, out: Emissions) -> None:
                out.emit("end")

        plugin = Harness(Timed)
        self.assertEqual(plugin.description.tick_ms, 1)
        self.assertEqual(shown(plugin.tick(7)), [("7", None, "default", {"mark": "t"})])
        self.assertEqual([sent.payload for sent in plugin.finish()], ["end"])
        self.assertEqual(Harness(Filtering).tick(), [])

    def test_state_goes_on_as_json_or_as_bytes_of_its_own(self) -> None:
        class Counter(Plugin):
            def __init__(self, config: Any, facts: Any) -> None:
                self.counts: Any = {}

            def process(self, message: Message, out: Out) -> None:
                self.counts[message.payload] = self.counts.get(message.payload, 0) + 1

            def finish(self, out: Emissions) -> None:
                out.emit(self.counts)

            def snapshot(self) -> Any:
                return self.counts

            def restore(self, state: Any) -> None:
                self.counts = state

        old, fresh = Harness(Counter), Harness(Counter)
        old.process(["ż", "b", "ż"])
        snapshot = old.snapshot()
        assert snapshot is not None
        fresh.restore(snapshot)
        self.assertEqual([sent.payload for sent in fresh.finish()], ['{"ż":2,"b":1}'])
        with self.assertRaisesRegex(PluginError, "the state is not JSON"):
            fresh.restore(b"\xff")
        with self.assertRaisesRegex(PluginError, "cannot share its state out"):
            fresh.restore(snapshot, snapshot, parts=2)
        self.assertIsNone(Harness(Filtering).snapshot())
        Harness(Filtering).restore(b"of another version")

        def saving(kept: Any) -> Harness:
            return Harness(type("Saving", (Filtering,), {"snapshot": lambda self: kept}))

        self.assertEqual(saving(b"\x01").snapshot(), b"\x01")
        for kept, said in [({1: 2}, "the key 1 of the state is no text"), ([float("nan")], "ValueError|not JSON compliant|Out of range"), ({1, 2}, "not JSON serializable")]:
            with self.assertRaisesRegex(PluginError, said):
                saving(kept).snapshot()

    def test_a_share_of_the_state_is_restored(self) -> None:
        kept: List[str] = []

        class Shared(Filtering):
            def restore_part(self, snapshots: List[Snapshot], part: Part) -> None:
                kept.extend(key for snapshot in snapshots for key in snapshot.json() if part.has(key))

        plugin = Harness(Shared)
        for part in range(3):
            plugin.restore(b'["a","BTCUSDT"]', b'["foobar"]', part=part, parts=3)
        self.assertEqual(sorted(kept), ["BTCUSDT", "a", "foobar"])

    # The numbers are those of FNV-1a as its authors publish them.
    def test_shares_are_those_of_the_host(self) -> None:
        for key, found in {"": 0xCBF29CE484222325, "a": 0xAF63DC4C8601EC8C, "foobar": 0x85944171F73967E8}.items():
            self.assertEqual(key_hash(key), found)
            for of in range(1, 7):
                self.assertEqual([number for number in range(of) if Part(number, of).has(key)], [found % of])

    def test_a_seed_is_of_the_instance_and_not_of_the_build(self) -> None:
        import random as chance

        chance.seed(1)
        first = chance.random()
        chance.seed(1)
        Harness(Filtering)
        self.assertNotEqual(chance.random(), first)
        self.assertIn("_strptime", sys.modules)

    def test_a_native_test_has_a_host_in_memory(self) -> None:
        log.warn("low")
        metrics.add("seen")
        metrics.add("seen", 2)
        metrics.set("depth", 3)
        metrics.observe("size", 4)
        host.randoms = [0.25]
        host.now_us = 10
        state.set("a", "1", ttl="1ms")
        state.set_many([state.Change("b", b"\x02"), state.Change("c", "3"), state.Change("c", None)])
        self.assertEqual(host.lines, [("warn", "low")])
        self.assertEqual((host.counters, host.gauges, host.histograms), ({"seen": 3}, {"depth": 3}, {"size": [4]}))
        self.assertEqual((random.next(), clock.now_us()), (0.25, 10))
        self.assertEqual(state.get_many(["a", "b", "c"]), [b"1", b"\x02", None])
        self.assertEqual(state.keys(), ["a", "b"])
        host.now_us = 1010
        self.assertIsNone(state.get("a"))
        state.delete("b")
        self.assertEqual(state.keys(), [])
        with self.assertRaisesRegex(state.StateError, "at most 1024 bytes"):
            state.set("k" * 1025, b"")
        with self.assertRaises(TypeError):
            state.set("k", 1)  # type: ignore[arg-type]


if __name__ == "__main__":
    unittest.main()
