//! `procflow plan`: groups in start order, as a table or as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::cli::Error;
use crate::cli::args::{PlanArgs, PlanFormat};
use crate::cli::check::summary;
use crate::cli::pipeline::{Asked, Pipeline};
use crate::cli::words;
use crate::diagnostic::harmless;
use crate::exit::ExitCode;
use crate::plan::{Group, Plan, Queue, QueueKind, Sink, UnitId};

/// Prints the plan of a file; its problems go to `err`.
///
/// # Errors
/// See [`Error`].
pub fn run(
    args: &PlanArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
    styled: bool,
) -> Result<ExitCode, Error> {
    let asked = Asked::of(&args.pipeline, &args.select);
    let pipeline = Pipeline::load(&args.pipeline.file, asked)?;
    let Some(plan) = words::plan_or_problems(&pipeline, err, styled)? else {
        return Ok(ExitCode::Usage);
    };
    match args.format {
        PlanFormat::Table => table(plan, out)?,
        PlanFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &json(plan)).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(ExitCode::Success)
}

/// Groups in start order: their slots and memory, what they wait for, their processes and queues.
///
/// # Errors
/// Those of `out`.
pub fn table(plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    let on_failure = words::on_failure(plan.on_failure);
    writeln!(out, "{}: {}", harmless(&plan.name), summary(plan))?;
    let jobs = plan
        .jobs
        .map_or_else(|| "as many as CPUs".to_owned(), |jobs| jobs.to_string());
    write!(out, "job slots: {jobs}, on failure: {on_failure}")?;
    if let Some(timeout) = plan.timeout {
        write!(out, ", timeout: {}", words::duration(timeout))?;
    }
    writeln!(out)?;
    let mut apart = true;
    // Lone processes that follow each other form a table.
    let mut columns = (0, 0);
    for (number, group) in plan.groups.iter().enumerate() {
        // Groups of several stand apart; lone processes take a line each.
        if apart || group.units.len() > 1 {
            writeln!(out)?;
        }
        apart = group.units.len() > 1;
        let mut claims = slots(group.slots);
        if group.memory > 0 {
            claims.push_str(&format!(", {}", words::bytes(group.memory)));
        }
        let waits = waits(plan, group);
        if !waits.is_empty() {
            claims.push_str(&format!(", after {}", words::few(&waits)));
        }
        if let Some((head, command)) = lone(plan, number) {
            if number == 0 || lone(plan, number - 1).is_none() {
                columns = widths(plan, number);
            }
            let (heads, commands) = columns;
            writeln!(out, "{head:<heads$}  {command:<commands$}  ({claims})")?;
            continue;
        }
        writeln!(out, "group {}: {claims}", number + 1)?;
        let width = group
            .units
            .iter()
            .map(|&unit| member(plan, unit).len())
            .max()
            .unwrap_or(0)
            .min(24);
        for &unit in &group.units {
            writeln!(
                out,
                "  {:<width$}  {}",
                member(plan, unit),
                words::command(plan, &plan.units[unit.index()], 72)
            )?;
        }
        for &queue in &group.queues {
            let queue = &plan.queues[queue.index()];
            let names = |units: &[UnitId]| {
                units
                    .iter()
                    .map(|&unit| words::unit_name(plan, unit))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            writeln!(
                out,
                "  {} → {}: {} ({})",
                names(&queue.writers),
                names(&queue.readers),
                queue.name,
                kind(plan, queue).join(", ")
            )?;
        }
    }
    Ok(())
}

/// What the line of a lone process begins with, and its command; none for a group of several.
fn lone(plan: &Plan, number: usize) -> Option<(String, String)> {
    let [only] = plan.groups.get(number)?.units[..] else {
        return None;
    };
    let head = format!("group {}: {}", number + 1, member(plan, only));
    Some((head, words::command(plan, &plan.units[only.index()], 60)))
}

/// The widths of the two columns of the lone processes from this one on. A name that is much longer than usual pushes only its
/// own line.
fn widths(plan: &Plan, from: usize) -> (usize, usize) {
    let width = |text: &str| text.chars().count();
    (from..).map_while(|number| lone(plan, number)).fold(
        (0, 0),
        |(heads, commands), (head, command)| {
            (
                heads.max(width(&head).min(40)),
                commands.max(width(&command)),
            )
        },
    )
}

/// A unit's name, and whether it is skipped.
fn member(plan: &Plan, unit: UnitId) -> String {
    let node = &plan.nodes[plan.units[unit.index()].node.index()];
    if node.skip {
        format!("{} (skipped)", node.name)
    } else {
        node.name.to_string()
    }
}

/// "1 slot".
fn slots(slots: u32) -> String {
    format!("{slots} slot{}", if slots == 1 { "" } else { "s" })
}

/// What a group waits for, in words, each once.
fn waits(plan: &Plan, group: &Group) -> Vec<String> {
    let mut waits: Vec<_> = group
        .units
        .iter()
        .flat_map(|unit| &plan.nodes[plan.units[unit.index()].node.index()].after)
        .collect();
    waits.sort_by_key(|wait| (wait.node, wait.state as u8));
    waits.dedup();
    waits
        .into_iter()
        .map(|wait| words::wait(plan, *wait))
        .collect()
}

/// How procflow carries a queue, in words.
pub fn kind(plan: &Plan, queue: &Queue) -> Vec<&'static str> {
    let mut kind = Vec::new();
    match queue.kind {
        // What stands before it is no matter of the queue: an array of ends, whose copies procflow makes.
        QueueKind::Direct if is_copy(plan, queue) => kind.push("pipe, one of several copies"),
        QueueKind::Direct => kind.push("bare pipe"),
        QueueKind::Stored => kind.push("stored"),
        QueueKind::Relayed => {
            if queue.writers.len() > 1 {
                kind.push("merged");
            }
            if queue.readers.len() > 1 {
                kind.push("copied");
            }
            if kind.is_empty() {
                kind.push("relayed");
            }
            if queue.spills() {
                kind.push("spills to disk when full");
            }
        }
    }
    kind
}

