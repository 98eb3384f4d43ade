//! Rows to points, by what a row is.

use sawlog_model::spec::Encoding;
use sawlog_model::{Features, MAX_COORDINATE, RecordError, Value};

use super::{ContentError, MAX_COORDINATES, MAX_ROWS, Place};

/// What a row of numbers is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowKind {
    /// What the forest sees: encoded, transformed, with a shingle of several records. For an endpoint
    /// that was trained on the same, as `sawlog serve` of the same snapshot is.
    #[default]
    Points,
    /// The features' values as the record has them: for an endpoint that was trained on raw columns.
    Values,
}

/// Why rows of values can't be had of a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowKindError {
    /// A category is no number.
    #[error(
        "feature `{feature}` is a category, and rows of values are numbers; use rows of points"
    )]
    Category {
        /// Its name.
        feature: String,
    },
    /// A row is one record.
    #[error("a point is made of {size} records, and a row of values is one; use rows of points")]
    Shingle {
        /// Records a point.
        size: usize,
    },
}

impl RowKind {
    /// Numbers in a row.
    ///
    /// # Errors
    /// [`RowKindError`] for values of a model whose features are not all numbers, or that has a shingle.
    pub fn width(self, features: &Features) -> Result<usize, RowKindError> {
        let spec = features.spec();
        match self {
            Self::Points => Ok(features.dimensions()),
            Self::Values if spec.shingle_size() > 1 => {
                Err(RowKindError::Shingle { size: spec.shingle_size() })
            }
            Self::Values => {
                let is_category = |encoding| !matches!(encoding, Encoding::Number(_));
                match spec.features().iter().find(|feature| is_category(feature.encoding)) {
                    Some(feature) => Err(RowKindError::Category { feature: feature.name.clone() }),
                    None => Ok(spec.features().len()),
                }
            }
        }
    }
}

/// What is wrong with a row.
#[derive(Debug, thiserror::Error)]
pub enum RowFault {
    /// Too few or too many numbers.
    #[error("it has {got} values, and a row has {expected}")]
    Count {
        /// How many.
        got: usize,
        /// How many it should have.
        expected: usize,
    },
    /// Something else.
    #[error("value {position} is not a number")]
    NotANumber {
        /// Which, from 1.
        position: usize,
    },
    /// Infinite or not a number.
    #[error("value {position} is not finite")]
    NotFinite {
        /// Which, from 1.
        position: usize,
    },
    /// A coordinate that is missing.
    #[error("value {position} is missing")]
    Missing {
        /// Which, from 1.
        position: usize,
    },
    /// An instance of another form.
    #[error(
        "it is not {{\"features\": [...]}} or {{\"data\": {{\"features\": {{\"values\": [...]}}}}}}"
    )]
    Form,
    /// A line that is no JSON.
    #[error("it is not JSON at column {column}")]
    Syntax {
        /// From 1.
        column: usize,
    },
    /// A sparse row whose keys are no indexes, out of range, or not as many as its values.
    #[error("its keys are not an index below {expected} for each of its values")]
    Keys {
        /// Numbers in a row.
        expected: usize,
    },
    /// Another shape.
    #[error("its shape is not [{expected}]")]
    Shape {
        /// Numbers in a row.
        expected: usize,
    },
    /// A message that can't be read.
    #[error("it is not a Record in protobuf")]
    Proto,
    /// A message without the tensor.
    #[error("it has no tensor of numbers in features[\"values\"]")]
    NoTensor,
    /// A value that the model requires.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A number as exact as it came.
#[derive(Debug, Clone, Copy)]
enum Cell {
    Missing,
    Single(f32),
    Double(f64),
}

/// One row while it is read.
#[derive(Debug)]
pub(super) struct Row {
    kind: RowKind,
    pub(super) width: usize,
    cells: Vec<Cell>,
    /// Numbers so far, those beyond the width too.
    count: usize,
}

impl Row {
    /// The next number as text; empty for a missing one.
    pub(super) fn text(&mut self, text: &str) -> Result<(), RowFault> {
        let cell = match self.kind {
            _ if text.is_empty() => Cell::Missing,
            // Not by way of f64: rounding twice could end one step aside.
            RowKind::Points => Cell::Single(text.parse().map_err(|_| self.not_a_number())?),
            RowKind::Values => Cell::Double(text.parse().map_err(|_| self.not_a_number())?),
        };
        self.push(cell)
    }

    /// What is said if the next number is none.
    pub(super) fn not_a_number(&self) -> RowFault {
        RowFault::NotANumber { position: self.count + 1 }
    }

