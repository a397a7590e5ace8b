//! The queues that procflow carries itself: several writers merged by whole records, copies for several readers, and
//! what spills to disk instead of blocking its writer. (A queue of one writer and one reader is a kernel pipe between the
//! two; nothing here sees it.)
//!
//! ```text
//! writer's pipe ──▶ Source ─┐             ┌─▶ Sink ──▶ reader's pipe
//!                  (framer) ├─ whole ─────┤  (backlog: memory, then disk)
//! writer's pipe ──▶ Source ─┘  records    └─▶ Sink ──▶ file, standard output
//! ```
//!
//! A queue is a relay (`relay`) with a thread of its own, so that a busy queue cannot delay a kill; blocks move, never single
//! records. One writer copied to pipes goes through `tee`, where no byte enters user space.
//!
//! What it doesn't know: nodes, exit codes, why a queue is stopped. A writer's data has ended when its pipe has, and who
//! starts a relay keeps a write end open until the writer is known to have succeeded. Before that it says that the writer's
//! process has ended ([`WriterState::Exited`]), and the relay answers whether all that it left in the pipe is in order.

pub(crate) mod backlog;
mod by_field;
mod carrier;
mod census;
mod counts;
mod deal;
mod events;
pub(crate) mod framer;
mod relay;
mod share;
pub(crate) mod sink;
mod source;
mod splice;
mod stock;
mod tap;
mod tee;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use counts::{Count, Counts};
pub use events::Events;
pub use relay::{
    Fate, RelayEvent, RelayEvents, RelayHandle, RelayInput, RelayOutput, RelaySpec, WriterState,
    start,
};
pub use tap::TapPrinter;

/// Bytes that are moved at once. Larger blocks leave the cache, smaller ones cost more calls: of 64 KiB to 1 MiB,
/// 64 and 128 KiB moved 100-byte lines fastest.
pub(crate) const BLOCK: usize = 128 * 1024;
