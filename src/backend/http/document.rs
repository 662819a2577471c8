//! Reading and writing of XML documents, as the object stores exchange them.
//!
//! An answer of another kind than asked for, or one without what is needed, is [`Unreadable`]: a broken
//! listing must not look like an empty one. Nothing is expanded but XML's own entities and character
//! references; a document type is refused.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use quick_xml::de::{Deserializer, EntityResolver};
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesText, Event};
use serde::de::{DeserializeOwned, Error as _};

use crate::error::{Error, ErrorKind};
use crate::limits::OBJECT_BYTES_MAX;

/// An answer that is not the document that was expected. Quotes nothing of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable(String);

impl Unreadable {
    pub fn new(why: impl Into<String>) -> Unreadable {
        Unreadable(why.into())
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

/// An answer that is not the document that was asked for: more likely a gateway's than the server's.
pub(crate) fn unreadable(operation: &'static str, error: Unreadable) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        operation,
        format!("the server's answer is unreadable: {error}"),
    )
    .with_remedy("check the endpoint, and what stands between")
}

/// Reads a document whose root has this name.
pub(crate) fn read<T: DeserializeOwned>(answer: &[u8], expected: &str) -> Result<T, Unreadable> {
    let text = text(answer)?;
    let found = root(text)?;
    if found != expected {
        return Err(Unreadable(format!("the answer is not a {expected}")));
    }
    T::deserialize(&mut Deserializer::from_str_with_resolver(text, OwnEntities))
        .map_err(|e| Unreadable(format!("the {expected} in the answer cannot be read: {e}")))
}

/// The name of a document's root, without a namespace's prefix.
pub(crate) fn root_of(answer: &[u8]) -> Result<String, Unreadable> {
    root(text(answer)?)
}

/// Knows XML's own entities and refuses to learn more.
struct OwnEntities;

impl EntityResolver for OwnEntities {
    type Error = quick_xml::DeError;

    fn capture(&mut self, _: BytesText<'_>) -> Result<(), quick_xml::DeError> {
        Err(quick_xml::DeError::custom("a document type is not allowed"))
    }

    fn resolve(&self, entity: &str) -> Option<&str> {
        resolve_predefined_entity(entity)
    }
}

fn text(answer: &[u8]) -> Result<&str, Unreadable> {
    let text = std::str::from_utf8(answer)
        .map_err(|_| Unreadable("the answer is not UTF-8".to_owned()))?;
    // A declaration must come first, and would not after the spaces that keep a connection alive.
    Ok(text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\u{feff}'))
}

fn root(text: &str) -> Result<String, Unreadable> {
    let mut reader = quick_xml::Reader::from_str(text);
    loop {
        match reader.read_event() {
            Ok(Event::Start(tag) | Event::Empty(tag)) => {
                return Ok(String::from_utf8_lossy(tag.local_name().as_ref()).into_owned());
            }
            Ok(Event::Decl(_) | Event::Comment(_) | Event::PI(_)) => {}
            Ok(Event::Text(text)) if text.iter().all(u8::is_ascii_whitespace) => {}
            _ => return Err(Unreadable("the answer is not an XML document".to_owned())),
        }
    }
}

/// A number in an answer; `what` names it.
pub(crate) fn number<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, Unreadable> {
    text.trim().parse().map_err(|_| Unreadable(format!("a {what} in the answer is no number")))
}

/// The size of an object in an answer, where it can be one.
pub(crate) fn size(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes <= OBJECT_BYTES_MAX)
}

/// The same in a document.
pub(crate) fn size_of(text: &str) -> Result<u64, Unreadable> {
    size(text).ok_or_else(|| Unreadable("a size in the answer is none".to_owned()))
}

/// An ISO 8601 time; `None` where it is none.
pub(crate) fn moment(text: &str) -> Option<SystemTime> {
    text.trim().parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

/// Appends an element with this text.
pub(crate) fn push_element(xml: &mut String, name: &str, text: &str) {
    // Writing to a string cannot fail.
    let _ = write!(xml, "<{name}>");
    for c in text.chars() {
        match c {
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '&' => xml.push_str("&amp;"),
            '"' => xml.push_str("&quot;"),
            '\'' => xml.push_str("&apos;"),
            // As they stand, line ends would be changed and others are no XML at all.
            c if c.is_control() => {
                let _ = write!(xml, "&#{};", u32::from(c));
            }
            c => xml.push(c),
        }
    }
    let _ = write!(xml, "</{name}>");
}
