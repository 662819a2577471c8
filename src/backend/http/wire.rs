//! A plain connection, as the HTTP crate sees it.

use std::fmt;
use std::time::Instant;

use memmap2::{Advice, MmapMut};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, NextTimeout, Transport as Wire, time,
};

use crate::backend::http::handover::Lines;
use crate::backend::http::line::{Input, Limits, Line};
use crate::backend::http::past::STAND_IN;
use crate::limits::{ANSWER_HEAD_BYTES_USUAL, SEND_STEP_BYTES};
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
