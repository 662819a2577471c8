//! The real binary, and other processes, on one bucket.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use syncline::ErrorKind;
use syncline::checkpoint::CheckpointStore;

use crate::rig::{KEY, Rig, SECRET_KEY, STUCK, in_time, noise, s3, settings};
use crate::s3_model::{Fault, Operation, S3Model, error, key_of, operation};
use crate::scripted::{Answer, Request};

const STEP: u64 = 7;
const TS: &str = "20261122-120000-000";
const BASE: &str = "s3://bucket/runs/one";

/// Says to a test of this file that it is a child process, and where the server is.
const CHILD: &str = "SYNCLINE_TEST_CHILD_ENDPOINT";

/// The command, with nothing of the environment but what says where the server is.
fn command(place: &Path, s3: &S3Model, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncline"));
    command.env_clear().current_dir(place).args(args);
    command.env("HOME", place).env("AWS_ENDPOINT_URL", s3.endpoint());
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn with_keys(mut command: Command) -> Command {
    command.env("AWS_ACCESS_KEY_ID", "AKID").env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command
}

fn outputs(children: Vec<Child>) -> Vec<Output> {
    in_time(move || children.into_iter().map(|child| child.wait_with_output().unwrap()).collect())
}

/// Nobody's create-only Put of a key like this is done before `racers` have sent theirs.
fn hold_until_all_race(rig: &Rig, racers: usize, wanted: fn(&str) -> bool) -> Arc<AtomicUsize> {
    let arrived = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&arrived);
    rig.on_request(move |_, request: &Request| {
        let key = key_of(request).unwrap_or_default();
        if operation(request) == Operation::Put && wanted(&key) {
            counter.fetch_add(1, Ordering::SeqCst);
            let end = SystemTime::now() + STUCK;
            while counter.load(Ordering::SeqCst) < racers && SystemTime::now() < end {
                thread::sleep(Duration::from_millis(1));
            }
        }
        None
    });
    arrived
}

/// In a child process: finalizes the checkpoint of two ranks that the parent has saved.
#[test]
fn child_finalizes() {
    let Ok(endpoint) = std::env::var(CHILD) else { return };
    let config = settings().s3(s3(&endpoint)).build().unwrap();
    let checkpoints = CheckpointStore::open_with(BASE, &config).unwrap();
    let layout = checkpoints.layout(STEP, TS.parse().unwrap());
    let finalizer = checkpoints.writer(2, 0).unwrap();
    let outcome = finalizer.finalize_distributed_checkpoint(&layout, "generic", 0, None, STUCK);
    match outcome {
        Ok(_) => println!("outcome: won"),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => println!("outcome: lost"),
        Err(error) => println!("outcome: {error:?}"),
    }
}

#[test]
fn of_eight_processes_one_finalizes() {
    let rig = Rig::new();
    let config = settings().s3(s3(&rig.endpoint())).build().unwrap();
    let checkpoints = CheckpointStore::open_with(BASE, &config).unwrap();
    let layout = checkpoints.layout(STEP, TS.parse().unwrap());
    for rank in 0..2 {
        let data = noise(1000 + rank as usize, 1);
        checkpoints.writer(2, rank).unwrap().save_distributed_shard(&layout, &data).unwrap();
    }
    let is_manifest = |key: &str| key.contains("/manifests/") && !key.ends_with(".syncline-tmp");
    let arrived = hold_until_all_race(&rig, 8, is_manifest);
    let child = |_| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "programs::child_finalizes", "--nocapture"]);
        command.env(CHILD, rig.endpoint()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let outputs = outputs((0..8).map(child).collect());
    let count = |outcome: &str| {
        let says = |o: &&Output| String::from_utf8_lossy(&o.stdout).contains(outcome);
        outputs.iter().filter(says).count()
    };
    assert_eq!((count("outcome: won"), count("outcome: lost")), (1, 7), "{outputs:?}");
    assert!(arrived.load(Ordering::SeqCst) >= 8);
    rig.unhook();
    let manifests: Vec<_> = rig.keys().into_iter().filter(|key| is_manifest(key)).collect();
    assert_eq!(manifests.len(), 1);
    let manifest = checkpoints.reader().latest().unwrap().unwrap();
    assert_eq!((manifest.global_step, manifest.shards.len()), (STEP, 2));
    assert!(rig.orphans().is_empty());
}

/// By the command line all eight save the same shard: who wins it writes the manifest.
#[test]
fn of_eight_saves_one_succeeds() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("rank0.dat"), noise(5000, 2)).unwrap();
    let rig = Rig::new();
    let arrived = hold_until_all_race(&rig, 8, |key| key.ends_with("rank-0.bin"));
    let step = STEP.to_string();
    let save = |_| {
        let args = ["save", "--step", &step, "--ts", TS, "rank0.dat", BASE];
        with_keys(command(place.path(), &rig, &args)).spawn().unwrap()
    };
    let outputs = outputs((0..8).map(save).collect());
    let codes: Vec<_> = outputs.iter().map(|output| output.status.code()).collect();
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{outputs:?}");
    assert_eq!(codes.iter().filter(|code| **code == Some(3)).count(), 7, "{outputs:?}");
    assert_eq!(arrived.load(Ordering::SeqCst), 8);
    rig.unhook();
    assert_eq!(rig.keys().iter().filter(|key| key.contains("/manifests/")).count(), 1);
    let verify = with_keys(command(place.path(), &rig, &["verify", BASE]));
    let verified = outputs_of(verify);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
}

fn outputs_of(mut command: Command) -> Output {
    outputs(vec![command.spawn().unwrap()]).remove(0)
}

