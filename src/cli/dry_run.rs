//! `procflow run --dry-run`: the run in a world where every process succeeds at once. The scheduler is the real one, so what
//! it prints is the order in which the nodes would start with so many job slots.

use std::io::Write;

use crate::cli::{Error, words};
use crate::event::{Cause, Exit, Outcome};
use crate::exit::ExitCode;
use crate::plan::{GroupId, Plan, UnitId};
use crate::sched::{Action, Event, Scheduler};

/// Prints a line for each node, as it would start or be skipped.
///
/// # Errors
/// Where `out` cannot be written to.
pub fn print(plan: &Plan, jobs: u32, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let mut sched = Scheduler::new(plan, jobs, None, plan.on_failure, 0);
    let mut events = std::collections::VecDeque::from([Event::Begin]);
    let mut actions = Vec::new();
    while let Some(event) = events.pop_front() {
        sched.handle(event, &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Spawn { group, .. } => {
                    let units = started(plan, group);
                    for &unit in units.iter().filter(|&&unit| stands_for_all(plan, unit)) {
                        writeln!(out, "{}", line(plan, unit))?;
                    }
                    events.extend(units.iter().map(|&unit| Event::Spawned(unit)));
                    let ending = units.iter().filter(|&&unit| !is_service(plan, unit));
                    events.extend(ending.map(|&unit| ends(plan, unit)));
                }
                // It is asked in a run only: here the answer is yes.
                Action::Ask(unit) => events.push_back(Event::Answered(unit, Ok(Exit::Code(0)))),
                Action::Probe(unit) => events.push_back(Event::Ready(unit)),
                Action::Stop(unit) | Action::Kill(unit) => events.push_back(ends(plan, unit)),
                Action::Commit(unit) => events.push_back(Event::Committed(unit, Ok(()))),
                Action::Ended(unit, Outcome::Skipped(cause)) if stands_for_all(plan, unit) => {
                    let name = &plan.node(plan.unit(unit).node).name;
                    writeln!(out, "{name}: {}", skipped(plan, &cause))?;
                }
                _ => {}
            }
        }
    }
    out.flush()?;
    Ok(ExitCode::Success)
}

/// It ends when nobody needs it any more.
fn is_service(plan: &Plan, unit: UnitId) -> bool {
    plan.node(plan.unit(unit).node).service.is_some()
}

fn ends(plan: &Plan, unit: UnitId) -> Event {
    let codes = &plan.unit(unit).settings.success_codes;
    Event::Exited {
        unit,
        exit: Exit::Code(codes.first().copied().unwrap_or(0)),
        broken: Vec::new(),
        fault: None,
    }
}

fn started(plan: &Plan, group: GroupId) -> Vec<UnitId> {
    let units = plan.group(group).units.iter().copied();
    units
        .filter(|&unit| !plan.node(plan.unit(unit).node).is_left_out())
        .collect()
}

fn skipped(plan: &Plan, cause: &Cause) -> String {
    match cause {
        Cause::NeverFailed(node) => format!(
            "would be skipped: `{}` does not fail",
            plan.node(*node).name
        ),
        cause => format!(
            "would be skipped: {}",
            crate::report::words::cause(plan, cause)
        ),
    }
}

/// Whether a node is told by this unit: a pool is one line, and who puts its files together is none.
fn stands_for_all(plan: &Plan, unit: UnitId) -> bool {
    plan.node(plan.unit(unit).node).units.start == unit.0
}

/// `sort: sort -u`, as one would type it, of a pool `count ×4: wc -l`; what only the run knows stays as the file says it.
fn line(plan: &Plan, unit: UnitId) -> String {
    let command = words::command(plan, plan.unit(unit), usize::MAX);
    let workers = match &plan.node(plan.unit(unit).node).pool {
        Some(pool) => format!(" ×{}", pool.workers),
        None if is_service(plan, unit) => " (service)".to_owned(),
        None => String::new(),
    };
    let node = plan.node(plan.unit(unit).node);
    let condition = words::condition(plan, node)
        .map(|asked| format!(" (when {})", words::line(&asked, usize::MAX)))
        .unwrap_or_default();
    let name = words::unit_name(plan, unit);
    format!("{name}{workers}{condition}: {command}")
}
