//! Uploads to a server on this machine that discards what it gets: the client alone is measured.
//!
//!     loopback serve                     answers S3's upload calls; prints its port
//!     loopback socket PORT SIZE PASSES   a bare socket loop that sends the same parts with the same CRC32C
//!     loopback s3 PORT SIZE PASSES       the engine by `s3://`, by each way in
//!     loopback az PORT SIZE PASSES       the same by `az://`
//!
//! Each client prints one JSON line a pass: rate and CPU time of the process, and its resident peak.
//! `benches/against_obstore.py` runs them in turns; without arguments one small pass of each is made.

mod clients;
mod server;

use std::env;

/// Bytes of a part, and how many are under way.
pub(crate) const PART_BYTES: usize = 16 << 20;
pub(crate) const THREADS: usize = 4;

fn main() {
    // Cargo adds flags of its own.
    let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let number = |at: usize| words[at].parse::<u64>().expect("a number");
    match words.first().map(String::as_str) {
        Some("serve") => server::serve_forever(),
        Some("socket") => clients::socket(number(1) as u16, number(2), number(3)),
        Some(scheme @ ("s3" | "az")) => {
            clients::engine(scheme, number(1) as u16, number(2), number(3));
        }
        _ => {
            let port = server::start();
            clients::socket(port, 64 << 20, 1);
            clients::engine("s3", port, 64 << 20, 1);
            clients::engine("az", port, 64 << 20, 1);
            println!("Success");
        }
    }
}
