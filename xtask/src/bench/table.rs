//! The tables: medians of the runs, and ratios of runs that stood side by side.

use super::matrix::{Load, RATE, Relay, SIZES};
use super::{MAX_NOISE_PCT, Measured, Run};
use std::fmt::Write as _;

/// A ratio the project has set itself.
struct Ratio {
    of: (Relay, Load),
    to: (Relay, Load),
    what: fn(&Run) -> f64,
    label: &'static str,
    aim: Aim,
}

enum Aim {
    AtLeast(f64),
    AtMost(f64),
    None,
}

/// All tables as Markdown.
pub(super) fn markdown(measured: &[Measured], machine: &str) -> String {
    let mut out = String::new();
    throughput(&mut out, measured);
    latency(&mut out, measured);
    ratios(&mut out, measured);
    footprint(&mut out, measured);
    let runs = || measured.iter().flat_map(|measured| &measured.runs);
    let noisy = runs().filter(|run| run.noise_pct() > MAX_NOISE_PCT).count();
    let repetitions = measured.iter().map(|measured| measured.runs.len()).max().unwrap_or(0);
    let _ = writeln!(out, "Medians; repetitions: {repetitions}; machine: {machine}.");
    if noisy > 0 {
        let _ = writeln!(
            out,
            "In {noisy} of {} runs others used more than {MAX_NOISE_PCT} % of a processor.",
            runs().count()
        );
    }
    out.trim_end().to_owned()
}

fn throughput(out: &mut String, measured: &[Measured]) {
    let floods = |size: usize| measured.iter().filter(move |m| m.case.load == Load::Flood(size));
    if floods(SIZES[0]).next().is_none() {
        return;
    }
    out.push_str(
        "| Throughput, one core | 100 B, msg/s | MB/s | CPU us/msg | 1 kB, msg/s | MB/s | CPU us/msg |\n",
    );
    out.push_str("|---|--:|--:|--:|--:|--:|--:|\n");
    for row in floods(SIZES[0]) {
        let _ = write!(out, "| {} |", row.case.relay.name());
        for size in SIZES {
            match floods(size).find(|other| other.case.relay == row.case.relay) {
                Some(cell) => {
                    let (rate, megabytes) = (cell.median(|run| run.msgs_s), cell.median(|run| run.mb_s));
                    let cpu_us = cell.median(|run| run.cpu_us);
                    let _ = write!(out, " {} | {megabytes:.0} | {} |", millions(rate), significant(cpu_us));
                }
                None => out.push_str(" | | |"),
            }
        }
        out.push('\n');
    }
    out.push('\n');
}

fn latency(out: &mut String, measured: &[Measured]) {
    let mut rows = measured.iter().filter(|measured| measured.case.load == Load::Rate).peekable();
    if rows.peek().is_none() {
        return;
    }
    let _ =
        writeln!(out, "| Latency at {RATE} msg/s, 100 B | p50 us | p99 us | p99.9 us | CPU % | switches/s |");
    out.push_str("|---|--:|--:|--:|--:|--:|\n");
    for row in rows {
        let _ = writeln!(
            out,
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            row.case.relay.name(),
            row.median(|run| run.p50),
            row.median(|run| run.p99),
            row.median(|run| run.p999),
            row.median(|run| run.relay_pct),
            row.median(|run| run.switches_s)
        );
    }
    out.push('\n');
}

