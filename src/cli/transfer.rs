//! Moving bytes between local files and objects, without copying them on the way.
//!
//! Files are read with `read` into the writer's own buffers, one call per part, never mapped: a file
//! that shrinks under a map would kill the process. Objects are read straight into the buffers of
//! the file's writer.

use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use syncline::{AlignedVec, ObjectStore, ObjectWriter};

use crate::failure::Failure;
use crate::output::stdout_failure;
use crate::progress::Bar;
use crate::session::Session;

/// How long a read from a pipe waits before it asks again whether to stop.
const POLL_MS: u16 = 100;

/// Bytes asked of the kernel for a pipe, so that one read brings more than 64 KiB. Source: the
/// default of /proc/sys/fs/pipe-max-size.
const PIPE_BYTES: i32 = 1 << 20;

/// Asked before every part: fails when the transfer is to stop.
pub type Check<'a> = &'a (dyn Fn() -> Result<(), Failure> + Sync);

/// A local file, a pipe or standard input, open for reading.
#[derive(Debug)]
pub struct Input {
    file: File,
    path: PathBuf,
    size_bytes: Option<u64>,
    modified: Option<SystemTime>,
}

impl Input {
    /// Opens a regular file or a pipe. A directory, a device and a socket are refused.
    pub fn open(path: &Path) -> Result<Input, Failure> {
        use std::os::unix::fs::FileTypeExt as _;
        let kind = fs::metadata(path).map_err(|e| Failure::io("open", path, &e))?.file_type();
        if kind.is_dir() {
            let path = path.display();
            return Err(Failure::Usage(format!(
                "open {path}: is a directory; name the files in it"
            )));
        }
        if !kind.is_file() && !kind.is_fifo() {
            let path = path.display();
            return Err(Failure::Usage(format!("open {path}: is neither a file nor a pipe")));
        }
        let file = File::open(path).map_err(|e| Failure::io("open", path, &e))?;
        Input::from_file(file, path)
    }

    /// Standard input, past the standard library's buffer.
    pub fn stdin() -> Result<Input, Failure> {
        let path = Path::new("standard input");
        let owned = io::stdin().as_fd().try_clone_to_owned();
        Input::from_file(owned.map_err(|e| Failure::io("open", path, &e))?.into(), path)
    }

    fn from_file(file: File, path: &Path) -> Result<Input, Failure> {
        let meta = file.metadata().map_err(|e| Failure::io("stat", path, &e))?;
        if meta.is_dir() {
            return Err(Failure::Usage(format!("read {}: is a directory", path.display())));
        }
        let size_bytes = meta.is_file().then_some(meta.len());
        if size_bytes.is_none() {
            // Fails on what is no pipe and above the user's limit; reads are then smaller.
            let _ = fcntl(&file, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        }
        let modified = meta.modified().ok();
        Ok(Input { file, path: path.to_owned(), size_bytes, modified })
    }

    /// Fails if the file is not what it was when it was opened, or gave other than all its bytes.
    pub fn check_unchanged(&self, read_bytes: u64) -> Result<(), Failure> {
        let now = self.file.metadata().map_err(|e| Failure::io("stat", &self.path, &e))?;
        let Some(size_bytes) = self.size_bytes else { return Ok(()) };
        if (now.len(), now.modified().ok()) == (size_bytes, self.modified)
            && read_bytes == size_bytes
        {
            return Ok(());
        }
        let path = self.path.display();
        Err(Failure::Other(format!(
            "read {path}: changed while it was read; save it when nothing writes to it any more"
        )))
    }

    /// Bytes of a regular file now; `None` where the end is not known.
    pub fn size_bytes(&self) -> Option<u64> {
        self.size_bytes
    }

    /// Reads once into `buffer`; 0 at the end. A pipe that stays empty does not keep a signal waiting.
    pub fn read(&mut self, buffer: &mut [u8], check: Check<'_>) -> Result<usize, Failure> {
        loop {
            check()?;
            if self.size_bytes.is_none() && !self.ready()? {
                continue;
            }
            match self.file.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done.map_err(|e| Failure::io("read", &self.path, &e)),
            }
        }
    }

