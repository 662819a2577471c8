//! What a request is answered with.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::{Handler, Request, lock};

/// What happens to one request.
#[derive(Debug, Clone)]
pub enum Step {
    Answer(Answer),
    /// The connection is reset (RST). At the head that is before the body was read.
    Reset,
    /// The connection is closed without an answer: in order, unless the body is unread.
    Close,
    /// Nothing comes for so long (or until the server ends); then the connection is closed.
    Hang(Duration),
    /// These bytes as they are, and then the others again and again until nobody takes them, if there are any;
    /// then the connection is closed.
    Raw(Arc<Vec<u8>>, Arc<Vec<u8>>),
}

impl Step {
    /// [`Step::Raw`] of texts.
    pub fn raw(first: impl Into<Vec<u8>>, then_for_ever: impl Into<Vec<u8>>) -> Step {
        Step::Raw(Arc::new(first.into()), Arc::new(then_for_ever.into()))
    }
}

impl From<Answer> for Step {
    fn from(answer: Answer) -> Step {
        Step::Answer(answer)
    }
}

/// What is wrong with the end of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Close,
    Reset,
    Hang(Duration),
}

/// An answer. It has a `content-length` unless `chunked`, and leaves the connection open unless `closing`.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Arc<Vec<u8>>,
    pub(super) head_pause: Duration,
    pub(super) body_pause: Duration,
    pub(super) trickle: Option<(usize, Duration)>,
    pub(super) cut: Option<(usize, Cut)>,
    pub(super) chunked: bool,
    pub(super) closing: bool,
    pub(super) draining: bool,
}

impl Answer {
    pub fn new(status: u16) -> Answer {
        Answer {
            status,
            headers: Vec::new(),
            body: Arc::default(),
            head_pause: Duration::ZERO,
            body_pause: Duration::ZERO,
            trickle: None,
            cut: None,
            chunked: false,
            closing: false,
            draining: false,
        }
    }

    /// Sets a header, instead of one of that name. A `content-length` given here is sent as it is.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    #[must_use]
    pub fn without_header(mut self, name: &str) -> Answer {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Answer {
        self.body = Arc::new(body.into());
        self
    }

    /// A pause before the status line.
    #[must_use]
    pub fn after(mut self, pause: Duration) -> Answer {
        self.head_pause = pause;
        self
    }

    /// A pause between the head and the body.
    #[must_use]
    pub fn body_after(mut self, pause: Duration) -> Answer {
        self.body_pause = pause;
        self
    }

    /// So many bytes of the body at a time, with a pause after each.
    #[must_use]
    pub fn trickle(mut self, step_bytes: usize, pause: Duration) -> Answer {
        self.trickle = Some((step_bytes, pause));
        self
    }

    /// The connection is closed in order after so many bytes of the body.
    #[must_use]
    pub fn truncate(mut self, body_bytes: usize) -> Answer {
        self.cut = Some((body_bytes, Cut::Close));
        self
    }

    /// The connection is reset after so many bytes of the body.
    #[must_use]
    pub fn reset_after(mut self, body_bytes: usize) -> Answer {
        self.cut = Some((body_bytes, Cut::Reset));
        self
    }

    /// Nothing comes after so many bytes of the body.
    #[must_use]
    pub fn hang_after(mut self, body_bytes: usize, duration: Duration) -> Answer {
        self.cut = Some((body_bytes, Cut::Hang(duration)));
        self
    }

    #[must_use]
    pub fn chunked(mut self) -> Answer {
        self.chunked = true;
        self
    }

    /// Says `connection: close`, and does.
    #[must_use]
    pub fn closing(mut self) -> Answer {
        self.closing = true;
        self
    }

    /// Where the answer comes before the body was read: the body is then read and forgotten, and the
    /// connection stays open. Without this it is closed with the body unread, which resets it.
    #[must_use]
    pub fn draining(mut self) -> Answer {
        self.draining = true;
        self
    }

    /// Status line and headers.
    pub(super) fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        let given = |name: &str| self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.chunked {
            head.push_str("transfer-encoding: chunked\r\n");
        } else if self.status != 204 && !given("content-length") {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        if self.closing {
            head.push_str("connection: close\r\n");
        }
        head + "\r\n"
    }
}

/// A time as headers have it.
pub fn http_time(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap();
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Steps in the order of the requests; 500 when they are used up.
pub struct Queue(Mutex<VecDeque<(bool, Step)>>);

impl Queue {
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Queue {
        Queue(Mutex::new(steps.into_iter().map(|step| (false, step)).collect()))
    }

    /// A further step, taken before the request's body is read.
    #[must_use]
    pub fn then_at_head(self, step: impl Into<Step>) -> Queue {
        lock(&self.0).push_back((true, step.into()));
        self
    }

    /// A further step.
    #[must_use]
    pub fn then(self, step: impl Into<Step>) -> Queue {
        lock(&self.0).push_back((false, step.into()));
        self
    }
}

impl Handler for Queue {
    fn at_head(&self, _: &Request) -> Option<Step> {
        let mut steps = lock(&self.0);
        let early = steps.front().is_some_and(|(early, _)| *early);
        early.then(|| steps.pop_front()).flatten().map(|(_, step)| step)
    }

    fn answer(&self, _: &Request) -> Step {
        let step = lock(&self.0).pop_front();
        step.map_or_else(
            || Answer::new(500).body("the script has no further step").into(),
            |(_, step)| step,
        )
    }
}
