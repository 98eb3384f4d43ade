//! What changes, for a terminal.

use std::io::{self, Write};

use sawlog_lambda::validation::proportion::Bounded;
use sawlog_model::Fitted;
use sawlog_model::spec::FeatureSpec;

use super::learned::{Feature, Status};
use super::{Diff, Flip, Side};
use crate::describe::{grouped, percent, scaling, table, value};
use crate::evaluate::shown;

/// Most categories named that came or went.
const MAX_CATEGORIES: usize = 6;

/// Writes it.
pub(super) fn write(out: &mut impl Write, diff: &Diff<'_>) -> io::Result<()> {
    let sides = [("old", &diff.old), ("new", &diff.new)];
    let mut rows = vec![["", "model", "forest", "point", "threshold"].map(str::to_owned)];
    rows.extend(sides.map(|(name, side)| model(name, side)));
    table(out, &rows)?;
    writeln!(out, "\ncompared   {} records", count(diff.compared))?;
    for (name, side) in sides {
        let others = side.scored - diff.compared;
        for (records, what) in [
            (others as u64, "have a score of this one alone"),
            (side.rejected, "can't be read by it"),
            (side.no_history, "have too few of their series before them"),
        ] {
            if records > 0 {
                writeln!(out, "             {name}: {} {what}", grouped(records))?;
            }
        }
    }
    verdicts(out, diff)?;
    writeln!(out)?;
    let tops = "the most unusual 5 % by one are not among the other's";
    if let Some(Bounded { value, low, high }) = diff.tops_missing {
        let [value, low, high] = [value, low, high].map(percent);
        writeln!(out, "tops       {value} of {tops} ({low} to {high})")?;
    }
    if let Some(Bounded { value, low, high }) = diff.rank_correlation {
        writeln!(out, "ranks      correlation {value:.3} ({low:.3} to {high:.3})")?;
    }
    writeln!(out, "\nscores, at or below")?;
    let mut rows = vec![["share", "old", "new"].map(str::to_owned)];
    for quantile in &diff.quantiles {
        let share = format!("{} %", value((quantile.share * 1e6).round() / 1e4));
        rows.push([share, format!("{:.4}", quantile.old), format!("{:.4}", quantile.new)]);
    }
    table(out, &rows)?;
    features(out, &diff.features)?;
    for (flips, total, what) in [
        (&diff.newly_flagged, diff.verdicts.map(|it| it.only_new), "would be flagged and is not"),
        (
            &diff.no_longer_flagged,
            diff.verdicts.map(|it| it.only_old),
            "is flagged and would not be",
        ),
    ] {
        self::flips(out, flips, total.unwrap_or_default(), what)?;
    }
    writeln!(out, "\n{}: {}", said(diff), diff.reason)
}

