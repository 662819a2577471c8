//! Keys in JSON, as programs, containers and instances hand them out.

use serde::Deserialize;

use super::Keys;
use crate::backend::http::{Fetched, OPERATION, not_understood, parse_time, quote, secrets_in};
use crate::error::{Error, ErrorKind, Result};

/// Keys as programs, containers and instances hand them out. Without `Debug`: it holds secrets.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Handout {
    version: Option<u64>,
    code: Option<String>,
    message: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    token: Option<String>,
    session_token: Option<String>,
    expiration: Option<String>,
}

/// Reads keys that `source` handed out. The version must be `version`, where one is asked for.
pub(super) fn parse_handout(
    source: &str,
    json: &[u8],
    version: Option<u64>,
) -> Result<Fetched<Keys>> {
    // The parser's own words quote what it read.
    let Ok(handout) = serde_json::from_slice::<Handout>(json) else {
        return Err(not_understood(source, "is not the JSON of credentials"));
    };
    if let Some(expected) = version
        && handout.version != Some(expected)
    {
        return Err(not_understood(source, &format!("has not \"Version\": {expected}")));
    }
    if let Some(code) = handout.code.as_deref().filter(|code| *code != "Success") {
        let message = handout.message.unwrap_or_default();
        let secrets = secrets_in(json);
        let words = quote(&format!("{code}: {message}"), &secrets.iter().collect::<Vec<_>>());
        let what = format!("{source}: {words}");
        return Err(Error::new(ErrorKind::PermissionDenied, OPERATION, what));
    }
    let (Some(id), Some(secret)) = (&handout.access_key_id, &handout.secret_access_key) else {
        return Err(not_understood(source, "lacks AccessKeyId or SecretAccessKey"));
    };
    let token = handout.session_token.as_deref().or(handout.token.as_deref());
    let expires = match &handout.expiration {
        Some(text) => Some(parse_time(source, text)?),
        None => None,
    };
    Ok((Keys::new(source, id, secret, token)?, expires))
}
