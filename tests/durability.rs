//! The order of the system calls of a save, as strace sees them: what is durable before what is visible.
#![cfg(feature = "cli")]

#[path = "support/strace.rs"]
mod strace;

use std::path::{Path, PathBuf};

/// One system call that matters for durability.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    MakeDirectory(PathBuf),
    /// fsync or fdatasync, and of what.
    Sync(PathBuf),
    Write(PathBuf),
    /// The new name, and the old one.
    Rename(PathBuf, PathBuf),
}

/// Runs the command line and returns its calls in the order in which they ended.
fn trace(arguments: &[&str], scratch: &Path) -> Vec<Call> {
    let kinds = "mkdir,mkdirat,fsync,fdatasync,pwrite64,rename,renameat,renameat2";
    let calls = strace::trace(arguments, kinds, scratch);
    calls.iter().filter(|call| !call.failed()).filter_map(of_durability).collect()
}

fn of_durability(call: &strace::Call) -> Option<Call> {
    Some(match call.name.as_str() {
        "mkdir" => Call::MakeDirectory(call.path(0)),
        "mkdirat" => Call::MakeDirectory(call.path_at(1)),
        "fsync" | "fdatasync" => Call::Sync(call.descriptor(0)),
        "pwrite64" => Call::Write(call.descriptor(0)),
        "rename" => Call::Rename(call.path(1), call.path(0)),
        "renameat" | "renameat2" => Call::Rename(call.path_at(3), call.path_at(1)),
        _ => return None,
    })
}

fn position(calls: &[Call], wanted: impl Fn(&Call) -> bool) -> Option<usize> {
    calls.iter().position(wanted)
}

#[test]
fn everything_is_durable_before_the_manifest_is_visible() {
    let scratch = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let scratch = scratch.path().canonicalize().unwrap();
    let files: Vec<String> = (0..3)
        .map(|n| {
            let path = scratch.join(format!("input-{n}"));
            std::fs::write(&path, vec![n; 3 << 20]).unwrap();
            path.to_str().unwrap().to_owned()
        })
        .collect();
    for scheme in ["file", "direct"] {
        let base = scratch.join(scheme).join("new").join("base");
        let uri = format!("{scheme}://{}", base.display());
        let mut arguments = vec!["save"];
        arguments.extend(files.iter().map(String::as_str));
        let options = ["--step", "7", "--strategy", "round-robin", "--part-size", "1MiB"];
        arguments.extend([uri.as_str()].into_iter().chain(options));
        check(&trace(&arguments, &scratch), &base, files.len());
    }
}

fn check(calls: &[Call], base: &Path, shards: usize) {
    let below = |path: &Path| path.starts_with(base);
    let is_rename_into = |call: &Call, part: &str| match call {
        Call::Rename(to, _) => below(to) && to.to_str().unwrap().contains(part),
        _ => false,
    };
    let manifest = position(calls, |call| is_rename_into(call, "/manifests/")).expect("a manifest");
    let latest = position(calls, |call| is_rename_into(call, "/latest.json")).expect("a hint");
    assert!(manifest < latest, "the manifest comes before the hint");

    let mut objects = 0;
    for (at, call) in calls.iter().enumerate() {
        let Call::Rename(to, from) = call else { continue };
        objects += 1;
        let written = calls[..at].iter().rposition(|call| *call == Call::Write(from.clone()));
        let synced = calls[..at].iter().rposition(|call| *call == Call::Sync(from.clone()));
        assert!(written < synced, "{}: not synced after its last write", to.display());
        let parent = to.parent().unwrap().to_path_buf();
        let named = calls[at..].iter().position(|call| *call == Call::Sync(parent.clone()));
        let named =
            at + named.unwrap_or_else(|| panic!("{}: its name is not durable", to.display()));
        if at < manifest {
            assert!(named < manifest, "{}: its name is durable too late", to.display());
        }
    }
    assert_eq!(
        calls[..manifest].iter().filter(|call| is_rename_into(call, "/shards/")).count(),
        shards
    );

    let made = calls.iter().filter(|call| matches!(call, Call::MakeDirectory(_))).count();
    assert!(
        made >= 5,
        "the base, its parents, and the folders of shards and manifests are new: {made}"
    );
    for (at, call) in calls.iter().enumerate() {
        let Call::MakeDirectory(path) = call else { continue };
        let parent = Call::Sync(path.parent().unwrap().to_path_buf());
        let synced = calls[at..].iter().position(|call| *call == parent);
        let synced =
            at + synced.unwrap_or_else(|| panic!("{}: not durable in its parent", path.display()));
        if at < manifest {
            assert!(synced < manifest, "{}: durable too late", path.display());
        }
    }

    // One data sync for each object, none for each write.
    let data_syncs = calls
        .iter()
        .filter(|call| matches!(call, Call::Sync(path) if path.to_str().unwrap().ends_with(".syncline-tmp")))
        .count();
    assert_eq!(data_syncs, objects);
}

/// Small files in two groups, written by one thread: each step is taken for a whole group before the next.
#[test]
fn a_batch_of_small_files_is_synced_named_and_synced_once() {
    const FILES: usize = 100;
    const TS: &str = "20260101-000000-000";
    let scratch = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let scratch = scratch.path().canonicalize().unwrap();
    let files: Vec<String> = (0..FILES)
        .map(|n| {
            let path = scratch.join(format!("input-{n}"));
            std::fs::write(&path, vec![n as u8; 100 + n]).unwrap();
            path.to_str().unwrap().to_owned()
        })
        .collect();
    for scheme in ["file", "direct"] {
        let base = scratch.join(scheme).join("base");
        let uri = format!("{scheme}://{}", base.display());
        let mut arguments = vec!["save"];
        arguments.extend(files.iter().map(String::as_str));
        arguments.extend([uri.as_str(), "--step", "7", "--ts", TS, "--io-threads", "1"]);
        let calls = trace(&arguments, &scratch);
        let folder = base.join(format!("shards/ckpt-7-{TS}"));
        let of_folder: Vec<&Call> = calls
            .iter()
            .filter(|call| match call {
                Call::Sync(path) => path.starts_with(&folder),
                Call::Rename(to, _) => to.starts_with(&folder),
                _ => false,
            })
            .collect();
        let windows: Vec<&[&Call]> =
            of_folder.split_inclusive(|call| **call == Call::Sync(folder.clone())).collect();
        assert!((2..=4).contains(&windows.len()), "{} syncs of the folder", windows.len());
        let mut renamed = 0;
        for window in windows {
            let (last, steps) = window.split_last().unwrap();
            assert_eq!(**last, Call::Sync(folder.clone()), "names that are not durable");
            let names = steps.len() / 2;
            for (at, step) in steps.iter().enumerate() {
                assert_eq!(matches!(step, Call::Sync(_)), at < names, "{at} of {steps:?}");
                if let Call::Rename(_, from) = step {
                    assert!(steps[..names].contains(&&Call::Sync(from.clone())), "{from:?}");
                }
            }
            renamed += names;
        }
        assert_eq!(renamed, FILES);
        let manifest = base.join(format!("manifests/ckpt-7-{TS}.json"));
        let committed =
            position(&calls, |call| matches!(call, Call::Rename(to, _) if *to == manifest));
        let durable = calls.iter().rposition(|call| *call == Call::Sync(folder.clone()));
        assert!(durable < committed, "the manifest is visible before its shards are durable");
    }
}
