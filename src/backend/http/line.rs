//! A connection's socket: how long it may stand still, what to make of a server that answers before all
//! is sent, and how far a request got when it fails.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::backend::http::past::shorten;
use crate::backend::http::{Stage, TransportError};
use crate::limits::{ANSWER_HEAD_BYTES_MAX, RECEIVE_STEP_BYTES};
use crate::sync::{Mutex, lock};

/// How long a connection may stand still, and when the request as a whole ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub idle_timeout: Option<Duration>,
    pub until: Option<Instant>,
}

impl Limits {
    /// When a wait that begins now has lasted too long.
    fn end(&self) -> Option<Instant> {
        let idle = self.idle_timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        match (idle, self.until) {
            (Some(idle), Some(until)) => Some(idle.min(until)),
            (idle, until) => idle.or(until),
        }
    }
}

/// Longest that one call sends without looking whether the server has answered already.
const SEND_SLICE: Duration = Duration::from_millis(500);

/// One socket. It does not block; waiting is done here, and only within [`Limits`]. Bodies are sent by
/// calls that do block, for a slice of time: the kernel then wakes this thread less often than `poll`.
pub(super) struct Line {
    stream: TcpStream,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Not fit for another request.
    spent: bool,
    /// The answer has come, or nothing goes out any more: what is left to send is dropped.
    stopped: bool,
    /// What went wrong while sending; told if no answer comes. With whether it was a timeout.
    failure: Option<(bool, String)>,
    /// Bytes of the output buffer that were sent from elsewhere.
    sent_bytes: usize,
    /// Whether bytes came since some were last sent.
    answered: bool,
    /// How far the body of the answer is on its way past the agent.
    past: PastState,
    /// Of interim answers while a request is sent.
    interim_bytes: usize,
}

/// See `past.rs`.
#[derive(Debug, Default)]
enum PastState {
    #[default]
    No,
    /// It is to go past the agent, if its head allows it.
    Wished,
    /// The agent was shown a shorter one: the length that was told, and what has come of it.
    Shortened(u64, Vec<u8>),
    /// All of it has come; the agent has yet to read the stand-in.
    Received,
}

