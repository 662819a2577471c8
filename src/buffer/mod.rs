//! Memory for bytes on their way: aligned buffers, the bounded pool of them, parts, and the loan of a
//! caller's memory to the I/O threads. `places` counts what is bounded, and keeps the order of those who wait.

mod aligned;
mod loan;
mod part;
mod places;
mod pool;

pub use aligned::AlignedVec;
pub(crate) use loan::{LenderMut, Loan, LoanMut, lend, lend_many, lend_mut};
pub(crate) use part::{Part, Payload};
pub(crate) use places::Places;
pub(crate) use pool::{Pool, PoolBuffer};
