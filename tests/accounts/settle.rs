//! The end: everything sent is where it must be, once.
//!
//! What was written to a connection of the source must have arrived whole where the source's server
//! left in order while the pipeline ran. Of any other connection (reset, or the pipeline stopped
//! reading) it is the messages up to some point, and none after it. What waited in a stage whose circuit was
//! open when the pipeline stopped is gone, and counted under `shutdown`: where that happened, as many may be
//! missing.
//!
//! The dialled sink has an allowance for each connection that it lost: what was not flushed is sent
//! again, so up to as many messages may come twice; what the kernels of both sides still held may be
//! gone. The other sinks have none.

use crate::ends::{RECEIVE_BYTES, Written, id, locked};
use crate::plan::{Fate, Letter, Tally, Word};
use crate::rule::{SINKS, Scrape};
use crate::schedule::Run;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemill_tests::host::PATIENCE;

/// Most messages that a dialled sink hands to its connection before it waits for a flush.
const UNFLUSHED_MESSAGES: u64 = 1024;
/// What the kernels of a dialled sink and of its peer hold together, as Linux counts it (twice what was
/// asked for), and the read buffer of the peer.
const SWALLOWED_BYTES: u64 = 2 * (128 << 10) + 2 * RECEIVE_BYTES as u64 + (128 << 10);
/// The shortest message that is not part of a storm.
const SHORTEST_MESSAGE_BYTES: u64 = 100;
/// Most messages that come of one in both stages.
const MOST_OUTPUTS: u64 = 9;
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// How many of each there are.
type Bag<T> = HashMap<T, u64>;

fn bag<T: std::hash::Hash + Eq>(all: impl IntoIterator<Item = T>) -> Bag<T> {
    let mut bag = Bag::new();
    for each in all {
        *bag.entry(each).or_default() += 1;
    }
    bag
}

/// What must be found, and what may.
#[derive(Default)]
struct Expected {
    outputs: Vec<String>,
    letters: Vec<Letter>,
    received: u64,
    counted: Tally,
    /// Messages without a trace at the end of a connection that was not whole: received or not.
    untold: u64,
    /// What stops cut off.
    cut_off: u64,
    may_be_counted: Tally,
}

impl Run {
    /// Waits until nothing moves any more, stops the host, and looks at everything.
    pub(crate) async fn settle(mut self) {
        self.calm_down().await;
        self.retrying_is_over().await;
        let last = self.plan.next([Word::Pass, Word::Pass], 200);
        let marker = last.0.to_string();
        self.producer.send(last);
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.scrape();
            let collected = locked(&self.collector.log).ids.iter().rev().any(|id| *id == marker);
            let served = locked(&self.steady.log).iter().flatten().any(|id| *id == marker);
            let metrics = tokio::task::block_in_place(|| self.host.metrics());
            let retries = ["rejected", "trap", "output", "sink_unavailable"];
            let waits = |reason| self.letters_kept(reason).iter().any(|letter| letter["waiting"] == true);
            let moves = Scrape::read(&metrics.text).in_flight() != 0 || retries.into_iter().any(waits);
            if collected && served && !moves {
                break;
            }
            if metrics.sum("tidemill_plugin_paused", &[]) > 0.0 {
                self.have_good_version();
            }
            if Instant::now() > deadline {
                let what = format!("at the sink: {collected}, at the peer: {served}, in flight: {moves}");
                self.fail(&format!("the last message does not arrive: {what}\n{}", metrics.text));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        self.scrape();
        let page = tokio::task::block_in_place(|| self.host.metrics()).text;
        let scrape = Scrape::read(&page);
        let mut wrong = Vec::new();
        let letters = self.letters(&mut wrong);
        let filed = self.filed();
        let given_up = given_up(&scrape);
        let traces: Vec<_> = letters.iter().map(|(letter, _)| letter.clone()).collect();
        let expected = self.expected(&filed, &traces, given_up > 0);
        check_counts(&scrape, &expected, &letters, &mut wrong);
        let letters: Vec<Letter> =
            letters.into_iter().filter(|(_, retried)| *retried == 0).map(|(letter, _)| letter).collect();
        let position: HashMap<&str, usize> =
            expected.outputs.iter().enumerate().map(|(n, id)| (id.as_str(), n)).collect();
        // The file: everything, once, in order.
        differences("the file", &bag(expected.outputs.iter()), &bag(filed.iter()), &mut wrong);
        let places: Vec<_> = filed.iter().filter_map(|id| position.get(id.as_str())).collect();
        if !places.is_sorted() {
            wrong.push("the file is out of order".into());
        }
        let (at_sinks, before): (Vec<Letter>, Vec<Letter>) =
            letters.into_iter().partition(|(stage, ..)| SINKS.contains(&stage.as_str()));
        differences("the dead letters", &bag(expected.letters.iter()), &bag(before.iter()), &mut wrong);
        self.check_dialled(&scrape, &expected, &at_sinks, &mut wrong);
        self.check_peers(&expected, &position, &mut wrong);
        if !wrong.is_empty() {
            self.fail(&format!("at the end:\n  {}\n{page}", wrong.join("\n  ")));
        }
        report(&scrape, &self);
        let ended = Arc::into_inner(self.host).expect("nobody else asks it any more").stop();
        assert!(ended.status.success(), "seed {}: {:?}\n{}", self.seed, ended.status, ended.log);
    }

    /// The ids in the file.
    fn filed(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path("out.jsonl")).unwrap();
        text.lines().map(id).collect()
    }

