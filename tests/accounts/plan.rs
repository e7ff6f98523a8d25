//! What is sent, and what must become of it: each message says what each stage is to do with it.

use std::collections::BTreeMap;
use std::ops::Range;
use tokio_tungstenite::tungstenite::Message;

/// The transforms, in their order.
pub(crate) const STAGES: [&str; 2] = ["a", "b"];
/// Messages are at least so long, so that few of them fit a socket's buffer.
const PADDING: Range<usize> = 100..400;
/// Of how many messages one makes its stage run into its deadline. Each costs a deadline at every
/// halving of its batch.
const RARITY_OF_SPINS: usize = 2500;
const RARITY_OF_TRAPS: usize = 300;
const RARITY_OF_FLOODS: usize = 600;

/// What a stage does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Pass,
    Filter,
    Both,
    Emit2,
    Emit3,
    Side,
    Reject,
    Trap,
    Spin,
    Flood,
}

impl Word {
    fn any(rng: &mut fastrand::Rng) -> Self {
        match () {
            () if rng.usize(..RARITY_OF_SPINS) == 0 => return Self::Spin,
            () if rng.usize(..RARITY_OF_TRAPS) == 0 => return Self::Trap,
            () if rng.usize(..RARITY_OF_FLOODS) == 0 => return Self::Flood,
            () => {}
        }
        match rng.u32(..100) {
            0..6 => Self::Filter,
            6..10 => Self::Both,
            10..14 => Self::Emit2,
            14..16 => Self::Emit3,
            16..18 => Self::Side,
            18..21 => Self::Reject,
            _ => Self::Pass,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Filter => "filter",
            Self::Both => "both",
            Self::Emit2 => "emit2",
            Self::Emit3 => "emit3",
            Self::Side => "side",
            Self::Reject => "reject",
            Self::Trap => "trap",
            Self::Spin => "spin",
            Self::Flood => "flood",
        }
    }

    /// The reason under which a message fails, if it does.
    fn failure(self) -> Option<&'static str> {
        match self {
            Self::Reject => Some("rejected"),
            Self::Trap => Some("trap"),
            Self::Spin => Some("deadline"),
            Self::Flood => Some("output"),
            _ => None,
        }
    }
}

/// What the second stage does with a message that fails there; the first makes dead letters of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnError {
    DeadLetter,
    Drop,
    Pass,
}

impl OnError {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::DeadLetter => "dead_letter",
            Self::Drop => "drop",
            Self::Pass => "pass",
        }
    }
}

/// A dead letter: stage, reason, and the id of the message.
pub(crate) type Letter = (String, String, String);

/// What becomes of one message.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    /// What reaches each sink, in order.
    pub(crate) outputs: Vec<String>,
    /// What ends among the dead letters before the sinks.
    pub(crate) letters: Vec<Letter>,
    /// What is only counted: filtered by a stage, or dropped there for a reason.
    pub(crate) counted: Vec<(&'static str, &'static str)>,
}

impl Fate {
    /// Whether it leaves a trace by which it can be told that it was received.
    pub(crate) fn is_visible(&self) -> bool {
        !self.outputs.is_empty() || !self.letters.is_empty()
    }
}

/// How often something is only counted, by stage and reason or `filtered`.
pub(crate) type Tally = BTreeMap<(&'static str, &'static str), u64>;

/// Every message sent so far.
#[derive(Debug)]
pub(crate) struct Plan {
    on_error: OnError,
    /// By their ids; `None` is no text, which the source's codec refuses.
    words: Vec<Option<[Word; 2]>>,
}

impl Plan {
    pub(crate) fn new(on_error: OnError) -> Self {
        Self { on_error, words: Vec::new() }
    }

    /// The next message, drawn.
    pub(crate) fn any(&mut self, rng: &mut fastrand::Rng) -> (u64, Message) {
        if rng.usize(..200) == 0 {
            let id = self.words.len();
            self.words.push(None);
            let mut garbage = vec![0xff, b' '];
            garbage.extend_from_slice(id.to_string().as_bytes());
            return (id as u64, Message::binary(garbage));
        }
        let words = [Word::any(rng), Word::any(rng)];
        self.next(words, rng.usize(PADDING))
    }

    /// The next message, with these words.
    pub(crate) fn next(&mut self, words: [Word; 2], padding: usize) -> (u64, Message) {
        let id = self.words.len();
        self.words.push(Some(words));
        let [a, b] = words.map(Word::as_str);
        let text = format!("{id} {a} {b} {:x<padding$}", "");
        (id as u64, Message::text(text))
    }

    /// What must become of a message.
    pub(crate) fn fate(&self, id: u64) -> Fate {
        let mut fate = Fate::default();
        let Some([first, second]) = self.words[id as usize] else {
            fate.letters.push(("source".into(), "decode".into(), id.to_string()));
            return fate;
        };
        let mut between = Vec::new();
        through(0, first, OnError::DeadLetter, &id.to_string(), &mut between, &mut fate);
        let mut outputs = Vec::new();
        for id in between {
            through(1, second, self.on_error, &id, &mut outputs, &mut fate);
        }
        fate.outputs = outputs;
        fate
    }
}

/// Puts one message through a stage.
fn through(stage: usize, word: Word, on_error: OnError, id: &str, out: &mut Vec<String>, fate: &mut Fate) {
    let letter = ["a", "b"][stage];
    let emissions = |count: usize| (0..count).map(move |n| format!("{id}.{letter}{n}"));
    match word {
        Word::Pass => out.push(id.to_owned()),
        Word::Filter => fate.counted.push((STAGES[stage], "filtered")),
        Word::Both => {
            out.push(id.to_owned());
            out.extend(emissions(1));
        }
        Word::Emit2 => out.extend(emissions(2)),
        Word::Emit3 => out.extend(emissions(3)),
        // Sinks take all outputs of the last transform; of the first, only the default one goes on.
        Word::Side if stage == 0 => fate.counted.push((STAGES[stage], "no_output")),
        Word::Side => out.push(id.to_owned()),
        Word::Reject | Word::Trap | Word::Spin | Word::Flood => {
            let reason = word.failure().expect("these fail");
            match on_error {
                OnError::DeadLetter => {
                    fate.letters.push((STAGES[stage].into(), reason.into(), id.to_owned()));
                }
                OnError::Drop => fate.counted.push((STAGES[stage], reason)),
                OnError::Pass => out.push(id.to_owned()),
            }
        }
    }
}
