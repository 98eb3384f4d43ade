//! The gate that a model passes before functions score by it: is it like the one that it replaces?
//!
//! - It can be read, and says what it needs of a record. Nothing overrules that.
//! - Its specification is the same: format, features by name, field, encoding and missing rule, in their
//!   order, and the shingle. Else records that were scored may be rejected, results change their
//!   attributes, and an endpoint is asked for rows that it doesn't know. What training learned from the
//!   records, transforms and categories, may differ.
//! - It has a threshold if the old one has.
//! - Of a sample it flags about as many as the old one: refused is what is out of bounds, by default a third
//!   to three times, *and* more than chance explains. A quantile of 0.999 flags ten of 10,000 records, and
//!   another sound model may well flag five of them or twenty.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, ensure};
use sawlog_lambda::validation::proportion::bounds;
use sawlog_model::spec::{Encoding, FeatureSpec, Transform};
use sawlog_model::{Model, ValidSpec};

use crate::describe::{grouped, percent};
use crate::input;
use crate::scoring::{Found, Scoring};

/// Fewest records of a sample that both models score: of less than a thousand, a threshold that flags one in
/// a thousand says nothing.
const MIN_SAMPLE: u64 = 1000;

/// Chance, on either side, of taking an equal share for a different one. Once in a hundred publications is
/// rare, and the bounds must be left too.
const MAX_CHANCE: f64 = 0.01;

/// More rejected records than the old model's, as a share of the sample.
const MAX_MORE_REJECTED: f64 = 0.01;

/// Differences of specifications that are told one by one.
const MAX_DIFFERENCES: usize = 10;

/// How much more or less than the old model a new one may flag.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds {
    least: f64,
    most: f64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { least: 1.0 / 3.0, most: 3.0 }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} to {:.2} times", self.least, self.most)
    }
}

impl FromStr for Bounds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "not LEAST..MOST, two factors on both sides of 1, such as 0.5..2";
        let (least, most) = text.split_once("..").ok_or(expected)?;
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
        let (least, most) = number(least).zip(number(most)).ok_or(expected)?;
        let sound = (0.0..=1.0).contains(&least) && most >= 1.0;
        if sound { Ok(Self { least, most }) } else { Err(expected) }
    }
}

/// What a model does with a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags {
    read: u64,
    rejected: u64,
    scored: u64,
    flagged: u64,
}

impl Flags {
    /// Scores the records of some files.
    pub(crate) fn of(model: &Model, sample: &[String]) -> anyhow::Result<Self> {
        let (mut scored, mut flagged) = (0, 0);
        let sources = input::resolve(sample)?;
        let run = Scoring::new(model).run(
            &sources,
            |_, _, _| Ok(()),
            |_, found| {
                if let Found::Scored { scored: it, .. } = found {
                    scored += 1;
                    flagged += u64::from(it.by.is_anomaly(it.score));
                }
                Ok(())
            },
        );
        let tally = run.context("--sample")?;
        Ok(Self { read: tally.read, rejected: tally.rejected, scored, flagged })
    }

