//! The grammar of `syncline bench`.

use std::path::PathBuf;

use clap::Args;

use crate::args::size;

/// `syncline bench`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  syncline bench direct:///data/tmp
  syncline bench /data/tmp --size 1GiB --part-size 16MiB --rounds 5 --json
  syncline bench s3://bucket/tmp --sweep --size 1GiB --plot sweep.svg
  syncline bench direct:///data/tmp --sweep --threads 1,2,4 --parts 4MiB,8MiB

The ceiling is plain pwrite and pread with the same block size, flags and preallocation, without the
engine and without checksums; it runs in turns with the engine's ways in and out. For mem:// the
ceiling is memcpy; servers have none. What the benchmark writes is removed.

--sweep writes and reads back one object of --size with every number of threads and every part size,
then with several queue depths, and prints the cheapest settings that come within 5 % of the best:
fewest threads first, then least memory. Give the size of your own shards. It moves many times
--size, and tells how much before it begins: servers may charge for it.")]
pub struct Bench {
    /// The directory, or the place in a bucket or container, to measure in
    #[arg(value_name = "URI")]
    pub uri: String,
    /// Bytes per pass; default 4GiB, on servers and with --sweep 512MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub size: Option<u64>,
    /// Rounds; each runs everything once
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Find the I/O threads, part size and queue depth to use here
    #[arg(long)]
    pub sweep: bool,
    /// I/O threads to try; default 1,2,4,8,16
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "sweep")]
    pub threads: Vec<usize>,
    /// Part sizes to try; default 1 to 32MiB in powers of two, on servers 5,8,16,32MiB
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = size, requires = "sweep")]
    pub parts: Vec<u64>,
    /// Draw throughput over threads into this file, as SVG
    #[arg(long, value_name = "FILE.svg", requires = "sweep")]
    pub plot: Option<PathBuf>,
}
