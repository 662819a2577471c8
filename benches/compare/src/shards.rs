//! Ours with many small objects.

use std::path::PathBuf;
use std::sync::Arc;

use syncline::{Algorithm, Config, ObjectStore, WriteOptions, open_store};

use crate::contest::Contestant;
use crate::job::{Job, Work, fill};
use crate::local::{drop_cache, path, set_aside, uri};
use crate::servers;

/// Objects that are read by one call: all that it reads is in memory when it returns.
const GET_AT_ONCE: usize = 1000;

/// All objects of a pass are written by one call, and read by few. They are all alike, as the peers' are.
pub fn shards(job: Job) -> Contestant {
    let local = matches!(job.storage.as_str(), "file" | "direct");
    let store = if local { open(&job) } else { servers::open(&job) };
    let uris: Vec<String> = (0..job.count)
        .map(|n| if local { uri(&job, n) } else { servers::uri(&job, &format!("shard-{n}")) })
        .collect();
    let mut data = vec![0; job.size_bytes as usize / job.count];
    fill(&mut data);
    let folder = PathBuf::from(if local { job.folder.as_str() } else { "" });
    match job.work {
        Work::Write => Contestant::new(move || set_aside(&folder), move || put(&*store, &uris, &data)),
        Work::Read => {
            put(&*store, &uris, &data);
            let sum = Algorithm::Crc32c.checksum(&data).to_string();
            let files: Vec<PathBuf> = (0..job.count).map(|n| path(&job, n)).collect();
            Contestant::new(
                move || {
                    if local {
                        files.iter().for_each(|file| drop_cache(file));
                    }
                },
                move || get(&*store, &uris, &sum),
            )
        }
    }
}

fn put(store: &dyn ObjectStore, uris: &[String], data: &[u8]) {
    let objects: Vec<(&str, &[u8])> = uris.iter().map(|uri| (uri.as_str(), data)).collect();
    for written in store.put_many(&objects, WriteOptions::default()) {
        written.expect("an object");
    }
}

fn get(store: &dyn ObjectStore, uris: &[String], sum: &str) {
    for some in uris.chunks(GET_AT_ONCE) {
        let objects: Vec<_> = some.iter().map(|uri| (uri.as_str(), Some(sum))).collect();
        for read in store.get_many(&objects) {
            read.expect("the object is good");
        }
    }
}

fn open(job: &Job) -> Arc<dyn ObjectStore> {
    let config = Config::builder().build().expect("settings that can be used");
    open_store(&uri(job, 0), &config).expect("a store")
}
