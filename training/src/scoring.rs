//! Files through a model: every record of the input in its order, scored a batch at a time by the
//! Lambda's own code. All commands that say something of scores read them here.
//!
//! A record may carry a label, whether it is known to be an anomaly. It is read as one more value of
//! the record and taken out again before the point is made, so the scores are those without it.

use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use sawlog_lambda::Origin;
use sawlog_lambda::scorer::{Points, Scored};
use sawlog_model::spec::{Encoding, FeatureSpec, Format, MissingRule, Spec, SpecPlace};
use sawlog_model::{Model, RecordError, SpecError, ValidSpec, Value};

use crate::input::{self, InputError, Record, Source};
use crate::progress::Progress;
use crate::tally::Tally;

/// Records scored in one call.
const BATCH: usize = 4096;

/// What became of one record.
pub(crate) enum Found<'a> {
    /// It has a score.
    Scored {
        /// The score, the newest record's values, and why it is an anomaly if it is one.
        scored: Scored,
        /// The point: one entry a coordinate.
        point: &'a [f32],
        /// Whether it is known to be an anomaly; `None` where nothing says so.
        label: Option<bool>,
    },
    /// Too few of its series stand before it.
    NoHistory,
    /// It could not be read.
    Rejected,
}

/// A model and how records are read for it.
pub(crate) struct Scoring<'m> {
    model: &'m Model,
    /// The model's, with the label as the last feature if there is one.
    spec: ValidSpec,
    label: Option<String>,
}

impl<'m> Scoring<'m> {
    /// Scores by a model.
    pub(crate) fn new(model: &'m Model) -> Self {
        Self { model, spec: model.features().spec().clone(), label: None }
    }

    /// The same with records whose `field` says whether they are anomalies: 1 or true, 0 or false;
    /// nothing where it is not known.
    ///
    /// # Errors
    /// A field that the format doesn't have.
    pub(crate) fn with_label(model: &'m Model, field: &str) -> anyhow::Result<Self> {
        let spec = labelled(model.features().spec(), field)?;
        Ok(Self { model, spec, label: Some(field.to_owned()) })
    }

    /// Reads and scores all records. `each` is told of every one in the order of the input, `reject`
    /// of those that can't be read, with reason and bytes, as they are met.
    ///
    /// # Errors
    /// Of reading, of a label that is none, or the first of `each` and `reject`.
    pub(crate) fn run(
        &self,
        sources: &[Source],
        reject: impl FnMut(&Origin, &RecordError, &[u8]) -> anyhow::Result<()>,
        each: impl FnMut(&Origin, Found<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Tally> {
        let size = sources.iter().map(|source| source.size).sum();
        let progress = Progress::over_bytes("scoring", size);
        let mut run = Run {
            scoring: self,
            reject,
            each,
            tally: Tally::default(),
            batch: Batch::new(self.model),
            unlabelled: Vec::new(),
        };
        for source in sources {
            // The reader calls back and can't pass an error on: the first is kept and told after it.
            let mut result = Ok(());
            let path: Arc<str> = source.name.as_str().into();
            let read =
                input::read_source(source, &self.spec, &|bytes| progress.add(bytes), |record| {
                    if result.is_ok() {
                        result = run.take(&path, record);
                    }
                });
            let features = self.model.features().names().len();
            read.map_err(|error| unread(error, features, self.label.as_deref()))?;
            result?;
        }
        run.score_batch()?;
        progress.finish();
        Ok(run.tally)
    }
}

/// A model's scores of all records that it can read, in their order; at most `most`, an error beyond.
pub(crate) fn scores(model: &Model, sources: &[Source], most: usize) -> anyhow::Result<Vec<f32>> {
    let mut scores = Vec::new();
    let tally = Scoring::new(model).run(
        sources,
        |_, _, _| Ok(()),
        |_, found| {
            let Found::Scored { scored, .. } = found else { return Ok(()) };
            ensure!(scores.len() < most, "more than {most} records: take a part of them");
            scores.push(scored.score);
            Ok(())
        },
    )?;
    tally.check_scored()?;
    Ok(scores)
}

/// A specification with the label as its last feature.
///
/// # Errors
/// A field that the format doesn't have, as the user wrote it: that it is read as a feature is nobody's concern.
pub(crate) fn labelled(spec: &ValidSpec, field: &str) -> anyhow::Result<ValidSpec> {
    let with_label = with_label(spec.spec().clone(), field);
    // All else was sound before the label came.
    ValidSpec::new(with_label).map_err(|error| match error {
        SpecError::At { fault, .. } | SpecError::AtLine { fault, .. } => {
            anyhow!("--label {field}: {fault}")
        }
        error @ SpecError::Toml(_) => anyhow!(error).context(format!("--label {field}")),
    })
}

/// What keeps an input from being read by [`labelled`] features, of which the label comes after so many `features`:
/// of a header without the label's column as the user wrote it.
pub(crate) fn unread(error: InputError, features: usize, label: Option<&str>) -> anyhow::Error {
    match (error, label) {
        (
            InputError::Header {
                path,
                source: SpecError::At { place: SpecPlace::Field(index), fault },
            },
            Some(field),
        ) if index == features => anyhow!("--label {field}: input {path}: line 1: {fault}"),
        (error, _) => anyhow!(error),
    }
}

fn with_label(mut spec: Spec, field: &str) -> Spec {
    let mut name = "label".to_owned();
    while spec.features.iter().any(|feature| feature.name == name) {
        name.push('_');
    }
    spec.features.push(FeatureSpec {
        name,
        field: field.to_owned(),
        encoding: Encoding::OneHot,
        missing: MissingRule::Median,
    });
    if let Format::Csv { columns, .. } = &mut spec.format {
        // Training files may have had no labels: then the header of these says where they stand.
        if !columns.iter().any(|column| column == field) {
            columns.clear();
        }
    }
    spec
}

/// Reads a label; `None` for a text that is none.
pub(crate) fn label(value: Option<&Value>) -> Option<Option<bool>> {
    let text = match value {
        None | Some(Value::Missing) => return Some(None),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Category(text)) => text.to_ascii_lowercase(),
    };
    match (text.as_str(), text.parse::<f64>()) {
        ("true", _) => Some(Some(true)),
        ("false", _) => Some(Some(false)),
        (_, Ok(1.0)) => Some(Some(true)),
        (_, Ok(0.0)) => Some(Some(false)),
        _ => None,
    }
}

/// Records that are not scored yet: what is known of each, and the points of those that have one.
struct Batch {
    records: Vec<(Origin, Waiting)>,
    points: Points,
}

impl Batch {
    fn new(model: &Model) -> Self {
        Self { records: Vec::new(), points: Points::new(model.features()) }
    }
}

enum Waiting {
    Point { label: Option<bool> },
    NoHistory,
    Rejected,
}

struct Run<'s, R, E> {
    scoring: &'s Scoring<'s>,
    reject: R,
    each: E,
    tally: Tally,
    batch: Batch,
    /// The values of a point without its labels.
    unlabelled: Vec<Value>,
}

