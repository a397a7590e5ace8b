//! What a node is, as lines: a name that people know from the file, and what is said there, with all that is known put in.
//!
//! A line is made only where something is said, so most nodes have two or three. What cannot change a result is in none:
//! descriptions, tags, how long a node may take, how it is stopped, how often it is tried, what it claims.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::plan::settings::EPIPE_CODES;
use crate::plan::template::{Part, Template};
use crate::plan::{
    Arg, Deliver, Feed, Input, NodeId, Overflow, Plan, Pool, Queue, QueueId, QueueKind, Role, Sink,
    Source, Tasks, Unit,
};
use crate::resume::marks::Hasher;
use crate::store::journal::Line;

/// What the pipeline says for all nodes: its environment, with the params in it.
pub fn for_all(plan: &Plan, hasher: &Hasher) -> Vec<Line> {
    // The later wins, and the order says nothing.
    let env: BTreeMap<_, _> = plan.env.iter().map(|(name, value)| (name, value)).collect();
    env.into_iter()
        .map(|(name, value)| (format!("env {name}"), hasher.text(value)))
        .collect()
}

/// What a node is.
pub(super) fn of_node(plan: &Plan, id: NodeId, run_id: &str, hasher: &Hasher) -> Vec<Line> {
    let mut lines = Lines {
        plan,
        run_id,
        hasher,
        lines: Vec::new(),
    };
    lines.node(id);
    lines.lines
}

/// The units of a node that differ in more than their number: of workers the first stands for all.
pub(super) fn units(plan: &Plan, id: NodeId) -> impl Iterator<Item = &Unit> {
    let units = plan.node(id).units.clone();
    units.map(|unit| &plan.units[unit as usize]).filter(|unit| {
        matches!(
            unit.role,
            Role::Process | Role::Pool | Role::Gather | Role::Worker(0)
        )
    })
}

struct Lines<'a> {
    plan: &'a Plan,
    run_id: &'a str,
    hasher: &'a Hasher,
    lines: Vec<Line>,
}

