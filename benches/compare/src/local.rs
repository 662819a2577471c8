//! Ours on local media.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use syncline::{BlockChecksums, Config, DirectPolicy, ObjectStore, WriteOptions, open_store};

use crate::contest::Contestant;
use crate::job::{Job, Work};

/// Each stream is one object; ways are those of [`write_object`] and [`read_object`].
pub fn local(job: Job) -> Contestant {
    let store = open(&job);
    let uris: Vec<String> = (0..job.streams).map(|n| uri(&job, n)).collect();
    let memory = job.memory();
    match job.work {
        Work::Write => {
            let folder = PathBuf::from(&job.folder);
            Contestant::new(
                move || clear(&folder),
                move || {
                    let size = job.stream_bytes();
                    thread::scope(|scope| {
                        for (uri, data) in uris.iter().zip(memory.chunks(size)) {
                            let (store, way) = (&*store, job.way.as_str());
                            scope.spawn(move || write_object(store, uri, data, way));
                        }
                    });
                },
            )
        }
        Work::Read => {
            let size = job.stream_bytes();
            let blocks: Vec<BlockChecksums> = uris
                .iter()
                .zip(memory.chunks(size))
                .map(|(uri, data)| {
                    write_object(&*store, uri, data, &job.way);
                    store.block_checksums(uri, store.config().part_bytes() as u64).expect("it reads")
                })
                .collect();
            let files: Vec<PathBuf> = (0..job.streams).map(|n| path(&job, n)).collect();
            let mut memory = memory;
            Contestant::new(
                move || files.iter().for_each(|file| drop_cache(file)),
                move || {
                    thread::scope(|scope| {
                        for ((uri, memory), blocks) in uris.iter().zip(memory.chunks_mut(size)).zip(&blocks) {
                            let (store, way) = (&*store, job.way.as_str());
                            scope.spawn(move || read_object(store, uri, memory, blocks, way));
                        }
                    });
                },
            )
        }
    }
}

/// `write_chunk`, `unchecked` (no checksum), `zstd:LEVEL`; otherwise `write_borrowed`.
pub fn write_object(store: &dyn ObjectStore, uri: &str, data: &[u8], way: &str) {
    let options = WriteOptions::default().size_hint_bytes(data.len() as u64);
    let options = match way {
        "unchecked" => options.checksum(None),
        _ if way.starts_with("zstd") => options.compression(way.parse().expect("a level of zstd")),
        _ => options,
    };
    let mut writer = store.get_writer_with(uri, options).expect("a writer");
    match way {
        "write_chunk" => data.chunks(1 << 20).try_for_each(|chunk| writer.write_chunk(chunk)),
        _ => writer.write_borrowed(data),
    }
    .expect("written");
    writer.finalize().expect("an object");
}

/// `unchecked` reads without verification, `fresh` too, into memory that each pass gets anew.
pub fn read_object(store: &dyn ObjectStore, uri: &str, memory: &mut [u8], blocks: &BlockChecksums, way: &str) {
    match way {
        "fresh" => return drop(store.get(uri).expect("the object is read")),
        "unchecked" => store.read_into(uri, 0, memory),
        _ => store.read_into_verified(uri, 0, memory, blocks),
    }
    .expect("the object is good");
}

fn open(job: &Job) -> Arc<dyn ObjectStore> {
    let mut config = Config::builder();
    if job.storage == "direct" {
        config = config.direct(DirectPolicy::Require);
    }
    if job.part_bytes > 0 {
        config = config.part_bytes(job.part_bytes);
    }
    if job.threads > 1 {
        config = config.io_threads(job.threads);
    }
    open_store(&uri(job, 0), &config.build().expect("settings that can be used")).expect("a store")
}

pub fn uri(job: &Job, number: usize) -> String {
    match job.storage.as_str() {
        "mem" => format!("mem://compare/{number}"),
        scheme => format!("{scheme}://{}", path(job, number).display()),
    }
}

pub fn path(job: &Job, number: usize) -> PathBuf {
    Path::new(&job.folder).join(format!("object-{number}"))
}

/// Removes what an earlier pass left, and waits until that is settled.
pub fn clear(folder: &Path) {
    if folder.as_os_str().is_empty() {
        return;
    }
    for entry in fs::read_dir(folder).expect("the folder is there").flatten() {
        match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        }
        .expect("it can be removed");
    }
    File::open(folder).and_then(|folder| folder.sync_all()).expect("the folder is synced");
}

/// The same where a pass makes many files: they are set aside in a folder beside it, since a filesystem may
/// search for long where many were just removed. The harness removes all of it in the end.
pub fn set_aside(folder: &Path) {
    if folder.as_os_str().is_empty() || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none()) {
        return;
    }
    let free = (0..).map(|n| folder.with_extension(format!("aside-{n}"))).find(|path| !path.exists());
    fs::rename(folder, free.expect("a name is free")).expect("it can be set aside");
    fs::create_dir(folder).expect("a new folder");
    let parent = folder.parent().expect("a folder of the harness");
    File::open(parent).and_then(|parent| parent.sync_all()).expect("the folder is synced");
}

/// Takes a file out of the page cache.
pub fn drop_cache(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("the kernel drops pages");
}
