//! What the children of these tests do.

use crate::program::task;

#[test]
fn child() {
    let Some(task) = task() else { return };
    let words: Vec<&str> = task.split(' ').collect();
    match words[..] {
        ["disturbed", scheme, path, job, again] => {
            crate::syscalls::child(scheme, path, job, again.parse().unwrap());
        }
        _ => panic!("{task}"),
    }
}
