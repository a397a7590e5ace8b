//! What people and programs see of a run. Everything that procflow says while it runs is said here.
//!
//! ```text
//!                    ┌─▶ Tally ───▶ Report (report.json, --json)      counts each fact once, for all
//! RunEvents ─▶ Observers ─▶ EventLog (events.jsonl, --events)
//! output ───▶ (redacts) ─▶ Logs (store)
//!                    └─▶ Reporter: Console ─▶ Terminal (stderr)         plain lines or bars, log lines, closing table
//! ```
//!
//! It decides nothing, reads no clock (every time comes with an event or a tick), and no sink can hurt another: what goes
//! wrong in one is collected by [`Observers`].

pub mod bars;
pub mod block;
pub mod ci;
pub mod console;
pub mod events;
pub mod fed;
pub mod flow;
pub mod json;
pub mod junit;
pub mod lines;
pub mod meter;
pub mod observers;
pub mod past;
pub mod places;
pub mod printed;
pub mod redact;
pub mod rows;
pub mod sanitize;
pub mod stall;
pub mod summary;
pub mod table;
pub mod tally;
pub mod target;
pub mod terminal;
pub mod units;
pub mod words;

pub use console::{Console, Output, Progress};
pub use events::{EventLog, schema_events};
pub use json::{Report, schema_report};
pub use observers::{Observers, Reporter, SinkError, View};
pub use past::Past;
pub use places::Places;
pub use redact::Redactor;
pub use tally::Tally;
pub use target::{check_target, write_target};
pub use terminal::Terminal;

#[cfg(test)]
mod tests;
