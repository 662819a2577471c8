//! One error type: what failed, where, how often it was tried, and what the user can do.
//!
//! An error is matched by its [`ErrorKind`], never by its text. No dependency's error type is
//! public; causes are reachable through [`std::error::Error::source`].

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// `Result` with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The object, checkpoint, step or rank does not exist.
    NotFound,
    /// The bucket or container does not exist: nothing can be said of what is in it.
    BucketNotFound,
    /// A create-only write found an object of that name; nothing was changed.
    AlreadyExists,
    /// Another writer got in between; the operation may be repeated from its start.
    Conflict,
    /// The operating system or the server refused access.
    PermissionDenied,
    /// The medium is full, or a quota is reached.
    NoSpace,
    /// An argument, URI, key or configuration value is not usable as given.
    InvalidInput,
    /// The medium, the scheme or the format version cannot do what was asked
    /// (for example `DirectPolicy::Require` on tmpfs).
    Unsupported,
    /// Bytes read are not the bytes that were written: a checksum differs.
    ChecksumMismatch,
    /// A manifest, receipt or pointer is truncated, not JSON, contradictory, or points outside its base.
    Corrupt,
    /// Parts of a checkpoint are missing: shards, receipts or ranks.
    Incomplete,
    /// No progress within the configured timeout (`ConfigBuilder::timeout`).
    TimedOut,
    /// The server could not be reached, or stayed overloaded or broken, through all attempts.
    Unavailable,
    /// A bound of the configuration was reached (`open_writers_max`, `memory_bytes_max`).
    LimitExceeded,
    /// The operation was cancelled by its caller.
    Cancelled,
    /// A job panicked in an I/O thread; the pool lives on.
    Panicked,
    /// Any other failure of the medium (EIO and the like). Never retried on a local disk.
    Io,
}

/// The error of every fallible call of this crate.
///
/// ```
/// use syncline::{store_for_uri, ErrorKind};
/// let store = store_for_uri("mem://errors").unwrap();
/// let error = store.get("mem://errors/absent").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert_eq!(error.uri(), Some("mem://errors/absent"));
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    uri: Option<String>,
    part: Option<u64>,
    attempts: u32,
    elapsed: Option<Duration>,
    detail: String,
    remedy: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync + 'static>>,
}

impl Error {
    /// A new error of `kind`, raised by `operation` (a verb phrase such as `"open"`), with what was found.
    pub(crate) fn new(
        kind: ErrorKind,
        operation: &'static str,
        detail: impl Into<String>,
    ) -> Error {
        Error(Box::new(Inner {
            kind,
            operation,
            uri: None,
            part: None,
            attempts: 1,
            elapsed: None,
            detail: detail.into(),
            remedy: None,
            source: None,
        }))
    }

    /// An operating system error, classified here and nowhere else.
    pub(crate) fn from_io(operation: &'static str, source: io::Error) -> Error {
        let (kind, remedy) = classify(&source);
        let mut error = Error::new(kind, operation, source.to_string());
        error.0.remedy = remedy.map(str::to_owned);
        error.0.source = Some(Arc::new(source));
        error
    }

    /// An invalid argument.
    pub(crate) fn invalid(operation: &'static str, detail: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidInput, operation, detail)
    }

    pub(crate) fn with_uri(mut self, uri: impl Into<String>) -> Error {
        self.0.uri.get_or_insert_with(|| uri.into());
        self
    }

    pub(crate) fn with_part(mut self, part: u64) -> Error {
        self.0.part.get_or_insert(part);
        self
    }

    pub(crate) fn with_elapsed(mut self, elapsed: Duration) -> Error {
        self.0.elapsed.get_or_insert(elapsed);
        self
    }

    /// Puts the place where it was found before what was found.
    pub(crate) fn with_place(mut self, place: &str) -> Error {
        self.0.detail = format!("{place}: {}", self.0.detail);
        self
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Error {
        self.0.kind = kind;
        self
    }

    /// Adds what the first of several attempts failed of, where the last failed of something else.
    pub(crate) fn with_first_cause(mut self, first: &Error) -> Error {
        self.0.detail = format!("{} (at first: {})", self.0.detail, first.0.detail);
        self
    }

    /// What was found.
    pub(crate) fn detail(&self) -> &str {
        &self.0.detail
    }

    pub(crate) fn with_attempts(mut self, attempts: u32) -> Error {
        self.0.attempts = attempts;
        self
    }

    pub(crate) fn with_remedy(mut self, remedy: impl Into<String>) -> Error {
        self.0.remedy = Some(remedy.into());
        self
    }

    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Error {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// What went wrong, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operation that failed, such as `"write part"` or `"commit"`.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The object, directory or base the operation was about.
    pub fn uri(&self) -> Option<&str> {
        self.0.uri.as_deref()
    }

    /// The 0-based index of the part, or of the checksum block, where one failed.
    pub fn part(&self) -> Option<u64> {
        self.0.part
    }

    /// How often the operation was tried.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// How long the operation ran before it failed, where that was measured.
    pub fn elapsed(&self) -> Option<Duration> {
        self.0.elapsed
    }

    /// What the user can do about it, where there is something.
    pub fn remedy(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.0;
        f.write_str(e.operation)?;
        if let Some(part) = e.part {
            write!(f, " (part {part})")?;
        }
        if let Some(uri) = &e.uri {
            write!(f, " {uri}")?;
        }
        write!(f, ": {}", e.detail)?;
        if e.attempts > 1 {
            write!(f, " (tried {} times)", e.attempts)?;
        }
        if let Some(elapsed) = e.elapsed {
            write!(f, " (after {:.1} s)", elapsed.as_secs_f64())?;
        }
        match &e.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}: {self})", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|s| &**s as &(dyn StdError + 'static))
    }
}