impl Lines<'_> {
    fn say(&mut self, name: impl Into<String>, text: &str) {
        self.lines.push((name.into(), self.hasher.text(text)));
    }

    fn node(&mut self, id: NodeId) {
        let plan = self.plan;
        for unit in units(plan, id) {
            match unit.role {
                Role::Gather => self.ends(unit, "gathered "),
                Role::Process | Role::Pool | Role::Worker(_) => {
                    self.command(unit);
                    self.settings(unit);
                    self.ends(unit, "");
                    self.queues(id, unit);
                }
            }
        }
        if let Some(pool) = &plan.node(id).pool {
            self.pool(pool);
        }
        for after in &plan.node(id).after {
            let before = plan.node(after.node);
            if is_left_out(plan, after.node) {
                self.say(format!("after {}", before.name), "skipped");
            } else if before.service.is_some() {
                // It has no results that could change; what it is can.
                let lines = of_node(plan, after.node, self.run_id, self.hasher);
                self.say(format!("after {}", before.name), &format!("{lines:?}"));
            }
        }
    }

    fn command(&mut self, unit: &Unit) {
        for (index, arg) in unit.argv.iter().enumerate() {
            let text = match arg {
                Arg::One(template) => self.said(template),
                Arg::EachInput(name) => format!("$each in.{name}"),
                Arg::EachTask => "$each task".to_owned(),
            };
            self.say(format!("command[{index}]"), &text);
        }
        for (name, value) in &unit.env {
            let value = self.said(value);
            self.say(format!("env {name}"), &value);
        }
    }

    fn settings(&mut self, unit: &Unit) {
        let settings = &unit.settings;
        if settings.cwd.literal() != Some(".") {
            let cwd = self.said(&settings.cwd);
            self.say("cwd", &cwd);
        }
        if settings.clear_env {
            self.say("clear_env", "");
        }
        if settings.success_codes != [0] {
            self.say("success_codes", &format!("{:?}", settings.success_codes));
        }
        if settings.epipe_codes != EPIPE_CODES {
            self.say("epipe_codes", &format!("{:?}", settings.epipe_codes));
        }
        if !settings.limits.is_empty() {
            self.say("limits", &format!("{:?}", settings.limits));
        }
        for (name, patterns) in [("reads", &unit.reads), ("writes", &unit.writes)] {
            for (index, pattern) in patterns.iter().enumerate() {
                let pattern = self.said(pattern);
                self.say(format!("{name}[{index}]"), &pattern);
            }
        }
    }

    fn ends(&mut self, unit: &Unit, of: &str) {
        for Input { name, from } in &unit.ends.inputs {
            for (fd, source) in from {
                let text = match source {
                    Source::Null => continue,
                    Source::Inherit => "inherit".to_owned(),
                    Source::File(path) => format!("file {}", self.said(path)),
                    Source::Text(text) => format!("text {text}"),
                    Source::Queue(queue) => format!("queue {}", self.plan.queue(*queue).name),
                };
                self.say(format!("{of}{name}"), &format!("{fd} {text}"));
            }
        }
        for output in &unit.ends.outputs {
            if output.to == [Sink::Log] && output.fd <= 2 {
                continue;
            }
            let mut text = output.fd.to_string();
            for sink in &output.to {
                let _ = match sink {
                    Sink::Log => write!(text, " log"),
                    Sink::Null => write!(text, " null"),
                    Sink::Inherit => write!(text, " inherit"),
                    Sink::Value => write!(text, " value"),
                    Sink::Stdout => write!(text, " stdout"),
                    Sink::File { path, append } => {
                        write!(text, " file {append} {:?}", self.said(path))
                    }
                    Sink::Queue(queue) => write!(text, " queue {}", self.plan.queue(*queue).name),
                };
            }
            self.say(format!("{of}{}", output.name), &text);
        }
    }

    fn queues(&mut self, id: NodeId, unit: &Unit) {
        let plan = self.plan;
        let read = unit.ends.inputs.iter().flat_map(|input| &input.from);
        let read = read.filter_map(|(_, source)| match source {
            Source::Queue(queue) => Some((*queue, true)),
            _ => None,
        });
        let written = unit.ends.outputs.iter().flat_map(|output| &output.to);
        let written = written.filter_map(|sink| match sink {
            Sink::Queue(queue) => Some((*queue, false)),
            _ => None,
        });
        let mut told: Vec<QueueId> = Vec::new();
        for (queue, reads) in read.chain(written) {
            if told.contains(&queue) {
                continue;
            }
            told.push(queue);
            let queue = plan.queue(queue);
            let text = self.queue(queue, id, reads);
            self.say(format!("queue {}", queue.name), &text);
        }
    }

    fn queue(&self, queue: &Queue, id: NodeId, reads: bool) -> String {
        let plan = self.plan;
        let mut text = format!(
            "{:?} {:?} {:?} {} {:?} {}",
            queue.records,
            queue.deliver,
            queue.merge,
            queue.header,
            queue.on_writer_failure,
            queue.kind == QueueKind::Stored
        );
        if matches!(queue.overflow, Overflow::DropNewest | Overflow::DropOldest) {
            let _ = write!(
                text,
                " {:?} {} {:?}",
                queue.overflow, queue.capacity, queue.max_records
            );
        }
        if let Some(path) = &queue.file {
            let _ = write!(text, " {:?}", self.said(path));
        }
        let mut name = |unit: &crate::plan::UnitId| {
            let node = plan.unit(*unit).node;
            let sign = if is_left_out(plan, node) { "-" } else { "+" };
            let _ = write!(text, " {sign}{}", plan.node(node).name);
        };
        if reads {
            queue.writers.iter().for_each(&mut name);
            // Of what is shared, others have what this one hasn't.
            let is_alone = queue.readers.iter().all(|unit| plan.unit(*unit).node == id);
            if queue.deliver != Deliver::Copy && !is_alone {
                queue.readers.iter().for_each(&mut name);
            }
        }
        text
    }

    fn pool(&mut self, pool: &Pool) {
        self.say("feed", &format!("{:?}", pool.feed));
        // Which worker does what is nobody's business where procflow hands out the records, and where it doesn't it is the workers'.
        if pool.feed == Feed::Stream {
            self.say("workers", &pool.workers.to_string());
        }
        let tasks = pool.tasks.as_ref().map(|tasks| match tasks {
            Tasks::List(list) => format!("{list:?}"),
            Tasks::Range(from, to) => format!("{from} {to}"),
            Tasks::Glob(pattern) => format!("glob {}", self.said(pattern)),
            Tasks::Lines { path, separator } => format!("{separator:?} {}", self.said(path)),
        });
        if let Some(tasks) = tasks {
            self.say("tasks", &tasks);
        }
        self.say(
            "order",
            &format!(
                "{:?} {} {}",
                pool.order, pool.record_on_stdin, pool.dead_letter
            ),
        );
        if let Some(batch) = pool.batch {
            self.say("batch", &batch.to_string());
        }
    }

    /// A string of the file. Names that only the run knows stand as such, in a form that no text has; the run's own id is put in, so
    /// that what names it is another thing in each run.
    fn said(&self, template: &Template) -> String {
        let parts = match template {
            Template::Literal(text) => return text.replace('$', "$$"),
            Template::Parts(parts) => parts,
        };
        let mut text = String::new();
        for part in parts {
            let _ = match part {
                Part::Text(part) => write!(text, "{}", part.replace('$', "$$")),
                Part::In(name) => write!(text, "${{in.{name}}}"),
                Part::Out(name) => write!(text, "${{out.{name}}}"),
                Part::Value(node) => write!(text, "${{value.{}}}", self.plan.node(*node).name),
                Part::RunId => write!(text, "${{run.id {}}}", self.run_id),
                Part::Task => write!(text, "${{task}}"),
                Part::TaskField(field) => write!(text, "${{task.{field}}}"),
                Part::TaskIndex => write!(text, "${{task.index}}"),
                Part::Worker => write!(text, "${{worker}}"),
            };
        }
        text
    }
}

/// The user has left it out: it is not started, and to the others it is as if it had succeeded and written nothing.
pub(super) fn is_left_out(plan: &Plan, node: NodeId) -> bool {
    plan.node(node).is_left_out()
}

/// No results of it are kept: see [`is_left_out`]; or it is a service.
pub(super) fn is_aside(plan: &Plan, node: NodeId) -> bool {
    is_left_out(plan, node) || plan.node(node).service.is_some()
}

/// How two definitions differ: the names of the lines that do, the first few of them.
pub(super) fn difference(was: &[Line], is: &[Line]) -> Option<String> {
    if was == is {
        return None;
    }
    let missing = |lines: &[Line], line: &Line| !lines.contains(line);
    let mut names: Vec<&str> = Vec::new();
    let changed = is.iter().filter(|line| missing(was, line));
    for (name, _) in changed.chain(was.iter().filter(|line| missing(is, line))) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let more = names.len().saturating_sub(3);
    let mut text = names[..names.len() - more].join(", ");
    if names.is_empty() {
        // Nothing but the order.
        text.push_str("the order of its lines");
    }
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    Some(text)
}
