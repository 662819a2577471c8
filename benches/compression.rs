//! Compression against the tool `zstd`: the same data at the same level, in turns.
//!
//!     cargo bench --bench compression                  generated fields, and a library of the compiler
//!     cargo bench --bench compression -- FILE...       these files
//!
//! Prints a table for each file, in Markdown, with medians and the range of all rounds. `zstd` (a Debian
//! package) reads from and writes to memory (/dev/shm; what it decompresses goes nowhere); ours writes to and
//! reads from `mem://`. Both are warm: one round before those that count, and our stores, with their buffers,
//! last for all of them. Our memory that is read into was touched before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use syncline::{AlignedVec, Compression, Config, Filter, ObjectStore, WriteOptions, open_store};

mod ceiling;

const ROUNDS: usize = 7;
const LEVEL: i32 = 3;
const URI: &str = "mem://bench/object.zst";
const MIB: f64 = (1 << 20) as f64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` asks for one quick pass, `cargo bench` says --bench.
    let is_test = !arguments.iter().any(|argument| argument == "--bench");
    let files: Vec<PathBuf> =
        arguments.iter().filter(|argument| !argument.starts_with('-')).map(PathBuf::from).collect();
    let rounds = if is_test { 1 } else { ROUNDS };
    ceiling::describe_machine(None);
    let version = Command::new("zstd").arg("--version").output().expect("zstd is installed");
    println!("# zstd: {}", String::from_utf8_lossy(&version.stdout).trim());
    if files.is_empty() {
        let bytes = ceiling::object_bytes("256MiB");
        compare("a field of 4-byte floats", &field(bytes), rounds, Filter::None);
        compare("the same field, shuffled", &field(bytes), rounds, Filter::Shuffle4);
        let library = fs::read(compiler_library()).expect("the compiler has a library");
        // No frame is as long, and no window of the level: repeating it adds time, and nothing to find.
        let library: Vec<u8> = library.iter().copied().cycle().take(bytes).collect();
        compare("a library of the compiler", &library, rounds, Filter::None);
        compare("noise", &ceiling::noise(bytes), rounds, Filter::None);
    }
    for file in files {
        let data = fs::read(&file).expect("the file can be read");
        compare(&file.display().to_string(), &data, rounds, Filter::None);
    }
    if is_test {
        println!("Success");
    }
}

/// A smooth field with noise in its last bits, as a simulation has.
fn field(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut data = Vec::with_capacity(bytes);
    for index in 0..bytes / 4 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = f64::from(state >> 16) * 1e-7;
        let value = (index as f64 * 1e-3).sin() * 100.0 + (index % 1000) as f64 * 0.01 + noise;
        data.extend_from_slice(&(value as f32).to_le_bytes());
    }
    data
}

fn compiler_library() -> PathBuf {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().expect("rustc runs");
    let sysroot = String::from_utf8(sysroot.stdout).expect("its path is text");
    let files = fs::read_dir(Path::new(sysroot.trim()).join("lib")).expect("it has libraries");
    let paths = files.map(|entry| entry.expect("the folder is read").path());
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
    paths.max_by_key(size).expect("there is one")
}

struct Row {
    name: String,
    stored_bytes: u64,
    seconds: Vec<f64>,
}

fn store(threads: usize) -> Arc<dyn ObjectStore> {
    let config = Config::builder().compression_threads(threads).build().expect("it is valid");
    open_store(URI, &config).expect("memory opens")
}

fn compare(title: &str, data: &[u8], rounds: usize, filter: Filter) {
    let folder = tempfile::tempdir_in("/dev/shm").expect("there is memory for files");
    let (plain, packed) = (folder.path().join("plain"), folder.path().join("packed.zst"));
    fs::write(&plain, data).expect("the file is written");
    let mut memory = AlignedVec::copy_of(data).expect("there is memory");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let compression = Compression::zstd(LEVEL).and_then(|c| c.with_filter(filter));
    let options = WriteOptions::default().compression(compression.expect("it is valid"));

    let mut writes: Vec<Row> = Vec::new();
    let mut reads: Vec<Row> = Vec::new();
    let counts: Vec<usize> = if processors > 1 { vec![1, processors] } else { vec![1] };
    let stores: Vec<_> = counts.iter().map(|threads| store(*threads)).collect();
    for round in 0..=rounds {
        for (at, &threads) in counts.iter().enumerate() {
            let store = &stores[at];
            let started = Instant::now();
            let meta = store.put_with(URI, data, options.clone()).expect("it is written");
            note(
                &mut writes,
                round,
                format!("syncline, {threads} threads"),
                meta.size_bytes,
                started,
            );
            let form = store.compressed_form(URI, filter).expect("it has a seek table");
            let started = Instant::now();
            store.decompress_into(URI, form, 0, &mut memory).expect("it is read");
            note(
                &mut reads,
                round,
                format!("syncline, {threads} threads"),
                meta.size_bytes,
                started,
            );
            assert!(memory[..] == *data, "the bytes read are the bytes written");

            let started = Instant::now();
            zstd(&[
                &format!("-{LEVEL}"),
                &format!("-T{threads}"),
                "-qfo",
                &shown(&packed),
                &shown(&plain),
            ]);
            let bytes = fs::metadata(&packed).expect("it is there").len();
            note(&mut writes, round, format!("zstd -{LEVEL} -T{threads}"), bytes, started);
        }
        // Of our object: what zstd itself makes of the data differs from one version of it to the next.
        let object = stores[0].get(URI).expect("it is there");
        fs::write(&packed, &object).expect("the file is written");
        let started = Instant::now();
        zstd(&["-dqc", &shown(&packed)]);
        let name = "zstd -d of our object, to /dev/null".to_owned();
        note(&mut reads, round, name, object.len() as u64, started);
    }
    print_table(&format!("{title}: written"), data.len(), &writes);
    print_table(&format!("{title}: read"), data.len(), &reads);
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn zstd(arguments: &[&str]) {
    let status = Command::new("zstd").args(arguments).stdout(Stdio::null()).status();
    assert!(status.expect("zstd runs").success());
}

/// The round 0 is there to warm up.
fn note(rows: &mut Vec<Row>, round: usize, name: String, stored_bytes: u64, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    if !rows.iter().any(|row| row.name == name) {
        rows.push(Row { name: name.clone(), stored_bytes, seconds: Vec::new() });
    }
    let row = rows.iter_mut().find(|row| row.name == name).expect("it is there");
    if round > 0 {
        row.seconds.push(seconds);
    }
}

fn print_table(title: &str, bytes: usize, rows: &[Row]) {
    println!("\n## {title}, {:.0} MiB\n", bytes as f64 / MIB);
    println!("| | stored | MiB/s, median | all rounds |");
    println!("|---|---:|---:|---:|");
    for row in rows {
        let mut rates: Vec<f64> = row.seconds.iter().map(|s| bytes as f64 / MIB / s).collect();
        rates.sort_unstable_by(f64::total_cmp);
        let share = row.stored_bytes as f64 / bytes as f64 * 100.0;
        let (least, most) = (rates[0], rates[rates.len() - 1]);
        let median = rates[rates.len() / 2];
        println!("| {} | {share:.2} % | {median:.0} | {least:.0} to {most:.0} |", row.name);
    }
}
