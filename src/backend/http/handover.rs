//! The way of a request's body past the agent's buffers.
//!
//! The agent would copy each body into the output buffer of its connection. Here the buffers of plain
//! connections are announced: when the agent asks to fill one of them, [`BodySource`] writes the body
//! to that connection's socket itself and leaves the buffer alone, and the connection, told to send
//! that many bytes of its buffer, sends none. Any other buffer is filled as usual: those of TLS, and
//! what is used for chunks.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::Instant;

use crate::backend::http::Body;
use crate::backend::http::line::{Limits, Line};
use crate::backend::http::veil::Veil;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, ThreadId, lock, thread_id};

/// The connections of an agent, with their announced output buffers.
#[derive(Default)]
pub(super) struct Lines {
    buffers: Mutex<Vec<Announced>>,
    /// By the threads that make them.
    requests: Mutex<HashMap<ThreadId, UnderWay>>,
    opened: AtomicU64,
    copied_bytes: AtomicU64,
}

/// A request whose answer's head has not come.
struct UnderWay {
    /// Not yet lifted.
    veil: Option<Veil>,
    /// Whether its answer is to go past the agent (`past.rs`), and by which connection it comes.
    past: bool,
    line: Option<Arc<Line>>,
    /// What came of the head.
    head_bytes: usize,
}

struct Announced {
    address: usize,
    bytes: usize,
    line: Arc<Line>,
}

impl Lines {
    /// Connects, and announces that the output buffer of the new connection will be `output`. The owner
    /// of that memory calls [`close`](Lines::close) before it lets go of it.
    pub fn open(
        &self,
        addresses: &[SocketAddr],
        until: Option<Instant>,
        output: &[u8],
    ) -> io::Result<Arc<Line>> {
        let line = Arc::new(Line::connect(addresses, until)?);
        let (address, bytes) = (output.as_ptr().addr(), output.len());
        lock(&self.buffers).push(Announced { address, bytes, line: line.clone() });
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(line)
    }

    pub fn close(&self, line: &Arc<Line>) {
        lock(&self.buffers).retain(|announced| !Arc::ptr_eq(&announced.line, line));
    }

    /// The calling thread begins a request; `past` if its answer is to go past the agent.
    pub fn begin(&self, past: bool, veil: Option<Veil>) {
        let request = UnderWay { veil, past, line: None, head_bytes: 0 };
        // A request that panicked never ended: what it was must not be this one's.
        lock(&self.requests).insert(thread_id(), request);
    }

    /// The calling thread is about to send `output`. Lifts the veil of its request, whose head comes first.
    /// Returns whether all that was hidden is in its place.
    pub fn lift(&self, output: &mut [u8]) -> bool {
        let mut requests = lock(&self.requests);
        let veil = requests.get_mut(&thread_id()).and_then(|request| request.veil.take());
        veil.is_none_or(|veil| veil.lift(output))
    }

    /// The calling thread sends its request by this connection.
    pub fn sends_by(&self, line: &Arc<Line>) {
        if let Some(request) = lock(&self.requests).get_mut(&thread_id()).filter(|own| own.past) {
            line.wish();
            request.line = Some(line.clone());
        }
    }

    /// So many bytes came for the calling thread. Returns how many that makes while the head is awaited.
    pub fn came(&self, bytes: usize) -> usize {
        let mut requests = lock(&self.requests);
        let Some(request) = requests.get_mut(&thread_id()) else { return 0 };
        request.head_bytes = request.head_bytes.saturating_add(bytes);
        request.head_bytes
    }

    /// The head of the answer has come, or nothing does. Returns the connection that [`begin`](Lines::begin)
    /// asked for.
    pub fn end(&self) -> Option<Arc<Line>> {
        lock(&self.requests).remove(&thread_id()).and_then(|request| request.line)
    }

    /// Connections made so far.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Bytes of bodies that were copied on their way.
    #[cfg(test)]
    pub fn copied_bytes(&self) -> u64 {
        self.copied_bytes.load(Ordering::Relaxed)
    }

