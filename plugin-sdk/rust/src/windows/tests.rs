//! Windows beside a plain model, which has all messages in a list and forms the windows anew each time.

use super::*;
use crate::bindings::tidemill::plugin::types;
use crate::log::Level;
use crate::testing::host;
use proptest::prelude::*;

/// The messages that a window has, by their numbers.
type Seen = Vec<usize>;

/// Notes the numbers of messages.
#[derive(Clone, Debug)]
struct Noting;

impl Aggregation for Noting {
    type Contents = Seen;
    type Reading = usize;

    fn empty(&self) -> Seen {
        Vec::new()
    }

    fn add(&self, seen: &mut Seen, number: &usize) {
        seen.push(*number);
    }

    fn merge(&self, seen: &mut Seen, later: &Seen) {
        seen.extend(later);
    }
}

/// Start, end, messages.
type Closed = (i64, i64, Vec<usize>);

fn rules(kind: WindowKind, lateness_ms: u64, idle_close_ms: u64) -> WindowRules {
    WindowRules {
        kind,
        allowed_lateness: Duration::from_millis(lateness_ms),
        idle_close: Duration::from_millis(idle_close_ms),
        max_keys: None,
    }
}

fn windows(rules: &WindowRules) -> Windows<Noting> {
    Windows::try_new(rules, Noting, &mut Description::default()).unwrap()
}

/// A plugin that may have so much memory, and send so much at once.
fn limited(memory_bytes: u64, output_bytes: u64) -> Description {
    let facts = [("memory_bytes", memory_bytes), ("output_bytes", output_bytes)];
    Description::with_facts(facts.map(|(name, bytes)| (name.to_owned(), bytes.to_string())).into())
}

/// Closes all windows.
fn closed(windows: &mut Windows<Noting>) -> Vec<(String, Closed)> {
    let mut open = Vec::new();
    windows
        .close_all(&mut Emissions::default(), |_, key, window| {
            open.push((key.to_owned(), noted(window)));
            Ok(())
        })
        .unwrap();
    assert_eq!(windows.size, Size::default());
    open
}

fn noted(window: &Window<Seen>) -> Closed {
    let mut messages = window.contents.clone();
    messages.sort_unstable();
    (window.start_ms, window.end_ms, messages)
}

/// The windows that these messages make, by their start.
fn form(kind: WindowKind, messages: &[(usize, i64)]) -> Vec<Closed> {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap();
    let (size, slide) = match kind {
        WindowKind::Tumbling { size } => (ms(size), ms(size)),
        WindowKind::Sliding { size, slide } => (ms(size), ms(slide)),
        WindowKind::Session { gap } => {
            let mut messages = messages.to_vec();
            messages.sort_by_key(|(_, time)| *time);
            let mut sessions: Vec<Closed> = Vec::new();
            for (number, time) in messages {
                match sessions.last_mut() {
                    Some((_, end, numbers)) if time < *end => {
                        *end = time + ms(gap);
                        numbers.push(number);
                    }
                    _ => sessions.push((time, time + ms(gap), vec![number])),
                }
            }
            sessions.iter_mut().for_each(|(_, _, numbers)| numbers.sort_unstable());
            return sessions;
        }
    };
    let times = messages.iter().map(|(_, time)| *time);
    let (Some(first), Some(last)) = (times.clone().min(), times.max()) else { return Vec::new() };
    let starts = (first - size..=last).filter(|start| start.rem_euclid(slide) == 0);
    let windows = starts.map(|start| {
        let inside = messages.iter().filter(|(_, time)| (start..start + size).contains(time));
        (start, start + size, inside.map(|(number, _)| *number).collect::<Vec<_>>())
    });
    windows.filter(|(_, _, numbers)| !numbers.is_empty()).collect()
}

/// The windows of one key.
struct Model {
    rules: WindowRules,
    /// The numbers and times of those that count.
    messages: Vec<(usize, i64)>,
    closed_until: Option<i64>,
}

