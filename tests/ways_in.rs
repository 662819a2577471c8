//! Any bytes, in any pieces, through any way in, are the same object with the same checksum.

mod support;

use proptest::prelude::*;
use support::{PART, Place, noise, small};
use syncline::{Algorithm, AlignedVec, Bytes, ObjectWriter, WriteOptions};

/// One call of a writer: the way in, and how many bytes.
#[derive(Debug, Clone, Copy)]
enum Step {
    Chunk(usize),
    Owned(usize),
    /// From memory `slack` bytes past a page.
    Borrowed {
        bytes: usize,
        slack: usize,
    },
    /// Filled in place, at most what the reservation has room for at a time.
    Reserved(usize),
    /// No bytes: asks for the checksum so far.
    Ask,
}

/// Sizes around every boundary: nothing, alignment, the copy threshold, parts.
fn sizes() -> impl Strategy<Value = usize> {
    let near = |at: usize| (at.saturating_sub(1)..=at + 1).boxed();
    prop_oneof![
        near(1),
        near(512),
        near(4096),
        near(PART),
        near(2 * PART),
        near(3 * PART + 512),
        (0..5 * PART).boxed(),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => sizes().prop_map(Step::Chunk),
        2 => sizes().prop_map(Step::Owned),
        3 => (sizes(), prop_oneof![Just(0usize), Just(512), 1usize..4096])
            .prop_map(|(bytes, slack)| Step::Borrowed { bytes, slack }),
        2 => sizes().prop_map(Step::Reserved),
        1 => Just(Step::Ask),
    ];
    proptest::collection::vec(step, 0..8)
}

/// Performs the steps; returns the bytes they wrote.
fn perform(writer: &mut dyn ObjectWriter, steps: &[Step]) -> Vec<u8> {
    let mut written = Vec::new();
    for (n, step) in steps.iter().enumerate() {
        let data = |bytes| noise(bytes, n as u64 + 1);
        match *step {
            Step::Chunk(bytes) => {
                writer.write_chunk(&data(bytes)).unwrap();
                written.extend(data(bytes));
            }
            Step::Owned(bytes) => {
                writer.write_owned(Bytes::from(data(bytes))).unwrap();
                written.extend(data(bytes));
            }
            Step::Borrowed { bytes, slack } => {
                let mut memory = AlignedVec::zeroed(slack + bytes).unwrap();
                memory[slack..].copy_from_slice(&data(bytes));
                writer.write_borrowed(&memory[slack..]).unwrap();
                // The memory is ours again: what is done to it must not reach the object.
                memory.fill(0xee);
                written.extend(data(bytes));
            }
            Step::Reserved(bytes) => {
                let data = data(bytes);
                let mut left = &data[..];
                while !left.is_empty() {
                    let room = writer.reserve().unwrap();
                    let now = room.len().min(left.len());
                    room[..now].copy_from_slice(&left[..now]);
                    writer.commit(now).unwrap();
                    left = &left[now..];
                }
                written.extend(data);
            }
            Step::Ask => {
                let expected = Algorithm::Crc32c.checksum(&written).to_string();
                assert_eq!(writer.checksum(), Some(expected));
                let blocks = writer.block_checksums().unwrap();
                assert_eq!(blocks.combined(), Algorithm::Crc32c.checksum(&written));
            }
        }
        assert_eq!(writer.bytes_written(), written.len() as u64);
        assert_eq!(writer.compressed_bytes(), writer.bytes_written());
    }
    written
}

fn same_object(scheme: &str, cases: u32) {
    let place = Place::new(scheme, small());
    let config = ProptestConfig { cases, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps(), hint in proptest::option::of(0u64..400_000))| {
        let uri = place.uri("object");
        let mut options = WriteOptions::default();
        options.size_hint_bytes = hint;
        let mut writer = place.store.get_writer_with(&uri, options).unwrap();
        let written = perform(&mut *writer, &steps);
        let blocks = writer.block_checksums().unwrap();
        let report = writer.report();
        let meta = writer.finalize().unwrap();
        let checksum = Algorithm::Crc32c.checksum(&written);
        prop_assert_eq!(meta.size_bytes, written.len() as u64);
        prop_assert_eq!(meta.checksum, Some(checksum.to_string()));
        prop_assert_eq!(meta.write.unwrap().bytes, written.len() as u64);
        prop_assert!(report.copied_bytes <= written.len() as u64);
        prop_assert!(place.store.get(&uri).unwrap() == written);
        prop_assert_eq!(place.store.block_checksums(&uri, PART as u64).unwrap(), blocks);
    });
    place.assert_holds(&["object"]);
}

#[test]
fn any_way_in_gives_the_same_object_mem() {
    same_object("mem", 256);
}

#[test]
fn any_way_in_gives_the_same_object_file() {
    same_object("file", 128);
}

#[test]
fn any_way_in_gives_the_same_object_direct() {
    same_object("direct", 128);
}

/// Any range, into memory of any alignment.
fn same_range(scheme: &str, cases: u32) {
    let place = Place::new(scheme, small());
    let uri = place.uri("object");
    let data = noise(5 * PART + 777, 99);
    place.store.put(&uri, &data).unwrap();
    let config = ProptestConfig { cases, ..ProptestConfig::default() };
    proptest!(config, |(
        from in prop_oneof![Just(0usize), Just(512), Just(4096), 0..data.len()],
        bytes in sizes(),
        slack in prop_oneof![Just(0usize), Just(512), 0usize..4096],
        fit in any::<bool>(),
    )| {
        let to = (from + bytes).min(data.len());
        // Half of the time the address is as far past a page as the offset is.
        let slack = if fit { from % 4096 } else { slack };
        let mut memory = AlignedVec::zeroed(slack + to - from).unwrap();
        let report = place.store.read_into(&uri, from as u64, &mut memory[slack..]).unwrap();
        prop_assert!(memory[slack..] == data[from..to]);
        prop_assert!(report.copied_bytes <= report.bytes);
        if fit && scheme == "direct" {
            // At most a block at either end of each part is copied; here there are at most six parts.
            prop_assert!(report.copied_bytes <= 2 * 512 * 6, "{:?}", report);
        }
    });
}

#[test]
fn any_range_reads_the_same_file() {
    same_range("file", 128);
}

#[test]
fn any_range_reads_the_same_direct() {
    same_range("direct", 256);
}

/// What a caller owns and aligned, a memory map for example, is not copied.
#[test]
fn owned_aligned_memory_is_not_copied() {
    let place = Place::new("direct", small());
    let data = noise(4 * PART, 5);
    let mut writer = place.store.get_writer(&place.uri("object")).unwrap();
    writer.write_owned(Bytes::from(AlignedVec::copy_of(&data).unwrap())).unwrap();
    assert_eq!(writer.report().copied_bytes, 0);
    writer.finalize().unwrap();
    assert_eq!(place.store.get(&place.uri("object")).unwrap(), data);
}
