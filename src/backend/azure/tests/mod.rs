//! A service that fails by script.

mod objects;
mod refusals;

use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::{AzureUpload, Shared};
use crate::backend::http::{Answer, Request, Sink, Stage, Transport, TransportError};
use crate::backend::{PartView, Receipt, Upload, UploadSpec};
use crate::config::{AzureConfig, AzureIntegrity, Config, HttpConfig};
use crate::encode::Algorithm;
use crate::error::Result;
use crate::sync::{Arc, Mutex, lock};
use crate::time::Deadline;

/// A request as it came.
#[derive(Debug, Clone)]
struct Seen {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn is(&self, method: Method, pair: &str) -> bool {
        self.method == method && (pair.is_empty() || self.query.split('&').any(|p| p == pair))
    }
}

/// An answer: status, headers and body; or none.
type Told = Result<(u16, Vec<(&'static str, String)>, String), Stage>;

/// Answers by the number of the request, from 0, and the request.
type Answerer = dyn Fn(usize, &Seen) -> Told + Send + Sync;

/// A transport that answers as it is told.
struct Fake {
    answer: Box<Answerer>,
    seen: Mutex<Vec<Seen>>,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

impl Transport for Fake {
    fn send(&self, request: &Request<'_>, sink: Sink<'_>) -> Result<Answer, TransportError> {
        assert!(matches!(sink, Sink::Collect { .. }));
        if request.deadline.expired() {
            let detail = "no time is left".to_owned();
            return Err(TransportError { stage: Stage::Connect, timed_out: true, detail });
        }
        let seen = Seen {
            method: request.method.clone(),
            path: request.uri.path().to_owned(),
            query: request.uri.query().unwrap_or_default().to_owned(),
            headers: request.headers.clone(),
            body: request.body.pieces().flatten().copied().collect(),
        };
        let number = {
            let mut all = lock(&self.seen);
            all.push(seen.clone());
            all.len() - 1
        };
        let (status, told, body) = (self.answer)(number, &seen).map_err(|stage| {
            TransportError { stage, timed_out: false, detail: "made to fail".to_owned() }
        })?;
        let mut headers = HeaderMap::new();
        for (name, value) in told {
            let name = HeaderName::from_static(name);
            headers.insert(name, HeaderValue::from_str(&value).unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        Ok(Answer { status, headers, body: body.into_bytes(), filled_bytes: 0 })
    }
}

/// A container behind a fake.
struct Container {
    shared: Arc<Shared>,
    fake: Arc<Fake>,
}

fn container(answer: impl Fn(usize, &Seen) -> Told + Send + Sync + 'static) -> Container {
    with_integrity(AzureIntegrity::Auto, answer)
}

fn with_integrity(
    integrity: AzureIntegrity,
    answer: impl Fn(usize, &Seen) -> Told + Send + Sync + 'static,
) -> Container {
    crate::watch::watch();
    let azure = AzureConfig::new()
        .endpoint("http://127.0.0.1:1/account")
        .account_key("c2VjcmV0")
        .integrity(integrity);
    let http = HttpConfig::new().attempts_max(3);
    let config = Config::builder().azure(azure).http(http).build().unwrap();
    let fake = Arc::new(Fake { answer: Box::new(answer), seen: Mutex::default() });
    let transport: Arc<dyn Transport> = Arc::<Fake>::clone(&fake);
    let direct = Arc::clone(&transport);
    let shared = Shared::new("account/container", &config, transport, direct).unwrap();
    Container { shared, fake }
}

impl Container {
    fn upload(&self, create_only: bool) -> AzureUpload {
        let algorithm = Some(Algorithm::Crc32c);
        let spec = UploadSpec { create_only, algorithm, ..UploadSpec::default() };
        AzureUpload::new(&self.shared, "folder/a key", spec, "0123456789abcdef".to_owned())
    }

    fn seen(&self) -> Vec<Seen> {
        lock(&self.fake.seen).clone()
    }

    /// How often something was asked for.
    fn count(&self, method: Method, query: &str) -> usize {
        self.seen().iter().filter(|seen| seen.is(method.clone(), query)).count()
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

fn part(index: u64, bytes: &[u8]) -> PartView<'_> {
    PartView {
        index,
        offset: index * 9,
        bytes,
        more: &[],
        bytes_padded: bytes,
        checksum: Some(Algorithm::Crc32c.checksum(bytes)),
        transport: Some(Algorithm::Crc64Nvme.checksum(bytes)),
    }
}

const DATA: &[u8] = b"123456789";

fn put(upload: &AzureUpload) -> Result<()> {
    upload.put_whole(&part(0, DATA), &soon()).map(drop)
}

/// Two blocks and their list.
fn write(upload: &AzureUpload) -> Result<()> {
    let receipts: Vec<Receipt> =
        (0..2).map(|n| upload.put_part(&part(n, DATA), &soon())).collect::<Result<_>>()?;
    upload.commit(&receipts, 18, &soon(), &|| ()).map(drop)
}

/// A service that does what it is asked: the CRC-64 is repeated.
fn taken(seen: &Seen) -> Told {
    let crc64 = seen.header("x-ms-content-crc64").map(str::to_owned);
    let mut headers = vec![("etag", "\"0x1\"".to_owned())];
    headers.extend(crc64.map(|sum| ("x-ms-content-crc64", sum)));
    Ok((201, headers, String::new()))
}

fn refused(status: u16, code: &str) -> Told {
    let headers =
        vec![("x-ms-error-code", code.to_owned()), ("x-ms-request-id", "request-7".to_owned())];
    let body = format!(
        "<Error><Code>{code}</Code><Message>In words.\nRequestId:request-7\nTime:now</Message>\
         <AuthenticationErrorDetail>SIGNATURE</AuthenticationErrorDetail></Error>"
    );
    Ok((status, headers, body))
}

/// What HEAD tells of an object.
fn there(nonce: &str, size: u64) -> Told {
    let headers = vec![
        ("etag", "\"0x1\"".to_owned()),
        ("content-length", size.to_string()),
        ("x-ms-meta-synclinenonce", nonce.to_owned()),
    ];
    Ok((200, headers, String::new()))
}

const OURS: &str = "0123456789abcdef";