    /// All of a small file, which had `size_bytes` bytes when it was looked at.
    pub fn read_whole(mut self, size_bytes: u64, check: Check<'_>) -> Result<Vec<u8>, Failure> {
        // One byte more, so that a file that has grown shows.
        let mut data = vec![0; up_to(usize::MAX - 1, size_bytes) + 1];
        let mut done = 0;
        while done < data.len() {
            match self.read(&mut data[done..], check)? {
                0 => break,
                bytes => done += bytes,
            }
        }
        self.check_unchanged(done as u64)?;
        data.truncate(done);
        Ok(data)
    }

    /// Waits a moment for bytes or the end.
    fn ready(&self) -> Result<bool, Failure> {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(POLL_MS)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(e) => Err(Failure::io("poll", &self.path, &e.into())),
        }
    }
}

/// Appends all of `input` to `writer`: each part is read into the writer's own memory.
pub fn fill(
    input: &mut Input,
    writer: &mut dyn ObjectWriter,
    check: Check<'_>,
    bar: &Bar,
) -> Result<(), Failure> {
    loop {
        let bytes = input.read(writer.reserve()?, check)?;
        if bytes == 0 {
            return Ok(());
        }
        writer.commit(bytes)?;
        bar.add(bytes);
    }
}

/// Appends the object `uri`, of `size_bytes` bytes, to `writer`: read into the writer's own memory.
pub fn copy(
    store: &dyn ObjectStore,
    uri: &str,
    size_bytes: u64,
    writer: &mut dyn ObjectWriter,
    check: Check<'_>,
    bar: &Bar,
) -> Result<(), Failure> {
    let mut offset = 0;
    while offset < size_bytes {
        check()?;
        let buffer = writer.reserve()?;
        let bytes = up_to(buffer.len(), size_bytes - offset);
        store.read_into(uri, offset, &mut buffer[..bytes])?;
        writer.commit(bytes)?;
        bar.add(bytes);
        offset += bytes as u64;
    }
    Ok(())
}

/// Writes the object `uri` to `sink`, reading with all I/O threads.
pub fn stream(session: &Session, uri: &str, sink: &mut Sink, bar: &Bar) -> Result<u64, Failure> {
    let store = session.store(uri)?;
    let size_bytes = store.stat(uri)?.size_bytes;
    let window = session.config.io_threads().saturating_mul(session.config.part_bytes());
    let mut buffer = AlignedVec::zeroed(up_to(window, size_bytes))?;
    let mut offset = 0;
    while offset < size_bytes {
        session.stop.check()?;
        let bytes = up_to(buffer.len(), size_bytes - offset);
        store.read_into(uri, offset, &mut buffer[..bytes])?;
        sink.write_all(&buffer[..bytes])?;
        bar.add(bytes);
        offset += bytes as u64;
    }
    Ok(size_bytes)
}

/// Where bytes go that cannot be replaced as a whole: standard output, a device, a pipe.
#[derive(Debug)]
pub struct Sink {
    file: File,
    /// `None` for standard output.
    path: Option<PathBuf>,
}

impl Sink {
    /// Standard output, past the standard library's buffer.
    pub fn stdout() -> Result<Sink, Failure> {
        let owned: io::Result<OwnedFd> = io::stdout().as_fd().try_clone_to_owned();
        Ok(Sink { file: owned.map_err(|e| stdout_failure(&e))?.into(), path: None })
    }

    /// A device or a pipe.
    pub fn open(path: &Path) -> Result<Sink, Failure> {
        let file = fs::OpenOptions::new().write(true).open(path);
        let file = file.map_err(|e| Failure::io("open", path, &e))?;
        Ok(Sink { file, path: Some(path.to_owned()) })
    }

    /// Whether what is written appears on a screen.
    pub fn is_terminal(&self) -> bool {
        self.file.is_terminal()
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|e| match &self.path {
            None => stdout_failure(&e),
            Some(_) if e.kind() == io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
            Some(path) => Failure::io("write", path, &e),
        })
    }
}

/// Gives a writer up after a failure, which stays the one to report.
pub fn abandon(writer: Box<dyn ObjectWriter>, failure: Failure, bar: &Bar) -> Failure {
    if let Err(error) = writer.cancel() {
        bar.note(&format!("{error}; a temporary file may remain, `syncline gc` finds it"));
    }
    failure
}

/// The smaller of a buffer's length and the bytes left.
pub fn up_to(length: usize, left_bytes: u64) -> usize {
    usize::try_from(left_bytes).map_or(length, |left| left.min(length))
}