impl Model {
    fn close(&mut self, until: i64) -> Vec<Closed> {
        let is_session = matches!(self.rules.kind, WindowKind::Session { .. });
        let mut closed = form(self.rules.kind, &self.messages);
        closed.retain(|(_, end, _)| *end <= until && self.closed_until.is_none_or(|before| *end > before));
        for (_, end, numbers) in &closed {
            self.closed_until = self.closed_until.max(Some(*end));
            if is_session {
                self.messages.retain(|(number, _)| !numbers.contains(number));
            }
        }
        closed
    }

    /// What a message closes, and whether it is late.
    fn add(&mut self, number: usize, time: i64) -> (Vec<Closed>, bool) {
        if self.closed_until.is_some_and(|end| time < end) {
            return (Vec::new(), true);
        }
        let lateness = i64::try_from(self.rules.allowed_lateness.as_millis()).unwrap();
        let closed = self.close(time - lateness);
        self.messages.push((number, time));
        (closed, false)
    }
}

fn kind() -> impl Strategy<Value = WindowKind> {
    let ms = Duration::from_millis;
    prop_oneof![
        (1..20u64).prop_map(move |size| WindowKind::Tumbling { size: ms(size) }),
        (1..20u64, 1..20u64)
            .prop_map(move |(a, b)| WindowKind::Sliding { size: ms(a.max(b)), slide: ms(a.min(b)) }),
        (1..12u64).prop_map(move |gap| WindowKind::Session { gap: ms(gap) }),
    ]
}

proptest! {
    #[test]
    fn windows_are_those_of_the_model(
        kind in kind(),
        lateness_ms in prop_oneof![Just(0u64), 0..15u64],
        times in prop::collection::vec((0..3usize, -20..120i64, -15..25i64), 1..80),
        swapped_at in 0..80usize,
    ) {
        let rules = rules(kind, lateness_ms, 0);
        let mut real = windows(&rules);
        let keys = ["a", "b", "c"];
        let mut models = keys.map(|_| Model { rules, messages: Vec::new(), closed_until: None });
        for (number, (key, base, step)) in times.iter().enumerate() {
            if number == swapped_at {
                let snapshot = real.snapshot("seen").unwrap();
                real = windows(&rules);
                real.restore(&[snapshot], Part { number: 0, of: 1 }, "seen").unwrap();
            }
            // Forwards on the whole, as feeds go.
            let time = base / 4 + step + i64::try_from(number).unwrap() * 2;
            let mut closed = Vec::new();
            let is_late = real.add(keys[*key], time, 0, &number, |window| {
                closed.push(noted(window));
                Ok(())
            });
            prop_assert_eq!((closed, is_late.unwrap()), models[*key].add(number, time));
        }
        let mut size = Size::default();
        real.series.iter().for_each(|(key, series)| size.add(series.size(key)));
        prop_assert_eq!(real.size, size);
        let open = closed(&mut real);
        let mut expected = Vec::new();
        for (key, model) in keys.iter().zip(&mut models) {
            expected.extend(model.close(i64::MAX).into_iter().map(|window| ((*key).to_owned(), window)));
        }
        prop_assert_eq!(open, expected);
    }
}

#[test]
fn silence_closes_windows_by_the_timer_or_the_next_message() {
    let minute = WindowKind::Tumbling { size: Duration::from_secs(60) };
    let rules = rules(minute, 0, 2000);
    let mut description = Description::default();
    let mut windows = Windows::try_new(&rules, Noting, &mut description).unwrap();
    assert_eq!((description.to_wit().tick_ms, description.to_wit().times), (200, true));
    let add = |windows: &mut Windows<Noting>, key: &str, received_us| {
        let mut closed = 0;
        let close = |_: &Window<Seen>| {
            closed += 1;
            Ok(())
        };
        let is_late = windows.add(key, 5, received_us, &1, close).unwrap();
        (closed, is_late)
    };
    let tick = |windows: &mut Windows<Noting>, now_us| {
        let mut keys = Vec::new();
        let close = |key: &str, _: &Window<Seen>| {
            keys.push(key.to_owned());
            Ok(())
        };
        windows.close_idle(now_us, close).unwrap();
        keys
    };
    assert_eq!(add(&mut windows, "a", 1_000_000), (0, false));
    assert_eq!(add(&mut windows, "b", 2_000_000), (0, false));
    assert_eq!(tick(&mut windows, 2_999_999), [""; 0]);
    assert_eq!(tick(&mut windows, 3_000_000), ["a"]);
    assert_eq!(tick(&mut windows, 3_000_001), [""; 0]);
    assert_eq!(add(&mut windows, "b", 4_000_000), (1, true));
}

