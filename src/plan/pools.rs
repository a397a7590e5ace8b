//! What makes a pool of a process: how many workers, how they are fed, and what such a pool can't have.

use indexmap::IndexMap;

use crate::diagnostic::Diagnostic;
use crate::plan::build::Nodes;
use crate::plan::problems::{Problems, Site};
use crate::plan::scope::{Found, Of, Scope, When};
use crate::plan::settings::retry;
use crate::plan::{Feed, Order, Pool, Tasks, template};
use crate::spec::{self, Inputs, Output, Process, Sink, Stdin, Workers};

/// All nodes by name, in the file's order. `spec` keeps none.
///
/// Where both a process and a pool have a name, which is a problem told elsewhere, the process stays.
pub(super) fn nodes(spec: &mut spec::Spec) -> IndexMap<String, Process> {
    let processes = std::mem::take(&mut spec.process);
    let pools = std::mem::take(&mut spec.pool);
    if pools.is_empty() {
        return processes;
    }
    let mut nodes = IndexMap::with_capacity(processes.len() + pools.len());
    let taken: Vec<bool> = pools
        .keys()
        .map(|name| processes.contains_key(name))
        .collect();
    let mut pools: Vec<(String, Process)> = pools
        .into_iter()
        .zip(taken)
        .filter_map(|(pool, taken)| (!taken).then_some(pool))
        .collect();
    let behind = |pool: &Process| pool.pool.as_ref().map_or(0, |pool| pool.behind);
    // Stable: pools behind the same process stay in their order.
    pools.sort_by_key(|(_, pool)| behind(pool));
    let mut pools = pools.into_iter().peekable();
    for (index, process) in processes.into_iter().enumerate() {
        while let Some(pool) = pools.next_if(|(_, pool)| behind(pool) <= index) {
            nodes.insert(pool.0, pool.1);
        }
        nodes.insert(process.0, process.1);
    }
    nodes.extend(pools);
    nodes
}

/// How many workers a pool has; `jobs` where it doesn't say.
pub(super) fn workers(
    said: &spec::Pool,
    jobs: u32,
    node: &Site<'_>,
    scope: &Scope<'_>,
    found: &mut Found<'_>,
) -> u32 {
    let text = match &said.workers {
        None | Some(Workers::Auto) => return jobs,
        Some(Workers::Number(number)) => return *number,
        Some(Workers::Template(text)) => text,
    };
    let site = node.key("workers");
    let scope = Scope {
        of: Of::Process,
        ..scope.at(When::Plan)
    };
    let before = found.problems.0.len();
    let text = template::parse(text.clone(), &scope, &site, found);
    let Some(text) = text.literal().filter(|_| found.problems.0.len() == before) else {
        return 1;
    };
    if text.trim() == "auto" {
        return jobs;
    }
    let wrong = || {
        format!(
            "expected a number of workers, or \"auto\", found \"{}\"",
            text.escape_debug()
        )
    };
    let count = match text.trim().parse::<i64>() {
        Ok(number) => spec::pools::workers(number),
        Err(_) => Err(wrong()),
    };
    count.unwrap_or_else(|problem| {
        found
            .problems
            .push(Diagnostic::error(site.mark_value(), problem));
        1
    })
}

/// How a pool is fed.
pub(super) fn feed(said: &spec::Pool) -> Feed {
    match said.feed {
        Some(spec::Feed::Stream) => Feed::Stream,
        Some(spec::Feed::Request) => Feed::Request,
        Some(spec::Feed::Task) => Feed::Task,
        None if said.tasks.is_some() => Feed::Task,
        None => Feed::Stream,
    }
}

/// Whose strings those of a pool are that procflow feeds.
pub(super) fn of(pool: &Pool) -> Of {
    match pool.feed {
        Feed::Stream => Of::Worker(0),
        Feed::Request => Of::Answerer,
        Feed::Task => Of::Task {
            fields: match &pool.tasks {
                Some(Tasks::List(tasks)) => {
                    let least = tasks.iter().map(Vec::len).min().unwrap_or(usize::MAX);
                    u32::try_from(least).unwrap_or(u32::MAX)
                }
                Some(Tasks::Lines {
                    separator: Some(_), ..
                }) => u32::MAX,
                Some(Tasks::Range(..) | Tasks::Glob(_) | Tasks::Lines { .. }) | None => 1,
            },
            batch: pool.batch.is_some_and(|batch| batch > 1),
        },
    }
}

