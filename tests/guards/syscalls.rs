//! System calls of a part and of an object, as strace sees them in a child.
//!
//! The child names what it does next by asking for a file that is not there. Calls that depend on nothing
//! but the engine are counted exactly, and one that is not in the table must not be made at all; those that
//! threads, allocator and network make as they go are bounded loosely.

use std::collections::{BTreeMap, HashMap};

use crate::child;
use crate::endpoint::Endpoint;
use crate::work::Work;

/// Calls by name.
type Calls = BTreeMap<String, usize>;

const PARTS: usize = 8;

/// The least of them counts: a timer, a short write or a list that grows are not the engine's.
const PASSES: usize = 3;

const WAYS: [&str; 3] = ["write_chunk", "write_borrowed", "read_into"];

/// Many small objects in one call: so many, and twice as many. More than are opened ahead.
const MANY: [&str; 2] = ["put_many", "get_many"];
const OBJECTS: usize = 24;

/// Where the names of what is done next seem to lie.
const MARK: &str = "/syncline-guards-mark/";

/// What is done once, beside objects of several parts.
const PUT: &str = "put";
const PUT_IN_NEW_FOLDERS: &str = "put in new folders";
const STAT: &str = "stat";

/// For each part, by handing it to a thread and waking whoever waits for it: measured up to 8 and 13, which
/// depends on who is asleep; crossbeam yields a few times before a thread sleeps.
const FUTEX_MAX: usize = 40;
const SCHED_YIELD_MAX: usize = 60;

/// Of the allocator, which grows the heap of a thread now and then: measured 0 to 2 in a phase.
const HEAP_MAX: usize = 1;
const HEAP: [&str; 5] = ["brk", "mmap", "munmap", "mprotect", "madvise"];

/// For an uploaded part: measured 5 (is the connection fit, has an answer come early, the answer) and 1.
const UPLOAD_RECVFROM_MAX: usize = 8;
const UPLOAD_POLL_MAX: usize = 4;

/// For a piece of 5 MiB that is read: measured 45, at least 40 by the 128 KiB of `RECEIVE_STEP_BYTES`. A
/// sender that is slow makes them more, up to one for each 64 KiB that the loopback carries at a time.
const RANGE_RECVFROM_MAX: usize = 90;
const RANGE_POLL_MAX: usize = 90;

