//! Checksums on one core, against copying the same bytes: in cache, and from memory.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use syncline::Algorithm;

mod ceiling;

fn checksums(criterion: &mut Criterion) {
    ceiling::describe_machine(None);
    for (place, bytes) in [("in cache", 64 << 10), ("from memory", 64 << 20)] {
        let data = ceiling::noise(bytes);
        let mut copy = ceiling::noise(bytes);
        let mut group = criterion.benchmark_group(format!("checksum {place}"));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function("ceiling: memcpy", |bencher| {
            bencher.iter(|| black_box(&mut copy[..]).copy_from_slice(black_box(&data)));
        });
        for algorithm in [Algorithm::Crc32c, Algorithm::Crc32, Algorithm::Crc64Nvme] {
            group.bench_function(BenchmarkId::from_parameter(algorithm.name()), |bencher| {
                bencher.iter(|| algorithm.checksum(black_box(&data)));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, checksums);
criterion_main!(benches);
