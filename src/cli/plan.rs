//! `procflow plan`: groups in start order, as a table or as JSON.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::cli::Error;
use crate::cli::args::{PlanArgs, PlanFormat};
use crate::cli::check::summary;
use crate::cli::pipeline::{Asked, Pipeline};
use crate::cli::words;
use crate::diagnostic::harmless;
use crate::exit::ExitCode;
use crate::plan::{
    Deliver, Group, NodeId, Overflow, Plan, Queue, QueueId, QueueKind, Sink, Skip, Unit, UnitId,
};
use crate::spec::Merge;

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
    if !plan.resources.is_empty() {
        let there_is = plan.resources.iter().map(|one| (&*one.name, one.amount));
        write!(out, ", resources: {}", words::amounts(there_is))?;
    }
    writeln!(out)?;
    let mut apart = true;
    // Lone nodes that follow each other form a table.
    let mut columns = (0, 0);
    let shown = queues(plan);
    for (number, group) in plan.groups.iter().enumerate() {
        let nodes = words::nodes(plan, group);
        let queues = &shown[number];
        // Groups of several stand apart; lone nodes take a line each.
        if apart || nodes.len() > 1 || !queues.is_empty() {
            writeln!(out)?;
        }
        apart = nodes.len() > 1 || !queues.is_empty();
        let mut claims = slots(group.slots);
        if group.memory > 0 {
            claims.push_str(&format!(", {}", words::bytes(group.memory)));
        }
        if !group.resources.is_empty() {
            claims.push_str(&format!(", {}", words::amounts(words::claims(plan, group))));
        }
        let waits = waits(plan, group);
        if !waits.is_empty() {
            claims.push_str(&format!(", after {}", words::few(&waits)));
        }
        if let Some((head, command)) = lone(plan, &shown, number) {
            if number == 0 || lone(plan, &shown, number - 1).is_none() {
                columns = widths(plan, &shown, number);
            }
            let (heads, commands) = columns;
            writeln!(out, "{head:<heads$}  {command:<commands$}  ({claims})")?;
            continue;
        }
        writeln!(out, "group {}: {claims}", number + 1)?;
        let width = nodes
            .iter()
            .map(|&node| member(plan, node).len())
            .max()
            .unwrap_or(0)
            .min(24);
        for &node in &nodes {
            writeln!(
                out,
                "  {:<width$}  {}",
                member(plan, node),
                words::command(plan, first(plan, node), 72)
            )?;
        }
        for &queue in queues {
            let queue = plan.queue(queue);
            writeln!(
                out,
                "  {}: {} ({})",
                words::ends(plan, queue),
                queue.name,
                kind(plan, queue).join(", ")
            )?;
        }
    }
    Ok(())
}

/// The queues that are told with each group: those within it, and those that are stored and that it writes, but for procflow's
/// own.
fn queues(plan: &Plan) -> Vec<Vec<QueueId>> {
    let of_file = |id: &QueueId| !words::is_within(plan, plan.queue(*id));
    let within = |group: &Group| group.queues.iter().copied().filter(of_file).collect();
    plan.groups.iter().map(within).collect()
}

/// What the line of a lone node begins with, and its command; none for a group of several, and where there is more to say.
fn lone(plan: &Plan, shown: &[Vec<QueueId>], number: usize) -> Option<(String, String)> {
    let [only] = words::nodes(plan, plan.groups.get(number)?)[..] else {
        return None;
    };
    if shown.get(number).is_some_and(|queues| !queues.is_empty()) {
        return None;
    }
    let head = format!("group {}: {}", number + 1, member(plan, only));
    Some((head, words::command(plan, first(plan, only), 60)))
}

/// The widths of the two columns of the lone nodes from this one on. A name that is much longer than usual pushes only its
/// own line.
fn widths(plan: &Plan, shown: &[Vec<QueueId>], from: usize) -> (usize, usize) {
    let width = |text: &str| text.chars().count();
    (from..).map_while(|number| lone(plan, shown, number)).fold(
        (0, 0),
        |(heads, commands), (head, command)| {
            (
                heads.max(width(&head).min(40)),
                commands.max(width(&command)),
            )
        },
    )
}

/// The unit that stands for all of a node: they have the same command.
fn first(plan: &Plan, node: NodeId) -> &Unit {
    plan.unit(UnitId(plan.node(node).units.start))
}

