//! A specification as a user writes it: TOML, whose words stay known with their places until all is checked, so
//! that a fault is told with its line.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::{
    Encoding, FeatureSpec, Format, MissingRule, Shingle, Spec, SpecError, SpecFault, SpecPlace,
    Transform,
};

/// Reads a specification, and makes of it what `check` does.
///
/// # Errors
/// [`SpecError::Toml`] or, with the line, what `check` finds.
pub(super) fn read<T>(
    text: &str,
    check: impl FnOnce(Spec) -> Result<T, (SpecPlace, SpecFault)>,
) -> Result<T, SpecError> {
    let file: SpecFile = toml::from_str(text).map_err(|error| SpecError::Toml(Box::new(error)))?;
    let spans = file.spans();
    file.into_spec().and_then(check).map_err(|(place, fault)| {
        let line = line_of(text, spans.of(place).start);
        SpecError::AtLine { line, place, fault }
    })
}

fn line_of(text: &str, at: usize) -> usize {
    let until = at.min(text.len());
    text.as_bytes()[..until].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// The TOML as written: the same words, with the place of each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpecFile {
    format: Spanned<FormatName>,
    pattern: Option<Spanned<String>>,
    columns: Option<Spanned<Vec<String>>>,
    delimiter: Option<Spanned<String>>,
    #[serde(default)]
    feature: Vec<Spanned<FeatureTable>>,
    shingle: Option<ShingleTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShingleTable {
    size: Spanned<u32>,
    key: Option<Spanned<String>>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum FormatName {
    Json,
    Csv,
    Logfmt,
    Regex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureTable {
    name: Spanned<String>,
    field: Spanned<String>,
    transform: Option<Transform>,
    encode: Option<EncodeName>,
    #[serde(default)]
    missing: MissingRule,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum EncodeName {
    OneHot,
    Frequency,
}

struct Spans {
    format: Range<usize>,
    pattern: Option<Range<usize>>,
    columns: Option<Range<usize>>,
    delimiter: Option<Range<usize>>,
    features: Vec<(Range<usize>, Range<usize>)>,
    shingle_size: Option<Range<usize>>,
    shingle_key: Option<Range<usize>>,
}

impl Spans {
    fn of(&self, place: SpecPlace) -> Range<usize> {
        let found = match place {
            SpecPlace::Pattern => self.pattern.clone(),
            SpecPlace::Columns => self.columns.clone(),
            SpecPlace::Delimiter => self.delimiter.clone(),
            SpecPlace::Features => None,
            SpecPlace::Name(index) => self.features.get(index).map(|spans| spans.0.clone()),
            SpecPlace::Field(index) => self.features.get(index).map(|spans| spans.1.clone()),
            SpecPlace::ShingleSize => self.shingle_size.clone(),
            SpecPlace::ShingleKey => self.shingle_key.clone(),
        };
        found.unwrap_or_else(|| self.format.clone())
    }
}

impl SpecFile {
    fn spans(&self) -> Spans {
        let feature = |table: &Spanned<FeatureTable>| {
            (table.get_ref().name.span(), table.get_ref().field.span())
        };
        Spans {
            format: self.format.span(),
            pattern: self.pattern.as_ref().map(Spanned::span),
            columns: self.columns.as_ref().map(Spanned::span),
            delimiter: self.delimiter.as_ref().map(Spanned::span),
            features: self.feature.iter().map(feature).collect(),
            shingle_size: self.shingle.as_ref().map(|table| table.size.span()),
            shingle_key: self.shingle.as_ref().and_then(|table| Some(table.key.as_ref()?.span())),
        }
    }

    fn into_spec(self) -> Result<Spec, (SpecPlace, SpecFault)> {
        let name = *self.format.get_ref();
        let only_for = |place, format| Err((place, SpecFault::NotForThisFormat { format }));
        if self.pattern.is_some() && name != FormatName::Regex {
            return only_for(SpecPlace::Pattern, "regex");
        }
        if self.columns.is_some() && name != FormatName::Csv {
            return only_for(SpecPlace::Columns, "csv");
        }
        if self.delimiter.is_some() && name != FormatName::Csv {
            return only_for(SpecPlace::Delimiter, "csv");
        }
        let format = match name {
            FormatName::Json => Format::Json,
            FormatName::Logfmt => Format::Logfmt,
            FormatName::Regex => {
                let pattern =
                    self.pattern.ok_or((SpecPlace::Pattern, SpecFault::PatternMissing))?;
                Format::Regex { pattern: pattern.into_inner() }
            }
            FormatName::Csv => {
                let delimiter = match self.delimiter.map(Spanned::into_inner) {
                    None => b',',
                    Some(text) => match text.as_bytes() {
                        [byte] => *byte,
                        _ => return Err((SpecPlace::Delimiter, SpecFault::Delimiter(text))),
                    },
                };
                let columns = self.columns.map(Spanned::into_inner).unwrap_or_default();
                Format::Csv { delimiter, columns }
            }
        };
        let mut features = Vec::with_capacity(self.feature.len());
        for (index, table) in self.feature.into_iter().enumerate() {
            let table = table.into_inner();
            let encoding = match (table.encode, table.transform) {
                (None, transform) => Encoding::Number(transform.unwrap_or(Transform::Auto)),
                (Some(_), Some(_)) => {
                    return Err((SpecPlace::Name(index), SpecFault::TransformOfCategory));
                }
                (Some(EncodeName::OneHot), None) => Encoding::OneHot,
                (Some(EncodeName::Frequency), None) => Encoding::Frequency,
            };
            features.push(FeatureSpec {
                name: table.name.into_inner(),
                field: table.field.into_inner(),
                encoding,
                missing: table.missing,
            });
        }
        let shingle = self.shingle.map(|table| Shingle {
            size: table.size.into_inner(),
            key: table.key.map(Spanned::into_inner),
        });
        Ok(Spec { format, features, shingle })
    }
}
