//! The report as a page: one file, its picture drawn in it, and nothing fetched.

use std::fmt::Write as _;
use std::io::{self, Write};

use sawlog_lambda::validation::proportion::Bounded;

use super::{Dot, Report};
use crate::describe::{grouped, percent};

/// Most records that are drawn: a page with more is slow to open. All that either flags come first.
const MAX_DOTS: usize = 6000;
/// The picture's size and its margins, in its own units.
const SIZE: f64 = 640.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 56.0;
const EDGE: f64 = 16.0;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1d2329;--soft:#68737d;--line:#d6dce1;--paper:#fff;
 --both:#b3392b;--local:#0b62a8;--endpoint:#b87400;--neither:#8d98a1}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8eb;--soft:#9aa6af;--line:#3a434a;--paper:#15191c;
 --both:#ff7a68;--local:#5fb2f2;--endpoint:#f2b340;--neither:#7c8790}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:62rem;
 margin:2rem auto;padding:0 1.25rem}
h1{font-size:1.9rem;margin:0}h1+p{margin-top:.3rem}h2{font-size:1.1rem;margin:2rem 0 .6rem}
p{max-width:46rem}.soft{color:var(--soft)}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.3rem .9rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600}td.n,th.n{text-align:right}.wide{overflow-x:auto}
code{font:.85em/1.4 ui-monospace,monospace;overflow-wrap:anywhere}
.two{display:flex;flex-wrap:wrap;gap:2.5rem;align-items:flex-start}
svg{width:100%;max-width:40rem;height:auto;display:block}
svg text{fill:var(--soft);font:13px system-ui,sans-serif}
.axis{stroke:var(--line);fill:none}.cut{stroke:var(--soft);stroke-dasharray:5 4}
.both{fill:var(--both)}.local{fill:var(--local)}.endpoint{fill:var(--endpoint)}
.neither{fill:var(--neither);fill-opacity:.45}
.key span{display:inline-block;width:.75rem;height:.75rem;border-radius:50%;margin:0 .35rem 0 1rem}
.key span:first-child{margin-left:0}
";

/// The scores of one side: from the least to the greatest, and its threshold.
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
    /// The threshold of the last record that has one.
    pub(super) threshold: Option<f64>,
}

impl Axis {
    pub(super) fn of(report: &Report, local: bool) -> Self {
        let scores = report.dots.iter().map(|dot| f64::from(score(dot, local)));
        let (low, high) = scores.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), score| {
            (low.min(score), high.max(score))
        });
        let threshold = report
            .dots
            .iter()
            .rev()
            .find_map(|dot| if local { dot.thresholds.0 } else { dot.thresholds.1 });
        // A threshold that nothing reaches is worth seeing unless it lies far off.
        let reach = threshold.filter(|at| *at > high && *at < high + 0.5 * (high - low));
        Self { low, high: reach.unwrap_or(high), threshold }
    }

    /// Where a score stands between the ends, 0 to 1.
    pub(super) fn share(&self, score: f64) -> f64 {
        let width = self.high - self.low;
        if width > 0.0 { ((score - self.low) / width).clamp(0.0, 1.0) } else { 0.5 }
    }

    /// Round numbers between the ends, some five of them.
    fn ticks(&self) -> Vec<f64> {
        let width = self.high - self.low;
        if width.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
            return vec![self.low];
        }
        let rough = width / 5.0;
        let unit = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * unit);
        let step = step.into_iter().find(|step| *step >= rough).unwrap_or(unit);
        let first = (self.low / step).ceil();
        let ticks = (0..12).map(|at| (first + f64::from(at)) * step);
        ticks.take_while(|tick| *tick <= self.high).collect()
    }
}

fn score(dot: &Dot, local: bool) -> f32 {
    if local { dot.sample.local } else { dot.sample.endpoint }
}

/// Writes the page.
pub(super) fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let count = |count: usize| grouped(count as u64);
    let advice = report.advice.sentence();
    let (heading, reason) = (as_sentence(advice), as_sentence(&report.reason));
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'\"><title>Sawlog: {advice}</title><style>{STYLE}</style></head>\n\
         <body><main><h1>{heading}</h1><p>{}.</p>\n",
        escaped(&reason)
    )?;
    writeln!(
        out,
        "<p class=\"soft\">{} records scored by model <code>{}</code> and by endpoint <code>{}</code>\
         {}{}{}.</p>",
        count(report.pairs),
        escaped(&report.model),
        escaped(&report.endpoint),
        left_out(report.failed, "more have no score from the endpoint"),
        left_out(report.repeated, "were captured again and count once"),
        left_out(report.others, "of other models or endpoints are left out"),
    )?;
    writeln!(out, "<div class=\"two\"><section><h2>Decisions</h2>{}</section>", decisions(report))?;
    writeln!(out, "<section><h2>Measures</h2>{}</section></div>", measures(report))?;
    writeln!(out, "<h2>Both scores of each record</h2>{}", picture(report))?;
    writeln!(out, "<h2>Records on which they differ most</h2>{}", differences(report))?;
    writeln!(out, "</main></body></html>")
}

