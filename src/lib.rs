//! procflow runs a graph of processes, joined by queues, that a TOML file describes.
//!
//! ```text
//! pipeline.toml ──spec──▶ Spec ──plan──▶ Plan ──sched + exec──▶ RunEvents ──report──▶ terminal, files, exit code
//!              what was said     what it means    what happens              who watches
//! ```
//!
//! The modules stand in the order of that flow. Imports point one way: `cli` uses everything below it; `exec` uses
//! `sched`, `plan`, `queue`, `store`, `sys`, `event` and `report`, and as `store` and `report` do, the words of `diagnostic`
//! for what the system says; `sched` uses only `plan` and `event`; `plan` uses
//! `spec` and `diagnostic`; `sys` uses nothing of ours. A test reads the `use crate::` lines and holds them to it.

pub mod cli;
pub mod diagnostic;
pub mod exit;

pub mod spec;

pub mod plan;

pub mod event;
pub mod sched;

pub mod exec;
pub mod queue;
pub mod store;
pub mod sys;

pub mod report;
