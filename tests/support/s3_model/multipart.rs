//! Multipart uploads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::checksums::{ALGORITHMS, Named, checksum, element_of, given};
use super::objects::{etag, metadata};
use super::xml::{answer, element, encode_key, inner, iso_time, text};
use super::{Answer, Checksums, CompleteChecksum, Object, Outcome, Request, State, error};

/// An upload that is open.
#[derive(Debug, Clone)]
pub struct Upload {
    pub key: String,
    pub initiated: SystemTime,
    pub metadata: Vec<(String, String)>,
    /// What `x-amz-checksum-algorithm` said: `CRC32C`.
    pub algorithm: Option<String>,
    /// What `x-amz-checksum-type` said: `FULL_OBJECT`.
    pub checksum_type: Option<String>,
    /// By number, from 1.
    pub parts: BTreeMap<u32, Part>,
}

/// A part that was taken.
#[derive(Debug, Clone)]
pub struct Part {
    pub bytes: Arc<Vec<u8>>,
    pub etag: String,
    pub checksum: Option<Named>,
    /// How often it was sent.
    pub times: usize,
}

impl Upload {
    pub fn new(key: &str, initiated: SystemTime) -> Upload {
        Upload {
            key: key.to_owned(),
            initiated,
            metadata: Vec::new(),
            algorithm: None,
            checksum_type: None,
            parts: BTreeMap::new(),
        }
    }
}

fn no_such_upload() -> Answer {
    error(404, "NoSuchUpload")
}

fn upload_id(request: &Request) -> String {
    request.param("uploadId").unwrap_or_default()
}

impl State {
    pub fn open_upload(&mut self, upload: Upload) -> String {
        self.uploads_made += 1;
        // With characters that must be encoded in a query.
        let id = format!("upload+{}/{}==", self.uploads_made, upload.key.len());
        self.uploads.insert(id.clone(), upload);
        id
    }

    pub fn create(&mut self, key: &str, request: &Request) -> Answer {
        let mut upload = Upload::new(key, SystemTime::now());
        upload.metadata = metadata(request);
        if self.behavior.checksums == Checksums::VerifyAndEcho {
            upload.algorithm = request.header("x-amz-checksum-algorithm").map(str::to_owned);
            upload.checksum_type = request.header("x-amz-checksum-type").map(str::to_owned);
        }
        let id = self.open_upload(upload);
        answer("InitiateMultipartUploadResult", &(element("Key", key) + &element("UploadId", id)))
    }

    pub fn upload_part(&mut self, request: &Request) -> Outcome {
        let verifies = self.behavior.checksums == Checksums::VerifyAndEcho;
        let upload = self.uploads.get_mut(&upload_id(request)).ok_or_else(no_such_upload)?;
        let number = request.param("partNumber").and_then(|text| text.parse().ok());
        let Some(number @ 1..=10_000) = number else { return Err(error(400, "InvalidArgument")) };
        let checksum = given(request).filter(|_| verifies);
        if let (Some((name, _)), Some(algorithm)) = (&checksum, &upload.algorithm)
            && !name.eq_ignore_ascii_case(algorithm)
        {
            return Err(error(400, "InvalidRequest"));
        }
        let etag = etag(&request.body);
        let mut answer = Answer::new(200).header("etag", &etag);
        if let Some((name, sum)) = &checksum {
            answer = answer.header(&format!("x-amz-checksum-{name}"), sum);
        }
        let times = upload.parts.get(&number).map_or(0, |part| part.times) + 1;
        let bytes = Arc::new(request.body.clone());
        upload.parts.insert(number, Part { bytes, etag, checksum, times });
        Ok(answer)
    }

    pub fn complete(&mut self, key: &str, request: &Request) -> Outcome {
        let upload = self.uploads.get(&upload_id(request)).ok_or_else(no_such_upload)?;
        if self.behavior.condition_on_complete {
            self.check_absent(key, request)?;
        }
        let parts = self.listed_parts(upload, request)?;
        let mut bytes = Vec::new();
        parts.iter().for_each(|part| bytes.extend_from_slice(&part.bytes));
        let size = request.header("x-amz-mp-object-size");
        if size.is_some_and(|size| size != bytes.len().to_string()) {
            return Err(error(400, "InvalidRequest"));
        }
        let verifies = self.behavior.checksums == Checksums::VerifyAndEcho;
        let sum = match given(request).filter(|_| verifies) {
            Some((name, sum)) if checksum(name, &bytes) != sum => {
                return Err(error(400, "BadDigest"));
            }
            Some(named) => Some(named),
            None => {
                let asked = upload.algorithm.as_ref().filter(|_| verifies);
                let name = asked.and_then(|asked| ALGORITHMS.iter().find(|a| a.2 == asked));
                name.map(|(name, _, _)| (*name, checksum(name, &bytes)))
            }
        };
        let mut object = Object::new(bytes);
        object.etag = format!("{}-{}\"", object.etag.trim_end_matches('"'), parts.len());
        object.metadata = upload.metadata.clone();
        object.checksum = sum;
        let answer = self.completed(&object);
        self.objects.insert(key.to_owned(), object);
        self.uploads.remove(&upload_id(request));
        Ok(answer)
    }

