//! Signatures of requests: AWS Signature Version 4 in the `Authorization` header.
//!
//! The derivation of the key and the percent-encoding are rust-s3's (`s3::signing`). The rest is not:
//! its headers are sorted as whole lines, wrong for names that begin with each other; its path goes
//! through `url::Url`, which removes dots; and its scope knows no service but `s3`.
//!
//! Source: Amazon S3 API reference, "Signature Calculations for the Authorization Header"; IAM user
//! guide, "Create a signed AWS API request".

use std::fmt;
use std::time::SystemTime;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use hmac::{Hmac, Mac};
use s3::Region;
use s3::signing::signing_key;
use sha2::{Digest, Sha256};

use crate::config::Secret;
use crate::error::{Error, Result};
use crate::sync::{Arc, Mutex, lock};

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// The SHA-256 of no bytes.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Headers that a proxy or the HTTP layer may add or change on the way: not signed.
const NOT_SIGNED: [HeaderName; 10] = [
    header::ACCEPT_ENCODING,
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRANSFER_ENCODING,
    header::USER_AGENT,
    header::VIA,
];

/// What a signature says of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload<'a> {
    /// Nothing; S3 alone takes that.
    Unsigned,
    /// The SHA-256 of its bytes, in lower-case hex.
    Sha256(&'a str),
    /// There is none.
    Empty,
}

impl Payload<'_> {
    fn text(&self) -> &str {
        match self {
            Payload::Unsigned => "UNSIGNED-PAYLOAD",
            Payload::Sha256(hex) => hex,
            Payload::Empty => EMPTY_SHA256,
        }
    }
}

/// The SHA-256 of these pieces, one after the other, as [`Payload::Sha256`] takes it.
pub(crate) fn sha256_hex<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    pieces.into_iter().for_each(|piece| hasher.update(piece));
    hex(&hasher.finalize())
}

/// What is signed, but for the headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToSign<'a> {
    pub method: &'a Method,
    /// The `Host` header as it will be sent: with the port, unless it is the scheme's own.
    pub host: &'a str,
    /// As it will be sent: made by `encode_path`.
    pub path: &'a str,
    /// As it will be sent: made by `encode_query`.
    pub query: &'a str,
    pub payload: Payload<'a>,
    pub region: &'a str,
    /// `s3`, `sts`.
    pub service: &'a str,
    pub time: SystemTime,
}

/// One set of keys, and the key derived from it for the day, the region and the service last used.
pub(crate) struct Signer {
    access_key_id: String,
    secret_access_key: Secret,
    session_token: Option<Secret>,
    derived: Mutex<Option<Derived>>,
}

/// A key for one scope.
#[derive(Clone)]
struct Derived {
    scope: Arc<str>,
    key: Hmac<Sha256>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("access_key_id", &self.access_key_id)
            .field("session_token", &self.session_token)
            .finish_non_exhaustive()
    }
}

impl Signer {
    pub fn new(
        access_key_id: &str,
        secret_access_key: Secret,
        session_token: Option<Secret>,
    ) -> Signer {
        Signer {
            access_key_id: access_key_id.to_owned(),
            secret_access_key,
            session_token,
            derived: Mutex::new(None),
        }
    }

