//! What fuzzing calls: one function for each target in `fuzz/fuzz_targets/`, which takes any bytes and
//! panics where something does not hold of them. What is asserted goes beyond "no panic": what is read and
//! written again is the same, and nothing read is larger than its text.
//!
//! Compiled for fuzzing (cargo-fuzz says `--cfg fuzzing`) and for this crate's tests, which run the inputs
//! that are kept in `fuzz/` through the same functions. A function stands with the parser it is about
//! where the parser is private, and here otherwise. A new one is listed in [`TARGETS`], and the test below
//! says what else it needs.

use crate::config::{ConnectionString, Secret, origin_problem, parse_bytes, trim_origin};
use crate::encode::{BlockChecksums, Checksum};
use crate::uri::Location;

pub use crate::backend::fuzzing::{aws_credentials, azure_credentials, azure_xml, headers, s3_xml};
pub use crate::checkpoint::fuzzing::{keys, latest, manifest, receipt};
pub use crate::encode::fuzzing::{seek_table, zstd_frame};

/// A target: its name and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 14] = [
    ("aws_credentials", aws_credentials),
    ("azure_credentials", azure_credentials),
    ("azure_xml", azure_xml),
    ("checksum", checksum),
    ("headers", headers),
    ("keys", keys),
    ("latest", latest),
    ("manifest", manifest),
    ("receipt", receipt),
    ("s3_xml", s3_xml),
    ("seek_table", seek_table),
    ("settings", settings),
    ("uri", uri),
    ("zstd_frame", zstd_frame),
];

/// Names of objects and stores.
pub fn uri(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let object = Location::parse_object(text).ok();
    let Ok(location) = Location::parse(text) else {
        assert_eq!(object, None);
        return;
    };
    let printed = location.to_string();
    assert_eq!(Location::parse(&printed).ok().as_ref(), Some(&location), "{printed:?}");
    let mut segments = location.key.split('/');
    assert!(!segments.any(|segment| matches!(segment, "." | "..")), "{location:?}");
    assert!(!printed.contains(char::is_control), "{location:?}");
    assert!(!location.key.ends_with('/'), "{location:?}");
    if let Some(object) = object {
        assert!(!object.key.is_empty());
        assert_eq!(object, location);
        assert_eq!(Location::parse_object(&printed).ok(), Some(location));
    }
}

/// Checksums in text, one or those of blocks.
pub fn checksum(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(sum) = text.parse::<Checksum>() {
        assert_eq!(sum.to_string(), text.to_ascii_lowercase());
        assert_eq!(sum.combine(Checksum::new(sum.algorithm(), 0), 0), sum);
    }
    let count = (text.len() / 8) as u64;
    for (block_bytes, size_bytes) in [
        (1, count),
        (4096, count * 4096),
        (4096, (count * 4096).saturating_sub(1)),
        (u64::MAX, u64::MAX),
        (0, 0),
        (0, 1),
    ] {
        let Ok(blocks) = BlockChecksums::from_hex(block_bytes, size_bytes, text) else { continue };
        assert_eq!(blocks.to_hex(), text.to_ascii_lowercase());
        let lengths = (0..blocks.crc32c().len()).map(|index| blocks.bytes_of(index));
        assert_eq!(lengths.sum::<u64>(), size_bytes);
        blocks.combined();
    }
}

/// Sizes, addresses and connection strings, as people and portals write them.
pub fn settings(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(bytes) = parse_bytes(text) {
        assert!(bytes < 1 << 63);
        assert_eq!(parse_bytes(&bytes.to_string()).ok(), Some(bytes));
    }
    if origin_problem(text, true).is_none() {
        assert_eq!(origin_problem(&trim_origin(text), true), None);
    }
    let Ok(parsed) = ConnectionString::parse(text) else { return };
    assert!(parsed.key.is_some() || parsed.sas_token.is_some());
    let exposed = |secret: &Option<Secret>| secret.as_ref().map(|text| text.expose().to_owned());
    let pairs = [
        ("AccountName", parsed.account.clone()),
        ("AccountKey", exposed(&parsed.key)),
        ("SharedAccessSignature", exposed(&parsed.sas_token)),
        ("BlobEndpoint", parsed.endpoint.clone()),
    ];
    let pairs = pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    let again = pairs.collect::<Vec<_>>().join(";");
    assert_eq!(ConnectionString::parse(&again), Ok(parsed));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn folder(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
    }

    fn entries(folder: &Path) -> Vec<PathBuf> {
        let read = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut paths: Vec<_> = read.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    fn names(folder: &Path) -> BTreeSet<String> {
        let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries(folder).iter().map(stem).collect()
    }

    /// Runs a target on every input of a folder and returns their number.
    fn replay(run: fn(&[u8]), folder: &Path) -> usize {
        let files = entries(folder);
        for file in &files {
            let input = fs::read(file).unwrap();
            let held = std::panic::catch_unwind(|| run(&input));
            assert!(held.is_ok(), "what must hold does not hold of {}", file.display());
        }
        files.len()
    }

    #[test]
    fn every_kept_input_holds() {
        for (name, run) in TARGETS {
            let count = replay(run, &folder("corpus").join(name));
            assert!(count > 0, "fuzz/corpus/{name} is empty");
            let found = folder("regressions").join(name);
            if found.exists() {
                replay(run, &found);
            }
        }
    }

    #[test]
    fn every_target_is_built_and_has_inputs_and_nothing_else_is_there() {
        let listed: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(listed.len(), TARGETS.len());
        assert_eq!(names(&folder("fuzz_targets")), listed, "fuzz/fuzz_targets/NAME.rs");
        assert_eq!(names(&folder("corpus")), listed, "fuzz/corpus/NAME/");
        assert!(names(&folder("regressions")).is_subset(&listed), "fuzz/regressions/NAME/");
        let package = fs::read_to_string(folder("Cargo.toml")).unwrap();
        for name in &listed {
            let path = format!("path = \"fuzz_targets/{name}.rs\"");
            assert!(package.contains(&path), "fuzz/Cargo.toml has no [[bin]] of {name}");
            let text =
                fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).unwrap();
            assert!(
                text.contains(&format!("syncline::fuzzing::{name}(")),
                "{name}.rs runs another"
            );
        }
    }

    #[test]
    fn an_input_that_does_not_hold_is_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("bad"), "x").unwrap();
        let told =
            std::panic::catch_unwind(|| replay(|data| assert!(data.is_empty()), folder.path()));
        assert!(told.is_err());
    }
}
