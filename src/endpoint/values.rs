//! Rows of the features' values as a record has them (`ENDPOINT_ROWS=values`).
//!
//! They are points like any other, of features that leave numbers as they are. So what is missing is
//! put in as the specification says; the median is the model's, if there is one.

use sawlog_model::spec::{Encoding, MissingRule};
use sawlog_model::{FeatureError, Features, Fitted, Scaling, ValidSpec};

/// Why records of a specification can't be sent as values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValuesFault {
    /// A category is no number.
    #[error("feature `{feature}` is a category, and ENDPOINT_ROWS=values sends numbers only")]
    Category {
        /// Its name.
        feature: String,
    },
    /// A point is made of several records.
    #[error("the model has a shingle, and ENDPOINT_ROWS=values sends single records")]
    Shingle,
    /// Only training knows the median.
    #[error(
        "feature `{feature}` has missing = \"median\", which only a model knows: write zero or reject"
    )]
    Median {
        /// Its name.
        feature: String,
    },
    /// Records carry no header.
    #[error("the specification does not name the columns of its csv")]
    NoColumns,
    /// Too many features.
    #[error(transparent)]
    Features(#[from] FeatureError),
}

/// The features that give rows of values: one number a feature, none left out.
///
/// # Errors
/// [`ValuesFault`] for a specification whose records are not rows of numbers.
pub fn value_features(
    spec: &ValidSpec,
    fitted: Option<&[Fitted]>,
) -> Result<Features, ValuesFault> {
    if spec.shingle().is_some() {
        return Err(ValuesFault::Shingle);
    }
    if spec.needs_header() {
        return Err(ValuesFault::NoColumns);
    }
    let mut plain = Vec::with_capacity(spec.features().len());
    for (index, feature) in spec.features().iter().enumerate() {
        if !matches!(feature.encoding, Encoding::Number(_)) {
            return Err(ValuesFault::Category { feature: feature.name.clone() });
        }
        let median = match fitted.map(|fitted| &fitted[index]) {
            Some(Fitted::Number { median, .. }) => *median,
            // Constant in training: what its value was is not kept, and a missing one was never seen.
            Some(_) => 0.0,
            None if feature.missing == MissingRule::Median => {
                return Err(ValuesFault::Median { feature: feature.name.clone() });
            }
            None => 0.0,
        };
        let scaling = Scaling { log_unit: 0.0, center: 0.0, scale: 1.0 };
        let [min, p01, p99, max] = [median; 4];
        plain.push(Fitted::Number { scaling, min, p01, median, p99, max });
    }
    Ok(Features::new(spec.clone(), plain)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> ValidSpec {
        ValidSpec::from_toml(text).expect("a specification")
    }

    const TWO: &str = "format = \"csv\"\ncolumns = [\"a\", \"b\"]\n\
        [[feature]]\nname = \"b\"\nfield = \"b\"\nmissing = \"zero\"\n\
        [[feature]]\nname = \"a\"\nfield = \"a\"\nmissing = \"MISSING\"\n";

    #[test]
    fn a_row_is_the_values_in_the_order_of_the_features() {
        let spec = spec(&TWO.replace("MISSING", "reject"));
        let features = value_features(&spec, None).expect("numbers only");
        let mut row = [0.0; 2];
        for (record, expected) in [("1.5,1e6", [1e6, 1.5]), ("-3,", [0.0, -3.0])] {
            let values = features.read(record.as_bytes()).expect("sound");
            features.encode(&values, &mut row).expect("sound");
            assert_eq!(row, expected, "{record}");
        }
        assert!(features.read(b",1").is_err());
    }

    #[test]
    fn the_median_is_the_models() {
        let spec = spec(&TWO.replace("MISSING", "median"));
        let fault = value_features(&spec, None).expect_err("no model");
        assert_eq!(fault, ValuesFault::Median { feature: "a".into() });
        let values: Vec<_> = ["1,5", "2,5", "9,5"]
            .iter()
            .map(|row| sawlog_model::read_record(&spec, row.as_bytes()))
            .collect();
        let values: Result<Vec<_>, _> = values.into_iter().collect();
        let values = values.expect("sound");
        let sample: Vec<_> = values.iter().map(Vec::as_slice).collect();
        let fitted = Features::fit(spec.clone(), &sample).expect("fitted");
        let features = value_features(&spec, Some(fitted.fitted())).expect("numbers only");
        let mut row = [0.0; 2];
        features.encode(&features.read(b",7").expect("sound"), &mut row).expect("sound");
        assert_eq!(row, [7.0, 2.0], "a constant is sent too, and the median is 2");
    }

    #[test]
    fn what_is_no_row_of_numbers_is_refused_by_name() {
        let category = spec(
            "format = \"json\"\n[[feature]]\nname = \"p\"\nfield = \"/p\"\nencode = \"one_hot\"\n",
        );
        let fault = value_features(&category, None).expect_err("a category");
        assert_eq!(fault, ValuesFault::Category { feature: "p".into() });
        let shingle = sawlog_model::Shingle { size: 2, key: None };
        let shingled = spec(&TWO.replace("MISSING", "zero")).with_shingle(Some(shingle));
        let fault = value_features(&shingled.expect("sound"), None).expect_err("a shingle");
        assert_eq!(fault, ValuesFault::Shingle);
        let open = spec(&TWO.replace("MISSING", "zero").replace("columns = [\"a\", \"b\"]\n", ""));
        assert_eq!(value_features(&open, None).expect_err("no columns"), ValuesFault::NoColumns);
    }
}
