//! An object open for reading: ranged GETs of the one version that was there at `open`.
//! Source: RFC 9110, sections 13.1.1 and 14.

use std::fmt;

use ::http::StatusCode;

use crate::backend::http::Answer;
use crate::backend::http::document::size as size_in;
use crate::backend::{Alignment, IoMode, Source};
use crate::encode::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::READ_AHEAD_BYTES;
use crate::sync::Arc;
use crate::time::Deadline;

/// What a protocol does for reading.
pub(crate) trait Reads: Send + Sync + fmt::Debug {
    /// Asks for a range of an object, of the version `get` names.
    ///
    /// # Errors
    /// `NotFound` if there is no such object; what the server says, but for what [`Got`] tells apart.
    fn get(&self, get: Get<'_>, deadline: &Deadline) -> Result<Got>;

    /// The size and the entity tag of an object.
    fn size_of(&self, key: &str, deadline: &Deadline) -> Result<(u64, Option<String>)>;

    /// The checksum of the whole object, where an answer to `get` tells it.
    fn checksum_in(&self, _: &Answer) -> Option<Checksum> {
        None
    }
}

/// A GET of some bytes.
pub(crate) struct Get<'a> {
    pub operation: &'static str,
    pub key: &'a str,
    /// The value of the `Range` header.
    pub range: &'a str,
    pub if_match: Option<&'a str>,
    /// Where the bytes go; collected where there is no such place.
    pub into: Option<&'a mut [u8]>,
}

/// What became of it.
pub(crate) enum Got {
    Answer(Answer),
    /// 412: it is another version.
    Changed,
    /// 416: the object has no such bytes; as an error.
    OutOfRange(Error),
}

/// One version of an object.
#[derive(Debug)]
pub(crate) struct RangedSource<R> {
    reads: Arc<R>,
    key: String,
    size_bytes: u64,
    /// `None` where the server gives none: then versions cannot be told apart.
    etag: Option<String>,
    checksum: Option<Checksum>,
    /// The object's first bytes, which came when it was opened.
    first: Vec<u8>,
}

impl<R: Reads> RangedSource<R> {
    /// Opens the object by reading its first bytes: for a small one that is all.
    pub fn open(reads: &Arc<R>, key: &str, deadline: &Deadline) -> Result<RangedSource<R>> {
        let range = format!("bytes=0-{}", READ_AHEAD_BYTES - 1);
        let get = Get { operation: "open", key, range: &range, if_match: None, into: None };
        let source = |size_bytes, etag, checksum, first| RangedSource {
            reads: Arc::clone(reads),
            key: key.to_owned(),
            size_bytes,
            etag,
            checksum,
            first,
        };
        let answer = match reads.get(get, deadline)? {
            Got::Answer(answer) => answer,
            Got::Changed => return Err(changed()),
            // An empty object has no first byte.
            Got::OutOfRange(error) => {
                return match reads.size_of(key, deadline)? {
                    (0, etag) => Ok(source(0, etag, None, Vec::new())),
                    _ => Err(error.with_kind(ErrorKind::Unavailable)),
                };
            }
        };
        let size_bytes = match answer.status {
            StatusCode::PARTIAL_CONTENT => checked_range(&answer, 0, answer.body.len() as u64)?,
            StatusCode::OK => answer.body.len() as u64,
            status => return Err(wrong_range(no_content(status))),
        };
        let etag = tagged("open", &answer)?;
        Ok(source(size_bytes, Some(etag), reads.checksum_in(&answer), answer.body))
    }
}

/// The entity tag of an answer that tells of an object. Without it pieces of two versions could not be
/// told apart; and what answers without one is not the server, but perhaps a portal before it.
pub(crate) fn tagged(operation: &'static str, answer: &Answer) -> Result<String> {
    let etag = answer.header("etag").filter(|etag| !etag.is_empty()).map(str::to_owned);
    etag.ok_or_else(|| {
        let what = "the answer has no ETag, so it is not that of an object store";
        Error::new(ErrorKind::Unavailable, operation, what)
            .with_remedy("check the endpoint, and what stands between")
    })
}

impl<R: Reads> Source for RangedSource<R> {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn checksum(&self) -> Option<Checksum> {
        self.checksum
    }

    fn alignment(&self) -> Alignment {
        Alignment::NONE
    }

    fn mode(&self) -> IoMode {
        IoMode::Network
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8], deadline: &Deadline) -> Result<usize> {
        let left = self.size_bytes.saturating_sub(offset).min(buffer.len() as u64) as usize;
        if left == 0 {
            return Ok(0);
        }
        let known = usize::try_from(offset).ok().and_then(|at| self.first.get(at..));
        if let Some(known) = known.filter(|known| !known.is_empty()) {
            let count = known.len().min(left);
            buffer[..count].copy_from_slice(&known[..count]);
            return Ok(count);
        }
        let range = format!("bytes={offset}-{}", offset + left as u64 - 1);
        let get = Get {
            operation: "read",
            key: &self.key,
            range: &range,
            if_match: self.etag.as_deref(),
            into: Some(&mut buffer[..left]),
        };
        let answer = match self.reads.get(get, deadline)? {
            Got::Answer(answer) => answer,
            // The size was another one when it was opened.
            Got::Changed | Got::OutOfRange(_) => return Err(changed()),
        };
        if answer.header("etag").is_some_and(|etag| Some(etag) != self.etag.as_deref()) {
            return Err(changed());
        }
        match answer.status {
            StatusCode::PARTIAL_CONTENT
                if checked_range(&answer, offset, left as u64)? != self.size_bytes =>
            {
                return Err(changed());
            }
            StatusCode::PARTIAL_CONTENT => {}
            StatusCode::OK if offset == 0 && left as u64 == self.size_bytes => {}
            StatusCode::OK => {
                let what = "the server sends the whole object for a range of it";
                return Err(wrong_range(what.to_owned()));
            }
            status => return Err(wrong_range(no_content(status))),
        }
        if answer.filled_bytes != left {
            let got = answer.filled_bytes;
            return Err(wrong_range(format!("{got} bytes came of the {left} at {offset}")));
        }
        Ok(left)
    }
}

/// The object's size, from an answer that must hold these bytes.
fn checked_range(answer: &Answer, offset: u64, bytes: u64) -> Result<u64> {
    let text = answer.header("content-range").unwrap_or_default();
    match content_range(text) {
        Some((first, last, size))
            if first == offset
                && last.checked_sub(first) == Some(bytes.wrapping_sub(1))
                && last < size =>
        {
            Ok(size)
        }
        _ => Err(wrong_range(format!("{bytes} bytes at {offset} came as \"{text}\""))),
    }
}

/// First byte, last byte and the object's size of a `Content-Range`.
pub(crate) fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((size_in(first)?, size_in(last)?, size_in(size)?))
}

/// Other successes have no content, or not the object's.
fn no_content(status: StatusCode) -> String {
    format!("the server answers {status}, which is no answer with an object's content")
}

fn changed() -> Error {
    Error::new(ErrorKind::Conflict, "read", "the object was replaced while it was read")
        .with_remedy("read it again from its start")
}

fn wrong_range(what: String) -> Error {
    Error::new(ErrorKind::Unavailable, "read", what)
}
