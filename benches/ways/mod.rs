//! The ways into a store and out of it, as the benches run them.

#![allow(dead_code, reason = "each bench uses a part of this file")]

use criterion::BenchmarkGroup;
use criterion::measurement::WallTime;
use syncline::{Algorithm, Bytes, ObjectStore, WriteOptions};

use crate::ceiling::{CHUNK_BYTES, time_each};

/// Writes an object in one way, from opening the writer to the commit.
pub type Write = fn(&dyn ObjectStore, &str, &Bytes, WriteOptions);

pub const WAYS: [(&str, Write); 4] = [
    ("write_borrowed", write_borrowed),
    ("write_owned", write_owned),
    ("reserve", reserve),
    ("write_chunk", write_chunk),
];

pub const CHECKSUMS: [(&str, Option<Algorithm>); 2] =
    [("crc32c", Some(Algorithm::Crc32c)), ("no checksum", None)];

fn write_borrowed(store: &dyn ObjectStore, uri: &str, data: &Bytes, options: WriteOptions) {
    let options = options.size_hint_bytes(data.len() as u64);
    let mut writer = store.get_writer_with(uri, options).expect("the writer opens");
    writer.write_borrowed(data).expect("the bytes are written");
    writer.finalize().expect("the object is committed");
}

fn write_owned(store: &dyn ObjectStore, uri: &str, data: &Bytes, options: WriteOptions) {
    let options = options.size_hint_bytes(data.len() as u64);
    let mut writer = store.get_writer_with(uri, options).expect("the writer opens");
    writer.write_owned(data.clone()).expect("the bytes are written");
    writer.finalize().expect("the object is committed");
}

/// The producer is a memcpy into the reserved buffer.
fn reserve(store: &dyn ObjectStore, uri: &str, data: &Bytes, options: WriteOptions) {
    let options = options.size_hint_bytes(data.len() as u64);
    let mut writer = store.get_writer_with(uri, options).expect("the writer opens");
    let mut rest = &data[..];
    while !rest.is_empty() {
        let buffer = writer.reserve().expect("a buffer is free");
        let filled = buffer.len().min(rest.len());
        buffer[..filled].copy_from_slice(&rest[..filled]);
        writer.commit(filled).expect("the bytes are written");
        rest = &rest[filled..];
    }
    writer.finalize().expect("the object is committed");
}

fn write_chunk(store: &dyn ObjectStore, uri: &str, data: &Bytes, options: WriteOptions) {
    let options = options.size_hint_bytes(data.len() as u64);
    let mut writer = store.get_writer_with(uri, options).expect("the writer opens");
    for chunk in data.chunks(CHUNK_BYTES) {
        writer.write_chunk(chunk).expect("the bytes are written");
    }
    writer.finalize().expect("the object is committed");
}

/// Reads the object into warm memory, verified and not, and into fresh memory.
pub fn bench_reads(
    group: &mut BenchmarkGroup<'_, WallTime>,
    store: &dyn ObjectStore,
    uri: &str,
    memory: &mut [u8],
) {
    let part_bytes = store.config().part_bytes() as u64;
    let blocks = store.block_checksums(uri, part_bytes).expect("the object is there");
    group.bench_function("read_into_verified, crc32c", |bencher| {
        bencher.iter(|| {
            store.read_into_verified(uri, 0, memory, &blocks).expect("the bytes are good")
        });
    });
    group.bench_function("read_into, no checksum", |bencher| {
        bencher.iter(|| store.read_into(uri, 0, memory).expect("the bytes are read"));
    });
    group.bench_function("get, no checksum, fresh memory", |bencher| {
        bencher.iter_custom(|count| {
            time_each(count, || drop(store.get(uri).expect("the bytes are read")), || ())
        });
    });
}
