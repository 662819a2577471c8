//! A small S3 server in memory, to be watched and disturbed. It checks checksums and conditions like the
//! real one, or like those that do not ([`Behavior`]); it checks no signatures (SeaweedFS does).
//!
//! ```
//! let s3 = S3Model::start("bucket");
//! s3.behave(|behavior| behavior.checksums = Checksums::Ignore);
//! // The answer to the first Complete is lost, and the second request of all is throttled.
//! let completes = AtomicUsize::new(0);
//! s3.on_request(move |number, request| match operation(request) {
//!     Operation::Complete if completes.fetch_add(1, SeqCst) == 0 => Some(Fault::After(Step::Reset)),
//!     _ if number == 1 => Some(Fault::Instead(error(503, "SlowDown").into())),
//!     _ => None,
//! });
//! // ... write to s3.endpoint() ...
//! assert_eq!(s3.object("key").unwrap().bytes, expected);
//! assert!(s3.uploads().is_empty());
//! ```
//!
//! Stands beside `scripted.rs`, in the same module.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part of this")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

pub use super::scripted::Fault;
use super::scripted::{Answer, Hooks, Request, Server, Step};

#[path = "s3_model/checksums.rs"]
mod checksums;
#[path = "s3_model/multipart.rs"]
mod multipart;
#[path = "s3_model/objects.rs"]
mod objects;
#[path = "s3_model/xml.rs"]
mod xml;

pub use checksums::Checksums;
pub use multipart::{Part, Upload};
pub use objects::Object;

/// How the server differs from the best of its kind.
#[derive(Debug, Clone)]
pub struct Behavior {
    pub checksums: Checksums,
    /// The checksum in the answer to Complete.
    pub complete_checksum: CompleteChecksum,
    /// Whether `If-None-Match` counts for PutObject.
    pub condition_on_put: bool,
    /// Whether `If-None-Match` counts for CompleteMultipartUpload.
    pub condition_on_complete: bool,
    /// Most entries of a page, whatever the request asks for.
    pub page_entries: usize,
    /// Smallest part but the last.
    pub part_bytes_min: usize,
    /// Keys that DeleteObjects and DeleteObject refuse with `AccessDenied`.
    pub undeletable: Vec<String>,
    /// How often AbortMultipartUpload answers 204 and leaves the upload there, as it may while parts
    /// are under way.
    pub aborts_in_vain: usize,
}

impl Default for Behavior {
    fn default() -> Behavior {
        Behavior {
            checksums: Checksums::VerifyAndEcho,
            complete_checksum: CompleteChecksum::Right,
            condition_on_put: true,
            condition_on_complete: true,
            page_entries: 1000,
            part_bytes_min: 5 << 20,
            undeletable: Vec::new(),
            aborts_in_vain: 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompleteChecksum {
    /// The object's, where the server verifies checksums at all.
    Right,
    Wrong,
    Absent,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Put,
    Get,
    Head,
    List,
    Delete,
    DeleteMany,
    Create,
    UploadPart,
    Complete,
    Abort,
    ListParts,
    ListUploads,
    HeadBucket,
    Unknown,
}

/// What a request asks for; needs its head alone.
pub fn operation(request: &Request) -> Operation {
    let has = |name| request.param(name).is_some();
    let in_bucket = key_of(request).is_none_or(|key| key.is_empty());
    match (request.method.as_str(), in_bucket) {
        ("GET", true) if has("uploads") => Operation::ListUploads,
        ("GET", true) => Operation::List,
        ("HEAD", true) => Operation::HeadBucket,
        ("POST", true) if has("delete") => Operation::DeleteMany,
        (_, true) => Operation::Unknown,
        ("PUT", _) if has("uploadId") => Operation::UploadPart,
        ("PUT", _) => Operation::Put,
        ("GET", _) if has("uploadId") => Operation::ListParts,
        ("GET", _) => Operation::Get,
        ("HEAD", _) => Operation::Head,
        ("POST", _) if has("uploads") => Operation::Create,
        ("POST", _) if has("uploadId") => Operation::Complete,
        ("DELETE", _) if has("uploadId") => Operation::Abort,
        ("DELETE", _) => Operation::Delete,
        _ => Operation::Unknown,
    }
}

/// The decoded key; empty or `None` where a request is about the bucket.
pub fn key_of(request: &Request) -> Option<String> {
    let path = request.path.strip_prefix('/')?;
    path.split_once('/').map(|(_, key)| super::scripted::decode(key))
}

/// An error as S3 answers it. With status 200 it is the kind that Complete may answer.
pub fn error(status: u16, code: &str) -> Answer {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
         <Message>the model says {code}</Message><RequestId>model</RequestId></Error>"
    );
    Answer::new(status).header("content-type", "application/xml").body(body)
}

/// The model and its server. Cheap to ask, whatever runs meanwhile.
pub struct S3Model {
    model: Model,
    hooks: Hooks,
    server: Server,
}

/// All that the service holds at some moment.
#[derive(Clone)]
pub struct Snapshot(State);

/// What the server's threads and the test share.
#[derive(Clone)]
struct Model {
    bucket: Arc<str>,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Default)]
struct State {
    behavior: Behavior,
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    uploads_made: usize,
}

impl S3Model {
    /// A server with one bucket, addressed by path.
    pub fn start(bucket: &str) -> S3Model {
        S3Model::start_as(bucket, true)
    }

