//! Reading a manifest takes memory linear in its text, whatever that says.
//!
//! One test in a process of its own: it reads the process's peak memory.

use syncline::checkpoint::Manifest;
use syncline::{ErrorKind, Result};

#[path = "support/figures.rs"]
mod figures;
#[path = "support/peak.rs"]
mod peak;

/// Bytes of memory for each byte of a text that its shards make most of: the shortest entries.
const FACTOR_OF_SHARDS: u64 = 40;

/// The same of what the caller keeps beside the data, where each value is as short as can be.
const FACTOR_OF_META: u64 = 160;

/// Beside it: pages of code and heap touched for the first time.
const BESIDE_BYTES: u64 = 16 << 20;

fn manifest(ranks: usize, user_meta: &str) -> String {
    let mut text = format!(
        "{{\"format_version\":1,\"framework\":\"f\",\"global_step\":5,\"epoch\":0,\"wall_time\":\"\",\
         \"world_size\":{ranks},\"user_meta\":{user_meta},\"status\":\"complete\",\"shards\":["
    );
    for rank in 0..ranks {
        let comma = if rank == 0 { "" } else { "," };
        text.push_str(&format!("{comma}{{\"rank\":{rank},\"key\":\"{rank}\",\"size\":0}}"));
    }
    text + "]}"
}

/// Measures the bytes of memory for each byte of the text, and returns what came of reading it.
fn factor(what: &str, text: &str, most: u64) -> Result<Manifest> {
    let before = peak::reset();
    let read = Manifest::from_json(text.as_bytes());
    let grown = peak::bytes().saturating_sub(before).saturating_sub(BESIDE_BYTES);
    let factor = grown / text.len() as u64;
    println!("{what}: {factor} bytes for each byte of {}", text.len());
    assert!(factor <= most, "{what}: {factor} bytes for each byte, of at most {most}");
    figures::add("hostile inputs", 1);
    read
}

#[test]
fn memory_is_linear_in_the_text() {
    let ranks = if figures::long() { 10_000_000 } else { 200_000 };
    let many = manifest(ranks, "null");
    assert_eq!(factor("shards", &many, FACTOR_OF_SHARDS).unwrap().shards.len(), ranks);
    // The last is missing, which is noticed when all are there.
    let one_more = many.replacen(&ranks.to_string(), &(ranks + 1).to_string(), 1);
    let error = factor("shards without the last", &one_more, FACTOR_OF_SHARDS).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains(&format!("missing: {ranks}")), "{error}");
    drop((many, one_more));
    let count = if figures::long() { 4_000_000 } else { 400_000 };
    for (what, one) in [
        ("numbers", "0,"),
        ("texts", "\"\","),
        ("lists", "[],"),
        ("objects", "{},"),
        ("fields", "{\"\":0},"),
    ] {
        let list = one.repeat(count);
        let text = manifest(1, &format!("[{}]", list.trim_end_matches(',')));
        let read = factor(what, &text, FACTOR_OF_META).unwrap();
        assert_eq!(read.user_meta.unwrap().as_array().unwrap().len(), count, "{what}");
    }
    let fields: String = (0..count).map(|n| format!("\"{n}\":0,")).collect();
    let text = manifest(1, &format!("{{{}}}", fields.trim_end_matches(',')));
    let read = factor("many fields", &text, FACTOR_OF_META).unwrap();
    assert_eq!(read.user_meta.unwrap().as_object().unwrap().len(), count);
}