/// A program prints keys, which expire: it is run again, once for all threads.
#[test]
fn expired_keys_are_fetched_again_once() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let script = format!(
        "echo x >> {count}\nn=$(wc -l < {count})\n\
         echo '{{\"Version\":1,\"AccessKeyId\":\"AKID'$n'\",\"SecretAccessKey\":\"{SECRET_KEY}\",\
         \"SessionToken\":\"token-'$n'\"}}'\n",
        count = path("count").display()
    );
    std::fs::write(path("keys.sh"), script).unwrap();
    let config = format!(
        "[default]\nregion = us-east-1\ncredential_process = /bin/sh {}\n",
        path("keys.sh").display()
    );
    std::fs::write(path("config"), config).unwrap();
    std::fs::write(path("data"), noise(4 * crate::rig::PART + 1, 3)).unwrap();
    let calls = || std::fs::read_to_string(path("count")).unwrap().lines().count();
    let run = |rig: &Rig, args: &[&str]| {
        let mut command = command(place.path(), rig, args);
        command.env("AWS_CONFIG_FILE", path("config")).env("PATH", "/bin:/usr/bin");
        outputs_of(command)
    };
    // In the middle of an upload, with several parts under way.
    let rig = Rig::new();
    rig.on_request(|_, request| {
        let first = request.header("x-amz-security-token") == Some("token-1");
        (first && operation(request) == Operation::UploadPart)
            .then(|| Fault::Instead(error(400, "ExpiredToken").into()))
    });
    let uri = format!("s3://bucket/{KEY}");
    let done = run(&rig, &["put", "--part-size", "5MiB", "data", &uri]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(calls(), 2);
    rig.assert_holds(&noise(4 * crate::rig::PART + 1, 3));
    // Keys that are refused for good.
    let rig = Rig::new();
    rig.on_request(|_, _| Some(Fault::Instead(error(400, "ExpiredToken").into())));
    let failed = run(&rig, &["put", "data", &uri]);
    assert_eq!(failed.status.code(), Some(3), "{failed:?}");
    assert_eq!(calls(), 4);
    let text = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(
        text.contains("ExpiredToken") && !text.contains("token-") && !text.contains(SECRET_KEY),
        "{text}"
    );
}

/// One clear line, status 3, nothing visible, nothing left open.
#[test]
fn bad_input_is_told_in_one_line() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("small"), b"data").unwrap();
    std::fs::write(place.path().join("large"), noise(3 * crate::rig::PART, 4)).unwrap();
    type Refusal = fn(&Request) -> Answer;
    let cases: [(&str, Refusal, &str); 6] = [
        ("bad key", |_| error(403, "InvalidAccessKeyId"), "check the access key"),
        ("bad secret", |_| error(403, "SignatureDoesNotMatch"), "check the access key"),
        ("no right", |_| error(403, "AccessDenied"), "check the credentials"),
        ("no bucket", |_| error(404, "NoSuchBucket"), "create the bucket"),
        ("expired", |_| error(400, "ExpiredToken"), "temporary credentials"),
        ("wrong region", |_| error(301, "PermanentRedirect"), "region"),
    ];
    for (what, refusal, remedy) in cases {
        let rig = Rig::new();
        rig.on_request(move |_, request| Some(Fault::Instead(refusal(request).into())));
        for args in [
            ["put", "small", "s3://bucket/x"].as_slice(),
            &["put", "large", "s3://bucket/x", "--part-size", "5MiB"],
            &["get", "s3://bucket/x", "out"],
            &["save", "--step", "1", "small", BASE],
            &["ls", BASE],
            &["gc", BASE],
        ] {
            let failed = outputs_of(with_keys(command(place.path(), &rig, args)));
            let text = String::from_utf8_lossy(&failed.stderr).into_owned();
            assert_eq!(failed.status.code(), Some(3), "{what} {args:?}: {text}");
            assert_eq!(text.trim_end().lines().count(), 1, "{what} {args:?}: {text}");
            assert!(
                text.starts_with("syncline: ") && text.contains(remedy),
                "{what} {args:?}: {text}"
            );
            assert!(!place.path().join("out").exists());
        }
        rig.assert_nothing();
    }
}

/// `syncline gc` finds stale uploads, and removes them when told to.
#[test]
fn gc_removes_stale_uploads() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("rank0.dat"), b"data").unwrap();
    let rig = Rig::new();
    let saved = outputs_of(with_keys(command(
        place.path(),
        &rig,
        &["save", "--step", "1", "rank0.dat", BASE],
    )));
    assert_eq!(saved.status.code(), Some(0), "{saved:?}");
    let old = SystemTime::now() - Duration::from_secs(30 * 86_400);
    let stale = rig.open_upload("runs/one/shards/ckpt-2-20261101-000000-000/rank-0.bin", old);
    rig.send_part(&stale, 1, &noise(1234, 5));
    let others = rig.open_upload("runs/one-more/shards/x", old);
    let young =
        rig.open_upload("runs/one/shards/ckpt-3-20261122-000000-000/rank-0.bin", SystemTime::now());
    let keys = rig.keys();
    let gc = |args: &[&str]| {
        let done = outputs_of(with_keys(command(
            place.path(),
            &rig,
            &[&["gc", BASE, "--older-than", "7d"], args].concat(),
        )));
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let listed = gc(&[]);
    assert!(
        listed.contains("ckpt-2-20261101")
            && !listed.contains("ckpt-3")
            && !listed.contains("one-more"),
        "{listed}"
    );
    assert!(rig.uploads().contains_key(&stale));
    gc(&["--delete"]);
    let left: Vec<String> = rig.uploads().into_keys().collect();
    assert_eq!(left, [others, young]);
    assert_eq!(rig.keys(), keys);
}
