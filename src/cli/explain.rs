//! `procflow explain`: every effective value of a node, and the line or default that it came from.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use crate::cli::Error;
use crate::cli::args::ExplainArgs;
use crate::cli::pipeline::{Asked, Pipeline};
use crate::cli::plan::kind;
use crate::cli::words;
use crate::diagnostic::{Lines, Place, did_you_mean, harmless};
use crate::exit::ExitCode;
use crate::plan::template::Template;
use crate::plan::{
    After, Arg, DEAD_LETTER, Feed, Node, NodeId, Order, Output, Plan, Pool, Queue, QueueId,
    QueueKind, Role, Sink, Skip, Source, Tasks, Unit, UnitId, variable,
};
use crate::spec::values::OneOrMany;
use crate::spec::{self, AfterState, Process, Spec, When, Workers};

/// Explains one node of a file; the file's problems go to `err`.
///
/// # Errors
/// See [`Error`].
pub fn run(
    args: &ExplainArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
    styled: bool,
) -> Result<ExitCode, Error> {
    let asked = Asked {
        set: args.pipeline.set.set.clone(),
        keep_spec: true,
        ..Asked::default()
    };
    let pipeline = Pipeline::load(&args.pipeline.file, asked)?;
    let (Some(plan), Some(spec)) = (
        words::plan_or_problems(&pipeline, err, styled)?,
        &pipeline.spec,
    ) else {
        return Ok(ExitCode::Usage);
    };
    let node = match plan.find(&args.node).as_slice() {
        &[node] => node,
        [] => {
            return Err(Error::Usage(format!(
                "no node `{}` in {}; {}",
                args.node,
                pipeline.source.name,
                instead(plan, &args.node)
            )));
        }
        nodes => {
            combinations(plan, &args.node, nodes, out)?;
            return Ok(ExitCode::Success);
        }
    };
    let lines = Lines::of(&pipeline.source.text);
    explain(spec, plan, node, &|place| lines.of_key(place), out)?;
    Ok(ExitCode::Success)
}

/// The nodes that a name stands for, to ask for one of them.
fn combinations(plan: &Plan, name: &str, nodes: &[NodeId], out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{} stands for {} nodes; name one of them to see what it is:",
        harmless(name),
        nodes.len()
    )?;
    for node in nodes {
        writeln!(out, "  {}", words::shell_word(&plan.node(*node).name))?;
    }
    Ok(())
}

/// What to ask for where there is no node of that name.
fn instead(plan: &Plan, name: &str) -> String {
    if let Some(queue) = plan.queues.iter().find(|queue| &*queue.name == name) {
        return format!(
            "`{name}` is a queue: {} ({})",
            words::ends(plan, queue),
            kind(plan, queue).join(", ")
        );
    }
    let names = plan.nodes.iter();
    let names = names.flat_map(|node| [&*node.base, &*node.name]);
    match did_you_mean(name, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`procflow plan` shows its nodes".to_owned(),
    }
}

/// Says everything of a node. `line` knows where a key stands in the file.
///
/// # Errors
/// Those of `out`.
pub fn explain(
    spec: &Spec,
    plan: &Plan,
    node: NodeId,
    line: &dyn Fn(&Place) -> Option<usize>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let said = &plan.nodes[node.index()];
    let name = &*said.base;
    let Some(process) = spec.process.get(name).or_else(|| spec.pool.get(name)) else {
        return Ok(());
    };
    let Some(unit) = plan.units.get(said.units.start as usize) else {
        return Ok(());
    };
    let mut table = Table {
        rows: Vec::new(),
        sources: Sources {
            line,
            process: said.place(),
        },
    };
    table.row(said.table(), harmless(&said.name), table.sources.own(None));
    if !said.matrix.is_empty() {
        let values: Vec<String> = said
            .matrix
            .iter()
            .map(|(key, value)| format!("{key} = {}", harmless(value)))
            .collect();
        table.row(
            "matrix",
            values.join(", "),
            table.sources.own(Some("matrix")),
        );
    }
    if let Some(description) = &said.description {
        table.row(
            "description",
            harmless(description),
            table.sources.own(Some("description")),
        );
    }
    if !said.tags.is_empty() {
        table.row(
            "tags",
            said.tags.join(", "),
            table.sources.own(Some("tags")),
        );
    }
    table.command(plan, process, spec, unit);
    if let (Some(pool), Some(said)) = (&said.pool, &process.pool) {
        table.pool(plan, pool, said, unit);
    }
    table.settings(plan, process, spec, unit, said);
    table.ends(plan, process, unit);
    table.waits(plan, process, said);
    table.group(plan, process, unit);
    table.environment(plan, process, spec, (unit, said));
    table.print(out)
}

