//! Reasons in words: how a unit ended and why, as one reads it in a line, a table or the report (spec 2.5).
//!
//! It says what to do about it where that is known, and invents nothing: what killed a process by SIGKILL, for one, it does
//! not know.

use crate::event::{Cause, Exit, Failure, Outcome, PoolCounts};
use crate::exit::ExitCode;
use crate::plan::template::Template;
use crate::plan::{Arg, NodeId, Plan, Role, UnitId};
use crate::report::events::State;
use crate::report::flow::Pace;
use crate::report::tally::NodeEnd;
use crate::report::units::{self, plural, short};

/// The state that an outcome is: `succeeded`, `failed`, `cancelled`, `skipped`, `reused`.
pub fn state(outcome: &Outcome) -> &'static str {
    State::from(outcome).word()
}

/// Why it ended so; nothing where it simply succeeded.
pub fn reason(plan: &Plan, unit: UnitId, outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Succeeded { early_close: false } | Outcome::Reused => None,
        Outcome::Succeeded { early_close: true } => {
            Some("its readers had all they needed".to_owned())
        }
        Outcome::Failed(why) => Some(failure(plan, unit, why)),
        Outcome::Cancelled(why) | Outcome::Skipped(why) => Some(cause(plan, why)),
    }
}

/// Why a node ended so; in a pool, with the worker whose failure it is: `worker 2: exit 3`.
pub fn node_reason(plan: &Plan, end: &NodeEnd<'_>) -> Option<String> {
    match end.outcome {
        Outcome::Failed(why) => Some(unit_failure(plan, end.unit, why)),
        _ => end_reason(plan, end.unit, end.outcome, end.exit),
    }
}

/// Why a unit ended so, with what its status says: a service that has succeeded was stopped.
pub fn end_reason(
    plan: &Plan,
    unit: UnitId,
    outcome: &Outcome,
    exit: Option<Exit>,
) -> Option<String> {
    let unneeded = plan.node(plan.unit(unit).node).service.is_some()
        && matches!(outcome, Outcome::Succeeded { .. });
    if !unneeded {
        return reason(plan, unit, outcome);
    }
    let settings = &plan.unit(unit).settings;
    Some(match exit {
        Some(Exit::Signal {
            number: libc::SIGKILL,
            ..
        }) if settings.stop_signal != libc::SIGKILL && !settings.stop_grace.is_zero() => format!(
            "no longer needed; killed, since {} had not stopped it in {}",
            units::signal(settings.stop_signal),
            units::exact(settings.stop_grace)
        ),
        _ => "stopped, no longer needed".to_owned(),
    })
}

/// As [`failure`], said of the unit's node: `worker 2: exit 3`.
pub fn unit_failure(plan: &Plan, unit: UnitId, why: &Failure) -> String {
    let words = failure(plan, unit, why);
    match plan.unit(unit).role {
        Role::Worker(number) => format!("worker {number}: {words}"),
        Role::Process | Role::Pool | Role::Gather => words,
    }
}

/// Why a unit failed: `exit 3`, `killed by SIGSEGV (core dumped)`, `timed out after 30s`.
pub fn failure(plan: &Plan, unit: UnitId, failure: &Failure) -> String {
    match failure {
        Failure::Exit(status) => match advice(plan, unit, *status) {
            None => exit(*status),
            Some(advice) => format!("{} ({advice})", exit(*status)),
        },
        Failure::TimedOut(limit) => format!("timed out after {}", units::exact(*limit)),
        Failure::CannotStart { why, .. } => format!("cannot start: {why}"),
        Failure::Condition(why) => format!("when: {}", condition(plan, unit, why)),
        Failure::Result(why) | Failure::NotReady(why) => why.clone(),
        Failure::Ended {
            exit: status,
            ready,
        } => {
            let when = match ready {
                true => "ended while it was needed",
                false => "ended before it was ready",
            };
            let advice = advice(plan, unit, *status).map_or(String::new(), |a| format!(" ({a})"));
            format!("{when}: {}{advice}", exit(*status))
        }
    }
}