    fn share(&self) -> f64 {
        share(self.flagged, self.scored)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (flagged, scored) = (grouped(self.flagged), grouped(self.scored));
        write!(f, "{flagged} of {scored} ({})", percent(self.share()))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(count: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { count as f64 / of as f64 }
}

/// What speaks against a specification in another's place.
pub(crate) fn differences(old: &ValidSpec, new: &ValidSpec) -> Vec<String> {
    let mut found = Vec::new();
    if old.format() != new.format() {
        found.push("the format of records is another".to_owned());
    }
    if old.shingle() != new.shingle() {
        found.push("the shingle is another".to_owned());
    }
    let by_name = |spec: &ValidSpec, name: &str| -> Option<FeatureSpec> {
        spec.features().iter().find(|feature| feature.name == name).cloned()
    };
    for feature in old.features() {
        let name = &feature.name;
        match by_name(new, name) {
            None => found.push(format!("feature {name} is gone")),
            Some(now) if now.field != feature.field => {
                found.push(format!(
                    "feature {name} reads {} instead of {}",
                    now.field, feature.field
                ));
            }
            Some(now) if kind(now.encoding) != kind(feature.encoding) => {
                found.push(format!("feature {name} is encoded otherwise"));
            }
            Some(now) if now.missing != feature.missing => {
                found.push(format!("feature {name} has another rule for what is missing"));
            }
            Some(_) => {}
        }
    }
    for feature in new.features() {
        if by_name(old, &feature.name).is_none() {
            found.push(format!("feature {} is new", feature.name));
        }
    }
    let names = |spec: &ValidSpec| -> Vec<String> {
        spec.features().iter().map(|feature| feature.name.clone()).collect()
    };
    if found.is_empty() && names(old) != names(new) {
        found.push("the features are in another order".to_owned());
    }
    let more = found.len().saturating_sub(MAX_DIFFERENCES);
    found.truncate(MAX_DIFFERENCES);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    found
}

/// An encoding without the transform, which may be learned anew.
fn kind(encoding: Encoding) -> Encoding {
    match encoding {
        Encoding::Number(_) => Encoding::Number(Transform::None),
        other => other,
    }
}

/// What speaks against a threshold in another's place.
pub(crate) fn threshold(old: &Model, new: &Model) -> Option<String> {
    let lost = old.calibration().is_some() && new.calibration().is_none();
    lost.then(|| {
        "it has no threshold and would flag nothing; `sawlog calibrate` sets one".to_owned()
    })
}

/// What speaks against what is flagged of a sample.
pub(crate) fn flags(old: &Flags, new: &Flags, allowed: Bounds) -> Vec<String> {
    let mut found = Vec::new();
    let more = share(new.rejected, new.read) - share(old.rejected, old.read);
    if more > MAX_MORE_REJECTED {
        found.push(format!(
            "of the sample it can't read {} of {} records, the current model {}",
            grouped(new.rejected),
            grouped(new.read),
            grouped(old.rejected)
        ));
    }
    let scored = old.scored.min(new.scored);
    if scored < MIN_SAMPLE {
        found.push(format!(
            "the sample has {} records with a score; {} are needed to compare what is flagged",
            grouped(scored),
            grouped(MIN_SAMPLE)
        ));
    }
    let (was, is) = (old.share(), new.share());
    let is_out = is > allowed.most * was || is < allowed.least * was;
    if is_out && !is_chance(old, new) {
        found.push(format!(
            "it flags {new} of the sample, the current model {old}: not {allowed} as many, and more \
             than chance"
        ));
    }
    found
}

/// True if two equal shares may well differ as much: of all records that either flags, half and half.
fn is_chance(old: &Flags, new: &Flags) -> bool {
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX / 2);
    let (old, new) = (count(old.flagged), count(new.flagged));
    bounds(new, old + new, MAX_CHANCE).is_none_or(|half| half.low <= 0.5 && half.high >= 0.5)
}

/// Refuses standard input, which can't be read for each model anew.
pub(crate) fn check_sample(sample: &[String]) -> anyhow::Result<()> {
    let is_standard = sample.iter().any(|path| path == "-");
    ensure!(!is_standard, "--sample -: a sample is read for each model, standard input only once");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> ValidSpec {
        ValidSpec::from_toml(text).expect("a specification")
    }

    const BASE: &str = "format = \"json\"
[[feature]]
name = \"ms\"
field = \"/ms\"
[[feature]]
name = \"path\"
field = \"/path\"
encode = \"one_hot\"
";

    #[test]
    fn what_would_break_is_named_and_what_is_learned_may_differ() {
        let old = spec(BASE);
        let changed = |from: &str, to: &str| {
            assert!(BASE.contains(from), "{from}");
            differences(&old, &spec(&BASE.replace(from, to)))
        };
        assert!(differences(&old, &old).is_empty());
        let transformed = changed("field = \"/ms\"", "field = \"/ms\"\ntransform = \"log1p\"");
        assert!(transformed.is_empty(), "{transformed:?}");
        for (from, to, words) in [
            ("\"json\"", "\"logfmt\"", "the format of records is another"),
            ("name = \"ms\"", "name = \"took\"", "feature ms is gone"),
            ("name = \"ms\"", "name = \"took\"", "feature took is new"),
            ("\"/ms\"", "\"/us\"", "feature ms reads /us instead of /ms"),
            ("one_hot", "frequency", "feature path is encoded otherwise"),
            ("\"/ms\"", "\"/ms\"\nmissing = \"reject\"", "feature ms has another rule"),
            ("format", "shingle = { size = 2 }\nformat", "the shingle is another"),
        ] {
            let found = changed(from, to);
            assert!(found.iter().any(|it| it.contains(words)), "expected {words}, got {found:?}");
        }
        let parts: Vec<&str> = BASE.split("[[feature]]").collect();
        let turned = [parts[0], parts[2], parts[1]].join("[[feature]]");
        assert_eq!(differences(&old, &spec(&turned)), ["the features are in another order"]);
    }

    fn of(flagged: u64, scored: u64) -> Flags {
        Flags { read: scored, rejected: 0, scored, flagged }
    }

    #[test]
    fn what_is_flagged_is_refused_out_of_bounds_and_beyond_chance() {
        let refused = |old: u64, new: u64| {
            !flags(&of(old, 10_000), &of(new, 10_000), Bounds::default()).is_empty()
        };
        for (old, new) in [(10, 10), (10, 29), (10, 4), (0, 0), (0, 5), (1, 6), (6, 1), (100, 290)]
        {
            assert!(!refused(old, new), "{new} for {old}");
        }
        for (old, new) in [(10, 40), (40, 10), (0, 10), (10, 0), (1, 15), (100, 310), (100, 33)] {
            assert!(refused(old, new), "{new} for {old}");
        }
        let tight = Bounds::from_str("0.9..1.1").expect("bounds");
        assert!(!flags(&of(1000, 10_000), &of(1200, 10_000), tight).is_empty());
        let found = flags(&of(1, 999), &of(1, 999), Bounds::default());
        assert!(found[0].contains("999 records with a score; 1,000 are needed"), "{found:?}");
        let unread = Flags { rejected: 200, ..of(10, 10_000) };
        let found = flags(&of(10, 10_000), &unread, Bounds::default());
        assert!(found[0].contains("can't read 200 of 10,000"), "{found:?}");
    }

    #[test]
    fn bounds_are_two_factors_about_one() {
        assert_eq!("0.5..2".parse(), Ok(Bounds { least: 0.5, most: 2.0 }));
        assert_eq!("0..1".parse(), Ok(Bounds { least: 0.0, most: 1.0 }));
        for text in ["", "2", "2..0.5", "1.1..2", "0.5..0.9", "a..b", "-1..2", "0.5..inf", "NaN..2"]
        {
            assert!(text.parse::<Bounds>().is_err(), "{text}");
        }
    }
}
