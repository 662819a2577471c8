//! The engine without a disk: every way into `mem://`, with and without the checksum, against memcpy; and what it
//! costs to start it.

use std::hint::black_box;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use syncline::{Bytes, Config, WriteOptions, open_store};

mod ceiling;
mod ways;

use ways::{CHECKSUMS, WAYS};

const URI: &str = "mem://pipeline/object";

fn writes(criterion: &mut Criterion) {
    ceiling::describe_machine(None);
    let data = Bytes::from(ceiling::noise(ceiling::object_bytes("256MiB")));
    let store = open_store(URI, &Config::default()).expect("mem:// opens");
    let mut group = criterion.benchmark_group("pipeline mem write");
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.sampling_mode(SamplingMode::Flat).sample_size(10);

    // mem:// keeps its bytes in memory that is fresh for each object, and so does this copy.
    group.bench_function("ceiling: memcpy to fresh memory", |bencher| {
        bencher.iter_custom(|count| {
            ceiling::time_each(count, || drop(black_box(data.to_vec())), || ())
        });
    });
    for (way, write) in WAYS {
        for (name, checksum) in CHECKSUMS {
            let options = WriteOptions::default().checksum(checksum);
            group.bench_function(format!("{way}, {name}"), |bencher| {
                bencher.iter_custom(|count| {
                    let forget = || store.delete(URI).expect("the object is there");
                    ceiling::time_each(
                        count,
                        || write(&*store, URI, &data, options.clone()),
                        forget,
                    )
                });
            });
        }
    }
    group.finish();
}

fn reads(criterion: &mut Criterion) {
    let data = ceiling::noise(ceiling::object_bytes("256MiB"));
    let store = open_store(URI, &Config::default()).expect("mem:// opens");
    store.put(URI, &data).expect("the object is written");
    let mut group = criterion.benchmark_group("pipeline mem read");
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    let mut memory = ceiling::noise(data.len());
    group.bench_function("ceiling: memcpy to warm memory", |bencher| {
        bencher.iter(|| black_box(&mut memory[..]).copy_from_slice(black_box(&data)));
    });
    ways::bench_reads(&mut group, &*store, URI, &mut memory);
    assert!(memory[..] == data[..], "the bytes read are the bytes written");
    group.finish();
}

/// What a program pays before its first byte moves: a store of its own, its threads, its first object.
fn startup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("startup");
    group.sample_size(10);
    group.bench_function("open a store, close it", |bencher| {
        bencher
            .iter(|| drop(open_store(black_box(URI), &Config::default()).expect("mem:// opens")));
    });
    group.bench_function("open a store, write the first byte, close it", |bencher| {
        bencher.iter(|| {
            let store = open_store(black_box(URI), &Config::default()).expect("mem:// opens");
            store.put(URI, b"1").expect("the object is written")
        });
    });
    group.finish();
}

criterion_group!(benches, startup, writes, reads);
criterion_main!(benches);
