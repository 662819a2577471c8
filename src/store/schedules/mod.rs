//! The threads of a store in orders that a model checker chooses, and time that runs out whenever it likes
//! (`sync/model.rs`): nobody hangs, no wake-up is lost, every buffer comes back, every ticket completes once,
//! and memory that was lent is not looked at after its return.
//!
//! `tests/run schedules` runs this. A schedule that fails is printed; to run it again:
//!
//! ```text
//! SYNCLINE_TEST_SCHEDULE=<what was printed> RUSTFLAGS="--cfg shuttle" cargo test --lib schedules::<test>
//! ```

mod broken;
mod buffers;
mod jobs;
mod saves;
mod stalls;
mod tickets;

use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{FailurePersistence, Runner};

use crate::figures;
use crate::sync::{Arc, AtomicBool, Ordering, model};
use crate::time::Deadline;

/// Schedules of each kind for one scenario.
const SCHEDULES: usize = 2_000;
const SCHEDULES_LONG: usize = 50_000;

/// The order changes at so many chosen moments at most; few bugs need more than two.
const PCT_DEPTH: usize = 3;

/// A whole save runs on each of the model's stacks.
const STACK_BYTES: usize = 512 * 1024;

/// Runs the scenario in many orders: in those of chance, and in those that let one thread run and interrupt it
/// at few moments.
fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    let scenario = Arc::new(scenario);
    if let Ok(schedule) = std::env::var("SYNCLINE_TEST_SCHEDULE") {
        run(ReplayScheduler::new_from_encoded(&schedule), FailurePersistence::None, scenario);
        return;
    }
    let count = if figures::long() { SCHEDULES_LONG } else { SCHEDULES };
    run(RandomScheduler::new(count), FailurePersistence::Print, Arc::clone(&scenario));
    run(PctScheduler::new(PCT_DEPTH, count), FailurePersistence::Print, scenario);
    figures::add("schedules of threads", 2 * count as u64);
}

fn run(
    scheduler: impl Scheduler + 'static,
    persistence: FailurePersistence,
    scenario: Arc<impl Fn() + Send + Sync + 'static>,
) {
    let mut config = shuttle::Config::new();
    config.stack_size = STACK_BYTES;
    config.failure_persistence = persistence;
    config.silence_warnings = true;
    let runner = Runner::new(scheduler, config);
    runner.run(move || {
        model::reset();
        scenario();
    });
}

/// A deadline that comes only if a test lets hours pass.
fn never() -> Deadline {
    Deadline::after(Duration::MAX)
}

/// The timeout where time passes.
const TIMEOUT: Duration = Duration::from_secs(1);

/// At some moment, time passes beyond every timeout that runs then.
fn time_runs_out() -> shuttle::thread::JoinHandle<()> {
    shuttle::thread::spawn(|| model::pass(TIMEOUT * 2))
}

/// Does something while time runs, in steps that come at any moment.
fn while_time_runs<T>(step: Duration, f: impl FnOnce() -> T) -> T {
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let clock = shuttle::thread::spawn(move || {
        while !seen.load(Ordering::SeqCst) {
            model::pass(step);
            shuttle::thread::yield_now();
        }
    });
    let done = f();
    over.store(true, Ordering::SeqCst);
    join([clock]);
    done
}

/// A number below `end`, of the checker's choice.
fn choose(end: u64) -> u64 {
    use shuttle::rand::Rng;
    shuttle::rand::thread_rng().gen_range(0..end)
}

fn join<T>(threads: impl IntoIterator<Item = shuttle::thread::JoinHandle<T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}
