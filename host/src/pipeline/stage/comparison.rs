//! Whether two versions of a plugin made the same of a message, and how that is told.
//!
//! What counts is what goes out: payload, text or binary, metadata, output, in order. Whether a message was forwarded
//! or emitted anew is no difference, and outputs are known by their names.

use crate::foreign_text;
use crate::message::metadata::Metadata;
use crate::message::{Message, Payload};
use crate::pipeline::merge::{self, MessageDecision};
use crate::pipeline::outlets::Routed;
use crate::plugin::{Emissions, Fault};
use crate::verdict::ShadowDifference;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// The first difference is told with so many bytes of each side.
const MAX_TOLD_BYTES: usize = 1 << 10;

/// What a version made of a message.
#[derive(Debug)]
pub(super) enum Made {
    /// This came of it: nothing if it was filtered.
    Given(Vec<MadeMessage>),
    Rejected(String),
    /// It cannot decide yet.
    PutOff(String),
    Failed(String),
}

/// A message on its way out.
#[derive(Debug)]
pub(super) struct MadeMessage {
    /// `None` is the default.
    output: Option<Arc<str>>,
    message: Message,
}

impl Made {
    /// What a decision on a message makes of it; the version has these emissions and names of outputs.
    pub(super) fn of(
        decision: MessageDecision<'_>,
        message: &Message,
        emissions: &Emissions,
        outputs: &[Arc<str>],
    ) -> Self {
        let MessageDecision { forwarded, emitted } = decision;
        let forwarded = match forwarded {
            Ok(forwarded) => forwarded.map(|forwarded| forwarded.of(message.clone())),
            Err(reason) => return Self::Rejected(reason.to_owned()),
        };
        let emitted = emitted.map(|n| merge::emission(emissions, n, message.metadata.clone()));
        Self::Given(
            forwarded.into_iter().chain(emitted).map(|routed| MadeMessage::of(routed, outputs)).collect(),
        )
    }

    /// What a call without messages gave.
    pub(super) fn without_origin(emissions: &Emissions, base: &Metadata, outputs: &[Arc<str>]) -> Self {
        let emitted = (0..emissions.len()).map(|n| merge::emission(emissions, n, base.clone()));
        Self::Given(emitted.map(|routed| MadeMessage::of(routed, outputs)).collect())
    }

    /// A fault.
    pub(super) fn failed(fault: &Fault) -> Self {
        Self::Failed(format!("{}: {fault}", fault.kind))
    }

    /// Whether the same goes out.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Given(some), Self::Given(others)) => {
                some.len() == others.len()
                    && some.iter().zip(others).all(|(one, other)| one.is_same_as(other))
            }
            (Self::Rejected(why), Self::Rejected(other)) | (Self::Failed(why), Self::Failed(other)) => {
                why == other
            }
            // Neither has decided, and what they said of it goes nowhere.
            (Self::PutOff(_), Self::PutOff(_)) => true,
            _ => false,
        }
    }

    /// What this and the other made of what came in, if anything did, where that is not the same; `conceal` makes of a
    /// text what may be told.
    pub(super) fn difference(
        &self,
        other: &Self,
        origin: Option<&Message>,
        conceal: impl Fn(&str) -> String,
    ) -> ShadowDifference {
        let (old, new) = (self.text(origin), other.text(origin));
        let told = |text: &str| shortened(&conceal(text));
        let mut difference = ShadowDifference { old: told(&old), new: told(&new) };
        if difference.old == difference.new {
            // What differs lies behind what is told.
            let same = old.bytes().zip(new.bytes()).take_while(|(old, new)| old == new).count();
            let is_found = same < old.len().min(new.len());
            let place = if is_found { format!("at byte {same}") } else { "further on".to_owned() };
            for side in [&mut difference.old, &mut difference.new] {
                let _ = write!(side, " (they differ {place})");
            }
        }
        difference
    }

    /// The same in words, beside what came in.
    fn text(&self, origin: Option<&Message>) -> String {
        match self {
            Self::Given(given) if given.is_empty() && origin.is_some() => "filtered".to_owned(),
            Self::Given(given) if given.is_empty() => "nothing".to_owned(),
            Self::Given(given) => {
                let mut text = String::new();
                for made in given {
                    let separator = if text.is_empty() { "" } else { ", " };
                    // Writing to a string does not fail.
                    let _ = write!(text, "{separator}{}", made.told(origin));
                    if text.len() > foreign_text::MAX_SHOWN_BYTES {
                        break;
                    }
                }
                text
            }
            Self::Rejected(reason) => format!("rejected: {reason}"),
            Self::PutOff(reason) => format!("put off: {reason}"),
            Self::Failed(fault) => format!("failed: {fault}"),
        }
    }
}

/// A request that one version sent and the one before did not; `conceal` makes of a text what may be told.
pub(super) fn request_difference(request: &str, conceal: impl Fn(&str) -> String) -> ShadowDifference {
    let new = conceal(&format!("sent the request {request}"));
    ShadowDifference { old: "sent no such request".to_owned(), new }
}

impl MadeMessage {
    fn of(routed: Routed, outputs: &[Arc<str>]) -> Self {
        let Routed { output, message } = routed;
        let output = usize::from(output).checked_sub(1).and_then(|number| outputs.get(number)).cloned();
        Self { output, message }
    }

    fn is_same_as(&self, other: &Self) -> bool {
        self.output == other.output
            && self.message.payload == other.message.payload
            && self.message.metadata.has_same_entries(&other.message.metadata)
    }