/// Decides what makes a pool of a process; none where it is only a process. `record_on_stdin` follows when the command is known.
pub(super) fn decide(
    process: &Process,
    all: &Nodes<'_>,
    node: &Site<'_>,
    scope: &Scope<'_>,
    found: &mut Found<'_>,
) -> Option<Pool> {
    let said = process.pool.as_deref()?;
    let feed = feed(said);
    let workers = workers(said, all.jobs, node, scope, found);
    check_feed(said, feed, node, found.problems);
    check_work(said, process, feed, node, found.problems);
    check_ends(process, feed, node, found.problems);
    check_habits(process, feed, node, found.problems);
    let retries = process.retries.as_deref().or(all.defaults.retries.as_ref());
    Some(Pool {
        workers,
        feed,
        tasks: said
            .tasks
            .as_ref()
            .map(|said| tasks(said, feed, node, scope, found)),
        order: match said.order {
            Some(spec::Order::Input) => Order::Input,
            Some(spec::Order::Completion) | None => Order::Completion,
        },
        batch: said.batch,
        max_in_flight: said.max_in_flight,
        recycle_after: said.recycle_after,
        task_timeout: said.task_timeout.map(|d| d.0),
        // What is tried again of a `stream` pool is its group.
        retry: retry(retries.filter(|_| feed != Feed::Stream)),
        record_on_stdin: false,
        dead_letter: said.dead_letter.is_some(),
    })
}

/// Keys that mean nothing to pools that are fed so.
fn check_feed(said: &spec::Pool, feed: Feed, node: &Site<'_>, problems: &mut Problems) {
    let mut wrong = |key: &str, means: &str, help: &str| {
        problems.push(
            Diagnostic::error(node.key(key).mark_key(), format!("`{key}` {means}")).help(help),
        );
    };
    if feed == Feed::Stream {
        const UNKNOWN: &str = "means nothing to a `stream` pool, whose workers read on until the end: procflow doesn't know which record they are at";
        for (key, given, help) in [
            (
                "order",
                said.order.is_some(),
                "add `feed = \"task\"`, or `feed = \"request\"` where a worker answers each record with one",
            ),
            (
                "max_in_flight",
                said.max_in_flight.is_some(),
                "add `feed = \"task\"` or `feed = \"request\"`; a queue is bounded by `max_records`",
            ),
            (
                "task_timeout",
                said.task_timeout.is_some(),
                "add `feed = \"task\"` or `feed = \"request\"`; `timeout` is for a worker's whole life",
            ),
            (
                "dead_letter",
                said.dead_letter.is_some(),
                "add `feed = \"task\"` or `feed = \"request\"`, or let the program write what it can't do to one of its `outputs`",
            ),
        ] {
            if given {
                wrong(key, UNKNOWN, help);
            }
        }
    }
    if said.recycle_after.is_some() && feed != Feed::Request {
        let (means, help) = match feed {
            Feed::Task => (
                "means nothing to a `task` pool: each record has a process of its own",
                "drop it",
            ),
            _ => (
                "means nothing to a `stream` pool: procflow doesn't know what a worker has done",
                "add `feed = \"request\"` where a worker answers each record with one",
            ),
        };
        wrong("recycle_after", means, help);
    }
    if let (Some(batch), Some(most)) = (said.batch, said.max_in_flight)
        && batch > most
    {
        problems.push(
            Diagnostic::error(
                node.key("batch").mark_value(),
                format!("a batch of {batch} records is more than may be in flight: {most}"),
            )
            .and(node.key("max_in_flight").mark_value(), "")
            .help("take a smaller batch, or a larger `max_in_flight`"),
        );
    }
}