impl<R, E> Run<'_, R, E>
where
    R: FnMut(&Origin, &RecordError, &[u8]) -> anyhow::Result<()>,
    E: FnMut(&Origin, Found<'_>) -> anyhow::Result<()>,
{
    fn take(&mut self, path: &Arc<str>, record: Record<'_>) -> anyhow::Result<()> {
        self.tally.read += 1;
        let place = record.place;
        let origin = Origin::File { path: path.clone(), line: place.line, offset: place.offset };
        let waiting = match record.point {
            Err(error) => {
                self.tally.reject(place, error);
                (self.reject)(&origin, error, record.bytes)?;
                Waiting::Rejected
            }
            Ok(None) => {
                self.tally.no_history += 1;
                Waiting::NoHistory
            }
            Ok(Some(point)) => {
                let label = self.push(point).ok_or_else(|| {
                    let field = self.scoring.label.as_deref().unwrap_or_default();
                    let (source, line) = (place.source, place.line);
                    anyhow!(
                        "input {source}: line {line}: label `{field}` is not 0, 1, true or false"
                    )
                })?;
                Waiting::Point { label }
            }
        };
        self.batch.records.push((origin, waiting));
        if self.batch.records.len() == BATCH { self.score_batch() } else { Ok(()) }
    }

    /// Adds a point and returns its label; `None` for one that can't be read.
    fn push(&mut self, point: &[Value]) -> Option<Option<bool>> {
        let model = self.scoring.model;
        if self.scoring.label.is_none() {
            self.batch.points.push(model.features(), point);
            return Some(None);
        }
        let features = model.features().names().len();
        self.unlabelled.clear();
        for record in point.chunks_exact(features + 1) {
            self.unlabelled.extend_from_slice(&record[..features]);
        }
        self.batch.points.push(model.features(), &self.unlabelled);
        label(point.last())
    }

    fn score_batch(&mut self) -> anyhow::Result<()> {
        let model = self.scoring.model;
        let Batch { records, points } = std::mem::replace(&mut self.batch, Batch::new(model));
        let rows: Vec<f32> = points.rows()?.iter().copied().collect();
        let mut rows = rows.chunks_exact(model.features().dimensions());
        let mut scored = points.score(model)?.into_iter();
        for (origin, waiting) in records {
            let found = match waiting {
                Waiting::NoHistory => Found::NoHistory,
                Waiting::Rejected => Found::Rejected,
                Waiting::Point { label } => {
                    let scored = scored.next().context("a point without a score")??;
                    let point = rows.next().unwrap_or_default();
                    Found::Scored { scored, point, label }
                }
            };
            (self.each)(&origin, found)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_zeros_and_ones_in_any_dress() {
        let text = |text: &str| label(Some(&Value::Category(text.into())));
        for (written, want) in [("1", true), ("1.0", true), ("True", true), ("0", false)] {
            assert_eq!(text(written), Some(Some(want)), "{written}");
        }
        for written in ["2", "-1", "yes", "nan", "anomaly"] {
            assert_eq!(text(written), None, "{written}");
        }
        assert_eq!((label(Some(&Value::Missing)), label(None)), (Some(None), Some(None)));
    }
}
