//! Checkpoints on every medium: each test is a function of a fixture, run once for each.

mod ancestor;
mod catalog;
mod compressed;
mod faults;
mod flips;
mod gc;
mod hostile;
mod links;
mod manifests;
mod many;
mod prune;
mod quick;
mod restart;
mod restore;
mod save;
#[path = "../support/servers.rs"]
mod servers;
mod support;
#[path = "../support/watch.rs"]
mod watch;

use watch::figures;