/// Why a condition gave no answer.
fn condition(plan: &Plan, unit: UnitId, why: &Failure) -> String {
    match why {
        // The advice of `failure` is on the unit's own program.
        Failure::Exit(status @ Exit::Code(_)) => format!(
            "its command ended with {}, which is neither 0 (yes) nor 1 (no)",
            exit(*status)
        ),
        Failure::Exit(status) => format!("its command was {}", exit(*status)),
        why => format!("its command: {}", failure(plan, unit, why)),
    }
}

/// What became of the records of a pool: `12,400 records, 3 tried again, 2 dead letters`. Without a queue that keeps dead
/// letters there are none: these records have failed, and no more.
pub fn records(counts: &PoolCounts, keeps_dead_letters: bool) -> String {
    let mut text = plural(counts.taken, "record");
    let left = counts.taken.saturating_sub(counts.answered + counts.dead);
    let failed = if keeps_dead_letters { 0 } else { counts.dead };
    for (many, what) in [
        (left, "not done"),
        (counts.retried, "tried again"),
        (failed, "failed"),
    ] {
        if many > 0 {
            text += &format!(", {} {what}", units::count(many));
        }
    }
    if keeps_dead_letters && counts.dead > 0 {
        text += &format!(", {}", plural(counts.dead, "dead letter"));
    }
    text
}

/// What a queue has dropped: `1,234 of 50,000 records dropped, since it was full`.
pub fn dropped(dropped: u64, records: Option<u64>) -> String {
    let what = match records {
        Some(records) => format!("{} of {}", units::count(dropped), plural(records, "record")),
        None => plural(dropped, "record"),
    };
    format!("{what} dropped, since it was full")
}

/// How far something has come, and how fast, the most important first: `12,400 of 50,000 records`, `1,230/s`.
pub fn pace(pace: &Pace) -> Vec<String> {
    let done = pace.done.map(|done| match pace.total {
        Some(total) => format!("{} of {}", units::count(done), plural(total, "record")),
        None if pace.is_estimate => format!("~{}", plural(done, "record")),
        None => plural(done, "record"),
    });
    let records = pace.records.map(|rate| match done {
        Some(_) => units::rate(rate),
        None => format!("{} records", units::rate(rate)),
    });
    let bytes = pace.bytes.map(units::byte_rate);
    let dead = (pace.dead > 0).then(|| plural(pace.dead, "dead letter"));
    let left = pace.left.map(|left| format!("{} left", short(left)));
    [done, records, left, dead, bytes]
        .into_iter()
        .flatten()
        .collect()
}

/// A process's status: `exit 3`, `killed by SIGKILL`.
pub fn exit(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit {code}"),
        Exit::Signal { number, core } => {
            let dumped = if core { " (core dumped)" } else { "" };
            format!("killed by {}{dumped}", units::signal(number))
        }
    }
}

/// What a status means beyond itself, where that is certain.
fn advice(plan: &Plan, unit: UnitId, exit: Exit) -> Option<String> {
    match exit {
        Exit::Code(code) => {
            let shell = shell(plan, unit)?;
            match code {
                126 => Some(format!("{shell} found a command that it could not run")),
                127 => Some(format!("{shell} did not find a command")),
                129..=192 => Some(format!(
                    "as {shell} says it: {} ended a command",
                    units::signal(i32::from(code) - 128)
                )),
                _ => None,
            }
        }
        Exit::Signal {
            number: libc::SIGXCPU,
            ..
        } => Some("its CPU time was over `limits.cpu_time`".to_owned()),
        Exit::Signal {
            number: libc::SIGXFSZ,
            ..
        } => Some("a file grew over `limits.file_size`".to_owned()),
        Exit::Signal { .. } => None,
    }
}

