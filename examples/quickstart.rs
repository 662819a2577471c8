//! Saves a checkpoint of two shards, finds the newest one, and reads it back verified.
//!
//! `cargo run --example quickstart [BASE]`, where BASE is a directory or a URI; a directory for
//! temporary files serves by default.

use syncline::checkpoint::CheckpointStore;
use syncline::{AlignedVec, Result, Timestamp};

fn main() -> Result<()> {
    let scratch = std::env::temp_dir().join(format!("syncline-quickstart-{}", std::process::id()));
    let base = std::env::args().nth(1).unwrap_or_else(|| scratch.to_string_lossy().into_owned());
    let checkpoints = CheckpointStore::open(&base)?;

    // One name for the whole save: the step, and a timestamp that every rank shares.
    let layout = checkpoints.layout(100, Timestamp::now());
    let mut shards = Vec::new();
    for rank in 0..2 {
        let checkpoint_writer = checkpoints.writer(2, rank)?;
        let (mut shard_writer, key) = checkpoint_writer.get_shard_writer(&layout)?;
        shard_writer.write_chunk(format!("the state of rank {rank}").as_bytes())?;
        shards.push(checkpoint_writer.finalize_writer_to_shard_meta(&layout, key, shard_writer)?);
    }
    // The manifest is the commit point: before it there is no checkpoint, after it there is a whole one.
    checkpoints.writer(2, 0)?.finalize_checkpoint(&layout, "quickstart", 0, shards, None)?;

    let reader = checkpoints.reader();
    let manifest = reader.latest()?.expect("a checkpoint was just saved");
    println!("step {} in {base}", manifest.global_step);
    for shard in &manifest.shards {
        // Every block is compared with its checksum as it arrives.
        let mut memory = AlignedVec::zeroed(shard.size as usize)?;
        reader.read_shard_into(&manifest, shard.rank, &mut memory)?;
        let (text, checksum) = (String::from_utf8_lossy(&memory), shard.checksum.as_deref());
        println!("rank {}: {text:?} {}", shard.rank, checksum.unwrap_or("without a checksum"));
    }
    if std::env::args().nth(1).is_none() {
        checkpoints.store().delete_prefix(&base)?;
    }
    Ok(())
}
