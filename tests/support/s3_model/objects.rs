//! Objects: put, get, list, delete.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::super::scripted::http_time;
use super::checksums::{Named, given, hex};
use super::xml::{answer, element, encode_key, inner, iso_time, text};
use super::{Answer, Checksums, Outcome, Request, State, error};

/// An object as it is stored.
#[derive(Debug, Clone)]
pub struct Object {
    pub bytes: Arc<Vec<u8>>,
    /// With its quotes.
    pub etag: String,
    /// `x-amz-meta-...`, without these letters.
    pub metadata: Vec<(String, String)>,
    /// What the server verified and stores.
    pub checksum: Option<Named>,
    pub modified: SystemTime,
}

impl Object {
    pub fn new(bytes: Vec<u8>) -> Object {
        Object {
            etag: etag(&bytes),
            bytes: Arc::new(bytes),
            metadata: Vec::new(),
            checksum: None,
            modified: SystemTime::now(),
        }
    }
}

/// An entity tag: opaque, the same for the same bytes.
pub fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", &hex(&Sha256::digest(bytes))[..32])
}

pub fn metadata(request: &Request) -> Vec<(String, String)> {
    let named = |(name, value): &(String, String)| {
        Some((name.strip_prefix("x-amz-meta-")?.to_owned(), value.clone()))
    };
    request.headers.iter().filter_map(named).collect()
}

impl State {
    pub fn put(&mut self, key: &str, request: &Request) -> Outcome {
        if self.behavior.condition_on_put {
            self.check_absent(key, request)?;
        }
        let mut object = Object::new(request.body.clone());
        object.metadata = metadata(request);
        let verifies = self.behavior.checksums == Checksums::VerifyAndEcho;
        object.checksum = given(request).filter(|_| verifies);
        let mut answer = Answer::new(200).header("etag", &object.etag);
        if let Some((name, sum)) = &object.checksum {
            answer = answer.header(&format!("x-amz-checksum-{name}"), sum);
        }
        self.objects.insert(key.to_owned(), object);
        Ok(answer)
    }

    /// The condition of a create-only write.
    pub fn check_absent(&self, key: &str, request: &Request) -> Result<(), Answer> {
        match request.header("if-none-match") {
            Some("*") if self.objects.contains_key(key) => Err(error(412, "PreconditionFailed")),
            None | Some("*") => Ok(()),
            Some(_) => Err(error(501, "NotImplemented")),
        }
    }

    pub fn get(&self, key: &str, request: &Request) -> Outcome {
        let object = self.objects.get(key).ok_or_else(|| error(404, "NoSuchKey"))?;
        if request.header("if-match").is_some_and(|tag| tag != object.etag) {
            return Err(error(412, "PreconditionFailed"));
        }
        let size = object.bytes.len();
        let mut answer = match request.header("range").map(|range| range_of(range, size)) {
            None => Answer::new(200).body(object.bytes.to_vec()),
            Some(None) => {
                return Err(
                    error(416, "InvalidRange").header("content-range", format!("bytes */{size}"))
                );
            }
            Some(Some((first, last))) => Answer::new(206)
                .header("content-range", format!("bytes {first}-{last}/{size}"))
                .body(&object.bytes[first..=last]),
        };
        answer = answer
            .header("etag", &object.etag)
            .header("last-modified", http_time(object.modified))
            .header("accept-ranges", "bytes");
        for (name, value) in &object.metadata {
            answer = answer.header(&format!("x-amz-meta-{name}"), value);
        }
        if let Some((name, sum)) = &object.checksum
            && request.header("x-amz-checksum-mode") == Some("ENABLED")
        {
            answer = answer
                .header(&format!("x-amz-checksum-{name}"), sum)
                .header("x-amz-checksum-type", "FULL_OBJECT");
        }
        Ok(answer)
    }

