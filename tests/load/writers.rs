//! 64 writers on one store whose memory carries four at a time.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use syncline::{Bytes, Config, ObjectStore, Result, open_store};

use crate::data::noise;
use crate::place::{Place, reaching};
use crate::{child, figures, peak};

const WRITERS: usize = 64;

/// Part buffers that the memory carries.
const BUFFERS: usize = 8;

/// Beside the part buffers: 64 threads of the program with their stacks and heaps, the engine's, and the
/// buffers of its two connections.
const BESIDE_BYTES: u64 = 8 << 20;

macro_rules! on_each_medium {
    ($($medium:ident)*) => {
        $(
            #[test]
            fn $medium() {
                super::fairly(stringify!($medium));
            }
        )*
    };
}

mod get_on_fairly_within_the_memory_allowed {
    on_each_medium! { mem file direct s3 az }
}

fn fairly(medium: &'static str) {
    let place = Place::new(medium);
    let told = child::run(&[], &format!("writers {medium} {} {}", place.base, place.url));
    let figure = |name: &str| -> u64 {
        let told = told.iter().find_map(|line| line.strip_prefix(name));
        told.unwrap_or_else(|| panic!("no {name} in {told:?}")).trim().parse().unwrap()
    };
    let rounds = rounds(medium) as u64;
    figures::add("objects of 64 writers at once", WRITERS as u64 * rounds);
    // When the first is through, who waits in turn is through with all but what it is at and waits for.
    // A thread that the kernel does not run is not in the line, so less is asked for.
    let least = figure("least");
    assert!(least >= rounds / 4, "{medium}: one had {rounds} objects when another had {least}");
    let (grown, bound) = (figure("grown"), figure("bound"));
    println!("{medium}: {rounds} and {least} objects, {grown} bytes of {bound}");
    // The objects of `mem://` are in the same process.
    if medium != "mem" {
        assert!(grown <= bound + BESIDE_BYTES, "{medium}: {grown} bytes of a bound of {bound}");
    }
}

fn rounds(medium: &str) -> usize {
    if medium == "s3" { 4 } else { 16 }
}

/// Bytes of a part: the least that the medium takes.
fn part_bytes(medium: &str) -> usize {
    if medium == "s3" { 5 << 20 } else { 64 * 1024 }
}

pub fn child(medium: &str, base: &str, url: &str) {
    let part = part_bytes(medium);
    let config = Config::builder()
        .part_bytes(part)
        .io_threads(2)
        .memory_bytes_max((BUFFERS * part) as u64)
        .writers_wait(true);
    let config = reaching(config, medium, url).build().unwrap();
    let store = open_store(base, &config).unwrap();
    let bound = store.config().memory_bytes_max();
    assert!(bound <= (BUFFERS * part) as u64 && store.config().open_writers_max() < WRITERS);
    // Two parts; on S3 the second is small, for the sake of time.
    let data = noise(if medium == "s3" { part + 1000 } else { 2 * part }, 1);
    let done: Vec<AtomicUsize> = (0..WRITERS).map(|_| AtomicUsize::new(0)).collect();
    let first = std::sync::OnceLock::new();
    let together = Barrier::new(WRITERS);
    // The program's own.
    let before = peak::reset();
    std::thread::scope(|scope| {
        for n in 0..WRITERS {
            let (store, data, done, first, together) = (&store, &data, &done, &first, &together);
            scope.spawn(move || {
                together.wait();
                for round in 1..=rounds(medium) {
                    write(&**store, &format!("{base}/object-{n}"), data, n).unwrap();
                    done[n].store(round, Ordering::SeqCst);
                }
                let least = || done.iter().map(|done| done.load(Ordering::SeqCst)).min();
                first.get_or_init(|| least().unwrap());
            });
        }
    });
    let grown = peak::bytes().saturating_sub(before);
    for n in 0..WRITERS {
        assert!(store.get(&format!("{base}/object-{n}")).unwrap() == data, "object {n}");
    }
    child::tell(format_args!("least {}", first.get().unwrap()));
    child::tell(format_args!("grown {grown}"));
    child::tell(format_args!("bound {bound}"));
}

/// Writes an object, each writer in its own way.
pub fn write(store: &dyn ObjectStore, uri: &str, data: &[u8], way: usize) -> Result<()> {
    let mut writer = store.get_writer(uri)?;
    match way % 3 {
        0 => writer.write_chunk(data)?,
        1 => writer.write_borrowed(data)?,
        _ => {
            // Small, since this memory is the program's.
            let (head, mut rest) = data.split_at(data.len().min(100_000) / 2);
            writer.write_owned(Bytes::copy_from_slice(head))?;
            while !rest.is_empty() {
                let room = writer.reserve()?;
                let bytes = room.len().min(rest.len());
                room[..bytes].copy_from_slice(&rest[..bytes]);
                writer.commit(bytes)?;
                rest = &rest[bytes..];
            }
        }
    }
    writer.finalize().map(drop)
}
