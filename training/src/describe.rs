//! A model and a run in words, for a terminal.

use std::io::{self, Write};

use sawlog_model::features::Scaling;
use sawlog_model::spec::{FeatureSpec, Format};
use sawlog_model::{
    Calibration, Features, Fitted, LeafRule, Model, Sampling, Shingle, ThresholdRule,
};

use crate::tally::Tally;

/// A number with its thousands set apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A share in per cent with enough digits to tell it from nothing.
pub(crate) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent == 0.0 || percent >= 0.095 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.3} %")
    }
}

/// A share in per cent as it is, for one that was chosen: 99.9 %.
pub(crate) fn share(share: f64) -> String {
    format!("{} %", value((share * 1e6).round() / 1e4))
}

/// A value of a feature: short, and exact where it can be.
pub(crate) fn value(x: f64) -> String {
    if x == x.trunc() && x.abs() < 1e15 {
        let sign = if x < 0.0 { "-" } else { "" };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number below 1e15"
        )]
        return format!("{sign}{}", grouped(x.abs() as u64));
    }
    if (1e-3..1e6).contains(&x.abs()) {
        return format!("{x:.4}").trim_end_matches('0').to_owned();
    }
    format!("{x:.3e}")
}

/// What was read and rejected.
pub(crate) fn tally(out: &mut impl Write, tally: &Tally) -> io::Result<()> {
    writeln!(out, "read       {} records", grouped(tally.read))?;
    let share = percent(tally.rejected_share());
    writeln!(out, "rejected   {} ({share})", grouped(tally.rejected))?;
    for line in tally.first_rejects() {
        writeln!(out, "             {line}")?;
    }
    if tally.no_history > 0 {
        let count = grouped(tally.no_history);
        writeln!(
            out,
            "beginning  {count} records began a series: too few before them for a point"
        )?;
    }
    writeln!(out, "kept       {}", grouped(tally.kept()))
}

/// The model: format, features, forest, calibration, provenance, size.
pub(crate) fn model(out: &mut impl Write, model: &Model) -> io::Result<()> {
    let features = model.features();
    self::features(out, features)?;
    for (spec, fitted) in features.spec().features().iter().zip(features.fitted()) {
        if *fitted == Fitted::Constant {
            writeln!(out, "warning: `{}` was constant in training and is left out", spec.name)?;
        }
    }
    if let Some(Shingle { size, key }) = features.spec().shingle() {
        let series = match key {
            Some(key) => format!("of the same `{key}`, which tells series apart"),
            None => "of the file or partition: one series".to_owned(),
        };
        writeln!(out, "\nshingle    a point is {size} consecutive records {series}")?;
    }
    let params = model.params();
    let forest = model.forest();
    writeln!(
        out,
        "\nforest     {} trees of up to {} records, {} dimensions, seed {}; {} distinct points",
        params.trees,
        params.samples,
        forest.dimensions(),
        params.seed,
        grouped(forest.leaves() as u64),
    )?;
    if params.leaf_rule == LeafRule::Sagemaker {
        let samples = match params.sampling {
            Sampling::Contiguous => "contiguous chunks of the input, one a tree",
            Sampling::Keyed | Sampling::Imported => "a uniform sample a tree",
        };
        writeln!(out, "           by SageMaker's rules: {samples}; its leaf rule")?;
    }
    let from = model.provenance();
    match model.calibration() {
        Some(calibration) => self::calibration(out, calibration)?,
        None => writeln!(out, "threshold  none; `sawlog calibrate` sets one from records")?,
    }
    if let Some(endpoint) = model.endpoint_calibration() {
        writeln!(out, "endpoint   {}", endpoint.endpoint)?;
        self::calibration(out, &endpoint.calibration)?;
    }
    writeln!(
        out,
        "made by    {} from {} records ({} rejected): {} to sample from, {} held out",
        from.tool,
        grouped(from.read),
        grouped(from.rejected),
        grouped(from.sampled_from),
        grouped(from.held_out),
    )?;
    writeln!(out, "input      {}", from.inputs.join(", "))?;
    writeln!(
        out,
        "model      {} ({} bytes; {} in memory)",
        model.id(),
        grouped(model.snapshot_len() as u64),
        grouped(forest.memory_bytes() as u64),
    )
}

