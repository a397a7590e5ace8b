//! Processes: what procflow was started with, how a child is made of it, what it sleeps on, and how it ends.

mod child;
mod origin;
pub mod sleep;
mod spawn;

pub use child::{Child, NextEnded, Usage, next_ended, reap_orphan, stopped_by};
pub use origin::Origin;
pub use spawn::{Image, SpawnError, Spawner, Stage};
