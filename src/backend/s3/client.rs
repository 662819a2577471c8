//! One bucket's requests: placed, signed, sent, and tried again where that can help.

use std::time::Duration;

use ::http::{HeaderMap, Method, StatusCode};

use crate::backend::http::{
    Answer, Body, Failure, Request, Retrier, ServerClock, Sink, Transport, Verdict, encode_query,
    parse_http_date, retry_after, unanswered, uri_of,
};
use crate::backend::s3::credentials::{CredentialChain, Keys};
use crate::backend::s3::endpoint::Endpoint;
use crate::backend::s3::refusal::Refusal;
use crate::backend::s3::sign::{Payload, Signer, ToSign, sha256_hex, signature_in};
use crate::backend::s3::xml::parse_error;
use crate::config::Config;
use crate::encode::{Checksum, Hasher};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::ANSWER_BYTES_MAX;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, lock};
use crate::time::Deadline;

/// The region of requests for which nobody named one. AWS answers with the right one.
const REGION_DEFAULT: &str = "us-east-1";

/// How often one call may be set right and repeated: a region, a clock and a credential.
const CORRECTIONS_MAX: u32 = 3;

/// What is asked of the server.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    /// A verb phrase, for messages.
    pub operation: &'static str,
    pub method: Method,
    /// `None` for the bucket itself.
    pub key: Option<&'a str>,
    pub query: &'a [(&'a str, &'a str)],
    pub headers: HeaderMap,
    pub body: Body<'a>,
    pub payload: Payload<'a>,
    /// Of the body, where it has one: what the server found to be wrong is looked at again.
    pub checksum: Option<Checksum>,
    /// Whether a 409 is another's request in the way, and the same may be tried again.
    pub retries_conflict: bool,
    /// Whether the answer may take long, and comes as it goes: then time without progress counts.
    pub patient: bool,
    /// Whether an answer of status 200 may hold an error.
    pub error_in_success: bool,
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
            payload: Payload::Empty,
            checksum: None,
            retries_conflict: false,
            patient: false,
            error_in_success: false,
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

/// The client of one bucket.
#[derive(Debug)]
pub(crate) struct Client {
    transport: Arc<dyn Transport>,
    timeout: Duration,
    retrier: Retrier,
    credentials: CredentialChain,
    endpoint: Endpoint,
    /// Found at the first request.
    region: Mutex<Option<Arc<str>>>,
    /// Of the keys last used.
    signer: Mutex<Option<(Arc<Keys>, Arc<Signer>)>>,
    clock: ServerClock,
    /// Whether anything was ever found in the bucket, so that it exists.
    bucket_seen: AtomicBool,
}

/// What one call remembers from attempt to attempt.
struct Attempts<'c> {
    client: &'c Client,
    corrections: u32,
    /// Whether the keys were asked for again.
    refreshed: bool,
    /// Where a redirect within the family led.
    authority: Option<String>,
}

impl Client {
    pub fn new(
        config: &Config,
        bucket: &str,
        transport: Arc<dyn Transport>,
        credentials: CredentialChain,
    ) -> Client {
        let endpoint = config.s3().endpoint.clone().or_else(|| credentials.endpoint());
        let region = config.s3().region.as_deref().map(Arc::from);
        Client {
            transport,
            timeout: config.timeout(),
            retrier: Retrier::new(config.http().attempts_max),
            credentials,
            endpoint: Endpoint::new(config.s3(), endpoint.as_deref(), bucket),
            region: Mutex::new(region),
            signer: Mutex::new(None),
            clock: ServerClock::default(),
            bucket_seen: AtomicBool::new(false),
        }
    }

    pub fn bucket(&self) -> &str {
        self.endpoint.bucket()
    }

