//! Web identity: a token from a file is exchanged for keys at STS, by AssumeRoleWithWebIdentity.

use std::path::PathBuf;
use std::time::Duration;

use ::http::header::{ACCEPT, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderValue, Method};
use s3::signing::uri_encode;
use serde::Deserialize;

use super::Keys;
use crate::backend::http::{
    Fetched, OPERATION, Question, Route, not_understood, parse_time, parse_uri, read_text,
};
use crate::config::Secret;
use crate::error::{Error, Result};
use crate::sync::process_id;
use crate::time::Deadline;

/// Longest that one attempt at STS takes.
const TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPTS_MAX: u32 = 3;

/// A role, and the file with the token that allows to take it.
pub(super) struct WebIdentity {
    pub token_file: PathBuf,
    pub role_arn: String,
    pub session_name: Option<String>,
}

/// Without `Debug`: it holds secrets.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AssumeRoleResponse {
    assume_role_with_web_identity_result: AssumeRoleResult,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AssumeRoleResult {
    credentials: AssumedKeys,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AssumedKeys {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: String,
}

/// AWS's own STS: that of the region where it looks like one of AWS, else the global one.
pub(super) fn default_endpoint(region: Option<&str>) -> String {
    let is_aws = |region: &&str| {
        region.bytes().filter(|c| *c == b'-').count() >= 2
            && region.ends_with(|c: char| c.is_ascii_digit())
            && region.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    match region.filter(is_aws) {
        Some(region) if region.starts_with("cn-") => {
            format!("https://sts.{region}.amazonaws.com.cn")
        }
        Some(region) => format!("https://sts.{region}.amazonaws.com"),
        None => "https://sts.amazonaws.com".to_owned(),
    }
}

/// Takes the role. The token's file is read anew each time: whoever wrote it renews it.
pub(super) fn assume_role(
    route: &Route,
    source: &str,
    endpoint: &str,
    role: &WebIdentity,
    deadline: &Deadline,
) -> Result<Fetched<Keys>> {
    let token = Secret::new(read_text(source, &role.token_file)?.trim());
    if token.expose().is_empty() {
        let what = format!("{source}: {} is empty", role.token_file.display());
        return Err(Error::invalid(OPERATION, what));
    }
    let session_name =
        role.session_name.clone().unwrap_or_else(|| format!("syncline-{}", process_id()));
    let fields = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", &role.role_arn),
        ("RoleSessionName", &session_name),
        ("WebIdentityToken", token.expose()),
    ];
    let form = fields.map(|(name, value)| format!("{name}={}", uri_encode(value, true))).join("&");
    let mut headers = HeaderMap::new();
    let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    headers.insert(CONTENT_TYPE, form_type);
    headers.insert(ACCEPT, HeaderValue::from_static("application/xml"));
    let question = Question {
        source,
        method: Method::POST,
        uri: parse_uri(source, &format!("{endpoint}/"))?,
        headers,
        body: form.as_bytes(),
        timeout: TIMEOUT,
        attempts_max: ATTEMPTS_MAX.min(route.attempts_max),
        secrets: &[&token],
    };
    let body = question.body(&*route.transport, deadline)?;
    parse_answer(source, &body)
}

pub(super) fn parse_answer(source: &str, body: &[u8]) -> Result<Fetched<Keys>> {
    // The parser's own words may quote what it read.
    let parsed = str::from_utf8(body).ok().and_then(|text| quick_xml::de::from_str(text).ok());
    let Some(AssumeRoleResponse { assume_role_with_web_identity_result: result }) = parsed else {
        return Err(not_understood(source, "is not that of AssumeRoleWithWebIdentity"));
    };
    let AssumedKeys { access_key_id, secret_access_key, session_token, expiration } =
        result.credentials;
    let expires = parse_time(source, &expiration)?;
    let keys = Keys::new(source, &access_key_id, &secret_access_key, Some(&session_token))?;
    Ok((keys, Some(expires)))
}
