//! A small Azure container in memory: it does as it is asked, may be disturbed, and its server keeps a
//! record. It checks no signatures and no checksums (Azurite does), and repeats the CRC-64 of blocks as
//! Azure does. Blocks stay until their blob is committed; nothing makes them expire.
//!
//! Stands beside `scripted.rs`, in the same module.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use super::scripted::{Answer, Fault, Hooks, Request, Server, decode, http_time};

/// Most entries of a page. Source: Blob service REST API, "List Blobs".
const PAGE_ENTRIES_MAX: usize = 5000;

/// The model and its server. There is one account, and every container is the same one.
pub struct AzureModel {
    state: Arc<Mutex<State>>,
    hooks: Hooks,
    server: Server,
}

/// All that the service holds at some moment.
#[derive(Clone)]
pub struct Snapshot(State);

#[derive(Clone, Default)]
struct State {
    blobs: BTreeMap<String, Blob>,
    /// By key.
    uncommitted: BTreeMap<String, Blocks>,
    made: u64,
}

#[derive(Clone)]
struct Blob {
    bytes: Arc<Vec<u8>>,
    etag: String,
    /// `x-ms-meta-...`
    metadata: Vec<(String, String)>,
    modified: SystemTime,
}

/// The blocks of a blob that no list has named yet.
#[derive(Clone)]
struct Blocks {
    by_id: BTreeMap<String, Arc<Vec<u8>>>,
    /// When the last was put.
    modified: SystemTime,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Put,
    PutBlock,
    PutBlockList,
    Get,
    GetBlockList,
    Head,
    List,
    Delete,
    Unknown,
}

/// What a request asks for; needs its head alone.
pub fn operation(request: &Request) -> Operation {
    match (request.method.as_str(), request.param("comp").as_deref()) {
        ("PUT", Some("block")) => Operation::PutBlock,
        ("PUT", Some("blocklist")) => Operation::PutBlockList,
        ("PUT", None) => Operation::Put,
        ("GET", Some("list")) => Operation::List,
        ("GET", Some("blocklist")) => Operation::GetBlockList,
        ("GET", None) => Operation::Get,
        ("HEAD", None) => Operation::Head,
        ("DELETE", None) => Operation::Delete,
        _ => Operation::Unknown,
    }
}

/// The decoded key; empty where a request is about the container.
pub fn key_of(request: &Request) -> String {
    let path = request.path.trim_start_matches('/');
    path.splitn(3, '/').nth(2).map(decode).unwrap_or_default()
}

impl AzureModel {
    pub fn start() -> AzureModel {
        AzureModel::start_as(true)
    }

    /// The same, without a record of requests: for runs that are long.
    pub fn start_unrecorded() -> AzureModel {
        AzureModel::start_as(false)
    }

    fn start_as(recorded: bool) -> AzureModel {
        let (state, hooks) = (Arc::<Mutex<State>>::default(), Hooks::default());
        let served = Arc::clone(&state);
        let handler = hooks
            .before(move |request| lock(&served).perform(request).unwrap_or_else(|error| error));
        let server = match recorded {
            true => Server::start(handler),
            false => Server::start_unrecorded(handler),
        };
        AzureModel { state, hooks, server }
    }

    /// `http://127.0.0.1:port/account`
    pub fn endpoint(&self) -> String {
        format!("{}/account", self.server.endpoint())
    }

    /// The server: its record of requests, its connections.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Sets the hook, instead of the one before. It is called with the number of the request (from 0,
    /// over all) and its head, before the body has come.
    pub fn on_request(
        &self,
        hook: impl Fn(usize, &Request) -> Option<Fault> + Send + Sync + 'static,
    ) {
        self.hooks.set(hook);
    }

    /// The keys of all blobs, in order.
    pub fn keys(&self) -> Vec<String> {
        lock(&self.state).blobs.keys().cloned().collect()
    }

    /// The keys of all blobs that have blocks which no list has named, in order.
    pub fn uncommitted(&self) -> Vec<String> {
        lock(&self.state).uncommitted.keys().cloned().collect()
    }

    /// Puts a block behind the client's back.
    pub fn put_block(&self, key: &str, id: &str, bytes: &[u8]) {
        lock(&self.state).put_block(key.to_owned(), id.to_owned(), bytes.to_vec());
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot(lock(&self.state).clone())
    }

    /// Makes all as it was then.
    pub fn restore(&self, snapshot: &Snapshot) {
        *lock(&self.state) = snapshot.0.clone();
    }

    /// Makes all that is there older.
    pub fn age(&self, by: Duration) {
        let mut state = lock(&self.state);
        state.blobs.values_mut().for_each(|blob| blob.modified -= by);
        state.uncommitted.values_mut().for_each(|blocks| blocks.modified -= by);
    }
}

