//! Documents that carry a checksum of themselves.
//!
//! A sealed document is a pretty-printed JSON object whose last field is the checksum of all before
//! it:
//!
//! ```text
//! {
//!   "format_version": 1,
//!   ...
//!   "manifest_checksum": "crc32c:e3069283"
//! }
//! ```
//!
//! The checksum is the CRC32C of the text's bytes from its first up to, and without, the quotation
//! mark that opens the last field's name. From that quotation mark on the text is exactly `"NAME":
//! "crc32c:HHHHHHHH"`, a line feed, and `}`: lower-case digits, nothing after the brace. So it is
//! checked on the bytes as they were read, without parsing, and every truncation shows.

use serde::Serialize;

use crate::encode::Algorithm;
use crate::error::{Error, ErrorKind, Result};

/// `"crc32c:HHHHHHHH"`, a line feed, and the brace.
const VALUE_BYTES: usize = "\"crc32c:00000000\"\n}".len();

/// The text of `document` (a JSON object with at least one field), sealed by a field of this name.
pub(super) fn seal(document: &impl Serialize, name: &str) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(document)
        .expect("structs of numbers, texts and JSON values always serialise");
    assert!(text.ends_with(b"\n}") && text.len() > 3, "a JSON object with a field");
    text.truncate(text.len() - 2);
    text.extend_from_slice(b",\n  ");
    close(&mut text, name);
    text
}

/// Appends the seal of what is there.
pub(super) fn close(text: &mut Vec<u8>, name: &str) {
    let checksum = Algorithm::Crc32c.checksum(text);
    text.extend_from_slice(format!("\"{name}\": \"{checksum}\"\n}}").as_bytes());
}

/// Whether the text is sealed by a field of this name.
///
/// # Errors
/// `Corrupt` if it is and its bytes are not those that were sealed.
pub(super) fn check(text: &[u8], name: &str) -> Result<bool> {
    let label = format!("\"{name}\": ");
    let Some(covered_bytes) = text.len().checked_sub(label.len() + VALUE_BYTES) else {
        return Ok(false);
    };
    let (covered, tail) = text.split_at(covered_bytes);
    let Some(value) = tail.strip_prefix(label.as_bytes()) else { return Ok(false) };
    let actual = format!("\"{}\"\n}}", Algorithm::Crc32c.checksum(covered));
    if value == actual.as_bytes() {
        return Ok(true);
    }
    let stated = String::from_utf8_lossy(value);
    let stated = stated.trim_end_matches(['\n', '}']);
    Err(Error::new(
        ErrorKind::Corrupt,
        "check document",
        format!(
            "the text was altered: {name} is {stated}, its bytes give {}",
            actual.trim_end_matches("\n}")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_sealed_text_is_json_and_checks() {
        let text = seal(&json!({"a": 1, "b": [true, null]}), "sum");
        assert!(check(&text, "sum").unwrap());
        assert!(!check(&text, "other_sum").unwrap());
        let parsed: Value = serde_json::from_slice(&text).unwrap();
        let before = text.len() - "\"sum\": ".len() - VALUE_BYTES;
        let expected = Algorithm::Crc32c.checksum(&text[..before]).to_string();
        assert_eq!(parsed["sum"], Value::String(expected));
    }

    #[test]
    fn no_single_byte_changes_unseen() {
        let text = seal(&json!({"key": "value"}), "sum");
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[at] ^= 1 << bit;
                assert!(!matches!(check(&flipped, "sum"), Ok(true)), "byte {at} bit {bit}");
            }
            assert!(!matches!(check(&text[..at], "sum"), Ok(true)), "cut at {at}");
        }
        let longer = [&text[..], b"\n"].concat();
        assert!(!check(&longer, "sum").unwrap());
    }
}
