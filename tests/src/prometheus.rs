//! What `promtool check metrics` would refuse in a page of metrics, and what a scraper would.
//!
//! The rules are those of the OpenMetrics text format and of Prometheus' own, where they agree: each
//! family once, in one piece, described before its samples; names and labels well-formed; no series
//! twice; counters that only count; histograms whose parts fit together.

use std::collections::{BTreeMap, HashSet};

/// Names and values.
type Labels<'a> = Vec<(&'a str, String)>;

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// Its name, suffixes included.
    pub name: &'a str,
    /// Its labels in their order; values with their escapes read.
    pub labels: Labels<'a>,
    /// Its value.
    pub value: f64,
}

impl Sample<'_> {
    /// The value of a label; "" if it has none.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// A family while its lines come.
#[derive(Default)]
struct Family<'a> {
    name: &'a str,
    kind: Option<&'a str>,
    has_help: bool,
    samples: Vec<Sample<'a>>,
}

/// The samples of a page, which is valid.
///
/// # Errors
/// The first thing wrong with the page, and the line it is in.
pub fn parse(text: &str) -> Result<Vec<Sample<'_>>, String> {
    let mut known = HashSet::new();
    let mut taken = HashSet::new();
    let mut series = HashSet::new();
    let mut family = Family::default();
    let mut samples = Vec::new();
    let mut has_ended = false;
    let body = text.strip_suffix('\n').ok_or("the last line does not end")?;
    for line in body.split('\n') {
        let wrong = |what: String| format!("{what}: {line}");
        if has_ended {
            return Err(wrong("something after # EOF".into()));
        }
        if line == "# EOF" {
            has_ended = true;
            continue;
        }
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (keyword, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let rest = words.next().unwrap_or_default();
            check_name(name).map_err(wrong)?;
            if family.name != name {
                close(std::mem::take(&mut family), &mut taken, &mut samples)?;
                if !known.insert(name) {
                    return Err(wrong(format!("family {name} is described twice")));
                }
                family.name = name;
            }
            if !family.samples.is_empty() {
                return Err(wrong("described after its samples".into()));
            }
            match keyword {
                "HELP" if !std::mem::replace(&mut family.has_help, true) => {}
                "TYPE" if family.kind.is_none() => family.kind = Some(known_kind(rest).map_err(wrong)?),
                "UNIT" if name.ends_with(rest) => {}
                _ => return Err(wrong("an odd description".into())),
            }
            continue;
        }
        let sample = sample(line).map_err(wrong)?;
        if !belongs(&sample, &family) {
            return Err(wrong(format!("a sample among those of family {:?}", family.name)));
        }
        let mut identity = sample.labels.clone();
        identity.sort_unstable();
        if !series.insert((sample.name, identity)) {
            return Err(wrong("a series that was there before".into()));
        }
        family.samples.push(sample);
    }
    close(family, &mut taken, &mut samples)?;
    if has_ended { Ok(samples) } else { Err("no # EOF".into()) }
}

fn known_kind(kind: &str) -> Result<&str, String> {
    match kind {
        "counter" | "gauge" | "histogram" => Ok(kind),
        kind => Err(format!("type {kind}")),
    }
}

/// Whether a sample has one of the names of the family that was described last.
fn belongs(sample: &Sample<'_>, family: &Family<'_>) -> bool {
    let Some(suffix) = sample.name.strip_prefix(family.name) else { return false };
    match family.kind {
        Some("counter") => suffix == "_total",
        Some("gauge") => suffix.is_empty(),
        Some("histogram") => matches!(suffix, "_bucket" | "_sum" | "_count"),
        _ => false,
    }
}

/// Checks a family as a whole, and keeps its samples. `taken` are the names that earlier families may
/// give their samples.
fn close<'a>(
    family: Family<'a>,
    taken: &mut HashSet<String>,
    samples: &mut Vec<Sample<'a>>,
) -> Result<(), String> {
    let Family { name, kind, has_help, samples: own } = family;
    if name.is_empty() {
        return Ok(());
    }
    let suffixes: &[&str] = match kind {
        Some("counter") => &["", "_total", "_created"],
        Some("histogram") => &["", "_bucket", "_sum", "_count", "_created"],
        _ => &[""],
    };
    for suffix in suffixes {
        if !taken.insert(format!("{name}{suffix}")) {
            return Err(format!("{name}{suffix} is a name of two families"));
        }
    }
    if kind.is_none() || !has_help {
        return Err(format!("family {name} lacks its type or its help"));
    }
    if kind == Some("counter")
        && let Some(odd) = own.iter().find(|sample| !(sample.value.is_finite() && sample.value >= 0.0))
    {
        return Err(format!("a counter that does not count: {odd:?}"));
    }
    if kind == Some("gauge")
        && let Some(odd) = own.iter().find(|sample| !sample.value.is_finite())
    {
        return Err(format!("a gauge that shows no number: {odd:?}"));
    }
    if kind == Some("histogram") {
        check_histograms(name, &own)?;
    }
    samples.extend(own);
    Ok(())
}

/// The parts of one histogram: its buckets in their order, its sum and its count.
#[derive(Default)]
struct Histogram {
    buckets: Vec<(f64, f64)>,
    sum: Option<f64>,
    count: Option<f64>,
}