/// An error as Azure answers it.
pub fn error(status: u16, code: &str) -> Answer {
    let body = format!("<Error><Code>{code}</Code><Message>the model says so</Message></Error>");
    Answer::new(status).header("x-ms-error-code", code).body(body)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// An answer, or the error that it is instead.
type Outcome = Result<Answer, Answer>;

impl State {
    fn perform(&mut self, request: &Request) -> Outcome {
        let key = key_of(request);
        match operation(request) {
            Operation::PutBlock => {
                let id = request.param("blockid").unwrap_or_default();
                self.put_block(key, id, request.body.clone());
                Ok(confirmed(Answer::new(201), request))
            }
            Operation::PutBlockList => self.put_list(key, request),
            Operation::Put => self.put(key, request.body.clone(), request),
            Operation::List => Ok(self.list(request)),
            Operation::GetBlockList => self.get_list(&key),
            Operation::Get | Operation::Head => self.get(&key, request),
            Operation::Delete => self.delete(&key, request),
            Operation::Unknown => Err(error(400, "UnsupportedHttpVerb")),
        }
    }

    fn put_block(&mut self, key: String, id: String, bytes: Vec<u8>) {
        let modified = SystemTime::now();
        let blocks = Blocks { by_id: BTreeMap::new(), modified };
        let blocks = self.uncommitted.entry(key).or_insert(blocks);
        blocks.modified = modified;
        blocks.by_id.insert(id, Arc::new(bytes));
    }

    fn put_list(&mut self, key: String, request: &Request) -> Outcome {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        let ids = text.split("<Uncommitted>").skip(1).filter_map(|t| t.split_once('<'));
        let mut bytes = Vec::new();
        for (id, _) in ids {
            let block = self.uncommitted.get(&key).and_then(|blocks| blocks.by_id.get(id));
            bytes.extend_from_slice(block.ok_or_else(|| error(400, "InvalidBlockList"))?);
        }
        self.put(key, bytes, request)
    }

    fn put(&mut self, key: String, bytes: Vec<u8>, request: &Request) -> Outcome {
        if request.header("if-none-match") == Some("*") && self.blobs.contains_key(&key) {
            return Err(error(409, "BlobAlreadyExists"));
        }
        // A commit discards the blocks that it does not name, whoever put them.
        self.uncommitted.remove(&key);
        self.made += 1;
        let etag = format!("\"0x{:X}\"", self.made);
        let is_metadata = |(name, _): &&(String, String)| name.starts_with("x-ms-meta-");
        let metadata = request.headers.iter().filter(is_metadata).cloned().collect();
        let answer = confirmed(Answer::new(201).header("etag", &etag), request);
        let (bytes, modified) = (Arc::new(bytes), SystemTime::now());
        self.blobs.insert(key, Blob { bytes, etag, metadata, modified });
        Ok(answer)
    }

    fn delete(&mut self, key: &str, request: &Request) -> Outcome {
        let blob = self.blobs.get(key).ok_or_else(|| error(404, "BlobNotFound"))?;
        if request.header("if-match").is_some_and(|tag| tag != blob.etag) {
            return Err(error(412, "ConditionNotMet"));
        }
        self.blobs.remove(key);
        Ok(Answer::new(202))
    }

    /// The blocks that no list has named.
    fn get_list(&self, key: &str) -> Outcome {
        let blocks = self.uncommitted.get(key);
        if blocks.is_none() && !self.blobs.contains_key(key) {
            return Err(error(404, "BlobNotFound"));
        }
        let entry = |(id, bytes): (&String, &Arc<Vec<u8>>)| {
            format!("<Block><Name>{id}</Name><Size>{}</Size></Block>", bytes.len())
        };
        let listed: String =
            blocks.into_iter().flat_map(|blocks| &blocks.by_id).map(entry).collect();
        Ok(Answer::new(200).body(format!(
            "<BlockList><UncommittedBlocks>{listed}</UncommittedBlocks></BlockList>"
        )))
    }

    fn get(&self, key: &str, request: &Request) -> Outcome {
        let blob = self.blobs.get(key).ok_or_else(|| error(404, "BlobNotFound"))?;
        if request.header("if-match").is_some_and(|tag| tag != blob.etag) {
            return Err(error(412, "ConditionNotMet"));
        }
        let size = blob.bytes.len();
        let range = request.header("range").and_then(|range| range.strip_prefix("bytes="));
        let answer = match range.and_then(|range| range.split_once('-')) {
            None => Answer::new(200).body(blob.bytes.to_vec()),
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
        let with_uncommitted = request.param("include").as_deref() == Some("uncommittedblobs");
        let mut entries: BTreeMap<&String, (usize, &str, SystemTime)> = BTreeMap::new();
        if with_uncommitted {
            entries.extend(
                self.uncommitted.iter().map(|(key, blocks)| (key, (0, "", blocks.modified))),
            );
        }
        entries.extend(
            self.blobs.iter().map(|(key, b)| (key, (b.bytes.len(), b.etag.as_str(), b.modified))),
        );
        let mut entries = entries
            .into_iter()
            .filter(|(key, _)| key.starts_with(&prefix) && key.as_str() >= from.as_str());
        let entry = |(key, (size, etag, modified)): (&String, (usize, &str, SystemTime))| {
            format!(
                "<Blob><Name>{key}</Name><Properties><Last-Modified>{}</Last-Modified>\
                 <Content-Length>{size}</Content-Length><Etag>{}</Etag></Properties></Blob>",
                http_time(modified),
                etag.trim_matches('"')
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
