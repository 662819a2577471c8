//! What an object costs, counted: allocations, copies, system calls, requests, instructions. The counts do
//! not depend on time, so that what makes them worse fails on any machine.

mod child;
mod endpoint;
mod instructions;
mod parts;
mod requests;
mod syscalls;
mod taps;
mod work;

#[path = "../support/azure_model.rs"]
mod azure_model;
#[path = "../support/data.rs"]
mod data;
#[path = "../support/child.rs"]
mod program;
#[path = "../support/s3_model.rs"]
mod s3_model;
#[path = "../support/scripted.rs"]
mod scripted;
#[path = "../support/service.rs"]
mod service;
