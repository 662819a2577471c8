//! Memory is bounded as stated, and a steady stream of parts allocates nothing.
//!
//! One test in a process of its own: it counts every allocation, and reads the process's peak memory.

#[path = "support/peak.rs"]
mod peak;
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use support::{Place, aligned_noise};
use syncline::{Bytes, Config, ObjectWriter, WriteOptions};

/// Counts allocations, of all threads.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const PART: usize = 1 << 20;
const PARTS: usize = 300;

/// How often a way in is tried until a pass allocates no more than it may.
const PASSES_MAX: usize = 5;

/// Allocations that half of the parts may make. `write_borrowed` makes one loan for each call.
fn allowed(way: &str) -> u64 {
    if way == "write_borrowed" { (PARTS / 2) as u64 } else { 0 }
}

/// Writes parts and returns the allocations from the third quarter on, when all is warm.
fn allocations_of(
    writer: &mut dyn ObjectWriter,
    mut step: impl FnMut(&mut dyn ObjectWriter),
) -> u64 {
    for _ in 0..PARTS / 2 {
        step(writer);
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in PARTS / 2..PARTS {
        step(writer);
    }
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

#[test]
fn memory_is_bounded_and_parts_allocate_nothing() {
    let config = || {
        Config::builder().part_bytes(PART).io_threads(2).queue_depth_parts(2).open_writers_max(2)
    };
    let bound = config().build().unwrap().memory_bytes_max();
    assert_eq!(bound, 6 * PART as u64);
    let data = aligned_noise(PART, 1);
    let owned = Bytes::from(aligned_noise(PART, 2));
    for scheme in ["file", "direct"] {
        let place = Place::new(scheme, config());
        let uri = place.uri("object");
        let options = WriteOptions::default().size_hint_bytes((PARTS * PART) as u64);
        let before = peak::reset();
        let mut counts = Vec::new();
        for way in ["write_chunk", "write_owned", "reserve", "write_borrowed"] {
            let pass = || {
                let mut writer = place.store.get_writer_with(&uri, options.clone()).unwrap();
                let allocations = allocations_of(&mut *writer, |writer| match way {
                    "write_chunk" => writer.write_chunk(&data).unwrap(),
                    "write_owned" => writer.write_owned(owned.clone()).unwrap(),
                    "reserve" => {
                        let room = writer.reserve().unwrap();
                        room[0] = 1;
                        let bytes = room.len();
                        writer.commit(bytes).unwrap();
                    }
                    _ => writer.write_borrowed(&data).unwrap(),
                });
                writer.finalize().unwrap();
                allocations
            };
            // A thread that waits for the first time makes itself a place in the line, whenever that is.
            // What a part allocates it allocates in every pass.
            let mut least = u64::MAX;
            for _ in 0..PASSES_MAX {
                least = least.min(pass());
                if least <= allowed(way) {
                    break;
                }
            }
            counts.push((way, least));
        }
        let blocks = place.store.block_checksums(&uri, PART as u64).unwrap();
        assert_eq!(blocks.size_bytes(), (PARTS * PART) as u64);
        let grown = peak::bytes().saturating_sub(before);
        // Beside the buffers: the threads' stacks, and pages of code and heap touched for the first time.
        let beside = 4 << 20;
        assert!(grown <= bound + beside, "{scheme}: {grown} bytes of a bound of {bound}");
        for (way, allocations) in counts {
            assert!(
                allocations <= allowed(way),
                "{scheme} {way}: {allocations} allocations in {} parts",
                PARTS / 2
            );
        }
    }
}
