//! Columns that do not say the truth: an honest outcome, in which every message is emitted again, and
//! one thing wrong with it.

use crate::bindings::tidemill::plugin::types::{
    Description, Emissions, Field, Form, Forward, Kind, OptionalTexts, Outcome, Packed, Payload, Payloads,
    Rejection, Retry, Setting, Texts, Values, Writing,
};

/// More than the 16 MiB that a call may return unless the configuration says otherwise.
const FLOOD_BYTES: usize = 20 << 20;
/// One of many that are too much together.
const FLOOD_PIECE_BYTES: usize = 64 << 10;

/// Emissions of which each is next to nothing, and all are a great deal.
const MANY: usize = 1_000_000;
/// Emissions that share one value, and how long that is.
const SHARING: usize = 3_000;
const SHARED_BYTES: usize = 1 << 20;
/// Emissions with a small value of their own.
const SETTINGS: u32 = 300_000;
/// Emissions that fill the 16 MiB which may be returned: with payloads in a row, with payloads of their own,
/// with metadata of their own.
const HONEST: usize = 110_000;
const HONEST_BYTES: usize = 20;
const HONEST_EACH: usize = 80_000;
const HONEST_VALUES: usize = 60_000;
/// More names than there may be, and one that is longer.
const NAMES: usize = 2_000;
const NAME_BYTES: usize = 10_000;

type Lie = fn(&mut Outcome);