    /// Where the bucket is, for messages; `None` while its region is not known.
    pub fn host(&self) -> Option<String> {
        self.endpoint
            .own_host()
            .or_else(|| Some(self.endpoint.host(lock(&self.region).as_deref()?)))
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
        let mut attempts =
            Attempts { client: self, corrections: 0, refreshed: false, authority: None };
        self.retrier.run(deadline, |number| {
            let sink = match &mut into {
                Some(memory) => Sink::Into(memory),
                None => Sink::Collect { bytes_max: ANSWER_BYTES_MAX },
            };
            attempts.once(call, number, sink, deadline, alive)
        })
    }

    /// Whether the bucket is known to exist. Asked when an object is missing: an answer to HEAD does not
    /// tell what it is that is not there.
    pub fn bucket_exists(&self, deadline: &Deadline) -> Result<()> {
        if self.bucket_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.call(&Call::new("find bucket", Method::HEAD, None), deadline)? {
            Reply::Refused(mut refusal) if refusal.status == StatusCode::NOT_FOUND => {
                refusal.code = "NoSuchBucket".to_owned();
                Err(refusal.into_error("find bucket"))
            }
            // Whoever may not ask for the bucket has to believe what is said of the object.
            _ => Ok(()),
        }
    }

    fn region(&self) -> Arc<str> {
        let mut region = lock(&self.region);
        let found = || self.credentials.region().map(Arc::from);
        Arc::clone(region.get_or_insert_with(|| found().unwrap_or_else(|| REGION_DEFAULT.into())))
    }

    fn signer(&self, keys: &Arc<Keys>) -> Arc<Signer> {
        let mut signer = lock(&self.signer);
        match &*signer {
            Some((known, signer)) if Arc::ptr_eq(known, keys) => Arc::clone(signer),
            _ => {
                let Keys { access_key_id, secret_access_key, session_token } = &**keys;
                let made =
                    Signer::new(access_key_id, secret_access_key.clone(), session_token.clone());
                let made = Arc::new(made);
                *signer = Some((Arc::clone(keys), Arc::clone(&made)));
                made
            }
        }
    }
}