/// Whether a queue's writer writes it by an end that leads elsewhere, too.
fn is_copy(plan: &Plan, queue: &Queue) -> bool {
    let leads_here = |sink: &Sink| match sink {
        Sink::Queue(id) => {
            plan.queues.get(id.index()).map(|other| &other.name) == Some(&queue.name)
        }
        _ => false,
    };
    let outputs = queue
        .writers
        .iter()
        .flat_map(|&writer| &plan.units[writer.index()].ends.outputs);
    outputs
        .filter(|output| output.to.len() > 1)
        .any(|output| output.to.iter().any(leads_here))
}

/// The plan as JSON. Names, not numbers, so that it can be read without a look-up.
pub fn json(plan: &Plan) -> Value {
    json!({
        "version": 1,
        "name": plan.name,
        "description": plan.description,
        "dir": plan.dir.to_string_lossy(),
        "jobs": plan.jobs,
        "on_failure": words::on_failure(plan.on_failure),
        "timeout_seconds": plan.timeout.map(|timeout| timeout.as_secs_f64()),
        "groups": plan.groups.iter().map(|group| group_json(plan, group)).collect::<Vec<_>>(),
    })
}

fn group_json(plan: &Plan, group: &Group) -> Value {
    let processes = group.units.iter().map(|&unit| {
        let unit = &plan.units[unit.index()];
        let node = &plan.nodes[unit.node.index()];
        json!({
            "name": &*node.name,
            "command": words::argv(plan, unit),
            "after": node.after.iter().map(|wait| json!({
                "node": &*plan.nodes[wait.node.index()].name,
                "state": words::state(wait.state),
            })).collect::<Vec<_>>(),
            "skip": node.skip,
            "tags": node.tags.iter().map(|tag| &**tag).collect::<Vec<_>>(),
        })
    });
    let queues = group.queues.iter().map(|&queue| {
        let queue = &plan.queues[queue.index()];
        let names = |units: &[UnitId]| units.iter().map(|&unit| words::unit_name(plan, unit).to_owned()).collect::<Vec<_>>();
        json!({
            "name": &*queue.name,
            "writers": names(&queue.writers),
            "readers": names(&queue.readers),
            "kind": match queue.kind { QueueKind::Direct => "direct", QueueKind::Relayed => "relayed", QueueKind::Stored => "stored" },
            "spills": queue.spills(),
            "capacity": queue.capacity,
        })
    });
    json!({
        "slots": group.slots,
        "memory": group.memory,
        "processes": processes.collect::<Vec<_>>(),
        "queues": queues.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use crate::cli::plan::table;
    use crate::cli::words::example;

    fn printed(print: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
        let mut out = Vec::new();
        assert!(print(&mut out).is_ok());
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn groups_in_start_order_as_a_table() {
        let (_, plan) = example();
        assert_eq!(
            printed(|out| table(&plan, out)),
            r#"word-count: 7 processes, 4 queues, 3 groups
job slots: as many as CPUs, on failure: stop

group 1: fetch  curl -H 'Auth: ***' http://x/book.txt  (1 slot)

group 2: 3 slots, 512 MiB, after fetch
  read   cat book.txt
  split  split.py
  left   sh -e -c 'tr a b | ⏎ sort'
  right  sh -e -c 'tr a b | sort'
  total  total
  read → split: text (bare pipe)
  split → left: odd (relayed, spills to disk when full)
  split → right: even (relayed, spills to disk when full)
  left, right → total: counts (merged, spills to disk when full)

group 3: mail  mail -s 'it "failed"'  (1 slot, after read, total failed)
"#
        );
    }
}