fn ratios(out: &mut String, measured: &[Measured]) {
    use Aim::{AtLeast, AtMost};
    use Relay::{BaseBare, BaseForward, BaseNotional, HostBare, HostForward, HostJavaScript, HostNotional};
    use Relay::{Node, NodeCorked, Raw, Sockudo, Tree, Typed};
    let flood = |label, of, to, size, aim| Ratio {
        of: (of, Load::Flood(size)),
        to: (to, Load::Flood(size)),
        what: |run| run.msgs_s,
        label,
        aim,
    };
    let p99 = |label, of, to, aim| Ratio {
        of: (of, Load::Rate),
        to: (to, Load::Rate),
        what: |run| run.p99,
        label,
        aim,
    };
    let all = [
        flood("no plugin to raw, 100 B", HostBare, Raw, 100, Aim::None),
        flood("no plugin to raw, 1 kB", HostBare, Raw, 1000, Aim::None),
        flood("`forward` to raw, 100 B", HostForward, Raw, 100, AtLeast(1.1)),
        flood("`forward` to raw, 1 kB", HostForward, Raw, 1000, AtLeast(1.3)),
        flood("no plugin to `sockudo-ws`, 100 B", HostBare, Sockudo, 100, Aim::None),
        flood("no plugin to `sockudo-ws`, 1 kB", HostBare, Sockudo, 1000, Aim::None),
        flood("`notional` to typed JSON, 100 B", HostNotional, Typed, 100, AtLeast(1.7)),
        flood("`notional` to typed JSON, 1 kB", HostNotional, Typed, 1000, AtLeast(4.0)),
        flood("`notional` to JSON tree, 100 B", HostNotional, Tree, 100, Aim::None),
        flood("`notional` to JSON tree, 1 kB", HostNotional, Tree, 1000, Aim::None),
        flood("`notional` to Node, 100 B", HostNotional, Node, 100, AtLeast(15.0)),
        flood("`notional` to Node, 1 kB", HostNotional, Node, 1000, AtLeast(20.0)),
        flood("`notional` to Node corked, 100 B", HostNotional, NodeCorked, 100, Aim::None),
        flood("`notional` to Node corked, 1 kB", HostNotional, NodeCorked, 1000, Aim::None),
        flood("plugin in JavaScript to Node, 100 B", HostJavaScript, Node, 100, AtLeast(6.0)),
        flood("plugin in JavaScript to Node, 1 kB", HostJavaScript, Node, 1000, AtLeast(10.0)),
        flood("plugin in JavaScript to Node corked, 100 B", HostJavaScript, NodeCorked, 100, Aim::None),
        flood("plugin in JavaScript to Node corked, 1 kB", HostJavaScript, NodeCorked, 1000, Aim::None),
        flood("no plugin to the baseline's, 100 B", HostBare, BaseBare, 100, Aim::None),
        flood("no plugin to the baseline's, 1 kB", HostBare, BaseBare, 1000, Aim::None),
        flood("`forward` to the baseline's, 100 B", HostForward, BaseForward, 100, Aim::None),
        flood("`forward` to the baseline's, 1 kB", HostForward, BaseForward, 1000, Aim::None),
        flood("`notional` to the baseline's, 100 B", HostNotional, BaseNotional, 100, Aim::None),
        flood("`notional` to the baseline's, 1 kB", HostNotional, BaseNotional, 1000, Aim::None),
        p99("p99 of `forward` to the baseline's", HostForward, BaseForward, Aim::None),
        p99("p99 of `notional` to the baseline's", HostNotional, BaseNotional, Aim::None),
        p99("p99 of `forward` to raw", HostForward, Raw, AtMost(1.2)),
        p99("p99 of `notional` to typed JSON", HostNotional, Typed, Aim::None),
    ];
    let mut lines = all.iter().filter_map(|ratio| ratio.line(measured)).peekable();
    if lines.peek().is_none() {
        return;
    }
    out.push_str("| Ratio | measured | lowest, highest | aim |\n|---|--:|--:|--:|\n");
    lines.for_each(|line| out.push_str(&line));
    out.push('\n');
}

impl Ratio {
    /// The row of this ratio: of each repetition's two runs, then the median of those.
    fn line(&self, measured: &[Measured]) -> Option<String> {
        let find = |wanted| measured.iter().find(|m| (m.case.relay, m.case.load) == wanted);
        let (of, to) = (find(self.of)?, find(self.to)?);
        let ratios = of.runs.iter().zip(&to.runs).map(|(of, to)| (self.what)(of) / (self.what)(to));
        let ratios = sorted(ratios.collect());
        let (lowest, highest) = (ratios.first()?, ratios.last()?);
        let aim = match self.aim {
            Aim::AtLeast(aim) => format!("at least {aim}"),
            Aim::AtMost(aim) => format!("at most {aim}"),
            Aim::None => String::new(),
        };
        let median = significant(middle(&ratios));
        let (lowest, highest) = (significant(*lowest), significant(*highest));
        Some(format!("| {} | {median} | {lowest}, {highest} | {aim} |\n", self.label))
    }
}

fn footprint(out: &mut String, measured: &[Measured]) {
    let find = |load| measured.iter().find(|measured| measured.case.load == load);
    let (idle, start) = (find(Load::Idle), find(Load::Start));
    if idle.is_none() && start.is_none() {
        return;
    }
    out.push_str("| Footprint, one pipeline with `forward` | measured | aim |\n|---|--:|--:|\n");
    if let Some(idle) = idle {
        let (cpu, switches) = (idle.median(|run| run.relay_pct), idle.median(|run| run.switches_s));
        let megabytes = idle.median(|run| run.rss_kb as f64 * 1024.0 / 1e6);
        let _ = writeln!(out, "| idle, CPU over 5 s | {cpu:.1} % | not measurable |");
        let _ = writeln!(out, "| idle, context switches a second | {switches:.1} | |");
        let _ = writeln!(out, "| idle, resident memory | {megabytes:.1} MB | at most 40 MB |");
    }
    if let Some(start) = start {
        let first = start.median(|run| run.first_ms.unwrap_or(f64::INFINITY));
        let _ = writeln!(
            out,
            "| start of the process to first message, cached code | {first:.0} ms | at most 200 ms |"
        );
    }
    out.push('\n');
}

impl Measured {
    fn median(&self, what: impl Fn(&Run) -> f64) -> f64 {
        middle(&sorted(self.runs.iter().map(what).collect()))
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The median of sorted values.
fn middle(sorted: &[f64]) -> f64 {
    match (sorted.len() / 2, sorted.len() % 2) {
        (0, 0) => f64::NAN,
        (half, 0) => f64::midpoint(sorted[half - 1], sorted[half]),
        (half, _) => sorted[half],
    }
}

fn millions(value: f64) -> String {
    format!("{} M", significant(value / 1e6))
}

/// Three significant digits, no more than three decimals.
fn significant(value: f64) -> String {
    let decimals = match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_or_between_the_two() {
        assert_eq!(middle(&sorted(vec![3.0, 1.0, 2.0])), 2.0);
        assert_eq!(middle(&[1.0, 2.0, 4.0, 9.0]), 3.0);
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(
            [0.0921, 0.75, 3.954, 12.34, 120.4].map(significant),
            ["0.092", "0.750", "3.95", "12.3", "120"]
        );
    }
}