    /// The dead letters, each with how often its message was retried before. A message that fails after each retry
    /// has a letter for each.
    fn letters(&self, wrong: &mut Vec<String>) -> Vec<(Letter, u64)> {
        let text = std::fs::read_to_string(self.folder.path("dead.jsonl")).unwrap_or_default();
        let letter = |line: &str| {
            let letter: serde_json::Value = serde_json::from_str(line)
                .unwrap_or_else(|error| self.fail(&format!("no dead letter: {error}: {line}")));
            let text = |key: &str| letter[key].as_str().unwrap_or_default().to_owned();
            let payload = match letter["payload_base64"].as_str() {
                // A byte that is no text, a space, the id.
                Some(packed) => String::from_utf8_lossy(&BASE64_STANDARD.decode(packed).unwrap()[2..]).into(),
                None => text("payload"),
            };
            let retried =
                letter["metadata"]["__meta_retried"].as_str().map_or(0, |count| count.parse().unwrap());
            ((text("stage"), text("reason"), id(&payload)), retried)
        };
        let all: Vec<_> = text.lines().map(letter).collect();
        let set: HashSet<_> = all.iter().collect();
        if set.len() != all.len() {
            wrong.push(format!("{} dead letters are there twice", all.len() - set.len()));
        }
        let is_first =
            |(letter, retried): &(Letter, u64)| *retried == 0 || set.contains(&(letter.clone(), retried - 1));
        wrong.extend(
            all.iter().filter(|each| !is_first(each)).map(|each| format!("no letter before {each:?}")),
        );
        all
    }

    fn expected(&self, filed: &[String], letters: &[Letter], is_any_given_up: bool) -> Expected {
        let traces = filed.iter().chain(letters.iter().map(|(.., id)| id));
        let seen: HashSet<u64> =
            traces.filter_map(|id| id.split('.').next().and_then(|root| root.parse().ok())).collect();
        let in_file: HashSet<&str> = filed.iter().map(String::as_str).collect();
        let in_letters: HashSet<&Letter> = letters.iter().collect();
        let mut expected = Expected::default();
        for Written { ids, is_whole } in locked(&self.producer.log).iter() {
            let seen = ids.clone().rev().find(|id| seen.contains(id)).map_or(ids.start, |last| last + 1);
            let told = if *is_whole && !is_any_given_up { ids.end } else { seen };
            for id in ids.start..told {
                let mut fate = self.plan.fate(id);
                if is_any_given_up {
                    expected.cut_off += cut_off(&mut fate, &in_file, &in_letters);
                }
                expected.outputs.extend(fate.outputs);
                expected.letters.extend(fate.letters);
                for what in fate.counted {
                    *expected.counted.entry(what).or_default() += 1;
                }
            }
            let rest = (told..ids.end).map(|id| self.plan.fate(id));
            let untold: Vec<_> = rest.take_while(|fate| !fate.is_visible()).collect();
            let invisible = untold.len() as u64;
            for what in untold.into_iter().flat_map(|fate| fate.counted) {
                *expected.may_be_counted.entry(what).or_default() += 1;
            }
            if *is_whole {
                expected.received += ids.end - ids.start;
                expected.cut_off += ids.end - told - invisible;
            } else {
                expected.received += told - ids.start;
                expected.untold += invisible;
            }
        }
        expected
    }