/// The shell's name, where a unit's program is one.
fn shell(plan: &Plan, unit: UnitId) -> Option<&str> {
    match plan.units.get(unit.index())?.argv.first()? {
        Arg::One(Template::Literal(program)) => {
            let name = program.rsplit('/').next()?;
            ["sh", "bash", "dash", "zsh", "ksh", "ash", "fish"]
                .contains(&name)
                .then_some(name)
        }
        Arg::One(Template::Parts(_)) | Arg::EachInput(_) | Arg::EachTask => None,
    }
}

/// Why procflow cancelled or skipped: `writer a failed`, `the run stopped after a failed`.
pub fn cause(plan: &Plan, cause: &Cause) -> String {
    let name = |node: &NodeId| match plan.nodes.get(node.index()) {
        Some(node) => &node.name,
        None => panic!("BUG: {node:?} is not in the plan"),
    };
    let is_service = |node: &NodeId| plan.node(*node).service.is_some();
    match cause {
        Cause::Writer { node, root } if node == root => format!("writer {} failed", name(node)),
        Cause::Writer { node, root } => format!(
            "writer {} was cancelled ({} failed)",
            name(node),
            name(root)
        ),
        Cause::Reader { node, root } if node == root => format!("reader {} failed", name(node)),
        Cause::Reader { node, root } => format!(
            "reader {} was cancelled ({} failed)",
            name(node),
            name(root)
        ),
        Cause::Pool(node) => format!("another worker of {} failed", name(node)),
        Cause::After { node, root } if is_service(node) && node == root => {
            format!("service {} failed", name(node))
        }
        Cause::After { node, root } if is_service(node) => {
            format!(
                "service {} did not last ({} failed)",
                name(node),
                name(root)
            )
        }
        Cause::After { node, root } if node == root => format!("{} failed", name(node)),
        Cause::After { node, root } => {
            format!("{} did not succeed ({} failed)", name(node), name(root))
        }
        Cause::NeverFailed(node) => format!("{} did not fail", name(node)),
        Cause::RunFailed(node) => format!("the run stopped after {} failed", name(node)),
        Cause::RunTimeout => match plan.timeout {
            Some(limit) => format!("the run timed out after {}", units::exact(limit)),
            None => "the run timed out".to_owned(),
        },
        Cause::Interrupted(number) => format!("interrupted by {}", units::signal(*number)),
        Cause::ByUser => "--skip".to_owned(),
        Cause::When(unmet) => format!("when: {unmet}"),
        Cause::NotNeeded => "nobody needs it".to_owned(),
        Cause::Broken => "procflow could not go on".to_owned(),
    }
}

