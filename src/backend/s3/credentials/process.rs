//! `credential_process`: a program of the user's prints the keys.

use std::io::{ErrorKind as IoKind, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::Keys;
use super::handout::parse_handout;
use crate::backend::http::{ANSWER_BYTES_MAX, Fetched, OPERATION, quote, secrets_in};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{sleep, start_program};
use crate::time::Deadline;

/// Longest that a program may take: it may have to ask a server, never a human.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Between two looks at the program.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// Bytes kept of what the program says on standard error.
const STDERR_BYTES_MAX: usize = 4096;

const REMEDY: &str = "run the profile's credential_process by hand to see what it prints";

/// Runs the command and reads its answer. `source` names the profile.
pub(super) fn run(source: &str, command: &str, deadline: &Deadline) -> Result<Fetched<Keys>> {
    let source = format!("{source}, credential_process");
    let words = split_words(command).filter(|words| !words.is_empty());
    let Some(words) = words else {
        let what = format!("{source}: the command is empty or a quote is not closed");
        return Err(Error::invalid(OPERATION, what));
    };
    // Arguments may hold secrets: errors name the program only.
    let source = format!("{source} {}", words[0]);
    let deadline = Deadline::after(deadline.remaining().min(TIMEOUT));
    let output = Program::start(&source, &words)?.finish(&source, &deadline)?;
    if output.status.is_some_and(|status| !status.success()) {
        let status = output.status.map_or_else(String::new, |status| status.to_string());
        let secrets = secrets_in(&output.stdout);
        let words = String::from_utf8_lossy(&output.stderr);
        let words = quote(&words, &secrets.iter().collect::<Vec<_>>());
        let what = format!("{source} failed ({status}): {words}");
        return Err(Error::new(ErrorKind::PermissionDenied, OPERATION, what).with_remedy(REMEDY));
    }
    parse_handout(&source, &output.stdout, Some(1)).map_err(|error| error.with_remedy(REMEDY))
}

/// Words as a shell would see them, with quotes and backslashes and nothing else; `None` where a quote is
/// not closed.
pub(super) fn split_words(command: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = command.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"'), '\\') => {
                // Within double quotes a backslash is itself unless it hides one of these.
                let hidden = chars.next_if(|next| ['"', '\\'].contains(next));
                word.get_or_insert_default().push(hidden.unwrap_or('\\'));
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => word.get_or_insert_default().push(chars.next().unwrap_or('\\')),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// A program under way. It is ended, by its own process id, if it is dropped before it has ended.
struct Program {
    child: Child,
    has_ended: bool,
}

struct Output {
    /// `None` where the host program ignores how its children end (SIGCHLD), or waits for all of them.
    status: Option<ExitStatus>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Program {
    fn start(source: &str, words: &[String]) -> Result<Program> {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = start_program(&mut command).map_err(|error| {
            Error::invalid(OPERATION, format!("{source} cannot be started: {error}"))
        })?;
        Ok(Program { child, has_ended: false })
    }

    /// Reads both of its streams until it has ended: a program whose pipe is full stands still.
    fn finish(mut self, source: &str, deadline: &Deadline) -> Result<Output> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Io, OPERATION, format!("{source}: its output: {error}"))
        };
        let mut stdout = Stream::new(self.child.stdout.take(), ANSWER_BYTES_MAX).map_err(failed)?;
        let mut stderr = Stream::new(self.child.stderr.take(), STDERR_BYTES_MAX).map_err(failed)?;
        loop {
            // Asked before the last look at the streams: what it wrote until its end is then in them.
            // An error means that somebody else has waited for it: it has ended.
            let ended = self.child.try_wait().map_or(Some(None), |status| status.map(Some));
            self.has_ended = ended.is_some();
            stdout.drain().map_err(failed)?;
            stderr.drain().map_err(failed)?;
            if stdout.overflowed {
                let what = format!("{source} prints more than {ANSWER_BYTES_MAX} bytes");
                return Err(Error::invalid(OPERATION, what).with_remedy(REMEDY));
            }
            if let Some(status) = ended {
                return Ok(Output { status, stdout: stdout.kept, stderr: stderr.kept });
            }
            if deadline.expired() {
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    OPERATION,
                    format!("{source} does not end"),
                )
                .with_elapsed(deadline.elapsed())
                .with_remedy(REMEDY));
            }
            sleep(LOOK_PAUSE.min(deadline.remaining()));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.has_ended {
            // It may have ended by itself meanwhile; then neither finds anything to do.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// One end of a pipe, read as far as there is something.
struct Stream<R> {
    /// `None` when the other end is closed.
    from: Option<R>,
    kept: Vec<u8>,
    bytes_max: usize,
    /// Whether there was more than is kept.
    overflowed: bool,
}

impl<R: Read + AsFd> Stream<R> {
    fn new(from: Option<R>, bytes_max: usize) -> std::io::Result<Stream<R>> {
        if let Some(pipe) = &from {
            let flags = fcntl_getfl(pipe)?;
            fcntl_setfl(pipe, flags | OFlags::NONBLOCK)?;
        }
        Ok(Stream { from, kept: Vec::new(), bytes_max, overflowed: false })
    }

    /// Reads what is there. At most as much as would overflow, so that a program that never stops
    /// printing cannot hold this thread here.
    fn drain(&mut self) -> std::io::Result<()> {
        let mut block = [0; 4096];
        let mut left = self.bytes_max.saturating_add(block.len());
        while left > 0
            && let Some(pipe) = &mut self.from
        {
            match pipe.read(&mut block) {
                Ok(0) => self.from = None,
                Ok(bytes) => {
                    let room = bytes.min(self.bytes_max - self.kept.len());
                    self.kept.extend_from_slice(&block[..room]);
                    self.overflowed |= room < bytes;
                    left = left.saturating_sub(bytes);
                }
                Err(error) if error.kind() == IoKind::Interrupted => {}
                Err(error) if error.kind() == IoKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        for (command, words) in [
            ("", vec![]),
            ("  a  b\tc ", vec!["a", "b", "c"]),
            (r#"a "b c" d"#, vec!["a", "b c", "d"]),
            (r"a 'b \ c' d", vec!["a", r"b \ c", "d"]),
            (r#"a"b c"d"#, vec!["ab cd"]),
            (r#""" ''"#, vec!["", ""]),
            (r#"a\ b "c\"d\e" \\"#, vec!["a b", r#"c"d\e"#, r"\"]),
            ("a $HOME `b` | c > d;", vec!["a", "$HOME", "`b`", "|", "c", ">", "d;"]),
        ] {
            assert_eq!(split_words(command).unwrap(), words, "{command}");
        }
        assert_eq!(split_words("a 'b"), None);
        assert_eq!(split_words(r#"a "b\""#), None);
    }
}