    fn check_dialled(
        &self,
        scrape: &Scrape<'_>,
        expected: &Expected,
        letters: &[Letter],
        wrong: &mut Vec<String>,
    ) {
        let collected = locked(&self.collector.log);
        let lost_connections = collected.connections.saturating_sub(1);
        let at = bag(collected.ids.iter().map(String::as_str));
        let dead = bag(letters.iter().map(|(.., id)| id.as_str()));
        let outputs: HashSet<&str> = expected.outputs.iter().map(String::as_str).collect();
        let strangers = at.keys().chain(dead.keys()).filter(|id| !outputs.contains(*id));
        wrong.extend(strangers.map(|id| format!("the dialled sink has {id}, which is nowhere else")));
        let odd = letters
            .iter()
            .filter(|(stage, reason, _)| (&**stage, &**reason) != ("dialled", "sink_unavailable"));
        wrong.extend(odd.map(|letter| format!("an odd dead letter: {letter:?}")));
        let twice = at.values().map(|count| count - 1).sum::<u64>()
            + outputs
                .iter()
                .filter(|id| at.contains_key(*id) && dead.contains_key(*id))
                .filter(|id| !self.retried_to_sink.contains(**id))
                .count() as u64;
        if twice > lost_connections * UNFLUSHED_MESSAGES {
            wrong.push(format!("{twice} came twice to the dialled sink, with {lost_connections} losses"));
        }
        let missing = outputs.iter().filter(|id| !at.contains_key(*id) && !dead.contains_key(*id)).count();
        let dropped = scrape.all_dropped("dialled") as u64;
        let swallowed = (missing as u64).saturating_sub(dropped);
        if swallowed > lost_connections * (SWALLOWED_BYTES / SHORTEST_MESSAGE_BYTES) {
            wrong
                .push(format!("{swallowed} are missing at the dialled sink, with {lost_connections} losses"));
        }
        let many = dead.values().filter(|count| **count > 1).count();
        if many > 0 {
            wrong.push(format!("the dead letters of the dialled sink: {}, {many} of them twice", dead.len()));
        }
    }

    /// Each peer of the server sink got what it got once and in order; the one that stays got all.
    fn check_peers(&self, expected: &Expected, position: &HashMap<&str, usize>, wrong: &mut Vec<String>) {
        let steady: Vec<String> = locked(&self.steady.log).iter().flatten().cloned().collect();
        differences("the peer that stays", &bag(expected.outputs.iter()), &bag(steady.iter()), wrong);
        for (n, peer) in self.wild.iter().chain([&self.steady]).enumerate() {
            for connection in locked(&peer.log).iter() {
                let places: Vec<_> = connection.iter().map(|id| position.get(id.as_str())).collect();
                if !places.is_sorted_by(|a, b| a.is_some() && a < b) {
                    wrong.push(format!("peer {n} got a message twice, out of order, or one that nobody has"));
                }
            }
        }
    }
}