/// A node's name, how many workers it has and how they are fed, and whether it is skipped.
fn member(plan: &Plan, node: NodeId) -> String {
    let node = plan.node(node);
    let asks = words::condition(plan, node);
    let mut text = node.name.to_string();
    if let Some(pool) = &node.pool {
        text.push_str(&format!(" ×{} {}", pool.workers, words::feed(pool.feed)));
    }
    if node.service.is_some() {
        text.push_str(" (service)");
    }
    if let Some(why) = words::left_out(node) {
        text.push_str(&format!(" ({})", harmless(&why)));
    }
    if let Some(command) = asks {
        text.push_str(&format!(" (when {})", words::line(&command, 40)));
    }
    text
}

/// "1 slot".
fn slots(slots: u32) -> String {
    format!("{slots} slot{}", if slots == 1 { "" } else { "s" })
}

/// What a group waits for, in words, each once.
fn waits(plan: &Plan, group: &Group) -> Vec<String> {
    let mut waits: Vec<_> = words::nodes(plan, group)
        .into_iter()
        .flat_map(|node| &plan.node(node).after)
        .collect();
    waits.sort_by_key(|wait| (wait.node, wait.state as u8));
    waits.dedup();
    waits
        .into_iter()
        .map(|wait| words::wait(plan, *wait))
        .collect()
}

/// How procflow carries a queue, in words.
pub fn kind(plan: &Plan, queue: &Queue) -> Vec<String> {
    let mut kind: Vec<String> = Vec::new();
    if let Some(of) = words::copy_of(queue).filter(|_| !words::is_within(plan, queue)) {
        kind.push(format!("copy of {of}"));
    }
    match queue.kind {
        // What stands before it is no matter of the queue: an array of ends, whose copies procflow makes.
        QueueKind::Direct if is_copy(plan, queue) => {
            kind.push("pipe, one of several copies".to_owned());
        }
        QueueKind::Direct => kind.push("bare pipe".to_owned()),
        QueueKind::Stored => kind.push("stored on disk".to_owned()),
        QueueKind::Relayed => {}
    }
    if queue.writers.len() > 1 {
        kind.push(match queue.merge {
            Merge::Arrive => "merged".to_owned(),
            Merge::Sequence => "merged in sequence".to_owned(),
        });
    }
    if queue.readers.len() > 1 {
        kind.push(delivery(&queue.deliver));
    }
    if kind.is_empty() {
        kind.push("relayed".to_owned());
    }
    if queue.header > 0 {
        let records = if queue.header == 1 {
            "record"
        } else {
            "records"
        };
        kind.push(format!("first {} {records} to all", queue.header));
    }
    if queue.feedback {
        kind.push("leads back".to_owned());
    }
    if let (Some(records), QueueKind::Relayed) = (queue.max_records, queue.kind) {
        kind.push(format!("holds {records} records"));
    }
    match queue.overflow {
        _ if queue.kind == QueueKind::Stored => {}
        Overflow::Block => {}
        Overflow::Spill => kind.push("spills to disk when full".to_owned()),
        Overflow::DropNewest => kind.push("drops what comes when full".to_owned()),
        Overflow::DropOldest => kind.push("drops the oldest when full".to_owned()),
    }
    kind
}

/// Who gets a record, in a word.
fn delivery(deliver: &Deliver) -> String {
    match deliver {
        Deliver::Share => "shared".to_owned(),
        Deliver::RoundRobin => "round robin".to_owned(),
        Deliver::Copy => "copied".to_owned(),
        Deliver::ByField { field: 0, .. } => "by the whole record".to_owned(),
        Deliver::ByField { field, .. } => format!("by field {field}"),
    }
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
        "jobserver": words::jobserver(plan.jobserver),
        "resources": plan.resources.iter().map(|one| (one.name.to_string(), one.amount.into())).collect::<Map<_, _>>(),
        "groups": plan.groups.iter().zip(queues(plan)).map(|(group, queues)| group_json(plan, group, &queues)).collect::<Vec<_>>(),
    })
}

