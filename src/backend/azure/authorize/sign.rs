//! Signatures of requests with the account's key: `SharedKey` in the `Authorization` header.
//!
//! Source: Storage Services REST API, "Authorize with Shared Key".

use std::fmt;

use ::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::ToAuthorize;
use crate::backend::http::{OPERATION, secret_header};
use crate::config::Secret;
use crate::error::{Error, Result};

/// Headers whose values are signed in this order, whether they are there or not; in the second place stands
/// the length.
const SIGNED_BEFORE_LENGTH: [HeaderName; 2] = [header::CONTENT_ENCODING, header::CONTENT_LANGUAGE];
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const SIGNED_AFTER_LENGTH: [HeaderName; 8] = [
    CONTENT_MD5,
    header::CONTENT_TYPE,
    // Empty where `x-ms-date` is sent, as it always is.
    header::DATE,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

/// All headers of this prefix are signed.
const OWN_PREFIX: &str = "x-ms-";

/// The key of one account.
#[derive(Clone)]
pub(super) struct AccountKey {
    account: String,
    mac: Hmac<Sha256>,
}

impl AccountKey {
    /// `source` names the key in errors.
    pub fn new(source: &str, account: &str, key: &Secret) -> Result<AccountKey> {
        let key = STANDARD.decode(key.expose().trim()).ok().filter(|key| !key.is_empty());
        let mac = key.and_then(|key| Hmac::new_from_slice(&key).ok());
        let Some(mac) = mac else {
            return Err(Error::invalid(OPERATION, format!("{source} is no key: it is not base64"))
                .with_remedy("give one of the account's two access keys as it is"));
        };
        Ok(AccountKey { account: account.to_owned(), mac })
    }

    /// The header that carries the signature of these others.
    pub fn sign(&self, call: &ToAuthorize<'_>, headers: &HeaderMap) -> Result<HeaderValue> {
        let text = self.string_to_sign(call, headers)?;
        let signature =
            STANDARD.encode(self.mac.clone().chain_update(text).finalize().into_bytes());
        let authorization = Secret::new(&format!("SharedKey {}:{signature}", self.account));
        secret_header("the account's key", "the signature", &authorization)
    }

    pub(super) fn string_to_sign(
        &self,
        call: &ToAuthorize<'_>,
        headers: &HeaderMap,
    ) -> Result<String> {
        let mut text = format!("{}\n", call.method);
        for name in &SIGNED_BEFORE_LENGTH {
            push_values(&mut text, headers, name)?;
            text.push('\n');
        }
        if call.content_length_bytes > 0 {
            text.push_str(&call.content_length_bytes.to_string());
        }
        text.push('\n');
        for name in &SIGNED_AFTER_LENGTH {
            push_values(&mut text, headers, name)?;
            text.push('\n');
        }
        push_own_headers(&mut text, headers)?;
        text.push_str(&format!("/{}{}", self.account, call.path));
        push_query(&mut text, call.query);
        Ok(text)
    }
}

/// The headers of the protocol's own, each with its end.
fn push_own_headers(text: &mut String, headers: &HeaderMap) -> Result<()> {
    let own = headers.keys().filter(|name| name.as_str().starts_with(OWN_PREFIX));
    let mut names: Vec<&HeaderName> = own.collect();
    names.sort_by_cached_key(|name| place(name.as_str()));
    for name in names {
        text.push_str(name.as_str());
        text.push(':');
        push_values(text, headers, name)?;
        text.push('\n');
    }
    Ok(())
}

/// What a header's name is sorted by. The server sorts as dictionaries do, hyphens counting only between
/// names that are otherwise the same, and underscores before digits.
pub(super) fn place(name: &str) -> (Vec<u8>, Vec<u8>) {
    let letters = name.bytes().filter(|c| *c != b'-');
    let letters = letters.map(|c| if c == b'_' { 0 } else { c }).collect();
    let hyphens_last = name.bytes().map(|c| if c == b'-' { u8::MAX } else { c }).collect();
    (letters, hyphens_last)
}

/// The query, each pair on a line of its own: in the order of the names, which are in lower case, and with
/// the values of one name together.
fn push_query(text: &mut String, query: &[(&str, &str)]) {
    let mut pairs: Vec<(String, &str)> =
        query.iter().map(|(name, value)| (name.to_ascii_lowercase(), *value)).collect();
    pairs.sort_unstable();
    let mut last: Option<&str> = None;
    for (name, value) in &pairs {
        if last == Some(name) {
            text.push(',');
        } else {
            text.push_str(&format!("\n{name}:"));
        }
        text.push_str(value);
        last = Some(name);
    }
}

/// The values of one header, without spaces around them.
fn push_values(text: &mut String, headers: &HeaderMap, name: &HeaderName) -> Result<()> {
    for (index, value) in headers.get_all(name).iter().enumerate() {
        let value = str::from_utf8(value.as_bytes()).map_err(|_| {
            Error::invalid("authorize request", format!("the header {name} is not UTF-8"))
        })?;
        if index > 0 {
            text.push(',');
        }
        text.push_str(value.trim());
    }
    Ok(())
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountKey").field("account", &self.account).finish_non_exhaustive()
    }
}
