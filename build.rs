//! Says what is missing to link the program statically (`.cargo/config.toml`): the linker would only say that it can't find
//! `-lc`.

#![allow(
    clippy::print_stdout,
    reason = "this is how a build script talks to cargo"
)]

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let says = |name: &str| env::var(name).unwrap_or_default();
    let is_static = says("CARGO_CFG_TARGET_ENV") == "gnu"
        && says("CARGO_CFG_TARGET_FEATURE")
            .split(',')
            .any(|feature| feature == "crt-static");
    // For another machine there is another compiler, and cargo does not say which.
    if !is_static || says("HOST") != says("TARGET") {
        return;
    }
    let asked = Command::new("cc").arg("-print-file-name=libc.a").output();
    // Where there is none, the compiler repeats the name. Where there is no compiler, the linker will tell.
    if asked.is_ok_and(|answer| answer.stdout.trim_ascii() == b"libc.a") {
        println!(
            "cargo::error=there is no libc.a to link the program with; install it (libc6-dev, glibc-static, glibc-devel-static), or build with `RUSTFLAGS= cargo build`, and the program starts slower"
        );
    }
}
