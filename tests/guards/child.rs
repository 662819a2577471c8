//! What the children of these tests do.

pub use crate::program::{Running, run, start, task, tell, wait_for_the_end};

#[test]
fn child() {
    let Some(task) = task() else { return };
    let words: Vec<&str> = task.split(' ').collect();
    match words[..] {
        ["serve", scheme] => crate::endpoint::serve(scheme),
        ["parts", medium, endpoint] => crate::parts::child(medium, endpoint),
        ["trace", medium, endpoint] => crate::syscalls::child(medium, endpoint),
        ["fill", way, part_bytes, parts] => crate::instructions::child(way, part_bytes, parts),
        _ => panic!("{task}"),
    }
}
