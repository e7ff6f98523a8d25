//! `tidemill plugin bench`: what a plugin takes for a message of a file, and what its instance and its start take,
//! beside the plugin `forward`, which does nothing.

mod measuring;

use super::component;
use super::single::{AlonePlugin, PluginOptions, next_messages, read};
use crate::builtin;
use crate::cli::replay::Recording;
use crate::cli::table::table;
use crate::cli::{Exit, answer, block_on, complain, tell};
use crate::message::Message;
use crate::plugin::version_of;
use crate::shutdown::Shutdown;
use crate::source::Fill;
use crate::telemetry::Metrics;
use measuring::{BATCHES, Measured, Subject, measure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is read of the input: enough for every plugin to show what it does, and no more than fits into memory.
const MOST_MESSAGES: usize = 1 << 16;
const MOST_BYTES: usize = 256 << 20;
/// The plugin that each is compared with.
const COMPARED_WITH: &str = "forward";

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PluginBench {
    /// The plugin: a `.wasm` file, the folder of one, or the name of one that is built in.
    #[arg(value_name = "PLUGIN")]
    file: PathBuf,
    /// The messages: a recording, or a file with one a line; `.gz` is understood.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    #[command(flatten)]
    options: PluginOptions,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// What a plugin is measured with.
struct BenchInput {
    messages: Vec<Message>,
    /// They have times of their own.
    is_recording: bool,
    /// There are more in the file.
    is_cut: bool,
}

impl PluginBench {
    pub(super) fn execute(self) -> Exit {
        block_on(|shutdown| async move {
            match Box::pin(self.run(&shutdown)).await {
                Ok(exit) => exit,
                Err((exit, error)) => {
                    complain(error);
                    exit
                }
            }
        })
    }

    async fn run(&self, shutdown: &Shutdown) -> Result<Exit, (Exit, String)> {
        tokio::select! {
            biased;
            () = shutdown.requested() => Ok(Exit::Interrupted),
            measured = self.measure() => {
                let (input, measured) = measured?;
                let text = if self.json { self.as_json(&input, &measured) } else { self.as_text(&input, &measured) };
                Ok(answer(&text, Exit::Success))
            }
        }
    }

    async fn measure(&self) -> Result<(BenchInput, Vec<Measured>), (Exit, String)> {
        let failed = |error: String| (Exit::Failure, error);
        // What is typed wrong is told before a file is looked for.
        let name = component::name(&self.file);
        self.options.transform(&name).map_err(|error| (Exit::Usage, error))?;
        let input = BenchInput::read(&self.input).await;
        let input =
            input.map_err(|error| failed(format!("failed to read {}: {error}", self.input.display())))?;
        if input.messages.is_empty() {
            return Err(failed(format!("there is no message in {}", self.input.display())));
        }
        let wasm = read(&self.file).await.map_err(failed)?;
        let mut subjects = vec![subject(&name, wasm, &self.options).await?];
        match builtin::plugin(COMPARED_WITH) {
            Some(wasm) => {
                let name = format!("{COMPARED_WITH} (built in)");
                subjects.push(subject(&name, wasm.to_vec(), &PluginOptions::default()).await?);
            }
            None => tell(format!(
                "there is no row `{COMPARED_WITH}`: {}\n",
                builtin::hint().unwrap_or("it is not built in")
            )),
        }
        let measured = measure(subjects, &input.messages, input.is_recording).await.map_err(failed)?;
        Ok((input, measured))
    }

    fn as_text(&self, input: &BenchInput, measured: &[Measured]) -> String {
        let head = ["plugin", "messages/s", "ns at 1", "at 16", "at 256", "memory", "compile", "instantiate"];
        let rows = measured.iter().map(|measured| {
            let [one, some, many] = measured.ns_per_message.map(shown_ns);
            [
                measured.name.clone(),
                grouped(measured.messages_per_second()),
                one,
                some,
                many,
                format!("{:.1} MiB", measured.memory_bytes as f64 / f64::from(1 << 20)),
                shown_ms(measured.compile),
                shown_ms(measured.instantiate),
            ]
        });
        let mut text = table(head, rows);
        let cut = if input.is_cut { "the first " } else { "" };
        let counts = &measured[0].counts;
        text.push_str(&format!(
            "\n{cut}{} messages of {}; of {} that {} was given it forwarded {}, rejected {} and put off {}, and it emitted {}\n",
            grouped(input.messages.len() as u64),
            self.input.display(),
            grouped(counts.messages),
            measured[0].name,
            grouped(counts.forwarded),
            grouped(counts.rejected),
            grouped(counts.put_off),
            grouped(counts.emitted),
        ));
        text
    }

    fn as_json(&self, input: &BenchInput, measured: &[Measured]) -> String {
        let bytes: usize = input.messages.iter().map(|message| message.payload.len()).sum();
        let plugins = measured.iter().map(|measured| {
            let ns = BATCHES.iter().zip(measured.ns_per_message);
            let ns: serde_json::Map<_, _> = ns.map(|(batch, ns)| (batch.to_string(), json!(ns))).collect();
            let counts = &measured.counts;
            json!({
                "name": measured.name,
                "version": measured.version,
                "component_bytes": measured.component_bytes,
                "messages_per_second": measured.messages_per_second(),
                "ns_per_message": ns,
                "memory_bytes": measured.memory_bytes,
                "compile_ms": ms(measured.compile),
                "instantiate_ms": ms(measured.instantiate),
                "outcome": {
                    "messages": counts.messages,
                    "forwarded": counts.forwarded,
                    "rejected": counts.rejected,
                    "put_off": counts.put_off,
                    "emitted": counts.emitted,
                },
            })
        });
        let answer: Value = json!({
            "input": {
                "file": self.input.display().to_string(),
                "messages": input.messages.len(),
                "bytes": bytes,
                "cut": input.is_cut,
            },
            "plugins": plugins.collect::<Vec<_>>(),
        });
        format!("{answer:#}\n")
    }
}

impl BenchInput {
    async fn read(path: &Path) -> Result<Self, String> {
        let recording = Recording::open(path).await.map_err(|error| error.to_string())?;
        let mut source = recording.source().await.map_err(|error| error.to_string())?;
        let mut input = Self { messages: Vec::new(), is_recording: recording.has_times(), is_cut: false };
        let mut bytes = 0;
        loop {
            let (batch, fill) = next_messages(&mut source).await;
            for message in batch {
                bytes += message.payload.len();
                if input.messages.len() == MOST_MESSAGES || bytes > MOST_BYTES {
                    input.is_cut = true;
                    return Ok(input);
                }
                // Without the lines around it.
                input.messages.push(message.detached());
            }
            match fill {
                Fill::More | Fill::Drained => {}
                Fill::Ended => return Ok(input),
                Fill::Failed(error) => return Err(error),
            }
        }
    }
}

/// A plugin that is to be measured: compiled anew, so that it is known how long that takes.
async fn subject(name: &str, wasm: Vec<u8>, options: &PluginOptions) -> Result<Subject, (Exit, String)> {
    let (version, component_bytes) = (version_of(&wasm), wasm.len());
    let plugin = AlonePlugin::load(name, wasm).await.map_err(|error| (Exit::Failure, error))?;
    let (_, setup, instances) = plugin.start(options, &Metrics::default()).await?;
    let instance = instances.into_iter().next().expect("a plugin that is run alone has one instance");
    let plugin = instance.plugin().clone();
    Ok(Subject { name: name.to_owned(), version, component_bytes, plugin, setup })
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn shown_ms(time: Duration) -> String {
    let ms = ms(time);
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

fn shown_ns(ns: f64) -> String {
    if ns < 100.0 { format!("{ns:.1}") } else { grouped(ns.round() as u64) }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_so_that_people_can_read_them() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([9.94, 123.4, 12_345.6].map(shown_ns), ["9.9", "123", "12,346"]);
        let times = [Duration::from_micros(210), Duration::from_millis(1470)].map(shown_ms);
        assert_eq!(times, ["0.21 ms", "1470 ms"]);
    }
}
