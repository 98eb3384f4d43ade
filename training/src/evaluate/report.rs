//! An evaluation as one page to look at. It has no script and asks for nothing: its policy forbids
//! the browser to load anything. What comes from records is escaped by the template.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use sawlog_model::{Fitted, Value};

use super::chart::{Area, Scale, number, points, px};
use super::gather::{Distribution, Evaluation, Top};
use super::ranking::{At, Ranking};
use super::shown::{self, Reason};
use crate::describe::{self, grouped, percent, share};
use crate::ranges::{BINS, Range};

/// Features shown for a record, the ones with the greatest parts.
const REASONS: usize = 4;
/// Least part of a score whose direction is said. A usual value has some per cent of a score too, and on which side
/// more of it lies says nothing of the value: of parts below this among the 1,000 most unusual of a fifth of the shipped
/// requests, 22 of 342 agreed with the side of training's median that the value was on.
const DIRECTED: f32 = shown::NAMED;
/// Features whose values are drawn; of more the ones that the records shown come from.
const DRAWN_FEATURES: usize = 60;

const STYLE: &str = include_str!("report.css");

/// The page.
pub(crate) fn page(evaluation: &Evaluation<'_>, model_name: &str) -> String {
    let title = format!("Scores by {model_name}");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(evaluation, &title))
                main {
                    (course(evaluation))
                    (distribution(evaluation))
                    @if let Some(ranking) = &evaluation.labels { (ranked(ranking)) }
                    (top(evaluation))
                    (features(evaluation))
                }
                footer {
                    p { "Model " code { (evaluation.model.id()) } ". Made by sawlog "
                        (env!("CARGO_PKG_VERSION")) "." }
                }
            }
        }
    };
    page.into_string()
}

fn head(evaluation: &Evaluation<'_>, title: &str) -> Markup {
    let model = evaluation.model;
    let params = model.params();
    let tally = &evaluation.tally;
    let names: Vec<&str> = evaluation.inputs.iter().map(|(_, name)| name.as_str()).collect();
    let shown = names.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(3);
    let first = evaluation.thresholds.first();
    html! {
        header {
            h1 { (title) }
            p {
                (shown) @if more > 0 { " and " (more) " more files" } ", by " (params.trees)
                " trees of up to " (params.samples) " records, "
                (count(model.features().names().len(), "feature"))
                @if let Some(shingle) = model.features().spec().shingle() {
                    ", " (shingle.size) " consecutive records a point"
                }
                "."
            }
            dl.figures {
                (figure("records scored", &grouped(evaluation.scored), &unscored(tally.rejected, tally.no_history)))
                @match first {
                    Some(first) => (figure(
                        "above the threshold",
                        &grouped(first.flagged),
                        &format!("{} of them", percent(first.share)),
                    )),
                    None => (figure("above the threshold", "none", "the model has no threshold")),
                }
                @if let Some(calibration) = model.calibration() {
                    (figure("threshold", &format!("{:.3}", calibration.threshold), &calibration.rule.to_string()))
                }
                (figure(
                    "greatest score",
                    &format!("{:.3}", evaluation.distribution.max),
                    &format!("mean {:.3}", evaluation.mean),
                ))
                @if let Some(ranking) = &evaluation.labels {
                    (figure("ROC-AUC", &format!("{:.3}", ranking.roc_auc), "chance that an anomaly scores higher"))
                    (figure("average precision", &format!("{:.3}", ranking.average_precision),
                        &format!("{} of all records are anomalies", percent(
                            ranking.anomalies as f64 / (ranking.anomalies + ranking.normal) as f64))))
                }
            }
        }
    }
}

fn count(count: usize, of: &str) -> String {
    format!("{count} {of}{}", if count == 1 { "" } else { "s" })
}

fn unscored(rejected: u64, no_history: u64) -> String {
    match (rejected, no_history) {
        (0, 0) => "none rejected".to_owned(),
        (rejected, 0) => format!("{} rejected", grouped(rejected)),
        (rejected, history) => {
            format!("{} rejected, {} began a series", grouped(rejected), grouped(history))
        }
    }
}

fn figure(name: &str, value: &str, below: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) span { (below) } } } }
}

fn threshold(evaluation: &Evaluation<'_>) -> Option<f64> {
    evaluation.model.calibration().map(|calibration| calibration.threshold)
}

