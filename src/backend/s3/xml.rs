//! The XML of answers and requests.
//!
//! Only `CommonPrefix` is rust-s3's. Its other types demand what servers leave out: an error's request
//! id, a listing's name, an object's time, an upload's storage class; and its writer escapes nothing.
//!
//! Servers differ in what they leave out and in the order of elements. So what is not needed is optional
//! here, and lists may be interleaved.

use std::fmt::Write as _;
use std::time::SystemTime;

use s3::serde_types::CommonPrefix;
use serde::Deserialize;

use crate::backend::http::document::{
    Unreadable, moment, number, push_element, read, root_of, size_of,
};
use crate::backend::http::{ListedObject, Page};

/// What a server says went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServerError {
    pub code: String,
    #[serde(default)]
    pub message: String,
    /// The region to sign for, where another was used.
    pub region: Option<String>,
    /// The host to ask instead, in a redirect.
    pub endpoint: Option<String>,
    pub bucket_name: Option<String>,
    pub request_id: Option<String>,
    pub host_id: Option<String>,
}

/// The answer to CompleteMultipartUpload, where it made the object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Completed {
    #[serde(rename = "ETag")]
    pub etag: Option<String>,
    #[serde(rename = "ChecksumCRC32")]
    pub crc32: Option<String>,
    #[serde(rename = "ChecksumCRC32C")]
    pub crc32c: Option<String>,
    #[serde(rename = "ChecksumCRC64NVME")]
    pub crc64nvme: Option<String>,
    /// `FULL_OBJECT` or `COMPOSITE`.
    #[serde(rename = "ChecksumType")]
    pub checksum_type: Option<String>,
}

/// The answer to ListObjectsV2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The next page begins at a continuation token.
    pub objects: Page<ListedObject, String>,
    pub common_prefixes: Vec<String>,
}

/// An upload of ListMultipartUploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedUpload {
    pub key: String,
    pub upload_id: String,
    pub initiated: Option<SystemTime>,
}

/// Where the next page of uploads begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UploadMarker {
    pub key: String,
    /// Some servers go by the key alone.
    pub upload_id: Option<String>,
}

/// A part of ListParts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedPart {
    /// 1-based.
    pub number: u32,
    pub size_bytes: u64,
    pub etag: Option<String>,
}

/// The answer to DeleteObjects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Deletion {
    pub deleted: Vec<String>,
    pub failed: Vec<NotDeleted>,
}

/// A key that DeleteObjects did not remove.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NotDeleted {
    pub key: String,
    pub code: String,
    #[serde(default)]
    pub message: String,
}

/// What the body of an error answer says; `None` if it is not S3's.
pub(crate) fn parse_error(answer: &[u8]) -> Option<ServerError> {
    read(answer, "Error").ok()
}

/// The upload id in the answer to CreateMultipartUpload.
pub(crate) fn parse_initiated(answer: &[u8]) -> Result<String, Unreadable> {
    let initiated: Initiated = read(answer, "InitiateMultipartUploadResult")?;
    match initiated.upload_id {
        id if id.is_empty() => Err(Unreadable::new("the answer's upload id is empty")),
        id => Ok(id),
    }
}

/// The answer to CompleteMultipartUpload with status 200, which may still be an error: it is sent
/// before the work is done, and spaces keep the connection alive meanwhile.
pub(crate) fn parse_completed(answer: &[u8]) -> Result<Result<Completed, ServerError>, Unreadable> {
    match root_of(answer)?.as_str() {
        "Error" => read(answer, "Error").map(Err),
        _ => read(answer, "CompleteMultipartUploadResult").map(Ok),
    }
}

/// The answer to ListObjectsV2.
pub(crate) fn parse_listing(answer: &[u8]) -> Result<Listing, Unreadable> {
    let listing: ListBucketResult = read(answer, "ListBucketResult")?;
    let decoded = |text: String| decode(text, listing.encoding_type.as_deref());
    let object = |object: Contents| {
        Ok(ListedObject {
            key: named(decoded(object.key)?)?,
            size_bytes: size_of(&object.size)?,
            etag: object.etag,
            modified: object.last_modified.and_then(|time| moment(&time)),
        })
    };
    let items = listing.contents.into_iter().map(object).collect::<Result<_, _>>()?;
    let prefixes = listing.common_prefixes.into_iter().map(|common| decoded(common.prefix));
    let common_prefixes = prefixes.collect::<Result<_, _>>()?;
    let next = next(&listing.is_truncated, listing.next_continuation_token)?;
    Ok(Listing { objects: Page { items, next }, common_prefixes })
}

/// The answer to ListMultipartUploads.
pub(crate) fn parse_uploads(answer: &[u8]) -> Result<Page<ListedUpload, UploadMarker>, Unreadable> {
    let uploads: ListMultipartUploadsResult = read(answer, "ListMultipartUploadsResult")?;
    let decoded = |text: String| decode(text, uploads.encoding_type.as_deref());
    let upload = |upload: UploadElement| {
        Ok(ListedUpload {
            key: named(decoded(upload.key)?)?,
            upload_id: upload.upload_id,
            initiated: upload.initiated.and_then(|time| moment(&time)),
        })
    };
    let items = uploads.uploads.into_iter().map(upload).collect::<Result<_, _>>()?;
    let next = match next(&uploads.is_truncated, uploads.next_key_marker)? {
        Some(key) => Some(UploadMarker {
            key: decoded(key)?,
            upload_id: uploads.next_upload_id_marker.filter(|id| !id.is_empty()),
        }),
        None => None,
    };
    Ok(Page { items, next })
}

