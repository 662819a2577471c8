//! One container's requests: placed, authorized, sent, and tried again where that can help.
//! Source: Blob service REST API, "Status and error codes" and "Versioning for Azure Storage".

use std::time::Duration;

use ::http::{HeaderMap, HeaderName, Method, StatusCode};

use crate::backend::azure::authorize::{Authorizer, ToAuthorize};
use crate::backend::azure::refusal::Refusal;
use crate::backend::http::{
    Answer, Body, Failure, Request, Retrier, ServerClock, Sink, Transport, Verdict, encode_path,
    encode_query, insert, parse_http_date, retry_after, unanswered, uri_of,
};
use crate::config::Config;
use crate::encode::{Checksum, Hasher};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::ANSWER_BYTES_MAX;
use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering};
use crate::time::Deadline;

/// The version of the protocol that is spoken: blocks of 4,000 MiB, CRC-64 and encoded names in listings
/// are of older ones.
const API_VERSION: &str = "2024-08-04";

const VERSION: HeaderName = HeaderName::from_static("x-ms-version");
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");

/// How often one call may be set right and repeated: a clock and a token.
const CORRECTIONS_MAX: u32 = 2;

/// What is asked of the server.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    /// A verb phrase, for messages.
    pub operation: &'static str,
    pub method: Method,
    /// `None` for the container itself.
    pub key: Option<&'a str>,
    pub query: &'a [(&'a str, &'a str)],
    pub headers: HeaderMap,
    pub body: Body<'a>,
    /// Of the body, where it has one: what the server found to be wrong is looked at again.
    pub checksum: Option<Checksum>,
    /// Whether the answer may take long: then time without progress counts.
    pub patient: bool,
    /// Once it is set no further attempt begins.
    pub cancelled: Option<&'a AtomicBool>,
}

impl<'a> Call<'a> {
    pub fn new(operation: &'static str, method: Method, key: Option<&'a str>) -> Call<'a> {
        Call {
            operation,
            method,
            key,
            query: &[],
            headers: HeaderMap::new(),
            body: Body::default(),
            checksum: None,
            patient: false,
            cancelled: None,
        }
    }
}

/// What became of a call.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Status below 300.
    Answer(Answer),
    Refused(Refusal),
}

impl Reply {
    /// The answer, or the refusal as an error.
    pub fn answer(self, operation: &'static str) -> Result<Answer> {
        match self {
            Reply::Answer(answer) => Ok(answer),
            Reply::Refused(refusal) => Err(refusal.into_error(operation)),
        }
    }
}

/// The client of one container.
#[derive(Debug)]
pub(crate) struct Client {
    transport: Arc<dyn Transport>,
    timeout: Duration,
    retrier: Retrier,
    authorizer: Authorizer,
    scheme: String,
    /// Host, and port where it is not the scheme's own.
    authority: String,
    /// The path of the container, encoded.
    path: String,
    clock: ServerClock,
    /// Begins the ids of our requests, which the server writes to its log.
    nonce: String,
    requests: AtomicU64,
}

impl Client {
    pub fn new(
        config: &Config,
        container: &str,
        transport: Arc<dyn Transport>,
        authorizer: Authorizer,
        nonce: String,
    ) -> Client {
        let (scheme, rest) = authorizer.endpoint().split_once("://").unwrap_or_default();
        let (authority, account) = rest.split_once('/').unwrap_or((rest, ""));
        let slash = if account.is_empty() { "" } else { "/" };
        Client {
            transport,
            timeout: config.timeout(),
            retrier: Retrier::new(config.http().attempts_max),
            scheme: scheme.to_owned(),
            authority: authority.to_owned(),
            path: format!("{slash}{account}/{}", encode_path(container)),
            authorizer,
            clock: ServerClock::default(),
            nonce,
            requests: AtomicU64::new(0),
        }
    }

    /// The server, for messages.
    pub fn host(&self) -> &str {
        &self.authority
    }

    /// Sends a call and collects the answer.
    pub fn call(&self, call: &Call<'_>, deadline: &Deadline) -> Result<Reply> {
        self.run(call, deadline, None, &|| ())
    }

    /// As [`call`](Client::call); a successful answer's body goes `into` the caller's memory.
    pub fn call_into(
        &self,
        call: &Call<'_>,
        into: &mut [u8],
        deadline: &Deadline,
    ) -> Result<Reply> {
        self.run(call, deadline, Some(into), &|| ())
    }

    /// As [`call`](Client::call), for answers that take their time: `alive` is called when bytes come.
    pub fn call_patiently(
        &self,
        call: &Call<'_>,
        deadline: &Deadline,
        alive: &dyn Fn(),
    ) -> Result<Reply> {
        self.run(call, deadline, None, alive)
    }

