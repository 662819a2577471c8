//! Everything that a save asks of a medium fails, at every place and in every way; and programs end in the
//! middle of what they do. What stands then is told by `judge.rs`: the old checkpoint or the new one, whole.

mod checkpoints;
mod child;
mod cut;
mod folder;
mod jobs;
mod judge;
mod objects;
mod served;
mod syscalls;
mod ways;

#[path = "../support/azure_model.rs"]
mod azure_model;
#[path = "../support/data.rs"]
mod data;
#[path = "../support/in_time.rs"]
mod in_time;
#[path = "../support/child.rs"]
mod program;
#[path = "../support/s3_model.rs"]
mod s3_model;
#[path = "../support/scripted.rs"]
mod scripted;
#[path = "../support/seed.rs"]
mod seed;
#[path = "../support/service.rs"]
mod service;
#[path = "../support/side_by_side.rs"]
mod side_by_side;
#[path = "../support/watch.rs"]
mod watch;

use watch::figures;