    /// The parts that the body lists, each checked.
    fn listed_parts(&self, upload: &Upload, request: &Request) -> Result<Vec<Part>, Answer> {
        let xml = String::from_utf8_lossy(&request.body).into_owned();
        let listed = inner(&xml, "Part");
        let mut parts: Vec<Part> = Vec::new();
        let mut last_number = 0;
        for (index, entry) in listed.iter().enumerate() {
            let number = text(entry, "PartNumber").and_then(|text| text.parse::<u32>().ok());
            let number = number.ok_or_else(|| error(400, "MalformedXML"))?;
            if number <= last_number {
                return Err(error(400, "InvalidPartOrder"));
            }
            last_number = number;
            let part = upload.parts.get(&number).ok_or_else(|| error(400, "InvalidPart"))?;
            let unquoted = |tag: &str| tag.trim_matches('"').to_owned();
            let same_tag =
                text(entry, "ETag").is_some_and(|tag| unquoted(&tag) == unquoted(&part.etag));
            let same_sum = part.checksum.as_ref().is_none_or(|(name, sum)| {
                text(entry, element_of(name)).is_none_or(|listed| listed == *sum)
            });
            if !same_tag || !same_sum {
                return Err(error(400, "InvalidPart"));
            }
            if index + 1 < listed.len() && part.bytes.len() < self.behavior.part_bytes_min {
                return Err(error(400, "EntityTooSmall"));
            }
            parts.push(part.clone());
        }
        if parts.is_empty() { Err(error(400, "MalformedXML")) } else { Ok(parts) }
    }

    fn completed(&self, object: &Object) -> Answer {
        let mut body = element("ETag", &object.etag);
        if let Some((name, sum)) = &object.checksum {
            let shown = match self.behavior.complete_checksum {
                CompleteChecksum::Right => Some(sum.clone()),
                CompleteChecksum::Wrong => Some(checksum(name, b"something else")),
                CompleteChecksum::Absent => None,
            };
            if let Some(sum) = shown {
                body += &(element(element_of(name), sum) + &element("ChecksumType", "FULL_OBJECT"));
            }
        }
        answer("CompleteMultipartUploadResult", &body)
    }

    pub fn abort(&mut self, request: &Request) -> Outcome {
        let id = upload_id(request);
        if !self.uploads.contains_key(&id) {
            return Err(no_such_upload());
        }
        if self.behavior.aborts_in_vain > 0 {
            self.behavior.aborts_in_vain -= 1;
        } else {
            self.uploads.remove(&id);
        }
        Ok(Answer::new(204))
    }

    pub fn list_parts(&self, request: &Request) -> Outcome {
        let upload = self.uploads.get(&upload_id(request)).ok_or_else(no_such_upload)?;
        let marker = request.param("part-number-marker").and_then(|text| text.parse::<u32>().ok());
        let after = marker.unwrap_or(0);
        let page = self.page_entries(request, "max-parts");
        let following = upload.parts.range(after + 1..);
        let truncated = following.clone().count() > page;
        let mut body = element("IsTruncated", truncated);
        for (number, part) in following.take(page) {
            let mut fields = element("PartNumber", number)
                + &element("ETag", &part.etag)
                + &element("Size", part.bytes.len());
            if let Some((name, sum)) = &part.checksum {
                fields += &element(element_of(name), sum);
            }
            body += &format!("<Part>{fields}</Part>");
        }
        if let Some((last, _)) =
            upload.parts.range(after + 1..).take(page).last().filter(|_| truncated)
        {
            body += &element("NextPartNumberMarker", last);
        }
        Ok(answer("ListPartsResult", &body))
    }

    pub fn list_uploads(&self, request: &Request) -> Answer {
        let prefix = request.param("prefix").unwrap_or_default();
        let after = (
            request.param("key-marker").unwrap_or_default(),
            request.param("upload-id-marker").unwrap_or_default(),
        );
        let url = request.param("encoding-type").as_deref() == Some("url");
        let written = |text: &str| if url { encode_key(text) } else { text.to_owned() };
        let mut uploads: Vec<(&String, &String, &Upload)> = self
            .uploads
            .iter()
            .map(|(id, upload)| (&upload.key, id, upload))
            .filter(|(key, id, _)| {
                // A key without an id is passed over as a whole.
                let past = if after.1.is_empty() {
                    **key > after.0
                } else {
                    (*key, *id) > (&after.0, &after.1)
                };
                key.starts_with(&prefix) && past
            })
            .collect();
        uploads.sort_by_key(|(key, id, _)| (*key, *id));
        let page = self.page_entries(request, "max-uploads");
        let truncated = uploads.len() > page;
        uploads.truncate(page);
        let mut body = element("IsTruncated", truncated);
        if url {
            body += &element("EncodingType", "url");
        }
        if let Some((key, id, _)) = uploads.last().filter(|_| truncated) {
            body += &(element("NextKeyMarker", written(key)) + &element("NextUploadIdMarker", id));
        }
        for (key, id, upload) in uploads {
            let fields = element("Key", written(key))
                + &element("UploadId", id)
                + &element("Initiated", iso_time(upload.initiated));
            body += &format!("<Upload>{fields}</Upload>");
        }
        answer("ListMultipartUploadsResult", &body)
    }
}
