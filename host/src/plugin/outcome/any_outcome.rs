//! Whatever a guest returns, the check ends, and what it lets through is what the rest of the host takes for granted.

use super::super::description::ColumnForm;
use super::super::json_places::JsonPlaces;
use super::*;
use crate::message::metadata::Metadata;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::Cell;

const MESSAGES: [&[u8]; 4] = [br#"{"price": 1,"deep":{"note":[]}}"#, b"{}", b"not JSON", b"\xff\x00"];
const MAX_BYTES: usize = 4096;

fn description() -> Description {
    Description {
        outputs: vec!["side".into()],
        writes: vec!["mark".into(), "room".into()],
        edits: vec!["/price".into(), "/deep/note".into()],
        ..Description::plain(ColumnForm::Packed)
    }
}

/// Mostly pieces of what would be right.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(&b"1"[..]),
        Just(&b"null"[..]),
        Just(&b"{\"a\":[]}"[..]),
        Just("\u{e9}".as_bytes()),
        Just(&b"\xc3"[..]),
        Just(&b"\""[..]),
    ];
    vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn text() -> impl Strategy<Value = String> {
    bytes().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn index() -> impl Strategy<Value = u32> {
    prop_oneof![20 => 0..6u32, 1 => any::<u32>()]
}

/// As a rule ends that fit the data.
fn row() -> impl Strategy<Value = (Vec<u8>, Vec<u32>)> {
    (bytes(), vec(0..16u32, 0..6), any::<prop::sample::Index>()).prop_map(|(data, mut ends, honesty)| {
        if honesty.index(8) > 0 {
            let length = data.len() as u32;
            ends.iter_mut().for_each(|end| *end = (*end).min(length));
            ends.sort_unstable();
            ends.last_mut().into_iter().for_each(|last| *last = length);
        }
        (data, ends)
    })
}

fn flags() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(vec(prop_oneof![20 => 0..2u8, 1 => any::<u8>()], 0..6))
}

fn payloads() -> impl Strategy<Value = wit::PayloadsResult> {
    let each =
        prop_oneof![text().prop_map(wit::PayloadResult::Text), bytes().prop_map(wit::PayloadResult::Binary),];
    prop_oneof![
        (row(), flags()).prop_map(|((data, ends), binary)| {
            wit::PayloadsResult::Packed(wit::PackedResult { data, ends, binary })
        }),
        vec(each, 0..6).prop_map(wit::PayloadsResult::Each),
    ]
}

fn writing() -> impl Strategy<Value = wit::Writing> {
    prop_oneof![
        Just(wit::Writing::Inherit),
        text().prop_map(wit::Writing::Same),
        row().prop_map(|(data, ends)| wit::Writing::Packed(wit::TextsResult { data, ends })),
        vec(text(), 0..6).prop_map(wit::Writing::Each),
        vec((index(), text()), 0..4).prop_map(|settings| {
            let settings = settings.into_iter().map(|(index, value)| wit::Setting { index, value });
            wit::Writing::Sparse(settings.collect())
        }),
    ]
}

fn values() -> impl Strategy<Value = wit::ValuesResult> {
    let number = prop_oneof![4 => Just(f64::NAN), 4 => -9.0..9.0f64, 1 => any::<f64>()];
    prop_oneof![
        vec(number, 0..6).prop_map(wit::ValuesResult::Numbers),
        (row(), flags()).prop_map(|((data, ends), absent)| {
            wit::ValuesResult::Packed(wit::OptionalTextsResult { data, ends, absent })
        }),
        vec(option::of(text()), 0..6).prop_map(wit::ValuesResult::Each),
    ]
}

fn columns<T: std::fmt::Debug>(column: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    // None, or one for each of the two that the description has; seldom another number.
    let count = prop_oneof![8 => Just(0), 8 => Just(2), 1 => 0..4usize];
    (count, vec(column, 3)).prop_map(|(count, mut columns)| {
        columns.truncate(count);
        columns
    })
}

fn emissions() -> impl Strategy<Value = wit::Emissions> {
    let outputs = prop_oneof![2 => Just(Vec::new()), 1 => vec(0..3u16, 0..6)];
    (payloads(), vec(index(), 0..6), outputs, columns(writing()), any::<bool>()).prop_map(
        |(payloads, mut origins, outputs, metadata, is_sorted)| {
            if is_sorted {
                origins.sort_unstable();
                let count = match &payloads {
                    wit::PayloadsResult::Packed(packed) => packed.ends.len(),
                    wit::PayloadsResult::Each(each) => each.len(),
                };
                origins.resize(count, origins.last().copied().unwrap_or(0));
            }
            wit::Emissions { payloads, origins, outputs, metadata }
        },
    )
}

