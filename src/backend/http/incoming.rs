//! The body of an answer on its way to where it is wanted.

use std::io::{self, Read};

use crate::backend::http::past::Past;
use crate::backend::http::{Answer, Sink, Stage, TransportError};
use crate::limits::{ERROR_ANSWER_BYTES_MAX, RECEIVE_STEP_BYTES};

/// A body that is being read. What is not read to its end takes its connection with it.
pub(super) struct Incoming<'a, R> {
    reader: R,
    /// What an error of the reader means.
    broken: &'a dyn Fn(io::Error) -> TransportError,
    progress: Option<&'a dyn Fn()>,
    past: Option<Past>,
}

impl<'a, R: Read> Incoming<'a, R> {
    /// Called when the head of the answer has come; `past` if its body goes past `reader`.
    pub fn new(
        reader: R,
        broken: &'a dyn Fn(io::Error) -> TransportError,
        progress: Option<&'a dyn Fn()>,
        past: Option<Past>,
    ) -> Incoming<'a, R> {
        let incoming = Incoming { reader, broken, progress, past };
        tell(progress);
        incoming
    }

    /// Reads the body into `sink`, or into `answer` if that is an error's.
    pub fn take(
        mut self,
        mut answer: Answer,
        declared_bytes: Option<u64>,
        sink: Sink<'_>,
    ) -> Result<Answer, TransportError> {
        if answer.status.as_u16() >= 300 {
            // A status is an answer, also where no more than the beginning of its text came.
            let _ = self.collect(&mut answer.body, ERROR_ANSWER_BYTES_MAX, declared_bytes);
            return Ok(answer);
        }
        let bytes_max = match &sink {
            Sink::Collect { bytes_max } => *bytes_max,
            Sink::Into(memory) => memory.len(),
        };
        if declared_bytes.is_some_and(|bytes| bytes > bytes_max as u64) {
            return Err(too_long(bytes_max));
        }
        match sink {
            Sink::Collect { .. } => self.collect(&mut answer.body, bytes_max, declared_bytes)?,
            Sink::Into(memory) => answer.filled_bytes = self.fill(memory)?,
        }
        Ok(answer)
    }

    fn collect(
        &mut self,
        target: &mut Vec<u8>,
        bytes_max: usize,
        declared_bytes: Option<u64>,
    ) -> Result<(), TransportError> {
        let mut filled = target.len();
        let outcome = loop {
            if filled >= bytes_max {
                break self.end(bytes_max);
            }
            if filled == target.len() {
                // No more room than the answer needs, and at least for the byte that must not come.
                let left =
                    declared_bytes.map_or(usize::MAX, |all| (all as usize).saturating_sub(filled));
                let step = left.clamp(1, RECEIVE_STEP_BYTES).min(bytes_max - filled);
                target.resize(filled + step, 0);
            }
            match self.read(&mut target[filled..]) {
                Ok(0) => break Ok(()),
                Ok(came) => filled += came,
                Err(error) => break Err(error),
            }
        };
        target.truncate(filled);
        outcome
    }

    fn fill(&mut self, target: &mut [u8]) -> Result<usize, TransportError> {
        let mut filled = 0;
        if let Some(past) = self.past.take() {
            // No longer than the target: that was looked at.
            filled = past.body_bytes() as usize;
            let tell = || tell(self.progress);
            past.fill(&mut self.reader, &mut target[..filled], &tell).map_err(self.broken)?;
            return self.end(filled).map(|()| filled);
        }
        while filled < target.len() {
            match self.read(&mut target[filled..])? {
                0 => return Ok(filled),
                bytes => filled += bytes,
            }
        }
        self.end(filled).map(|()| filled)
    }

    /// The end has to be seen: only then is the connection free for the next request.
    fn end(&mut self, bytes_max: usize) -> Result<(), TransportError> {
        match self.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(too_long(bytes_max)),
        }
    }

    fn read(&mut self, target: &mut [u8]) -> Result<usize, TransportError> {
        let bytes = self.reader.read(target).map_err(self.broken)?;
        if bytes > 0 {
            tell(self.progress);
        }
        Ok(bytes)
    }
}

fn tell(progress: Option<&dyn Fn()>) {
    if let Some(progress) = progress {
        progress();
    }
}

fn too_long(bytes_max: usize) -> TransportError {
    let detail = format!("the answer is longer than {bytes_max} bytes");
    TransportError { stage: Stage::Receive, timed_out: false, detail }
}