    pub(super) fn single(&mut self, number: f32) -> Result<(), RowFault> {
        let missing = self.kind == RowKind::Values && number.is_nan();
        self.push(if missing { Cell::Missing } else { Cell::Single(number) })
    }

    pub(super) fn double(&mut self, number: f64) -> Result<(), RowFault> {
        let missing = self.kind == RowKind::Values && number.is_nan();
        self.push(if missing { Cell::Missing } else { Cell::Double(number) })
    }

    fn push(&mut self, cell: Cell) -> Result<(), RowFault> {
        self.count += 1;
        let position = self.count;
        match cell {
            Cell::Missing if self.kind == RowKind::Points => {
                return Err(RowFault::Missing { position });
            }
            Cell::Single(number) if !number.is_finite() => {
                return Err(RowFault::NotFinite { position });
            }
            Cell::Double(number) if !number.is_finite() => {
                return Err(RowFault::NotFinite { position });
            }
            _ => {}
        }
        if self.cells.len() < self.width {
            self.cells.push(cell);
        }
        Ok(())
    }

    /// Takes the numbers so far as those at the keys, and all others as 0.
    pub(super) fn scatter(&mut self, keys: &[usize]) -> Result<(), RowFault> {
        let expected = self.width;
        if self.count != keys.len() || keys.len() > expected {
            return Err(RowFault::Keys { expected });
        }
        let mut cells = vec![Cell::Single(0.0); self.width];
        for (&key, &cell) in keys.iter().zip(&self.cells) {
            *cells.get_mut(key).ok_or(RowFault::Keys { expected })? = cell;
        }
        self.cells = cells;
        self.count = self.width;
        Ok(())
    }
}

/// All rows of a body.
#[derive(Debug)]
pub(super) struct Rows<'f> {
    features: &'f Features,
    row: Row,
    values: Vec<Value>,
    points: Vec<f32>,
    count: usize,
}

impl<'f> Rows<'f> {
    /// With rows of values the features have been found to be numbers; those that are not are missing.
    pub(super) fn new(kind: RowKind, features: &'f Features) -> Self {
        let width = match kind {
            RowKind::Points => features.dimensions(),
            RowKind::Values => features.names().len(),
        };
        let row = Row { kind, width, cells: Vec::with_capacity(width), count: 0 };
        Self { features, row, values: Vec::new(), points: Vec::new(), count: 0 }
    }

    /// Adds the row that `fill` reads.
    pub(super) fn add(
        &mut self,
        place: Place,
        fill: impl FnOnce(&mut Row) -> Result<(), RowFault>,
    ) -> Result<(), ContentError> {
        if self.count == MAX_ROWS {
            return Err(ContentError::TooManyRows);
        }
        if self.points.len() + self.features.dimensions() > MAX_COORDINATES {
            return Err(ContentError::TooManyCoordinates);
        }
        self.row.cells.clear();
        self.row.count = 0;
        let added = fill(&mut self.row).and_then(|()| self.encode());
        added.map_err(|fault| ContentError::Row { place, fault })?;
        self.count += 1;
        Ok(())
    }

    fn encode(&mut self) -> Result<(), RowFault> {
        let (got, expected) = (self.row.count, self.row.width);
        if got != expected {
            return Err(RowFault::Count { got, expected });
        }
        match self.row.kind {
            RowKind::Points => {
                self.points.extend(self.row.cells.iter().map(|cell| coordinate(*cell)))
            }
            RowKind::Values => {
                self.values.clear();
                self.values.extend(self.row.cells.iter().map(|cell| value(*cell)));
                let start = self.points.len();
                self.points.resize(start + self.features.dimensions(), 0.0);
                self.features.encode(&self.values, &mut self.points[start..])?;
            }
        }
        Ok(())
    }

    pub(super) fn into_points(self) -> Result<Vec<f32>, ContentError> {
        if self.count == 0 { Err(ContentError::NoRow) } else { Ok(self.points) }
    }
}

/// Within the forest's limits as the features keep them, so that a point that was sent is the point
/// that was made.
#[expect(clippy::cast_possible_truncation, reason = "coordinates are f32; the cast saturates")]
fn coordinate(cell: Cell) -> f32 {
    let number = match cell {
        Cell::Missing => 0.0,
        Cell::Single(number) => number,
        Cell::Double(number) => number as f32,
    };
    number.clamp(-MAX_COORDINATE, MAX_COORDINATE) + 0.0
}

fn value(cell: Cell) -> Value {
    match cell {
        Cell::Missing => Value::Missing,
        Cell::Single(number) => Value::Number(number.into()),
        Cell::Double(number) => Value::Number(number),
    }
}