/// Where values come from, in words.
struct Sources<'a> {
    line: &'a dyn Fn(&Place) -> Option<usize>,
    process: Place,
}

impl Sources<'_> {
    fn at(&self, place: &Place) -> String {
        (self.line)(place).map_or_else(|| place.to_string(), |line| format!("line {line}"))
    }

    /// A key of the process, or its header.
    fn own(&self, key: Option<&str>) -> String {
        match key {
            Some(key) => self.at(&self.process.key(key)),
            None => self.at(&self.process),
        }
    }

    /// A key that the process, `[defaults]`, or nobody says.
    fn of(&self, key: &str, by_process: bool, by_defaults: bool) -> String {
        if by_process {
            self.own(Some(key))
        } else if by_defaults {
            format!("[defaults], {}", self.at(&Place::of(&["defaults", key])))
        } else {
            "default".to_owned()
        }
    }
}

/// Rows of key, value, source.
struct Table<'a> {
    rows: Vec<(String, String, String)>,
    sources: Sources<'a>,
}

impl Table<'_> {
    fn row(&mut self, key: &str, value: impl Into<String>, source: String) {
        self.rows.push((key.to_owned(), value.into(), source));
    }

    fn command(&mut self, plan: &Plan, process: &Process, spec: &Spec, unit: &Unit) {
        let key = if process.script.is_some() {
            "script"
        } else {
            "command"
        };
        let mut source = self.sources.own(Some(key));
        let workers = plan.node(unit.node).units.clone().map(UnitId);
        if workers
            .map(|id| plan.unit(id))
            .any(|other| matches!(other.role, Role::Worker(_)) && other.argv != unit.argv)
        {
            source.push_str(", of worker 0");
        }
        let argv = words::argv(plan, unit);
        if process.script.is_some() {
            let (script, shell) = argv
                .split_last()
                .map_or(("", &[][..]), |(script, shell)| (script.as_str(), shell));
            let shell_source = self.sources.of(
                "shell",
                process.shell.is_some(),
                spec.defaults.shell.is_some(),
            );
            self.row(
                "shell",
                shell
                    .iter()
                    .map(|word| words::shell_word(word))
                    .collect::<Vec<_>>()
                    .join(" "),
                shell_source,
            );
            for (i, line) in script.trim_end().lines().enumerate() {
                let (key, source) = if i == 0 {
                    ("script", source.clone())
                } else {
                    ("", String::new())
                };
                self.row(key, harmless(line), source);
            }
        } else {
            self.row("command", words::command(plan, unit, usize::MAX), source);
        }
    }

    /// What makes a pool of it.
    fn pool(&mut self, plan: &Plan, pool: &Pool, said: &spec::Pool, unit: &Unit) {
        let source = |key: &str, own: bool| self.sources.of(key, own, false);
        let count = |count: Option<u64>, none: &str| {
            count.map_or_else(|| none.to_owned(), |count| count.to_string())
        };
        let workers = match said.workers {
            None => "default, the job slots".to_owned(),
            Some(Workers::Auto) => format!("{}, the job slots", source("workers", true)),
            Some(_) => source("workers", true),
        };
        let mut rows = vec![
            ("workers", pool.workers.to_string(), workers),
            (
                "feed",
                words::feed(pool.feed).to_owned(),
                match said.feed {
                    None if pool.tasks.is_some() => "default, since there are tasks".to_owned(),
                    feed => source("feed", feed.is_some()),
                },
            ),
        ];
        if let Some(tasks) = &pool.tasks {
            rows.push(("tasks", self::tasks(plan, tasks), source("tasks", true)));
        }
        // Nothing else means anything to workers that read on by themselves.
        if pool.feed != Feed::Stream {
            let order = match pool.order {
                Order::Input => "input",
                Order::Completion => "completion",
            };
            let batch = match pool.feed {
                Feed::Task => "1",
                _ => "as it goes",
            };
            let in_flight = pool.max_in_flight.map(u64::from);
            let timeout = pool
                .task_timeout
                .map_or_else(|| "none".to_owned(), words::duration);
            rows.extend([
                (
                    "order",
                    order.to_owned(),
                    source("order", said.order.is_some()),
                ),
                (
                    "batch",
                    count(pool.batch.map(u64::from), batch),
                    source("batch", said.batch.is_some()),
                ),
                (
                    "max_in_flight",
                    count(in_flight, "no bound"),
                    source("max_in_flight", said.max_in_flight.is_some()),
                ),
                (
                    "task_timeout",
                    timeout,
                    source("task_timeout", said.task_timeout.is_some()),
                ),
            ]);
        }
        if pool.feed == Feed::Request {
            rows.push((
                "recycle_after",
                count(pool.recycle_after, "never"),
                source("recycle_after", said.recycle_after.is_some()),
            ));
        }
        if pool.feed == Feed::Task {
            let record = match (pool.record_on_stdin, said_by_command(unit)) {
                (true, true) => "standard input and argument",
                (true, false) => "standard input, $TASK",
                (false, _) => "argument",
            };
            rows.push(("record", record.to_owned(), "by its command".to_owned()));
        }
        for (key, value, source) in rows {
            self.row(key, value, source);
        }
    }

    fn settings(&mut self, plan: &Plan, process: &Process, spec: &Spec, unit: &Unit, node: &Node) {
        let (settings, defaults) = (&*unit.settings, &spec.defaults);
        let source = |key: &str, own: bool, common: bool| self.sources.of(key, own, common);
        let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let codes = |codes: &[u8]| {
            codes
                .iter()
                .map(u8::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let duration = |duration: Option<Duration>| {
            duration.map_or_else(|| "none".to_owned(), words::duration)
        };
        let cwd = match settings.cwd.literal() {
            Some(".") => plan.dir.clone(),
            Some(cwd) => plan.dir.join(cwd),
            None => plan.dir.join(shown(plan, &settings.cwd)),
        };
        // The tries of a pool that procflow feeds are those of each record.
        let by_record = node.pool.as_ref().filter(|pool| pool.feed != Feed::Stream);
        let retry = by_record.map_or(&settings.retry, |pool| &pool.retry);
        let mut tries = if retry.max == 0 {
            "none".to_owned()
        } else {
            format!(
                "{}, the first after {}",
                retry.max,
                words::duration(retry.delay)
            )
        };
        if retry.max > 0 {
            let _ = write!(
                tries,
                ", each {} times as long, up to {}",
                retry.backoff,
                words::duration(retry.max_delay)
            );
            tries.push_str(if retry.jitter { ", with jitter" } else { "" });
            if !retry.on_codes.is_empty() {
                let _ = write!(tries, ", on exit codes {}", codes(&retry.on_codes));
            }
            if by_record.is_some() {
                tries.push_str(", for each record");
            }
        }
        let limits = settings
            .limits
            .iter()
            .map(|&(limit, value)| self::limit(limit, value))
            .collect::<Vec<_>>()
            .join(", ");
        let rows = [
            (
                "cwd",
                words::masked(plan, &harmless(&cwd.to_string_lossy())).into_owned(),
                source("cwd", process.cwd.is_some(), defaults.cwd.is_some()),
            ),
            (
                "clear_env",
                yes_no(settings.clear_env),
                source(
                    "clear_env",
                    process.clear_env.is_some(),
                    defaults.clear_env.is_some(),
                ),
            ),
            (
                "timeout",
                duration(settings.timeout),
                source(
                    "timeout",
                    process.timeout.is_some(),
                    defaults.timeout.is_some() && node.service.is_none(),
                ),
            ),
            (
                "stop_signal",
                signal(settings.stop_signal),
                source(
                    "stop_signal",
                    process.stop_signal.is_some(),
                    defaults.stop_signal.is_some(),
                ),
            ),
            (
                "stop_grace",
                words::duration(settings.stop_grace),
                source(
                    "stop_grace",
                    process.stop_grace.is_some(),
                    defaults.stop_grace.is_some(),
                ),
            ),
            match &process.service {
                Some(service) => (
                    "restart",
                    tries,
                    source("service", service.restart.is_some(), false),
                ),
                None => (
                    "retries",
                    tries,
                    source(
                        "retries",
                        process.retries.is_some(),
                        defaults.retries.is_some(),
                    ),
                ),
            },
            (
                "success_codes",
                codes(&settings.success_codes),
                source(
                    "success_codes",
                    process.success_codes.is_some(),
                    defaults.success_codes.is_some(),
                ),
            ),
            (
                "epipe_codes",
                codes(&settings.epipe_codes),
                source(
                    "epipe_codes",
                    process.epipe_codes.is_some(),
                    defaults.epipe_codes.is_some(),
                ),
            ),
            (
                "allow_failure",
                yes_no(node.allow_failure),
                source(
                    "allow_failure",
                    process.allow_failure.is_some(),
                    defaults.allow_failure.is_some(),
                ),
            ),
            (
                "limits",
                if limits.is_empty() {
                    "inherited".to_owned()
                } else {
                    limits
                },
                source(
                    "limits",
                    process.limits.is_some(),
                    defaults.limits.is_some(),
                ),
            ),
            (
                "nice",
                settings.nice.to_string(),
                source("nice", process.nice.is_some(), defaults.nice.is_some()),
            ),
        ];
        for (key, value, source) in rows {
            self.row(key, value, source);
        }
        if let Some(when) = &process.when {
            let shown = match (&**when, &node.skip, words::condition(plan, node)) {
                (_, Some(Skip::When(unmet)), _) => format!("{unmet}: it is skipped"),
                (_, _, Some(command)) => {
                    format!(
                        "{} says so, asked in the run",
                        words::line(&command, usize::MAX)
                    )
                }
                (When::Env { name, is: None }, ..) => format!("env {name} is set"),
                (When::Env { name, .. }, ..) => format!("env {name} is as asked for"),
                (When::Param { name, .. }, ..) => format!("param {name} is as asked for"),
                (When::Command(_), ..) => "not asked, since it is skipped (--skip)".to_owned(),
            };
            let source = self.sources.own(Some("when"));
            self.row("when", shown, source);
        }
        if let Some(service) = &node.service {
            let ready = words::readiness(plan, service.ready.as_ref());
            let source = self.sources.own(Some("service"));
            self.row("service", ready, source);
        }
    }

    fn ends(&mut self, plan: &Plan, process: &Process, unit: &Unit) {
        let source = |name: &str, said: bool| match name {
            "stdin" | "stdout" | "stderr" | DEAD_LETTER => self.sources.of(name, said, false),
            other
                if process
                    .inputs
                    .as_ref()
                    .is_some_and(|inputs| inputs.contains_key(other))
                    && !said =>
            {
                self.sources
                    .at(&self.sources.process.key("inputs").key(other))
            }
            other => self
                .sources
                .at(&self.sources.process.key("outputs").key(other)),
        };
        let mut rows = Vec::new();
        for input in &unit.ends.inputs {
            for (fd, from) in &input.from {
                let source = source(
                    &input.name,
                    input.name.as_ref() == "stdin" && process.stdin.is_some(),
                );
                let from = match &plan.node(unit.node).pool {
                    Some(pool) if pool.tasks.is_some() && &*input.name == "stdin" => {
                        if pool.record_on_stdin || pool.feed == Feed::Request {
                            "the task"
                        } else {
                            "nothing (/dev/null): the task is an argument"
                        }
                        .to_owned()
                    }
                    _ => self::source(plan, from),
                };
                rows.push((
                    end_name(*fd, &input.name, "inputs"),
                    format!("← {from}"),
                    source,
                ));
            }
        }
        for output in &unit.ends.outputs {
            let said = match &*output.name {
                "stdout" => process.stdout.is_some(),
                "stderr" => process.stderr.is_some(),
                _ => true,
            };
            let to = output
                .to
                .iter()
                .map(|sink| self::sink(plan, sink, &output.name))
                .collect::<Vec<_>>()
                .join("; ");
            rows.push((
                end_name(output.fd, &output.name, "outputs"),
                format!("→ {to}"),
                source(&output.name, said),
            ));
        }
        for (key, value, source) in rows {
            self.row(&key, value, source);
        }
        for (key, globs, said) in [
            ("reads", &unit.reads, &process.reads),
            ("writes", &unit.writes, &process.writes),
        ] {
            if said != &OneOrMany::default() {
                let source = self.sources.own(Some(key));
                self.row(
                    key,
                    globs
                        .iter()
                        .map(|glob| shown(plan, glob))
                        .collect::<Vec<_>>()
                        .join(", "),
                    source,
                );
            }
        }
    }

    fn waits(&mut self, plan: &Plan, process: &Process, node: &Node) {
        let said = |wait: &After| {
            let name = words::node_name(plan, wait.node);
            let mut said = process.after.iter();
            let unsaid = match plan.node(wait.node).service {
                Some(_) => AfterState::Ready,
                None => AfterState::Succeeded,
            };
            said.any(|said| said.node == name && said.state.unwrap_or(unsaid) == wait.state)
        };
        let shown = |waits: Vec<&After>| {
            let waits = waits.iter().map(|wait| {
                format!(
                    "{} {}",
                    words::node_name(plan, wait.node),
                    words::state(wait.state)
                )
            });
            waits.collect::<Vec<_>>().join(", ")
        };
        let (own, implied): (Vec<&After>, Vec<&After>) =
            node.after.iter().partition(|wait| said(wait));
        let source = self.sources.of("after", !process.after.is_empty(), false);
        if !own.is_empty() || implied.is_empty() {
            let waits = if own.is_empty() {
                "nothing".to_owned()
            } else {
                shown(own)
            };
            self.row("after", waits, source);
        }
        for wait in implied {
            let writes = |queue: &&Queue| {
                let of = |unit: &UnitId| plan.unit(*unit).node;
                let reads = |unit: &UnitId| plan.node(of(unit)).name == node.name;
                queue.kind == QueueKind::Stored
                    && queue.writers.iter().any(|unit| of(unit) == wait.node)
                    && queue.readers.iter().any(reads)
            };
            let queue = plan
                .queues
                .iter()
                .find(writes)
                .map_or("", |queue| &queue.name);
            self.row(
                "after",
                shown(vec![wait]),
                format!("queue {queue} is stored"),
            );
        }
    }

    fn group(&mut self, plan: &Plan, process: &Process, unit: &Unit) {
        let group = &plan.groups[unit.group.index()];
        let others: Vec<&str> = words::nodes(plan, group)
            .into_iter()
            .filter(|other| *other != unit.node)
            .map(|other| words::node_name(plan, other))
            .collect();
        let with = if others.is_empty() {
            "alone".to_owned()
        } else {
            format!("together with {}", others.join(", "))
        };
        let number = format!(
            "{} of {}, {with}",
            unit.group.index() + 1,
            plan.groups.len()
        );
        self.row(
            "group",
            number,
            if others.is_empty() {
                "no queue joins it"
            } else {
                "joined by queues"
            }
            .to_owned(),
        );
        let source = self.sources.of("cpus", process.cpus.is_some(), false);
        let pool = plan.node(unit.node).pool.as_ref();
        let cpus = match (process.cpus, pool, others.is_empty()) {
            (cpus, Some(_), _) => format!(
                "{} for each worker; its group {}",
                cpus.unwrap_or(1),
                group.slots
            ),
            (Some(cpus), None, _) => format!("{cpus}; its group {}", group.slots),
            (None, None, _) if plan.node(unit.node).service.is_some() => "0".to_owned(),
            (None, None, true) => "1".to_owned(),
            (None, None, false) => {
                format!("shares one with its group, which holds {}", group.slots)
            }
        };
        self.row("slots", cpus, source);
        let source = self.sources.of("memory", process.memory.is_some(), false);
        self.row(
            "memory",
            match (process.memory, pool) {
                (None, _) => "no claim".to_owned(),
                (Some(size), None) => words::bytes(size.0),
                (Some(size), Some(_)) => format!("{} for each worker", words::bytes(size.0)),
            },
            source,
        );
        self.resources(plan, process, unit);
    }

    /// What it claims of the pipeline's resources, where there are any.
    fn resources(&mut self, plan: &Plan, process: &Process, unit: &Unit) {
        if plan.resources.is_empty() {
            return;
        }
        let said = process.resources.iter().flat_map(|said| said.iter());
        let own = words::amounts(said.map(|(name, amount)| (name.as_str(), amount.0)));
        let group = plan.group(unit.group);
        let together = words::amounts(words::claims(plan, group));
        let own = match (own.as_str(), plan.node(unit.node).pool.is_some()) {
            ("", _) => "no claim".to_owned(),
            (own, true) => format!("{own} for each worker; its group {together}"),
            (own, false) if own == together => own.to_owned(),
            (own, false) => format!("{own}; its group {together}"),
        };
        let source = (self.sources).of("resources", process.resources.is_some(), false);
        self.row("resources", own, source);
    }

    /// What is added to the inherited environment: the pipeline's part, then the node's.
    fn environment(
        &mut self,
        plan: &Plan,
        process: &Process,
        spec: &Spec,
        (unit, node): (&Unit, &Node),
    ) {
        let mut rows = Vec::new();
        let own = |name: &str| unit.env.iter().any(|(own, _)| own == name);
        for (name, value) in plan.env.iter().filter(|(name, _)| !own(name)) {
            let param = spec.params.keys().find(|param| {
                *name == format!("PARAM_{}", param.to_ascii_uppercase().replace('-', "_"))
            });
            let source = match param {
                _ if name == "PIPELINE_DIR" => "procflow".to_owned(),
                Some(param) => format!(
                    "[params], {}",
                    self.sources.at(&Place::of(&["params", param]))
                ),
                None if spec.env.contains_key(name) => {
                    format!("[env], {}", self.sources.at(&Place::of(&["env", name])))
                }
                None => format!("env_file, {}", self.sources.at(&Place::of(&["env_file"]))),
            };
            rows.push((
                format!("${}", harmless(name)),
                words::masked(plan, &harmless(value)).into_owned(),
                source,
            ));
        }
        for (i, (name, value)) in unit.env.iter().enumerate() {
            // The later wins.
            if unit.env[i + 1..].iter().any(|(later, _)| later == name) {
                continue;
            }
            let by_env = process
                .env
                .as_ref()
                .is_some_and(|env| env.contains_key(name));
            let by_matrix = node
                .matrix
                .iter()
                .any(|(key, _)| *name == format!("MATRIX_{}", variable(key)));
            let source = if by_matrix {
                self.sources.own(Some("matrix"))
            } else if by_env {
                self.sources.at(&self.sources.process.key("env").key(name))
            } else {
                format!("env_file, {}", self.sources.own(Some("env_file")))
            };
            rows.push((
                format!("${}", harmless(name)),
                harmless(&shown(plan, value)),
                source,
            ));
        }
        // Standard ends need no path: the process has them.
        for input in unit
            .ends
            .inputs
            .iter()
            .filter(|input| &*input.name != "stdin")
        {
            let paths: Vec<String> = input
                .from
                .iter()
                .map(|(fd, _)| format!("/dev/fd/{fd}"))
                .collect();
            rows.push((
                format!("$IN_{}", variable(&input.name)),
                paths.join(" "),
                "procflow".to_owned(),
            ));
        }
        let named = |output: &&Output| output.fd > 2 && &*output.name != DEAD_LETTER;
        for output in unit.ends.outputs.iter().filter(named) {
            rows.push((
                format!("$OUT_{}", variable(&output.name)),
                format!("/dev/fd/{}", output.fd),
                "procflow".to_owned(),
            ));
        }
        for (key, value, source) in rows {
            self.row(&key, value, source);
        }
    }

    fn print(self, out: &mut dyn Write) -> io::Result<()> {
        let width = |text: &str| text.chars().count();
        let keys = self
            .rows
            .iter()
            .map(|(key, ..)| width(key))
            .max()
            .unwrap_or(0)
            .min(24);
        // Long values push their own source aside, not everyone's.
        let values = self
            .rows
            .iter()
            .map(|(_, value, _)| width(value))
            .filter(|width| *width <= 60)
            .max()
            .unwrap_or(0);
        for (key, value, source) in self.rows {
            let row = format!("{key:<keys$}  {value:<values$}  {source}");
            writeln!(out, "{}", row.trim_end())?;
        }
        Ok(())
    }
}

/// "0 stdin", "4 inputs.left"; a number alone is both the descriptor and the name.
fn end_name(fd: u32, name: &str, table: &str) -> String {
    if name == DEAD_LETTER {
        name.to_owned()
    } else if matches!(name, "stdin" | "stdout" | "stderr") {
        format!("{fd} {name}")
    } else {
        format!("{fd} {table}.{name}")
    }
}

/// A template with secrets hidden.
fn shown(plan: &Plan, template: &Template) -> String {
    let text = template
        .display(&|node| words::node_name(plan, node))
        .to_string();
    words::masked(plan, &text).into_owned()
}

fn queue(plan: &Plan, id: QueueId, reads: bool) -> String {
    let queue = plan.queue(id);
    if let Some(file) = &queue.file {
        return format!("file {}, shared by the workers", shown(plan, file));
    }
    if words::is_within(plan, queue) {
        return together(plan, queue);
    }
    let (units, verb) = if reads {
        (&queue.writers, "written by")
    } else {
        (&queue.readers, "read by")
    };
    format!(
        "queue {} ({}), {verb} {}",
        words::copy_of(queue).unwrap_or(&queue.name),
        kind(plan, queue).join(", "),
        words::end_nodes(plan, units).join(", ")
    )
}

/// The files that the workers of a pool write by this queue.
fn together(plan: &Plan, queue: &Queue) -> String {
    let readers = queue.readers.iter().map(|&reader| plan.unit(reader));
    let outputs = readers.flat_map(|reader| &reader.ends.outputs);
    let files = outputs.flat_map(|output| output.to.iter().map(|file| sink(plan, file, "")));
    format!("{}, by whole records", files.collect::<Vec<_>>().join("; "))
}

/// Whether a record is among the arguments.
fn said_by_command(unit: &Unit) -> bool {
    unit.argv.iter().any(|arg| match arg {
        Arg::EachTask => true,
        Arg::One(template) => template.names_task(),
        Arg::EachInput(_) => false,
    })
}

/// Fixed work, in a line.
fn tasks(plan: &Plan, tasks: &Tasks) -> String {
    match tasks {
        Tasks::List(tasks) => {
            let names: Vec<String> = tasks.iter().map(|task| harmless(&task.join(" "))).collect();
            words::few(&names)
        }
        Tasks::Range(from, to) if from < to => format!("{from} to {}", to - 1),
        Tasks::Range(..) => "none".to_owned(),
        Tasks::Glob(glob) => format!("the files {}", shown(plan, glob)),
        Tasks::Lines { path, separator } => {
            let cut = separator
                .as_ref()
                .map(|separator| format!(", cut by {separator:?}"));
            format!(
                "the lines of {}{}",
                shown(plan, path),
                cut.unwrap_or_default()
            )
        }
    }
}

fn source(plan: &Plan, source: &Source) -> String {
    match source {
        Source::Null => "nothing (/dev/null)".to_owned(),
        Source::Inherit => "procflow's own".to_owned(),
        Source::File(path) => format!("file {}", shown(plan, path)),
        Source::Text(text) => format!("text, {}", words::bytes(text.len() as u64)),
        Source::Queue(id) => queue(plan, *id, true),
    }
}

fn sink(plan: &Plan, sink: &Sink, name: &str) -> String {
    match sink {
        Sink::Log => "log".to_owned(),
        Sink::Null => "nowhere (/dev/null)".to_owned(),
        Sink::Inherit if name == "stderr" => "procflow's own standard error".to_owned(),
        Sink::Inherit => "procflow's own standard output".to_owned(),
        Sink::Value => "the node's value".to_owned(),
        Sink::Stdout => "where stdout goes".to_owned(),
        Sink::File { path, append: true } => format!("file {}, appended", shown(plan, path)),
        Sink::File {
            path,
            append: false,
        } => format!("file {}, put in place on success", shown(plan, path)),
        Sink::Queue(id) => queue(plan, *id, false),
    }
}

fn signal(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number).map_or_else(
        |_| number.to_string(),
        |signal| signal.as_str().trim_start_matches("SIG").to_owned(),
    )
}

