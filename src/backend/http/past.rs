//! The way of an answer's body past the agent's buffers, into the memory where it is wanted.
//!
//! The agent would receive it into the input buffer of its connection, go through it for its log, and copy
//! it. On a plain connection the head that has come is shown to the agent with a body of one byte: the rest
//! is received here, straight into its place, and then the agent reads a stand-in for that one byte, which
//! tells it that the connection is free. What is not all there at once, not so long that it matters, or not
//! told by one plain length is left as it is, and goes the usual way.

use std::io::{self, ErrorKind, Read};

use crate::backend::http::line::{Limits, Line};
use crate::sync::Arc;

/// What the agent reads for a body that went past it.
pub(super) const STAND_IN: &[u8] = b"-";

/// Shorter bodies are copied: most of them has come with the head.
const BODY_BYTES_MIN: u64 = 256 * 1024;

/// A body that goes past the agent.
pub(super) struct Past {
    line: Arc<Line>,
    limits: Limits,
    /// What came of it with the head.
    first: Vec<u8>,
    body_bytes: u64,
}

impl Past {
    /// The body of the answer whose head has just come by `line`, if it goes past the agent.
    pub fn of(line: Option<Arc<Line>>, limits: Limits) -> Option<Past> {
        let line = line?;
        let (body_bytes, first) = line.take_shortened()?;
        Some(Past { line, limits, first, body_bytes })
    }

    /// Bytes of the body, as the server declared them.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Receives all of the body, which `target` is as long as, and lets the agent's `reader` count it.
    pub fn fill(
        mut self,
        reader: &mut impl Read,
        target: &mut [u8],
        tell: &dyn Fn(),
    ) -> io::Result<()> {
        let mut filled = self.first.len();
        target[..filled].copy_from_slice(&std::mem::take(&mut self.first));
        while filled < target.len() {
            match self.line.receive(&mut target[filled..], &self.limits)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                came => filled += came,
            }
            tell();
        }
        self.line.put_stand_in();
        reader.read_exact(&mut [0; STAND_IN.len()])
    }
}

/// Changes the head at the start of `came` to that of a body as long as [`STAND_IN`]. Returns the length of
/// the head and that of the body as it was told; `None` where the answer has to go the usual way.
///
/// Source: RFC 9112, sections 4, 5 and 6.
pub(super) fn shorten(came: &mut [u8]) -> Option<(usize, u64)> {
    let head_bytes = came.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = came[..head_bytes].to_ascii_lowercase();
    // Of the other successes some have no body, whatever their length.
    if !head.starts_with(b"http/1.1 200 ") && !head.starts_with(b"http/1.1 206 ") {
        return None;
    }
    let mut told = None;
    let mut at = 0;
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        // The agent takes a bare line feed for the end of a line, and two for that of the head.
        if !line.ends_with(b"\r\n") {
            return None;
        }
        if line.starts_with(b"transfer-encoding") || line.starts_with(b"content-encoding") {
            return None;
        }
        if line.starts_with(b"content-length") {
            let digits = digits(line, b"content-length:".len())?;
            // Told twice, it is the agent's to judge.
            if told.replace(at + digits.start..at + digits.end).is_some() {
                return None;
            }
        }
        at += line.len();
    }
    let place = told?;
    let body_bytes: u64 = str::from_utf8(&came[place.clone()]).ok()?.parse().ok()?;
    if body_bytes < BODY_BYTES_MIN {
        return None;
    }
    let last = place.end - 1;
    came[place].fill(b'0');
    came[last] = b'0' + STAND_IN.len() as u8;
    Some((head_bytes, body_bytes))
}

/// Where the digits of a line are, which holds nothing else behind `start` but white space.
fn digits(line: &[u8], start: usize) -> Option<std::ops::Range<usize>> {
    let value = line.get(start..)?;
    let trimmed = value.trim_ascii_start();
    let start = start + (value.len() - trimmed.len());
    let digits = trimmed.trim_ascii_end();
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    // The colon has to stand right behind the name.
    (all_digits && line[..start].contains(&b':')).then(|| start..start + digits.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shortened(head: &str) -> Option<(String, u64)> {
        let mut bytes = head.as_bytes().to_vec();
        let found = shorten(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        if found.is_none() {
            assert_eq!(text, head);
        }
        found.map(|(head_bytes, body_bytes)| (text[..head_bytes].to_owned(), body_bytes))
    }

    #[test]
    fn a_long_body_is_shown_as_one_byte() {
        let head =
            "HTTP/1.1 206 Partial Content\r\nETag: \"e\"\r\ncontent-LENGTH:  8388608 \r\n\r\n";
        let (text, body_bytes) = shortened(&format!("{head}the body")).unwrap();
        assert_eq!(text, head.replace("8388608", "0000001"));
        assert_eq!(body_bytes, 8 << 20);
    }

    #[test]
    fn what_is_not_plain_goes_the_usual_way() {
        let long = "Content-Length: 8388608\r\n";
        for head in [
            format!("HTTP/1.1 200 OK\r\n{long}"),
            "HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n".to_owned(),
            format!("HTTP/1.1 204 No Content\r\n{long}\r\n"),
            format!("HTTP/1.1 404 Not Found\r\n{long}\r\n"),
            format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n{long}\r\n"),
            format!("HTTP/1.0 200 OK\r\n{long}\r\n"),
            format!("HTTP/1.1 200 OK\r\n{long}{long}\r\n"),
            format!("HTTP/1.1 200 OK\r\n{long}Transfer-Encoding: chunked\r\n\r\n"),
            format!("HTTP/1.1 200 OK\r\n{long}Content-Encoding: gzip\r\n\r\n"),
            "HTTP/1.1 200 OK\r\nContent-Length: 8388608, 8388608\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nContent-Length : 8388608\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nContent-Length: +8388608\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n".to_owned(),
        ] {
            assert_eq!(shortened(&head), None, "{head:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_but_digits_of_the_length_is_changed(
            lines in prop::collection::vec("(?i)(content-length ?: ?[0-9]{1,21} ?|[a-z-]{1,12}: .{0,20}|.{0,30})", 0..6),
            body in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut came = b"HTTP/1.1 200 OK\r\n".to_vec();
            lines.iter().for_each(|line| came.extend(format!("{line}\r\n").bytes()));
            came.extend(b"\r\n");
            came.extend(&body);
            let before = came.clone();
            match shorten(&mut came) {
                None => prop_assert_eq!(came, before),
                Some((head_bytes, body_bytes)) => {
                    let text = body_bytes.to_string();
                    let changed: Vec<usize> = (0..came.len()).filter(|at| came[*at] != before[*at]).collect();
                    prop_assert!(changed.iter().all(|at| *at < head_bytes && before[*at].is_ascii_digit()));
                    prop_assert!(changed.len() <= 21);
                    let told = String::from_utf8_lossy(&before[..head_bytes]).to_lowercase();
                    prop_assert!(told.contains("content-length") && told.contains(&text));
                }
            }
        }
    }
}
