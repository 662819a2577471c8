//! What verification costs a restore from the disk: verified and not, in turns, into memory that was touched
//! before, of raw and of compressed shards.
//!
//!     cargo bench --bench verification          SYNCLINE_BENCH_DIR and SYNCLINE_BENCH_SIZE say where and how much

use std::time::Instant;

use syncline::checkpoint::{CheckpointStore, Reader};
use syncline::{AlignedVec, Compression, Config, Timestamp};

mod ceiling;

const ROUNDS: usize = 9;
const MIB: f64 = (1 << 20) as f64;

fn main() {
    // `cargo test --benches` asks for one quick pass, `cargo bench` says --bench.
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    let scratch = ceiling::scratch();
    ceiling::describe_machine(Some(scratch.path()));
    println!(
        "\n| restore from direct:// | MiB/s, verified | MiB/s, not | time of verified / not |"
    );
    println!("|---|---:|---:|---:|");
    let data = data(ceiling::object_bytes("1GiB"));
    for (step, compression) in
        [Compression::None, "zstd:3".parse().expect("it is one")].into_iter().enumerate()
    {
        let base = format!("direct://{}", scratch.path().display());
        let store = CheckpointStore::open_with(&base, &Config::default()).expect("it opens");
        let store = store.with_compression(compression);
        let layout = store.layout(step as u64, Timestamp::now());
        let writer = store.writer(1, 0).expect("there is a rank");
        let shard = writer.put_shard(&layout, &data).expect("it is written");
        writer
            .finalize_checkpoint(&layout, "bench", 0, vec![shard], None)
            .expect("it is finalized");
        compare(&store.reader(), &data, &compression.to_string(), if is_test { 1 } else { ROUNDS });
    }
    if is_test {
        println!("Success");
    }
}

/// Half noise, half not: what compression makes of it is still worth a disk's time.
fn data(bytes: usize) -> AlignedVec {
    let mut data = ceiling::noise(bytes);
    for (index, element) in data.chunks_mut(4).enumerate() {
        let count = element.len();
        element[count / 2..].copy_from_slice(&(index as u32).to_le_bytes()[count / 2..count]);
    }
    data
}

fn compare(reader: &Reader, data: &[u8], name: &str, rounds: usize) {
    let manifest = reader.latest().expect("it is read").expect("it was saved");
    let readers = [reader.clone(), reader.clone().without_verification()];
    let mut memory = AlignedVec::copy_of(data).expect("there is memory");
    let mut seconds = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        for (reader, seconds) in readers.iter().zip(&mut seconds) {
            let started = Instant::now();
            reader.read_shard_into(&manifest, 0, &mut memory).expect("it is whole");
            if round > 0 {
                seconds.push(started.elapsed().as_secs_f64());
            }
        }
    }
    assert!(memory[..] == *data, "the bytes read are the bytes written");
    let median = |seconds: &mut Vec<f64>| {
        seconds.sort_unstable_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    };
    let [verified, not] = seconds.each_mut().map(median);
    let rate = |seconds: f64| data.len() as f64 / MIB / seconds;
    let (fast, slow, ratio) = (rate(not), rate(verified), verified / not);
    println!("| {name} | {slow:.0} | {fast:.0} | {ratio:.3} |");
}
