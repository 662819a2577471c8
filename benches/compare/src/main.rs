//! Ours and the limits, as contestants of `benches/compare/run`; and the endpoint that they upload to.
//!
//!     syncline-compare serve HOST DELAY_MS MB_PER_S
//!                                   answers as S3 and Azure do, forgets what it gets; prints its port
//!     syncline-compare run JOB      one contestant; JOB is JSON (job.rs), and contest.rs says how it is led

mod contest;
mod endpoint;
mod job;
mod limits;
mod local;
mod ranks;
mod ring;
mod servers;
mod shards;

use std::env;
use std::time::Duration;

use contest::Contestant;
use endpoint::Distance;
use job::Job;

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", host, delay_ms, mb_per_s] => {
            let number = |word: &str| word.parse::<u64>().expect("a number");
            let delay = Duration::from_millis(number(delay_ms));
            let bytes_per_second = number(mb_per_s) * 1_000_000;
            endpoint::serve_forever(host, Distance { delay, bytes_per_second });
        }
        ["run", job] => contest::run(contestant(job::parse(job))),
        _ => {
            eprintln!("syncline-compare serve HOST DELAY_MS MB_PER_S | run JOB");
            std::process::exit(2);
        }
    }
}

/// The one that a job names.
fn contestant(job: Job) -> Contestant {
    match job.client.as_str() {
        "memory" => limits::memory(job),
        "crc32c" => limits::crc32c(job),
        "raw" => limits::raw(job),
        "ring" => ring::ring(job),
        "socket" => limits::socket(job),
        "raw-shards" => limits::shards(job),
        "local" => local::local(job),
        "server" => servers::server(job),
        "shards" => shards::shards(job),
        "ranks" => ranks::ranks(job),
        other => panic!("no contestant is called {other:?}"),
    }
}
