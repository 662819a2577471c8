//! The command line's grammar.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use syncline::checkpoint::Strategy;
use syncline::{Compression, Config, ConfigBuilder, DirectPolicy, Filter, Timestamp, parse_bytes};

use crate::bench::Bench;
use crate::output::parse_duration;

/// What follows the list of commands in `syncline --help`.
const EPILOGUE: &str = "\
URIs: file:///path (through the page cache), direct:///path (O_DIRECT), s3://bucket/key, \
az://account/container/key, mem://name/key (this process); a path without a scheme means file://.

Exit status: 0 done; 1 a checkpoint's data is damaged, incomplete or missing; 2 usage; 3 any other \
failure; 130 after Ctrl-C, 143 after SIGTERM. A closed pipe is no failure.

Environment: SYNCLINE_IO_THREADS, SYNCLINE_COMPRESSION_THREADS, SYNCLINE_PART_SIZE and SYNCLINE_MEMORY \
stand in for the options. Servers are reached with the usual AWS_* and AZURE_STORAGE_* variables for \
credentials, region and endpoint, by HTTPS_PROXY, past NO_PROXY, and with AWS_CA_BUNDLE for an authority of one's own.";

/// Synchronous checkpoint storage: whole or absent, every byte checksummed.
#[derive(Debug, Parser)]
#[command(name = "syncline", version, after_long_help = EPILOGUE, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options every command takes.
    #[command(flatten)]
    pub common: Common,
}

/// Options every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// I/O threads; also how many shards move at a time
    #[arg(long, value_name = "N", global = true)]
    pub io_threads: Option<usize>,
    /// Threads that compress and decompress; default the processors there are
    #[arg(long, value_name = "N", global = true)]
    pub compression_threads: Option<usize>,
    /// Bytes of a part buffer, such as 16MiB
    #[arg(long, value_name = "SIZE", value_parser = size, global = true)]
    pub part_size: Option<u64>,
    /// Bound on the memory of all part buffers, such as 256MiB
    #[arg(long, value_name = "SIZE", value_parser = size, global = true)]
    pub memory: Option<u64>,
    /// Whether direct:// insists on O_DIRECT
    #[arg(long, value_enum, value_name = "POLICY", global = true)]
    pub direct: Option<Direct>,
    /// Seconds without progress after which a call gives up
    #[arg(long, value_name = "SECS", global = true)]
    pub timeout: Option<u64>,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress bar, even on a terminal
    #[arg(long, global = true)]
    pub no_progress: bool,
}

impl Common {
    /// The engine's settings for a command that compresses or not.
    pub fn config(&self, compressing: bool) -> syncline::Result<Config> {
        self.builder(compressing)?.build()
    }

