//! The report for a terminal.

use std::io::{self, Write};

use sawlog_lambda::validation::proportion::Bounded;

use super::{Latency, Report, Side, as_f64};
use crate::describe::{grouped, percent, table};

/// The scatter's size in characters.
const COLUMNS: usize = 60;
const ROWS: usize = 18;
/// The more records, the later in it.
const SHADES: [char; 5] = ['.', ':', 'o', 'O', '@'];

/// Writes the report.
pub(super) fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let count = |count: usize| grouped(count as u64);
    write!(out, "pairs      {} of model {}", count(report.pairs), report.model)?;
    writeln!(out, " and endpoint {}", report.endpoint)?;
    for (left_out, why) in [
        (report.failed, "more without a score from the endpoint"),
        (report.repeated, "captured again, counted once"),
        (report.others, "of another model or endpoint, left out"),
    ] {
        if left_out > 0 {
            writeln!(out, "           {} {why}", count(left_out))?;
        }
    }
    for (reason, failed) in &report.failures {
        writeln!(out, "             {} x {reason}", count(*failed))?;
    }
    let decisions = report.decisions;
    if decisions.either() + decisions.neither > 0 {
        writeln!(out)?;
        let row = |name: &str, a: usize, b: usize| [name.to_owned(), count(a), count(b)];
        let head = ["", "the endpoint flags it", "the endpoint does not"].map(str::to_owned);
        table(
            out,
            &[
                head,
                row("the model flags it", decisions.both, decisions.only_local),
                row("the model does not", decisions.only_endpoint, decisions.neither),
            ],
        )?;
    } else {
        writeln!(out, "decisions  not compared: one of both has no threshold")?;
    }
    writeln!(out)?;
    share(out, "differing", "what either flags is flagged by one alone", report.differing)?;
    let tops = "the most unusual 5 % by one are not among the other's";
    share(out, "tops", tops, report.tops_missing)?;
    if let Some(Bounded { value, low, high }) = report.rank_correlation {
        writeln!(out, "ranks      correlation {value:.3} ({low:.3} to {high:.3})")?;
    }
    for quantile in &report.quantiles {
        writeln!(
            out,
            "score      {:.3} here and {:.3} there are exceeded by {}",
            quantile.local,
            quantile.endpoint,
            percent(1.0 - quantile.share),
        )?;
    }
    for (name, latency) in [("here", report.local_latency), ("there", report.endpoint_latency)] {
        if let Some(Latency { p50_ms, p99_ms, rows }) = latency {
            let rows = count(rows);
            writeln!(
                out,
                "time       {p50_ms:.2} ms {name} for {rows} records (median; 99 %: {p99_ms:.2} ms)"
            )?;
        }
    }
    writeln!(out, "\n{}", scatter(report))?;
    if !report.differ_most.is_empty() {
        writeln!(
            out,
            "records on which they differ most (score, and the share that has as high a one)"
        )?;
        let mut rows = vec![["times", "the model", "the endpoint", "record"].map(str::to_owned)];
        for difference in &report.differ_most {
            rows.push([
                times(difference.times),
                said(difference.local),
                said(difference.endpoint),
                difference.id.clone(),
            ]);
            if let Some(features) = &difference.features {
                let none = String::new;
                rows.push([none(), none(), none(), format!("  {features}")]);
            }
        }
        table(out, &rows)?;
        writeln!(out)?;
    }
    writeln!(out, "{}: {}", report.advice.sentence(), report.reason)
}

fn share(out: &mut impl Write, name: &str, what: &str, found: Option<Bounded>) -> io::Result<()> {
    let Some(Bounded { value, low, high }) = found else { return Ok(()) };
    let [value, low, high] = [value, low, high].map(percent);
    writeln!(out, "{name:9}  {value} of {what} ({low} to {high})")
}

/// A ratio, short.
pub(super) fn times(ratio: f64) -> String {
    if ratio < 9.95 { format!("{ratio:.1}") } else { format!("{ratio:.0}") }
}

/// A score, how common it is, and `*` if it is flagged.
pub(super) fn said(side: Side) -> String {
    let flag = if side.anomaly == Some(true) { " *" } else { "" };
    format!("{:.3} ({}){flag}", side.score, percent(side.at_least))
}

/// Both scores of each record, darker where there are many; the thresholds as lines.
fn scatter(report: &Report) -> String {
    let (x, y) = (super::page::Axis::of(report, true), super::page::Axis::of(report, false));
    let mut counts = vec![0_usize; COLUMNS * ROWS];
    let cell = |share: f64, cells: usize| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of the cells")]
        let at = (share * as_f64(cells)) as usize;
        at.min(cells - 1)
    };
    let column = |score: f64| cell(x.share(score), COLUMNS);
    let row = |score: f64| ROWS - 1 - cell(y.share(score), ROWS);
    for dot in &report.dots {
        let (local, endpoint) = (f64::from(dot.sample.local), f64::from(dot.sample.endpoint));
        counts[row(endpoint) * COLUMNS + column(local)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(1).max(2);
    let (line_x, line_y) = (x.threshold.map(column), y.threshold.map(row));
    let mut text = String::new();
    for (at, cells) in counts.chunks(COLUMNS).enumerate() {
        let label = match at {
            0 => format!("{:>8.3}", y.high),
            _ if at == ROWS - 1 => format!("{:>8.3}", y.low),
            1 => "endpoint".to_owned(),
            _ => " ".repeat(8),
        };
        text.push_str(&label);
        text.push_str(" |");
        for (column, &count) in cells.iter().enumerate() {
            text.push(match (count, line_x == Some(column), line_y == Some(at)) {
                (0, true, true) => '+',
                (0, true, false) => '|',
                (0, false, true) => '-',
                (0, false, false) => ' ',
                // By the logarithm of their number.
                _ => SHADES[cell(as_f64(count).ln() / as_f64(most).ln(), SHADES.len())],
            });
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    let width = COLUMNS.saturating_sub(16);
    text.push_str(&format!("         +{}\n", "-".repeat(COLUMNS)));
    text.push_str(&format!("          {:<8.3}{:^width$}{:>8.3}\n", x.low, "model", x.high));
    text
}