/// For callers that speak `std::io`, such as the `io::Write` face of a writer.
impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match error.kind() {
            ErrorKind::NotFound | ErrorKind::BucketNotFound => io::ErrorKind::NotFound,
            ErrorKind::AlreadyExists => io::ErrorKind::AlreadyExists,
            ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
            ErrorKind::NoSpace => io::ErrorKind::StorageFull,
            ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::ChecksumMismatch | ErrorKind::Corrupt => io::ErrorKind::InvalidData,
            ErrorKind::Incomplete => io::ErrorKind::UnexpectedEof,
            ErrorKind::TimedOut => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

fn classify(source: &io::Error) -> (ErrorKind, Option<&'static str>) {
    use io::ErrorKind as K;
    if let Some(libc::EMFILE | libc::ENFILE) = source.raw_os_error() {
        return (ErrorKind::LimitExceeded, Some("raise the limit of open files (ulimit -n)"));
    }
    if source.raw_os_error() == Some(libc::ELOOP) {
        return (ErrorKind::InvalidInput, Some("a symbolic link of the path leads back to itself"));
    }
    if let Some(libc::EIO) = source.raw_os_error() {
        let remedy = "the disk or its filesystem fails: see the kernel's log, and use another base";
        return (ErrorKind::Io, Some(remedy));
    }
    match source.kind() {
        K::NotFound => (ErrorKind::NotFound, None),
        K::AlreadyExists => (ErrorKind::AlreadyExists, None),
        K::PermissionDenied => {
            (ErrorKind::PermissionDenied, Some("check the owner and mode of the path"))
        }
        K::ReadOnlyFilesystem => {
            (ErrorKind::PermissionDenied, Some("the filesystem is mounted read-only"))
        }
        K::StorageFull => (ErrorKind::NoSpace, Some("free space or choose another base")),
        K::QuotaExceeded => {
            (ErrorKind::NoSpace, Some("the quota is reached: free space or raise it"))
        }
        K::FileTooLarge => {
            (ErrorKind::NoSpace, Some("the filesystem or a limit refuses files of this size"))
        }
        K::InvalidInput | K::InvalidFilename => (ErrorKind::InvalidInput, None),
        K::NotADirectory => {
            (ErrorKind::InvalidInput, Some("a part of the path is a file, not a directory"))
        }
        K::IsADirectory => {
            (ErrorKind::InvalidInput, Some("the path is a directory, not an object"))
        }
        K::Unsupported => (ErrorKind::Unsupported, None),
        K::TimedOut => (ErrorKind::TimedOut, None),
        _ => (ErrorKind::Io, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_operation_object_cause_and_remedy() {
        let error = Error::from_io("write part", io::Error::from_raw_os_error(28))
            .with_uri("file:///a/b")
            .with_part(3)
            .with_elapsed(Duration::from_millis(1500));
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        let text = error.to_string();
        for needle in ["write part (part 3)", "file:///a/b", "No space left", "1.5 s", "free space"]
        {
            assert!(text.contains(needle), "{needle} missing in {text}");
        }
    }

    #[test]
    fn system_errors_have_kinds_that_a_caller_can_act_on() {
        for (code, kind) in [
            (libc::ENOSPC, ErrorKind::NoSpace),
            (libc::EDQUOT, ErrorKind::NoSpace),
            (libc::EFBIG, ErrorKind::NoSpace),
            (libc::EROFS, ErrorKind::PermissionDenied),
            (libc::EACCES, ErrorKind::PermissionDenied),
            (libc::EPERM, ErrorKind::PermissionDenied),
            (libc::ENOTDIR, ErrorKind::InvalidInput),
            (libc::ENAMETOOLONG, ErrorKind::InvalidInput),
            (libc::ELOOP, ErrorKind::InvalidInput),
            (libc::EMFILE, ErrorKind::LimitExceeded),
            (libc::ENFILE, ErrorKind::LimitExceeded),
            (libc::EIO, ErrorKind::Io),
        ] {
            let error = Error::from_io("open", io::Error::from_raw_os_error(code));
            assert_eq!(error.kind(), kind, "{error}");
        }
    }

    #[test]
    fn the_first_place_that_knows_the_uri_wins() {
        let error = Error::invalid("open", "x").with_uri("a").with_uri("b");
        assert_eq!(error.uri(), Some("a"));
    }
}