#[test]
fn keys_beyond_the_most_make_room_and_shares_keep_their_own() {
    let rules =
        WindowRules { max_keys: Some(2), ..rules(WindowKind::Session { gap: Duration::from_secs(1) }, 0, 0) };
    let mut windows = windows(&rules);
    let add = |windows: &mut Windows<Noting>, key: &str| {
        windows.add(key, 0, 0, &1, |_| Ok(())).unwrap();
        let mut out = Vec::new();
        let close = |key: &str, _: &Window<Seen>| {
            out.push(key.to_owned());
            Ok(())
        };
        let keys = windows.push_out(close).unwrap();
        assert_eq!(keys, out.len());
        out
    };
    for (key, out) in [("a", None), ("b", None), ("a", None), ("c", Some("b")), ("d", Some("a"))] {
        assert_eq!(add(&mut windows, key), Vec::from_iter(out), "{key}");
    }
    let snapshots = [windows.snapshot("seen").unwrap()];
    let mut shares = Vec::new();
    for number in 0..2 {
        let mut share = super::tests::windows(&rules);
        share.restore(&snapshots, Part { number, of: 2 }, "seen").unwrap();
        for (key, _) in closed(&mut share) {
            assert!(Part { number, of: 2 }.has(&key));
            shares.push(key);
        }
    }
    shares.sort_unstable();
    assert_eq!(shares, ["c", "d"]);
    let other =
        super::tests::windows(&rules).restore(&snapshots, Part { number: 0, of: 1 }, "other").unwrap_err();
    assert_eq!(
        other.to_string(),
        "the state has windows of seen, and the configuration says other; a transform of another `name` begins \
         without state"
    );
}

#[test]
fn rules_that_cannot_be_kept_are_refused_by_key() {
    let (ms, hour) = (Duration::from_millis, Duration::from_secs(3600));
    let sliding = |size, slide| WindowKind::Sliding { size, slide };
    for (kind, lateness_ms, error) in [
        (WindowKind::Tumbling { size: ms(0) }, 0, "`size` must be longer than 0"),
        (sliding(ms(1), ms(0)), 0, "`slide` must be longer than 0"),
        (WindowKind::Session { gap: ms(0) }, 0, "`gap` must be longer than 0"),
        (
            sliding(ms(1), ms(2)),
            0,
            "`slide` must not be longer than `size`: there would be messages in no window",
        ),
        (
            sliding(hour, ms(7)),
            0,
            "`slide` cuts windows into 3600000 pieces of 1 ms, and 10000 are the most: let `size` be a multiple of \
             a longer `slide`",
        ),
        (
            WindowKind::Tumbling { size: ms(1) },
            10_001,
            "`allowed_lateness` holds 10001 windows open, and 10000 are the most: let it be shorter",
        ),
        (
            WindowKind::Session { gap: ms(1) },
            10_001,
            "`allowed_lateness` holds 10001 windows open, and 10000 are the most: let it be shorter",
        ),
    ] {
        let rules = rules(kind, lateness_ms, 0);
        let refused = Windows::try_new(&rules, Noting, &mut Description::default()).unwrap_err();
        assert_eq!(refused.to_string(), error);
    }
    let none = WindowRules { max_keys: Some(0), ..rules(WindowKind::Session { gap: ms(1) }, 0, 0) };
    let refused = Windows::try_new(&none, Noting, &mut Description::default()).unwrap_err();
    assert_eq!(refused.to_string(), "`max_keys` must be more than 0");
}

