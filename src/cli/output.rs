//! What a command says on standard output: a table for people or one JSON document for machines.

use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::failure::Failure;

/// Standard output, in the form the user chose.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Prints JSON if `json`, else text.
    pub fn new(json: bool) -> Output {
        Output { json }
    }

    /// Whether the user asked for JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints `value`, or the text made by `text`, which brings its own line ends.
    ///
    /// # Errors
    /// `ClosedPipe` if nobody reads; what the system reports.
    pub fn print(&self, value: Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { write_stdout(&format!("{value:#}\n")) } else { write_stdout(&text()) }
    }
}

/// A line on standard error, in the command's name.
pub fn note(text: &str) {
    eprintln!("syncline: {}", printable(text));
}

/// Line ends are the command's own. What else drives a terminal came from a name or a message: JSON escapes
/// some of it already, and takes the rest in the same form.
fn write_stdout(text: &str) -> Result<(), Failure> {
    let text = tamed(text);
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|e| stdout_failure(&e))
}

/// What a failed write to standard output means.
pub fn stdout_failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
        _ => Failure::Other(format!("write standard output: {error}")),
    }
}

/// A table: text to the left, numbers to the right, two blanks between columns.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    header: bool,
}

/// A column's heading and which side its cells keep to.
#[derive(Debug, Clone, Copy)]
pub enum Column {
    /// Flush left, for text.
    Left(&'static str),
    /// Flush right, for numbers.
    Right(&'static str),
}

impl Column {
    fn heading(self) -> &'static str {
        match self {
            Column::Left(heading) | Column::Right(heading) => heading,
        }
    }
}

impl Table {
    /// An empty table with a heading line.
    pub fn new(columns: impl Into<Vec<Column>>) -> Table {
        Table { columns: columns.into(), rows: Vec::new(), header: true }
    }

    /// Without the heading line.
    pub fn headless(mut self) -> Table {
        self.header = false;
        self
    }

    /// Appends a row; one cell per column.
    pub fn row(&mut self, cells: impl Into<Vec<String>>) {
        let cells: Vec<String> = cells.into();
        assert_eq!(cells.len(), self.columns.len(), "one cell per column");
        self.rows.push(cells.iter().map(|cell| printable(cell)).collect());
    }

    /// The lines, each with its line end and no trailing blanks.
    pub fn render(&self) -> String {
        let headings: Vec<String> = self.columns.iter().map(|c| c.heading().to_owned()).collect();
        let lines = || self.header.then_some(&headings).into_iter().chain(&self.rows);
        let width = |index: usize| lines().map(|row| row[index].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for row in lines() {
            let mut line = String::new();
            for ((cell, column), width) in row.iter().zip(&self.columns).zip(&widths) {
                let pad = " ".repeat(width - cell.chars().count());
                match column {
                    Column::Left(_) => line.extend([cell, pad.as_str(), "  "]),
                    Column::Right(_) => line.extend([pad.as_str(), cell, "  "]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// `text` on one line, with what drives a terminal escaped, so that a name cannot.
pub fn printable(text: &str) -> String {
    escaped(text, |c| drives_terminal(c) || c == '\n')
}

/// The same of text of several lines.
fn tamed(text: &str) -> String {
    escaped(text, drives_terminal)
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        // As JSON has it. All of these are of the first plane.
        if is_escaped(c) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)))
        } else {
            out.push(c)
        }
        out
    })
}

/// Control characters, and those that end a line or turn the direction in which it is read.
fn drives_terminal(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && c != '\n') || turns
}

/// Bytes for people: `1.5 GiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A moment for people, to the second, in UTC; `-` where it is unknown.
pub fn human_time(time: Option<SystemTime>) -> String {
    time.and_then(|time| jiff::Timestamp::try_from(time).ok())
        .map_or_else(|| "-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// A moment for machines: RFC 3339; null where it is unknown.
pub fn json_time(time: Option<SystemTime>) -> Value {
    time.and_then(|time| jiff::Timestamp::try_from(time).ok())
        .map_or(Value::Null, |time| Value::String(time.to_string()))
}

/// Reads a duration: a number with a unit, `s`, `m`, `h` or `d`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration; write for example 90s, 30m, 24h or 7d");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit_secs: u64 = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(unit_secs).map(Duration::from_secs).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (3 << 29, "1.5 GiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for bad in ["", "h", "-1s", "1w", "1.5h", "99999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tables_align_and_escape() {
        let mut table = Table::new([Column::Left("NAME"), Column::Right("BYTES")]);
        table.row(["a\x1b[31m".to_owned(), "1".to_owned()]);
        table.row(["b".to_owned(), "1000".to_owned()]);
        assert_eq!(table.render(), "NAME         BYTES\na\\u001b[31m      1\nb             1000\n");
    }

    #[test]
    fn nothing_drives_the_terminal() {
        let odd: String = ('\u{0}'..='\u{20ff}').chain(['\u{feff}', '\u{1f980}']).collect();
        for text in [printable(&odd), tamed(&odd).replace('\n', "")] {
            assert!(!text.chars().any(char::is_control));
            for turning in ['\u{202e}', '\u{2066}', '\u{2028}', '\u{200f}'] {
                assert!(!text.contains(turning));
            }
            assert!(
                text.contains("\\u001b") && text.contains("\\u009b") && text.contains('\u{e9}')
            );
        }
        // What JSON leaves as it is becomes what JSON reads again.
        let value = Value::String(odd);
        let printed = tamed(&value.to_string());
        assert_eq!(serde_json::from_str::<Value>(&printed).ok(), Some(value));
    }
}