fn check_histograms(name: &str, samples: &[Sample<'_>]) -> Result<(), String> {
    let mut histograms: BTreeMap<Vec<(&str, &str)>, Histogram> = BTreeMap::new();
    for sample in samples {
        let labels = sample.labels.iter().filter(|(label, _)| *label != "le");
        let mut labels: Vec<_> = labels.map(|(label, value)| (*label, value.as_str())).collect();
        labels.sort_unstable();
        let histogram = histograms.entry(labels).or_default();
        match &sample.name[name.len()..] {
            "_sum" => histogram.sum = Some(sample.value),
            "_count" => histogram.count = Some(sample.value),
            _ => {
                let bound = sample.label("le").parse().map_err(|_| format!("no bound: {sample:?}"))?;
                histogram.buckets.push((bound, sample.value));
            }
        }
    }
    for (labels, Histogram { buckets, sum, count }) in histograms {
        let ascends = buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
        let last = buckets.last().copied();
        let is_whole = last.is_some_and(|(bound, all)| bound == f64::INFINITY && Some(all) == count);
        if !ascends || !is_whole || !sum.is_some_and(f64::is_finite) {
            return Err(format!("histogram {name} {labels:?} does not fit together"));
        }
    }
    Ok(())
}

fn sample(line: &str) -> Result<Sample<'_>, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, rest) = line.split_at(end);
    check_name(name)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        value if value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E')) => {
            value.parse().map_err(|_| "a value that is no number")?
        }
        _ => return Err("a value that is no number".into()),
    };
    Ok(Sample { name, labels, value })
}

/// The labels after an opening brace, and what follows the closing one.
fn labels(mut rest: &str) -> Result<(Labels<'_>, &str), String> {
    let mut labels = Labels::new();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok((labels, rest));
        }
        if !labels.is_empty() {
            rest = rest.strip_prefix(',').ok_or("no comma between labels")?;
        }
        let (name, value) = rest.split_once("=\"").ok_or("a label without a value")?;
        let is_letter = |(n, byte): (usize, u8)| {
            byte == b'_' || byte.is_ascii_alphabetic() || n > 0 && byte.is_ascii_digit()
        };
        if name.is_empty() || !name.bytes().enumerate().all(is_letter) {
            return Err(format!("label name {name:?}"));
        }
        if labels.iter().any(|(known, _)| *known == name) {
            return Err(format!("label {name} twice"));
        }
        let mut read = String::new();
        let mut characters = value.char_indices();
        rest = loop {
            match characters.next().ok_or("a label value that does not end")? {
                (at, '"') => break &value[at + 1..],
                (_, '\\') => match characters.next() {
                    Some((_, 'n')) => read.push('\n'),
                    Some((_, escaped @ ('\\' | '"'))) => read.push(escaped),
                    _ => return Err("an escape that is none".into()),
                },
                (_, character) => read.push(character),
            }
        };
        labels.push((name, read));
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_letter = |(n, byte): (usize, u8)| {
        matches!(byte, b'_' | b':') || byte.is_ascii_alphabetic() || n > 0 && byte.is_ascii_digit()
    };
    if !name.is_empty() && name.bytes().enumerate().all(is_letter) {
        Ok(())
    } else {
        Err(format!("metric name {name:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_b Help.\n# TYPE a_b counter\na_b_total{x=\"1\",y=\"\\\"q\\\\\\n\"} 7\n\
        # HELP g Help.\n# TYPE g gauge\ng -1.5e3\n\
        # HELP h Help.\n# TYPE h histogram\nh_sum 3.0\nh_count 2\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\n\
        # EOF\n";

    #[test]
    fn a_valid_page_gives_its_samples() {
        let samples = parse(GOOD).expect("it is valid");
        assert_eq!(samples.len(), 6);
        assert_eq!((samples[0].label("x"), samples[0].label("y")), ("1", "\"q\\\n"));
        assert_eq!(samples[1].value, -1500.0);
    }

    #[test]
    fn what_a_scraper_would_refuse_is_refused() {
        let cases = [
            ("a_b_total{x=\"1\"", "a_b_total{x=\"1"),
            ("} 7", "} NaN"),
            ("} 7", "} -7"),
            ("} 7", "} seven"),
            ("} 7", "}7"),
            ("x=\"1\",y", "x=\"1\",x"),
            ("x=\"1\",", "1x=\"1\","),
            ("x=\"1\",", "x=\"\\d\","),
            ("a_b_total{", "a_b{"),
            ("# HELP g Help.\n# TYPE g gauge\ng", "# HELP a_b Help.\n# TYPE a_b gauge\na_b"),
            ("g -1.5e3\n", "g -1.5e3\ng 2\n"),
            ("g -1.5e3\n", "g -1.5e3\n# TYPE g gauge\n"),
            ("g -1.5e3\n", "g +Inf\n"),
            (
                "# HELP g Help.\n# TYPE g gauge\ng",
                "# HELP a_b_total Help.\n# TYPE a_b_total gauge\na_b_total",
            ),
            ("# TYPE g gauge\n", ""),
            ("# TYPE g gauge\n", "# TYPE g thing\n"),
            ("# HELP g Help.\n# TYPE g gauge\ng", "# HELP 9 Help.\n# TYPE 9 gauge\n9"),
            ("h_count 2", "h_count 3"),
            ("h_bucket{le=\"1.0\"} 1", "h_bucket{le=\"1.0\"} 3"),
            ("h_bucket{le=\"+Inf\"} 2\n", ""),
            ("h_sum 3.0\n", ""),
            ("# EOF\n", ""),
            ("# EOF\n", "# EOF"),
            ("# EOF\n", "# EOF\ng 1\n"),
        ];
        for (from, to) in cases {
            assert!(GOOD.contains(from), "{from}");
            assert!(parse(&GOOD.replacen(from, to, 1)).is_err(), "{from} -> {to}");
        }
    }
}
