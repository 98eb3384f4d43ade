//! The values of a feature in some records beside those of training: how many lie where, in bounded
//! memory whatever the number of records.

use sawlog_model::{Fitted, Value};
use serde::Serialize;

/// Bins over the range of training.
pub(crate) const BINS: usize = 40;
/// Most categories counted one by one.
const MAX_COUNTED: usize = 64;

/// Where the values of one feature lie.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Range {
    /// The feature.
    pub name: String,
    /// Records with the field.
    pub present: u64,
    /// Records without it.
    pub missing: u64,
    /// Numbers below the least of training.
    pub below: u64,
    /// Numbers above the greatest of training.
    pub above: u64,
    /// Categories that training didn't see.
    pub unseen: u64,
    /// Least number; `None` without numbers.
    pub min: Option<f64>,
    /// Greatest number.
    pub max: Option<f64>,
    /// Numbers between training's least and greatest, in bins of equal width after the transform; of a
    /// category the records with each of the commonest categories of training.
    pub counts: Vec<u64>,
    /// The same of the flagged records, with those below and above as first and last entry.
    #[serde(skip)]
    pub flagged: Vec<u64>,
}

impl Range {
    /// No records yet.
    pub(crate) fn new(name: &str, fitted: &Fitted) -> Self {
        let bins = match fitted {
            Fitted::Constant => 0,
            Fitted::Number { .. } => BINS,
            Fitted::OneHot { categories } => categories.len().min(MAX_COUNTED),
            Fitted::Frequency { categories, .. } => categories.len().min(MAX_COUNTED),
        };
        Self {
            name: name.to_owned(),
            present: 0,
            missing: 0,
            below: 0,
            above: 0,
            unseen: 0,
            min: None,
            max: None,
            counts: vec![0; bins],
            flagged: vec![0; bins + 2],
        }
    }

    /// Counts a record's value.
    pub(crate) fn take(&mut self, fitted: &Fitted, value: &Value, is_flagged: bool) {
        let slot = match (value, fitted) {
            (Value::Missing, _) => {
                self.missing += 1;
                return;
            }
            (Value::Number(number), _) => {
                self.min = Some(self.min.map_or(*number, |min| min.min(*number)));
                self.max = Some(self.max.map_or(*number, |max| max.max(*number)));
                number_slot(fitted, *number)
            }
            (Value::Category(name), Fitted::OneHot { categories }) => {
                category_slot(categories.iter().map(String::as_str), name)
            }
            (Value::Category(name), Fitted::Frequency { categories, .. }) => {
                category_slot(categories.iter().map(|(name, _)| name.as_str()), name)
            }
            (Value::Category(_), _) => None,
        };
        self.present += 1;
        let Some(slot) = slot else { return };
        match slot {
            Slot::Below => self.below += 1,
            Slot::Above => self.above += 1,
            Slot::Unseen => self.unseen += 1,
            Slot::At(at) => {
                if let Some(count) = self.counts.get_mut(at) {
                    *count += 1;
                }
            }
        }
        if is_flagged {
            let last = self.flagged.len() - 1;
            let at = match slot {
                Slot::Below => 0,
                Slot::Above | Slot::Unseen => last,
                Slot::At(at) => at + 1,
            };
            if let Some(count) = self.flagged.get_mut(at.min(last)) {
                *count += 1;
            }
        }
    }

    /// Share of the values that lie outside of training's range, or are categories it didn't see.
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub(crate) fn outside(&self) -> f64 {
        (self.below + self.above + self.unseen) as f64 / self.present.max(1) as f64
    }
}

enum Slot {
    Below,
    At(usize),
    Above,
    Unseen,
}

fn number_slot(fitted: &Fitted, number: f64) -> Option<Slot> {
    let Fitted::Number { scaling, min, max, .. } = fitted else { return None };
    if number < *min {
        return Some(Slot::Below);
    }
    if number > *max {
        return Some(Slot::Above);
    }
    let [low, at, high] = [*min, number, *max].map(|x| f64::from(scaling.apply(x)));
    let part = if high > low { (at - low) / (high - low) } else { 0.0 };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a part between 0 and 1"
    )]
    let bin = (part * BINS as f64) as usize;
    Some(Slot::At(bin.min(BINS - 1)))
}

fn category_slot<'a>(mut known: impl Iterator<Item = &'a str>, name: &str) -> Option<Slot> {
    // One that is known but not counted alone is neither unseen nor shown.
    let at = known.position(|category| category == name);
    Some(at.map_or(Slot::Unseen, Slot::At))
}

#[cfg(test)]
mod tests {
    use sawlog_model::Scaling;

    use super::*;

    #[test]
    fn numbers_are_counted_below_within_and_above_training() {
        let scaling = Scaling { log_unit: 0.0, center: 0.0, scale: 1.0 };
        let fitted =
            Fitted::Number { scaling, min: 10.0, p01: 11.0, median: 20.0, p99: 49.0, max: 50.0 };
        let mut range = Range::new("x", &fitted);
        for (number, is_flagged) in
            [(9.0, true), (10.0, false), (10.9, false), (49.5, false), (50.0, false), (51.0, true)]
        {
            range.take(&fitted, &Value::Number(number), is_flagged);
        }
        range.take(&fitted, &Value::Missing, true);
        assert_eq!((range.present, range.missing, range.below, range.above), (6, 1, 1, 1));
        assert_eq!((range.counts[0], range.counts[BINS - 1]), (2, 2), "{:?}", range.counts);
        assert_eq!((range.flagged[0], range.flagged[BINS + 1]), (1, 1));
        assert_eq!((range.min, range.max), (Some(9.0), Some(51.0)));
        assert!((range.outside() - 1.0 / 3.0).abs() < 1e-12, "{}", range.outside());
    }

    #[test]
    fn categories_are_counted_by_name_and_new_ones_apart() {
        let fitted = Fitted::OneHot { categories: vec!["a".into(), "b".into()] };
        let mut range = Range::new("x", &fitted);
        for name in ["b", "b", "a", "c"] {
            range.take(&fitted, &Value::Category(name.into()), name == "c");
        }
        assert_eq!((&range.counts[..], range.unseen), (&[1, 2][..], 1));
        assert_eq!(range.flagged, [0, 0, 0, 1]);
    }
}
