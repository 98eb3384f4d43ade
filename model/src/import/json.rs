//! JSON with places: every value knows its path, so that every fault can name it.
//!
//! Values stay text until they are asked for. What no one asks for is passed over, whatever it is,
//! without being stored; numbers and bytes go straight into arrays of their own kind. So reading
//! takes no more than a small multiple of the text, and no recursion of its own.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{ImportError, ImportFault};

/// Most bytes of a wrong value that a message quotes.
const QUOTED: usize = 40;

/// One value and where it stands: `forestState.pointStoreState.refCount`.
#[derive(Debug, Clone)]
pub(super) struct Json<'a> {
    path: String,
    text: &'a str,
}

/// The fields of one object that someone asked for.
#[derive(Debug)]
pub(super) struct Object<'a> {
    path: String,
    fields: Vec<(&'static str, &'a str)>,
}

impl<'a> Json<'a> {
    /// The whole of a file. This checks the grammar of all of it, so below only kinds and values
    /// can be wrong.
    pub(super) fn root(bytes: &'a [u8]) -> Result<Self, ImportError> {
        let raw: &RawValue = serde_json::from_slice(bytes).map_err(ImportError::Json)?;
        Ok(Self { path: String::new(), text: raw.get() })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn fault(&self, fault: ImportFault) -> ImportError {
        ImportError::At { path: self.path.clone(), fault }
    }

    fn expected(&self, expected: &'static str) -> ImportError {
        self.fault(ImportFault::Kind { expected, got: quoted(self.text) })
    }

    /// The named fields of an object; others are passed over, null counts as absent, and of two of
    /// the same name the later one counts, as in Jackson.
    pub(super) fn object(&self, names: &[&'static str]) -> Result<Object<'a>, ImportError> {
        let mut reader = serde_json::Deserializer::from_str(self.text);
        let fields = reader.deserialize_any(FieldsVisitor(names));
        let fields = fields.map_err(|_| self.expected("an object"))?;
        Ok(Object { path: self.path.clone(), fields })
    }

    /// The members of an array, at most `limit`.
    pub(super) fn items(&self, limit: usize) -> Result<Vec<Json<'a>>, ImportError> {
        let mut items: Vec<&'a RawValue> = Vec::new();
        self.array(&mut items, limit).map_err(|_| self.expected("an array"))?;
        if items.len() > limit {
            return Err(self.fault(ImportFault::TooLong { limit }));
        }
        let at = |(index, raw): (usize, &'a RawValue)| Json {
            path: format!("{}[{index}]", self.path),
            text: raw.get(),
        };
        Ok(items.into_iter().enumerate().map(at).collect())
    }

    /// An array of 32-bit integers.
    pub(super) fn integers(&self) -> Result<Vec<i32>, ImportError> {
        self.numbers("an array of 32-bit integers", "32-bit integer")
    }

    /// Bytes: base64 text or an array of signed bytes.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, ImportError> {
        if self.text.starts_with('"') {
            let text = self.text()?;
            return base64_simd::STANDARD
                .decode_to_vec(text.as_bytes())
                .map_err(|source| self.fault(ImportFault::Base64 { source }));
        }
        let bytes = self.numbers("base64 text or an array of signed bytes", "signed byte")?;
        Ok(bytes.into_iter().map(i8::cast_unsigned).collect())
    }

    /// An array of numbers of one kind; a fault names the first that isn't.
    fn numbers<T: serde::Deserialize<'a>>(
        &self,
        kind: &'static str,
        member: &'static str,
    ) -> Result<Vec<T>, ImportError> {
        if !self.text.starts_with('[') {
            return Err(self.expected(kind));
        }
        let mut numbers = Vec::new();
        if self.array(&mut numbers, usize::MAX).is_err() {
            let path = format!("{}[{}]", self.path, numbers.len());
            return Err(ImportError::At { path, fault: ImportFault::Member { expected: member } });
        }
        Ok(numbers)
    }