fn limit(limit: u32, value: u64) -> String {
    let bytes = words::bytes(value);
    match limit {
        libc::RLIMIT_AS => format!("memory {bytes}"),
        libc::RLIMIT_CPU => format!("cpu_time {}", words::duration(Duration::from_secs(value))),
        libc::RLIMIT_NOFILE => format!("open_files {value}"),
        libc::RLIMIT_FSIZE => format!("file_size {bytes}"),
        libc::RLIMIT_NPROC => format!("processes {value}"),
        libc::RLIMIT_CORE => format!("core {bytes}"),
        other => panic!("BUG: no limit of ours: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::explain::explain;
    use crate::cli::words::{example, planned, pools};
    use crate::diagnostic::Lines;
    use crate::plan::NodeId;

    fn printed(print: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
        let mut out = Vec::new();
        assert!(print(&mut out).is_ok());
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn every_value_of_a_node_with_its_source() {
        let (spec, plan) = example();
        let lines = Lines::of(include_str!("../draw/example.toml"));
        assert_eq!(
            printed(|out| explain(&spec, &plan, NodeId(3), &|place| lines.of_key(place), out)),
            r#"process        left                                             line 27
shell          sh -e -c                                         default
script         tr a b |                                         line 28
                 sort
cwd            /p                                               default
clear_env      no                                               default
timeout        10m                                              [defaults], line 11
stop_signal    TERM                                             default
stop_grace     5s                                               default
retries        none                                             default
success_codes  0                                                default
epipe_codes    120, 141                                         default
allow_failure  no                                               default
limits         inherited                                        default
nice           0                                                default
0 stdin        ← queue odd (relayed, spills to disk when full), written by split  line 32
1 stdout       → queue counts (merged, spills to disk when full), read by total  line 33
2 stderr       → log                                            default
after          nothing                                          default
group          2 of 3, together with read, split, right, total  joined by queues
slots          shares one with its group, which holds 3         default
memory         no claim                                         default
$AUTH          ***                                              [env], line 8
$PARAM_BOOK    book.txt                                         [params], line 4
$PARAM_TOKEN   ***                                              [params], line 5
$PIPELINE_DIR  /p                                               procflow
$HERE          ${{ in.stdin }}                                  line 34
"#
        );
    }

    #[test]
    fn pools_with_what_makes_them_pools() {
        let (spec, plan) = pools();
        let lines = Lines::of(include_str!("../draw/pools.toml"));
        let explained = |node: u32| {
            let text = printed(|out| {
                explain(
                    &spec,
                    &plan,
                    NodeId(node),
                    &|place| lines.of_key(place),
                    out,
                )
            });
            let usual = [
                "cwd",
                "clear_env",
                "stop_",
                "_codes",
                "allow_",
                "limits",
                "nice",
                "memory",
                "$P",
            ];
            let told = text.lines().filter(|line| {
                let key = line.split_whitespace().next().unwrap_or_default();
                !usual.iter().any(|usual| key.contains(usual))
            });
            told.map(|line| format!("{line}\n")).collect::<String>()
        };
        assert_eq!(
            explained(1),
            r#"pool           count                                                   line 7
shell          sh -e -c                                                default
script         sort | uniq -c                                          line 8
workers        2                                                       line 9
feed           stream                                                  default
timeout        none                                                    default
retries        none                                                    default
0 stdin        ← queue lines (copy of lines, shared), written by read  line 10
1 stdout       → queue counts (merged), read by total; file counts.txt, put in place on success, by whole records  line 11
2 stderr       → log                                                   default
after          nothing                                                 default
group          1 of 2, together with read, letters, total              joined by queues
slots          1 for each worker; its group 3                          default
"#
        );
        assert_eq!(
            explained(4),
            r#"pool           fetch                                           line 28
command        curl '${{ task.0 }}'                            line 29
workers        3                                               line 31
feed           task                                            default, since there are tasks
tasks          the lines of list.txt, cut by "\t"              line 30
order          completion                                      default
batch          1                                               default
max_in_flight  no bound                                        default
task_timeout   10s                                             line 33
record         argument                                        by its command
timeout        none                                            default
retries        2, the first after 1s, each 2 times as long, up to 1m, with jitter, for each record  line 32
0 stdin        ← nothing (/dev/null): the task is an argument  default
3 inputs.all   ← queue all (stored on disk), written by total  line 36
1 stdout       → queue pages (merged, leads back, spills to disk when full), read by walk  line 34
2 stderr       → log                                           default
dead_letter    → queue bad (relayed, holds 100 records, drops the oldest when full), read by show  line 35
after          total succeeded                                 queue all is stored
group          2 of 2, together with walk, show                joined by queues
slots          1 for each worker; its group 6                  default
$IN_ALL        /dev/fd/3                                       procflow
"#
        );
        assert_eq!(
            explained(5),
            r#"pool           walk                               line 38
command        walk                               line 39
workers        1                                  default, the job slots
feed           request                            line 40
order          completion                         default
batch          as it goes                         default
max_in_flight  no bound                           default
task_timeout   none                               default
recycle_after  never                              default
timeout        none                               default
retries        none                               default
0 stdin        ← queue pages (merged, leads back, spills to disk when full), written by fetch, walk  line 41
1 stdout       → queue pages (merged, leads back, spills to disk when full), read by walk; queue found (relayed, spills to disk when full), read by show  line 42
2 stderr       → log                              default
after          nothing                            default
group          2 of 2, together with fetch, show  joined by queues
slots          2 for each worker; its group 6     line 43
"#
        );
    }

    #[test]
    fn claims_on_resources_where_there_are_any() {
        let text = "\
[run]
resources = { gpu = 3, db = 1 }
[process.alone]
command = ['x']
resources = { db = 1 }
[process.none]
command = ['x']
[process.one]
command = ['x']
stdout = 'q'
resources = { gpu = 1, db = 1 }
[pool.two]
command = ['x']
stdin = 'q'
workers = 2
resources = { gpu = 1 }
";
        let (spec, plan) = planned(text);
        let lines = Lines::of(text);
        let row = |node: u32| {
            let node = NodeId(node);
            let text =
                printed(|out| explain(&spec, &plan, node, &|place| lines.of_key(place), out));
            let row = text.lines().find(|line| line.starts_with("resources"));
            let words: Vec<&str> = row.unwrap_or_default().split_whitespace().collect();
            words.join(" ")
        };
        assert_eq!(
            [0, 1, 2, 3].map(row),
            [
                "resources db 1 line 5",
                "resources no claim default",
                "resources gpu 1, db 1; its group gpu 3, db 1 line 11",
                "resources gpu 1 for each worker; its group gpu 3, db 1 line 16",
            ]
        );
    }
}
