//! What requests fail of, in words that are the same for all object stores.

use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};

use crate::backend::http::{Failure, Stage, TransportError, Verdict, parse_http_date};
use crate::error::{Error, ErrorKind, Result};

/// Adds a header whose value we made.
pub(crate) fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) -> Result<()> {
    let value = HeaderValue::from_str(value).map_err(|_| {
        Error::invalid("make request", format!("the value of {name} cannot be sent"))
    })?;
    headers.insert(name, value);
    Ok(())
}

/// The absolute URI of a request; path and query are encoded already.
pub(crate) fn uri_of(scheme: &str, authority: &str, path: &str, query: &str) -> Result<Uri> {
    let mark = if query.is_empty() { "" } else { "?" };
    let text = format!("{scheme}://{authority}{path}{mark}{query}");
    Uri::try_from(text).map_err(|e| {
        Error::invalid("make request", format!("{authority} is no host for requests: {e}"))
    })
}

/// The failure of a request without an answer.
pub(crate) fn unanswered(operation: &'static str, error: TransportError) -> Failure {
    let kind = if error.timed_out { ErrorKind::TimedOut } else { ErrorKind::Unavailable };
    let (verdict, remedy) = match error.stage {
        Stage::Resolve => (Verdict::Unreachable, Some("check the endpoint's name")),
        Stage::Connect => (
            Verdict::Unreachable,
            Some("check the endpoint and the proxy, if there is one, and that they run"),
        ),
        Stage::Tls => (
            Verdict::Terminal,
            Some(
                "trust the server's authority (AWS_CA_BUNDLE, HttpConfig::ca_file), or check the endpoint and \
                 its scheme",
            ),
        ),
        Stage::Send | Stage::Receive => {
            (Verdict::Retry, Some("check the endpoint, its scheme, and what stands between"))
        }
        Stage::Request => (Verdict::Terminal, None),
    };
    let mut failed = Error::new(kind, operation, error.to_string());
    if let Some(remedy) = remedy {
        failed = failed.with_remedy(remedy);
    }
    Failure { error: failed.with_source(error), verdict }
}

/// `Retry-After`: seconds, or a date.
pub(crate) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => parse_http_date(text)?.duration_since(now).ok(),
    }
}

/// `the server answers 404 NoSuchKey: the words (request 17)`.
pub(crate) fn refusal_text(
    status: StatusCode,
    code: &str,
    message: &str,
    request_id: Option<&str>,
) -> String {
    let mut text = format!("the server answers {}", status.as_u16());
    match (code.is_empty(), status.canonical_reason()) {
        (false, _) => text.push_str(&format!(" {}", one_line(code))),
        (true, Some(reason)) => text.push_str(&format!(" {reason}")),
        (true, None) => {}
    }
    if !message.is_empty() {
        text.push_str(&format!(": {}", one_line(message).trim_end_matches('.')));
    }
    if let Some(id) = request_id {
        text.push_str(&format!(" (request {})", one_line(id)));
    }
    text
}

/// A server's words, on one line and of bounded length.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_stay_on_one_line_and_end_somewhere() {
        let text = refusal_text(StatusCode::NOT_FOUND, "Code", "a\nb\u{1b}[0m.", Some("r 1"));
        assert_eq!(text, "the server answers 404 Code: a b [0m (request r 1)");
        let endless = "x".repeat(10_000);
        let text = refusal_text(StatusCode::NOT_FOUND, "", &endless, None);
        assert!(text.starts_with("the server answers 404 Not Found: x") && text.len() < 600);
    }

    #[test]
    fn servers_name_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        assert_eq!(retry_after(" 3 ", now), Some(Duration::from_secs(3)));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(retry_after(date, now), Some(Duration::from_secs(7)));
        for past in ["Sun, 06 Nov 1994 08:49:29 GMT", "soon", ""] {
            assert_eq!(retry_after(past, now), None, "{past}");
        }
    }
}
