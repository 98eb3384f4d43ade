//! The log records in one payload, where it may hold several: lines, or a JSON list.

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// Gives every log record of a payload to `each`, in order, without white space around it.
///
/// - A JSON list of objects or of strings: its elements, of strings the text.
/// - One JSON object, over however many lines: that one.
/// - Anything else: its lines, but for blank ones.
pub(super) fn each_piece(payload: &[u8], mut each: impl FnMut(&[u8])) {
    let payload = payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(payload).trim_ascii();
    if payload.starts_with(b"[")
        && let Some(elements) = list(payload)
    {
        elements.iter().for_each(|element| each(element.as_ref()));
        return;
    }
    let is_object = || serde_json::from_slice::<IgnoredAny>(payload).is_ok();
    if payload.starts_with(b"{") && payload.contains(&b'\n') && is_object() {
        each(payload);
        return;
    }
    let lines = payload.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty()).for_each(each);
}

/// The elements of a list of objects or strings; `None` for anything else, as a line of a log may well
/// begin with a bracket.
fn list(payload: &[u8]) -> Option<Vec<Element<'_>>> {
    let elements: Vec<&RawValue> = serde_json::from_slice(payload).ok()?;
    let elements = elements.into_iter().map(|element| match element.get().as_bytes() {
        text @ [b'{', ..] => Some(Element::Object(text)),
        text @ [b'"', ..] => serde_json::from_slice(text).ok().map(Element::Text),
        _ => None,
    });
    elements.collect()
}

enum Element<'a> {
    Object(&'a [u8]),
    Text(String),
}

impl AsRef<[u8]> for Element<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Object(text) => text,
            Self::Text(text) => text.as_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(payload: &str) -> Vec<String> {
        let mut pieces = Vec::new();
        each_piece(payload.as_bytes(), |piece| {
            pieces.push(String::from_utf8(piece.to_vec()).expect("text"));
        });
        pieces
    }

    #[test]
    fn lines_lists_and_objects_are_told_apart() {
        let none: [&str; 0] = [];
        assert_eq!(pieces(""), none);
        assert_eq!(pieces(" \n\r\n"), none);
        assert_eq!(pieces("[]"), none);
        assert_eq!(pieces("one"), ["one"]);
        assert_eq!(pieces("one\r\n\n two \n"), ["one", "two"]);
        assert_eq!(pieces("{\"a\":1}\n{\"a\":2}"), ["{\"a\":1}", "{\"a\":2}"]);
        assert_eq!(pieces("{\n \"a\": 1\n}\n"), ["{\n \"a\": 1\n}"]);
        assert_eq!(pieces(" [{\"a\":1},\n {\"a\": 2}] "), ["{\"a\":1}", "{\"a\": 2}"]);
        assert_eq!(pieces(r#"["one","t\u0077o",""]"#), ["one", "two", ""]);
        assert_eq!(pieces("[error] one\n[12] two"), ["[error] one", "[12] two"]);
        assert_eq!(pieces("[1,2]"), ["[1,2]"], "a list of numbers is a line");
        assert_eq!(pieces("{\"a\":1\n{\"a\":2}"), ["{\"a\":1", "{\"a\":2}"]);
        assert_eq!(pieces("\u{feff}one"), ["one"]);
    }
}
