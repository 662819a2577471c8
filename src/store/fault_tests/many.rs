//! Faults below a batch: each object's outcome is its own and true, and nothing else is left behind.

use super::*;
use crate::backend::ObjectMeta;
use crate::limits::BATCH_OBJECTS_MAX;
use crate::store::WriteOptions;

const OBJECTS: usize = 4;

/// Four objects in two folders.
fn put_many(store: &Store, base: &str, data: &[u8]) -> Vec<Result<ObjectMeta>> {
    let uris: Vec<String> = (0..OBJECTS).map(|n| format!("{base}/{}/object-{n}", n % 2)).collect();
    let objects: Vec<(&str, &[u8])> = uris.iter().map(|uri| (uri.as_str(), data)).collect();
    store.put_many(&objects, WriteOptions::default())
}

fn visible(store: &Store, base: &str) -> Vec<usize> {
    let number = |uri: &str| uri.rsplit('-').next().unwrap().parse().unwrap();
    let mut numbers: Vec<usize> =
        store.list(base).unwrap().map(|meta| number(&meta.unwrap().uri)).collect();
    numbers.sort_unstable();
    numbers
}

/// Whether the error says that the object is there.
fn says_visible(error: &Error) -> bool {
    error.remedy().is_some_and(|remedy| remedy.contains("is visible"))
}

/// The operations of a batch, with what each object's outcome must be where one goes wrong.
fn batch_fails_at_each(base: &str, inner: &Arc<dyn Backend>, whole: bool) {
    let data = vec![7; 1000];
    let open = |plan: &Arc<FaultPlan>| {
        let (inner, plan) = (Arc::clone(inner), Arc::clone(plan));
        disturbed(base, FaultyBackend { inner, plan, whole }, small())
    };
    let counting = FaultPlan::healthy();
    let store = open(&counting);
    put_many(&store, base, &data).into_iter().for_each(|put| drop(put.unwrap()));
    let operations = counting.seen();
    // Begin, part, sync and publish of each, and on files the sync of two folders; or begin and put.
    let folders = if base.starts_with("file:") { 2 } else { 0 };
    let each = if whole { 2 } else { 4 };
    assert_eq!(operations, each * OBJECTS as u64 + if whole { 0 } else { folders });
    store.delete_prefix(base).unwrap();
    each_fault(operations, |plan| {
        let store = open(plan);
        let outcomes = put_many(&store, base, &data);
        let there = visible(&store, base);
        for (n, outcome) in outcomes.iter().enumerate() {
            let told_visible = match outcome {
                Ok(meta) => meta.size_bytes == 1000,
                Err(error) => {
                    assert_told(error, plan);
                    assert!(error.uri().unwrap().ends_with(&format!("object-{n}")));
                    says_visible(error)
                }
            };
            let lost = outcome.is_err() && plan.may_be_visible();
            assert!(lost || there.contains(&n) == told_visible, "{plan:?} {n} {outcome:?}");
        }
        let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        let of_names = plan.hit() == Some("sync directory");
        assert_eq!(failed, if of_names { 2 } else { 1 }, "{plan:?}");
        for n in there {
            let uri = format!("{base}/{}/object-{n}", n % 2);
            assert!(store.get(&uri).unwrap() == data, "{plan:?}: half of an object is visible");
        }
        store.delete_prefix(base).unwrap();
        assert_clean(&store, base);
        // The same store writes them all next time.
        put_many(&store, base, &data).into_iter().for_each(|put| drop(put.unwrap()));
        store.delete_prefix(base).unwrap();
    });
}

#[test]
fn every_operation_of_a_batch_may_fail_or_panic() {
    over_media(|base, inner| batch_fails_at_each(base, &inner, false));
}

/// As to servers, which take a small object in one step.
#[test]
fn every_operation_of_a_batch_put_whole_may_fail_or_panic() {
    over_media(|base, inner| batch_fails_at_each(base, &inner, true));
}

#[test]
fn a_stalled_batch_returns_memory_only_when_nobody_looks_at_it() {
    over_media(|base, inner| {
        // In the parts; later steps look at no memory.
        for at in [0, 3, 5] {
            let plan = FaultPlan::new(Fault::Stall, at);
            let store = faulty(base, Arc::clone(&inner), small().timeout(TIMEOUT), &plan);
            let mut data = vec![1; PART];
            let late = release_late(&plan);
            let outcomes = put_many(&store, base, &data);
            data.fill(POISON);
            late.join().unwrap();
            let stalled: Vec<_> = outcomes.iter().filter_map(|o| o.as_ref().err()).collect();
            assert_eq!(stalled.len(), OBJECTS, "nothing was published yet");
            stalled.into_iter().for_each(assert_stalled);
            assert_clean(&store, base);
            drop(store);
            assert!(!plan.saw_poison.load(Ordering::SeqCst), "a thread looked at returned memory");
        }
    });
}

