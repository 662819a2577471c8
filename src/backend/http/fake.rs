//! A transport that answers as it is told.

use std::time::Duration;

use ::http::{HeaderMap, Method, StatusCode, Uri};

use crate::backend::http::{Answer, Request, Sink, Stage, Transport, TransportError};
use crate::sync::{Arc, Mutex, lock};

/// A request as it came.
#[derive(Clone)]
pub struct Seen {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn host(&self) -> &str {
        self.uri.host().unwrap()
    }
}

type Outcome = Result<(u16, String), Stage>;
type Answerer = dyn Fn(usize, &Seen) -> Outcome + Send + Sync;

/// A transport. Clones are the same one.
#[derive(Clone)]
pub struct Fake {
    answer: Arc<Answerer>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    fn of(answer: impl Fn(usize, &Seen) -> Outcome + Send + Sync + 'static) -> Fake {
        crate::watch::watch();
        Fake { answer: Arc::new(answer), seen: Arc::default() }
    }

    pub fn answering(answer: impl Fn(&Seen) -> Outcome + Send + Sync + 'static) -> Fake {
        Fake::of(move |_, seen| answer(seen))
    }

    /// Answers by the number of the request, from 1.
    pub fn answering_nth(answer: impl Fn(usize) -> (u16, String) + Send + Sync + 'static) -> Fake {
        Fake::of(move |nth, _| Ok(answer(nth)))
    }

    pub fn always(status: u16, body: &str) -> Fake {
        let body = body.to_owned();
        Fake::of(move |_, _| Ok((status, body.clone())))
    }

    /// Answers these in order, and nothing afterwards.
    pub fn script(outcomes: Vec<Outcome>) -> Fake {
        Fake::of(move |nth, _| outcomes.get(nth - 1).cloned().unwrap_or(Err(Stage::Connect)))
    }

    /// Nobody is there.
    pub fn silent() -> Fake {
        Fake::script(Vec::new())
    }

    pub fn count(&self) -> usize {
        lock(&self.seen).len()
    }

    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

impl Transport for Fake {
    fn send(&self, request: &Request<'_>, sink: Sink<'_>) -> Result<Answer, TransportError> {
        assert!(request.deadline.remaining() <= Duration::from_secs(10), "a step is short");
        assert!(matches!(sink, Sink::Collect { bytes_max } if bytes_max <= 1 << 20));
        let body = request.body.pieces().flatten().copied().collect();
        let seen = Seen {
            method: request.method.clone(),
            uri: request.uri.clone(),
            headers: request.headers.clone(),
            body: String::from_utf8(body).unwrap(),
        };
        let nth = {
            let mut all = lock(&self.seen);
            all.push(seen.clone());
            all.len()
        };
        match (self.answer)(nth, &seen) {
            Ok((status, body)) => Ok(Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers: HeaderMap::new(),
                body: body.into_bytes(),
                filled_bytes: 0,
            }),
            Err(stage) => {
                Err(TransportError { stage, timed_out: false, detail: "made to fail".to_owned() })
            }
        }
    }
}
