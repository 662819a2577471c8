//! A medium that stands still for a while: calls end, and memory that was lent is left alone.

use shuttle::thread::{JoinHandle, spawn};

use super::saves::{PART, healthy, store};
use super::{TIMEOUT, choose, explore, join, while_time_runs};
use crate::backend::fault::{Fault, FaultPlan, POISON};
use crate::error::{Error, ErrorKind};
use crate::store::ObjectStore;
use crate::sync::{Arc, Ordering, model};

const URI: &str = "mem://model/object";

/// Time runs out at some moment, and the medium goes on at another, which may come before.
fn time_and_release(plan: &Arc<FaultPlan>) -> [JoinHandle<()>; 2] {
    let plan = Arc::clone(plan);
    [
        spawn(|| {
            // The first for who waits for the medium, the second for who gives that up.
            model::pass(TIMEOUT * 2);
            model::pass(TIMEOUT * 20);
        }),
        spawn(move || plan.release()),
    ]
}

fn assert_timed_out(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
}

#[test]
fn memory_that_is_written_from_is_left_alone_after_the_call() {
    explore(|| {
        let plan = FaultPlan::new(Fault::Stall, 1 + choose(2));
        let store = store(&plan);
        let mut writer = store.get_writer(URI).unwrap();
        let around = time_and_release(&plan);
        let mut data = vec![1; 3 * PART];
        let written = writer.write_borrowed(&data);
        data.fill(POISON);
        let ended = written.and_then(|()| writer.finalize().map(drop));
        if let Err(error) = ended {
            assert_timed_out(&error);
        }
        join(around);
        drop(store);
        assert!(!plan.saw_poison.load(Ordering::SeqCst), "a thread looked at returned memory");
    });
}

#[test]
fn memory_that_is_read_into_is_left_alone_after_the_call() {
    explore(|| {
        // Begin, three parts and commit go through, and the opening.
        let plan = FaultPlan::new(Fault::Stall, 6 + choose(3));
        let store = store(&plan);
        store.put(URI, &vec![1; 3 * PART]).unwrap();
        let around = time_and_release(&plan);
        let mut memory = vec![0; 3 * PART];
        match store.read_into(URI, 0, &mut memory) {
            Ok(_) => assert!(memory.iter().all(|byte| *byte == 1)),
            Err(error) => assert_timed_out(&error),
        }
        memory.fill(POISON);
        join(around);
        drop(store);
        assert!(memory.iter().all(|byte| *byte == POISON), "a thread wrote to returned memory");
        assert!(!plan.saw_poison.load(Ordering::SeqCst), "a thread looked at returned memory");
    });
}

/// Whatever stands still when: who writes is told, who gives up is not kept, and every buffer is back when the
/// threads have ended.
#[test]
fn a_save_on_a_medium_that_stalls_comes_to_an_end() {
    explore(|| {
        let plan = FaultPlan::new(Fault::Stall, choose(5));
        let store = store(&plan);
        let pool = Arc::clone(store.engine_for_test().pool());
        let around = time_and_release(&plan);
        let saved = store.get_writer(URI).and_then(|mut writer| {
            writer.write_chunk(&vec![1; 3 * PART])?;
            writer.finalize()
        });
        join(around);
        match (saved, store.get(URI)) {
            (Ok(_), read) => assert_eq!(read.unwrap().len(), 3 * PART),
            (Err(error), read) => {
                assert_timed_out(&error);
                assert!(read.map_or_else(
                    |e| e.kind() == ErrorKind::NotFound,
                    |data| data.len() == 3 * PART
                ));
            }
        }
        drop(store);
        assert_eq!(pool.taken(), 0);
    });
}

/// The store goes while a job stands still: its threads are waited for, or left to themselves.
#[test]
fn a_store_that_is_dropped_over_a_stall_lets_go() {
    explore(|| {
        let plan = FaultPlan::new(Fault::Stall, 1);
        let store = store(&plan);
        let mut writer = store.get_writer(URI).unwrap();
        let _ = writer.write_chunk(&vec![1; PART]);
        while_time_runs(TIMEOUT * 40, || {
            drop(writer);
            drop(store);
        });
        plan.release();
    });
}

#[test]
fn nothing_is_lost_where_nothing_stalls() {
    explore(|| {
        let store = store(&healthy());
        let mut data = vec![1; 2 * PART];
        let mut writer = store.get_writer(URI).unwrap();
        writer.write_borrowed(&data).unwrap();
        data.fill(POISON);
        writer.write_owned(vec![2; 2 * PART].into()).unwrap();
        writer.finalize().unwrap();
        let mut memory = vec![0; 4 * PART];
        store.read_into(URI, 0, &mut memory).unwrap();
        assert!(memory[..2 * PART].iter().all(|byte| *byte == 1));
        assert!(memory[2 * PART..].iter().all(|byte| *byte == 2));
    });
}
