//! Writes to and restores from a local filesystem, buffered and direct, against plain loops of the
//! same block size and flags. Each write makes a new file; removing it is not timed.

use std::fs;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use syncline::{Bytes, Config, WriteOptions, open_store};

mod ceiling;
mod ways;

use ceiling::THREADS;
use ways::{CHECKSUMS, WAYS};

/// Scheme and whether it is O_DIRECT.
const SCHEMES: [(&str, bool); 2] = [("direct", true), ("file", false)];

fn writes(criterion: &mut Criterion) {
    let scratch = ceiling::scratch();
    ceiling::describe_machine(Some(scratch.path()));
    let data = Bytes::from(ceiling::noise(ceiling::object_bytes("1GiB")));
    let path = scratch.path().join("object");
    for (scheme, direct) in SCHEMES {
        let uri = format!("{scheme}://{}", path.display());
        let store = open_store(&uri, &Config::default()).expect("the store opens");
        let mut group = criterion.benchmark_group(format!("local {scheme} write"));
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.sampling_mode(SamplingMode::Flat).sample_size(10);
        let remove = || fs::remove_file(&path).expect("the file is there");
        for threads in [1, THREADS] {
            group.bench_function(format!("ceiling: pwrite, {threads} threads"), |bencher| {
                bencher.iter_custom(|count| {
                    let write = || ceiling::raw_write(&path, &data, direct, threads);
                    ceiling::time_each(count, write, remove)
                });
            });
        }
        for (way, write) in WAYS {
            for (name, checksum) in CHECKSUMS {
                let options = WriteOptions::default().checksum(checksum);
                group.bench_function(format!("{way}, {name}"), |bencher| {
                    bencher.iter_custom(|count| {
                        ceiling::time_each(
                            count,
                            || write(&*store, &uri, &data, options.clone()),
                            remove,
                        )
                    });
                });
            }
        }
        group.finish();
    }
}

/// `file` finds its bytes in the page cache, where the write left them; `direct` goes to the disk.
fn restores(criterion: &mut Criterion) {
    let scratch = ceiling::scratch();
    let data = ceiling::noise(ceiling::object_bytes("1GiB"));
    let path = scratch.path().join("object");
    let mut memory = ceiling::noise(data.len());
    for (scheme, direct) in SCHEMES {
        let uri = format!("{scheme}://{}", path.display());
        let store = open_store(&uri, &Config::default()).expect("the store opens");
        let written = store.put(&uri, &data).expect("the object is written");
        println!("# {scheme}: {}", written.write.map_or("?".to_owned(), |w| w.mode.to_string()));
        let mut group = criterion.benchmark_group(format!("local {scheme} restore"));
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.sampling_mode(SamplingMode::Flat).sample_size(10);
        for threads in [1, THREADS] {
            group.bench_function(format!("ceiling: pread, {threads} threads"), |bencher| {
                bencher.iter(|| ceiling::raw_read(&path, &mut memory, direct, threads));
            });
        }
        ways::bench_reads(&mut group, &*store, &uri, &mut memory);
        assert!(memory[..] == data[..], "the bytes read are the bytes written");
        group.finish();
    }
}

criterion_group!(benches, writes, restores);
criterion_main!(benches);
