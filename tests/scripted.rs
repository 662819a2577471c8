//! The servers that other tests rely on do what their scripts say.

#[path = "scripted/model.rs"]
mod model;
#[path = "scripted/server.rs"]
mod server;
#[path = "scripted/watch.rs"]
mod watching;

#[path = "support/s3_model.rs"]
mod s3_model;
#[path = "support/scripted.rs"]
mod scripted;
#[path = "support/watch.rs"]
mod watch;