fn check_counts(
    scrape: &Scrape<'_>,
    expected: &Expected,
    letters: &[(Letter, u64)],
    wrong: &mut Vec<String>,
) {
    let given_up = given_up(scrape);
    if expected.cut_off > given_up * MOST_OUTPUTS {
        let cut_off = expected.cut_off;
        wrong.push(format!("{cut_off} are missing, {given_up} were given up by stops"));
    }
    let mut within = |what: String, found: i64, least: u64, more: u64| {
        if found < least as i64 || found > (least + more) as i64 {
            wrong.push(format!("{what}: {found} are counted, {least} to {} happened", least + more));
        }
    };
    within("received".into(), scrape.received(), expected.received, expected.untold + given_up);
    let kinds = expected.counted.keys().chain(expected.may_be_counted.keys()).collect::<HashSet<_>>();
    for kind @ (stage, what) in kinds {
        let found = match *what {
            "filtered" => scrape.of_stage("tidemill_messages_filtered_total", stage),
            reason => scrape.dropped(stage, reason),
        };
        let times = |tally: &Tally| tally.get(kind).copied().unwrap_or(0);
        let least = times(&expected.counted).saturating_sub(given_up);
        within(format!("{stage} {what}"), found, least, times(&expected.may_be_counted) + given_up);
    }
    let outputs = expected.outputs.len() as u64;
    within("delivered to the file".into(), scrape.delivered("filed"), outputs, 0);
    within("delivered to peers".into(), scrape.delivered("served"), outputs, 0);
    // That these are the right ones is looked at elsewhere.
    let mut written: BTreeMap<&str, u64> = BTreeMap::new();
    for ((stage, ..), _) in letters {
        *written.entry(stage).or_default() += 1;
    }
    for (stage, count) in written {
        within(format!("dead-lettered at {stage}"), scrape.dead_lettered(stage), count, 0);
    }
    let of_all = scrape.sum("tidemill_messages_dead_lettered_total", &[]);
    within("written dead letters".into(), scrape.delivered("dead_letter"), of_all as u64, 0);
}

/// What stops cut off before the sinks.
fn given_up(scrape: &Scrape<'_>) -> u64 {
    ["source", "a", "b"].iter().map(|stage| scrape.dropped(stage, "shutdown") as u64).sum()
}

/// Takes out of a fate what did not come about, and says how much that was.
fn cut_off(fate: &mut Fate, in_file: &HashSet<&str>, in_letters: &HashSet<&Letter>) -> u64 {
    let before = fate.outputs.len() + fate.letters.len();
    fate.outputs.retain(|id| in_file.contains(id.as_str()));
    fate.letters.retain(|letter| in_letters.contains(letter));
    (before - fate.outputs.len() - fate.letters.len()) as u64
}

/// What is missing in a place, and what is too much there.
fn differences<T: std::hash::Hash + Eq + std::fmt::Debug>(
    place: &str,
    expected: &Bag<T>,
    found: &Bag<T>,
    wrong: &mut Vec<String>,
) {
    const TOLD: usize = 10;
    let of = |bag: &Bag<T>, each: &T| bag.get(each).copied().unwrap_or(0);
    let missing: Vec<_> = expected.iter().filter(|(each, count)| of(found, each) < **count).collect();
    let surplus: Vec<_> = found.iter().filter(|(each, count)| of(expected, each) < **count).collect();
    if !missing.is_empty() {
        let some = &missing[..missing.len().min(TOLD)];
        wrong.push(format!("{} are missing in {place}, such as {some:?}", missing.len()));
    }
    if !surplus.is_empty() {
        let some = &surplus[..surplus.len().min(TOLD)];
        wrong.push(format!("{} are too many in {place}, such as {some:?}", surplus.len()));
    }
}

#[expect(clippy::print_stdout, reason = "figures for whoever asks for the output")]
fn report(scrape: &Scrape<'_>, run: &Run) {
    let swaps = |outcome| scrape.sum("tidemill_plugin_swaps_total", &[("outcome", outcome)]);
    println!(
        "seed {}, {} instances at the end: {} messages, {} scrapes, {} swaps, {} refused, {} put back",
        run.seed,
        run.configured.instances.iter().sum::<usize>(),
        scrape.received(),
        run.scrapes,
        swaps("swapped"),
        swaps("rejected"),
        swaps("rolled_back"),
    );
}