/// With a capital letter.
fn as_sentence(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

fn left_out(count: usize, what: &str) -> String {
    if count == 0 { String::new() } else { format!("; {} {what}", grouped(count as u64)) }
}

fn decisions(report: &Report) -> String {
    let table = report.decisions;
    if table.either() + table.neither == 0 {
        return "<p>Not compared: one of both has no threshold.</p>".to_owned();
    }
    let count = |count: usize| grouped(count as u64);
    format!(
        "<table><tr><th></th><th class=\"n\">endpoint flags it</th><th class=\"n\">does not</th></tr>\
         <tr><th>model flags it</th><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\
         <tr><th>does not</th><td class=\"n\">{}</td><td class=\"n\">{}</td></tr></table>",
        count(table.both),
        count(table.only_local),
        count(table.only_endpoint),
        count(table.neither),
    )
}

fn measures(report: &Report) -> String {
    let mut rows = String::new();
    let mut row = |name: &str, value: String, bounds: String| {
        // Writing to a string can't fail.
        let _ = write!(
            rows,
            "<tr><td>{name}</td><td class=\"n\">{value}</td><td class=\"soft\">{bounds}</td></tr>"
        );
    };
    let to = |low: String, high: String| format!("{low} to {high}");
    for (name, share) in [
        ("Of what either flags, flagged by one alone", report.differing),
        ("Of one's most unusual 5 %, not among the other's", report.tops_missing),
    ] {
        if let Some(Bounded { value, low, high }) = share {
            row(name, percent(value), to(percent(low), percent(high)));
        }
    }
    if let Some(Bounded { value, low, high }) = report.rank_correlation {
        row(
            "Rank correlation",
            format!("{value:.3}"),
            to(format!("{low:.3}"), format!("{high:.3}")),
        );
    }
    for quantile in &report.quantiles {
        row(
            &format!("Score that {} exceed, model and endpoint", percent(1.0 - quantile.share)),
            format!("{:.3}", quantile.local),
            format!("{:.3}", quantile.endpoint),
        );
    }
    for (who, latency) in [("model", report.local_latency), ("endpoint", report.endpoint_latency)] {
        if let Some(latency) = latency {
            row(
                &format!("Time of the {who} for {} records", grouped(latency.rows as u64)),
                format!("{:.2} ms", latency.p50_ms),
                format!("99 %: {:.2} ms", latency.p99_ms),
            );
        }
    }
    for (reason, count) in &report.failures {
        row(&format!("No score: {}", escaped(reason)), grouped(*count as u64), String::new());
    }
    format!("<table>{rows}</table>")
}

fn class(dot: &Dot) -> (&'static str, &'static str) {
    match dot.sample.flagged {
        Some(both) if both.local && both.endpoint => ("both", "flagged by both"),
        Some(both) if both.local => ("local", "flagged by the model alone"),
        Some(both) if both.endpoint => ("endpoint", "flagged by the endpoint alone"),
        _ => ("neither", "flagged by neither"),
    }
}

fn picture(report: &Report) -> String {
    let (x, y) = (Axis::of(report, true), Axis::of(report, false));
    let (right, top) = (SIZE - EDGE, EDGE);
    let at_x = |score: f64| LEFT + x.share(score) * (right - LEFT);
    let at_y = |score: f64| SIZE - BOTTOM - y.share(score) * (SIZE - BOTTOM - top);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {SIZE} {SIZE}\" role=\"img\" aria-label=\"Scatter of the model's scores \
         against the endpoint's\">"
    );
    let floor = SIZE - BOTTOM;
    let _ = write!(svg, "<path class=\"axis\" d=\"M{LEFT} {top}V{floor}H{right}\"/>");
    for tick in x.ticks() {
        let (at, below) = (at_x(tick), floor + 18.0);
        let _ = write!(svg, "<path class=\"axis\" d=\"M{at:.1} {floor}v5\"/>");
        let _ = write!(
            svg,
            "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{}</text>",
            short(tick)
        );
    }
    for tick in y.ticks() {
        let (at, beside) = (at_y(tick), LEFT - 9.0);
        let _ = write!(svg, "<path class=\"axis\" d=\"M{LEFT} {at:.1}h-5\"/>");
        let base = at + 4.5;
        let _ = write!(
            svg,
            "<text x=\"{beside}\" y=\"{base:.1}\" text-anchor=\"end\">{}</text>",
            short(tick)
        );
    }
    let middle = f64::midpoint(LEFT, right);
    let _ = write!(
        svg,
        "<text x=\"{middle}\" y=\"{:.0}\" text-anchor=\"middle\">score of the model</text>",
        SIZE - 10.0
    );
    let middle = f64::midpoint(top, floor);
    let _ = write!(
        svg,
        "<text transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">\
         score of the endpoint</text>"
    );
    // What matters is drawn last, over the others.
    let (flagged, rest): (Vec<&Dot>, Vec<&Dot>) =
        report.dots.iter().partition(|dot| class(dot).0 != "neither");
    let room = MAX_DOTS.saturating_sub(flagged.len());
    let every = rest.len().div_ceil(room.max(1)).max(1);
    let drawn = rest.iter().step_by(every).chain(flagged.iter().take(MAX_DOTS));
    for dot in drawn {
        let (class, text) = class(dot);
        let (cx, cy) = (at_x(f64::from(dot.sample.local)), at_y(f64::from(dot.sample.endpoint)));
        let radius = if class == "neither" { 2.2 } else { 3.6 };
        let _ = write!(
            svg,
            "<circle class=\"{class}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"{radius}\"><title>{}: {:.3} and \
             {:.3}, {text}</title></circle>",
            escaped(&dot.id),
            dot.sample.local,
            dot.sample.endpoint,
        );
    }
    if let Some(at) = x.threshold.filter(|at| (x.low..=x.high).contains(at)) {
        let at = at_x(at);
        let _ = write!(svg, "<path class=\"cut\" d=\"M{at:.1} {top}V{floor}\"/>");
    }
    if let Some(at) = y.threshold.filter(|at| (y.low..=y.high).contains(at)) {
        let at = at_y(at);
        let _ = write!(svg, "<path class=\"cut\" d=\"M{LEFT} {at:.1}H{right}\"/>");
    }
    svg.push_str("</svg>");
    let left_out = rest.len() - rest.len().div_ceil(every);
    let more = match left_out {
        0 => String::new(),
        _ => format!(" Of those that neither flags, one in {every} is drawn."),
    };
    format!(
        "<p class=\"key\"><span style=\"background:var(--both)\"></span>flagged by both\
         <span style=\"background:var(--local)\"></span>by the model alone\
         <span style=\"background:var(--endpoint)\"></span>by the endpoint alone\
         <span style=\"background:var(--neither)\"></span>by neither</p>{svg}\
         <p class=\"soft\">Dashed: the thresholds.{more}</p>"
    )
}