    fn line_of(&self, output: &[u8]) -> Option<Arc<Line>> {
        let (address, bytes) = (output.as_ptr().addr(), output.len());
        let buffers = lock(&self.buffers);
        let own = buffers.iter().find(|own| own.address == address && own.bytes == bytes);
        own.map(|own| own.line.clone())
    }
}

/// A request's body, as the agent reads it.
pub(super) struct BodySource<'a> {
    lines: &'a Lines,
    piece: &'a [u8],
    more: &'a [&'a [u8]],
    limits: Limits,
}

impl<'a> BodySource<'a> {
    pub fn new(lines: &'a Lines, body: Body<'a>, limits: Limits) -> BodySource<'a> {
        BodySource { lines, piece: body.first, more: body.more, limits }
    }
}

impl Read for BodySource<'_> {
    /// Fills `output`, or sends that much where `output` is a connection's announced buffer.
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let Some((piece, more)) = self.more.split_first() else { return Ok(0) };
            (self.piece, self.more) = (piece, more);
        }
        let most = &self.piece[..self.piece.len().min(output.len())];
        let moved = match self.lines.line_of(output) {
            Some(line) => {
                let sent = line.send_some(most, &self.limits)?;
                line.sent(sent);
                sent
            }
            None => {
                output[..most.len()].copy_from_slice(most);
                self.lines.copied_bytes.fetch_add(most.len() as u64, Ordering::Relaxed);
                most.len()
            }
        };
        self.piece = &self.piece[moved..];
        Ok(moved)
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("opened", &self.opened()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::http::test_server::{pattern, serve};
    use std::sync::mpsc;
    use std::time::Duration;

    fn limits() -> Limits {
        Limits { idle_timeout: Some(Duration::from_secs(30)), until: None }
    }

    /// A line with an announced buffer of stale bytes, and all that its server gets.
    fn line(output: &[u8]) -> (Lines, Arc<Line>, mpsc::Receiver<Vec<u8>>) {
        let (sender, received) = mpsc::channel();
        let address = serve(move |mut stream, _| {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all);
            sender.send(all).unwrap();
        });
        let lines = Lines::default();
        let line = lines.open(&[address], None, output).unwrap();
        (lines, line, received)
    }

    #[test]
    fn bytes_of_a_buffer_that_was_not_filled_never_go_out() {
        for amount in [0, 1, 999, 1001, 5000] {
            let mut output = vec![b'!'; 5000];
            let (lines, line, received) = line(&output);
            let body = pattern(1000, 7);
            let mut source = BodySource::new(&lines, Body::of(&body), limits());
            assert_eq!(source.read(&mut output).unwrap(), 1000);
            assert!(output.iter().all(|byte| *byte == b'!'));
            assert!(line.transmit(&output, amount, &limits()).is_err(), "{amount}");
            assert!(!line.is_fit());
            assert!(line.transmit(&output, 10, &limits()).is_err(), "a failed line sends on");
            lines.close(&line);
            drop((source, line));
            assert!(received.recv().unwrap() == body);
        }
    }

    /// A panic on the way skips the end of a request; the thread goes on with others.
    #[test]
    fn a_request_that_never_ended_leaves_nothing_to_the_next() {
        let output = vec![0; 5000];
        let (lines, line, _received) = line(&output);
        lines.begin(true, None);
        lines.begin(false, None);
        lines.sends_by(&line);
        assert!(!line.has_wish());
        assert!(lines.end().is_none());
    }

    #[test]
    fn only_a_whole_announced_buffer_is_passed_by() {
        let mut output = vec![0; 5000];
        let (lines, line, received) = line(&output);
        let body = pattern(4000, 7);
        let mut source = BodySource::new(&lines, Body::of(&body), limits());
        assert_eq!(source.read(&mut output[..1000]).unwrap(), 1000);
        assert_eq!(source.read(&mut output[1..1001]).unwrap(), 1000);
        assert_eq!(source.read(&mut vec![0; 1000]).unwrap(), 1000);
        assert_eq!(lines.copied_bytes(), 3000);
        lines.close(&line);
        assert_eq!(source.read(&mut output).unwrap(), 1000);
        assert_eq!(lines.copied_bytes(), 4000);
        assert!(output[..1000] == body[3000..]);
        drop(line);
        assert!(received.recv().unwrap().is_empty());
    }
}
