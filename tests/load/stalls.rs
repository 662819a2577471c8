//! Servers that stand still: every call returns in time, whatever it is and however the server stands still,
//! and says who waits for what and where.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use syncline::checkpoint::{CheckpointInfo, CheckpointStore};
use syncline::{
    Bytes, Config, Error, ErrorKind, HttpConfig, ObjectStore, Result, WriteOptions, open_store,
};

use crate::data::noise;
use crate::figures;
use crate::in_time::{STUCK, in_time};
use crate::place::{Place, reaching};
use crate::s3_model::Fault;
use crate::scripted::{Answer, Request, Step};

/// A healthy call takes a thousandth of it.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// Longer than anything waits.
const LONG: Duration = Duration::from_secs(3600);

/// How many timeouts a call may take: one for itself, one to clear away, and the rest for a machine that does
/// many things.
const TIMEOUTS_MAX: u32 = 10;

const PART: usize = 5 << 20;

/// What each call is made on.
struct Ground {
    call: &'static str,
    store: Arc<dyn ObjectStore>,
    checkpoints: CheckpointStore,
    base: String,
    saved: CheckpointInfo,
    data: Arc<Vec<u8>>,
}

impl Ground {
    fn uri(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }

    /// Of an object that no other call is about.
    fn new_uri(&self) -> String {
        format!("{}/new/{}", self.base, self.call)
    }
}

struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

type Call = fn(&Ground) -> Result<()>;

/// Every public call that asks a server for something.
const CALLS: [(&str, Call); 27] = [
    ("put", |g| g.store.put(&g.new_uri(), &g.data[..1000]).map(drop)),
    ("write_chunk", |g| {
        let mut writer = g.store.get_writer(&g.new_uri())?;
        (0..9).try_for_each(|_| writer.write_chunk(&g.data))?;
        writer.finalize().map(drop)
    }),
    ("write_owned", |g| {
        let mut writer = g.store.get_writer(&g.new_uri())?;
        let owned = Bytes::from_owner(Shared(Arc::clone(&g.data)));
        (0..9).try_for_each(|_| writer.write_owned(owned.clone()))?;
        writer.finalize().map(drop)
    }),
    ("write_borrowed", |g| {
        let mut writer = g.store.get_writer(&g.new_uri())?;
        writer.write_borrowed(&g.data)?;
        writer.finalize().map(drop)
    }),
    ("reserve", |g| {
        let mut writer = g.store.get_writer(&g.new_uri())?;
        for _ in 0..9 {
            let bytes = writer.reserve()?.len();
            writer.commit(bytes)?;
        }
        writer.finalize().map(drop)
    }),
    ("finalize", |g| {
        let mut writer = g.store.get_writer(&g.new_uri())?;
        writer.write_chunk(&g.data)?;
        writer.finalize().map(drop)
    }),
    ("cancel", |g| {
        let mut writer = g.store.get_writer(&g.new_uri())?;
        // Whether the parts go their way or not.
        let _ = writer.write_chunk(&g.data);
        writer.cancel()
    }),
    ("drop", |g| {
        let mut writer = g.store.get_writer(&g.new_uri())?;
        let written = writer.write_chunk(&g.data);
        drop(writer);
        written
    }),
    ("get", |g| g.store.get(&g.uri("large")).map(drop)),
    ("get_range", |g| g.store.get_range(&g.uri("large"), 100, Some(200)).map(drop)),
    ("read_into", |g| g.store.read_into(&g.uri("large"), 0, &mut vec![0; g.data.len()]).map(drop)),
    ("block_checksums", |g| g.store.block_checksums(&g.uri("large"), 1 << 20).map(drop)),
    ("list", |g| g.store.list(&g.base)?.try_for_each(|meta| meta.map(drop))),
    ("stat", |g| g.store.stat(&g.uri("large")).map(drop)),
    ("delete", |g| g.store.delete(&g.uri("doomed/1"))),
    ("delete_many", |g| g.store.delete_many(&[g.uri("doomed/2"), g.uri("doomed/3")]).map(drop)),
    ("delete_prefix", |g| g.store.delete_prefix(&g.uri("doomed")).map(drop)),
    ("orphans", |g| g.store.orphans(&g.base, Duration::ZERO).map(drop)),
    ("put_many", |g| {
        let uris: Vec<String> = (0..20).map(|n| format!("{}/{n}", g.new_uri())).collect();
        let objects: Vec<(&str, &[u8])> =
            uris.iter().map(|uri| (uri.as_str(), &g.data[..1000])).collect();
        let put = g.store.put_many(&objects, WriteOptions::default());
        put.into_iter().try_for_each(|outcome| outcome.map(drop))
    }),
    ("get_many", |g| {
        let (small, large) = (g.uri("small"), g.uri("large"));
        let got = g.store.get_many(&[(small.as_str(), None), (large.as_str(), None)]);
        got.into_iter().try_for_each(|outcome| outcome.map(drop))
    }),
    ("save", |g| g.checkpoints.save(2, 0, "test", &g.data, None).map(drop)),
    ("load_latest", |g| g.checkpoints.load_latest().map(drop)),
    ("load_latest_good", |g| g.checkpoints.reader().load_latest_good().map(drop)),
    ("verify", |g| {
        let report = g.checkpoints.verify(&g.saved, &|_| ())?;
        // What cannot be read is in the report.
        match report.is_good() {
            true => Ok(()),
            false => g.store.stat(&g.uri("large")).map(drop),
        }
    }),
    ("checkpoints", |g| g.checkpoints.list().map(drop)),
    ("gc", |g| g.checkpoints.gc(Duration::ZERO, true).map(drop)),
    ("prune", |g| g.checkpoints.prune(1).map(drop)),
];

