//! `tidemill plugin run --diff`: two plugins on the same input, and where what they make of it differs.

use super::single::{ReadyPlugin, next_messages, prepare_beside};
use crate::cli::{Exit, answer, answered};
use crate::foreign_text;
use crate::message::Message;
use crate::pipeline::{Compared, ComparedInput, SideBySide};
use crate::source::{Fill, Source};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

/// What was counted: the same and different, of messages and of what else was compared.
#[derive(Default)]
struct DiffCounts {
    same: u64,
    different: u64,
    others: u64,
}

/// Runs the plugin and the other on all that comes from a source, and shows what differs.
///
/// # Errors
/// How the command ends, and why.
pub(super) async fn diff(
    (file, plugin): (&Path, ReadyPlugin),
    other: &Path,
    mut source: Source,
) -> Result<Exit, (Exit, String)> {
    let beside = prepare_beside(&plugin, other).await?;
    let (transform, setup, instances) = plugin;
    let instance = instances.into_iter().next().expect("a plugin that is run alone has one instance");
    let mut sides = SideBySide::new(&transform, (setup, instance), beside);
    let mut counts = DiffCounts::default();
    let mut text = format!("--- {}\n+++ {}\n", file.display(), other.display());
    loop {
        let (batch, fill) = next_messages(&mut source).await;
        for message in &batch {
            for compared in sides.see(message).await {
                counts.add(&compared);
                show(&compared, &counts, Some(message), &mut text);
            }
        }
        let has_ended = match fill {
            Fill::More | Fill::Drained => false,
            Fill::Ended => true,
            Fill::Failed(error) => return Err((Exit::Failure, error)),
        };
        if has_ended {
            let compared = sides.finish().await;
            counts.add(&compared);
            show(&compared, &counts, None, &mut text);
            text.push_str(&counts.told());
            return Ok(answer(&text, counts.exit()));
        }
        // As soon as it is known, for the input may be one that somebody types.
        if counts.exit() == Exit::Failure {
            let mut stdout = io::stdout().lock();
            if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
                return Ok(answered(Err(error), Exit::Failure));
            }
            text.clear();
        }
    }
}

impl DiffCounts {
    fn add(&mut self, compared: &Compared) {
        match (compared.input, &compared.difference) {
            (ComparedInput::Message, None) => self.same += 1,
            (ComparedInput::Message, Some(_)) => self.different += 1,
            (_, None) => {}
            (_, Some(_)) => self.others += 1,
        }
    }

    fn exit(&self) -> Exit {
        if self.different + self.others == 0 { Exit::Success } else { Exit::Failure }
    }

    fn told(&self) -> String {
        let Self { same, different, others } = self;
        let beside = if *others == 0 { String::new() } else { format!(", and {others} beside messages") };
        format!("{} messages: {same} the same, {different} different{beside}\n", same + different)
    }
}

/// Shows a difference, if there is one.
fn show(compared: &Compared, counts: &DiffCounts, message: Option<&Message>, text: &mut String) {
    let Some(difference) = &compared.difference else { return };
    let input = match compared.input {
        ComparedInput::Message => {
            let payload = message.map(|message| String::from_utf8_lossy(message.payload.as_bytes()));
            let payload = foreign_text::shown(&payload.unwrap_or_default());
            format!("message {}: {payload}", counts.same + counts.different)
        }
        ComparedInput::Tick(at_us) => format!("timer at {}.{:06}", at_us / 1_000_000, at_us % 1_000_000),
        ComparedInput::End => "end".to_owned(),
    };
    // Writing to a string does not fail.
    let _ = write!(text, "{input}\n- {}\n+ {}\n", difference.old, difference.new);
}