fn group_json(plan: &Plan, group: &Group, queues: &[QueueId]) -> Value {
    let nodes = words::nodes(plan, group).into_iter().map(|id| {
        let node = plan.node(id);
        let mut json = json!({
            "name": &*node.name,
            "command": words::argv(plan, first(plan, id)),
            "after": node.after.iter().map(|wait| json!({
                "node": &*plan.nodes[wait.node.index()].name,
                "state": words::state(wait.state),
            })).collect::<Vec<_>>(),
            "skip": node.is_left_out(),
            "when": match (&node.skip, words::condition(plan, node)) {
                (Some(Skip::When(unmet)), _) => json!({ "holds": false, "why": unmet.to_string() }),
                (None, Some(command)) => json!({ "command": command }),
                (Some(Skip::ByUser) | None, _) => Value::Null,
            },
            "tags": node.tags.iter().map(|tag| &**tag).collect::<Vec<_>>(),
        });
        if !node.matrix.is_empty() {
            let values = node.matrix.iter();
            json["base"] = (*node.base).into();
            json["matrix"] = values
                .map(|(key, value)| (key.to_string(), Value::from(&**value)))
                .collect::<Map<_, _>>()
                .into();
        }
        if let Some(pool) = &node.pool {
            json["pool"] = json!({ "workers": pool.workers, "feed": words::feed(pool.feed) });
        }
        if let Some(service) = &node.service {
            json["service"] = json!({
                "ready": words::readiness(plan, service.ready.as_ref()),
                "restarts": first(plan, id).settings.retry.max,
            });
        }
        json
    });
    let queues = queues.iter().map(|&queue| {
        let queue = plan.queue(queue);
        json!({
            "name": &*queue.name,
            "writers": words::end_nodes(plan, &queue.writers),
            "readers": words::end_nodes(plan, &queue.readers),
            "kind": match queue.kind { QueueKind::Direct => "direct", QueueKind::Relayed => "relayed", QueueKind::Stored => "stored" },
            "deliver": match &queue.deliver {
                Deliver::Share => json!("share"),
                Deliver::RoundRobin => json!("round_robin"),
                Deliver::Copy => json!("copy"),
                Deliver::ByField { field, separator } => json!({ "by_field": field, "separator": separator }),
            },
            "overflow": match queue.overflow {
                Overflow::Block => "block",
                Overflow::Spill => "spill",
                Overflow::DropNewest => "drop_newest",
                Overflow::DropOldest => "drop_oldest",
            },
            "feedback": queue.feedback,
            "spills": queue.spills(),
            "capacity": queue.capacity,
            "max_records": queue.max_records,
        })
    });
    json!({
        "slots": group.slots,
        "memory": group.memory,
        "resources": words::claims(plan, group).map(|(name, amount)| (name.to_owned(), amount.into())).collect::<Map<_, _>>(),
        "processes": nodes.collect::<Vec<_>>(),
        "queues": queues.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use crate::cli::plan::{json, table};
    use crate::cli::words::{example, planned, pools};

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

    #[test]
    fn pools_as_table() {
        let (_, plan) = pools();
        assert_eq!(
            printed(|out| table(&plan, out)),
            r#"pools: 4 processes, 3 pools, 6 queues, 2 groups
job slots: as many as CPUs, on failure: stop

group 1: 3 slots
  read              cat book.txt
  count ×2 stream   sh -e -c 'sort | uniq -c'
  letters           wc -c
  total             total
  read → letters: lines (pipe, one of several copies)
  count → total: counts (merged)
  total → fetch: all (stored on disk)
  read → count: lines.count (copy of lines, shared)

group 2: 6 slots, after total
  fetch ×3 task     curl '${{ task.0 }}'
  walk ×1 request   walk
  show              show '${{ in.bad }}'
  fetch, walk → walk: pages (merged, leads back, spills to disk when full)
  fetch → show: bad (relayed, holds 100 records, drops the oldest when full)
  walk → show: found (relayed, spills to disk when full)
"#
        );
    }

    /// Two resources, and nodes that claim none, one and both.
    const RESOURCES: &str = r#"
[run]
resources = { gpu = 3, db = 1 }
[process.a]
command = ["a"]
[process.b]
command = ["b"]
resources = { db = 1 }
[process.c]
command = ["c"]
memory = "1GiB"
resources = { gpu = 1, db = 1 }
stdout = "q"
[pool.d]
command = ["d"]
stdin = "q"
workers = 2
resources = { gpu = 1 }
"#;

    #[test]
    fn resources_as_table() {
        let (_, plan) = planned(RESOURCES);
        assert_eq!(
            printed(|out| table(&plan, out)),
            "\
example: 3 processes, 1 pool, 1 queue, 3 groups
job slots: as many as CPUs, on failure: stop, resources: gpu 3, db 1

group 1: a  a  (1 slot)
group 2: b  b  (1 slot, db 1)

group 3: 3 slots, 1 GiB, gpu 3, db 1
  c             c
  d ×2 stream   d
  c → d: q (shared)
"
        );
    }

    #[test]
    fn resources_as_json() {
        let (_, plan) = planned(RESOURCES);
        let json = json(&plan);
        assert_eq!(json["resources"], serde_json::json!({ "gpu": 3, "db": 1 }));
        let claims = [0, 1, 2].map(|group: usize| json["groups"][group]["resources"].to_string());
        assert_eq!(claims, ["{}", r#"{"db":1}"#, r#"{"gpu":3,"db":1}"#]);
    }
}
