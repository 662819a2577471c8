//! Many at once: writers beyond what memory and descriptors carry, servers that stand still, and all of it
//! for a long time with faults at random. What is counted is objects, calls and turns, never time.

mod child;
mod limits;
mod place;
mod soak;
mod stalls;
mod writers;

#[path = "../support/azure_model.rs"]
mod azure_model;
#[path = "../support/data.rs"]
mod data;
#[path = "../support/in_time.rs"]
mod in_time;
#[path = "../support/peak.rs"]
mod peak;
#[path = "../support/s3_model.rs"]
mod s3_model;
#[path = "../support/scripted.rs"]
mod scripted;
#[path = "../support/watch.rs"]
mod watch;

use watch::figures;
