//! Threads, locks, channels and time as the model checker sees them (`--cfg shuttle`): all threads of a test
//! are turns on one, each step of one is chosen, and a schedule in which all wait is an error.
//!
//! Time stands still unless a test lets it [`pass`]. So no timeout hides a lost wake-up, and a timeout comes
//! at whatever moment the checker lets it come. Pools of rayon are not modelled.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, LockResult, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64};
pub(crate) use shuttle::sync::{Mutex, MutexGuard};
pub(crate) use shuttle::thread::{
    Builder, JoinHandle, Thread, ThreadId, current as this_thread, sleep,
};

thread_local! {
    /// Of the test that this thread of the test program runs.
    static CLOCK: RefCell<Clock> = RefCell::new(Clock {
        began: Instant::now(),
        passed: Duration::ZERO,
        next_wait: 0,
        waits: Vec::new(),
    });
}

struct Clock {
    began: Instant,
    passed: Duration,
    next_wait: u64,
    waits: Vec<TimedWait>,
}

/// A thread that waits until a moment at most.
struct TimedWait {
    number: u64,
    at: Instant,
    wake: Wake,
}

#[derive(Clone)]
enum Wake {
    Condvar(Arc<shuttle::sync::Condvar>),
    Thread(Thread),
}

impl Wake {
    fn wake(&self) {
        match self {
            Wake::Condvar(condvar) => condvar.notify_all(),
            Wake::Thread(thread) => thread.unpark(),
        }
    }
}

/// The present moment.
pub(crate) fn now() -> Instant {
    CLOCK.with_borrow(|clock| clock.began + clock.passed)
}

/// Begins a schedule: nobody waits, and no time has passed.
pub(crate) fn reset() {
    CLOCK.with_borrow_mut(|clock| (clock.passed, clock.waits) = (Duration::ZERO, Vec::new()));
}

/// Lets so much time pass at once, and returns when all whose time is up have seen it.
pub(crate) fn pass(duration: Duration) {
    CLOCK.with_borrow_mut(|clock| clock.passed += duration);
    loop {
        let now = now();
        let due: Vec<_> = CLOCK.with_borrow(|clock| {
            let due = clock.waits.iter().filter(|wait| wait.at <= now);
            due.map(|wait| wait.wake.clone()).collect()
        });
        if due.is_empty() {
            return;
        }
        // Others on the same condition wake up too, which those of a real one may at any time.
        due.iter().for_each(Wake::wake);
        shuttle::thread::yield_now();
    }
}

/// As that of std; its timeouts are those of the model's clock.
#[derive(Debug, Default)]
pub(crate) struct Condvar(Arc<shuttle::sync::Condvar>);

impl Condvar {
    pub fn new() -> Condvar {
        Condvar::default()
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.0.wait(guard)
    }

    /// The guard, and whether the time is up.
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        duration: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, bool)> {
        let at = now() + duration;
        let counted = Counted::begin(at, Wake::Condvar(Arc::clone(&self.0)));
        let outcome = self.0.wait(guard);
        drop(counted);
        let with_time = |guard| (guard, now() >= at);
        outcome.map(with_time).map_err(|e| PoisonError::new(with_time(e.into_inner())))
    }
}

/// As that of std, by the model's clock.
pub(crate) fn park_timeout(duration: Duration) {
    let counted = Counted::begin(now() + duration, Wake::Thread(this_thread()));
    shuttle::thread::park();
    drop(counted);
}

/// Counts a thread among those that wait until a moment.
struct Counted(u64);

impl Counted {
    fn begin(at: Instant, wake: Wake) -> Counted {
        CLOCK.with_borrow_mut(|clock| {
            let number = clock.next_wait;
            clock.next_wait += 1;
            clock.waits.push(TimedWait { number, at, wake });
            Counted(number)
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        CLOCK.with_borrow_mut(|clock| clock.waits.retain(|wait| wait.number != self.0));
    }
}

/// As that of std.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    /// Held by who makes the value.
    making: Mutex<()>,
    value: std::sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    pub const fn new() -> OnceLock<T> {
        OnceLock { making: Mutex::new(()), value: std::sync::OnceLock::new() }
    }

    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        self.value.get_or_init(make)
    }
}

/// A channel of bounded length, as that of crossbeam.
pub(crate) fn bounded<T>(most: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { messages: VecDeque::new(), most, senders: 1, receivers: 1 };
    let channel = Channel { state: Mutex::new(state), changed: Condvar::new() };
    let channel = Arc::new(channel);
    (Sender(Arc::clone(&channel)), Receiver(channel))
}

#[derive(Debug)]
struct Channel<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    messages: VecDeque<T>,
    most: usize,
    senders: usize,
    receivers: usize,
}

impl<T> Channel<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receive(&self) -> Option<T> {
        let mut state = self.lock();
        while state.messages.is_empty() && state.senders > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let message = state.messages.pop_front();
        drop(state);
        self.changed.notify_all();
        message
    }
}

#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Channel<T>>);

impl<T> Sender<T> {
    /// The message comes back where there is no room for it.
    pub fn try_send(&self, message: T) -> Result<(), T> {
        let mut state = self.0.lock();
        if state.receivers == 0 || state.messages.len() >= state.most {
            return Err(message);
        }
        state.messages.push_back(message);
        drop(state);
        self.0.changed.notify_all();
        Ok(())
    }

    pub fn is_full(&self) -> bool {
        let state = self.0.lock();
        state.messages.len() >= state.most
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().senders -= 1;
        self.0.changed.notify_all();
    }
}

#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Channel<T>>);

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.0.lock().receivers += 1;
        Receiver(Arc::clone(&self.0))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.receivers -= 1;
        // What nobody can receive any more goes at once.
        let gone = if state.receivers == 0 {
            std::mem::take(&mut state.messages)
        } else {
            VecDeque::new()
        };
        drop(state);
        self.0.changed.notify_all();
        drop(gone);
    }
}

/// What comes, until all senders are gone.
pub(crate) struct Messages<'a, T>(&'a Receiver<T>);

impl<T> Iterator for Messages<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.0.receive()
    }
}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Messages<'a, T>;

    fn into_iter(self) -> Messages<'a, T> {
        Messages(self)
    }
}
