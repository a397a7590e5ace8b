//! (to come)

pub mod launch;
