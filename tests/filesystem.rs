//! Odd things that stand where objects should: links, pipes, directories, names too long, limits.

mod support;

use std::os::unix::fs::{FileTypeExt, symlink};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use support::{noise, small};
use syncline::{Config, ErrorKind, ObjectStore, WriteOptions, open_store};

fn store() -> (tempfile::TempDir, Arc<dyn ObjectStore>, String) {
    let directory = tempfile::tempdir().unwrap();
    let base = format!("file://{}", directory.path().to_str().unwrap());
    let store = open_store(&base, &small().build().unwrap()).unwrap();
    (directory, store, base)
}

#[test]
fn a_pipe_is_not_replaced_by_an_object() {
    let (directory, store, base) = store();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let error = store.put(&format!("{base}/pipe"), b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(std::fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
}

#[test]
fn a_link_to_a_directory_is_not_replaced_by_an_object() {
    let (directory, store, base) = store();
    let link = directory.path().join("link");
    std::fs::create_dir(directory.path().join("directory")).unwrap();
    symlink("directory", &link).unwrap();
    let error = store.put(&format!("{base}/link"), b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(std::fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
}

#[test]
fn a_name_too_long_is_refused_before_the_writing() {
    let (_directory, store, base) = store();
    for name in ["x".repeat(256), "y/".repeat(2100) + "z"] {
        let error = store.get_writer(&format!("{base}/{name}")).err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

#[test]
fn an_object_is_no_orphan() {
    let (_directory, store, base) = store();
    let uri = format!("{base}/object");
    store.put(&uri, b"x").unwrap();
    assert!(store.orphans(&uri, Duration::ZERO).unwrap().is_empty());
    let mut writer = store.get_writer(&uri).unwrap();
    writer.write_chunk(b"y").unwrap();
    let unfinished = store.orphans(&base, Duration::ZERO).unwrap().remove(0);
    assert_eq!(store.list(&unfinished.uri).unwrap().count(), 0, "an unfinished upload is listed");
}

#[test]
fn a_prefix_that_is_a_link_is_emptied() {
    let (directory, store, base) = store();
    std::fs::create_dir(directory.path().join("real")).unwrap();
    symlink("real", directory.path().join("base")).unwrap();
    store.put(&format!("{base}/base/a/b"), b"x").unwrap();
    assert_eq!(store.delete_prefix(&format!("{base}/base")).unwrap(), 1);
}

/// What cannot be looked at is not empty: it is not known to hold no objects, and no leftovers.
#[test]
fn a_base_that_cannot_be_looked_at_is_an_error() {
    let (directory, store, base) = store();
    symlink("loop", directory.path().join("loop")).unwrap();
    let place = format!("{base}/loop");
    assert!(store.list(&place).unwrap().next().unwrap().is_err());
    let error = store.orphans(&place, Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

/// One thread, one place in the queue, one writer, and parts that are no power of two: hints that are
/// wrong in either direction cost speed and never bytes.
#[test]
fn odd_part_sizes_and_wrong_hints_lose_nothing() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let part = 17 * 4096;
    let few = Config::builder().part_bytes(part).io_threads(1).queue_depth_parts(1);
    let config = few.open_writers_max(1).build().unwrap();
    for scheme in ["file", "direct"] {
        let uri = format!("{scheme}://{}/object", directory.path().to_str().unwrap());
        let store = open_store(&uri, &config).unwrap();
        for size in [0, 513, part - 1, part + 1, (2 << 20) + 77] {
            let exact = size as u64;
            for hint in [None, Some(0), Some(exact), Some(2 << 20), Some(1 << 33), Some(u64::MAX)] {
                let data = noise(size, exact);
                let mut options = WriteOptions::default();
                options.size_hint_bytes = hint;
                let mut writer = store.get_writer_with(&uri, options).unwrap();
                let (copied, lent) = data.split_at(size / 3);
                writer.write_chunk(copied).unwrap();
                writer.write_borrowed(lent).unwrap();
                if store.exists(&uri).unwrap() {
                    store.get(&uri).unwrap();
                }
                let sum = writer.checksum().unwrap();
                assert_eq!(writer.finalize().unwrap().size_bytes, exact);
                assert_eq!(store.get_with_validation(&uri, &sum).unwrap(), data);
            }
        }
    }
}

/// Space set aside beyond the file's end must not run into a limit that the file keeps.
#[test]
fn a_limit_on_file_sizes_is_an_error_and_kills_nobody() {
    if let Ok(base) = std::env::var("FILESYSTEM_TEST_BASE") {
        let config = Config::builder().part_bytes(8 << 20).build().unwrap();
        let store = open_store(&base, &config).unwrap();
        let mut writer = store.get_writer(&format!("{base}/fits")).unwrap();
        for _ in 0..9 {
            writer.write_chunk(&vec![1; 8 << 20]).unwrap();
        }
        writer.finalize().unwrap();
        let mut writer = store.get_writer(&format!("{base}/large")).unwrap();
        let error = (0..30).find_map(|_| writer.write_chunk(&vec![1; 8 << 20]).err());
        let error = error.or_else(|| writer.finalize().err()).unwrap();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        return;
    }
    let (_directory, _, base) = store();
    let me = std::env::current_exe().unwrap();
    let status = Command::new("bash")
        .args(["-c", "ulimit -f 102400; exec \"$0\" --exact a_limit_on_file_sizes_is_an_error_and_kills_nobody"])
        .arg(me).env("FILESYSTEM_TEST_BASE", base).status().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn a_reservation_is_void_after_another_write() {
    let (_directory, store, base) = store();
    for way in 0..3 {
        let mut writer = store.get_writer(&format!("{base}/o")).unwrap();
        let reserved = writer.reserve().unwrap().len();
        match way {
            0 => writer.write_chunk(b"abc").unwrap(),
            1 => writer.write_owned(b"abc".as_slice().into()).unwrap(),
            _ => writer.write_borrowed(b"abc").unwrap(),
        }
        for bytes in [1, reserved - 3, reserved] {
            assert_eq!(writer.commit(bytes).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(writer.finalize().unwrap().size_bytes, 3);
    }
}
