//! Bearer tokens of Microsoft Entra ID: by a client's secret, or by the token of another issuer in a file.
//!
//! Source: Microsoft identity platform, "OAuth 2.0 client credentials flow".

use std::path::Path;
use std::time::{Duration, SystemTime};

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderValue, Method};
use s3::signing::uri_encode;
use serde::Deserialize;
use serde_json::Value;

use crate::backend::http::{
    Fetched, OPERATION, Question, Route, not_understood, parse_uri, read_text, secret_header,
};
use crate::config::{ClientSecret, Secret};
use crate::error::{Error, Result};
use crate::time::Deadline;

const AUTHORITY_DEFAULT: &str = "https://login.microsoftonline.com";

/// What the tokens are for.
const SCOPE: &str = "https://storage.azure.com/.default";

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Longest that one attempt takes.
const TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPTS_MAX: u32 = 3;

/// Longest life that is believed: no clock overflows on it.
const LIFE_SECS_MAX: u64 = 10 * 365 * 24 * 3600;

/// An application that is who a file's token says it is.
pub(super) struct WorkloadIdentity<'a> {
    pub tenant_id: String,
    pub client_id: String,
    pub token_file: &'a Path,
}

/// A token for the application's secret.
pub(super) fn by_secret(
    route: &Route,
    source: &str,
    authority: Option<&str>,
    client: &ClientSecret,
    deadline: &Deadline,
) -> Result<Fetched<HeaderValue>> {
    let proof = [("client_secret", client.client_secret.expose())];
    let application = Application { tenant_id: &client.tenant_id, client_id: &client.client_id };
    application.ask(route, source, authority, &proof, &client.client_secret, deadline)
}

/// A token for the token in a file, which is read anew each time: whoever wrote it renews it.
pub(super) fn by_assertion(
    route: &Route,
    source: &str,
    authority: Option<&str>,
    identity: &WorkloadIdentity<'_>,
    deadline: &Deadline,
) -> Result<Fetched<HeaderValue>> {
    let assertion = Secret::new(read_text(source, identity.token_file)?.trim());
    if assertion.expose().is_empty() {
        let what = format!("{source}: {} is empty", identity.token_file.display());
        return Err(Error::invalid(OPERATION, what));
    }
    let proof =
        [("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion.expose())];
    let application =
        Application { tenant_id: &identity.tenant_id, client_id: &identity.client_id };
    application.ask(route, source, authority, &proof, &assertion, deadline)
}

struct Application<'a> {
    tenant_id: &'a str,
    client_id: &'a str,
}

impl Application<'_> {
    fn ask(
        &self,
        route: &Route,
        source: &str,
        authority: Option<&str>,
        proof: &[(&str, &str)],
        secret: &Secret,
        deadline: &Deadline,
    ) -> Result<Fetched<HeaderValue>> {
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
        let tenant = self.tenant_id;
        if tenant.is_empty() || tenant.starts_with('.') || !tenant.bytes().all(plain) {
            let what = format!("{source}: the tenant is neither an id nor a domain");
            return Err(Error::invalid(OPERATION, what));
        }
        let authority = authority.unwrap_or(AUTHORITY_DEFAULT);
        let uri = parse_uri(source, &format!("{authority}/{tenant}/oauth2/v2.0/token"))?;
        if uri.scheme_str() != Some("https") {
            let what = format!("{source}: secrets go over https only, which the authority is not");
            return Err(Error::invalid(OPERATION, what));
        }
        let known =
            [("client_id", self.client_id), ("grant_type", "client_credentials"), ("scope", SCOPE)];
        let fields = known.iter().chain(proof);
        let fields = fields.map(|(name, value)| format!("{name}={}", uri_encode(value, true)));
        let form = fields.collect::<Vec<_>>().join("&");
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        let encoded = Secret::new(&uri_encode(secret.expose(), true));
        let question = Question {
            source,
            method: Method::POST,
            uri,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, form_type)]),
            body: form.as_bytes(),
            timeout: TIMEOUT,
            attempts_max: ATTEMPTS_MAX.min(route.attempts_max),
            secrets: &[secret, &encoded],
        };
        let body = question.body(&*route.transport, deadline)?;
        parse(source, &body)
    }
}

/// A token as authorities and metadata services hand it out. Without `Debug`: it is secret.
#[derive(Deserialize)]
struct Handout {
    access_token: Option<String>,
    token_type: Option<String>,
    /// Seconds from now, as a number or in text.
    expires_in: Option<Value>,
    /// Seconds since 1970, the same.
    expires_on: Option<Value>,
}

/// Reads the token in an answer of `source`.
pub(super) fn parse(source: &str, body: &[u8]) -> Result<Fetched<HeaderValue>> {
    // The parser's own words quote what it read.
    let Ok(handout) = serde_json::from_slice::<Handout>(body) else {
        return Err(not_understood(source, "is not the JSON of a token"));
    };
    let Some(token) = &handout.access_token else {
        return Err(not_understood(source, "lacks access_token"));
    };
    if handout.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(not_understood(source, "holds a token that is no bearer token"));
    }
    let header = bearer(source, &Secret::new(token))?;
    let seconds = |value: &Value| match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let in_seconds = handout.expires_in.as_ref().and_then(seconds);
    let on_seconds = handout.expires_on.as_ref().and_then(seconds);
    let life = |seconds: u64| Duration::from_secs(seconds.min(LIFE_SECS_MAX));
    let expires = match (in_seconds, on_seconds) {
        (Some(seconds), _) => SystemTime::now() + life(seconds),
        (None, Some(seconds)) => {
            let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
            let latest = SystemTime::now() + life(LIFE_SECS_MAX);
            at.map_or(latest, |at| at.min(latest))
        }
        (None, None) => return Err(not_understood(source, "does not say when the token expires")),
    };
    Ok((header, Some(expires)))
}

/// The header that carries a token.
pub(super) fn bearer(source: &str, token: &Secret) -> Result<HeaderValue> {
    let token = token.expose().trim();
    if token.is_empty() || !token.bytes().all(|c| c.is_ascii_graphic()) {
        let what =
            format!("{source}: the token is empty or holds characters that tokens never have");
        return Err(Error::invalid(OPERATION, what));
    }
    secret_header(source, "the token", &Secret::new(&format!("Bearer {token}")))
}
