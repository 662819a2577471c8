//! Instructions of the producer's thread, as callgrind counts them in a child: what the engine takes of the
//! caller's time before a thread of its own has the part. `mem://`, with room in the queue for all parts, so
//! that nobody waits.
//!
//! callgrind counts the same on every run, to a few in a thousand. It hides AVX-512 from the program, so
//! that the checksum takes a slower way than it does without; and it counts a `rep movsb`, by which the C
//! library copies, as one instruction for each byte. Both make the numbers higher than a processor has
//! them, and hide nothing.

use syncline::Config;

use crate::child;
use crate::work::Work;

/// Bytes of a part. Two sizes tell what each part costs from what each byte costs.
const PART_BYTES: [usize; 2] = [64 * 1024, 256 * 1024];

const PARTS: usize = 16;

const KIB: usize = 1024;

/// The most of each way in: way, instructions for a part, and for each KiB of it. Each some 10 % above what
/// was measured in the dev profile (optimised, with debug assertions and overflow checks; Rust 1.95,
/// valgrind 3.19): 2,710 and 1,735; 3,860 and 693; 4,210 to 4,440 and 693.
const INSTRUCTIONS_MAX: [(&str, usize, usize); 3] =
    [("write_chunk", 3000, 1910), ("reserve", 4250, 765), ("write_borrowed", 4850, 765)];

/// In a child: writes an object without being counted, and one that is.
pub fn child(way: &str, part_bytes: &str, parts: &str) {
    let (part_bytes, parts) = (part_bytes.parse().unwrap(), parts.parse().unwrap());
    let config = Config::builder().part_bytes(part_bytes).io_threads(1).open_writers_max(2);
    let work = Work::with("mem", "-", config.queue_depth_parts(4 * PARTS));
    work.write(way, parts);
    syncline_guards_counted(&work, way, parts);
}

/// What callgrind counts, by this name.
#[unsafe(no_mangle)]
#[inline(never)]
fn syncline_guards_counted(work: &Work, way: &str, parts: usize) {
    work.write(way, parts);
}

/// Instructions of the producer for an object of this many parts.
fn instructions(way: &str, part_bytes: usize, parts: usize) -> usize {
    let out = tempfile::NamedTempFile::new().unwrap();
    let file = format!("--callgrind-out-file={}", out.path().display());
    let toggle = "--toggle-collect=syncline_guards_counted";
    let valgrind = ["valgrind", "--tool=callgrind", "--collect-atstart=no", toggle, &file];
    child::run(&valgrind, &format!("fill {way} {part_bytes} {parts}"));
    let text = std::fs::read_to_string(out.path()).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a total");
    total.parse().unwrap()
}

fn the_producer_takes_no_more_instructions(way: &str) {
    let (_, part_max, kib_max) = INSTRUCTIONS_MAX.into_iter().find(|max| max.0 == way).unwrap();
    let [small, large] = PART_BYTES.map(|part_bytes| {
        let [few, many] = [PARTS, 2 * PARTS].map(|parts| instructions(way, part_bytes, parts));
        (many - few) / PARTS
    });
    let [small_kib, large_kib] = PART_BYTES.map(|bytes| bytes / KIB);
    let each_kib = (large - small) / (large_kib - small_kib);
    let each_part = small.saturating_sub(each_kib * small_kib);
    println!("{way}: {each_part} instructions for a part, {each_kib} for each KiB");
    // That anything was counted: no checksum takes fewer than one for each 16 bytes.
    assert!(each_kib >= KIB / 16, "{way}: {each_kib} for each KiB");
    assert!(each_part <= part_max, "{way}: {each_part} for a part, at most {part_max}");
    assert!(each_kib <= kib_max, "{way}: {each_kib} for each KiB, at most {kib_max}");
}

#[test]
fn the_producer_takes_no_more_instructions_write_chunk() {
    the_producer_takes_no_more_instructions("write_chunk");
}

#[test]
fn the_producer_takes_no_more_instructions_reserve() {
    the_producer_takes_no_more_instructions("reserve");
}

#[test]
fn the_producer_takes_no_more_instructions_write_borrowed() {
    the_producer_takes_no_more_instructions("write_borrowed");
}