fn said(diff: &Diff<'_>) -> &'static str {
    use sawlog_lambda::validation::Agreement::{Agree, Disagree, Drifting, TooFew};
    match diff.agreement {
        TooFew => "too few records to say whether they agree",
        Agree => "they agree as two forests of the same records do",
        Drifting => "they agree less than two forests of the same records do",
        Disagree => "they do not agree",
    }
}

fn count(count: usize) -> String {
    grouped(count as u64)
}

fn model(name: &str, side: &Side<'_>) -> [String; 5] {
    let params = side.params;
    let records = if side.shingle == 1 { "1 record" } else { "records" };
    let shingle = if side.shingle == 1 { String::new() } else { format!("{} ", side.shingle) };
    [
        name.to_owned(),
        side.model.chars().take(16).collect(),
        format!("{} x {}, seed {}", params.trees, params.samples, params.seed),
        format!("{} dimensions of {shingle}{records}", side.dimensions),
        side.calibration
            .map_or("none".to_owned(), |it| format!("{:.4} by {}", it.threshold, it.rule)),
    ]
}

fn verdicts(out: &mut impl Write, diff: &Diff<'_>) -> io::Result<()> {
    let Some(verdicts) = diff.verdicts else {
        return writeln!(
            out,
            "\nverdicts   not compared: a model without a threshold flags nothing"
        );
    };
    let row = |name: &str, a: usize, b: usize| [name.to_owned(), count(a), count(b)];
    writeln!(out)?;
    table(
        out,
        &[
            ["", "new flags it", "new does not"].map(str::to_owned),
            row("old flags it", verdicts.both, verdicts.only_old),
            row("old does not", verdicts.only_new, verdicts.neither),
        ],
    )?;
    let (before, after) = (verdicts.both + verdicts.only_old, verdicts.both + verdicts.only_new);
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let share = |flagged: usize| percent(flagged as f64 / diff.compared as f64);
    writeln!(
        out,
        "flagged    {} ({}) -> {} ({})",
        count(before),
        share(before),
        count(after),
        share(after)
    )
}

fn features(out: &mut impl Write, features: &[Feature<'_>]) -> io::Result<()> {
    writeln!(out)?;
    let head = ["feature", "", "in", "min", "1 %", "median", "99 %", "max", "coordinate"];
    let mut rows = vec![head.map(str::to_owned)];
    let mut changes = Vec::new();
    for feature in features {
        let status = match feature.status {
            Status::Kept => "",
            Status::Changed => "changed",
            Status::Added => "added",
            Status::Removed => "removed",
        };
        let sides = [("old", feature.old), ("new", feature.new)];
        let mut name = [feature.name, status];
        for (side, fitted) in sides {
            let Some(fitted) = fitted else { continue };
            let [name, status] = std::mem::take(&mut name);
            let (quantiles, coordinate) = learned(fitted);
            let [min, p01, median, p99, max] = quantiles;
            let [name, status, side] = [name, status, side].map(str::to_owned);
            rows.push([name, status, side, min, p01, median, p99, max, coordinate]);
        }
        if let (Status::Changed, Some(old), Some(new)) =
            (feature.status, feature.old_spec, feature.new_spec)
        {
            changes.push(format!("{}: {} -> {}", feature.name, read_as(old), read_as(new)));
        }
        if feature.old.is_some() && feature.new.is_some() {
            for (names, what) in [
                (&feature.categories_added, "knows the new categories"),
                (&feature.categories_removed, "doesn't know any more"),
            ] {
                if !names.is_empty() {
                    let first = names.iter().take(MAX_CATEGORIES).copied().collect::<Vec<_>>();
                    let rest = names.len() - first.len();
                    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
                    changes.push(format!("{}: {what} {}{more}", feature.name, first.join(", ")));
                }
            }
        }
    }
    table(out, &rows)?;
    changes.iter().try_for_each(|change| writeln!(out, "  {change}"))
}

/// How a feature is read, as a specification has it.
fn read_as(spec: &FeatureSpec) -> String {
    // A specification is plain data: it can be written.
    serde_json::to_string(spec).unwrap_or_default()
}

fn learned(fitted: &Fitted) -> ([String; 5], String) {
    match fitted {
        Fitted::Constant => (Default::default(), "left out: constant".to_owned()),
        Fitted::Number { scaling, min, p01, median, p99, max } => {
            ([*min, *p01, *median, *p99, *max].map(value), self::scaling(scaling, *min))
        }
        Fitted::OneHot { categories } => {
            (Default::default(), format!("{} categories and other", categories.len()))
        }
        Fitted::Frequency { categories, .. } => {
            (Default::default(), format!("-ln(share) of {} categories", categories.len()))
        }
    }
}

fn flips(out: &mut impl Write, flips: &[Flip<'_>], total: usize, what: &str) -> io::Result<()> {
    if flips.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nwhat {what}: the {} most unusual of {}", flips.len(), count(total))?;
    let head = ["score", "other's", "because of", "record"];
    let mut rows = vec![head.map(str::to_owned)];
    for Flip { verdict, other_score, .. } in flips {
        rows.push([
            format!("{:.4}", verdict.score()),
            format!("{other_score:.4}"),
            shown::because(verdict),
            shown::place(verdict),
        ]);
    }
    table(out, &rows)
}
