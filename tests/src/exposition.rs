//! Reads metrics as a collector does, and finds what it would refuse: the text format of Prometheus, as
//! `promtool check metrics` holds it.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
struct Family<'a> {
    kind: &'a str,
    has_help: bool,
    is_over: bool,
}

/// What is wrong with a text of metrics; nothing, if it is empty.
pub fn mistakes(text: &str) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    let mut current = "";
    let mut series = BTreeSet::new();
    let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    let mut is_ended = false;
    for line in text.lines() {
        let mut wrong = |what: String| mistakes.push(format!("{what}: {line}"));
        if is_ended {
            wrong("something after the end".into());
        }
        if line == "# EOF" {
            is_ended = true;
        } else if let Some(described) = line.strip_prefix("# ") {
            let mut words = described.splitn(3, ' ');
            let (what, name, rest) =
                (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next().unwrap_or(""));
            if name != current {
                if let Some(before) = families.get_mut(current) {
                    before.is_over = true;
                }
                current = name;
            }
            let family = families.entry(name).or_default();
            if family.is_over {
                wrong("a family in two places".into());
            }
            match what {
                "HELP" if !family.has_help && !rest.is_empty() => family.has_help = true,
                "TYPE" if family.kind.is_empty() && matches!(rest, "counter" | "gauge" | "histogram") => {
                    family.kind = rest;
                }
                _ => wrong("a description that is wrong, or there twice".into()),
            }
            if !is_name(name) {
                wrong("no name".into());
            }
        } else {
            match sample(line) {
                None => wrong("no sample".into()),
                Some((name, labels, value)) => {
                    let kind = families.get(current).map_or("", |family| family.kind);
                    let suffix = name.strip_prefix(current);
                    let fits = match kind {
                        "counter" => suffix == Some("_total"),
                        "gauge" => suffix == Some(""),
                        "histogram" => matches!(suffix, Some("_bucket" | "_sum" | "_count")),
                        _ => false,
                    };
                    if !fits {
                        wrong(format!("a sample that is none of {current}, a {kind:?}"));
                    }
                    if !value.is_finite() || (kind == "counter" && value < 0.0) {
                        wrong("a value that cannot be".into());
                    }
                    let (le, others): (Vec<_>, Vec<_>) =
                        labels.iter().partition(|(key, _)| key == "le" && suffix == Some("_bucket"));
                    let of = format!("{current}{others:?}");
                    match (suffix, le.first()) {
                        (Some("_bucket"), Some((_, upper))) => {
                            let upper = if upper == "+Inf" { f64::INFINITY } else { number(upper) };
                            buckets.entry(of).or_default().push((upper, value));
                        }
                        (Some("_bucket"), None) => wrong("a bucket without a bound".into()),
                        (Some("_count"), _) if kind == "histogram" => {
                            counts.insert(of, value);
                        }
                        _ => {}
                    }
                    if !series.insert((name.to_owned(), labels)) {
                        wrong("the same series again".into());
                    }
                }
            }
        }
    }
    if !is_ended {
        mistakes.push("the end is missing".into());
    }
    for (of, buckets) in buckets {
        let ascends = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let last = buckets.last().copied().unwrap_or_default();
        if !ascends || last.0 != f64::INFINITY || counts.get(&of) != Some(&last.1) {
            mistakes.push(format!("buckets that do not add up: {of} {buckets:?}"));
        }
    }
    mistakes
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_' || first == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or(f64::NAN)
}

type Labels = Vec<(String, String)>;

/// Name, labels and value of a line that has no more than these.
fn sample(line: &str) -> Option<(&str, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next()? {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next()?.1 {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        _ => return None,
                    }),
                    (_, c) => value.push(c),
                }
            };
            if !is_name(key) {
                return None;
            }
            labels.push((key.to_owned(), value));
            rest = &after[end + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ')?;
    let keys: BTreeSet<_> = labels.iter().map(|(key, _)| key).collect();
    if !is_name(name) || value.contains(' ') || keys.len() < labels.len() {
        return None;
    }
    let value = number(value);
    labels.sort();
    (!value.is_nan()).then_some((name, labels, value))
}

#[cfg(test)]
mod tests {
    use super::mistakes;

    const RIGHT: &str = "# HELP a Of a.\n# TYPE a counter\na_total{k=\"v\\n\"} 1\n# HELP h Of h.\n\
        # TYPE h histogram\nh_sum 1.5\nh_count 2\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\n# EOF\n";

    #[test]
    fn what_a_collector_would_refuse_is_found() {
        assert_eq!(mistakes(RIGHT), Vec::<String>::new());
        for (what, with) in [
            ("a_total{k=\"v\\n\"} 1", "a_total{k=\"v\\n\"} NaN"),
            ("a_total{k=\"v\\n\"} 1", "a 1"),
            ("# EOF", "# HELP a Again.\n# EOF"),
            ("# EOF", "a_total 1\n# EOF"),
            ("h_sum 1.5", "h_sum 1.5\nh_sum 1.5"),
            ("h_bucket{le=\"1.0\"} 1", "h_bucket{le=\"1.0\"} 3"),
            ("h_count 2", "h_count 3"),
            ("# EOF\n", ""),
            ("{k=\"v\\n\"}", "{k=\"v\"x\"}"),
        ] {
            assert!(!mistakes(&RIGHT.replace(what, with)).is_empty(), "{with}");
        }
    }
}