const LIES: &[(&str, Lie)] = &[
    ("end_beyond_data", |outcome| *last(&mut packed(outcome).ends) += 1),
    ("ends_descending", |outcome| packed(outcome).ends.reverse()),
    ("binary_short", |outcome| packed(outcome).binary = Some(vec![0])),
    ("binary_unknown", |outcome| {
        let payloads = packed(outcome);
        payloads.binary = Some(vec![7; payloads.ends.len()]);
    }),
    ("invalid_utf8", |outcome| packed(outcome).data[0] = 0xff),
    // The bytes of both together are text, those of each are not.
    ("split_character", |outcome| {
        *packed(outcome) = Packed { data: "é".into(), ends: vec![1, 2], binary: None };
        let emissions = emitted(outcome);
        emissions.origins.truncate(2);
    }),
    ("origins_short", |outcome| emitted(outcome).origins.truncate(1)),
    ("origins_descending", |outcome| emitted(outcome).origins.reverse()),
    ("origin_out_of_range", |outcome| *last(&mut emitted(outcome).origins) += 1),
    ("outputs_short", |outcome| emitted(outcome).outputs = vec![0]),
    ("unknown_output", |outcome| {
        let emissions = emitted(outcome);
        emissions.outputs = vec![7; emissions.origins.len()];
    }),
    ("too_many_writings", |outcome| {
        emitted(outcome).metadata = vec![Writing::Same("a".into()), Writing::Same("b".into())];
    }),
    ("values_short", |outcome| emitted(outcome).metadata = vec![Writing::Each(vec!["one".into()])]),
    ("value_ends_beyond_data", |outcome| {
        let emissions = emitted(outcome);
        let ends = vec![9; emissions.origins.len()];
        emissions.metadata = vec![Writing::Packed(Texts { data: b"short".to_vec(), ends })];
    }),
    ("value_invalid_utf8", |outcome| {
        let emissions = emitted(outcome);
        let ends = vec![1; emissions.origins.len()];
        emissions.metadata = vec![Writing::Packed(Texts { data: vec![0xff], ends })];
    }),
    ("setting_out_of_range", |outcome| {
        let emissions = emitted(outcome);
        let index = u32::try_from(emissions.origins.len()).unwrap_or(u32::MAX);
        emissions.metadata = vec![Writing::Sparse(vec![Setting { index, value: "x".into() }])];
    }),
    ("settings_descending", |outcome| {
        let setting = |index| Setting { index, value: "x".into() };
        emitted(outcome).metadata = vec![Writing::Sparse([1, 0].map(setting).into())];
    }),
    ("forward_metadata_short", |outcome| {
        outcome.forward = Forward::These(vec![0]);
        outcome.forward_metadata = vec![Writing::Each(Vec::new())];
    }),
    ("too_many_forward_writings", |outcome| {
        outcome.forward_metadata = vec![Writing::Same("a".into()), Writing::Same("b".into())];
    }),
    ("too_many_edits", |outcome| {
        let column = || Values::Numbers(Vec::new());
        outcome.edits = vec![column(), column()];
    }),
    ("edits_short", |outcome| edit(outcome, Values::Numbers(Vec::new()))),
    ("edits_each_long", |outcome| edit(outcome, Values::Each(vec![None, None]))),
    ("edit_infinite", |outcome| edit(outcome, Values::Numbers(vec![f64::INFINITY]))),
    ("edit_no_json", |outcome| edit(outcome, Values::Each(vec![Some("{\"a\":1".into())]))),
    ("edit_two_values", |outcome| edit(outcome, Values::Each(vec![Some("1,\"forged\":2".into())]))),
    ("edit_invalid_utf8", |outcome| edit(outcome, row(b"\"\xff\"", 3, None))),
    ("edit_ends_beyond_data", |outcome| edit(outcome, row(b"1", 2, None))),
    ("edit_absent_unknown", |outcome| edit(outcome, row(b"1", 1, Some(7)))),
    ("edit_absent_with_bytes", |outcome| edit(outcome, row(b"1", 1, Some(1)))),
    ("retry_out_of_range", |outcome| retry(outcome, u32::MAX)),
    ("retry_of_what_is_forwarded", |outcome| {
        outcome.emissions = None;
        outcome.forward = Forward::These(vec![0]);
        retry(outcome, 0);
    }),
    ("retry_and_forward_all", |outcome| {
        outcome.emissions = None;
        outcome.forward = Forward::All;
        retry(outcome, 0);
    }),
    ("retry_before_an_emission", |outcome| retry(outcome, 0)),
    ("retry_before_a_rejection", |outcome| {
        outcome.emissions = None;
        reject(outcome, &[0]);
        retry(outcome, 0);
    }),
    ("forward_out_of_range", |outcome| {
        let beyond = last(&mut emitted(outcome).origins).saturating_add(1);
        outcome.forward = Forward::These(vec![beyond]);
    }),
    ("forward_descending", |outcome| outcome.forward = Forward::These(vec![1, 0])),
    ("forward_twice", |outcome| outcome.forward = Forward::These(vec![0, 0])),
    ("forward_outputs_short", |outcome| {
        outcome.forward = Forward::All;
        outcome.forward_outputs = vec![0];
    }),
    ("forward_unknown_output", |outcome| {
        outcome.forward = Forward::These(vec![0]);
        outcome.forward_outputs = vec![7];
    }),
    ("rejected_out_of_range", |outcome| reject(outcome, &[u32::MAX])),
    ("rejected_twice", |outcome| {
        outcome.emissions = None;
        reject(outcome, &[0, 0]);
    }),
    ("rejected_and_forwarded", |outcome| {
        outcome.emissions = None;
        outcome.forward = Forward::All;
        reject(outcome, &[0]);
    }),
    ("rejected_and_emitted", |outcome| reject(outcome, &[0])),
    // In `process` this is the truth. In `tick` and `finish` there is nothing to come from.
    ("origins", |_| {}),
    ("empty_emissions", |outcome| {
        let emissions = emitted(outcome);
        emissions.payloads = Payloads::Packed(Packed { data: Vec::new(), ends: vec![0; MANY], binary: None });
        emissions.origins = vec![0; MANY];
    }),
    ("empty_emissions_each", |outcome| {
        let emissions = emitted(outcome);
        emissions.payloads = Payloads::Each(vec![Payload::Text(String::new()); MANY / 4]);
        emissions.origins = vec![0; MANY / 4];
    }),
    ("tiny_values", |outcome| {
        let emissions = emitted(outcome);
        let count = SETTINGS as usize;
        emissions.payloads =
            Payloads::Packed(Packed { data: Vec::new(), ends: vec![0; count], binary: None });
        emissions.origins = vec![0; count];
        let setting = |index| Setting { index, value: "v".into() };
        emissions.metadata = vec![Writing::Sparse((0..SETTINGS).map(setting).collect())];
    }),
    ("many_rejections", |outcome| {
        outcome.emissions = None;
        let rejection = Rejection { message: 0, reason: String::new() };
        outcome.rejections = vec![rejection; MANY / 4];
    }),
    // As much as may be, in three ways.
    ("honest_output", |outcome| {
        let payloads = packed(outcome);
        payloads.data.resize(HONEST * HONEST_BYTES, b'x');
        payloads.ends = (1..).take(HONEST).map(|n: u32| n * HONEST_BYTES as u32).collect();
        emitted(outcome).origins = vec![0; HONEST];
    }),
    ("honest_output_each", |outcome| {
        let emissions = emitted(outcome);
        emissions.payloads = Payloads::Each(vec![Payload::Text("x".into()); HONEST_EACH]);
        emissions.origins = vec![0; HONEST_EACH];
    }),
    ("honest_values", |outcome| {
        let emissions = emitted(outcome);
        let payloads = Packed { data: Vec::new(), ends: vec![0; HONEST_VALUES], binary: None };
        emissions.payloads = Payloads::Packed(payloads);
        emissions.origins = vec![0; HONEST_VALUES];
        emissions.metadata = vec![Writing::Each(vec!["v".into(); HONEST_VALUES])];
    }),
    // Nothing is wrong with this, as long as nobody copies the value.
    ("shared_value", |outcome| {
        let emissions = emitted(outcome);
        emissions.payloads =
            Payloads::Packed(Packed { data: Vec::new(), ends: vec![0; SHARING], binary: None });
        emissions.origins = vec![0; SHARING];
        emissions.metadata = vec![Writing::Same("x".repeat(SHARED_BYTES))];
    }),
    ("output_flood", |outcome| {
        let payloads = packed(outcome);
        payloads.data.resize(FLOOD_BYTES, b'x');
        *last(&mut payloads.ends) = u32::try_from(FLOOD_BYTES).unwrap_or(u32::MAX);
    }),
    ("output_flood_each", |outcome| {
        let pieces = FLOOD_BYTES / FLOOD_PIECE_BYTES;
        let piece = Payload::Text("x".repeat(FLOOD_PIECE_BYTES));
        let emissions = emitted(outcome);
        emissions.origins = vec![0; pieces];
        emissions.payloads = Payloads::Each(vec![piece; pieces]);
    }),
];