impl Line {
    /// Connects to the first of the addresses that answers.
    pub fn connect(addresses: &[SocketAddr], until: Option<Instant>) -> io::Result<Line> {
        let mut failure = io::Error::other("the name has no address");
        for (index, address) in addresses.iter().enumerate() {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            // An address that does not answer leaves half of the time to those after it.
            let share = left.map(|left| if index + 1 == addresses.len() { left } else { left / 2 });
            let stream = match share {
                Some(share) if share.is_zero() => Err(ErrorKind::TimedOut.into()),
                Some(share) => TcpStream::connect_timeout(address, share),
                None => TcpStream::connect(address),
            };
            match stream {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    return Ok(Line { stream, state: Mutex::default() });
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Whether another request may use it: nothing failed, and the server neither closed it nor sent
    /// what nobody asked for.
    pub fn is_fit(&self) -> bool {
        let quiet =
            matches!(self.stream.peek(&mut [0]), Err(e) if e.kind() == ErrorKind::WouldBlock);
        quiet && !lock(&self.state).spent
    }

    /// Sends what the agent put into the output buffer, or nothing if the body's source sent it.
    pub fn transmit(&self, output: &[u8], amount: usize, limits: &Limits) -> io::Result<()> {
        let sent_bytes = std::mem::take(&mut lock(&self.state).sent_bytes);
        lock(&self.state).answered = false;
        match (sent_bytes, output.get(..amount)) {
            (0, Some(bytes)) => self.send_all(bytes, limits),
            (sent, _) if sent == amount => Ok(()),
            // The buffer was never filled: what stands in it must not go out.
            _ => Err(self.give_up(false, format!("{sent_bytes} bytes sent of {amount}"))),
        }
    }

    fn send_all(&self, mut bytes: &[u8], limits: &Limits) -> io::Result<()> {
        while !bytes.is_empty() && self.may_send()? {
            match (&self.stream).write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if self.wait(PollFlags::POLLOUT, limits)?.is_empty() {
                        self.send_timed_out(limits)?;
                    }
                }
                Err(e) => self.send_failed(e)?,
            }
        }
        Ok(())
    }

    /// Sends the beginning of `bytes` and says how much; all of it once the server refused it.
    pub fn send_some(&self, bytes: &[u8], limits: &Limits) -> io::Result<usize> {
        let end = limits.end();
        while self.may_send()? {
            match self.early_answer() {
                Ok(Early::None | Early::Consent) => {}
                Ok(Early::Refusal) => {
                    lock(&self.state).stop();
                    continue;
                }
                Err(e) => {
                    self.send_failed(e)?;
                    continue;
                }
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.send_timed_out(limits)?;
                continue;
            }
            match self.write_for(left.map_or(SEND_SLICE, |left| left.min(SEND_SLICE)), bytes) {
                Ok(sent) => return Ok(sent),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => self.send_failed(e)?,
            }
        }
        Ok(bytes.len())
    }

    /// Sends as much as goes out within `slice`.
    fn write_for(&self, slice: Duration, bytes: &[u8]) -> io::Result<usize> {
        // The kernel takes no shorter time than a microsecond, and none for ever.
        self.stream.set_write_timeout(Some(slice.max(Duration::from_millis(1))))?;
        self.stream.set_nonblocking(false)?;
        let sent = (&self.stream).write(bytes);
        self.stream.set_nonblocking(true)?;
        sent
    }

    /// That many bytes of the output buffer, which the agent is about to send, have been sent.
    pub fn sent(&self, bytes: usize) {
        lock(&self.state).sent_bytes = bytes;
    }

    /// Whether there is still sense in sending; an error if sending failed before.
    fn may_send(&self) -> io::Result<bool> {
        let state = lock(&self.state);
        match (&state.failure, state.stopped) {
            (_, true) => Ok(false),
            (Some((timed_out, detail)), false) => {
                Err(failed(Stage::Send, *timed_out, detail.clone()))
            }
            (None, false) => Ok(true),
        }
    }

    /// After an error of sending. A server that closes has often said why before: its answer is read.
    fn send_failed(&self, error: io::Error) -> io::Result<()> {
        match error.kind() {
            ErrorKind::Interrupted => Ok(()),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                let mut state = lock(&self.state);
                state.failure = Some((false, cause(&error)));
                state.stop();
                Ok(())
            }
            _ => Err(self.give_up(false, cause(&error))),
        }
    }

    /// After a wait to send. A server may have answered and read no more.
    fn send_timed_out(&self, limits: &Limits) -> io::Result<()> {
        let now = Limits { idle_timeout: Some(Duration::ZERO), until: None };
        let detail = overdue("sent", limits);
        if self.wait(PollFlags::POLLIN, &now)?.is_empty() {
            return Err(self.give_up(true, detail));
        }
        let mut state = lock(&self.state);
        state.failure = Some((true, detail));
        state.stop();
        Ok(())
    }

    fn give_up(&self, timed_out: bool, detail: String) -> io::Error {
        let mut state = lock(&self.state);
        state.spent = true;
        state.failure = Some((timed_out, detail.clone()));
        failed(Stage::Send, timed_out, detail)
    }