fn course(evaluation: &Evaluation<'_>) -> Markup {
    let area = Area { bottom: 252.0, ..Area::new(1080.0, 300.0) };
    let course = &evaluation.course;
    let len = (evaluation.scored as usize).div_ceil(course.len().max(1)).max(1);
    let threshold = threshold(evaluation);
    let highest = f64::from(evaluation.distribution.max).max(threshold.unwrap_or_default()) * 1.05;
    let x = Scale::linear(0.0, evaluation.scored as f64, area.left, area.right);
    let y = Scale::linear(0.0, highest, area.bottom, area.top);
    let middle = |at: usize| x.at((at as f64 + 0.5) * len as f64).min(area.right);
    let upper = course.iter().enumerate().map(|(at, part)| (middle(at), y.at(part.max.into())));
    let lower =
        course.iter().enumerate().rev().map(|(at, part)| (middle(at), y.at(part.min.into())));
    let band = points(upper.chain(lower));
    let mean =
        points(course.iter().enumerate().map(|(at, part)| (middle(at), y.at(part.mean.into()))));
    let is_above = |score: f32| threshold.is_some_and(|threshold| f64::from(score) > threshold);
    let has_labels = course.iter().any(|part| part.anomalies > 0.0);
    let drawn = html! {
        @for (start, _) in evaluation.inputs.iter().skip(1).take(40) {
            @let at = px(x.at(*start as f64));
            line.file x1=(at) x2=(at) y1=(px(area.top)) y2=(px(area.bottom)) {}
        }
        @if len > 1 { polygon.band points=(band) {} }
        polyline.course points=(mean) {}
        @if let Some(threshold) = threshold { (area.threshold_line(&y, threshold)) }
        @for (at, part) in course.iter().enumerate().filter(|(_, part)| is_above(part.max)) {
            circle.flagged cx=(px(middle(at))) cy=(px(y.at(part.max.into()))) r="2.6" {}
        }
        @if has_labels {
            @let width = (area.right - area.left) / course.len() as f64;
            @for (at, part) in course.iter().enumerate().filter(|(_, part)| part.anomalies > 0.0) {
                rect.label x=(px(area.left + at as f64 * width)) width=(px(width.max(1.0)))
                    y=(px(area.bottom - 7.0)) height="7"
                    opacity=(format!("{:.2}", 0.25 + 0.75 * part.anomalies)) {}
            }
        }
    };
    html! {
        section {
            h2 { "Score, record by record" }
            figure {
                (area.chart("Score, record by record", (&x, "record, in the order of the input"), (&y, "score"), &drawn))
                ul.legend {
                    @if len > 1 {
                        li { span.key.band {} "least to greatest of " (grouped(len as u64)) " records" }
                        li { span.key.line {} "their mean" }
                    } @else { li { span.key.line {} "score" } }
                    @if threshold.is_some() { li { span.key.dot {} "above the threshold" } }
                    @if has_labels { li { span.key.labelled {} "labelled as anomalies" } }
                    @if evaluation.inputs.len() > 1 { li { span.key.file {} "next file" } }
                }
            }
        }
    }
}

