//! Servers that mean harm, of S3 and of Azure: whatever they answer, a call ends soon, takes little memory, and
//! gives an error or what the server said of the object asked for; nothing of ours reaches another server.

mod answers;
#[cfg(feature = "cli")]
mod injection;
mod lists;
mod ranges;
mod rig;

#[path = "../support/data.rs"]
mod data;
#[path = "../support/peak.rs"]
mod peak;
#[path = "../support/scripted.rs"]
mod scripted;
#[path = "../support/watch.rs"]
mod watch;

use watch::figures;
