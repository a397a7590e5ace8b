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
//! `deadlines` what is due, `control` hears signals, `foreground` lends the terminal.

pub mod crew;
pub mod deadlines;
pub mod error;
pub mod files;
pub mod launch;
pub mod log_pipes;
pub mod relays;
pub mod runner;
pub mod wiring;

mod control;
mod ending;
mod foreground;
mod start;
