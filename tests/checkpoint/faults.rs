//! A medium that fails: an error never becomes an empty list, a missing object, or a lost
//! checkpoint.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use syncline::checkpoint::{CheckpointInfo, CheckpointStore};
use syncline::{
    AlignedVec, BlockChecksums, Bytes, CompressedForm, Config, Error, ErrorKind, Filter, FrameScan,
    Medium, ObjectList, ObjectMeta, ObjectStore, ObjectWriter, Orphan, ReadReport, Result,
    ScanOptions, WriteOptions, open_store,
};

/// Passes everything on, but fails one operation on URIs that contain a text.
struct Faulty {
    inner: Arc<dyn ObjectStore>,
    rule: Mutex<Option<(&'static str, &'static str)>>,
}

/// An error that no code may take for an absence.
fn failure() -> Error {
    AlignedVec::zeroed(usize::MAX / 4).unwrap_err()
}

impl Faulty {
    fn check(&self, operation: &str, uri: &str) -> Result<()> {
        match *self.rule.lock().unwrap() {
            Some((failing, part)) if failing == operation && uri.contains(part) => Err(failure()),
            _ => Ok(()),
        }
    }
}

impl ObjectStore for Faulty {
    fn get_writer_with(&self, uri: &str, options: WriteOptions) -> Result<Box<dyn ObjectWriter>> {
        self.check("write", uri)?;
        self.inner.get_writer_with(uri, options)
    }
    fn get(&self, uri: &str) -> Result<Bytes> {
        self.check("read", uri)?;
        self.inner.get(uri)
    }
    fn get_range(&self, uri: &str, offset: u64, length: Option<u64>) -> Result<Bytes> {
        self.check("read", uri)?;
        self.inner.get_range(uri, offset, length)
    }
    fn read_into(&self, uri: &str, offset: u64, buffer: &mut [u8]) -> Result<ReadReport> {
        self.check("read", uri)?;
        self.inner.read_into(uri, offset, buffer)
    }
    fn read_into_verified(
        &self,
        uri: &str,
        offset: u64,
        buffer: &mut [u8],
        expected: &BlockChecksums,
    ) -> Result<ReadReport> {
        self.check("read", uri)?;
        self.inner.read_into_verified(uri, offset, buffer, expected)
    }
    fn get_with_validation(&self, uri: &str, expected: &str) -> Result<Bytes> {
        self.inner.get_with_validation(uri, expected)
    }
    fn get_range_with_validation(
        &self,
        uri: &str,
        offset: u64,
        length: Option<u64>,
        expected: &str,
    ) -> Result<Bytes> {
        self.inner.get_range_with_validation(uri, offset, length, expected)
    }
    fn block_checksums_with(
        &self,
        uri: &str,
        block_bytes: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<BlockChecksums> {
        self.check("read", uri)?;
        self.inner.block_checksums_with(uri, block_bytes, progress)
    }
    fn decompress_into(
        &self,
        uri: &str,
        form: CompressedForm,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<ReadReport> {
        self.check("read", uri)?;
        self.inner.decompress_into(uri, form, offset, buffer)
    }
    fn decompress_into_verified(
        &self,
        uri: &str,
        form: CompressedForm,
        offset: u64,
        buffer: &mut [u8],
        expected: &BlockChecksums,
    ) -> Result<ReadReport> {
        self.check("read", uri)?;
        self.inner.decompress_into_verified(uri, form, offset, buffer, expected)
    }
    fn compressed_form(&self, uri: &str, filter: Filter) -> Result<CompressedForm> {
        self.check("read", uri)?;
        self.inner.compressed_form(uri, filter)
    }
    fn scan_compressed(
        &self,
        uri: &str,
        form: CompressedForm,
        options: ScanOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<FrameScan> {
        self.check("read", uri)?;
        self.inner.scan_compressed(uri, form, options, progress)
    }
    fn list(&self, uri: &str) -> Result<ObjectList> {
        if let Some(("lag", part)) = *self.rule.lock().unwrap() {
            // A listing that does not show yet what was just written.
            let shown = move |object: &Result<ObjectMeta>| {
                !object.as_ref().is_ok_and(|object| object.uri.contains(part))
            };
            return Ok(Box::new(self.inner.list(uri)?.filter(shown)));
        }
        self.inner.list(uri).map(|list| match self.check("list", uri) {
            Ok(()) => list,
            // The listing breaks off in its middle.
            Err(error) => Box::new(list.take(1).chain([Err(error)])),
        })
    }
    fn stat(&self, uri: &str) -> Result<ObjectMeta> {
        if matches!(*self.rule.lock().unwrap(), Some(("vanish", part)) if uri.contains(part)) {
            // It was listed, but is gone when it is asked for.
            return self.inner.stat(&format!("{uri}.absent"));
        }
        self.check("stat", uri)?;
        self.inner.stat(uri)
    }
    fn delete(&self, uri: &str) -> Result<()> {
        self.check("delete", uri)?;
        self.inner.delete(uri)
    }
    fn delete_prefix(&self, uri: &str) -> Result<u64> {
        self.check("delete", uri)?;
        self.inner.delete_prefix(uri)
    }
    fn exists(&self, uri: &str) -> Result<bool> {
        self.check("stat", uri)?;
        self.inner.exists(uri)
    }
    fn orphans(&self, uri: &str, older_than: Duration) -> Result<Vec<Orphan>> {
        self.check("list", uri)?;
        self.inner.orphans(uri, older_than)
    }
    fn delete_orphan(&self, orphan: &Orphan) -> Result<()> {
        self.inner.delete_orphan(orphan)
    }
    fn medium(&self, uri: &str) -> Result<Medium> {
        self.inner.medium(uri)
    }
    fn config(&self) -> &Config {
        self.inner.config()
    }
}

struct Faults {
    store: Arc<Faulty>,
    checkpoints: CheckpointStore,
}

impl Faults {
    /// A base with the checkpoints 1 and 2, each of ranks 0 and 1.
    fn new(name: &str) -> Faults {
        let base = format!("mem://{name}/base");
        let inner = open_store(&base, &Config::default()).unwrap();
        let store = Arc::new(Faulty { inner, rule: Mutex::new(None) });
        let faults = Faults { checkpoints: CheckpointStore::new(store.clone(), &base), store };
        faults.save(1).unwrap();
        faults.save(2).unwrap();
        faults
    }

    fn save(&self, step: u64) -> Result<CheckpointInfo> {
        let layout = self.checkpoints.layout(step, "x".parse().unwrap());
        for rank in 0..2 {
            self.checkpoints.writer(2, rank)?.save_distributed_shard(&layout, b"data")?;
        }
        let finalizer = self.checkpoints.writer(2, 0)?;
        finalizer.finalize_distributed_checkpoint(&layout, "generic", 0, None, Duration::ZERO)
    }

    /// Does something while an operation on some objects fails.
    fn failing<T>(&self, operation: &'static str, part: &'static str, f: impl FnOnce() -> T) -> T {
        *self.store.rule.lock().unwrap() = Some((operation, part));
        let outcome = f();
        *self.store.rule.lock().unwrap() = None;
        outcome
    }

    fn latest_step(&self) -> u64 {
        self.checkpoints.reader().latest().unwrap().unwrap().global_step
    }

    fn objects(&self) -> usize {
        self.store.list(&self.checkpoints.uri("")).unwrap().count()
    }
}

#[test]
fn the_hint_and_the_receipts_do_not_decide_a_save() {
    let f = Faults::new("faults-hint");
    f.failing("write", "latest.json", || f.save(3)).unwrap();
    assert_eq!(f.latest_step(), 3);
    f.failing("read", "latest.json", || assert_eq!(f.latest_step(), 3));
    f.failing("delete", "receipts/", || f.save(4)).unwrap();
    assert_eq!(f.latest_step(), 4);
    let left = f.checkpoints.gc(Duration::ZERO, true).unwrap();
    assert_eq!(left.garbage.len(), 2);
    assert_eq!(f.latest_step(), 4);
}

#[test]
fn a_hint_ahead_of_a_lagging_listing_counts() {
    let f = Faults::new("faults-lag");
    f.failing("lag", "manifests/ckpt-2", || assert_eq!(f.latest_step(), 2));
    // What was just saved is the newest, although the listing does not show it.
    f.failing("lag", "manifests/ckpt-3", || {
        f.save(3).unwrap();
        assert_eq!(f.latest_step(), 3);
    });
    f.store.delete(&f.checkpoints.uri("manifests/ckpt-3-x.json")).unwrap();
    assert_eq!(f.latest_step(), 2);
}

#[test]
fn a_failed_save_changes_nothing_for_readers() {
    let f = Faults::new("faults-save");
    let cases = [
        ("write", "shards/"),
        ("write", "receipts/"),
        ("write", "manifests/"),
        ("list", "receipts/"),
        ("list", "shards/"),
        ("read", "receipts/"),
        ("stat", "manifests/"),
    ];
    for (step, (operation, part)) in (10..).zip(cases) {
        let error = f.failing(operation, part, || f.save(step)).unwrap_err();
        assert_eq!(error.kind(), failure().kind(), "{operation} {part}: {error}");
        assert_eq!(f.latest_step(), 2);
    }
    f.save(20).unwrap();
    assert_eq!(f.latest_step(), 20);
}

#[test]
fn a_failed_listing_is_not_an_empty_one() {
    let f = Faults::new("faults-list");
    let checkpoints = &f.checkpoints;
    f.failing("list", "manifests", || {
        let reader = checkpoints.reader();
        assert!(reader.latest().is_err());
        assert!(reader.list_checkpoints().is_err());
        assert!(reader.find_manifest_by_step(1).is_err());
        assert!(checkpoints.load_latest().is_err());
        assert!(checkpoints.list().is_err());
        assert!(checkpoints.prune(1).is_err());
        assert!(checkpoints.delete_checkpoint(1, None).is_err());
        assert!(checkpoints.gc(Duration::ZERO, true).is_err());
    });
    assert_eq!(f.objects(), 7);
}

#[test]
fn nothing_is_removed_on_the_word_of_a_failed_read() {
    let f = Faults::new("faults-remove");
    for (operation, part) in [
        ("read", "manifests/ckpt-2"),
        ("stat", "manifests/ckpt-2"),
        ("read", "manifests/ckpt-1"),
        ("list", "shards"),
    ] {
        let (pruned, collected) = f.failing(operation, part, || {
            (f.checkpoints.prune(1), f.checkpoints.gc(Duration::ZERO, true))
        });
        assert_eq!(pruned.unwrap_err().kind(), failure().kind(), "{operation} {part}");
        assert!(collected.is_err(), "{operation} {part}");
        assert_eq!(f.objects(), 7);
    }
    assert_eq!(f.checkpoints.prune(1).unwrap().removed.len(), 1);
}

/// A medium that fails is no reason to go back to an older checkpoint: nothing is wrong with the newest.
#[test]
fn a_failing_medium_sets_nobody_back() {
    let f = Faults::new("faults-restart");
    let reader = f.checkpoints.reader();
    let ways: [&dyn Fn() -> Result<Option<u64>>; 3] = [
        &|| {
            let load = |m: &_| reader.read_shard_by_rank(m, 1);
            Ok(reader.newest_good(load)?.map(|good| good.info.step))
        },
        &|| Ok(reader.load_latest_good()?.map(|good| good.info.step)),
        &|| Ok(reader.choose_good_step()?.map(|choice| choice.info.step)),
    ];
    for way in ways {
        for (operation, part) in [
            ("list", "manifests"),
            ("stat", "manifests/ckpt-2"),
            ("read", "manifests/ckpt-2"),
            ("stat", "ckpt-2-x/rank-1.bin"),
            ("read", "ckpt-2-x/rank-1.bin"),
        ] {
            let error = f.failing(operation, part, way).unwrap_err();
            assert_eq!(error.kind(), failure().kind(), "{operation} {part}: {error}");
        }
        // An older one that cannot be read does not matter.
        assert_eq!(f.failing("read", "ckpt-1", way).unwrap(), Some(2));
        assert_eq!(f.failing("read", "latest.json", way).unwrap(), Some(2));
        // What was listed and is gone, as after a prune, is gone.
        assert_eq!(f.failing("vanish", "ckpt-2-x", way).unwrap(), Some(1));
        // A listing that lags behind hides nothing from the hint.
        assert_eq!(f.failing("lag", "manifests/ckpt-2", way).unwrap(), Some(2));
        assert_eq!(way().unwrap(), Some(2));
    }
    // Damage of the newest, and then a medium that fails: not two steps back.
    f.save(3).unwrap();
    f.store.delete(&f.checkpoints.uri("shards/ckpt-3-x/rank-1.bin")).unwrap();
    for way in ways {
        assert_eq!(way().unwrap(), Some(2));
        let error = f.failing("read", "ckpt-2-x/rank-1.bin", way).unwrap_err();
        assert_eq!(error.kind(), failure().kind(), "{error}");
    }
}

#[test]
fn a_manifest_that_vanishes_meanwhile_is_no_failure() {
    let f = Faults::new("faults-vanish");
    let collected =
        f.failing("vanish", "manifests/ckpt-1", || f.checkpoints.gc(Duration::ZERO, true));
    assert!(collected.unwrap().garbage.is_empty());
    let pruned = f.failing("vanish", "manifests/ckpt-1", || f.checkpoints.prune(1)).unwrap();
    assert!(pruned.removed.is_empty());
    assert_eq!(f.objects(), 7);
}

#[test]
fn an_interrupted_prune_leaves_whole_checkpoints_and_garbage() {
    let f = Faults::new("faults-prune");
    f.failing("delete", "shards/ckpt-1", || f.checkpoints.prune(1)).unwrap_err();
    let named = f.checkpoints.reader().list_checkpoints().unwrap();
    assert_eq!(named.iter().map(|info| info.step).collect::<Vec<_>>(), [2]);
    assert_eq!(f.checkpoints.gc(Duration::ZERO, true).unwrap().garbage.len(), 2);
    assert!(f.checkpoints.verify(&named[0], &|_| ()).unwrap().is_good());
}

/// The hint first, then the manifest, then the shards: whoever stops in between, the hint names what is
/// there.
#[test]
fn checkpoints_are_removed_in_the_order_of_their_names() {
    let f = Faults::new("faults-order");
    let hint = || {
        let text = f.store.get(&f.checkpoints.uri("latest.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["global_step"].clone()
    };
    let delete = || f.checkpoints.delete_checkpoint(2, None);
    f.failing("write", "latest.json", delete).unwrap_err();
    assert_eq!((hint(), f.latest_step(), f.objects()), (2.into(), 2, 7));
    f.failing("delete", "manifests/ckpt-2", delete).unwrap_err();
    assert_eq!((hint(), f.latest_step(), f.objects()), (1.into(), 2, 7));
    f.failing("delete", "shards/ckpt-2", delete).unwrap_err();
    assert_eq!((hint(), f.latest_step(), f.objects()), (1.into(), 1, 6));
}

#[test]
fn a_prune_that_cannot_read_what_it_keeps_removes_nothing() {
    let f = Faults::new("faults-proof");
    let error = f.failing("read", "shards/", || f.checkpoints.prune(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(f.objects(), 7);
    // One that fails to read proves nothing: the one before it stays.
    let report = f.failing("read", "shards/ckpt-2", || f.checkpoints.prune(1)).unwrap();
    assert_eq!((report.removed.len(), report.proven.unwrap().step), (0, 1));
    assert_eq!(f.objects(), 7);
}

#[test]
fn a_shard_that_does_not_read_is_in_the_report() {
    let f = Faults::new("faults-verify");
    let named = f.checkpoints.reader().list_checkpoints().unwrap();
    let report = f
        .failing("read", "ckpt-2-x/rank-1.bin", || f.checkpoints.verify(&named[1], &|_| ()))
        .unwrap();
    assert!(!report.is_good());
    let report = serde_json::to_value(&report).unwrap();
    assert_eq!(report["shards"][0]["state"], "ok");
    assert_eq!(report["shards"][1]["state"], "unreadable");
    let error = f.failing("read", "manifests/", || f.checkpoints.verify(&named[1], &|_| ()));
    assert_eq!(error.unwrap_err().kind(), failure().kind());
    let absent = &named[0];
    f.store.delete(&f.checkpoints.uri(&absent.manifest_key)).unwrap();
    let error = f.checkpoints.verify(absent, &|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