    fn told(&self, origin: Option<&Message>) -> String {
        let Self { output, message: Message { payload, metadata } } = self;
        let mut text = String::new();
        if let (Some(name), _) = (output, &mut text) {
            let _ = write!(text, "to {name:?} ");
        }
        match payload.as_text() {
            Some(said) => text.push_str(said),
            None => text.push_str(&hexadecimal(payload)),
        }
        let before: BTreeMap<_, _> = origin.iter().flat_map(|origin| origin.metadata.iter()).collect();
        let after: BTreeMap<_, _> = metadata.iter().collect();
        let set = after.iter().filter(|(key, value)| origin.is_some() && before.get(*key) != Some(value));
        let removed =
            before.keys().filter(|key| !after.contains_key(*key)).map(|key| format!("{key} removed"));
        let set = set.map(|(key, value)| format!("{key}={value:?}"));
        let changes: Vec<_> = set.chain(removed).collect();
        if !changes.is_empty() {
            let _ = write!(text, " with {}", changes.join(" "));
        }
        text
    }
}

/// What is binary, as far as it is told.
fn hexadecimal(payload: &Payload) -> String {
    let bytes = &payload.as_bytes()[..payload.len().min(MAX_TOLD_BYTES / 2)];
    let digits = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{} bytes: {digits}", payload.len())
}

/// What was made fit to be told, cut short.
fn shortened(text: &str) -> String {
    if text.len() <= MAX_TOLD_BYTES {
        return text.to_owned();
    }
    format!("{}...", &text[..text.floor_char_boundary(MAX_TOLD_BYTES)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::metadata::Origin;

    fn origin() -> Message {
        let metadata = Metadata::new(Origin::new([("room", "7")]), 5_000);
        Message { payload: Payload::text("in"), metadata }
    }

    fn made(output: Option<&str>, payload: Payload, set: &[(&str, &str)]) -> MadeMessage {
        let mut message = Message { payload, ..origin() };
        set.iter().for_each(|(key, value)| message.metadata.set(&Arc::from(*key), value));
        MadeMessage { output: output.map(Arc::from), message }
    }

    fn text(text: &str) -> Made {
        Made::Given(vec![made(None, Payload::text(text), &[])])
    }

    #[test]
    fn what_goes_out_is_compared_to_the_last_bit() {
        let of = |output, payload, set| Made::Given(vec![made(output, payload, set)]);
        let plain = || text("a");
        for same in [
            plain(),
            of(None, Payload::text("a"), &[("room", "7")]),
            of(None, Payload::text("a"), &[("x", "")]),
        ] {
            assert!(plain().is_same_as(&same), "{same:?}");
        }
        for other in [
            text("b"),
            of(None, Payload::binary("a"), &[]),
            of(Some("side"), Payload::text("a"), &[]),
            of(None, Payload::text("a"), &[("room", "8")]),
            of(None, Payload::text("a"), &[("room", "")]),
            Made::Given(Vec::new()),
            Made::Given(vec![made(None, Payload::text("a"), &[]), made(None, Payload::text("a"), &[])]),
            Made::Rejected("a".into()),
            Made::PutOff("a".into()),
            Made::Failed("a".into()),
        ] {
            assert!(!plain().is_same_as(&other) && !other.is_same_as(&plain()), "{other:?}");
        }
        let two =
            |first, second| Made::Given([first, second].map(|t| made(None, Payload::text(t), &[])).into());
        assert!(!two("a", "b").is_same_as(&two("b", "a")), "the order counts");
        assert!(!Made::Rejected("a".into()).is_same_as(&Made::Rejected("b".into())));
        assert!(Made::PutOff("a".into()).is_same_as(&Made::PutOff("b".into())));
        assert!(Made::Failed("a".into()).is_same_as(&Made::Failed("a".into())));
        assert!(!Made::Failed("a".into()).is_same_as(&Made::Failed("b".into())));
    }

    #[test]
    fn what_was_made_is_told_in_one_short_line() {
        let beside = |made: &Made, other: &Made| made.difference(other, Some(&origin()), foreign_text::shown);
        let told = |made: &Made| beside(made, &Made::Failed("other".into())).old;
        assert_eq!(told(&text("a\nb")), "a\\nb");
        assert_eq!(told(&Made::Given(Vec::new())), "filtered");
        let nothing = Made::Given(Vec::new()).difference(&text("a"), None, foreign_text::shown);
        assert_eq!((&*nothing.old, &*nothing.new), ("nothing", "a"));
        assert_eq!(told(&Made::Rejected("no price".into())), "rejected: no price");
        let two = vec![
            made(Some("side"), Payload::binary(&b"\x00\xff"[..]), &[]),
            made(None, Payload::text("{}"), &[("mark", "1"), ("room", "")]),
        ];
        assert_eq!(told(&Made::Given(two)), "to \"side\" 2 bytes: 00ff, {} with mark=\"1\" room removed");
        let long = told(&text(&"x".repeat(100_000)));
        assert!(long.len() < 1100 && long.ends_with("..."), "{}", long.len());
        let late = beside(&text(&format!("{:2000}a", "")), &text(&format!("{:2000}b", "")));
        assert!(late.new.ends_with("... (they differ at byte 2000)"), "{}", late.new);
        let secret = text("say s3cret").difference(&text("a"), None, |text| text.replace("s3cret", "***"));
        assert_eq!(secret.old, "say ***");
    }
}