/// Where its records come from.
fn check_work(
    said: &spec::Pool,
    process: &Process,
    feed: Feed,
    node: &Site<'_>,
    problems: &mut Problems,
) {
    let reads = process
        .stdin
        .as_ref()
        .is_some_and(|stdin| *stdin != Stdin::Null);
    if said.tasks.is_some() && feed == Feed::Stream {
        problems.push(
            Diagnostic::error(
                node.key("tasks").mark_key(),
                "`tasks` can't be handed to a `stream` pool, whose workers read on until the end",
            )
            .and(node.key("feed").mark_value(), "")
            .help("drop `feed`: a pool with `tasks` has a process for each; or say `feed = \"request\"`"),
        );
    }
    if said.tasks.is_some() && reads {
        problems.push(
            Diagnostic::error(node.key("tasks").mark_key(), "both `tasks` and `stdin`")
                .and(node.key("stdin").mark_key(), "")
                .help("a pool's records come from one of them: drop the other, or make it one of `inputs`"),
        );
    }
    if said.tasks.is_none() && !reads && feed != Feed::Stream {
        let word = match feed {
            Feed::Request => "request",
            _ => "task",
        };
        problems.push(
            Diagnostic::error(
                node.mark_key(),
                format!("a pool fed by `{word}` without records: neither `stdin` nor `tasks`"),
            )
            .help(
                "name a queue, `stdin = \"work\"`, a file, or fixed work: `tasks = [\"a\", \"b\"]`",
            ),
        );
    }
    let inherits = |input: &Inputs| match input {
        Inputs::One(one) => *one == Stdin::Inherit,
        Inputs::Many(many) => many.contains(&Stdin::Inherit),
    };
    for (name, _) in process
        .inputs
        .iter()
        .flat_map(|inputs| inputs.iter())
        .filter(|(_, input)| inherits(input))
    {
        problems.push(
            Diagnostic::error(
                node.key("inputs").key(name).mark_value(),
                "a pool can't have procflow's own standard input: its workers would read from it at the same time",
            )
            .help("let a process read it into a queue, or into a file that they all read"),
        );
    }
    match &process.stdin {
        Some(Stdin::Inherit) => problems.push(
            Diagnostic::error(
                node.key("stdin").mark_value(),
                "a pool can't have procflow's own standard input: its workers would read from it at the same time",
            )
            .help("let a process read it: `command = [\"cat\"]`, `stdin = \"inherit\"`, `stdout = \"work\"`; then `stdin = \"work\"` here"),
        ),
        Some(Stdin::Text(_)) if feed == Feed::Stream => problems.push(
            Diagnostic::error(
                node.key("stdin").mark_value(),
                "a text can't be shared by the workers of a pool",
            )
            .help("write it to a file, `stdin = { file = \"p\" }`; or make each line one of `tasks`"),
        ),
        _ => {}
    }
}

fn sinks(output: Option<&Output>) -> &[Sink] {
    match output {
        None => &[],
        Some(Output::One(one)) => std::slice::from_ref(one),
        Some(Output::Many(many)) => many,
    }
}

/// Ends that a pool can't have.
fn check_ends(process: &Process, feed: Feed, node: &Site<'_>, problems: &mut Problems) {
    if feed == Feed::Stream && sinks(process.stdout.as_ref()).contains(&Sink::Value) {
        problems.push(
            Diagnostic::error(
                node.key("stdout").mark_value(),
                "several workers have no single value",
            )
            .help("let a process read what they write: `stdout = \"parts\"` here, and there `stdin = \"parts\"`, `stdout = \"value\"`"),
        );
    }
    if feed != Feed::Request {
        return;
    }
    if process
        .outputs
        .as_ref()
        .is_some_and(|outputs| !outputs.is_empty())
    {
        problems.push(
            Diagnostic::error(
                node.key("outputs").mark_key(),
                "`outputs` of a `request` pool: procflow could not tell which record they belong to",
            )
            .help("a worker answers on standard output; with `feed = \"task\"` there can be more"),
        );
    }
    for sink in sinks(process.stderr.as_ref()) {
        let (what, help) = match sink {
            Sink::Stdout => (
                "a worker's errors would be taken for its answers",
                "leave `stderr` out: it is the log",
            ),
            Sink::Queue(_) => (
                "`stderr` of a `request` pool can't lead to a queue: its workers come and go",
                "leave `stderr` out, or name a file",
            ),
            _ => continue,
        };
        problems.push(Diagnostic::error(node.key("stderr").mark_value(), what).help(help));
    }
}

/// Nothing to read, and nothing by which a worker could know which one it is.
fn have_nothing_to_share(process: &Process) -> bool {
    let knows = |said: &String| said.contains("${{ worker") || said.contains("WORKER");
    let has_input = process.inputs.is_some()
        || process
            .pool
            .as_ref()
            .is_some_and(|pool| pool.tasks.is_some())
        || process
            .stdin
            .as_ref()
            .is_some_and(|stdin| *stdin != Stdin::Null);
    let mut texts = process
        .command
        .iter()
        .flatten()
        .chain(&process.script)
        .chain(&process.cwd);
    let mut values = process.env.iter().flat_map(|env| env.values());
    !has_input && !texts.any(knows) && !values.any(knows)
}

