//! Asking a source of credentials over HTTP, and what its answers have in common.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderValue, Method, Uri};
use serde::Deserialize;
use serde_json::Value;

use crate::backend::http::{Answer, Body, Request, Sink, Stage, Transport, TransportError};
use crate::config::Secret;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, sleep};
use crate::time::Deadline;

/// What every error about credentials says it was doing.
pub(crate) const OPERATION: &str = "get credentials";

/// Most bytes of an answer: keys take some 2 KiB, tokens some more.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Bound of the pause before the second attempt; doubles with each.
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// Most characters of a server's or a program's own words in an error.
const QUOTE_CHARS_MAX: usize = 300;

/// How sources are reached.
#[derive(Debug)]
pub(crate) struct Route {
    pub transport: Arc<dyn Transport>,
    /// Without proxy.
    pub direct: Arc<dyn Transport>,
    /// That of the settings.
    pub attempts_max: u32,
}

/// One question to a source. Whatever it changes may be changed twice.
pub(crate) struct Question<'a> {
    /// The source, as errors name it.
    pub source: &'a str,
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: &'a [u8],
    /// Of one attempt.
    pub timeout: Duration,
    pub attempts_max: u32,
    /// What was sent and must not come back in an error.
    pub secrets: &'a [&'a Secret],
}

/// That a question has no answer.
pub(crate) struct NoAnswer {
    pub error: TransportError,
    pub attempts: u32,
}

impl Question<'_> {
    /// Asks until there is an answer that another attempt would not change.
    pub fn ask(
        &self,
        transport: &dyn Transport,
        deadline: &Deadline,
    ) -> Result<(Answer, u32), NoAnswer> {
        let mut attempts = 1;
        loop {
            let request = Request {
                method: self.method.clone(),
                uri: self.uri.clone(),
                headers: self.headers.clone(),
                body: Body::of(self.body),
                deadline: Deadline::after(deadline.remaining().min(self.timeout)),
                idle_timeout: None,
                progress: None,
            };
            let outcome = transport.send(&request, Sink::Collect { bytes_max: ANSWER_BYTES_MAX });
            let again = match &outcome {
                Ok(answer) => is_passing(answer),
                Err(error) => !matches!(error.stage, Stage::Tls | Stage::Request),
            };
            let pause = pause_before(attempts + 1);
            if !again || attempts >= self.attempts_max || deadline.remaining() <= pause {
                return match outcome {
                    Ok(answer) => Ok((answer, attempts)),
                    Err(error) => Err(NoAnswer { error, attempts }),
                };
            }
            sleep(pause);
            attempts += 1;
        }
    }

    /// The body of a successful answer.
    pub fn body(&self, transport: &dyn Transport, deadline: &Deadline) -> Result<Vec<u8>> {
        match self.ask(transport, deadline) {
            Ok((answer, _)) if answer.status.is_success() => Ok(answer.body),
            Ok((answer, attempts)) => Err(self.refused(&answer, attempts)),
            Err(none) => Err(self.unanswered(&none)),
        }
    }

    pub fn unanswered(&self, none: &NoAnswer) -> Error {
        let kind = if none.error.timed_out { ErrorKind::TimedOut } else { ErrorKind::Unavailable };
        let detail = quote(&none.error.detail, self.secrets);
        let what = format!("{}: {} did not answer: {detail}", self.source, self.host());
        Error::new(kind, OPERATION, what).with_attempts(none.attempts)
    }

    pub fn refused(&self, answer: &Answer, attempts: u32) -> Error {
        let kind =
            if is_passing(answer) { ErrorKind::Unavailable } else { ErrorKind::PermissionDenied };
        let mut what =
            format!("{}: {} answered {}", self.source, self.host(), answer.status.as_u16());
        if let Some(reason) = reason(&answer.body) {
            what.push_str(": ");
            let answered = secrets_in(&answer.body);
            let secrets: Vec<&Secret> = self.secrets.iter().copied().chain(&answered).collect();
            what.push_str(&quote(&reason, &secrets));
        }
        Error::new(kind, OPERATION, what).with_attempts(attempts)
    }

    /// The server without the path, which may be a secret of its own.
    fn host(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }
}