/// The answer to ListParts.
pub(crate) fn parse_parts(answer: &[u8]) -> Result<Page<ListedPart, u32>, Unreadable> {
    let parts: ListPartsResult = read(answer, "ListPartsResult")?;
    let part = |part: PartElement| {
        Ok(ListedPart {
            number: number(&part.part_number, "part number")?,
            size_bytes: size_of(&part.size)?,
            etag: part.etag,
        })
    };
    let items = parts.parts.into_iter().map(part).collect::<Result<_, _>>()?;
    let next = match next(&parts.is_truncated, parts.next_part_number_marker)? {
        Some(marker) => Some(number(&marker, "part number marker")?),
        None => None,
    };
    Ok(Page { items, next })
}

/// The answer to DeleteObjects.
pub(crate) fn parse_deletion(answer: &[u8]) -> Result<Deletion, Unreadable> {
    let result: DeleteResult = read(answer, "DeleteResult")?;
    let deleted = result.deleted.into_iter().map(|deleted| deleted.key).collect();
    Ok(Deletion { deleted, failed: result.failed })
}

/// A part in the body of CompleteMultipartUpload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompletedPart<'a> {
    /// 1-based.
    pub number: u32,
    pub etag: &'a str,
    /// The name of the element, such as `ChecksumCRC32C`, and its text.
    pub checksum: Option<(&'static str, &'a str)>,
}

/// The body of CompleteMultipartUpload.
pub(crate) fn write_complete<'a>(parts: impl IntoIterator<Item = CompletedPart<'a>>) -> String {
    let mut xml =
        "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">".to_owned();
    for part in parts {
        // Writing to a string cannot fail.
        let _ = write!(xml, "<Part><PartNumber>{}</PartNumber>", part.number);
        push_element(&mut xml, "ETag", part.etag);
        if let Some((name, text)) = part.checksum {
            push_element(&mut xml, name, text);
        }
        xml.push_str("</Part>");
    }
    xml.push_str("</CompleteMultipartUpload>");
    xml
}

/// The body of DeleteObjects.
pub(crate) fn write_delete<K: AsRef<str>>(keys: &[K]) -> String {
    let mut xml = "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">".to_owned();
    for key in keys {
        xml.push_str("<Object>");
        push_element(&mut xml, "Key", key.as_ref());
        xml.push_str("</Object>");
    }
    xml.push_str("<Quiet>false</Quiet></Delete>");
    xml
}

#[derive(Deserialize)]
struct Initiated {
    #[serde(rename = "UploadId")]
    upload_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListBucketResult {
    is_truncated: String,
    next_continuation_token: Option<String>,
    encoding_type: Option<String>,
    #[serde(default)]
    contents: Vec<Contents>,
    #[serde(default)]
    common_prefixes: Vec<CommonPrefix>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Contents {
    key: String,
    size: String,
    #[serde(rename = "ETag")]
    etag: Option<String>,
    last_modified: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListMultipartUploadsResult {
    is_truncated: String,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    encoding_type: Option<String>,
    #[serde(rename = "Upload", default)]
    uploads: Vec<UploadElement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UploadElement {
    key: String,
    upload_id: String,
    initiated: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListPartsResult {
    is_truncated: String,
    next_part_number_marker: Option<String>,
    #[serde(rename = "Part", default)]
    parts: Vec<PartElement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PartElement {
    part_number: String,
    size: String,
    #[serde(rename = "ETag")]
    etag: Option<String>,
}

#[derive(Deserialize)]
struct DeleteResult {
    #[serde(rename = "Deleted", default)]
    deleted: Vec<DeletedElement>,
    #[serde(rename = "Error", default)]
    failed: Vec<NotDeleted>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeletedElement {
    key: String,
}

/// Where the next page begins. One that is said to follow and cannot be found would end the list early.
fn next(truncated: &str, marker: Option<String>) -> Result<Option<String>, Unreadable> {
    match truncated.trim() {
        "false" | "False" => Ok(None),
        "true" | "True" => marker.filter(|marker| !marker.is_empty()).map(Some).ok_or_else(|| {
            Unreadable::new("the list in the answer goes on, but does not say where")
        }),
        _ => Err(Unreadable::new("the answer does not say whether the list goes on")),
    }
}

/// A key that names an object. A request for none would be one for the bucket.
fn named(key: String) -> Result<String, Unreadable> {
    match key.is_empty() {
        true => Err(Unreadable::new("a key in the answer is empty")),
        false => Ok(key),
    }
}

/// A key as the answer encodes it. Like a form: a space may be `+`, and `+` is `%2B`.
pub(crate) fn decode(text: String, encoding_type: Option<&str>) -> Result<String, Unreadable> {
    if encoding_type != Some("url") {
        return Ok(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    let digit = |rest: &mut std::str::Bytes<'_>| {
        rest.next().and_then(|c| char::from(c).to_digit(16)).map(|digit| digit as u8)
    };
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => match (digit(&mut rest), digit(&mut rest)) {
                (Some(high), Some(low)) => bytes.push(high << 4 | low),
                _ => return Err(Unreadable::new("a key in the answer is badly encoded")),
            },
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| Unreadable::new("a key in the answer is not UTF-8"))
}
