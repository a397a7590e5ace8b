//! The whole program from outside: each test writes a pipeline, runs the real binary on it, and asserts all that came of it.
//! What is not mentioned must not have happened (see [`support`]).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../support/mod.rs"]
mod support;

mod canary;
mod cli;
mod codes;
mod conditions;
mod definition;
mod failure;
mod hostile;
mod kill;
mod lifecycle;
mod matrix;
mod memory;
mod pipelines;
mod pools;
mod queues;
mod replay;
mod reports;
mod resume;
mod runs;
mod services;
mod signals;
mod slots;
mod stall;
mod streams;
mod tap;
mod terminal;