#[test]
fn keys_that_memory_has_no_room_for_are_refused_and_so_is_a_key_that_it_has_none_for() {
    const MIB: u64 = 1 << 20;
    let seconds = Duration::from_secs;
    let sliding = rules(WindowKind::Sliding { size: seconds(3600), slide: seconds(1) }, 0, 0);
    let tumbling = rules(WindowKind::Tumbling { size: seconds(60) }, 0, 0);
    let of = |rules: &WindowRules, max_keys, description: &mut Description| {
        let rules = WindowRules { max_keys, ..*rules };
        Windows::try_new(&rules, Noting, description).err().map(|error| error.to_string())
    };
    for (rules, max_keys, memory_bytes, output_bytes, pieces, limit, most) in [
        (&sliding, 1_000, 64 * MIB, 64 * MIB, "3600 pieces", "memory", 297),
        (&sliding, 1_000, 512 * MIB, 16 * MIB, "3600 pieces", "output", 232),
        (&tumbling, 1_000_000, 64 * MIB, 16 * MIB, "a piece", "memory", 225_735),
        (&tumbling, 40_000, 8 * MIB, 16 * MIB, "a piece", "memory", 21_845),
    ] {
        let limits = || limited(memory_bytes, output_bytes);
        assert_eq!(
            of(rules, Some(max_keys), &mut limits()).unwrap(),
            format!(
                "`max_keys`: {max_keys} keys of {pieces} of windows each are too many: `limits.{limit}` has room for \
                 {most}. Take fewer, let it be larger, or leave `max_keys` out: then there are as many as there is room \
                 for"
            )
        );
        assert_eq!(of(rules, Some(most), &mut limits()), None);
        assert_eq!(of(rules, None, &mut limits()), None);
    }
    let error = "the windows of one key may have 3600 pieces, for which `limits.memory` has no room: let it be larger, or \
                 windows have fewer pieces";
    assert_eq!(of(&sliding, None, &mut limited(2 * MIB, 16 * MIB)).as_deref(), Some(error));
    // Without facts the limits are those that the host has by default.
    assert_eq!(of(&tumbling, Some(225_735), &mut Description::default()), None);
    assert!(of(&tumbling, Some(225_736), &mut Description::default()).is_some());
}

#[test]
fn windows_of_which_one_message_closes_more_than_one_call_may_send_are_refused() {
    let seconds = Duration::from_secs;
    for (kind, lateness_ms, output_bytes, windows) in [
        (WindowKind::Sliding { size: seconds(3600), slide: seconds(1) }, 0, 3600 * 128, 3600),
        (WindowKind::Sliding { size: seconds(60), slide: seconds(8) }, 12_000, 9 * 128, 9),
        (WindowKind::Tumbling { size: seconds(1) }, 99_500, 100 * 128, 100),
        (WindowKind::Session { gap: seconds(1) }, 99_000, 100 * 128, 100),
    ] {
        let rules = rules(kind, lateness_ms, 0);
        let mut taken = Windows::try_new(&rules, Noting, &mut limited(64 << 20, output_bytes)).unwrap();
        let refused = Windows::try_new(&rules, Noting, &mut limited(64 << 20, output_bytes - 1)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "one message may close {windows} windows of its key at once, of 128 bytes each at least, and of these \
                 {output_bytes} bytes `limits.output` has room for {}: let it be larger, or fewer windows be open at a \
                 time",
                output_bytes - 1
            )
        );
        // There is a message that closes so many.
        for second in 0..4000 {
            taken.add("a", second * 1000, 0, &0, |_| Ok(())).unwrap();
        }
        let mut closed = 0;
        let close = |_: &Window<Seen>| {
            closed += 1;
            Ok(())
        };
        taken.add("a", 1_000_000_000, 0, &0, close).unwrap();
        assert!((windows..=windows + 1).contains(&closed), "{closed} of {kind:?}");
    }
}