/// The format and the table of the features.
pub(crate) fn features(out: &mut impl Write, features: &Features) -> io::Result<()> {
    writeln!(out, "\nformat     {}", format(features.spec().format()))?;
    let mut rows = vec![
        ["feature", "field", "kind", "min", "1 %", "median", "99 %", "max", "coordinate"]
            .map(str::to_owned),
    ];
    for (spec, fitted) in features.spec().features().iter().zip(features.fitted()) {
        rows.push(feature_row(spec, fitted));
    }
    table(out, &rows)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn calibration(out: &mut impl Write, calibration: &Calibration) -> io::Result<()> {
    // Those that training held out, or what `calibrate` was given: a model doesn't tell.
    let records = "calibration records";
    writeln!(
        out,
        "threshold  {:.4} by {}: above it are {} of {} {records} ({})",
        calibration.threshold,
        calibration.rule,
        grouped(calibration.flagged),
        grouped(calibration.records),
        percent(calibration.flagged_share()),
    )?;
    match calibration.rule {
        // The order statistic that the rule asks for is beyond the last.
        ThresholdRule::Quantile(share)
            if (1.0 - share) * (calibration.records as f64 + 1.0) < 1.0 =>
        {
            writeln!(
                out,
                "warning: few {records} to place it by: it is their greatest score, which one in {} exceeds, \
                 not one in {}; a lower quantile, more logs or a longer half-life, if there is one, would do",
                grouped(calibration.records + 1),
                value((1.0 / (1.0 - share)).round()),
            )?;
        }
        _ if calibration.records < 1000 => {
            writeln!(out, "warning: few {records} to place it by; more logs would do")?;
        }
        _ => {}
    }
    let quantiles = &calibration.quantiles;
    if let [least, .., greatest] = quantiles.as_slice() {
        let median = quantiles.get(7).copied().unwrap_or(f64::NAN);
        writeln!(
            out,
            "scores     of these: {least:.3} to {greatest:.3}, median {median:.3}, mean {:.3}, deviation {:.3}",
            calibration.mean, calibration.deviation,
        )?;
    }
    Ok(())
}

fn format(format: &Format) -> String {
    match format {
        Format::Json => "json".to_owned(),
        Format::Logfmt => "logfmt".to_owned(),
        Format::Regex { pattern } => format!("regex {pattern}"),
        Format::Csv { delimiter, columns } => {
            format!("csv, columns {}", columns.join(&char::from(*delimiter).to_string()))
        }
    }
}

fn feature_row(spec: &FeatureSpec, fitted: &Fitted) -> [String; 9] {
    let (kind, [min, p01, median, p99, max], coordinate) = match fitted {
        Fitted::Constant => ("constant", Default::default(), "left out".to_owned()),
        Fitted::Number { scaling, min, p01, median, p99, max } => {
            let quantiles = [*min, *p01, *median, *p99, *max].map(value);
            ("number", quantiles, self::scaling(scaling, *min))
        }
        Fitted::OneHot { categories } => {
            let named = format!("{} and other", shown(categories.iter().map(String::as_str)));
            ("one_hot", Default::default(), named)
        }
        Fitted::Frequency { categories, .. } => {
            let named = format!(
                "-ln(share) of {}",
                shown(categories.iter().map(|(name, _)| name.as_str()))
            );
            ("frequency", Default::default(), named)
        }
    };
    [spec.name.clone(), spec.field.clone(), kind.to_owned(), min, p01, median, p99, max, coordinate]
}

/// The first few categories, and how many there are.
fn shown<'a>(categories: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = categories.len();
    let first: Vec<&str> = categories.take(6).collect();
    let more = if count > first.len() { format!(" ... ({count})") } else { String::new() };
    format!("{}{more}", first.join(" "))
}

/// The formula of a scaling of values of which the least is `min`.
pub(crate) fn scaling(scaling: &Scaling, min: f64) -> String {
    let Scaling { log_unit, center, scale } = *scaling;
    let inner = match log_unit {
        0.0 => "x".to_owned(),
        1.0 if min >= 0.0 => "ln(1 + x)".to_owned(),
        unit if min >= 0.0 => format!("ln(1 + x/{})", value(unit)),
        unit => format!("sign(x) ln(1 + |x|/{})", value(unit)),
    };
    if center == 0.0 && scale == 1.0 {
        return inner;
    }
    format!("({inner} - {}) / {}", value(center), value(scale))
}

/// Rows of equal columns, aligned; the first is the heading.
pub(crate) fn table(out: &mut impl Write, rows: &[impl AsRef<[String]>]) -> io::Result<()> {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (column, cell) in row.as_ref().iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(column) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    for row in rows {
        let cells: Vec<String> = row
            .as_ref()
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        writeln!(out, "  {}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_true() {
        let cases = [
            (0.0, "0"),
            (1234567.0, "1,234,567"),
            (-12.5, "-12.5"),
            (0.25, "0.25"),
            (1e-7, "1.000e-7"),
        ];
        for (x, want) in cases {
            assert_eq!(value(x), want);
        }
        assert_eq!(
            (percent(0.0), percent(0.00012), percent(0.051)),
            ("0.0 %".into(), "0.012 %".into(), "5.1 %".into())
        );
    }
}