/// How a server stands still.
struct Stall {
    says: &'static str,
    hook: fn(&Request) -> Option<Fault>,
    /// Whether it answers all but parts.
    of_parts: bool,
}

/// The calls that may succeed all the same: what is given up need not have begun, and may still be queued.
const SPARED: [&str; 2] = ["cancel", "drop"];

/// The calls that make an object of several parts.
const IN_PARTS: [&str; 6] =
    ["write_chunk", "write_owned", "write_borrowed", "reserve", "finalize", "save"];

const STALLS: [Stall; 6] = [
    Stall {
        // Of a large body it takes what the kernel does.
        says: "reads no body and answers nothing",
        hook: |_| Some(Fault::Early(Step::Hang(LONG))),
        of_parts: false,
    },
    Stall { says: "answers nothing", hook: |_| Some(SILENT), of_parts: false },
    Stall {
        says: "does it and answers nothing",
        hook: |_| Some(Fault::After(Step::Hang(LONG))),
        of_parts: false,
    },
    Stall {
        says: "stands still within an answer",
        hook: |request| {
            let hang = |answer| promising(answer).hang_after(10, LONG);
            Some(if request.method == "HEAD" { SILENT } else { Fault::Changed(hang) })
        },
        of_parts: false,
    },
    Stall {
        says: "answers byte by byte",
        hook: |request| {
            let trickle = |answer| promising(answer).trickle(1, Duration::from_millis(20));
            Some(if request.method == "HEAD" { SILENT } else { Fault::Changed(trickle) })
        },
        of_parts: false,
    },
    Stall {
        says: "takes no part",
        hook: |request| {
            let names = ["partNumber", "blockid"];
            names.iter().any(|name| request.param(name).is_some()).then_some(SILENT)
        },
        of_parts: true,
    },
];

/// For requests whose answers have no body.
const SILENT: Fault = Fault::Instead(Step::Hang(LONG));

/// An answer that has more to come than it has.
fn promising(answer: Answer) -> Answer {
    let answer = match answer.body.is_empty() {
        true => answer.body(vec![b' '; 100_000]),
        false => answer,
    };
    let bytes = answer.body.len().max(100_000);
    answer.header("content-length", bytes.to_string())
}

/// How long calls are waited for, and each answer.
fn config(medium: &str, url: &str, timeout: Duration, response_timeout: Duration) -> Config {
    let http = HttpConfig::new().connect_timeout(timeout / 4).response_timeout(response_timeout);
    let config = Config::builder()
        .part_bytes(PART)
        .io_threads(2)
        .queue_depth_parts(2)
        .open_writers_max(2)
        .http(http)
        .timeout(timeout);
    reaching(config, medium, url).build().unwrap()
}

fn impatient(medium: &str, url: &str) -> Config {
    // One that gives up a connection before the call, and one that never does.
    config(medium, url, TIMEOUT, if medium == "s3" { TIMEOUT / 4 } else { LONG })
}

/// For what must succeed, however busy the machine is.
fn patient(medium: &str, url: &str) -> Config {
    config(medium, url, STUCK, STUCK)
}

/// What came of a call.
struct Returned {
    call: &'static str,
    outcome: Result<()>,
    taken: Duration,
}

/// Makes every call, or those that write parts, all at the same time, each on a store of its own.
fn make_all(
    medium: &'static str,
    of_parts: bool,
    (base, url): (&str, &str),
    saved: &CheckpointInfo,
) -> Vec<Returned> {
    let data = Arc::new(noise(2 * PART, 3));
    let (sender, receiver) = channel();
    let mut waiting = BTreeSet::new();
    for (name, call) in CALLS {
        if of_parts && !IN_PARTS.contains(&name) {
            continue;
        }
        waiting.insert(name);
        let (data, saved, base) = (Arc::clone(&data), saved.clone(), base.to_owned());
        let (config, sender) = (impatient(medium, url), sender.clone());
        std::thread::spawn(move || {
            let store = open_store(&base, &config).unwrap();
            let checkpoints = CheckpointStore::new(Arc::clone(&store), &base);
            let ground = Ground { call: name, store, checkpoints, base, saved, data };
            let started = Instant::now();
            let outcome = call(&ground);
            let taken = started.elapsed();
            // The store ends with it, which must come to an end too.
            drop(ground);
            sender.send(Returned { call: name, outcome, taken })
        });
    }
    drop(sender);
    let mut all = Vec::new();
    while !waiting.is_empty() {
        let returned = receiver.recv_timeout(STUCK);
        let returned = returned.unwrap_or_else(|_| panic!("{medium}: {waiting:?} do not return"));
        waiting.remove(returned.call);
        all.push(returned);
    }
    all
}

