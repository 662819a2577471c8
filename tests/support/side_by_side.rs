//! Cases of one test that wait most of their time.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::sync::Mutex;

const AT_ONCE: usize = 4;

/// Calls `f` with each of these, a few at a time. Fails if any of the calls does.
pub fn side_by_side<T: Send>(
    cases: impl IntoIterator<Item = T, IntoIter: Send>,
    f: impl Fn(T) + Sync,
) {
    let cases = Mutex::new(cases.into_iter());
    // A case that panics takes no other with it: the lock is not held then.
    let next = || cases.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = next() {
                    f(case);
                }
            });
        }
    });
}
