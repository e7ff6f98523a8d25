//! `cargo xtask plugin-costs`: what each shipped plugin takes for a message of the demo's recording.
//!
//! Each is measured by `tidemill plugin bench`, one after the other, and so with all that a host does around a call.
//! What reads no JSON of an exchange is given what its counterpart makes of the recording.
#![expect(clippy::print_stdout, reason = "the table is what the command is for")]

use crate::bench::write_between_markers;
use crate::builtin::RECORDING;
use crate::plugins;
use crate::tools::{Result, cargo, root, run, say, target};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A key for `encrypt` and `decrypt`, which keeps nothing secret.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// One of so many messages may be rejected: the answers to subscriptions are other than the rest.
const MOST_REJECTED: u64 = 100;

/// What is measured, and where the result goes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only plugins whose name contains this; may be given several times.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Put the table into docs/plugins.md.
    #[arg(long, conflicts_with = "only")]
    write: bool,
}

/// A plugin, how it is configured, and what it is given.
struct Case {
    plugin: &'static str,
    /// What stands behind the name, where a plugin is measured in several ways.
    way: &'static str,
    config: Value,
    /// The plugin, with its configuration, that makes the messages of the recording.
    made_by: Option<(&'static str, Value)>,
}

/// Measures, and prints a table in Markdown.
///
/// # Errors
/// Something does not build, or a plugin cannot be measured.
pub(crate) fn measure(args: &Args) -> Result {
    let plugins = target().join("plugins");
    plugins::build(&plugins)?;
    say("building the host; the first time this compiles wasmtime, which takes some minutes");
    // A package built alone would want the dependencies with other features.
    run(cargo().args(["build", "--release", "--workspace", "--bin", "tidemill"]))?;
    let site = Site { host: target().join("release/tidemill"), plugins, work: target().join("plugin-costs") };
    fs::create_dir_all(&site.work)?;
    let mut table = "| plugin | messages/s | ns at 1 | at 16 | at 256 |\n|---|--:|--:|--:|--:|\n".to_owned();
    for case in cases() {
        if args.only.is_empty() || args.only.iter().any(|only| case.plugin.contains(only.as_str())) {
            say(&format!("{} {}", case.plugin, case.config));
            site.measure(&case, &mut table)?;
        }
    }
    let table = table.trim_end();
    println!("{table}");
    if args.write {
        write_between_markers(&root().join("docs/plugins.md"), table)?;
    }
    Ok(())
}

/// Each plugin with a configuration that gives it something to do with most messages of the recording.
fn cases() -> Vec<Case> {
    let csv = json!({ "columns": ["/data/T", "/data/s", "/data/p", "/data/q"] });
    let throttle = json!({ "max": 10, "per": "1s", "key": "/data/s" });
    let latest = json!({ "max": 10, "per": "1s", "key": "/data/s", "when_over": "latest" });
    let edits = json!({
        "let": { "price": "/data/p", "qty": "/data/q" }, "compute": { "/notional": "price * qty" },
        "drop": ["/data/M"],
    });
    let window = json!({
        "key": { "symbol": "/data/s" }, "time": "/data/T",
        "aggregates": {
            "volume": { "op": "sum", "field": "/data/q" },
            "vwap": { "op": "vwap", "field": "/data/p", "weight": "/data/q" },
        },
    });
    let table = "symbol,name\nBTCUSDT,Bitcoin\nETHUSDT,Ether\n";
    let json_columns = json!({ "columns": ["time", "symbol", "price", "quantity"], "types": "infer" });
    let case = |plugin, way, config| Case { plugin, way, config, made_by: None };
    vec![
        case("forward", "", json!({})),
        case("filter", "", json!({})),
        case("demux", "", json!({ "outputs": { "btcusdt@trade": "btc", "ethusdt@trade": "eth" } })),
        case("demux", "unwrap", json!({ "outputs": { "other": "other" }, "unwrap": "/data" })),
        case("enrich", "", json!({ "by": "/data/s", "table": table })),
        case("window", "", window),
        case("vwap", "", json!({})),
        case("gap", "", json!({ "sequence": "/data/t", "key": "/data/s" })),
        case("map", "compute, drop", edits),
        case("map", "unwrap, rename", json!({ "unwrap": "/data", "rename": { "/s": "/symbol" } })),
        case("dedupe", "", json!({ "by": ["/data/u", "/data/t"] })),
        case("sample", "", json!({ "key": "/data/s" })),
        case("throttle", "drop", throttle),
        case("throttle", "latest", latest),
        case("redact", "a field", json!({ "fields": ["/data/q"] })),
        case("redact", "a pattern", json!({ "patterns": ["[0-9]{5}[.]"] })),
        case("encrypt", "a field", json!({ "key": KEY, "fields": ["/data/s"] })),
        case("encrypt", "payloads", json!({ "key": KEY })),
        Case {
            made_by: Some(("encrypt", json!({ "key": KEY }))),
            ..case("decrypt", "payloads", json!({ "key": KEY }))
        },
        case("csv", "", csv.clone()),
        Case { made_by: Some(("csv", csv)), ..case("json", "", json_columns) },
        case("notional", "", json!({ "price": "/data/p", "quantity": "/data/q" })),
    ]
}

/// Where things are.
struct Site {
    host: PathBuf,
    plugins: PathBuf,
    work: PathBuf,
}

impl Site {
    /// Measures a plugin, and appends its row.
    fn measure(&self, case: &Case, table: &mut String) -> Result {
        let input = match &case.made_by {
            None => root().join(RECORDING),
            Some((plugin, config)) => self.messages_of(plugin, config)?,
        };
        let mut bench = Command::new(&self.host);
        bench.args(["plugin", "bench", "--json"]).arg(self.plugin(case.plugin));
        bench.arg("--input").arg(input).args(["--config", &case.config.to_string()]);
        let output = bench.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("{} could not be measured", case.plugin).into());
        }
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        let measured = &answer["plugins"][0];
        let way = if case.way.is_empty() { String::new() } else { format!(" ({})", case.way) };
        let number =
            |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
        write!(table, "| `{}`{way} | {}", case.plugin, number(&measured["messages_per_second"]))?;
        for batch in ["1", "16", "256"] {
            write!(table, " | {}", number(&measured["ns_per_message"][batch]))?;
        }
        table.push_str(" |\n");
        let count = |name: &str| measured["outcome"][name].as_u64().unwrap_or_default();
        let (rejected, all) = (count("rejected"), count("messages"));
        if rejected > all / MOST_REJECTED {
            return Err(format!("{} rejected {rejected} of {all} messages", case.plugin).into());
        }
        Ok(())
    }

    /// What a plugin makes of the recording, as a file of lines.
    fn messages_of(&self, plugin: &str, config: &Value) -> Result<PathBuf> {
        let file = self.work.join(format!("{plugin}.jsonl"));
        let mut unpack = Command::new("gzip");
        let unpack = unpack.arg("-dc").arg(root().join(RECORDING)).stdout(Stdio::piped()).spawn();
        let mut unpack = unpack.map_err(|error| format!("failed to run gzip: {error}"))?;
        let messages = unpack.stdout.take().ok_or("gzip has no output")?;
        let mut host = Command::new(&self.host);
        host.args(["plugin", "run", "--format", "recording"]).arg(self.plugin(plugin));
        host.args(["--config", &config.to_string()]).stdin(messages).stdout(File::create(&file)?);
        run(&mut host)?;
        match unpack.wait()?.success() {
            true => Ok(file),
            false => Err("gzip failed".into()),
        }
    }

    fn plugin(&self, name: &str) -> PathBuf {
        self.plugins.join(Path::new(name).with_extension("wasm"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_shipped_plugin_is_measured() {
        let folders = fs::read_dir(root().join("plugins"))
            .expect("it is there")
            .map(|entry| entry.expect("it is read"));
        let shipped: BTreeSet<_> = folders
            .filter(|folder| folder.path().join("Cargo.toml").is_file())
            .map(|folder| folder.file_name().to_string_lossy().into_owned())
            .collect();
        let measured: BTreeSet<_> = cases().into_iter().map(|case| case.plugin.to_owned()).collect();
        assert_eq!(measured, shipped);
    }
}