/// Makes the calls and judges what comes of them. Returns the errors.
fn call_all(
    medium: &'static str,
    (stall, of_parts): (&str, bool),
    at: (&str, &str),
    saved: &CheckpointInfo,
) -> Vec<Error> {
    let endpoint = at.1.trim_start_matches("http://").split('/').next().unwrap();
    let returned = make_all(medium, of_parts, at, saved);
    figures::add("calls on servers that stand still", returned.len() as u64);
    let mut errors = Vec::new();
    for Returned { call, outcome, taken } in returned {
        let what = format!("{medium} {stall}: {call}");
        let told = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
        assert!(taken < TIMEOUT * TIMEOUTS_MAX, "{what} took {taken:?}: {told}");
        assert!(outcome.is_err() || SPARED.contains(&call), "{what} succeeds");
        if let Err(error) = outcome {
            told_well(&what, &error, endpoint);
            errors.push(error);
        }
    }
    errors
}

/// What waiting in vain ends with.
const IN_VAIN: [ErrorKind; 2] = [ErrorKind::TimedOut, ErrorKind::Unavailable];

/// Who waits, for what part of which object, where.
fn told_well(what: &str, error: &Error, endpoint: &str) {
    if error.kind() == ErrorKind::NotFound {
        // Where heads are answered, and another call has removed it.
        return;
    }
    assert!(IN_VAIN.contains(&error.kind()), "{what}: {error:?}");
    let text = error.to_string();
    assert!(text.contains(endpoint), "{what} does not say where: {text}");
    assert!(error.uri().is_some(), "{what} does not say of what: {text}");
    if error.kind() == ErrorKind::TimedOut {
        assert!(text.contains("syncline-"), "{what} does not say which thread: {text}");
    }
    if error.operation() == "write part" {
        assert!(error.part().is_some(), "{what} does not say which part: {text}");
    }
}

fn every_call_returns(medium: &'static str) {
    for Stall { says, hook, of_parts } in STALLS {
        let place = Place::new(medium);
        let store = open_store(&place.base, &patient(medium, &place.url)).unwrap();
        store.put(&format!("{}/large", place.base), &noise(2 * PART, 3)).unwrap();
        for name in ["small", "doomed/1", "doomed/2", "doomed/3"] {
            store.put(&format!("{}/{name}", place.base), b"small").unwrap();
        }
        let saved = CheckpointStore::new(store, &place.base);
        let saved = saved.save(1, 0, "test", &noise(1000, 4), None).unwrap();
        let config = impatient(medium, &place.url);
        let checkpoints = CheckpointStore::open_with(&place.base, &config).unwrap();
        place.on_request(hook);
        let stalled = checkpoints.save(3, 0, "test", &noise(2 * PART, 5), None);
        assert!(stalled.is_err(), "{medium} {says}");
        let errors = call_all(medium, (says, of_parts), (&place.base, &place.url), &saved);
        let tells_part = errors.iter().any(|error| error.operation() == "write part");
        assert!(tells_part || !of_parts, "{medium} {says}: {errors:?}");
        place.on_request(|_| None);
        // The same store goes on when the server does.
        in_time(move || goes_on(&checkpoints));
    }
}

/// Within as many tries as a busy machine may need.
fn goes_on(checkpoints: &CheckpointStore) {
    for step in 4.. {
        match checkpoints.save(step, 0, "test", b"it answers again", None) {
            Ok(_) => return,
            Err(error) => assert!(IN_VAIN.contains(&error.kind()), "{error}"),
        }
    }
}

#[test]
fn every_call_returns_while_s3_stands_still() {
    every_call_returns("s3");
}

#[test]
fn every_call_returns_while_azure_stands_still() {
    every_call_returns("az");
}

/// A server that accepts no connection: the kernel drops what does not fit its backlog.
#[test]
fn every_call_returns_while_no_connection_is_accepted() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let fillers: Vec<TcpStream> = (0..4)
        .map_while(|_| TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok())
        .collect();
    assert!(fillers.len() < 4, "the backlog is never full");
    let healthy = Place::new("s3");
    let checkpoints =
        CheckpointStore::open_with(&healthy.base, &patient("s3", &healthy.url)).unwrap();
    let saved = checkpoints.save(1, 0, "test", b"x", None).unwrap();
    let url = format!("http://{address}");
    for (medium, base, url) in [
        ("s3", "s3://container/base", url.clone()),
        ("az", "az://account/container/base", format!("{url}/account")),
    ] {
        call_all(medium, ("accepts nothing", false), (base, &url), &saved);
    }
}
