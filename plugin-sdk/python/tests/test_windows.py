import json
import unittest
from typing import Any, Dict, List, Optional

from tidemill_plugin import Emissions, Message, Out, Plugin
from tidemill_plugin.part import Part, Snapshot
from tidemill_plugin.testing import Harness, host
from tidemill_plugin.windows import Closed, Windows, sessions, sliding, tumbling


def shown(closed: List[Closed[Any]]) -> List[str]:
    return [f"{one.key} {one.start}..{one.end} {one.value}{'' if one.final else ' open'}" for one in closed]


def add(total: float, value: float) -> float:
    return total + value


def tens(**options: Any) -> Windows[float, float]:
    return tumbling("10ms", lambda: 0, add, **options)


class WindowsInEventTime(unittest.TestCase):
    def setUp(self) -> None:
        host.reset()

    def test_tumbling_windows_are_half_open_aligned_and_closed_by_the_time_of_their_key(self) -> None:
        windows = tens()
        self.assertEqual(windows.add("a", 10, 1), [])
        self.assertEqual(windows.add("a", 19.9, 2), [])
        self.assertEqual(windows.add("b", 25, 5), [])
        self.assertEqual(shown(windows.add("a", 20, 4)), ["a 10..20 3"])
        self.assertEqual(windows.add("a", -1, 9), [])
        self.assertEqual(windows.late, 1)
        self.assertEqual(shown(windows.close_all()), ["a 20..30 4 open", "b 20..30 5 open"])
        self.assertEqual(windows.close_all(), [])

    def test_windows_before_the_epoch_are_aligned_too(self) -> None:
        windows = tens()
        windows.add("a", -0.5, 1)
        windows.add("b", -10, 1)
        self.assertEqual(shown(windows.close_all()), ["a -10..0 1 open", "b -10..0 1 open"])

    def test_with_lateness_windows_wait_for_what_comes_late(self) -> None:
        windows = tens(allowed_lateness="5ms")
        windows.add("a", 9, 1)
        self.assertEqual(windows.add("a", 14, 2), [])
        windows.add("a", 3, 4)
        self.assertEqual(shown(windows.add("a", 15, 8)), ["a 0..10 5"])
        windows.add("a", 9, 16)
        self.assertEqual((windows.late, shown(windows.close_all())), (1, ["a 10..20 10 open"]))

    def test_sliding_windows_each_count_a_value_that_lies_in_them(self) -> None:
        windows = sliding("10ms", "5ms", lambda: 0, add)
        windows.add("a", 7, 1)
        self.assertEqual(shown(windows.add("a", 12, 2)), ["a 0..10 1"])
        # Too late for the one, in time for the other.
        windows.add("a", 8, 4)
        self.assertEqual(windows.late, 0)
        self.assertEqual(shown(windows.add("a", 20, 8)), ["a 5..15 7", "a 10..20 2"])
        windows.add("a", 9, 1)
        self.assertEqual(windows.late, 1)
        self.assertEqual(shown(windows.close_all()), ["a 15..25 8 open", "a 20..30 8 open"])
        with self.assertRaisesRegex(ValueError, "slide is longer than size"):
            sliding("5ms", "10ms", lambda: 0, add)

    def test_sessions_last_until_there_is_a_gap_and_grow_together(self) -> None:
        windows = sessions("10ms", lambda: 0, add, merge=add, allowed_lateness="30ms")
        for time, value in [(0, 1), (5, 2), (20, 4), (38, 8)]:
            windows.add("a", time, value)
        self.assertEqual(shown(windows.close_all()), ["a 0..15 3 open", "a 20..30 4 open", "a 38..48 8 open"])
        windows.add("b", 0, 1)
        windows.add("b", 16, 2)
        windows.add("b", 8, 4)
        self.assertEqual(shown(windows.add("b", 56, 8)), ["b 0..26 7"])
        windows.add("b", 25, 1)
        self.assertEqual(windows.late, 1)
        windows.add("c", 10, 1)
        windows.add("c", 5, 1)
        self.assertEqual(shown(windows.close_all()), ["b 56..66 8 open", "c 5..20 2 open"])

    def test_the_end_of_a_session_is_not_part_of_it(self) -> None:
        windows = sessions("10ms", lambda: 0, add, merge=add)
        windows.add("a", 0, 1)
        self.assertEqual(shown(windows.add("a", 10, 2)), ["a 0..10 1"])

    def test_a_key_that_is_silent_is_closed_by_the_timer_and_by_its_next_message(self) -> None:
        windows = tens(idle_close="1s")
        windows.add("a", 1, 1, 0)
        windows.add("b", 1, 1, 500_000)
        self.assertEqual(windows.close_idle(999_999), [])
        self.assertEqual(shown(windows.close_idle(1_000_000)), ["a 0..10 1"])
        self.assertEqual(windows.close_idle(1_000_000), [])
        # What comes for a closed window is late, all the same.
        windows.add("a", 2, 1, 1_100_000)
        self.assertEqual(windows.late, 1)
        self.assertEqual(shown(windows.add("b", 3, 1, 1_500_000)), ["b 0..10 1"])

    def test_the_key_that_was_silent_longest_makes_room_for_a_new_one(self) -> None:
        windows = tens(max_keys=2, idle_close="1ms")
        windows.add("a", 1, 1, 0)
        windows.add("b", 1, 2, 0)
        windows.add("a", 2, 4, 0)
        self.assertEqual(shown(windows.add("c", 1, 8, 0)), ["b 0..10 2 open"])
        windows.close_idle(1_000_000)
        windows.add("c", 21, 8, 1_000_000)
        self.assertEqual(windows.add("d", 1, 8, 1_000_000), [])
        self.assertEqual((len(windows), windows.forgotten), (2, 2))

    def test_a_key_that_the_timer_closed_makes_room_before_one_that_was_heard_of_later_and_has_no_windows(self) -> None:
        windows = tens(max_keys=2, idle_close="200ms")
        windows.add("z", 1, 1, 0)
        self.assertEqual(shown(windows.close_idle(200_000)), ["z 0..10 1"])
        windows.add("a", 1, 1, 300_000)
        windows.add("z", 2, 1, 350_000)
        self.assertEqual(windows.late, 1)
        self.assertEqual(shown(windows.close_idle(550_000)), ["a 0..10 1"])
        # A snapshot has the same order.
        restored = tens(max_keys=2, idle_close="200ms")
        restored.restore(json.loads(json.dumps(windows.snapshot())))
        for now, late in ((windows, 2), (restored, 1)):
            self.assertEqual(now.add("b", 1, 1, 600_000), [])
            self.assertEqual(now.add("z", 3, 1, 650_000), [])
            self.assertEqual((now.late, now.forgotten, shown(now.close_all())), (late, 1, ["b 0..10 1 open"]))

    def test_keys_that_the_timer_closes_come_in_the_order_in_which_they_were_heard_of(self) -> None:
        windows = tens(idle_close="1ms")
        for key in "aba":
            windows.add(key, 1, 1, 0)
        self.assertEqual(shown(windows.close_idle(1_000)), ["b 0..10 1", "a 0..10 2"])

    def test_at_the_end_as_many_windows_are_sent_as_one_call_takes_and_the_others_are_counted(self) -> None:
        def ending(text: str, metadata: Dict[str, str], output: Optional[int], memory: int = 1 << 20) -> List[Any]:
            host.reset()

            class Ending(Plugin):
                writes = ["mark", "other"]

                def __init__(self, config: Any, facts: Any) -> None:
                    self.windows = tens()

                def process(self, message: Message, out: Out) -> None:
                    self.windows.add(str(message.payload), 1, 1)

                def finish(self, out: Emissions) -> None:
                    def write(window: Closed[float]) -> None:
                        out.emit(f"{text}{window.key}", metadata=metadata)
                        out.emit(b"")

                    out.emit("first")
                    self.windows.close_all(out, write)

            facts = {} if output is None else {"output_bytes": str(output), "memory_bytes": str(memory)}
            plugin = Harness(Ending, facts=facts)
            plugin.process("dbac")
            return [sent.payload for sent in plugin.finish()]

        # Of each the host counts 192 bytes beside its payload, with metadata 64 more, and 64 for each value beside its
        # bytes.
        first, two = 192 + 5, 2 * 192 + 4
        everything = ["first", "abca", b"", "abcb", b"", "abcc", b"", "abcd", b""]
        self.assertEqual(ending("abc", {}, first + 4 * two), everything)
        self.assertEqual((host.counters, host.lines), ({}, []))
        self.assertEqual(ending("abc", {}, first + 4 * two - 1), everything[:-2])
        self.assertEqual(host.counters, {"windows_unsent": 1})
        said = (
            "1 open windows are not sent, for which one call has no room: let `limits.output` be larger, and "
            "`limits.memory` four times as large as that at least"
        )
        self.assertEqual(host.lines, [("warn", said)])
        # A quarter of the memory is a bound as well, and a text counts by its bytes.
        self.assertEqual(ending("ż", {}, 1 << 20, 4 * (first + two)), ["first", "ża", b""])
        self.assertEqual(host.counters, {"windows_unsent": 3})
        marked, metadata = first + 64 + 4 * (two + 2 * 64 + 64 + 2 + 64 + 2), {"mark": "ż", "other": "ab"}
        self.assertEqual(len(ending("abc", metadata, marked)), 9)
        self.assertEqual(len(ending("abc", metadata, marked - 1)), 7)
        # Without facts there are the limits that there are by default.
        self.assertEqual(len(ending("abc", {}, None)), 9)
        with self.assertRaisesRegex(TypeError, "close_all takes out and write"):
            tens().close_all(write=print)

    def test_windows_go_on_from_a_snapshot_or_from_their_share_of_several(self) -> None:
        old = [tens(), tens()]
        for n, key in enumerate("abcd"):
            old[n % 2].add(key, 11, n + 0.1)
        old[0].add("a", 25, 1)
        snapshots = [Snapshot(json.dumps(windows.snapshot()).encode()) for windows in old]
        fresh = tens()
        fresh.restore(snapshots[0].json())
        fresh.add("a", 12, 1)
        self.assertEqual(fresh.late, 1)
        self.assertEqual(shown(fresh.close_all()), ["a 20..30 1 open", "c 10..20 2.1 open"])
        shares = []
        for number in range(3):
            windows = tens()
            windows.restore_part(snapshots, Part(number, 3))
            shares += shown(windows.close_all())
        self.assertEqual(
            sorted(shares), ["a 20..30 1 open", "b 10..20 1.1 open", "c 10..20 2.1 open", "d 10..20 3.1 open"]
        )
        with self.assertRaisesRegex(ValueError, "not that of windows"):
            fresh.restore({})

    def test_state_of_other_windows_is_refused_and_says_what_has_changed(self) -> None:
        minute = tumbling("1m", lambda: 0, add)
        by_slide = [sliding("1m", slide, lambda: 0, add) for slide in ("10s", "20s")]
        by_gap = [sessions(gap, lambda: 0, add, merge=add) for gap in ("10s", "250ms")]
        counts = tumbling("1m", lambda: 0, add, meaning="counts")
        for before, now, state, configuration in (
            (minute, tumbling("1500ms", lambda: 0, add), "tumbling windows with `size` 60s", "tumbling windows with `size` 1.5s"),
            (minute, by_slide[0], "tumbling windows with `size` 60s", "sliding windows with `size` 60s and `slide` 10s"),
            (
                by_slide[0],
                by_slide[1],
                "sliding windows with `size` 60s and `slide` 10s",
                "sliding windows with `size` 60s and `slide` 20s",
            ),
            (by_gap[0], by_gap[1], "sessions with `gap` 10s", "sessions with `gap` 250ms"),
            (counts, tumbling("1m", lambda: 0, add, meaning="sums"), "windows of counts", "sums"),
        ):
            before.add("a", 1, 1)
            now.add("b", 1, 1)
            with self.assertRaises(ValueError) as refused:
                now.restore(json.loads(json.dumps(before.snapshot())))
            self.assertEqual(
                str(refused.exception),
                f"the state has {state}, and the configuration says {configuration}; a transform of another `name` begins "
                "without state",
            )
            self.assertEqual({one.key for one in now.close_all()}, {"b"})
        # What closes windows is no part of what they are.
        same: Windows[float, float] = tumbling("60s", lambda: 0, add, allowed_lateness="1s", max_keys=7)
        same.restore(minute.snapshot())

    def test_a_value_of_the_window_that_is_open_makes_its_key_the_one_that_was_heard_of_last(self) -> None:
        windows = tens(max_keys=2)
        windows.add("a", 1, 1)
        windows.add("b", 1, 2)
        windows.add("a", 2, 4)
        self.assertEqual(shown(windows.add("c", 1, 8)), ["b 0..10 2 open"])
        self.assertEqual(shown(windows.close_all()), ["a 0..10 5 open", "c 0..10 8 open"])

    def test_a_value_that_cannot_be_added_costs_its_message_alone(self) -> None:
        def refusing(total: float, value: float) -> float:
            if value < 0:
                raise ValueError("negative")
            return total + value

        for windows in (
            tumbling("10ms", lambda: 0, refusing, max_keys=1, idle_close="1ms"),
            sliding("10ms", "5ms", lambda: 0, refusing, max_keys=1, idle_close="1ms"),
            sessions("10ms", lambda: 0, refusing, merge=add, max_keys=1, idle_close="1ms"),
        ):
            windows.add("a", 6, 1)
            before = json.dumps(windows.snapshot())
            # In the same window, where others are closed by time or silence, and of a key that would make room.
            for key, time, received_us in (("a", 7, 0), ("a", 100, 0), ("a", 100, 5_000), ("b", 7, 0)):
                with self.assertRaisesRegex(ValueError, "negative"):
                    windows.add(key, time, -1, received_us)
                self.assertEqual(json.dumps(windows.snapshot()), before)
            windows.add("a", 8, 2)
            self.assertTrue(all(one.value == 3 and not one.final for one in windows.close_all()))

    def test_totals_may_be_objects_that_are_added_to_in_place(self) -> None:
        windows: Windows[List[int], int] = tumbling("10ms", list, lambda total, value: total.append(value))
        windows.add("a", 1, 5)
        windows.add("a", 2, 6)
        self.assertEqual(windows.close_all()[0].value, [5, 6])

    def test_what_makes_no_windows_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "'1 m' is not a duration"):
            tumbling("1 m", lambda: 0, add)
        with self.assertRaisesRegex(ValueError, "size is 0, and must be a duration"):
            tumbling(0, lambda: 0, add)
        with self.assertRaisesRegex(ValueError, "max_keys"):
            tens(max_keys=0)
        with self.assertRaisesRegex(ValueError, "out of range"):
            tens().add("a", float("nan"), 1)