fn differences(report: &Report) -> String {
    if report.differ_most.is_empty() {
        return "<p>None was asked for.</p>".to_owned();
    }
    let mut rows = String::new();
    for difference in &report.differ_most {
        let features = difference.features.as_ref().map_or_else(String::new, |features| {
            format!("<br><code class=\"soft\">{}</code>", escaped(features.get()))
        });
        let _ = write!(
            rows,
            "<tr><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td><code>{}</code>{features}</td></tr>",
            super::text::times(difference.times),
            super::text::said(difference.local),
            super::text::said(difference.endpoint),
            escaped(&difference.id),
        );
    }
    format!(
        "<p class=\"soft\">Times: how much more unusual one finds it than the other. Scores stand with the \
         share of the records that have as high a one; * is flagged.</p>\
         <div class=\"wide\"><table><tr><th class=\"n\">times</th><th class=\"n\">model</th>\
         <th class=\"n\">endpoint</th><th>record</th></tr>{rows}</table></div>"
    )
}

/// A number on an axis.
fn short(x: f64) -> String {
    let text = format!("{x:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Text in a page.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_capture_is_markup() {
        let said = escaped("<script>\"a\" & b</script>\u{1b}");
        assert_eq!(said, "&lt;script&gt;&quot;a&quot; &amp; b&lt;/script&gt;\u{fffd}");
    }

    #[test]
    fn ticks_are_round_and_within_the_axis() {
        for (low, high) in [(0.3, 4.7), (0.0, 1e-3), (12.0, 90_000.0), (1.0, 1.0)] {
            let axis = Axis { low, high, threshold: None };
            let ticks = axis.ticks();
            assert!((1..=11).contains(&ticks.len()), "{low} to {high}: {ticks:?}");
            assert!(ticks.iter().all(|tick| (low..=high).contains(tick)), "{ticks:?}");
        }
    }
}