fn distribution(evaluation: &Evaluation<'_>) -> Markup {
    let area = Area::new(620.0, 280.0);
    let all = &evaluation.distribution;
    let Distribution { min, max, counts, anomalies } = all;
    let bars = counts.len();
    let x = Scale::linear(f64::from(*min), f64::from(*max), area.left, area.right);
    let most = counts.iter().copied().max().unwrap_or_default();
    let y = Scale::counts(most, area.bottom, area.top);
    let width = (area.right - area.left) / bars as f64;
    let bar = |class: &str, at: usize, count: u64| {
        let top = y.at(count as f64);
        html! {
            rect class=(class) x=(px(area.left + at as f64 * width + 0.5)) width=(px(width - 1.0))
                y=(px(top)) height=(px(area.bottom - top)) {}
        }
    };
    let is_labelled = anomalies.iter().any(|&count| count > 0);
    let drawn = html! {
        @for (at, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            (bar("bar", at, count))
        }
        @for (at, &count) in anomalies.iter().enumerate().filter(|(_, count)| **count > 0) {
            (bar("bar-label", at, count))
        }
        @if let Some(threshold) = threshold(evaluation) { (area.threshold_upright(&x, threshold)) }
    };
    html! {
        section.two {
            div {
                h2 { "Distribution of the scores" }
                figure {
                    (area.chart("Distribution of the scores", (&x, "score"), (&y, "records, on a logarithmic scale"), &drawn))
                    @if is_labelled {
                        ul.legend {
                            li { span.key.bars {} "all records" }
                            li { span.key.labelled {} "labelled as anomalies" }
                        }
                    }
                }
            }
            div {
                h2 { "Thresholds" }
                @if evaluation.thresholds.is_empty() {
                    p { "The model has no threshold." }
                } @else {
                    table {
                        thead { tr { th { "rule" } th.n { "score" } th.n { "expected" } th.n { "flagged" } th.n { "share" } } }
                        tbody {
                            @for row in &evaluation.thresholds {
                                tr {
                                    td { (row.rule) } td.n { (format!("{:.3}", row.threshold)) }
                                    td.n { (row.expected.map(share).unwrap_or_default()) }
                                    td.n { (grouped(row.flagged)) } td.n { (percent(row.share)) }
                                }
                            }
                        }
                    }
                    p.note { "Placed by the scores at calibration; the model's by a quantile lies a little above "
                        "the plain one, so that it promises its rate. Where far more is flagged than expected, "
                        "these records are not of the kind that the model was calibrated on." }
                }
                table {
                    thead { tr { th { "quantile" } th.n { "here" } th.n { "at calibration" } } }
                    tbody {
                        @for row in evaluation.quantiles.iter().filter(|row| SHOWN.contains(&row.share)) {
                            tr {
                                td { (share(row.share)) } td.n { (format!("{:.3}", row.score)) }
                                td.n { (row.calibration.map(|score| format!("{score:.3}")).unwrap_or_default()) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The quantiles that the page shows.
const SHOWN: [f64; 6] = [0.01, 0.5, 0.9, 0.99, 0.999, 1.0];

fn ranked(ranking: &Ranking) -> Markup {
    let area = Area::new(520.0, 300.0);
    let part = |start: f64, end: f64| Scale::linear(0.0, 1.0, start, end);
    let (x, y) = (part(area.left, area.right), part(area.bottom, area.top));
    let curve = points(ranking.curve.iter().map(|at| (x.at(at.recall), y.at(at.precision))));
    let mark =
        |class: &str, x: f64, y: f64| html! { circle class=(class) cx=(px(x)) cy=(px(y)) r="5" {} };
    let base = ranking.anomalies as f64 / (ranking.anomalies + ranking.normal) as f64;
    let precision = html! {
        line.base x1=(px(area.left)) x2=(px(area.right)) y1=(px(y.at(base))) y2=(px(y.at(base))) {}
        polyline.course points=(curve) {}
        @if let Some(at) = &ranking.calibrated { (mark("calibrated", x.at(at.recall), y.at(at.precision))) }
        (mark("best", x.at(ranking.best.recall), y.at(ranking.best.precision)))
    };
    let thresholds = ranking.curve.iter().map(|at| at.threshold);
    let (low, high) = thresholds
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| (low.min(at), high.max(at)));
    let over = Scale::linear(low, high, area.left, area.right);
    let line = |of: fn(&At) -> f64| {
        points(ranking.curve.iter().map(|at| (over.at(at.threshold), y.at(of(at)))))
    };
    let f1 = html! {
        polyline.thin points=(line(|at| at.precision)) {}
        polyline.thin-recall points=(line(|at| at.recall)) {}
        polyline.course points=(line(|at| at.f1)) {}
        @if let Some(at) = &ranking.calibrated { (mark("calibrated", over.at(at.threshold).clamp(area.left, area.right), y.at(at.f1))) }
        (mark("best", over.at(ranking.best.threshold), y.at(ranking.best.f1)))
    };
    let row = |name: &str, at: &At| {
        html! {
            tr {
                td { (name) } td.n { (format!("{:.3}", at.threshold)) } td.n { (grouped(at.flagged)) }
                td.n { (percent(at.precision)) } td.n { (percent(at.recall)) } td.n { (format!("{:.3}", at.f1)) }
            }
        }
    };
    html! {
        section {
            h2 { "Against the labels" }
            p { (grouped(ranking.anomalies)) " anomalies, " (grouped(ranking.normal)) " normal records"
                @if ranking.unlabelled > 0 { ", " (grouped(ranking.unlabelled)) " without a label" } "." }
            div.two {
                figure {
                    (area.chart("Precision and recall", (&x, "recall: share of the anomalies that is flagged"), (&y, "precision"), &precision))
                    ul.legend {
                        li { span.key.line {} "precision at each recall" }
                        li { span.key.base {} "flagging at random" }
                    }
                }
                figure {
                    (area.chart("Precision, recall and F1 over thresholds", (&over, "threshold"), (&y, "F1, precision, recall"), &f1))
                    ul.legend {
                        li { span.key.line {} "F1" } li { span.key.thin {} "precision" }
                        li { span.key.thin-recall {} "recall" }
                        li { span.key.mark-best {} "greatest F1" }
                        @if ranking.calibrated.is_some() { li { span.key.mark-calibrated {} "the model's threshold" } }
                    }
                }
            }
            div.two {
                table {
                    thead { tr { th { "threshold" } th.n { "score" } th.n { "flagged" } th.n { "precision" } th.n { "recall" } th.n { "F1" } } }
                    tbody {
                        (row("greatest F1", &ranking.best))
                        @if let Some(at) = &ranking.calibrated { (row("the model's", at)) }
                    }
                }
                table {
                    thead { tr { th { "most unusual" } th.n { "precision" } th.n { "recall" } } }
                    tbody {
                        @for first in &ranking.first {
                            tr { td { (grouped(first.records)) } td.n { (percent(first.precision)) } td.n { (percent(first.recall)) } }
                        }
                    }
                }
            }
        }
    }
}

fn top(evaluation: &Evaluation<'_>) -> Markup {
    if evaluation.top.is_empty() {
        return html! {};
    }
    let shingled = evaluation.model.features().spec().shingle_size() > 1;
    html! {
        section {
            h2 { "The " (evaluation.top.len()) " most unusual records" }
            p.note {
                "Beside each feature: its part of the score, and its value "
                @if shingled {
                    "in the newest record, then in all records of the point, with the one that most of the part comes from marked; shaded is "
                } @else { "on the range of training; dark is " }
                "where 98 % of the training records lie."
            }
            ol.top {
                @for top in &evaluation.top { (top_record(evaluation, top)) }
            }
        }
    }
}

fn top_record(evaluation: &Evaluation<'_>, top: &Top<'_>) -> Markup {
    let times = threshold(evaluation).filter(|threshold| *threshold > 0.0);
    let times = times.map(|threshold| f64::from(top.verdict.score()) / threshold);
    let values: Vec<&Value> = top.verdict.features().map(|(_, value)| value).collect();
    html! {
        li {
            div.record {
                b { (format!("{:.3}", top.verdict.score())) }
                @if let Some(times) = times { span { (format!("{times:.2}")) " × threshold" } }
                @match top.label {
                    Some(true) => span.tag.hit { "labelled anomaly" },
                    Some(false) => span.tag { "labelled normal" },
                    None => {},
                }
                code { (shown::place(&top.verdict)) }
            }
            table.reasons {
                @for reason in shown::reasons(&top.verdict).into_iter().take(REASONS).filter(|reason| reason.share >= 0.005) {
                    (reason_row(evaluation, top, &reason, values.get(reason.feature).copied()))
                }
            }
        }
    }
}

fn reason_row(
    evaluation: &Evaluation<'_>,
    top: &Top<'_>,
    reason: &Reason<'_>,
    value: Option<&Value>,
) -> Markup {
    let features = evaluation.model.features();
    let Some(fitted) = features.fitted().get(reason.feature) else { return html! {} };
    let shown = match value {
        None | Some(Value::Missing) => "missing".to_owned(),
        Some(Value::Number(number)) => describe::value(*number),
        Some(Value::Category(name)) => name.to_string(),
    };
    html! {
        tr {
            td.feature { (reason.name) }
            td.part {
                span.meter { span style=(format!("width:{:.0}%", 100.0 * reason.share)) {} }
                (format!("{:.0} %", 100.0 * reason.share))
            }
            td.value {
                (shown) " "
                @if matches!(fitted, Fitted::Number { .. }) && reason.share >= DIRECTED {
                    span.way { @if reason.is_high { "high" } @else { "low" } }
                }
                @if let Some(lag) = reason.lag.filter(|lag| *lag > 0) {
                    small { ", mostly " (lag) " records before" }
                }
            }
            td.range {
                @match fitted {
                    Fitted::Number { .. } if reason.lag.is_some() => (history(evaluation, top, reason, fitted)),
                    Fitted::Number { .. } => (strip(fitted, value)),
                    _ => (category(fitted, value)),
                }
            }
            td.usual { (usual(fitted)) }
        }
    }
}

fn usual(fitted: &Fitted) -> String {
    match fitted {
        Fitted::Number { p01, p99, .. } => {
            format!("usually {} to {}", describe::value(*p01), describe::value(*p99))
        }
        Fitted::Constant => "always the same in training".to_owned(),
        Fitted::OneHot { categories } => format!("{} categories in training", categories.len()),
        Fitted::Frequency { categories, .. } => {
            format!("{} categories in training", categories.len())
        }
    }
}

/// A value on the range of training, by its coordinate: as the forest sees it.
fn strip(fitted: &Fitted, value: Option<&Value>) -> Markup {
    let Fitted::Number { scaling, min, p01, median, p99, max } = fitted else { return html! {} };
    let coordinate = |x: f64| f64::from(scaling.apply(x));
    let [min, p01, median, p99, max] = [*min, *p01, *median, *p99, *max].map(coordinate);
    let at = match value {
        Some(Value::Number(number)) => coordinate(*number),
        _ => median,
    };
    let (low, high) = (min.min(at), max.max(at));
    let x = Scale::linear(low, high, 6.0, 254.0);
    html! {
        svg.strip viewBox="0 0 260 18" role="img" aria-label="its place on the range of training" {
            rect.seen x=(px(x.at(min))) width=(px((x.at(max) - x.at(min)).max(2.0))) y="7" height="4" rx="2" {}
            rect.usual x=(px(x.at(p01))) width=(px((x.at(p99) - x.at(p01)).max(2.0))) y="5" height="8" rx="2" {}
            line.median x1=(px(x.at(median))) x2=(px(x.at(median))) y1="3" y2="15" {}
            circle.flagged cx=(px(x.at(at))) cy="9" r="5" {}
        }
    }
}

/// The coordinates of a feature in all records of a point, the oldest first.
fn history(
    evaluation: &Evaluation<'_>,
    top: &Top<'_>,
    reason: &Reason<'_>,
    fitted: &Fitted,
) -> Markup {
    let Fitted::Number { scaling, p01, p99, .. } = fitted else { return html! {} };
    let features = evaluation.model.features();
    let size = features.spec().shingle_size();
    let dimension = features.feature_of_dimension().position(|feature| feature == reason.feature);
    let values: Vec<f64> = top
        .point
        .chunks_exact(features.dimensions() / size)
        .filter_map(|record| record.get(dimension?).copied().map(f64::from))
        .collect();
    let [p01, p99] = [*p01, *p99].map(|x| f64::from(scaling.apply(x)));
    let low = values.iter().copied().fold(p01, f64::min);
    let high = values.iter().copied().fold(p99, f64::max);
    let x = Scale::linear(0.0, (size - 1) as f64, 6.0, 254.0);
    let y = Scale::linear(low, high, 39.0, 5.0);
    let line = points(values.iter().enumerate().map(|(at, value)| (x.at(at as f64), y.at(*value))));
    let peak = reason.lag.and_then(|lag| (size - 1).checked_sub(lag));
    let peak = peak.and_then(|at| values.get(at).map(|value| (x.at(at as f64), y.at(*value))));
    html! {
        svg.history viewBox="0 0 260 44" role="img" aria-label="its values over the records of the point" {
            rect.seen x="6" width="248" y=(px(y.at(p99))) height=(px((y.at(p01) - y.at(p99)).max(1.0))) {}
            polyline.course points=(line) {}
            @if let Some((x, y)) = peak { circle.flagged cx=(px(x)) cy=(px(y)) r="4" {} }
        }
    }
}

fn category(fitted: &Fitted, value: Option<&Value>) -> Markup {
    let Some(Value::Category(name)) = value else { return html! { "no value" } };
    let name: &str = name;
    let known = match fitted {
        Fitted::OneHot { categories } => {
            categories.iter().any(|known| known == name).then_some(None)
        }
        Fitted::Frequency { categories, .. } => {
            let found = categories.iter().find(|(known, _)| known == name);
            found.map(|(_, surprise)| Some((-surprise).exp()))
        }
        Fitted::Number { .. } | Fitted::Constant => Some(None),
    };
    html! {
        @match known {
            None => "not seen in training",
            Some(None) => "seen in training",
            Some(Some(share)) => { (percent(share)) " of training" },
        }
    }
}

/// The features to draw: those with the greatest parts in the records shown, in their own order.
fn drawn_features(evaluation: &Evaluation<'_>) -> Vec<usize> {
    let mut parts = vec![0.0_f32; evaluation.features.len()];
    for top in &evaluation.top {
        for (part, (_, share)) in
            parts.iter_mut().zip(top.verdict.attribution().into_iter().flatten())
        {
            *part += share.share;
        }
    }
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|&a, &b| parts[b].total_cmp(&parts[a]));
    order.truncate(DRAWN_FEATURES);
    order.sort_unstable();
    order
}

fn features(evaluation: &Evaluation<'_>) -> Markup {
    let drawn = drawn_features(evaluation);
    let fitted = evaluation.model.features().fitted();
    let left_out = evaluation.features.len() - drawn.len();
    html! {
        section {
            h2 { "The features, beside training" }
            p.note {
                "Numbers over the range of training, after the transform that the model learned; the bars at "
                "both ends are values beyond it. Heights are logarithmic. Red are flagged records."
                @if left_out > 0 { " " (left_out) " more features are not drawn." }
            }
            div.features {
                @for at in drawn {
                    @if let (Some(range), Some(fitted)) = (evaluation.features.get(at), fitted.get(at)) {
                        (feature(range, fitted))
                    }
                }
            }
        }
    }
}

fn feature(range: &Range, fitted: &Fitted) -> Markup {
    let outside = match range.outside() {
        0.0 => "all within training".to_owned(),
        share => format!("{} beyond training", percent(share)),
    };
    html! {
        figure.feature {
            figcaption { b { (range.name) } span { (outside)
                @if range.missing > 0 { ", " (grouped(range.missing)) " missing" } } }
            @match fitted {
                Fitted::Constant => p.note { "Constant in training, and left out of the points." },
                Fitted::Number { min, median, max, .. } => {
                    (bars(range))
                    p.ends { span { (number(*min)) } span { "median " (number(*median)) } span { (number(*max)) } }
                }
                Fitted::OneHot { categories } => (categories_table(range, categories.iter().map(String::as_str))),
                Fitted::Frequency { categories, .. } =>
                    (categories_table(range, categories.iter().map(|(name, _)| name.as_str()))),
            }
        }
    }
}

fn bars(range: &Range) -> Markup {
    // Values below and above training stand apart at the ends.
    let all = std::iter::once(range.below).chain(range.counts.iter().copied()).chain([range.above]);
    let most = all.clone().max().unwrap_or_default();
    let y = Scale::counts(most, 70.0, 4.0);
    let x = |at: usize| match at {
        0 => 2.0,
        at if at == BINS + 1 => 312.0,
        at => 14.0 + (at - 1) as f64 * (292.0 / BINS as f64),
    };
    let width = 292.0 / BINS as f64 - 1.0;
    html! {
        svg viewBox="0 0 320 72" role="img" aria-label="how its values are distributed" {
            line.axis x1="14" x2="306" y1="70.5" y2="70.5" {}
            @for (at, count) in all.enumerate().filter(|(_, count)| *count > 0) {
                @let top = y.at(count as f64);
                rect.bar x=(px(x(at))) width=(px(width)) y=(px(top)) height=(px(70.0 - top)) {}
            }
            @for (at, &count) in range.flagged.iter().enumerate().filter(|(_, count)| **count > 0) {
                @let top = y.at(count as f64);
                rect.bar-flagged x=(px(x(at))) width=(px(width)) y=(px(top)) height=(px(70.0 - top)) {}
            }
        }
    }
}

fn categories_table<'a>(range: &Range, categories: impl Iterator<Item = &'a str>) -> Markup {
    html! {
        table.categories {
            @for (name, count) in categories.zip(&range.counts).take(6) {
                tr { td { (name) } td.n { (grouped(*count)) } }
            }
            @if range.unseen > 0 { tr { td { i { "not seen in training" } } td.n { (grouped(range.unseen)) } } }
        }
    }
}
