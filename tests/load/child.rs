//! What this program does as a child.

#[path = "../support/child.rs"]
mod support;

pub use support::{run, run_for, tell};

#[test]
fn child() {
    let Some(task) = support::task() else { return };
    let words: Vec<&str> = task.split(' ').collect();
    match words[..] {
        ["writers", medium, base, url] => crate::writers::child(medium, base, url),
        ["descriptors", medium, base] => crate::limits::descriptors_child(medium, base),
        ["batches", medium, base] => crate::limits::batches_child(medium, base),
        ["soak", medium, base, url, millis, seed] => {
            crate::soak::child(medium, base, url, millis.parse().unwrap(), seed.parse().unwrap());
        }
        _ => panic!("{task}"),
    }
}
