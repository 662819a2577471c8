//! `s3://` against servers that misbehave: what is written, what is told, and what is left behind.

mod conditions;
mod listing;
mod lost;
mod orphans;
mod pace;
#[cfg(feature = "cli")]
mod programs;
mod proof;
mod ranks;
mod reads;
mod redirects;
mod refusals;
mod rig;
mod security;
mod uploads;

#[path = "../support/data.rs"]
mod data;
#[path = "../support/in_time.rs"]
mod in_time;
#[path = "../support/s3_model.rs"]
mod s3_model;
#[path = "../support/scripted.rs"]
mod scripted;
#[path = "../support/watch.rs"]
mod watch;