pub(crate) fn is_known(name: &str) -> bool {
    LIES.iter().any(|(known, _)| *known == name)
}

type Boast = fn(&mut Description);

/// Descriptions that ask for too much, or for what there is not.
const BOASTS: &[(&str, Boast)] = &[
    ("many_outputs", |description| description.outputs = many()),
    ("many_reads", |description| description.reads = many()),
    ("many_fields", |description| description.fields = many().iter().map(|name| field(name)).collect()),
    ("many_edits", |description| description.edits = many()),
    ("long_output", |description| description.outputs = vec!["x".repeat(NAME_BYTES)]),
    ("long_write", |description| description.writes = vec!["x".repeat(NAME_BYTES)]),
    ("long_field", |description| description.fields = vec![field(&"/x".repeat(NAME_BYTES))]),
    ("field_no_pointer", |description| description.fields = vec![field("price")]),
    ("field_bad_escape", |description| description.fields = vec![field("/a~2b")]),
    ("edit_whole_message", |description| description.edits = vec![String::new()]),
    ("edit_within_edit", |description| description.edits = vec!["/a".into(), "/a/b".into()]),
    ("edit_twice", |description| description.edits = vec!["/a".into(), "/a".into()]),
];

fn many() -> Vec<String> {
    (0..NAMES).map(|n| format!("/{n}")).collect()
}

fn field(pointer: &str) -> Field {
    Field { pointer: pointer.to_owned(), kind: Kind::Text }
}

pub(crate) fn is_description(name: &str) -> bool {
    BOASTS.iter().any(|(known, _)| *known == name)
}

/// The description, with what a behaviour has it say.
pub(crate) fn description(behaviour: Option<&str>) -> Description {
    let mut description = Description {
        outputs: vec!["side".to_owned()],
        reads: Vec::new(),
        writes: vec!["mark".to_owned()],
        fields: Vec::new(),
        edits: vec!["/edited".to_owned()],
        json: false,
        form: Form::Packed,
        payloads: true,
        times: false,
        tick_ms: 10,
        options: Vec::new(),
    };
    if let Some((_, boast)) = BOASTS.iter().find(|(known, _)| Some(*known) == behaviour) {
        boast(&mut description);
    }
    description
}

/// The outcome that `name` stands for; `None` if it is not a lie.
pub(crate) fn tell(name: &str, messages: &[&[u8]]) -> Option<Outcome> {
    let (_, lie) = LIES.iter().find(|(known, _)| *known == name)?;
    let mut outcome = Outcome {
        forward: Forward::Nothing,
        forward_outputs: Vec::new(),
        forward_metadata: Vec::new(),
        edits: Vec::new(),
        emissions: Some(emissions(messages)),
        rejections: Vec::new(),
        retry: None,
    };
    lie(&mut outcome);
    Some(outcome)
}

/// Each message again, and nothing wrong.
pub(crate) fn emissions(messages: &[&[u8]]) -> Emissions {
    let ends = messages.iter().scan(0, |end, message| {
        *end += u32::try_from(message.len()).unwrap_or(u32::MAX);
        Some(*end)
    });
    Emissions {
        payloads: Payloads::Packed(Packed { data: messages.concat(), ends: ends.collect(), binary: None }),
        origins: (0..).take(messages.len()).collect(),
        outputs: Vec::new(),
        metadata: Vec::new(),
    }
}

fn emitted(outcome: &mut Outcome) -> &mut Emissions {
    outcome.emissions.as_mut().expect("an honest outcome emits")
}

fn packed(outcome: &mut Outcome) -> &mut Packed {
    match &mut emitted(outcome).payloads {
        Payloads::Packed(packed) => packed,
        Payloads::Each(_) => unreachable!("an honest outcome is packed"),
    }
}

fn last(column: &mut [u32]) -> &mut u32 {
    column.last_mut().expect("a batch is not empty")
}

fn reject(outcome: &mut Outcome, messages: &[u32]) {
    let rejection = |&message| Rejection { message, reason: "a reason".into() };
    outcome.rejections = messages.iter().map(rejection).collect();
}

/// Forwards the first message, and edits it.
fn edit(outcome: &mut Outcome, values: Values) {
    outcome.forward = Forward::These(vec![0]);
    outcome.edits = vec![values];
}

/// A column of one text.
fn row(data: &[u8], end: u32, absent: Option<u8>) -> Values {
    let absent = absent.map(|absent| vec![absent]);
    Values::Packed(OptionalTexts { data: data.into(), ends: vec![end], absent })
}

fn retry(outcome: &mut Outcome, message: u32) {
    outcome.retry = Some(Retry { message, reason: "not yet".into(), after_ms: 1 });
}