fn outcome() -> impl Strategy<Value = wit::Outcome> {
    let forward = prop_oneof![
        Just(wit::Forward::Nothing),
        Just(wit::Forward::All),
        vec(index(), 0..5).prop_map(wit::Forward::These),
        prop::sample::subsequence(vec![0, 1, 2, 3], 0..=4).prop_map(wit::Forward::These),
    ];
    let rejection = (index(), text()).prop_map(|(message, reason)| wit::Rejection { message, reason });
    let retry = (index(), text(), any::<u32>()).prop_map(|(message, reason, after_ms)| wit::Retry {
        message,
        reason,
        after_ms,
    });
    let outputs = prop_oneof![3 => Just(Vec::new()), 1 => vec(0..3u16, 0..6)];
    let rest =
        (columns(values()), option::of(emissions()), vec(rejection, 0..3), option::weighted(0.2, retry));
    (forward, outputs, columns(writing()), rest).prop_map(
        |(forward, forward_outputs, forward_metadata, (edits, emissions, rejections, retry))| wit::Outcome {
            forward,
            forward_outputs,
            forward_metadata,
            edits,
            emissions,
            rejections,
            retry,
        },
    )
}

/// Uses a checked outcome in all the ways in which the pipeline does.
fn use_up(outcome: &Outcome, batch: &[Message], description: &Description) -> Result<(), TestCaseError> {
    let decided = outcome.retry.as_ref().map_or(batch.len(), |retry| retry.message as usize);
    prop_assert!(decided < batch.len() || outcome.retry.is_none());
    let forwarded: Vec<usize> = match &outcome.forward {
        Forward::Nothing => Vec::new(),
        Forward::All => (0..batch.len()).collect(),
        Forward::These(these) => these.iter().map(|index| *index as usize).collect(),
    };
    prop_assert!(forwarded.is_sorted_by(|a, b| a < b) && forwarded.iter().all(|index| *index < decided));
    let is_known = |output: u16| usize::from(output) <= description.outputs.len();
    prop_assert!(outcome.forward_outputs.is_empty() || outcome.forward_outputs.len() == forwarded.len());
    prop_assert!(outcome.forward_outputs.iter().all(|output| is_known(*output)));
    for (place, index) in forwarded.iter().enumerate() {
        let mut metadata = Metadata::without_origin(0);
        outcome.forward_metadata.write(place, &mut metadata);
        if let Ok(Some(edited)) = outcome.edited.payload(place, &batch[*index].payload) {
            prop_assert!(serde_json::from_slice::<serde_json::Value>(edited.as_bytes()).is_ok());
        }
    }
    let emissions = &outcome.emissions;
    let mut before = 0;
    for place in 0..emissions.len() {
        let origin = emissions.origin(place).expect("emissions of a batch have origins");
        prop_assert!(before <= origin && origin < decided);
        before = origin;
        let payload = emissions.payload(place);
        prop_assert!(!payload.is_text() || std::str::from_utf8(payload.as_bytes()).is_ok());
        prop_assert!(is_known(emissions.output(place)));
        emissions.write_metadata(place, &mut Metadata::without_origin(0));
    }
    let mut rejected: Vec<usize> = outcome.rejections.iter().map(|each| each.message as usize).collect();
    rejected.sort_unstable();
    prop_assert!(rejected.is_sorted_by(|a, b| a < b) && rejected.iter().all(|index| *index < decided));
    let is_answered =
        |index: &usize| (0..emissions.len()).any(|place| emissions.origin(place) == Some(*index));
    prop_assert!(!rejected.iter().any(|index| forwarded.contains(index) || is_answered(index)));
    Ok(())
}

#[test]
fn whatever_a_guest_returns_is_a_fault_or_can_be_used() {
    let description = description();
    let payload = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => Payload::text(text),
        Err(_) => Payload::binary(bytes.to_vec()),
    };
    let message = |bytes: &[u8]| Message { payload: payload(bytes), metadata: Metadata::without_origin(0) };
    let batch = MESSAGES.map(message);
    let taken = Cell::new(0);
    let mut config = ProptestConfig::default();
    // More where PROPTEST_CASES says so.
    config.cases = config.cases.max(2048);
    let cases = config.cases;
    let checked = TestRunner::new(config).run(&outcome(), |outcome| {
        let mut edits = Edits::try_new(&description, JsonPlaces::default()).unwrap();
        match check(Box::new(outcome), &batch, &description, &mut edits, MAX_BYTES, &mut Vec::new()) {
            Ok(outcome) => {
                taken.set(taken.get() + 1);
                use_up(&outcome, &batch, &description)
            }
            Err(fault) => {
                prop_assert!(matches!(fault.kind, FaultKind::Invalid | FaultKind::Output));
                Ok(())
            }
        }
    });
    checked.unwrap();
    assert!(taken.get() > cases / 200, "of {cases} only {} were not refused", taken.get());
}
