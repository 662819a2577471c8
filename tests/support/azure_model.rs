//! A small Azure container in memory: it does as it is asked, and its server keeps a record. It checks no
//! signatures and no checksums (Azurite does), and repeats the CRC-64 of blocks as Azure does.
//!
//! Stands beside `scripted.rs`, in the same module.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use super::scripted::{Answer, Request, Server, Step, decode};

/// Most entries of a page. Source: Blob service REST API, "List Blobs".
const PAGE_ENTRIES_MAX: usize = 5000;

/// The model and its server. There is one account, and every container is the same one.
pub struct AzureModel(Server);

#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Blob>,
    /// By key and id.
    blocks: HashMap<(String, String), Vec<u8>>,
    made: u64,
}

#[derive(Clone)]
struct Blob {
    bytes: Vec<u8>,
    etag: String,
    /// `x-ms-meta-...`
    metadata: Vec<(String, String)>,
}

impl AzureModel {
    pub fn start() -> AzureModel {
        let state = Arc::new(Mutex::new(State::default()));
        AzureModel(Server::start(move |request: &Request| -> Step {
            let mut state = state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            state.perform(request).unwrap_or_else(|error| error).into()
        }))
    }

    /// `http://127.0.0.1:port/account`
    pub fn endpoint(&self) -> String {
        format!("{}/account", self.0.endpoint())
    }

    /// The server: its record of requests, its connections.
    pub fn server(&self) -> &Server {
        &self.0
    }
}

fn error(status: u16, code: &str) -> Answer {
    let body = format!("<Error><Code>{code}</Code><Message>the model says so</Message></Error>");
    Answer::new(status).header("x-ms-error-code", code).body(body)
}

/// An answer, or the error that it is instead.
type Outcome = Result<Answer, Answer>;

impl State {
    fn perform(&mut self, request: &Request) -> Outcome {
        let key = request.path.trim_start_matches('/').splitn(3, '/').nth(2).map(decode);
        let key = key.unwrap_or_default();
        match (request.method.as_str(), request.param("comp").as_deref()) {
            ("PUT", Some("block")) => {
                let id = request.param("blockid").unwrap_or_default();
                self.blocks.insert((key, id), request.body.clone());
                Ok(confirmed(Answer::new(201), request))
            }
            ("PUT", Some("blocklist")) => self.put_list(key, request),
            ("PUT", None) => self.put(key, request.body.clone(), request),
            ("GET", Some("list")) => Ok(self.list(request)),
            ("GET" | "HEAD", None) => self.get(&key, request),
            ("DELETE", None) => {
                let gone = self.blobs.remove(&key);
                gone.map(|_| Answer::new(202)).ok_or_else(|| error(404, "BlobNotFound"))
            }
            _ => Err(error(400, "UnsupportedHttpVerb")),
        }
    }

    fn put_list(&mut self, key: String, request: &Request) -> Outcome {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        let ids = text.split("<Uncommitted>").skip(1).filter_map(|t| t.split_once('<'));
        let mut bytes = Vec::new();
        for (id, _) in ids {
            let block = self.blocks.remove(&(key.clone(), id.to_owned()));
            bytes.extend(block.ok_or_else(|| error(400, "InvalidBlockList"))?);
        }
        self.put(key, bytes, request)
    }

    fn put(&mut self, key: String, bytes: Vec<u8>, request: &Request) -> Outcome {
        if request.header("if-none-match") == Some("*") && self.blobs.contains_key(&key) {
            return Err(error(409, "BlobAlreadyExists"));
        }
        self.made += 1;
        let etag = format!("\"0x{:X}\"", self.made);
        let is_metadata = |(name, _): &&(String, String)| name.starts_with("x-ms-meta-");
        let metadata = request.headers.iter().filter(is_metadata).cloned().collect();
        let answer = confirmed(Answer::new(201).header("etag", &etag), request);
        self.blobs.insert(key, Blob { bytes, etag, metadata });
        Ok(answer)
    }

    fn get(&self, key: &str, request: &Request) -> Outcome {
        let blob = self.blobs.get(key).ok_or_else(|| error(404, "BlobNotFound"))?;
        if request.header("if-match").is_some_and(|tag| tag != blob.etag) {
            return Err(error(412, "ConditionNotMet"));
        }
        let size = blob.bytes.len();
        let range = request.header("range").and_then(|range| range.strip_prefix("bytes="));
        let answer = match range.and_then(|range| range.split_once('-')) {
            None => Answer::new(200).body(blob.bytes.clone()),
            Some((first, last)) => {
                let first = first.parse::<usize>().unwrap_or(0);
                let end = last.parse::<usize>().map_or(size, |last| size.min(last + 1));
                if first >= size {
                    return Err(error(416, "InvalidRange"));
                }
                Answer::new(206)
                    .header("content-range", format!("bytes {first}-{}/{size}", end - 1))
                    .body(&blob.bytes[first..end])
            }
        };
        let answer = answer.header("etag", &blob.etag);
        Ok(blob.metadata.iter().fold(answer, |answer, (name, value)| answer.header(name, value)))
    }

    fn list(&self, request: &Request) -> Answer {
        let prefix = request.param("prefix").unwrap_or_default();
        let asked = request.param("maxresults").and_then(|text| text.parse().ok());
        let most = asked.unwrap_or(PAGE_ENTRIES_MAX).min(PAGE_ENTRIES_MAX);
        let from = request.param("marker").unwrap_or_else(|| prefix.clone());
        let mut entries = self.blobs.range(from..).take_while(|(key, _)| key.starts_with(&prefix));
        let entry = |(key, blob): (&String, &Blob)| {
            format!(
                "<Blob><Name>{key}</Name><Properties><Content-Length>{}</Content-Length>\
                 <Etag>{}</Etag></Properties></Blob>",
                blob.bytes.len(),
                blob.etag.trim_matches('"')
            )
        };
        let page: String = entries.by_ref().take(most).map(entry).collect();
        let next = entries.next().map(|(key, _)| key.clone()).unwrap_or_default();
        Answer::new(200).body(format!(
            "<EnumerationResults><Blobs>{page}</Blobs><NextMarker>{next}</NextMarker></EnumerationResults>"
        ))
    }
}

/// Azure repeats the checksum of a block that it has verified.
fn confirmed(answer: Answer, request: &Request) -> Answer {
    match request.header("x-ms-content-crc64") {
        Some(sum) => answer.header("x-ms-content-crc64", sum),
        None => answer,
    }
}