    /// The same, without a record of requests: for runs that are long.
    pub fn start_unrecorded(bucket: &str) -> S3Model {
        S3Model::start_as(bucket, false)
    }

    fn start_as(bucket: &str, recorded: bool) -> S3Model {
        let model = Model { bucket: bucket.into(), state: Arc::default() };
        let hooks = Hooks::default();
        let served = model.clone();
        let handler = hooks.before(move |request| served.answer(request));
        let server = match recorded {
            true => Server::start(handler),
            false => Server::start_unrecorded(handler),
        };
        S3Model { model, hooks, server }
    }

    /// `http://127.0.0.1:port`
    pub fn endpoint(&self) -> String {
        self.server.endpoint()
    }

    /// The server: its record of requests, its connections.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The requests of one kind so far.
    pub fn requests(&self, kind: Operation) -> Vec<Request> {
        let requests = self.server.requests().into_iter();
        requests.filter(|request| operation(request) == kind).collect()
    }

    /// Changes the behavior, from the next request on.
    pub fn behave(&self, change: impl FnOnce(&mut Behavior)) {
        change(&mut self.model.state().behavior);
    }

    /// Sets the hook, instead of the one before. It is called with the number of the request (from 0,
    /// over all) and its head, before the body has come.
    pub fn on_request(
        &self,
        hook: impl Fn(usize, &Request) -> Option<Fault> + Send + Sync + 'static,
    ) {
        self.hooks.set(hook);
    }

    /// Does this to the `nth` request (from 0) of this kind, counted from now, and sets no other hook.
    pub fn fault(&self, kind: Operation, nth: usize, fault: Fault) {
        let seen = Mutex::new(0);
        self.on_request(move |_, request| {
            let mut seen = lock(&seen);
            *seen += usize::from(operation(request) == kind);
            (operation(request) == kind && *seen == nth + 1).then(|| fault.clone())
        });
    }

    pub fn object(&self, key: &str) -> Option<Object> {
        self.model.state().objects.get(key).cloned()
    }

    /// All keys, in order.
    pub fn keys(&self) -> Vec<String> {
        self.model.state().objects.keys().cloned().collect()
    }

    /// Puts an object there behind the client's back.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        self.model.state().objects.insert(key.to_owned(), Object::new(bytes.to_vec()));
    }

