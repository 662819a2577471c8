//! The command `syncline`, end to end: the real binary, real files, real signals.
#![cfg(feature = "cli")]

#[path = "cli/bad_input.rs"]
mod bad_input;
#[path = "cli/checkpoints.rs"]
mod checkpoints;
#[path = "cli/compressed.rs"]
mod compressed;
#[path = "cli/hostile.rs"]
mod hostile;
#[path = "cli/house.rs"]
mod house;
#[path = "cli/objects.rs"]
mod objects;
#[path = "cli/run.rs"]
mod run;
#[path = "cli/servers.rs"]
mod servers;
#[path = "cli/signals.rs"]
mod signals;
#[path = "cli/sweep.rs"]
mod sweep;
#[path = "support/servers.rs"]
mod test_servers;
#[path = "cli/umask.rs"]
mod umask;
#[path = "support/watch.rs"]
mod watch;

use watch::figures;
