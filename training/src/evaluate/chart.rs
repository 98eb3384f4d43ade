//! Charts as inline SVG: an area with two scales, its axes, and what is drawn in it.

use maud::{Markup, html};

use crate::describe;

/// A line or a bar's way from data to the picture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    from: (f64, f64),
    to: (f64, f64),
    is_log: bool,
}

impl Scale {
    /// From `low..high` to `start..end`; an empty range is widened.
    pub(crate) fn linear(low: f64, high: f64, start: f64, end: f64) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self { from: (low, high), to: (start, end), is_log: false }
    }

    /// Counts from half a one, so that one is a bar too, to `high`.
    pub(crate) fn counts(high: u64, start: f64, end: f64) -> Self {
        let high = (high.max(9) as f64).log10() * 1.04;
        Self { from: (0.5_f64.log10(), high), to: (start, end), is_log: true }
    }

    /// Where a value stands.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let value = if self.is_log { value.max(0.5).log10() } else { value };
        let part = (value - self.from.0) / (self.from.1 - self.from.0);
        self.to.0 + part * (self.to.1 - self.to.0)
    }

    /// Round values along the scale, about `count` of them.
    pub(crate) fn ticks(&self, count: u32) -> Vec<f64> {
        let (low, high) = self.from;
        if self.is_log {
            return (0..=18)
                .map(|power| 10_f64.powi(power))
                .filter(|x| x.log10() <= high)
                .collect();
        }
        let rough = (high - low) / f64::from(count.max(1));
        let power = 10_f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
        let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let first = (low / step).ceil();
        let ticks = (0..=2 * count).map(|i| (first + f64::from(i)) * step);
        // Minus zero and the dust of adding up are shown as what they stand for.
        ticks.take_while(|tick| *tick <= high + step * 1e-9).map(|tick| tick + 0.0).collect()
    }
}

/// A tick's label: as many digits as the steps need.
pub(crate) fn number(x: f64) -> String {
    let short = |x: f64, unit: &str| {
        let text = format!("{x:.2}");
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match x.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e15).contains(&size) => format!("{x:.1e}"),
        size if size >= 1e12 => short(x / 1e12, " T"),
        size if size >= 1e9 => short(x / 1e9, " G"),
        size if size >= 1e6 => short(x / 1e6, " M"),
        size if size >= 1e4 => short(x / 1e3, " k"),
        size if size < 0.1 => {
            let text = format!("{x:.4}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => short(x, ""),
    }
}

/// The same where there is room for all digits of a count.
fn along(x: f64) -> String {
    if (1e3..1e6).contains(&x) { describe::value(x) } else { number(x) }
}

/// A coordinate in the picture, to a tenth of a pixel.
pub(crate) fn px(x: f64) -> String {
    format!("{:.1}", x + 0.0)
}

/// The area of a chart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Area {
    pub width: f64,
    pub height: f64,
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
}

impl Area {
    /// An area with room for the labels of its axes.
    pub(crate) fn new(width: f64, height: f64) -> Self {
        Self { width, height, left: 52.0, right: width - 14.0, top: 14.0, bottom: height - 38.0 }
    }

    /// Frame, ticks and names of both axes around what is drawn.
    pub(crate) fn chart(
        &self,
        title: &str,
        (x, x_name): (&Scale, &str),
        (y, y_name): (&Scale, &str),
        drawn: &Markup,
    ) -> Markup {
        let Area { width, height, left, right, top, bottom } = *self;
        let x_count = if width > 700.0 { 10 } else { 6 };
        html! {
            svg viewBox=(format!("0 0 {width} {height}")) role="img" aria-label=(title) {
                title { (title) }
                @for tick in y.ticks(5) {
                    @let at = px(y.at(tick));
                    line.grid x1=(px(left)) x2=(px(right)) y1=(at) y2=(at) {}
                    text.tick x=(px(left - 7.0)) y=(at) dy="0.32em" text-anchor="end" { (number(tick)) }
                }
                (drawn)
                line.axis x1=(px(left)) x2=(px(right)) y1=(px(bottom)) y2=(px(bottom)) {}
                @for tick in x.ticks(x_count) {
                    @let at = px(x.at(tick));
                    line.axis x1=(at) x2=(at) y1=(px(bottom)) y2=(px(bottom + 4.0)) {}
                    text.tick x=(at) y=(px(bottom + 16.0)) text-anchor="middle" { (along(tick)) }
                }
                text.name x=(px(f64::midpoint(left, right))) y=(px(height - 5.0)) text-anchor="middle" {
                    (x_name)
                }
                text.name transform=(format!("translate(11 {}) rotate(-90)", px(f64::midpoint(top, bottom))))
                    text-anchor="middle" { (y_name) }
            }
        }
    }

    /// A threshold across the area, with its name above its end.
    pub(crate) fn threshold_line(&self, y: &Scale, threshold: f64) -> Markup {
        let at = y.at(threshold);
        if !(self.top..=self.bottom).contains(&at) {
            return html! {};
        }
        let name_at = if at - 6.0 < self.top + 6.0 { at + 13.0 } else { at - 5.0 };
        html! {
            line.threshold x1=(px(self.left)) x2=(px(self.right)) y1=(px(at)) y2=(px(at)) {}
            text.threshold x=(px(self.left + 6.0)) y=(px(name_at)) {
                "threshold " (format!("{threshold:.3}"))
            }
        }
    }

    /// The same upright.
    pub(crate) fn threshold_upright(&self, x: &Scale, threshold: f64) -> Markup {
        let at = x.at(threshold);
        if !(self.left..=self.right).contains(&at) {
            return html! {};
        }
        let (anchor, name_at) =
            if at > self.right - 110.0 { ("end", at - 5.0) } else { ("start", at + 5.0) };
        html! {
            line.threshold x1=(px(at)) x2=(px(at)) y1=(px(self.top)) y2=(px(self.bottom)) {}
            text.threshold x=(px(name_at)) y=(px(self.top + 9.0)) text-anchor=(anchor) {
                "threshold " (format!("{threshold:.3}"))
            }
        }
    }
}

/// The corners of a line, for `points` and `d`.
pub(crate) fn points(corners: impl Iterator<Item = (f64, f64)>) -> String {
    let corners: Vec<String> = corners.map(|(x, y)| format!("{},{}", px(x), px(y))).collect();
    corners.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_scale() {
        let cases: [(f64, f64, &[f64]); 4] = [
            (0.0, 1.0, &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
            (-3.0, 12.0, &[0.0, 5.0, 10.0]),
            (0.0, 53_962.0, &[0.0, 20_000.0, 40_000.0]),
            (2.0, 2.0, &[2.0, 2.2, 2.4, 2.6, 2.8, 3.0]),
        ];
        for (low, high, want) in cases {
            let got = Scale::linear(low, high, 0.0, 100.0).ticks(5);
            let same = got.len() == want.len()
                && got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-9);
            assert!(same, "{low} to {high}: got {got:?}, want {want:?}");
        }
        assert_eq!(Scale::counts(2500, 0.0, 1.0).ticks(5), [1.0, 10.0, 100.0, 1000.0]);
    }

    #[test]
    fn numbers_on_axes_are_short() {
        let cases = [
            (0.0, "0"),
            (0.05, "0.05"),
            (0.25, "0.25"),
            (3.0, "3"),
            (1200.0, "1200"),
            (20_000.0, "20 k"),
            (4_692_297.0, "4.69 M"),
            (-1.08e10, "-10.8 G"),
            (1e-7, "1.0e-7"),
        ];
        for (x, want) in cases {
            assert_eq!(number(x), want);
        }
    }
}