impl Attempts<'_> {
    fn once(
        &mut self,
        call: &Call<'_>,
        number: u32,
        sink: Sink<'_>,
        deadline: &Deadline,
        alive: &dyn Fn(),
    ) -> Result<Reply, Failure> {
        if call.cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Acquire)) {
            let what = "the upload has ended";
            return Err(Failure::terminal(Error::new(ErrorKind::Cancelled, call.operation, what)));
        }
        let client = self.client;
        let keys = client.credentials.keys(deadline)?;
        let region = client.region();
        let mut target = client.endpoint.target(&region, call.key);
        if let Some(authority) = &self.authority {
            target.authority.clone_from(authority);
        }
        let mut headers = call.headers.clone();
        let query = encode_query(call.query);
        if let Some(keys) = &keys {
            let to_sign = ToSign {
                method: &call.method,
                host: &target.authority,
                path: &target.path,
                query: &query,
                payload: call.payload,
                region: &region,
                service: "s3",
                time: client.clock.now(),
            };
            client.signer(keys).sign(&to_sign, &mut headers)?;
        }
        let request = Request {
            method: call.method.clone(),
            uri: uri_of(client.endpoint.scheme(), &target.authority, &target.path, &query)?,
            headers,
            body: call.body,
            deadline: if call.patient { Deadline::after(Duration::MAX) } else { *deadline },
            idle_timeout: call.patient.then_some(client.timeout),
            progress: Some(alive),
        };
        let answer = client
            .transport
            .send(&request, sink)
            .map_err(|error| unanswered(call.operation, error))?;
        let failed = call.error_in_success && parse_error(&answer.body).is_some();
        if answer.status.as_u16() < 300 && !failed {
            client.bucket_seen.store(true, Ordering::Relaxed);
            return Ok(Reply::Answer(answer));
        }
        let mut refusal = Refusal::read(&answer, number);
        if let Some(keys) = &keys {
            let token = keys.session_token.as_ref().map_or("", |token| token.expose());
            let signature = signature_in(&request.headers).unwrap_or_default();
            refusal.hide(&[keys.secret_access_key.expose(), token, signature]);
        }
        if refusal.is("NoSuchKey") {
            client.bucket_seen.store(true, Ordering::Relaxed);
        }
        self.judge(call, &answer, refusal, keys.as_ref(), &region)
    }

    /// Decides what a refusal calls for.
    fn judge(
        &mut self,
        call: &Call<'_>,
        answer: &Answer,
        refusal: Refusal,
        keys: Option<&Arc<Keys>>,
        region: &str,
    ) -> Result<Reply, Failure> {
        let again = |refusal: Refusal, verdict| {
            Err(Failure { error: refusal.into_error(call.operation), verdict })
        };
        if self.corrections < CORRECTIONS_MAX && self.set_right(answer, &refusal, keys, region) {
            self.corrections += 1;
            return again(refusal, Verdict::Corrected);
        }
        if refusal.is_throttling() || refusal.status == StatusCode::SERVICE_UNAVAILABLE {
            let named = answer
                .header("retry-after")
                .and_then(|text| retry_after(text, self.client.clock.now()));
            return again(refusal, Verdict::Throttled(named));
        }
        if refusal.is_passing() || (refusal.status == StatusCode::CONFLICT && call.retries_conflict)
        {
            return again(refusal, Verdict::Retry);
        }
        const DIGESTS: [&str; 3] =
            ["BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"];
        if DIGESTS.iter().any(|code| refusal.is(code)) {
            // Is our memory what it was? Then it was changed on the way.
            let same = match (call.checksum, call.payload) {
                (Some(sum), _) => checksum_of(sum, call.body) == sum,
                (None, Payload::Sha256(hash)) if refusal.is("XAmzContentSHA256Mismatch") => {
                    sha256_hex(call.body.pieces()) == hash
                }
                _ => false,
            };
            return again(refusal, if same { Verdict::Retry } else { Verdict::Terminal });
        }
        Ok(Reply::Refused(refusal))
    }

    /// Whether the refusal told what was wrong, and it has been set right.
    fn set_right(
        &mut self,
        answer: &Answer,
        refusal: &Refusal,
        keys: Option<&Arc<Keys>>,
        region: &str,
    ) -> bool {
        let client = self.client;
        let status = refusal.status.as_u16();
        let elsewhere = matches!(status, 301 | 307 | 308)
            || refusal.is("AuthorizationHeaderMalformed")
            || refusal.is("PermanentRedirect")
            || (refusal.code.is_empty() && status == 400);
        if let Some(right) = refusal.region.as_deref().filter(|right| elsewhere && *right != region)
        {
            *lock(&client.region) = Some(Arc::from(right));
            return true;
        }
        if matches!(status, 307 | 308)
            && let Some(host) =
                answer.header("location").and_then(|l| client.endpoint.follows(region, l))
            && self.authority.as_ref() != Some(&host)
        {
            self.authority = Some(host);
            return true;
        }
        let expired = refusal.is("ExpiredToken") || refusal.is("TokenRefreshRequired");
        // The answer to HEAD has no code.
        let perhaps_expired = refusal.code.is_empty() && matches!(status, 400 | 403);
        if let Some(keys) =
            keys.filter(|keys| expired || (perhaps_expired && keys.session_token.is_some()))
            && !std::mem::replace(&mut self.refreshed, true)
        {
            client.credentials.invalidate(keys);
            return true;
        }
        let skewed =
            refusal.is("RequestTimeTooSkewed") || (refusal.code.is_empty() && status == 403);
        skewed
            && answer
                .header("date")
                .and_then(parse_http_date)
                .is_some_and(|d| client.clock.follow(d))
    }
}

/// The same algorithm's checksum over a body.
fn checksum_of(sum: Checksum, body: Body<'_>) -> Checksum {
    let mut hasher = Hasher::new(sum.algorithm());
    body.pieces().for_each(|piece| hasher.update(piece));
    hasher.checksum()
}
