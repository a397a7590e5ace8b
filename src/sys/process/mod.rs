//! Processes: what procflow was started with, how a child is made of it, and how a child ends.

mod child;
mod origin;
mod spawn;

pub use child::{Child, NextEnded, Usage, next_ended, reap_orphan, stopped_by};
pub use origin::Origin;
pub use spawn::{Image, SpawnError, Spawner, Stage};