    /// Looks at what comes before the body is sent. Interim answers are dropped: they say nothing.
    fn early_answer(&self) -> io::Result<Early> {
        let mut head = [0; 1024];
        loop {
            let came = match self.stream.peek(&mut head) {
                Ok(came) => came,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Early::None),
                Err(e) => return Err(e),
            };
            match interim_answer(&head[..came]) {
                Some(bytes) => {
                    (&self.stream).read_exact(&mut head[..bytes])?;
                    let mut state = lock(&self.state);
                    state.interim_bytes += bytes;
                    if state.interim_bytes > ANSWER_HEAD_BYTES_MAX {
                        return Err(io::Error::other("interim answers without end"));
                    }
                }
                // The first digit of the status says it, once it is there.
                None if came > 0 && matches!(head[..came].get(9), None | Some(b'1' | b'2')) => {
                    return Ok(Early::Consent);
                }
                None => return Ok(Early::Refusal),
            }
        }
    }

    /// Reads what has come, waiting for it; 0 at the end of the connection.
    pub fn receive(&self, input: &mut [u8], limits: &Limits) -> io::Result<usize> {
        loop {
            let error = match (&self.stream).read(input) {
                Ok(came) if came > 0 => {
                    let mut state = lock(&self.state);
                    (state.answered, state.interim_bytes) = (true, 0);
                    return Ok(came);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if !self.wait(PollFlags::POLLIN, limits)?.is_empty() {
                        continue;
                    }
                    Err(e)
                }
                end => end.map(drop),
            };
            return self.receive_ended(error, limits);
        }
    }

    /// The body of the next answer is to go past the agent.
    pub fn wish(&self) {
        lock(&self.state).past = PastState::Wished;
    }

    /// Whether that was said, and nothing has come since.
    pub fn has_wish(&self) -> bool {
        matches!(lock(&self.state).past, PastState::Wished)
    }

    /// Looks at what comes first of an answer, `came`, and returns how much of it the agent is to see.
    pub fn shorten(&self, came: &mut [u8]) -> usize {
        let mut state = lock(&self.state);
        if !matches!(state.past, PastState::Wished) {
            return came.len();
        }
        state.past = PastState::No;
        let Some((head_bytes, body_bytes)) = shorten(came) else { return came.len() };
        // What a server sends beyond its own length is nobody's, and the connection of no use after it.
        let first = &came[head_bytes..];
        let first = first.get(..body_bytes as usize).unwrap_or(first);
        state.past = PastState::Shortened(body_bytes, first.to_vec());
        state.spent |= came.len() - head_bytes > first.len();
        head_bytes
    }

    /// What [`shorten`](Line::shorten) found: bytes of the body, and the first of them.
    pub fn take_shortened(&self) -> Option<(u64, Vec<u8>)> {
        match std::mem::take(&mut lock(&self.state).past) {
            PastState::Shortened(body_bytes, first) => Some((body_bytes, first)),
            _ => None,
        }
    }

    /// All of the body has come: the agent may read the stand-in for it.
    pub fn put_stand_in(&self) {
        lock(&self.state).past = PastState::Received;
    }

    pub fn has_stand_in(&self) -> bool {
        matches!(lock(&self.state).past, PastState::Received)
    }

    /// The agent has read so many bytes. Returns whether they were the stand-in's.
    pub fn take_stand_in(&self, bytes: usize) -> bool {
        let mut state = lock(&self.state);
        let was_there = matches!(state.past, PastState::Received);
        if was_there && bytes > 0 {
            state.past = PastState::No;
        }
        was_there
    }

    /// Nothing more comes: `Ok(0)` if this may be the end of an answer, else why none came.
    fn receive_ended(&self, end: io::Result<()>, limits: &Limits) -> io::Result<usize> {
        let mut state = lock(&self.state);
        state.spent = true;
        let timed_out = matches!(&end, Err(e) if e.kind() == ErrorKind::WouldBlock);
        let (answered, failure) = (state.answered, state.failure.take());
        Err(match (failure, end) {
            (Some((timed_out, detail)), _) if !answered => failed(Stage::Send, timed_out, detail),
            (_, Err(_)) if timed_out => failed(Stage::Receive, true, overdue("received", limits)),
            (_, Err(e)) if answered => failed(Stage::Receive, false, cause(&e)),
            (_, Err(e)) => failed(Stage::Send, false, cause(&e)),
            (_, Ok(())) if answered => return Ok(0),
            (_, Ok(())) => failed(Stage::Send, false, "closed without an answer".to_owned()),
        })
    }

    /// Waits for one of `events`; empty when the time is over.
    fn wait(&self, events: PollFlags, limits: &Limits) -> io::Result<PollFlags> {
        let end = limits.end();
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            // A millisecond more: the kernel's count is rounded down.
            let longest = left.map(|left| left + Duration::from_millis(u64::from(!left.is_zero())));
            let longest = longest.map_or(PollTimeout::NONE, |longest| {
                PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX)
            });
            let mut fds = [PollFd::new(self.stream.as_fd(), events)];
            match poll(&mut fds, longest) {
                Ok(0) if left.is_none_or(|left| !left.is_zero()) => {}
                Ok(0) => return Ok(PollFlags::empty()),
                Ok(_) => return Ok(fds[0].revents().unwrap_or(PollFlags::POLLERR)),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(self.give_up(false, e.desc().to_owned())),
            }
        }
    }
}

