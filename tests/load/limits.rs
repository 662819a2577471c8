//! More writers, and more calls, than a store or its process carries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use syncline::{Config, ConfigBuilder, ErrorKind, ObjectStore, WriteOptions, open_store};

use crate::data::noise;
use crate::in_time::in_time;
use crate::place::{Place, reaching};
use crate::{child, figures};

const WRITERS: usize = 1000;
const MEDIA: [&str; 5] = ["mem", "file", "direct", "s3", "az"];

/// Writers open at a time.
const OPEN: usize = 100;

fn open(place: &Place, config: ConfigBuilder) -> Arc<dyn ObjectStore> {
    let config = config.io_threads(2).queue_depth_parts(2);
    open_store(&place.base, &reaching(config, place.medium, &place.url).build().unwrap()).unwrap()
}

/// Parts as small as they may be: no writer here fills one.
fn small() -> ConfigBuilder {
    Config::builder().part_bytes(64 * 1024)
}

#[test]
fn a_thousand_writers_are_refused_beyond_the_limit() {
    for medium in MEDIA {
        let place = Place::new(medium);
        let store = open(&place, small().open_writers_max(OPEN));
        let uri = |n: usize| format!("{}/object-{n}", place.base);
        let mut writers = Vec::new();
        for n in 0..WRITERS {
            match store.get_writer(&uri(n)) {
                Ok(mut writer) => {
                    writer.write_chunk(format!("bytes of {n}").as_bytes()).unwrap();
                    writers.push((n, writer));
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
                    assert!(error.remedy().unwrap().contains("open_writers_max"), "{error}");
                    assert_eq!(error.uri(), Some(&*uri(n)));
                }
            }
        }
        assert_eq!(writers.len(), OPEN, "{medium}");
        // As many as are closed, in whatever way, can be opened again.
        writers.drain(..4).for_each(|(_, writer)| drop(writer));
        writers.drain(..3).for_each(|(_, writer)| writer.cancel().unwrap());
        let mut finalized: Vec<usize> = Vec::new();
        for (n, writer) in writers.drain(..3) {
            writer.finalize().unwrap();
            finalized.push(n);
        }
        for n in WRITERS..WRITERS + 10 {
            let mut writer = store.get_writer(&uri(n)).unwrap();
            writer.write_chunk(format!("bytes of {n}").as_bytes()).unwrap();
            writers.push((n, writer));
        }
        assert!(store.get_writer(&uri(0)).is_err());
        for (n, writer) in writers {
            writer.finalize().unwrap();
            finalized.push(n);
        }
        assert_eq!(store.list(&place.base).unwrap().count(), finalized.len());
        for n in finalized {
            assert_eq!(store.get(&uri(n)).unwrap(), format!("bytes of {n}"));
        }
        figures::add("writers opened at once", WRITERS as u64);
    }
}

#[test]
fn a_thousand_writers_wait_for_their_turn() {
    for medium in ["mem", "file", "s3"] {
        let place = Place::new(medium);
        let store = open(&place, small().open_writers_max(8).writers_wait(true));
        let uri = |n: usize| format!("{}/object-{n}", place.base);
        let write = |n: usize| {
            let mut writer = store.get_writer(&uri(n)).unwrap();
            writer.write_chunk(format!("bytes of {n}").as_bytes()).unwrap();
            writer.finalize().unwrap();
        };
        std::thread::scope(|scope| {
            for n in 0..WRITERS {
                std::thread::Builder::new().spawn_scoped(scope, move || write(n)).unwrap();
            }
        });
        assert_eq!(store.list(&place.base).unwrap().count(), WRITERS);
        for n in (0..WRITERS).step_by(50) {
            assert_eq!(store.get(&uri(n)).unwrap(), format!("bytes of {n}"));
        }
        figures::add("writers opened at once", WRITERS as u64);
    }
}

/// Who waits for itself is told, in time.
#[test]
fn waiting_for_a_turn_ends() {
    let timeout = Duration::from_secs(1);
    let place = Place::new("mem");
    let store = open(&place, small().open_writers_max(2).writers_wait(true).timeout(timeout));
    let uri = |n: usize| format!("{}/object-{n}", place.base);
    let held = [store.get_writer(&uri(0)).unwrap(), store.get_writer(&uri(1)).unwrap()];
    let (waiting, refused, started) = (Arc::clone(&store), uri(2), Instant::now());
    // By default it would take longer than this waits.
    let error = in_time(move || waiting.get_writer(&refused).err()).unwrap();
    assert!(started.elapsed() >= timeout);
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(error.remedy().unwrap().contains("open_writers_max"), "{error}");
    drop(held);
    store.put(&uri(2), b"there is room").unwrap();
}

fn limit_descriptors(soft: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
}

#[test]
fn descriptors_that_run_out_lose_nothing() {
    for medium in ["file", "direct"] {
        let place = Place::new(medium);
        child::run(&[], &format!("descriptors {medium} {}", place.base));
    }
}

pub fn descriptors_child(medium: &str, base: &str) {
    let config = small().open_writers_max(WRITERS).io_threads(2).build().unwrap();
    let store = open_store(base, &config).unwrap();
    limit_descriptors(100);
    let uri = |n: usize| format!("{base}/object-{n}");
    let data = noise(3 * 64 * 1024 + 100, 5);
    let mut writers = Vec::new();
    let error = loop {
        match store.get_writer(&uri(writers.len())) {
            Ok(writer) => writers.push(writer),
            Err(error) => break error,
        }
    };
    assert!((50..100).contains(&writers.len()), "{medium}: {}", writers.len());
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    assert!(error.remedy().unwrap().contains("ulimit"), "{error}");
    // Those that are open need no further ones.
    for writer in &mut writers {
        writer.write_chunk(&data).unwrap();
    }
    let count = writers.len();
    for writer in writers {
        writer.finalize().unwrap();
    }
    for n in 0..count {
        assert!(store.get(&uri(n)).unwrap() == data);
    }
    store.put(&uri(count), b"and there are some again").unwrap();
    assert!(store.orphans(base, Duration::ZERO).unwrap().is_empty());
}

/// Each call takes what is left by the others.
#[test]
fn batches_at_once_share_the_descriptors() {
    for medium in ["file", "direct"] {
        let place = Place::new(medium);
        child::run(&[], &format!("batches {medium} {}", place.base));
    }
}

const CALLS: usize = 16;
const OBJECTS: usize = 60;

pub fn batches_child(medium: &str, base: &str) {
    let config = small().io_threads(4).build().unwrap();
    let store = open_store(base, &config).unwrap();
    limit_descriptors(200);
    let together = std::sync::Barrier::new(CALLS);
    std::thread::scope(|scope| {
        for call in 0..CALLS {
            let (store, together) = (&store, &together);
            scope.spawn(move || {
                // Each object in a folder of its own, which takes a descriptor too.
                let uris: Vec<String> =
                    (0..OBJECTS).map(|n| format!("{base}/{call}/{n}/object")).collect();
                let objects: Vec<(&str, &[u8])> =
                    uris.iter().map(|uri| (uri.as_str(), uri.as_bytes())).collect();
                together.wait();
                for put in store.put_many(&objects, WriteOptions::default()) {
                    put.unwrap_or_else(|error| panic!("{medium}: {error}"));
                }
                for (uri, got) in uris.iter().zip(
                    store
                        .get_many(&uris.iter().map(|uri| (uri.as_str(), None)).collect::<Vec<_>>()),
                ) {
                    assert_eq!(got.unwrap(), uri.as_bytes());
                }
            });
        }
    });
    assert_eq!(store.list(base).unwrap().count(), CALLS * OBJECTS);
}
