//! `sawlog train --dry-run`: what a specification makes of a few records, before all of them are read.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use anyhow::Context;
use sawlog_model::{Features, Fitted, Scaling, ValidSpec, Value};

use crate::describe::{self, grouped, percent};
use crate::input::{self, Source, Way};
use crate::tally::Tally;

/// Inputs that are looked into, spread evenly over all of them: logs change over time.
const MAX_INPUTS: usize = 20;
/// Records that are read of them together, the first of each.
const MAX_RECORDS: usize = 10_000;
/// Bars of a histogram, and the width of the longest.
const BARS: usize = 12;
const BAR_WIDTH: usize = 40;

/// Reads a sample and shows each feature as the specification makes it. Writes nothing.
pub(crate) fn run(out: &mut impl Write, way: &Way, sources: &[Source]) -> anyhow::Result<()> {
    let inputs = sources.len().min(MAX_INPUTS);
    let chosen: Vec<&Source> =
        (0..inputs).map(|at| &sources[at * sources.len() / inputs]).collect();
    let of_each = MAX_RECORDS.div_ceil(inputs.max(1));
    let mut tally = Tally::default();
    let mut rows: Vec<Vec<Value>> = Vec::new();
    let mut way = way.clone();
    for source in &chosen {
        let read = input::read_beginning(source, &way, of_each, |record| {
            rows.extend(tally.count(&record).map(<[Value]>::to_vec));
        })?;
        if way.spec.needs_header() {
            way = read;
        }
    }
    writeln!(
        out,
        "sample     up to {} records each of {} of {} inputs; nothing is written",
        grouped(of_each as u64),
        grouped(inputs as u64),
        grouped(sources.len() as u64)
    )?;
    describe::tally(out, &tally)?;
    for reason in tally.commonest() {
        writeln!(out, "             {reason}")?;
    }
    show(out, Arc::unwrap_or_clone(way.spec), &rows)
}

fn show(out: &mut impl Write, spec: ValidSpec, rows: &[Vec<Value>]) -> anyhow::Result<()> {
    let slices: Vec<&[Value]> = rows.iter().map(Vec::as_slice).collect();
    let features = Features::fit(spec, &slices).context("no feature can be shown")?;
    describe::features(out, &features)?;
    let count = features.spec().features().len();
    for (index, (spec, fitted)) in
        features.spec().features().iter().zip(features.fitted()).enumerate()
    {
        // Of a point's records the newest: every record is one point's.
        let values = || slices.iter().filter_map(|point| point.get(point.len() - count + index));
        let missing = values().filter(|value| **value == Value::Missing).count();
        writeln!(out, "\n{}  missing in {}", spec.name, percent(share(missing, rows.len())))?;
        match fitted {
            Fitted::Constant => writeln!(out, "  always the same: it is left out")?,
            Fitted::Number { scaling, .. } => {
                let numbers = values().filter_map(|value| match value {
                    Value::Number(number) => Some(*number),
                    Value::Missing | Value::Category(_) => None,
                });
                numbers_of(out, scaling, numbers.collect())?;
            }
            Fitted::OneHot { .. } | Fitted::Frequency { .. } => {
                let names = values().filter_map(|value| match value {
                    Value::Category(name) => Some(&**name),
                    Value::Missing | Value::Number(_) => None,
                });
                categories_of(out, names)?;
            }
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// A histogram over the coordinate, on which the forest cuts, with the values that lie there.
fn numbers_of(out: &mut impl Write, scaling: &Scaling, mut numbers: Vec<f64>) -> io::Result<()> {
    numbers.sort_unstable_by(f64::total_cmp);
    let coordinates: Vec<f64> = numbers.iter().map(|x| f64::from(scaling.apply(*x))).collect();
    let (Some(&low), Some(&high)) = (coordinates.first(), coordinates.last()) else {
        return Ok(());
    };
    #[expect(clippy::cast_precision_loss, reason = "a dozen")]
    let edge = |bar: usize| low + (high - low) * bar as f64 / BARS as f64;
    let mut bars = Vec::new();
    let mut from = 0;
    for bar in 1..=BARS {
        let to = match bar {
            BARS => coordinates.len(),
            _ => coordinates.partition_point(|x| *x < edge(bar)).max(from),
        };
        let values = match &numbers[from..to] {
            [] => String::new(),
            [first, .., last] if first != last => {
                format!("{} to {}", describe::value(*first), describe::value(*last))
            }
            [first, ..] => describe::value(*first),
        };
        let label = format!("{:>7.2} to {:<7.2} {values}", edge(bar - 1), edge(bar));
        bars.push((label, to - from));
        from = to;
    }
    writeln!(out, "  coordinate         values")?;
    write_bars(out, &bars)
}

fn categories_of<'a>(out: &mut impl Write, names: impl Iterator<Item = &'a str>) -> io::Result<()> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let others = counts.split_off(counts.len().min(BARS));
    let shown =
        |name: &str| name.chars().take(BAR_WIDTH).collect::<String>().escape_debug().to_string();
    let mut bars: Vec<(String, usize)> =
        counts.into_iter().map(|(name, count)| (shown(name), count)).collect();
    if !others.is_empty() {
        let count = others.iter().map(|(_, count)| count).sum();
        bars.push((format!("{} others", grouped(others.len() as u64)), count));
    }
    write_bars(out, &bars)
}

/// Bars with their labels and counts, as long as their share of the greatest.
fn write_bars(out: &mut impl Write, bars: &[(String, usize)]) -> io::Result<()> {
    let widest = bars.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    for (label, count) in bars {
        let len = (count * BAR_WIDTH).div_ceil(most);
        writeln!(
            out,
            "  {label:widest$}  {:<BAR_WIDTH$}  {}",
            "#".repeat(len),
            grouped(*count as u64)
        )?;
    }
    Ok(())
}
