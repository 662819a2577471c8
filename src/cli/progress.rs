//! Progress bars: on standard error, only where that is a terminal.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::{note, printable};

/// Redraws per second: enough to look alive, too few to cost anything.
const REDRAWS_PER_SECOND: u8 = 10;

/// Makes bars, or none.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    shown: bool,
}

impl Progress {
    /// Bars are shown if `wanted` and standard error is a terminal.
    pub fn new(wanted: bool) -> Progress {
        Progress { shown: wanted && std::io::stderr().is_terminal() }
    }

    /// A bar for bytes; `total_bytes` is `None` where the end is not known.
    pub fn bar(&self, label: &str, total_bytes: Option<u64>) -> Bar {
        if !self.shown {
            return Bar::hidden();
        }
        let template = match total_bytes {
            Some(_) => {
                "{msg}  {binary_bytes} / {binary_total_bytes}  [{wide_bar}]  {binary_bytes_per_sec}  {eta} left"
            }
            None => "{msg}  {binary_bytes}  {binary_bytes_per_sec}  {elapsed}",
        };
        let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND);
        let bar = ProgressBar::with_draw_target(total_bytes, target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(printable(label));
        Bar(bar)
    }
}

/// One bar. Shared by the threads of one transfer; gone from the screen when dropped.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar that is never seen.
    pub fn hidden() -> Bar {
        Bar(ProgressBar::hidden())
    }

    /// Counts bytes that were handed over.
    pub fn add(&self, bytes: usize) {
        self.add_bytes(bytes as u64);
    }

    /// Counts bytes that were handed over.
    pub fn add_bytes(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Writes a line to standard error without tearing the bar.
    pub fn note(&self, text: &str) {
        self.0.suspend(|| note(text));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