    /// Adds the headers that carry the signature, or replaces those of an earlier one. All headers but
    /// those that change on the way are signed.
    ///
    /// # Errors
    ///
    /// `InvalidInput` where a key, a token or a header cannot stand in a request.
    pub fn sign(&self, request: &ToSign<'_>, headers: &mut HeaderMap) -> Result<()> {
        let time = long_date(request.time)?;
        headers.insert(DATE, plain("the date", &time)?);
        // Other services take the payload's hash without this header.
        if request.service == "s3" {
            headers.insert(CONTENT_SHA256, plain("the payload's hash", request.payload.text())?);
        }
        match &self.session_token {
            Some(token) => {
                headers.insert(SECURITY_TOKEN, hidden("the session token", token.expose())?)
            }
            None => headers.remove(SECURITY_TOKEN),
        };
        let derived = self.derived(&time[..8], request)?;
        let (lines, names) = canonical_headers(request.host, headers)?;
        let canonical = format!(
            "{}\n{}\n{}\n{lines}\n{names}\n{}",
            request.method,
            request.path,
            request.query,
            request.payload.text()
        );
        let scope = &derived.scope;
        let to_sign =
            format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha256_hex([canonical.as_bytes()]));
        let signature = hex(&derived.key.chain_update(to_sign).finalize().into_bytes());
        let credential = &self.access_key_id;
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={credential}/{scope},SignedHeaders={names},Signature={signature}"
        );
        headers.insert(header::AUTHORIZATION, hidden("the access key id", &authorization)?);
        Ok(())
    }

    /// The key for a scope; derived anew when the day, the region or the service is another.
    fn derived(&self, day: &str, request: &ToSign<'_>) -> Result<Derived> {
        let scope = format!("{day}/{}/{}/aws4_request", request.region, request.service);
        let mut derived = lock(&self.derived);
        if let Some(derived) = derived.as_ref().filter(|derived| *derived.scope == *scope) {
            return Ok(derived.clone());
        }
        // As a custom region every name stands as it is.
        let region = Region::Custom { region: request.region.to_owned(), endpoint: String::new() };
        let time = time::OffsetDateTime::from_unix_timestamp(unix_seconds(request.time)?)
            .map_err(|e| Error::invalid("sign request", e.to_string()))?;
        let key = signing_key(&time, self.secret_access_key.expose(), &region, request.service)
            .ok()
            .and_then(|key| Hmac::new_from_slice(&key).ok())
            .ok_or_else(|| Error::invalid("sign request", "no key can be derived"))?;
        Ok(derived.insert(Derived { scope: scope.into(), key }).clone())
    }
}

/// The signature in the headers of a request.
pub(crate) fn signature_in(headers: &HeaderMap) -> Option<&str> {
    let authorization = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    authorization.split_once("Signature=").map(|(_, signature)| signature)
}

/// The lines of the signed headers, each with its end, and their names.
fn canonical_headers(host: &str, headers: &HeaderMap) -> Result<(String, String)> {
    let signed = headers.keys().filter(|name| !NOT_SIGNED.contains(name));
    let mut names: Vec<&str> = signed.map(HeaderName::as_str).chain(["host"]).collect();
    names.sort_unstable();
    let mut lines = String::new();
    for name in &names {
        lines.push_str(name);
        lines.push(':');
        let values = headers.get_all(*name).iter().filter(|_| *name != "host");
        if *name == "host" {
            lines.push_str(host);
        }
        for (index, value) in values.enumerate() {
            let value = std::str::from_utf8(value.as_bytes()).map_err(|_| {
                Error::invalid("sign request", format!("the header {name} is not UTF-8"))
            })?;
            if index > 0 {
                lines.push(',');
            }
            push_folded(&mut lines, value);
        }
        lines.push('\n');
    }
    Ok((lines, names.join(";")))
}

/// Appends a value without spaces around it and with one for several within.
fn push_folded(lines: &mut String, value: &str) {
    let mut words = value.split([' ', '\t']).filter(|word| !word.is_empty());
    lines.push_str(words.next().unwrap_or_default());
    for word in words {
        lines.push(' ');
        lines.push_str(word);
    }
}

fn plain(what: &str, text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text)
        .map_err(|_| Error::invalid("sign request", format!("{what} cannot stand in a header")))
}

fn hidden(what: &str, text: &str) -> Result<HeaderValue> {
    let mut value = plain(what, text)?;
    value.set_sensitive(true);
    Ok(value)
}

fn unix_seconds(time: SystemTime) -> Result<i64> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok();
    since.and_then(|since| i64::try_from(since.as_secs()).ok()).ok_or_else(|| {
        Error::invalid("sign request", "the clock stands before 1970")
            .with_remedy("set this machine's clock")
    })
}

/// `YYYYMMDD'T'HHMMSS'Z'`.
fn long_date(time: SystemTime) -> Result<String> {
    let time = jiff::Timestamp::from_second(unix_seconds(time)?)
        .map_err(|e| Error::invalid("sign request", e.to_string()))?;
    Ok(time.strftime("%Y%m%dT%H%M%SZ").to_string())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