/// What comes after what stood still would do so for as long, again and again.
#[test]
fn windows_after_one_that_stood_still_are_not_begun() {
    over_media(|base, inner| {
        let plan = FaultPlan::new(Fault::Stall, 0);
        let store = faulty(base, inner, small().timeout(TIMEOUT), &plan);
        let uris: Vec<String> = (0..2 * BATCH_OBJECTS_MAX).map(|n| format!("{base}/{n}")).collect();
        let large = vec![1; 2 * PART];
        let mut objects: Vec<(&str, &[u8])> =
            uris.iter().map(|uri| (uri.as_str(), &b"x"[..])).collect();
        objects.insert(BATCH_OBJECTS_MAX, (base, &large));
        let outcomes = store.put_many(&objects, WriteOptions::default());
        plan.release();
        let begun = |outcome: &Result<ObjectMeta>| {
            let error = outcome.as_ref().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
            !error.to_string().contains("so this was not begun")
        };
        let begun: Vec<usize> = (0..outcomes.len()).filter(|n| begun(&outcomes[*n])).collect();
        assert!(
            !begun.is_empty() && begun.len() <= BATCH_OBJECTS_MAX,
            "{} were begun",
            begun.len()
        );
    });
}

/// The medium stands still in each later step: what is told is what is so, once it goes on.
#[cfg(not(miri))]
#[test]
fn a_batch_that_stalls_tells_of_each_object_what_is_known() {
    over_media(|base, inner| {
        let first_sync = 2 * OBJECTS as u64;
        for at in first_sync..5 * OBJECTS as u64 {
            let plan = FaultPlan::new(Fault::Stall, at);
            let store = faulty(base, Arc::clone(&inner), small().timeout(TIMEOUT), &plan);
            let outcomes = put_many(&store, base, &[1; 100]);
            plan.release();
            // Joins the threads.
            drop(store);
            let healthy = FaultPlan::healthy();
            let store = faulty(base, Arc::clone(&inner), small(), &healthy);
            let there = visible(&store, base);
            for (n, outcome) in outcomes.iter().enumerate() {
                let remedy = outcome.as_ref().err().and_then(Error::remedy).unwrap_or_default();
                let unknown = remedy.contains("unknown");
                let visible = outcome.as_ref().map_or_else(says_visible, |_| true);
                assert!(unknown || there.contains(&n) == visible, "{at} {n} {outcome:?} {there:?}");
            }
            assert!(store.orphans(base, Duration::ZERO).unwrap().is_empty());
            store.delete_prefix(base).unwrap();
        }
    });
}

#[test]
fn every_operation_of_reading_many_may_fail_or_panic() {
    over_media(|base, inner| {
        let data = vec![7; 1000];
        let counting = FaultPlan::healthy();
        let store = faulty(base, Arc::clone(&inner), small(), &counting);
        // More than are opened ahead.
        let uris: Vec<String> = (0..20).map(|n| format!("{base}/object-{n}")).collect();
        let objects: Vec<(&str, &[u8])> = uris.iter().map(|uri| (&**uri, &data[..])).collect();
        let put = store.put_many(&objects, WriteOptions::default());
        put.into_iter().for_each(|put| drop(put.unwrap()));
        let sum = Algorithm::Crc32c.checksum(&data).to_string();
        let wanted: Vec<(&str, Option<&str>)> =
            uris.iter().map(|uri| (uri.as_str(), Some(sum.as_str()))).collect();
        let before = counting.seen();
        store.get_many(&wanted).into_iter().for_each(|got| assert!(got.unwrap() == data));
        let operations = counting.seen() - before;
        assert_eq!(operations, 2 * uris.len() as u64, "open and read of each");
        each_fault(operations, |plan| {
            let store = faulty(base, Arc::clone(&inner), small(), plan);
            let outcomes = store.get_many(&wanted);
            let failed: Vec<_> = outcomes.iter().filter_map(|o| o.as_ref().err()).collect();
            assert_eq!(failed.len(), usize::from(plan.expected().is_some()), "{plan:?}");
            failed.into_iter().for_each(|error| assert_told(error, plan));
            assert!(outcomes.iter().flatten().all(|bytes| *bytes == data));
            assert_eq!(store.engine_for_test().pool().taken(), 0);
        });
        store.delete_prefix(base).unwrap();
    });
}
