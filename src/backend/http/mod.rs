//! What the object stores' protocols share: requests and answers, the one HTTP agent, retries and
//! throttling, how credentials are asked for and cached, documents, ranged reads and listings.
//!
//! A protocol (`s3`, `azure`) makes [`Request`]s and reads [`Answer`]s. [`Transport`] carries one
//! request and never repeats it; [`retry`] decides what is repeated.

mod agent;
#[cfg(test)]
mod agent_fault_tests;
#[cfg(test)]
mod agent_tests;
mod clock;
mod credentials;
mod date;
pub(crate) mod document;
mod encode;
mod exchange;
mod failure;
#[cfg(test)]
pub(crate) mod fake;
mod flights;
mod handover;
mod incoming;
mod line;
mod past;
#[cfg(test)]
mod past_tests;
mod retry;
mod route;
mod source;
#[cfg(test)]
pub(crate) mod test_server;
mod veil;
mod walk;
mod wire;

use std::fmt;

use ::http::{HeaderMap, Method, StatusCode, Uri};

use crate::time::Deadline;

pub(crate) use agent::HttpAgent;
pub(crate) use clock::ServerClock;
pub(crate) use credentials::{Fetched, Refreshing};
pub(crate) use date::{format_http_date, parse_http_date};
pub(crate) use document::{size, unreadable};
pub(crate) use encode::{encode_path, encode_query, encode_text};
pub(crate) use exchange::{
    ANSWER_BYTES_MAX, OPERATION, Question, Route, file_error, not_understood, parse_time,
    parse_uri, quote, read_text, secret_header, secrets_in,
};
pub(crate) use failure::{insert, one_line, refusal_text, retry_after, unanswered, uri_of};
pub(crate) use flights::{Flight, Flights, ended};
pub(crate) use retry::{Failure, Retrier, Verdict};
pub(crate) use source::{Get, Got, RangedSource, Reads, tagged};
pub(crate) use walk::{Circle, ListedObject, Lists, Page, PagedWalk, has_temporary_name, is_below};
#[cfg(any(test, fuzzing))]
pub(crate) use {exchange::reason, source::content_range};

/// The body of a request: pieces of memory, sent one after the other, as often as is needed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Body<'a> {
    pub first: &'a [u8],
    /// Empty unless a part is larger than a part buffer.
    pub more: &'a [&'a [u8]],
}

impl<'a> Body<'a> {
    pub fn of(first: &'a [u8]) -> Body<'a> {
        Body { first, more: &[] }
    }

    pub fn bytes(&self) -> u64 {
        self.pieces().map(|piece| piece.len() as u64).sum()
    }

    pub fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        std::iter::once(self.first).chain(self.more.iter().copied())
    }
}

/// One request, complete and signed.
pub(crate) struct Request<'a> {
    pub method: Method,
    /// Absolute. Path and query go out as they stand here: they were signed so.
    pub uri: Uri,
    /// Without `host` and `content-length`, which follow from the rest. Secrets are marked sensitive.
    pub headers: HeaderMap,
    pub body: Body<'a>,
    /// When the request as a whole must have ended.
    pub deadline: Deadline,
    /// Longest time the connection may stand still, instead of the agent's.
    pub idle_timeout: Option<std::time::Duration>,
    /// Called whenever bytes of the answer have come.
    pub progress: Option<&'a dyn Fn()>,
}

/// Where the body of a successful answer goes. That of an error (300 and above) is collected always.
pub(crate) enum Sink<'a> {
    /// Into [`Answer::body`], at most this many bytes.
    Collect { bytes_max: usize },
    /// Into this memory; an answer that is longer is an error, one that is shorter is told by
    /// [`Answer::filled_bytes`].
    Into(&'a mut [u8]),
}

/// An answer, complete.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// What was collected.
    pub body: Vec<u8>,
    /// Bytes that went into [`Sink::Into`].
    pub filled_bytes: usize,
}

impl Answer {
    /// A header as text; `None` if it is absent or not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// How far a request got that has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The name was not found.
    Resolve,
    /// No connection.
    Connect,
    /// The certificate or the handshake was not acceptable. Not worth another attempt.
    Tls,
    /// Sent in part or in whole; whether it took effect is unknown.
    Send,
    /// The answer was cut short, stood still, or was not HTTP.
    Receive,
    /// The request itself cannot be sent: a defect, or settings that cannot work.
    Request,
}

/// A request without an answer.
#[derive(Debug)]
pub(crate) struct TransportError {
    pub stage: Stage,
    /// Whether it ended by a timeout.
    pub timed_out: bool,
    /// What happened, without secrets and without the URI's query.
    pub detail: String,
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for TransportError {}

/// Carries requests. One per store, shared by its threads.
pub(crate) trait Transport: Send + Sync + fmt::Debug {
    /// Sends one request, once, and returns the complete answer, whatever its status. Follows no
    /// redirect and repeats nothing.
    fn send(&self, request: &Request<'_>, sink: Sink<'_>) -> Result<Answer, TransportError>;
}