    /// Options first, then the environment, then defaults.
    pub fn builder(&self, compressing: bool) -> syncline::Result<ConfigBuilder> {
        let mut builder = Config::builder().compressing(compressing);
        if let Some(threads) = self.compression_threads {
            builder = builder.compression_threads(threads);
        }
        if let Some(threads) = self.io_threads {
            builder = builder.io_threads(threads);
        }
        if let Some(bytes) = self.part_size {
            builder = builder.part_bytes(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        if let Some(bytes) = self.memory {
            builder = builder.memory_bytes_max(bytes);
        }
        if let Some(secs) = self.timeout {
            builder = builder.timeout(Duration::from_secs(secs));
        }
        if let Some(direct) = self.direct {
            builder = builder.direct(match direct {
                Direct::Require => DirectPolicy::Require,
                Direct::Prefer => DirectPolicy::Prefer,
            });
        }
        builder.env()
    }
}

/// `--direct`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Direct {
    /// Fail where O_DIRECT is not to be had
    Require,
    /// Fall back to the page cache (default)
    Prefer,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Save files as one checkpoint: each file is a shard, its rank is its position
    Save(Save),
    /// Restore a checkpoint's files into a directory, verified before they appear
    Restore(Restore),
    /// List the checkpoints of a base
    List(List),
    /// Show a checkpoint's manifest
    Show(Show),
    /// Read checkpoints back and compare every block with its checksum
    Verify(Verify),
    /// Write a file or standard input to an object
    Put(Put),
    /// Read an object into a file or to standard output
    Get(Get),
    /// Write objects to standard output, one after the other
    Cat(Cat),
    /// List objects
    Ls(Ls),
    /// Show what is known of an object
    Stat(Stat),
    /// Remove objects
    Rm(Rm),
    /// Print CRC32C checksums, one line per object
    Sum(Sum),
    /// Remove old checkpoints, never the newest that is good
    Prune(Prune),
    /// Find, and with --delete remove, what interrupted saves left behind
    Gc(Gc),
    /// Measure the engine against what the medium can do without it, or find the settings to use
    Bench(Bench),
}

/// `syncline save`
#[derive(Debug, Args)]
#[command(
    override_usage = "syncline save [OPTIONS] --step <N> <FILE>... <BASE>",
    after_help = "\
Examples:
  syncline save rank0.dat rank1.dat /data/ckpt --step 100
  syncline save model.bin optim.bin direct:///data/ckpt --step 7 --framework mine --meta lr=0.1
  syncline save field.f32 /data/ckpt --step 8 --compress zstd:3 --shuffle 4

The shards are made durable first, then the manifest: a save that is stopped leaves the earlier
checkpoints as they were. Saves of one step and --ts, one after the other, succeed once; of two at
the same moment at most one does. Without --ts each is a new checkpoint."
)]
pub struct Save {
    /// The files, in the order of their ranks, and last where the checkpoint goes
    // One list, not two arguments, so that options may stand between the files.
    #[arg(value_name = "FILE... BASE", required = true)]
    pub files_and_base: Vec<String>,
    /// Step of the checkpoint
    #[arg(long, value_name = "N")]
    pub step: u64,
    /// Epoch, for the manifest
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub epoch: u64,
    /// Framework, for the manifest
    #[arg(long, value_name = "NAME", default_value = "generic", value_parser = NonEmptyStringValueParser::new())]
    pub framework: String,
    /// How shards are spread over directories: flat, round-robin or binary
    #[arg(long, value_parser = strategy, value_name = "STRATEGY", default_value_t = Strategy::Flat)]
    pub strategy: Strategy,
    /// A key and a value for the manifest's user_meta; may be repeated
    #[arg(long, value_name = "K=V", value_parser = key_value)]
    pub meta: Vec<(String, String)>,
    /// Timestamp of the checkpoint, YYYYMMDD-HHMMSS-mmm; default now
    #[arg(long, value_name = "TS", value_parser = timestamp)]
    pub ts: Option<Timestamp>,
    /// Compress the shards: zstd or zstd:LEVEL, 1 to 22
    #[arg(long, value_parser = compression, value_name = "METHOD")]
    pub compress: Option<Compression>,
    /// Order the bytes of elements of 4 or 8 bytes by their place before compressing, for arrays of numbers
    #[arg(long, value_parser = shuffle, value_name = "BYTES", requires = "compress")]
    pub shuffle: Option<Filter>,
}

/// `syncline restore`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  syncline restore /data/ckpt out
  syncline restore direct:///data/ckpt out --step 100 --force

Without --step the newest good checkpoint is restored; damaged or incomplete ones are skipped and
named. Files appear together, under the names they were saved with, once all of them are verified.
One that is killed may leave DIR/.syncline-restore-*, which the next one names; its files are whole.
What is compressed has checksums of zstd as well, which are compared also with --no-verify.")]
pub struct Restore {
    /// Where the checkpoints are
    #[arg(value_name = "BASE")]
    pub base: String,
    /// Where the files go; made if it does not exist
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// This step, and no other
    #[arg(long, value_name = "N")]
    pub step: Option<u64>,
    /// Replace files that exist
    #[arg(long)]
    pub force: bool,
    /// Do not compare checksums; sizes are still checked
    #[arg(long)]
    pub no_verify: bool,
}

/// `syncline list`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  syncline list /data/ckpt --json")]
pub struct List {
    /// Where the checkpoints are
    #[arg(value_name = "BASE")]
    pub base: String,
}

/// `syncline show`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  syncline show /data/ckpt --step 100")]
pub struct Show {
    /// Where the checkpoints are
    #[arg(value_name = "BASE")]
    pub base: String,
    /// This step; default the newest
    #[arg(long, value_name = "N")]
    pub step: Option<u64>,
}

/// `syncline verify`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  syncline verify /data/ckpt
  syncline verify /data/ckpt --all --json
  syncline verify s3://bucket/ckpt --quick

Exit status 1 if anything is damaged or missing. What interrupted saves left is noted, not damage.
--quick finds what is missing, cut or replaced, but no decay: a shard of which the medium keeps
nothing but the size is called so, and the checkpoint is not called good.")]
pub struct Verify {
    /// Where the checkpoints are
    #[arg(value_name = "BASE")]
    pub base: String,
    /// This step; default the newest
    #[arg(long, value_name = "N", conflicts_with = "all")]
    pub step: Option<u64>,
    /// Every checkpoint of the base
    #[arg(long)]
    pub all: bool,
    /// Compare sizes, entity tags and the checksums that servers keep; read no shard
    #[arg(long)]
    pub quick: bool,
}

/// `syncline put`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  syncline put data.bin direct:///data/objects/data.bin
  tar c dir | syncline put - /data/objects/dir.tar

A URI that ends in `/` takes the file's name. An object that exists is replaced when the new one is
whole.")]
pub struct Put {
    /// The file, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The object
    #[arg(value_name = "URI")]
    pub uri: String,
    /// Fail if the object exists
    #[arg(long)]
    pub create_only: bool,
}

