//! The procflow program.

fn main() {}
