//! Makes it so: the loop that starts what the scheduler says, and tells it what happened.
//!
//! ```text
//!              ┌──────────────────────────── Runner (one thread, one epoll) ───────────────────────────┐
//! guard, signals, log pipes ──▶ wake ──▶ Event ──▶ Scheduler ──▶ Action ──▶ act ──▶ system calls
//! relays' eventfd, deadlines                                                    └──▶ RunEvent ──▶ Observers
//! ```
//!
//! `start` and `wiring` make the processes of a group and the pipes between them, `files` the files they write, `log_pipes`
//! the pipes for their logs. `crew` starts processes, on more threads than the loop's where that is faster; for each
//! `launch` makes of a unit what the kernel wants. `ending` sees them off, `relays` keeps the threads that carry queues,
//! `pools` (with `pool_wiring`) those that feed pools and their workers, `feedback` ends cycles, `stored` has queues on disk,
//! `questions` asks conditions that are commands, `deadlines` what is due, `control` hears signals, `foreground` lends the terminal, `progress` tells how far
//! queues and pools have come, `stall` sees who waits for whom where
//! nothing moves.

pub mod crew;
pub mod deadlines;
pub mod error;
pub mod files;
pub mod jobserver;
pub mod launch;
pub mod log_pipes;
pub mod pool_wiring;
pub mod pools;
mod probes;
pub mod questions;
pub mod relays;
pub mod runner;
pub mod stall;
pub mod wiring;

mod control;
mod ending;
mod feedback;
mod foreground;
pub mod inbox;
mod journal;
mod makeflags;
mod progress;
mod slots;
mod start;
mod stored;