/// How the run ended: `succeeded`, `failed`, `timed out`, `interrupted by SIGINT`.
pub fn verdict(exit: ExitCode, any_failed: bool) -> String {
    match exit {
        ExitCode::Success => "succeeded".to_owned(),
        ExitCode::NodeFailed => "failed".to_owned(),
        ExitCode::Usage => "refused".to_owned(),
        ExitCode::Broken => "broken off".to_owned(),
        ExitCode::TimedOut => "timed out".to_owned(),
        // `--exit-code-from` says what to exit with, not how the run went.
        ExitCode::Node(_) => if any_failed { "failed" } else { "succeeded" }.to_owned(),
        ExitCode::Signal(number) => format!("interrupted by {}", units::signal(number)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::tests::plan;

    #[test]
    fn records_that_failed_are_dead_letters_only_where_something_keeps_them() {
        let counts = PoolCounts {
            taken: 10,
            answered: 5,
            dead: 1,
            retried: 2,
            ..PoolCounts::default()
        };
        let text = "10 records, 4 not done, 2 tried again, 1";
        assert_eq!(records(&counts, true), format!("{text} dead letter"));
        assert_eq!(records(&counts, false), format!("{text} failed"));
    }

    #[test]
    fn failures() {
        let mut plan = plan(&["a"], &[]);
        let unit = UnitId(0);
        let code = |code| Failure::Exit(Exit::Code(code));
        let signal = |number, core| Failure::Exit(Exit::Signal { number, core });
        let in_shell = [
            (code(3), "exit 3"),
            (
                code(126),
                "exit 126 (sh found a command that it could not run)",
            ),
            (code(127), "exit 127 (sh did not find a command)"),
            (
                code(137),
                "exit 137 (as sh says it: SIGKILL ended a command)",
            ),
            (signal(libc::SIGKILL, false), "killed by SIGKILL"),
            (
                signal(libc::SIGABRT, true),
                "killed by SIGABRT (core dumped)",
            ),
            (
                signal(libc::SIGXCPU, false),
                "killed by SIGXCPU (its CPU time was over `limits.cpu_time`)",
            ),
            (
                Failure::TimedOut(Duration::from_millis(90_500)),
                "timed out after 1m 30s 500ms",
            ),
            (
                Failure::CannotStart {
                    code: 127,
                    why: "no such file: \"x\"".to_owned(),
                },
                "cannot start: no such file: \"x\"",
            ),
            (
                Failure::Ended {
                    exit: Exit::Code(127),
                    ready: false,
                },
                "ended before it was ready: exit 127 (sh did not find a command)",
            ),
            (
                Failure::Ended {
                    exit: Exit::Code(0),
                    ready: true,
                },
                "ended while it was needed: exit 0",
            ),
            (
                Failure::NotReady("not ready after 1s: file x: no such file".to_owned()),
                "not ready after 1s: file x: no such file",
            ),
            (
                Failure::Result("its value is longer than 64 KiB".to_owned()),
                "its value is longer than 64 KiB",
            ),
        ];
        for (why, words) in in_shell {
            assert_eq!(failure(&plan, unit, &why), words);
        }
        // Another program may mean anything by 127.
        plan.units[0].argv = vec![Arg::One(Template::Literal("/usr/bin/env".into()))];
        assert_eq!(failure(&plan, unit, &code(127)), "exit 127");
    }

    #[test]
    fn causes() {
        let mut plan = plan(&["a", "b"], &[]);
        let (a, b) = (NodeId(0), NodeId(1));
        let causes = [
            (Cause::Writer { node: a, root: a }, "writer a failed"),
            (
                Cause::Writer { node: b, root: a },
                "writer b was cancelled (a failed)",
            ),
            (Cause::Reader { node: a, root: a }, "reader a failed"),
            (
                Cause::Reader { node: b, root: a },
                "reader b was cancelled (a failed)",
            ),
            (Cause::Pool(a), "another worker of a failed"),
            (Cause::After { node: a, root: a }, "a failed"),
            (
                Cause::After { node: b, root: a },
                "b did not succeed (a failed)",
            ),
            (Cause::NeverFailed(a), "a did not fail"),
            (Cause::RunFailed(a), "the run stopped after a failed"),
            (Cause::RunTimeout, "the run timed out"),
            (Cause::Interrupted(libc::SIGINT), "interrupted by SIGINT"),
            (Cause::ByUser, "--skip"),
            (Cause::NotNeeded, "nobody needs it"),
            (Cause::Broken, "procflow could not go on"),
        ];
        for (why, words) in causes {
            assert_eq!(cause(&plan, &why), words);
        }
        plan.nodes[1].service = Some(std::sync::Arc::new(crate::plan::Service { ready: None }));
        let of_service = [
            (Cause::After { node: b, root: b }, "service b failed"),
            (
                Cause::After { node: b, root: a },
                "service b did not last (a failed)",
            ),
        ];
        for (why, words) in of_service {
            assert_eq!(cause(&plan, &why), words);
        }
        plan.timeout = Some(Duration::from_secs(600));
        assert_eq!(
            cause(&plan, &Cause::RunTimeout),
            "the run timed out after 10m"
        );
    }
}
