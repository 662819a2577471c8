//! A plain connection, and the outside of any, as the HTTP crate sees them.

use std::fmt;
use std::time::Instant;

use memmap2::{Advice, MmapMut};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, NextTimeout, Transport as Wire, time,
};

use crate::backend::http::Stage;
use crate::backend::http::handover::Lines;
use crate::backend::http::line::{Input, Limits, Line, failed};
use crate::backend::http::past::STAND_IN;
use crate::limits::{
    ANSWER_HEAD_BYTES_MAX, ANSWER_HEAD_BYTES_USUAL, RECEIVE_STEP_BYTES, SEND_STEP_BYTES,
};
use crate::sync::Arc;

/// Opens plain connections, where the chain has none yet.
#[derive(Debug)]
pub(super) struct Wires {
    pub lines: Arc<Lines>,
}

impl<In: Wire> Connector<In> for Wires {
    type Out = Either<In, PlainWire>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        if let Some(wire) = chained {
            return Ok(Some(Either::A(wire)));
        }
        let started = match details.now {
            time::Instant::Exact(now) => now,
            _ => Instant::now(),
        };
        let until = limits(details.timeout, None, started).until;
        let output = MmapMut::map_anon(SEND_STEP_BYTES)?;
        // Advice only: a head touches one page, which must not become a huge one.
        let _ = output.advise(Advice::NoHugePage);
        let line = self.lines.open(&details.addrs, until, &output)?;
        let buffers =
            WireBuffers { line: line.clone(), output, input: Input::default(), progress: false };
        Ok(Some(Either::B(PlainWire { lines: self.lines.clone(), line, buffers })))
    }
}

/// The outside of a connection, TLS or not. Here the agent's heads get what was hidden from its log, and
/// servers that never come to an end are given up: the agent itself looks at neither its time nor the size of
/// what came while there is more, and would take interim answers, trailers and a chunk's size without end.
#[derive(Debug)]
pub(super) struct Outside<T> {
    pub lines: Arc<Lines>,
    pub inside: T,
    /// Of the request's own connection, rather than of the one to a proxy below it.
    pub is_outermost: bool,
}

impl<T: Wire> Wire for Outside<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inside.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let output = self.inside.buffers().output().get_mut(..amount).unwrap_or_default();
        if self.is_outermost && !self.lines.lift(output) {
            let what = "the request's head is too long".to_owned();
            return Err(failed(Stage::Request, false, what).into());
        }
        self.inside.transmit_output(amount, timeout)
    }

    fn maybe_await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        if timeout.after.is_zero() {
            return Err(ureq::Error::Timeout(timeout.reason));
        }
        match self.buffers().can_use_input() {
            true => Ok(true),
            false => self.await_input(timeout),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let before = self.buffers().input().len();
        let awaited = self.inside.await_input(timeout)?;
        let came = self.buffers().input().len().saturating_sub(before);
        // What is there and makes no sense yet is a line without an end; below TLS it may be a record.
        let has_end = match self.is_outermost {
            true => {
                before <= ANSWER_HEAD_BYTES_MAX
                    && self.lines.came(came) <= ANSWER_HEAD_BYTES_MAX + RECEIVE_STEP_BYTES
            }
            false => before <= 8 * RECEIVE_STEP_BYTES,
        };
        match has_end {
            true => Ok(awaited),
            false => {
                let what = "the answer's head, or a line of it, has no end".to_owned();
                Err(failed(Stage::Receive, false, what).into())
            }
        }
    }

    fn is_open(&mut self) -> bool {
        self.inside.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inside.is_tls()
    }
}

fn limits(timeout: NextTimeout, idle: Option<time::Duration>, now: Instant) -> Limits {
    let exact = |duration: &time::Duration| !duration.is_not_happening();
    let after = Some(timeout.after).filter(exact);
    Limits {
        idle_timeout: idle.filter(exact).map(|idle| *idle),
        until: after.and_then(|after| now.checked_add(*after)),
    }
}

/// A connection over TCP, as the agent sees it.
#[derive(Debug)]
pub(super) struct PlainWire {
    lines: Arc<Lines>,
    line: Arc<Line>,
    /// Announced as long as this lives.
    buffers: WireBuffers,
}

impl Drop for PlainWire {
    fn drop(&mut self) {
        self.lines.close(&self.line);
    }
}

impl Wire for PlainWire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let limits = limits(timeout, timeout.per_write, Instant::now());
        self.lines.sends_by(&self.line);
        Ok(self.line.transmit(&self.buffers.output, amount, &limits)?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let limits = limits(timeout, timeout.per_read, Instant::now());
        if self.line.has_stand_in() {
            return Ok(true);
        }
        let mut room = self.buffers.input_append_buf();
        if self.line.has_wish() {
            // The less of the body comes with the head, the less is copied.
            let most = room.len().min(ANSWER_HEAD_BYTES_USUAL);
            room = &mut room[..most];
        }
        let came = self.line.receive(room, &limits)?;
        self.buffers.input_appended(came);
        let shown = self.line.shorten(self.buffers.input.bytes_mut());
        self.buffers.input.keep(shown);
        Ok(came > 0)
    }

    fn is_open(&mut self) -> bool {
        self.line.is_fit()
    }
}

/// The buffers of a plain connection. Their pages cost nothing until they are used, and those of the
/// output are hardly used: a head is small, and bodies go past it.
struct WireBuffers {
    line: Arc<Line>,
    output: MmapMut,
    input: Input,
    /// Whether the last look at the input took some of it.
    progress: bool,
}

impl Buffers for WireBuffers {
    fn output(&mut self) -> &mut [u8] {
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        if self.line.has_stand_in() { STAND_IN } else { self.input.bytes() }
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.input.free()
    }

    fn input_appended(&mut self, amount: usize) {
        self.input.filled(amount);
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        if !self.line.take_stand_in(amount) {
            self.input.consume(amount);
        }
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        (self.input.free(), &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.progress && !self.input().is_empty()
    }
}

impl fmt::Debug for WireBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireBuffers").finish_non_exhaustive()
    }
}