    pub fn list(&self, request: &Request) -> Outcome {
        if request.param("list-type").as_deref() != Some("2") {
            return Err(error(501, "NotImplemented"));
        }
        let prefix = request.param("prefix").unwrap_or_default();
        let delimiter = request.param("delimiter").filter(|text| !text.is_empty());
        // The token is the last entry of the page before.
        let token = request.param("continuation-token");
        let after = token.clone().or(request.param("start-after")).unwrap_or_default();
        let url = request.param("encoding-type").as_deref() == Some("url");
        let written = |text: &str| if url { encode_key(text) } else { text.to_owned() };
        let page = self.page_entries(request, "max-keys");

        let mut entries = BTreeSet::new();
        for key in self.objects.keys().filter(|key| key.starts_with(&prefix)) {
            let cut = delimiter.as_ref().and_then(|delimiter| {
                key[prefix.len()..]
                    .find(delimiter.as_str())
                    .map(|at| prefix.len() + at + delimiter.len())
            });
            let entry = cut.map_or((key.as_str(), false), |end| (&key[..end], true));
            if entry.0 > after.as_str() {
                entries.insert(entry);
            }
        }
        let truncated = entries.len() > page;
        let shown: Vec<_> = entries.into_iter().take(page).collect();
        let mut body = element("Prefix", written(&prefix)) + &element("KeyCount", shown.len());
        if url {
            body += &element("EncodingType", "url");
        }
        body += &element("IsTruncated", truncated);
        if let Some((last, _)) = shown.last().filter(|_| truncated) {
            body += &element("NextContinuationToken", last);
        }
        for (entry, is_prefix) in shown {
            if is_prefix {
                let prefix = element("Prefix", written(entry));
                body += &format!("<CommonPrefixes>{prefix}</CommonPrefixes>");
            } else {
                let object = &self.objects[entry];
                let fields = element("Key", written(entry))
                    + &element("LastModified", iso_time(object.modified))
                    + &element("ETag", &object.etag)
                    + &element("Size", object.bytes.len());
                body += &format!("<Contents>{fields}</Contents>");
            }
        }
        Ok(answer("ListBucketResult", &body))
    }

    pub fn delete_if(&mut self, key: &str, request: &Request) -> Outcome {
        let found = self.objects.get(key).map(|object| object.etag.as_str());
        match request.header("if-match") {
            Some(tag) if found.is_some_and(|found| found != tag) => {
                Err(error(412, "PreconditionFailed"))
            }
            _ => self.delete(key),
        }
    }

    pub fn delete(&mut self, key: &str) -> Outcome {
        if self.behavior.undeletable.iter().any(|k| k == key) {
            return Err(error(403, "AccessDenied"));
        }
        self.objects.remove(key);
        Ok(Answer::new(204))
    }

    pub fn delete_many(&mut self, request: &Request) -> Outcome {
        let xml = String::from_utf8_lossy(&request.body).into_owned();
        let keys: Vec<String> =
            inner(&xml, "Object").iter().filter_map(|object| text(object, "Key")).collect();
        if keys.is_empty() || keys.len() > 1000 {
            return Err(error(400, "MalformedXML"));
        }
        let mut body = String::new();
        for key in keys {
            let key_element = element("Key", &key);
            body += &match self.delete(&key) {
                Ok(_) => format!("<Deleted>{key_element}</Deleted>"),
                Err(_) => format!("<Error>{key_element}<Code>AccessDenied</Code></Error>"),
            };
        }
        Ok(answer("DeleteResult", &body))
    }
}

/// First and last byte of `bytes=a-b`, `bytes=a-` or `bytes=-n`; `None` where no such byte is there.
fn range_of(range: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first, last),
        (Ok(first), Err(_)) => (first, usize::MAX),
        (Err(_), Ok(0)) => return None,
        (Err(_), Ok(length)) => (size.saturating_sub(length), usize::MAX),
        _ => return None,
    };
    (first < size && first <= last).then(|| (first, last.min(size - 1)))
}