#[test]
fn where_memory_has_no_room_keys_that_were_silent_longest_go_with_all_their_pieces() {
    const SECONDS: i64 = 200;
    let seconds = Duration::from_secs;
    let sliding = rules(WindowKind::Sliding { size: seconds(3600), slide: seconds(1) }, 0, 0);
    let mut windows = Windows::try_new(&sliding, Noting, &mut limited(3 << 20, 16 << 20)).unwrap();
    let mut gone = std::collections::BTreeMap::new();
    let mut forgotten = 0;
    for number in 0..100 {
        for second in 0..SECONDS {
            let key = number.to_string();
            windows.add(&key, second * 1000, 0, &0, |_| Ok(())).unwrap();
            let close = |key: &str, _: &Window<Seen>| {
                *gone.entry(key.parse::<i32>().unwrap()).or_insert(0) += 1;
                Ok(())
            };
            forgotten += windows.push_out(close).unwrap();
            assert!(windows.allowance.covers(&windows.size));
        }
    }
    let left = windows.series.len();
    assert!(left > 10 && forgotten + left == 100, "{left} are left");
    // The oldest went, each with all windows that its messages are in.
    let expected = (0..).take(forgotten).map(|number| (number, 3600)).collect();
    assert_eq!(gone, expected);
    // A later instance that has less memory makes room for its own.
    let snapshot = windows.snapshot("seen").unwrap();
    let mut small = Windows::try_new(&sliding, Noting, &mut limited(5 << 19, 16 << 20)).unwrap();
    small.restore(&[snapshot], Part { number: 0, of: 1 }, "seen").unwrap();
    assert!(!small.allowance.covers(&small.size));
    while !small.allowance.covers(&small.size) {
        assert!(small.push_out(|_, _| Ok(())).unwrap() > 0);
    }
    assert!(!small.series.is_empty());
}

#[test]
fn at_the_end_windows_are_sent_as_far_as_there_is_room_and_the_others_are_told() {
    let tumbling = rules(WindowKind::Tumbling { size: Duration::from_secs(60) }, 0, 0);
    let mut windows = windows(&tumbling);
    for number in 0..100 {
        windows.add(&format!("{number:02}"), 0, 0, &0, |_| Ok(())).unwrap();
    }
    // The host counts 128 bytes for each beside its own.
    let mut out = Emissions::default().bounded(60 * (128 + 10) + 137);
    windows
        .close_all(&mut out, |emission, key, _| {
            emission.text("<").text(key).text("------>");
            Ok(())
        })
        .unwrap();
    let texts: Vec<u8> = (0..60).flat_map(|number| format!("<{number:02}------>").into_bytes()).collect();
    match out.into_wit().unwrap().payloads {
        types::Payloads::Packed(packed) => assert_eq!((packed.data, packed.ends.len()), (texts, 60)),
        types::Payloads::Each(_) => panic!("they cross in a row"),
    }
    let text = "40 open windows are not sent, for which one call has no room: let `limits.output` be larger, and \
                `limits.memory` four times as large as that at least";
    host(|host| {
        assert_eq!(host.counters[UNSENT], 40.0);
        assert_eq!(host.log, [(Level::Warn, text.to_owned())]);
    });
}

/// Counts messages, and how often pieces are merged.
#[derive(Clone, Debug, Default)]
struct Counting(std::cell::Cell<usize>);

impl Aggregation for Counting {
    type Contents = usize;
    type Reading = ();

    fn empty(&self) -> usize {
        0
    }

    fn add(&self, seen: &mut usize, (): &()) {
        *seen += 1;
    }

    fn merge(&self, seen: &mut usize, later: &usize) {
        self.0.set(self.0.get() + 1);
        *seen += later;
    }
}

#[test]
fn windows_that_are_closed_at_once_merge_each_piece_a_few_times() {
    const PIECES: usize = 1_000;
    let second = Duration::from_secs(1);
    // With lateness some windows are closed that end before the newest piece.
    for lateness_ms in [0, 500_000] {
        let kind = WindowKind::Sliding { size: second * 1_000, slide: second };
        let rules = rules(kind, lateness_ms, 0);
        let mut windows = Windows::try_new(&rules, Counting::default(), &mut Description::default()).unwrap();
        for number in (0..PIECES).rev() {
            windows.add("a", number as i64 * 1_000, 0, &(), |_| Ok(())).unwrap();
        }
        let before = windows.aggregation.0.get();
        let mut closed = Vec::new();
        let close = |window: &Window<usize>| {
            closed.push(window.contents);
            Ok(())
        };
        windows.add("a", 10_000_000, 0, &(), close).unwrap();
        let expected: Vec<_> = (1..=PIECES).chain((1..PIECES).rev()).collect();
        assert_eq!(closed, expected);
        let merged = windows.aggregation.0.get() - before;
        assert!(merged < 5 * PIECES, "{merged} times");
        assert_eq!(windows.size.pieces, 1);
    }
}
