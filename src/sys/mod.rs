//! The kernel: one type for each kind of kernel object, which gives it back when dropped.
//!
//! All `unsafe` code of the program is below this module. It knows nothing of plans, nodes or queues, and imports nothing
//! of ours. Every descriptor made here is close-on-exec: a child gets the ones it is given, by number, and no other.

pub mod guard;
pub mod machine;
pub mod others;
pub mod pipe;
pub mod poller;
pub mod process;
pub mod signals;
pub mod tokens;