/// What comes from the server before the body is sent.
enum Early {
    None,
    /// A success begins to be told; the rest of the body is still wanted.
    Consent,
    /// An error, or the end of the connection.
    Refusal,
}

impl State {
    fn stop(&mut self) {
        self.stopped = true;
        self.spent = true;
    }
}

/// What came and was not consumed yet, with room for more.
#[derive(Default)]
pub(super) struct Input {
    memory: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// Room for more; never empty.
    pub fn free(&mut self) -> &mut [u8] {
        self.memory.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.memory.len() {
            self.memory.resize(self.end + RECEIVE_STEP_BYTES, 0);
        }
        &mut self.memory[self.end..]
    }

    /// The first bytes of the room were filled.
    pub fn filled(&mut self, bytes: usize) {
        self.end = self.memory.len().min(self.end + bytes);
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.end]
    }

    /// All but the first bytes are forgotten.
    pub fn keep(&mut self, bytes: usize) {
        self.end = self.end.min(self.start + bytes);
    }

    pub fn consume(&mut self, bytes: usize) {
        self.start = self.end.min(self.start + bytes);
    }
}

/// An error that says how far the request got, on its way through the agent.
pub(super) fn failed(stage: Stage, timed_out: bool, detail: String) -> io::Error {
    io::Error::other(TransportError { stage, timed_out, detail })
}

fn overdue(what: &str, limits: &Limits) -> String {
    match limits.idle_timeout {
        Some(idle) if limits.until.is_none_or(|until| until > Instant::now()) => {
            format!("nothing could be {what} for {idle:?}")
        }
        _ => format!("the request's time was over before all was {what}"),
    }
}

/// What happened, in few words where the system has some.
pub(super) fn cause(error: &io::Error) -> String {
    let kind = error.kind().to_string();
    if error.raw_os_error().is_none() || kind == "uncategorized error" {
        return error.to_string();
    }
    kind
}

/// The length of the interim answer (100 to 199) at the start of `head`, if a whole one is there.
fn interim_answer(head: &[u8]) -> Option<usize> {
    let interim = head.starts_with(b"HTTP/1.") && head.get(8..10) == Some(b" 1");
    let end = head.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    interim.then_some(end)
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("peer", &self.stream.peer_addr().ok()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::http::test_server::serve;

    #[test]
    fn a_wait_ends_with_the_shorter_limit() {
        let silent = serve(|stream, _| assert!(io::copy(&mut { stream }, &mut io::sink()).is_ok()));
        let line = Line::connect(&[silent], None).unwrap();
        let (short, long) = (Duration::from_millis(50), Duration::from_secs(3600));
        for (idle, total) in [(short, long), (long, short)] {
            let started = Instant::now();
            let limits = Limits { idle_timeout: Some(idle), until: Some(started + total) };
            let error = line.receive(&mut [0], &limits).unwrap_err();
            let error = error.downcast::<TransportError>().unwrap();
            assert!(error.timed_out && error.stage == Stage::Receive, "{error:?}");
            assert!(started.elapsed() >= short && started.elapsed() < long);
        }
    }

    #[test]
    fn an_address_that_does_not_answer_gives_way_to_the_next() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let open = serve(|_stream, _| ());
        let until = Some(Instant::now() + Duration::from_secs(30));
        Line::connect(&[closed, closed, open], until).unwrap();
        let error = Line::connect(&[closed, closed], until).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let error = Line::connect(&[open], Some(Instant::now())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
