//! Children of a real fork, and what becomes of them.

use std::io::{PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Longest that a child may take: beyond it, it hangs.
const CHILD_TIMEOUT: Duration = Duration::from_secs(90);

/// A child at work.
pub struct Child {
    process: libc::pid_t,
    said: PipeReader,
}

/// What a child says of its way, for the case that it does not come back.
pub struct Steps(std::io::PipeWriter);

impl Steps {
    pub fn at(&mut self, step: &str) {
        let _ = self.0.write_all(format!("{step}; ").as_bytes());
    }
}

/// Forks; the child does this and ends, without what its parent set up for its own end. A panic is told.
pub fn in_child(act: impl FnOnce(&mut Steps)) -> Child {
    let (said, saying) = std::io::pipe().unwrap();
    // SAFETY: the child runs code of this crate and its tests alone. libc's own locks are free in a child, and
    // of other threads' locks none is waited for: that is what is tested.
    let process = unsafe { libc::fork() };
    assert!(process >= 0, "{}", std::io::Error::last_os_error());
    if process > 0 {
        return Child { process, said };
    }
    let mut steps = Steps(saying);
    let outcome = catch_unwind(AssertUnwindSafe(|| act(&mut steps)));
    if let Err(panic) = &outcome {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        steps.at(text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic"));
    }
    // SAFETY: ends the child here.
    unsafe { libc::_exit(i32::from(outcome.is_err())) }
}

impl Child {
    /// Waits for the child, which must end well, and in time.
    pub fn ends_well(mut self) {
        let started = Instant::now();
        let mut status = 0;
        loop {
            // SAFETY: asks for the child made above and writes to a local.
            let ended = unsafe { libc::waitpid(self.process, &raw mut status, libc::WNOHANG) };
            if ended == self.process {
                break;
            }
            assert_eq!(ended, 0, "{}", std::io::Error::last_os_error());
            if started.elapsed() > CHILD_TIMEOUT {
                // SAFETY: ends the child made above, which has not been waited for.
                unsafe { libc::kill(self.process, libc::SIGKILL) };
                panic!("the child hangs after: {}", self.said());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        assert_eq!(status, 0, "the child failed: {}", self.said());
    }

    /// Also while other processes that were forked meanwhile hold the pipe open.
    fn said(&mut self) -> String {
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(self.said.as_fd(), nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
        let mut said = vec![0; 64 * 1024];
        let count = self.said.read(&mut said).unwrap_or(0);
        String::from_utf8_lossy(&said[..count]).into_owned()
    }
}