/// Calls that must be made exactly so often, and how often others may be.
struct Bound {
    exact: Vec<(&'static str, usize)>,
    loose: Vec<(&'static str, usize)>,
}

/// What one part costs.
fn of_part(medium: &str, way: &str) -> Bound {
    let reads = way.starts_with("read");
    // In all: whether this is a copy of the process that came with a fork. Who writes asks before each lock
    // that another thread could have held then: of the batch, of the pool (for a buffer, and for its return).
    let asked = match way {
        "write_chunk" => 4,
        "write_borrowed" => 2,
        _ => 1,
    };
    let mut exact = vec![("getpid", asked)];
    let mut loose = Vec::new();
    exact.extend(match (medium, reads) {
        ("file", false) => vec![("pwrite64", 1), ("sync_file_range", 1)],
        ("direct", false) => vec![("pwrite64", 1)],
        (_, true) if !is_server(medium) => vec![("pread64", 1)],
        // Head and body; the body by a call that blocks, which is said before and after, for a slice of time.
        (_, false) => vec![("sendto", 2), ("ioctl", 2), ("setsockopt", 1)],
        (_, true) => vec![("sendto", 1)],
    });
    loose.extend(match (is_server(medium), reads) {
        (true, false) => vec![("recvfrom", UPLOAD_RECVFROM_MAX), ("poll", UPLOAD_POLL_MAX)],
        (true, true) => vec![("recvfrom", RANGE_RECVFROM_MAX), ("poll", RANGE_POLL_MAX)],
        (false, _) => vec![],
    });
    Bound { exact, loose }.with_threads()
}

/// What one small object of many costs, which share a folder.
fn of_one_of_many(medium: &str, way: &str) -> Bound {
    let exact: &[(&str, usize)] = match (medium, way) {
        // The folder is synced once for all of them.
        ("file", "put_many") => &[
            ("getpid", 2),
            ("statx", 4),
            ("openat", 1),
            ("getrandom", 1),
            ("pwrite64", 1),
            ("sync_file_range", 1),
            ("fdatasync", 1),
            ("renameat", 1),
            ("close", 1),
            ("fcntl", 1),
        ],
        ("direct", "put_many") => &[
            ("getpid", 3),
            ("statx", 5),
            ("openat", 1),
            ("getrandom", 1),
            ("pwrite64", 1),
            ("ftruncate", 1),
            ("fdatasync", 1),
            ("renameat", 1),
            ("close", 1),
            ("fcntl", 3),
        ],
        // The kernel is told of each file before it is read.
        ("file", _) => &[
            ("openat", 1),
            ("statx", 1),
            ("fadvise64", 1),
            ("pread64", 1),
            ("close", 1),
            ("fcntl", 1),
        ],
        // Into memory with the alignment that is asked for, a page for each; a buffer takes the unaligned end.
        ("direct", _) => &[
            ("getpid", 1),
            ("openat", 1),
            ("statx", 2),
            ("mmap", 1),
            ("munmap", 1),
            ("pread64", 2),
            ("close", 1),
            ("fcntl", 3),
        ],
        (_, "put_many") => &[("getrandom", 1), ("sendto", 2), ("ioctl", 2), ("setsockopt", 1)],
        _ => &[("sendto", 1)],
    };
    Bound { exact: exact.to_vec(), loose: answer(medium) }.with_threads()
}

/// What it takes to hear an answer.
fn answer(medium: &str) -> Vec<(&'static str, usize)> {
    if is_server(medium) {
        vec![("recvfrom", UPLOAD_RECVFROM_MAX), ("poll", UPLOAD_POLL_MAX)]
    } else {
        vec![]
    }
}

/// What is done once costs so much. `fcntl` is std's look at each descriptor that is closed (this profile
/// alone), and two for O_DIRECT.
fn of_object(medium: &str, what: &str) -> Bound {
    let exact: &[(&str, usize)] = match (medium, what) {
        ("file" | "direct", STAT) => &[("getpid", 1), ("statx", 1)],
        // The target, the folder's identity, the size before the sync, and what is told of it after.
        ("file", PUT) => &[
            ("getpid", 12),
            ("statx", 4),
            ("openat", 2),
            ("getrandom", 1),
            ("pwrite64", 1),
            ("fdatasync", 1),
            ("renameat", 1),
            ("fsync", 1),
            ("close", 2),
            ("fcntl", 2),
        ],
        // One more `statx` for the alignment; what was padded is cut off.
        ("direct", PUT) => &[
            ("getpid", 12),
            ("statx", 5),
            ("openat", 2),
            ("getrandom", 1),
            ("pwrite64", 1),
            ("ftruncate", 1),
            ("fdatasync", 1),
            ("renameat", 1),
            ("fsync", 1),
            ("close", 2),
            ("fcntl", 4),
        ],
        (_, STAT) => &[("getpid", 1), ("sendto", 1)],
        (_, PUT) => {
            &[("getpid", 8), ("getrandom", 1), ("sendto", 2), ("ioctl", 2), ("setsockopt", 1)]
        }
        _ => panic!("{medium} {what}"),
    };
    Bound { exact: exact.to_vec(), loose: answer(medium) }.with_threads()
}

fn is_server(medium: &str) -> bool {
    matches!(medium, "s3" | "az")
}

impl Bound {
    fn with_threads(mut self) -> Bound {
        self.loose.extend([("futex", FUTEX_MAX), ("sched_yield", SCHED_YIELD_MAX)]);
        self.loose.extend(HEAP.map(|name| (name, HEAP_MAX)));
        self
    }

    /// Fails unless what `times` of it cost are these calls.
    #[track_caller]
    fn hold(&self, calls: &Calls, times: usize, what: &str) {
        println!("{what}: {calls:?} for {times}");
        for (name, count) in calls {
            let exact = self.exact.iter().any(|(exact, _)| exact == name);
            let most = self.loose.iter().find(|(loose, _)| loose == name).map_or(0, |(_, n)| *n);
            assert!(
                exact || *count <= most * times,
                "{what}: {count} {name} for {times}, at most {most} each"
            );
        }
        for (name, expected) in &self.exact {
            let count = calls.get(*name).copied().unwrap_or(0);
            assert_eq!(count, expected * times, "{what}: {name} for {times}");
        }
    }
}

/// In a child: does everything once before, then between marks.
pub fn child(medium: &str, endpoint: &str) {
    let mut work = Work::on(medium, endpoint);
    work.prepare(2 * PARTS);
    work.put_small("small");
    for way in WAYS {
        run(&mut work, way, 2 * PARTS);
        for _ in 0..PASSES {
            for parts in [PARTS, 2 * PARTS] {
                marked(&format!("{way} {parts}"), || run(&mut work, way, parts));
            }
        }
    }
    for way in MANY {
        work.many(way, 2 * OBJECTS);
        for _ in 0..PASSES {
            for objects in [OBJECTS, 2 * OBJECTS] {
                marked(&format!("{way} {objects}"), || work.many(way, objects));
            }
        }
    }
    for pass in 0..PASSES {
        marked(PUT, || work.put_small("small"));
        marked(PUT_IN_NEW_FOLDERS, || work.put_small(&format!("new-{pass}/new/small")));
        marked(STAT, || drop(work.store.stat(&work.uri("small")).unwrap()));
    }
}

fn run(work: &mut Work, way: &str, parts: usize) {
    match way.starts_with("read") {
        true => drop(work.read(way, parts)),
        false => drop(work.write(way, parts)),
    }
}

fn marked(name: &str, f: impl FnOnce()) {
    let mark = |name| assert!(std::fs::metadata(format!("{MARK}{name}")).is_err());
    mark(name);
    f();
    mark("");
}

/// The calls of each thing that the child did, the least of all passes.
fn trace(medium: &str) -> HashMap<String, Calls> {
    let endpoint = Endpoint::start(medium);
    let log = tempfile::NamedTempFile::new().unwrap();
    let strace = ["strace", "-f", "-qq", "-o", log.path().to_str().unwrap()];
    child::run(&strace, &format!("trace {medium} {}", endpoint.url));
    least(&std::fs::read_to_string(log.path()).unwrap())
}

fn least(log: &str) -> HashMap<String, Calls> {
    let mut phases: Vec<(String, Calls)> = Vec::new();
    let mut counting = false;
    for line in log.lines() {
        let call = line.split_once(' ').unwrap().1.trim_start();
        // The end of a call that began on an earlier line; the end of a thread; a signal.
        if ["<... ", "+++ ", "--- "].iter().any(|start| call.starts_with(start)) {
            continue;
        }
        if let Some((_, name)) = call.split_once(MARK) {
            let name = name.split('"').next().unwrap().to_owned();
            counting = !name.is_empty();
            phases.extend(counting.then(|| (name, Calls::new())));
        } else if counting {
            let (name, _) = call.split_once('(').unwrap();
            let calls = &mut phases.last_mut().unwrap().1;
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    let mut least: HashMap<String, Calls> = HashMap::new();
    for (phase, calls) in phases {
        match least.get_mut(&phase) {
            None => drop(least.insert(phase, calls)),
            Some(known) => {
                known.retain(|name, _| calls.contains_key(name));
                known.iter_mut().for_each(|(name, count)| *count = calls[name].min(*count));
            }
        }
    }
    least
}

/// What the second half of an object of twice as many parts cost.
fn beyond(few: &Calls, many: &Calls) -> Calls {
    let more = |(name, count): (&String, &usize)| {
        let known = few.get(name).copied().unwrap_or(0);
        (name.clone(), count.saturating_sub(known))
    };
    many.iter().map(more).filter(|(_, count)| *count > 0).collect()
}

fn calls_are_these(medium: &str) {
    let calls = trace(medium);
    for way in WAYS {
        let [few, many] = [PARTS, 2 * PARTS].map(|parts| &calls[&format!("{way} {parts}")]);
        of_part(medium, way).hold(&beyond(few, many), PARTS, &format!("{medium} {way}"));
    }
    for way in MANY {
        let [few, many] = [OBJECTS, 2 * OBJECTS].map(|count| &calls[&format!("{way} {count}")]);
        of_one_of_many(medium, way).hold(&beyond(few, many), OBJECTS, &format!("{medium} {way}"));
    }
    for what in [PUT, STAT] {
        of_object(medium, what).hold(&calls[what], 1, &format!("{medium} {what}"));
    }
    if is_server(medium) {
        // There are no folders.
        of_object(medium, PUT).hold(&calls[PUT_IN_NEW_FOLDERS], 1, medium);
    } else {
        let calls = &calls[PUT_IN_NEW_FOLDERS];
        println!("{medium} {PUT_IN_NEW_FOLDERS}: {calls:?}");
        let count = |name: &str| calls.get(name).copied().unwrap_or(0);
        // Each new folder is made once and made durable in its parent; the object, in its own.
        assert_eq!(
            (count("mkdir") + count("mkdirat"), count("fsync"), count("fdatasync")),
            (2, 3, 1)
        );
    }
}

#[test]
fn calls_are_these_file() {
    calls_are_these("file");
}

#[test]
fn calls_are_these_direct() {
    calls_are_these("direct");
}

#[test]
fn calls_are_these_s3() {
    calls_are_these("s3");
}

#[test]
fn calls_are_these_az() {
    calls_are_these("az");
}

#[test]
fn a_log_is_counted_between_its_marks() {
    let log = "1 statx(AT_FDCWD, \"/syncline-guards-mark/a\", 0) = -1 ENOENT\n\
               2 pwrite64(3, \"x\", 1, 0 <unfinished ...>\n1 futex(0x7f, FUTEX_WAIT) = 0\n\
               2 <... pwrite64 resumed>) = 1\n2 +++ exited with 0 +++\n\
               1 statx(AT_FDCWD, \"/syncline-guards-mark/\", 0) = -1 ENOENT\n1 fsync(3) = 0\n\
               1 statx(AT_FDCWD, \"/syncline-guards-mark/a\", 0) = -1 ENOENT\n\
               1 pwrite64(3, \"x\", 1, 0) = 1\n1 pwrite64(3, \"x\", 1, 1) = 1\n";
    assert_eq!(
        least(log),
        HashMap::from([("a".to_owned(), Calls::from([("pwrite64".to_owned(), 1)]))])
    );
}