/// What those write who come from xargs, GNU parallel or a shell: no shell looks at a command, so they stay as they are, and the
/// task goes to the standard input instead, where most programs don't look.
fn check_habits(process: &Process, feed: Feed, node: &Site<'_>, problems: &mut Problems) {
    if feed == Feed::Stream && have_nothing_to_share(process) {
        problems.push(
            Diagnostic::note_at(
                node.mark_key(),
                "the workers of this pool have no input to share, nor does their command say `worker`: each does the same",
            )
            .help("for work to share say `stdin` or `tasks`; where each finds its own by its number, `${{ worker }}` or `$WORKER`"),
        );
    }
    let Some(command) = process.command.as_deref() else {
        return;
    };
    if feed != Feed::Task || command.iter().any(|said| said.contains("${{ task")) {
        return;
    }
    // These have a meaning of their own for it, or hand it to who has.
    const MEANT: [&str; 12] = [
        "sh", "bash", "dash", "zsh", "ksh", "find", "fd", "xargs", "parallel", "env", "perl", "awk",
    ];
    let program = command.first().and_then(|said| said.rsplit('/').next());
    if program.is_some_and(|program| MEANT.contains(&program)) {
        return;
    }
    for (i, said) in command.iter().enumerate() {
        let habit = ["$TASK", "${TASK}", "{}"]
            .into_iter()
            .find(|habit| said == habit || (*habit != "{}" && said.contains(habit)));
        if let Some(habit) = habit {
            problems.push(
                Diagnostic::warning(
                    node.key("command").index(i).mark_value(),
                    format!("`{habit}` stays as it is in a command, which no shell looks at"),
                )
                .help("say `${{ task }}`; or write a `script`, where `$TASK` is a variable"),
            );
        }
    }
}

/// Fixed work.
fn tasks(
    said: &spec::Tasks,
    feed: Feed,
    node: &Site<'_>,
    scope: &Scope<'_>,
    found: &mut Found<'_>,
) -> Tasks {
    let site = node.key("tasks");
    let scope = scope.at(When::Start);
    let none = |problems: &mut Problems| {
        problems.push(
            Diagnostic::warning(site.mark_value(), "there is no task")
                .help("the pool does nothing, and succeeds"),
        );
    };
    match said {
        spec::Tasks::List(tasks) => {
            if tasks.is_empty() {
                none(found.problems);
            }
            check_list(tasks, feed, &site, found.problems);
            let boxed =
                |task: &Vec<String>| task.iter().map(|field| field.as_str().into()).collect();
            Tasks::List(tasks.iter().map(boxed).collect())
        }
        spec::Tasks::Range(from, to) => {
            if from >= to {
                none(found.problems);
            }
            Tasks::Range(*from, *to)
        }
        spec::Tasks::Glob(glob) => {
            let site = site.key("glob");
            if let Err(reason) = globset::Glob::new(glob) {
                found.problems.push(Diagnostic::error(
                    site.mark_value(),
                    format!("not a pattern: {}", reason.kind()),
                ));
            }
            Tasks::Glob(template::parse(glob.clone(), &scope, &site, found))
        }
        spec::Tasks::Lines { path, separator } => Tasks::Lines {
            path: template::parse(path.clone(), &scope, &site.key("lines"), found),
            separator: separator.as_deref().map(Box::from),
        },
    }
}

fn check_list(tasks: &[Vec<String>], feed: Feed, site: &Site<'_>, problems: &mut Problems) {
    let at = |part: &str| {
        tasks
            .iter()
            .position(|task| task.iter().any(|field| field.contains(part)))
    };
    if let Some(index) = at("${{") {
        problems.push(
            Diagnostic::warning(
                site.index(index).mark_value(),
                "`${{` in a task, where nothing is replaced",
            )
            .help("put it into `command`, beside `${{ task }}`"),
        );
    }
    if let Some(index) = at("\0") {
        problems.push(Diagnostic::error(
            site.index(index).mark_value(),
            "a NUL byte, which no task can hold",
        ));
    }
    if feed == Feed::Request
        && let Some(index) = at("\n")
    {
        problems.push(
            Diagnostic::error(
                site.index(index).mark_value(),
                "a line end in a task of a `request` pool, where each task is a line",
            )
            .help("drop `feed`: then each task has a process, and may be any text"),
        );
    }
}
