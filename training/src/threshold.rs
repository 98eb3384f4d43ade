//! `--threshold` as a user gives it: a rule that a model keeps, or a rate in time, which becomes one.
//!
//! A rate is the false alarms that somebody is ready to look at, ten an hour. What a model can promise is a
//! share of the records, so a rate needs to know how many records an hour has where the model will be used.
//! The logs that it is trained on don't tell: they may be a sample, of several topics, or of a quiet year.

use anyhow::{Context, ensure};
use sawlog_model::ThresholdRule;

/// What `--threshold` may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Threshold {
    /// A rule.
    Rule(ThresholdRule),
    /// So many flagged records an hour.
    Rate {
        /// Above 0, finite.
        per_hour: f64,
    },
}

impl std::str::FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(rate) = text.strip_prefix("rate:") else {
            let refused = |error| format!("{error}, or rate:10/h");
            return text.parse().map(Self::Rule).map_err(refused);
        };
        let per_hour = rate.split_once('/').and_then(|(count, unit)| {
            let count: f64 = count.parse().ok()?;
            let in_an_hour = match unit {
                "s" => 3600.0,
                "min" => 60.0,
                "h" => 1.0,
                "d" => 1.0 / 24.0,
                _ => return None,
            };
            Some(count * in_an_hour).filter(|rate| rate.is_finite() && *rate > 0.0)
        });
        let per_hour = per_hour
            .ok_or_else(|| format!("`{text}` is no rate; write rate:10/h (or /s, /min, /d)"))?;
        Ok(Self::Rate { per_hour })
    }
}

/// Reads a number of records an hour.
pub(crate) fn records_per_hour(text: &str) -> Result<f64, String> {
    let count = text.parse::<f64>().ok().filter(|count| count.is_finite() && *count > 0.0);
    count.ok_or_else(|| "a number above 0".to_owned())
}

impl Threshold {
    /// The rule that it is where an hour has so many records.
    ///
    /// # Errors
    /// For a rate without a number of records, or one that flags all of them.
    pub(crate) fn rule(self, records_per_hour: Option<f64>) -> anyhow::Result<ThresholdRule> {
        let per_hour = match self {
            Self::Rule(rule) => return Ok(rule),
            Self::Rate { per_hour } => per_hour,
        };
        let records = records_per_hour.context(
            "--threshold rate: goes with --records-per-hour, the records that an hour has where the model \
             will be used",
        )?;
        let share = 1.0 - per_hour / records;
        ensure!(
            share > 0.0 && share < 1.0,
            "--threshold rate: of {records} records an hour {per_hour} an hour can't be told apart from \
             {}",
            if share < 0.5 { "all" } else { "none" }
        );
        Ok(ThresholdRule::Quantile(share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_share_of_the_records_of_an_hour() {
        let rule = |text: &str, records| text.parse::<Threshold>().expect("good").rule(records);
        for (text, share) in [
            ("rate:10/h", 0.99),
            ("rate:0.5/min", 0.97),
            ("rate:24/d", 0.999),
            ("rate:0.01/s", 0.964),
        ] {
            match rule(text, Some(1000.0)).expect("a rule") {
                ThresholdRule::Quantile(got) => {
                    assert!((got - share).abs() < 1e-12, "{text}: {got}")
                }
                other => panic!("{text}: {other}"),
            }
        }
        assert_eq!(rule("3sd", None).expect("a rule"), ThresholdRule::Deviations(3.0));
        let said = rule("rate:10/h", None).expect_err("no number").to_string();
        assert!(said.contains("--records-per-hour"), "{said}");
        let said = rule("rate:10/h", Some(10.0)).expect_err("all of them").to_string();
        assert!(said.contains("apart from all"), "{said}");
        let said = rule("rate:1e-9/d", Some(1e9)).expect_err("none of them").to_string();
        assert!(said.contains("apart from none"), "{said}");
    }

    #[test]
    fn what_is_no_threshold_is_refused() {
        for text in ["rate:10", "rate:10/w", "rate:0/h", "rate:-1/h", "rate:inf/h", "10/h", "sd"] {
            let said = text.parse::<Threshold>().expect_err("refused");
            assert!(said.contains("rate:10/h") && said.contains(text), "{said}");
        }
        assert!(records_per_hour("0").is_err() && records_per_hour("nan").is_err());
        assert_eq!(records_per_hour("36e3"), Ok(36_000.0));
    }
}
