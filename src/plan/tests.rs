//! The rules of the file, each with its whole message; what a plan comes out as.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

use std::fmt::Write as _;
use std::io::Write as _;

use crate::diagnostic::{Diagnostic, Mark};
use crate::plan::{Origin, Overrides, Plan, build};

/// A pipeline in `/p`, with `HOME=/root` and `CI_TOKEN=tok3n` inherited.
fn plan_with(text: &str, set: &[(&str, &str)], only: &[&str], skip: &[&str]) -> (Option<Plan>, Vec<Diagnostic>) {
    let spec = crate::spec::read(text).unwrap_or_else(|wrong| panic!("{:#?}", wrong.problems));
    let origin = Origin { dir: "/p".into(), name: "test".to_owned() };
    let env = |name: &str| match name {
        "HOME" => Some("/root".to_owned()),
        "CI_TOKEN" => Some("tok3n".to_owned()),
        _ => None,
    };
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let overrides = Overrides {
        set: set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        only: owned(only),
        skip: owned(skip),
        env: &env,
    };
    build(spec, &origin, &overrides)
}

/// Problems as text: severity, message, places with their words, help.
fn text(problems: &[Diagnostic]) -> String {
    let mut text = String::new();
    for problem in problems {
        let _ = writeln!(text, "{}: {}", problem.severity, problem.message);
        for label in &problem.labels {
            let place = match &label.place {
                Mark::Key(place) => format!("key {place}"),
                Mark::Value(place) => place.to_string(),
                Mark::Bytes(range) => format!("{range:?}"),
            };
            let _ = writeln!(text, "  {place}{}{}", if label.text.is_empty() { "" } else { ": " }, label.text);
        }
        if let Some(help) = &problem.help {
            let _ = writeln!(text, "  = {help}");
        }
    }
    text
}

#[test]
fn explore() {
    let all = std::fs::read_to_string("/tmp/cases.txt").unwrap();
    for case in all.split("=====\n") {
        let (head, toml) = case.split_once('\n').unwrap();
        let args: Vec<&str> = head.split_whitespace().collect();
        let pick = |flag: &str| args.windows(2).filter(|w| w[0] == flag).map(|w| w[1]).collect::<Vec<_>>();
        let set: Vec<(&str, &str)> = pick("--set").iter().map(|s| s.split_once('=').unwrap()).collect();
        let (plan, problems) = plan_with(toml, &set, &pick("--only"), &pick("--skip"));
        std::eprintln!("===== {head}\n{toml}-----\n{}{}", text(&problems), if plan.is_some() { "ok\n" } else { "" });
    }
}

#[test]
fn look() {
    let file = std::env::var("LOOK").unwrap();
    let node = std::env::var("NODE").unwrap_or_default();
    use clap::Parser;
    let mut out = Vec::new();
    let mut err = Vec::new();
    for args in [vec!["check"], vec!["plan"], vec!["graph"], vec!["graph", "--format", "dot"], vec!["graph", "--format", "mermaid"]] {
        let mut words = vec!["procflow", args[0], &file];
        words.extend(&args[1..]);
        match crate::cli::Cli::parse_from(words).command {
            crate::cli::Command::Check(args) => crate::cli::check::run(&args, &mut out, false).unwrap(),
            crate::cli::Command::Plan(args) => crate::cli::plan::run(&args, &mut out, &mut err, false).unwrap(),
            crate::cli::Command::Graph(args) => crate::cli::graph::run(&args, &mut out, &mut err, false).unwrap(),
            _ => panic!(),
        };
        out.extend(b"------------------\n");
    }
    if !node.is_empty() {
        match crate::cli::Cli::parse_from(["procflow", "explain", &file, &node]).command {
            crate::cli::Command::Explain(args) => crate::cli::explain::run(&args, &mut out, &mut err, false).unwrap(),
            _ => panic!(),
        };
    }
    std::eprintln!("{}\nERR {}", String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap());
}

/// Nodes with three waits each, as a spec.
fn wide(nodes: u32) -> crate::spec::Spec {
    let mut spec = crate::spec::Spec::default();
    for i in 0..nodes {
        let before = (1..=3).filter_map(|k| i.checked_sub(k * 7)).map(|node| crate::spec::After { node: format!("n{node}"), state: crate::spec::AfterState::Succeeded });
        let process = crate::spec::Process { command: Some(vec!["true".to_owned(), i.to_string()]), after: before.collect(), ..Default::default() };
        spec.process.insert(format!("n{i}"), process);
    }
    spec
}

/// Run with `cargo test --release --lib plan::tests::speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = |key: &str| status.lines().find(|line| line.starts_with(key)).unwrap_or_default().split_whitespace().nth(1).unwrap_or("0").parse::<u64>().unwrap();
        (line("VmRSS:") / 1024, line("VmHWM:") / 1024)
    };
    for round in 0..3 {
        for nodes in [20_000, 100_000] {
            let spec = wide(nodes);
            let before = resident();
            let start = std::time::Instant::now();
            let (plan, problems) = build(spec, &Origin { dir: "/p".into(), name: "wide".to_owned() }, &Overrides::none());
            let took = start.elapsed();
            assert!(problems.is_empty() && plan.as_ref().is_some_and(|plan| plan.nodes.len() == nodes as usize));
            let after = resident();
            let _ = writeln!(std::io::stderr(), "round {round}: {nodes} nodes in {took:?}, {:.0} ns each; resident {} MiB before, {} after, peak {}", took.as_nanos() as f64 / f64::from(nodes), before.0, after.0, after.1);
        }
    }
}