    fn run(
        &self,
        call: &Call<'_>,
        deadline: &Deadline,
        mut into: Option<&mut [u8]>,
        alive: &dyn Fn(),
    ) -> Result<Reply> {
        let mut corrections = 0;
        self.retrier.run(deadline, |number| {
            let sink = match &mut into {
                Some(memory) => Sink::Into(memory),
                None => Sink::Collect { bytes_max: ANSWER_BYTES_MAX },
            };
            self.once(call, number, sink, deadline, alive, &mut corrections)
        })
    }

    fn once(
        &self,
        call: &Call<'_>,
        number: u32,
        sink: Sink<'_>,
        deadline: &Deadline,
        alive: &dyn Fn(),
        corrections: &mut u32,
    ) -> Result<Reply, Failure> {
        if call.cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Acquire)) {
            let what = "the upload has ended";
            return Err(Failure::terminal(Error::new(ErrorKind::Cancelled, call.operation, what)));
        }
        let path = match call.key {
            Some(key) => format!("{}/{}", self.path, encode_path(key)),
            None => self.path.clone(),
        };
        let mut headers = call.headers.clone();
        insert(&mut headers, VERSION, API_VERSION)?;
        insert(&mut headers, CLIENT_REQUEST_ID, &self.request_id())?;
        let to_authorize = ToAuthorize {
            method: &call.method,
            path: &path,
            query: call.query,
            content_length_bytes: call.body.bytes(),
            time: self.clock.now(),
        };
        let signature = self.authorizer.authorize(&to_authorize, &mut headers, deadline)?;
        let signature = signature.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let query: Vec<(&str, &str)> = call.query.iter().copied().chain(signature).collect();
        let request = Request {
            method: call.method.clone(),
            uri: uri_of(&self.scheme, &self.authority, &path, &encode_query(&query))?,
            headers,
            body: call.body,
            deadline: if call.patient { Deadline::after(Duration::MAX) } else { *deadline },
            idle_timeout: call.patient.then_some(self.timeout),
            progress: Some(alive),
        };
        let answer = self
            .transport
            .send(&request, sink)
            .map_err(|error| unanswered(call.operation, error))?;
        if answer.status.as_u16() < 300 {
            return match is_of_the_service(&call.method, answer.status) {
                true => Ok(Reply::Answer(answer)),
                false => Err(Failure::terminal(not_of_the_service(call.operation, answer.status))),
            };
        }
        let refusal = Refusal::read(&answer, number);
        if *corrections < CORRECTIONS_MAX && self.set_right(&answer, &refusal, &request.headers) {
            *corrections += 1;
            let error = refusal.into_error(call.operation);
            return Err(Failure { error, verdict: Verdict::Corrected });
        }
        self.judge(call, &answer, refusal)
    }

    /// Decides what a refusal calls for.
    fn judge(&self, call: &Call<'_>, answer: &Answer, refusal: Refusal) -> Result<Reply, Failure> {
        let verdict = if refusal.is_throttling() {
            let named = answer.header("retry-after");
            Verdict::Throttled(named.and_then(|text| retry_after(text, self.clock.now())))
        } else if refusal.is_passing() {
            Verdict::Retry
        } else if refusal.is_digest_mismatch() {
            match call.checksum {
                // Our memory is what it was: it was changed on the way.
                Some(sum) if checksum_of(sum, call.body) == sum => Verdict::Retry,
                _ => Verdict::Terminal,
            }
        } else {
            return Ok(Reply::Refused(refusal));
        };
        Err(Failure { error: refusal.into_error(call.operation), verdict })
    }

    /// Whether the refusal told what was wrong, and it has been set right.
    fn set_right(&self, answer: &Answer, refusal: &Refusal, sent: &HeaderMap) -> bool {
        if refusal.status == StatusCode::UNAUTHORIZED {
            return self.authorizer.invalidate(sent);
        }
        let skewed = refusal.status == StatusCode::FORBIDDEN
            && (refusal.is("AuthenticationFailed") || refusal.code.is_empty());
        skewed
            && answer.header("date").and_then(parse_http_date).is_some_and(|d| self.clock.follow(d))
    }

    fn request_id(&self) -> String {
        format!("{}-{}", self.nonce, self.requests.fetch_add(1, Ordering::Relaxed))
    }
}

/// Whether the service says so of what it has done. All our PUTs create something.
fn is_of_the_service(method: &Method, status: StatusCode) -> bool {
    match *method {
        Method::PUT => status == StatusCode::CREATED,
        Method::DELETE => status == StatusCode::ACCEPTED,
        _ => true,
    }
}

/// Something in between has answered for the service, and nothing was done.
fn not_of_the_service(operation: &'static str, status: StatusCode) -> Error {
    let what = format!("the server answers {status}, which is no answer of the service to this");
    Error::new(ErrorKind::Unavailable, operation, what)
        .with_remedy("check the endpoint, and what stands between")
}

/// The same algorithm's checksum over a body.
fn checksum_of(sum: Checksum, body: Body<'_>) -> Checksum {
    let mut hasher = Hasher::new(sum.algorithm());
    body.pieces().for_each(|piece| hasher.update(piece));
    hasher.checksum()
}
