//! Who may read what is written: as the umask says, from the first moment on.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Command, Stdio};

use crate::figures;
use crate::run::{Place, until};

const UMASKS: [u32; 5] = [0o000, 0o022, 0o027, 0o077, 0o177];

/// The command under a umask, as a shell starts it.
fn shell(place: &Place, umask: u32, line: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-euc", &format!("umask {umask:03o}; {line}")]).current_dir(place.path(""));
    shell.env("SYNCLINE", env!("CARGO_BIN_EXE_syncline")).stdin(Stdio::null());
    shell
}

/// That every file and directory below `name` has the modes of this umask. Returns how many there are.
#[track_caller]
fn assert_modes(place: &Place, name: &str, umask: u32) -> u64 {
    let mut open = vec![place.path(name)];
    let mut seen = 0;
    while let Some(path) = open.pop() {
        // What is unfinished may have gone.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let full = if meta.is_dir() { 0o777 } else { 0o666 };
        let mode = meta.permissions().mode() & 0o7777;
        assert_eq!(mode, full & !umask, "{umask:03o}: {} is {mode:03o}", path.display());
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        seen += 1;
    }
    seen
}

#[test]
fn files_and_directories_are_as_the_umask_says() {
    for umask in UMASKS {
        // Without the right to enter a directory only root gets on.
        if umask == 0o177 && fs::metadata("/proc/self").unwrap().uid() != 0 {
            continue;
        }
        for scheme in ["file", "direct"] {
            let place = Place::new();
            place.write("small", b"small");
            place.write("large", &crate::run::bytes(9 << 20, 1));
            let base = format!("{scheme}://{}", place.text("made/base"));
            let objects = format!("{scheme}://{}", place.text("made/objects"));
            let line = format!(
                "\"$SYNCLINE\" save small large {base} --step 1
                 \"$SYNCLINE\" save small large {base} --step 2 --compress zstd
                 \"$SYNCLINE\" put large {objects}/deep/large
                 \"$SYNCLINE\" put small {objects}/small --create-only
                 \"$SYNCLINE\" get {objects}/small made/got
                 \"$SYNCLINE\" restore {base} made/restored/deeper
                 \"$SYNCLINE\" prune {base} --keep 1
                 \"$SYNCLINE\" bench {scheme}://{} --size 128KiB --sweep --threads 1 --parts 64KiB --plot made/plot.svg",
                place.text("made/bench")
            );
            let done = shell(&place, umask, &format!("mkdir made; {line}")).output().unwrap();
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(done.status.success(), "{umask:03o} {scheme}: {said}");
            let seen = assert_modes(&place, "made", umask);
            assert!(seen >= 15, "{seen} files and directories");
            figures::add("modes of files compared", seen);
        }
    }
}

/// What is unfinished holds the same bytes.
#[test]
fn unfinished_files_are_as_the_umask_says() {
    for umask in UMASKS {
        for scheme in ["file", "direct"] {
            let place = Place::new();
            fs::create_dir(place.path("made")).unwrap();
            fs::set_permissions(place.path("made"), fs::Permissions::from_mode(0o777 & !umask))
                .unwrap();
            let uri = format!("{scheme}://{}", place.text("made/object"));
            let mut command = shell(&place, umask, &format!("exec \"$SYNCLINE\" put - {uri}"));
            let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            input.write_all(&[7; 1 << 20]).unwrap();
            let is_there = || fs::read_dir(place.path("made")).unwrap().count() > 0;
            until("an upload", is_there);
            assert_eq!(assert_modes(&place, "made", umask), 2);
            drop(input);
            assert!(child.wait().unwrap().success());
            assert_eq!(assert_modes(&place, "made", umask), 2);
            figures::add("modes of files compared", 4);
        }
    }
}