    /// Stores the members, no more than one past the limit; on a fault, those before it.
    fn array<T: serde::Deserialize<'a>>(
        &self,
        items: &mut Vec<T>,
        limit: usize,
    ) -> Result<(), serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_str(self.text);
        reader.deserialize_any(ItemsVisitor { items, limit })
    }

    /// A text.
    pub(super) fn text(&self) -> Result<String, ImportError> {
        serde_json::from_str(self.text).map_err(|_| self.expected("a text"))
    }

    /// True or false.
    pub(super) fn truth(&self) -> Result<bool, ImportError> {
        serde_json::from_str(self.text).map_err(|_| self.expected("true or false"))
    }

    /// An integer within a range.
    pub(super) fn integer(&self, range: RangeInclusive<i64>) -> Result<i64, ImportError> {
        let got: i64 = serde_json::from_str(self.text).map_err(|_| self.expected("an integer"))?;
        if range.contains(&got) {
            return Ok(got);
        }
        let (low, high) = range.into_inner();
        Err(self.fault(ImportFault::Range { got, low, high }))
    }

    /// An integer from `low` to `high` as a count.
    pub(super) fn count(&self, low: usize, high: usize) -> Result<usize, ImportError> {
        let range =
            i64::try_from(low).unwrap_or(i64::MAX)..=i64::try_from(high).unwrap_or(i64::MAX);
        // Within two counts, so it is one.
        Ok(usize::try_from(self.integer(range)?).unwrap_or(high))
    }

    /// A text that must be one of a few.
    pub(super) fn one_of(&self, supported: &'static [&'static str]) -> Result<(), ImportError> {
        let got = self.text()?;
        if supported.contains(&got.as_str()) {
            return Ok(());
        }
        Err(self.fault(ImportFault::Unsupported { got: quoted(&got), supported }))
    }
}

impl<'a> Object<'a> {
    /// A field that may be absent.
    pub(super) fn get(&self, name: &'static str) -> Option<Json<'a>> {
        let (_, text) = self.fields.iter().find(|(found, _)| *found == name)?;
        Some(Json { path: self.path_of(name), text })
    }

    /// A field that must be there.
    pub(super) fn need(&self, name: &'static str) -> Result<Json<'a>, ImportError> {
        let absent = || ImportError::At { path: self.path_of(name), fault: ImportFault::Missing };
        self.get(name).ok_or_else(absent)
    }

    /// True only if the field is there and true.
    pub(super) fn is_true(&self, name: &'static str) -> Result<bool, ImportError> {
        self.get(name).map_or(Ok(false), |field| field.truth())
    }

    /// The path of a field, there or not.
    pub(super) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// The beginning of a text from the file, on one line.
fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTED).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTED).is_some() {
        shown.push_str("...");
    }
    shown
}

struct FieldsVisitor<'n>(&'n [&'static str]);

impl<'de> Visitor<'de> for FieldsVisitor<'_> {
    type Value = Vec<(&'static str, &'de str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields: Self::Value = Vec::with_capacity(self.0.len());
        while let Some(name) = map.next_key_seed(NameSeed(self.0))? {
            let Some(name) = name else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let text = map.next_value::<&'de RawValue>()?.get();
            fields.retain(|(earlier, _)| *earlier != name);
            if text != "null" {
                fields.push((name, text));
            }
        }
        Ok(fields)
    }
}

/// A key, if it is one of the names.
struct NameSeed<'n>(&'n [&'static str]);

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed<'_> {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().copied().find(|name| *name == key))
    }
}

struct ItemsVisitor<'v, T> {
    items: &'v mut Vec<T>,
    limit: usize,
}

impl<'de, T: serde::Deserialize<'de>> Visitor<'de> for ItemsVisitor<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while self.items.len() <= self.limit {
            match seq.next_element()? {
                Some(item) => self.items.push(item),
                None => return Ok(()),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}