    /// Does what a Put or Complete asks for, but with other bytes: the object is the writer's, and is not
    /// what was sent.
    pub fn damage(&self, request: &Request, bytes: &[u8]) {
        let mut state = self.model.state();
        let upload = state.uploads.remove(&request.param("uploadId").unwrap_or_default());
        let mut object = Object::new(bytes.to_vec());
        object.metadata = upload.map_or_else(|| objects::metadata(request), |u| u.metadata);
        state.objects.insert(key_of(request).unwrap_or_default(), object);
    }

    /// Removes an object behind the client's back.
    pub fn remove(&self, key: &str) -> Option<Object> {
        self.model.state().objects.remove(key)
    }

    /// The uploads that are open, by upload id.
    pub fn uploads(&self) -> BTreeMap<String, Upload> {
        self.model.state().uploads.clone()
    }

    /// Opens an upload behind the client's back, begun at this time, and returns its id.
    pub fn open_upload(&self, key: &str, initiated: SystemTime) -> String {
        self.model.state().open_upload(Upload::new(key, initiated))
    }

    /// Adds a part to an upload behind the client's back.
    pub fn send_part(&self, upload_id: &str, number: usize, bytes: &[u8]) {
        let etag = objects::etag(bytes);
        let part = Part { bytes: Arc::new(bytes.to_vec()), etag, checksum: None, times: 1 };
        let mut state = self.model.state();
        state.uploads.get_mut(upload_id).unwrap().parts.insert(number as u32, part);
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.model.state().clone())
    }

    /// Makes all as it was then.
    pub fn restore(&self, snapshot: &Snapshot) {
        *self.model.state() = snapshot.0.clone();
    }

    /// Makes all that is there older.
    pub fn age(&self, by: Duration) {
        let mut state = self.model.state();
        state.objects.values_mut().for_each(|object| object.modified -= by);
        state.uploads.values_mut().for_each(|upload| upload.initiated -= by);
    }

    /// Aborts an upload behind the client's back.
    pub fn drop_upload(&self, upload_id: &str) -> Option<Upload> {
        self.model.state().uploads.remove(upload_id)
    }
}

/// An answer, or the error that it is instead.
type Outcome = Result<Answer, Answer>;

impl Model {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn answer(&self, request: &Request) -> Answer {
        self.check(request)
            .and_then(|()| self.state().perform(request))
            .unwrap_or_else(|error| error)
            .header("x-amz-request-id", format!("model-{}", request.number))
    }

    /// What is checked of every request.
    fn check(&self, request: &Request) -> Result<(), Answer> {
        let bucket = request.path.trim_start_matches('/').split('/').next().unwrap_or_default();
        if bucket != &*self.bucket {
            return Err(error(404, "NoSuchBucket"));
        }
        checksums::check_sha256(request)?;
        let behavior = self.state().behavior.clone();
        checksums::check_headers(request, &behavior)
    }
}

impl State {
    fn perform(&mut self, request: &Request) -> Outcome {
        let key = key_of(request).unwrap_or_default();
        match operation(request) {
            Operation::Put => self.put(&key, request),
            Operation::Get | Operation::Head => self.get(&key, request),
            Operation::List => self.list(request),
            Operation::Delete => self.delete_if(&key, request),
            Operation::DeleteMany => self.delete_many(request),
            Operation::Create => Ok(self.create(&key, request)),
            Operation::UploadPart => self.upload_part(request),
            Operation::Complete => self.complete(&key, request),
            Operation::Abort => self.abort(request),
            Operation::ListParts => self.list_parts(request),
            Operation::ListUploads => Ok(self.list_uploads(request)),
            Operation::HeadBucket => Ok(Answer::new(200)),
            Operation::Unknown => Err(error(501, "NotImplemented")),
        }
    }

    /// How many entries a page has.
    fn page_entries(&self, request: &Request, parameter: &str) -> usize {
        let asked = request.param(parameter).and_then(|text| text.parse().ok()).unwrap_or(1000);
        self.behavior.page_entries.min(asked)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