/// `syncline get`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  syncline get direct:///data/objects/data.bin data.bin
  syncline get /data/objects/dir.tar - | tar x

A FILE that is a directory gets a file of the object's name. The file appears when it is whole.")]
pub struct Get {
    /// The object
    #[arg(value_name = "URI")]
    pub uri: String,
    /// The file, or `-` for standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// `syncline cat`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  syncline cat /data/objects/log.txt | head -c100")]
pub struct Cat {
    /// The objects
    #[arg(value_name = "URI", required = true)]
    pub uris: Vec<String>,
}

/// `syncline ls`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  syncline ls /data/objects
  syncline ls -r direct:///data/objects --json")]
pub struct Ls {
    /// The object, or the prefix whose objects are listed
    #[arg(value_name = "URI")]
    pub uri: String,
    /// All objects below, not one level
    #[arg(short, long)]
    pub recursive: bool,
}

/// `syncline stat`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  syncline stat /data/objects/data.bin")]
pub struct Stat {
    /// The object
    #[arg(value_name = "URI")]
    pub uri: String,
}

/// `syncline rm`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  syncline rm /data/objects/data.bin
  syncline rm -r /data/objects/old")]
pub struct Rm {
    /// The objects, or with --recursive the prefixes
    #[arg(value_name = "URI", required = true)]
    pub uris: Vec<String>,
    /// Remove the objects of these names and all below them
    #[arg(short, long)]
    pub recursive: bool,
}

/// `syncline sum`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  syncline sum data.bin direct:///data/objects/data.bin
  printf 123456789 | syncline sum -")]
pub struct Sum {
    /// Files or objects; `-` for standard input
    #[arg(value_name = "FILE|URI", required = true)]
    pub names: Vec<String>,
}

/// `syncline prune`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  syncline prune /data/ckpt --keep 3 --dry-run
  syncline prune s3://bucket/ckpt --keep 3 --keep-every 1000

Checkpoints are read from the newest on until one is good; that one stays, also beyond the number.
If none is good, nothing is removed, and the exit status is 1. Of incomplete ones those among the
newest do not count and stay; older ones go with the rest.")]
pub struct Prune {
    /// Where the checkpoints are
    #[arg(value_name = "BASE")]
    pub base: String,
    /// How many of the newest complete checkpoints stay
    #[arg(long, value_name = "N")]
    pub keep: usize,
    /// Keep also those whose step is a multiple of K
    #[arg(long, value_name = "K")]
    pub keep_every: Option<u64>,
    /// Take shards of the right size for good, and read none
    #[arg(long)]
    pub trust_sizes: bool,
    /// Show what would go, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `syncline gc`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  syncline gc /data/ckpt
  syncline gc /data/ckpt --older-than 7d --delete

Only what is older than the longest save may be removed: a running save's files look the same. What
was written since the newest complete checkpoint is shown and stays; in a base without any
checkpoint the age alone decides.")]
pub struct Gc {
    /// Where the checkpoints are
    #[arg(value_name = "BASE")]
    pub base: String,
    /// Leave alone what was written to more recently
    #[arg(long, value_name = "AGE", value_parser = parse_duration, default_value = "24h")]
    pub older_than: Duration,
    /// Remove what was found
    #[arg(long)]
    pub delete: bool,
}

/// A size as people write it.
pub fn size(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(|e| e.to_string())
}

/// The library reads more; but what sorts after every date would be the newest for ever.
fn timestamp(text: &str) -> Result<Timestamp, String> {
    const SHAPE: &str = "dddddddd-dddddd-ddd";
    let fits =
        |(c, shape): (char, char)| if shape == 'd' { c.is_ascii_digit() } else { c == shape };
    if text.len() != SHAPE.len() || !text.chars().zip(SHAPE.chars()).all(fits) {
        return Err("not of the form YYYYMMDD-HHMMSS-mmm".to_owned());
    }
    text.parse().map_err(|e: syncline::Error| e.to_string())
}

fn strategy(text: &str) -> Result<Strategy, String> {
    text.parse().map_err(|e: syncline::Error| e.to_string())
}

fn compression(text: &str) -> Result<Compression, String> {
    text.parse().map_err(|e: syncline::Error| e.to_string())
}

fn shuffle(text: &str) -> Result<Filter, String> {
    let bytes: usize = text.parse().map_err(|_| format!("{text:?} is not a number of bytes"))?;
    Filter::shuffle(bytes).map_err(|e| e.to_string())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form K=V")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_paragraphs_of_the_help_are_not_broken_again_where_it_is_shown() {
        for command in Cli::command().get_subcommands() {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in after.lines() {
                assert!(line.len() <= 100, "{}: {line}", command.get_name());
            }
        }
    }
}
