//! procflow runs a graph of processes, joined by queues, that a TOML file describes.
//!
//! ```text
//! pipeline.toml ──spec──▶ Spec ──plan──▶ Plan ──sched + exec──▶ RunEvents ──report──▶ terminal, files, exit code
//!              what was said     what it means    what happens              who watches
//! ```
//!
//! Imports point one way. `cli` uses everything below it. `exec` uses `sched`, `plan`, `queue`, `pool`, `store`, `sys`, `event`,
//! `report`, and as `store`, `pool` and `report` do, the words of `diagnostic` for what the system says. `sched` uses only `plan`
//! and `event`; `draw` only `plan`, the words of `event` and `diagnostic`;
//! `queue` only the settings of a queue; `pool` those of a pool, `queue`'s records and the words of `event`; `plan`
//! only `spec` and `diagnostic`; and `sys` nothing of ours. Words of the file, such as what `on_failure` may be, are `spec`'s in
//! all of them. `tests/layers.rs` has the table, and holds the `use crate::` lines to it.

pub mod cli;
pub mod diagnostic;
pub mod exit;

pub mod spec;

pub mod plan;

pub mod event;
pub mod sched;

pub mod exec;
pub mod pool;
pub mod queue;
pub mod resume;
pub mod store;
pub mod sys;

pub mod draw;
pub mod report;