/// Whether another attempt may be answered otherwise. A metadata service that is being renewed is gone (410)
/// for a while.
fn is_passing(answer: &Answer) -> bool {
    matches!(answer.status.as_u16(), 410 | 429) || answer.status.is_server_error()
}

/// Between half of the bound and the bound: the ranks of a node ask at the same moment.
fn pause_before(attempt: u32) -> Duration {
    let bound = PAUSE_FIRST * (1 << attempt.saturating_sub(2).min(6));
    let random = RandomState::new().hash_one(attempt) % 1024;
    bound / 2 + bound * (random as u32) / 2048
}

/// A server's own words about a refusal, in any of the forms they come in.
pub(crate) fn reason(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Xml {
        #[serde(rename = "Error")]
        error: XmlError,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct XmlError {
        code: Option<String>,
        message: Option<String>,
    }
    let text = str::from_utf8(body).ok()?;
    let words = match serde_json::from_str::<Value>(text) {
        Ok(json) => [["code", "Code", "error"], ["message", "Message", "error_description"]]
            .map(|names| names.iter().find_map(|name| json.get(name)?.as_str().map(str::to_owned))),
        Err(_) => {
            let error = quick_xml::de::from_str::<Xml>(text).ok()?.error;
            [error.code, error.message]
        }
    };
    let words: Vec<String> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
    (!words.is_empty()).then(|| words.join(": "))
}

/// Another's words, fit for an error: one line, short, and without the secrets that were sent.
pub(crate) fn quote(text: &str, secrets: &[&Secret]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.expose().is_empty()) {
        text = text.replace(secret.expose(), "***");
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut short: String =
        line.chars().filter(|c| !c.is_control()).take(QUOTE_CHARS_MAX).collect();
    if line.chars().count() > QUOTE_CHARS_MAX {
        short.push_str("...");
    }
    short
}

/// The secrets in an answer, however little else of it is as it should be.
pub(crate) fn secrets_in(json: &[u8]) -> Vec<Secret> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(json) else { return Vec::new() };
    let names_secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.contains("secret") || name.contains("token")
    };
    let secrets = fields.iter().filter(|(name, _)| names_secret(name));
    secrets.filter_map(|(_, value)| value.as_str()).map(Secret::new).collect()
}

pub(crate) fn parse_time(source: &str, text: &str) -> Result<SystemTime> {
    text.trim()
        .parse::<jiff::Timestamp>()
        .map(SystemTime::from)
        .map_err(|_| not_understood(source, "has an expiration that is not a time"))
}

pub(crate) fn not_understood(source: &str, problem: &str) -> Error {
    Error::new(ErrorKind::Unavailable, OPERATION, format!("{source}: the answer {problem}"))
}

/// An address made of checked pieces.
pub(crate) fn parse_uri(source: &str, text: &str) -> Result<Uri> {
    let bad = || Error::invalid(OPERATION, format!("{source}: its address is not one"));
    text.parse::<Uri>().ok().filter(|uri| uri.host().is_some()).ok_or_else(bad)
}

/// A header's value that must not be seen.
pub(crate) fn secret_header(source: &str, what: &str, secret: &Secret) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| {
        let what = format!("{source}: {what} holds characters that no header may hold");
        Error::invalid(OPERATION, what)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A file of `source` as text.
pub(crate) fn read_text(source: &str, path: &std::path::Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| file_error(source, path, error))
}

pub(crate) fn file_error(
    source: impl fmt::Display,
    path: &std::path::Path,
    error: std::io::Error,
) -> Error {
    let what = format!("{source}: {}: {error}", path.display());
    let kind = match Error::from_io(OPERATION, error).kind() {
        ErrorKind::NotFound => ErrorKind::InvalidInput,
        kind => kind,
    };
    Error::new(kind, OPERATION, what)
}
