//! The XML of answers and requests. Source: Blob service REST API, "List Blobs", "Get Block List",
//! "Put Block List" and "Status and error codes".

use serde::Deserialize;

use crate::backend::http::document::{Unreadable, moment, push_element, read, size_of};
use crate::backend::http::{ListedObject, Page, parse_http_date};

/// What a server says went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServerError {
    pub code: String,
    #[serde(default)]
    pub message: String,
    /// What of an authorization is wrong. Not to be shown: it may quote what was signed.
    #[serde(rename = "AuthenticationErrorDetail", default)]
    pub detail: String,
}

/// The answer to List Blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The next page begins at a marker.
    pub objects: Page<ListedObject, String>,
    /// What a delimiter cut off.
    pub prefixes: Vec<String>,
}

/// Blocks of a blob that are not committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Uncommitted {
    pub blocks: usize,
    pub bytes: u64,
}

/// What the body of an error answer says; `None` if it is not Azure's.
pub(crate) fn parse_error(answer: &[u8]) -> Option<ServerError> {
    read(answer, "Error").ok()
}

/// The answer to List Blobs.
pub(crate) fn parse_listing(answer: &[u8]) -> Result<Listing, Unreadable> {
    let listing: EnumerationResults = read(answer, "EnumerationResults")?;
    let mut items = Vec::with_capacity(listing.blobs.blobs.len());
    for BlobElement { name, properties } in listing.blobs.blobs {
        // Accounts with a hierarchy of names list their directories, which hold nothing.
        if properties.resource_type.as_deref() == Some("directory") {
            continue;
        }
        items.push(ListedObject {
            key: name.decode()?,
            size_bytes: size_of(&properties.size)?,
            etag: properties.etag.filter(|etag| !etag.is_empty()).map(quoted),
            modified: properties
                .last_modified
                .as_deref()
                .and_then(|text| parse_http_date(text).or_else(|| moment(text))),
        });
    }
    let prefixes = listing.blobs.prefixes.into_iter().map(|prefix| prefix.name.decode());
    let prefixes = prefixes.collect::<Result<_, _>>()?;
    let next = Some(listing.next_marker).filter(|marker| !marker.is_empty());
    Ok(Listing { objects: Page { items, next }, prefixes })
}

/// The answer to Get Block List.
pub(crate) fn parse_uncommitted(answer: &[u8]) -> Result<Uncommitted, Unreadable> {
    let list: BlockListAnswer = read(answer, "BlockList")?;
    let mut uncommitted = Uncommitted::default();
    for block in list.uncommitted.unwrap_or_default().blocks {
        uncommitted.blocks += 1;
        uncommitted.bytes = uncommitted.bytes.saturating_add(size_of(&block.size)?);
    }
    Ok(uncommitted)
}

/// The body of Put Block List: these blocks, in this order, as they were put last.
pub(crate) fn write_block_list<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    let mut xml = "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>".to_owned();
    for id in ids {
        push_element(&mut xml, "Uncommitted", id);
    }
    xml.push_str("</BlockList>");
    xml
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EnumerationResults {
    blobs: Blobs,
    /// Empty on the last page, and never absent: a list that ends without it was cut short.
    next_marker: String,
}

#[derive(Deserialize)]
struct Blobs {
    #[serde(rename = "Blob", default)]
    blobs: Vec<BlobElement>,
    #[serde(rename = "BlobPrefix", default)]
    prefixes: Vec<PrefixElement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BlobElement {
    name: Name,
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PrefixElement {
    name: Name,
}

#[derive(Deserialize)]
struct Properties {
    #[serde(rename = "Content-Length")]
    size: String,
    #[serde(rename = "Etag")]
    etag: Option<String>,
    #[serde(rename = "Last-Modified")]
    last_modified: Option<String>,
    #[serde(rename = "ResourceType")]
    resource_type: Option<String>,
}

/// A name; percent-encoded where it has characters that XML has not.
#[derive(Deserialize)]
struct Name {
    #[serde(rename = "@Encoded")]
    encoded: Option<String>,
    #[serde(rename = "$text", default)]
    text: String,
}

impl Name {
    fn decode(self) -> Result<String, Unreadable> {
        // An absent name, or one of spaces alone, which the reader drops.
        if self.text.is_empty() {
            return Err(Unreadable::new("a name in the answer is empty"));
        }
        if self.encoded.as_deref() != Some("true") {
            return Ok(self.text);
        }
        let bad = || Unreadable::new("a name in the answer is badly encoded");
        let mut bytes = Vec::with_capacity(self.text.len());
        let mut rest = self.text.bytes();
        while let Some(byte) = rest.next() {
            if byte != b'%' {
                bytes.push(byte);
                continue;
            }
            let mut digit = || rest.next().and_then(|c| char::from(c).to_digit(16));
            let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
            bytes.push((high << 4 | low) as u8);
        }
        String::from_utf8(bytes).map_err(|_| bad())
    }
}

#[derive(Deserialize)]
struct BlockListAnswer {
    #[serde(rename = "UncommittedBlocks")]
    uncommitted: Option<Blocks>,
}

#[derive(Deserialize, Default)]
struct Blocks {
    #[serde(rename = "Block", default)]
    blocks: Vec<BlockElement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BlockElement {
    size: String,
}

/// Listings leave out the quotes that headers have.
fn quoted(etag: String) -> String {
    if etag.starts_with('"') || etag.starts_with("W/") { etag } else { format!("\"{etag}\"") }
}
