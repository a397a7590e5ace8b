//! Services: processes that run for as long as somebody needs them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::{Diagnostic, Mark};
use crate::plan::build::Draft;
use crate::plan::problems::{Problems, Site, listed};
use crate::plan::scope::{Found, Scope, When};
use crate::plan::template::{self, Template};
use crate::plan::{
    Interval, Node, NodeId, Probe, ProbeKind, Retry, Service, Settings, Sink, Source, Unit, probe,
    settings,
};
use crate::spec::{self, Process};

/// How long a service may take until it is ready, where nothing is said.
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Between the first two looks, where nothing is said.
pub const FIRST_INTERVAL: Duration = Duration::from_millis(100);
/// What that grows to.
pub const LAST_INTERVAL: Duration = Duration::from_secs(1);

/// What a process says of itself as a service. It is taken out of it.
pub(super) fn decide(
    process: &mut Process,
    node: &Site<'_>,
    scope: &Scope<'_>,
    found: &mut Found<'_>,
) -> Option<(Service, Retry)> {
    let said = process.service.take()?;
    let site = node.key("service");
    if process.pool.is_some() {
        found.problems.push(
            Diagnostic::error(site.mark_key(), "a pool can't be a service")
                .help("a service is one process: `[process.NAME]`"),
        );
        return None;
    }
    if process.retries.take().is_some() {
        found.problems.push(
            Diagnostic::error(
                node.key("retries").mark_key(),
                "a service is not tried again, but restarted",
            )
            .help("say `restart = { max = 3 }` in `service`"),
        );
    }
    if process.timeout.take().is_some() {
        found.problems.push(
            Diagnostic::error(
                node.key("timeout").mark_key(),
                "a service has no time limit: it is stopped when nobody needs it any more",
            )
            .help("for how long it may take to be ready say `timeout` in `ready`"),
        );
    }
    let ready = said
        .ready
        .map(|probe| decide_probe(probe, &site.key("ready"), scope, found));
    let delay = said.restart.and_then(|restart| restart.delay);
    let delay = delay.map_or(settings::RETRY_DELAY, |delay| delay.0);
    let retry = Retry {
        max: said.restart.map_or(0, |restart| restart.max),
        delay,
        backoff: settings::RETRY_BACKOFF,
        max_delay: settings::RETRY_MAX_DELAY.max(delay),
        jitter: false,
        on_codes: Vec::new(),
    };
    Some((Service { ready }, retry))
}

fn decide_probe(
    said: spec::Probe,
    site: &Site<'_>,
    scope: &Scope<'_>,
    found: &mut Found<'_>,
) -> Probe {
    for (key, value, why) in [
        (
            "timeout",
            said.timeout,
            "a service that has no time to be ready never is",
        ),
        (
            "interval",
            said.interval,
            "without a pause between two looks nothing else would be done",
        ),
    ] {
        if value.is_some_and(|value| value.0.is_zero()) {
            found.problems.push(
                Diagnostic::error(site.key(key).mark_value(), why)
                    .help(format!("leave `{key}` out for the default")),
            );
        }
    }
    let at_start = scope.at(When::Start);
    let mut one = |text: String, key: &str, check: &dyn Fn(&str) -> Result<(), probe::Wrong>| {
        let site = site.key(key);
        let template = template::parse(text, &at_start, &site, found);
        if let Some(text) = template.literal()
            && let Err(wrong) = check(text)
        {
            found
                .problems
                .push(Diagnostic::error(site.mark_value(), wrong.message).help(wrong.help));
        }
        template
    };
    let kind = match said.kind {
        spec::ProbeKind::Tcp(text) => {
            ProbeKind::Tcp(one(text, "tcp", &|text| probe::address(text).map(drop)))
        }
        spec::ProbeKind::Http(text) => {
            ProbeKind::Http(one(text, "http", &|text| probe::url(text).map(drop)))
        }
        spec::ProbeKind::Log(text) => {
            ProbeKind::Log(one(text, "log", &|text| probe::pattern(text).map(drop)))
        }
        spec::ProbeKind::File(text) => ProbeKind::File(one(text, "file", &|text| match text {
            "" => Err(probe::Wrong {
                message: "an empty path".to_owned(),
                help: "name the file that is there when the service is ready".to_owned(),
            }),
            _ => Ok(()),
        })),
        spec::ProbeKind::Command(words) => ProbeKind::Command(command(
            words,
            "pg_isready",
            &site.key("command"),
            scope,
            found,
        )),
    };
    Probe {
        kind,
        timeout: said.timeout.map_or(READY_TIMEOUT, |timeout| timeout.0),
        interval: match said.interval {
            Some(interval) => Interval {
                first: interval.0,
                last: interval.0,
            },
            None => Interval {
                first: FIRST_INTERVAL,
                last: LAST_INTERVAL,
            },
        },
    }
}

pub(super) fn command(
    words: Vec<String>,
    example: &str,
    site: &Site<'_>,
    scope: &Scope<'_>,
    found: &mut Found<'_>,
) -> Vec<Template> {
    if words.first().is_none_or(String::is_empty) {
        found.problems.push(
            Diagnostic::error(site.mark_value(), "an empty command").help(format!(
                "its first element is the program: `command = [\"{example}\"]`"
            )),
        );
    }
    words
        .into_iter()
        .enumerate()
        .map(|(i, word)| template::parse(word, scope, &site.index(i), found))
        .collect()
}

/// The settings of a service's unit: restarts instead of tries, and no limit of time.
pub(super) fn settings(of_node: &Settings, retry: Retry) -> Arc<Settings> {
    Arc::new(Settings {
        retry,
        timeout: None,
        ..of_node.clone()
    })
}

/// A service stands alone: what it prints is for people.
pub(super) fn check_ends(service: &Service, unit: &Unit, node: &Site<'_>, problems: &mut Problems) {
    let top = |name: &str| matches!(name, "stdin" | "stdout" | "stderr");
    for input in &unit.ends.inputs {
        let queue = |(_, source): &(u32, Source)| matches!(source, Source::Queue(_));
        if input.from.iter().any(queue) {
            let table = node.key("inputs");
            let site = match top(&input.name) {
                true => node.key(&input.name),
                false => table.key(&input.name),
            };
            problems.push(
                Diagnostic::error(
                    site.mark_value(),
                    "a service reads no queue: a queue ends, and a service doesn't",
                )
                .help("let a process that is no service read the queue, and talk to the service"),
            );
        }
    }
    for output in &unit.ends.outputs {
        let table = node.key("outputs");
        let site = match top(&output.name) {
            true => node.key(&output.name),
            false => table.key(&output.name),
        };
        for sink in &output.to {
            match sink {
                Sink::Queue(_) => problems.push(
                    Diagnostic::error(
                        site.mark_value(),
                        "a service writes no queue: its readers would wait for the end of data, and keep what they wait for",
                    )
                    .help("let it write a file, `{ file = \"p\", append = true }`, or to the log"),
                ),
                Sink::Value => problems.push(
                    Diagnostic::error(
                        site.mark_value(),
                        "a service has no value: that is what a node says until its end",
                    )
                    .help("let it write a file, and read that when it is ready"),
                ),
                Sink::Log | Sink::Null | Sink::Inherit | Sink::Stdout | Sink::File { .. } => {}
            }
        }
    }
    let logs = || {
        let mut sinks = unit.ends.outputs.iter().flat_map(|output| &output.to);
        sinks.any(|sink| *sink == Sink::Log)
    };
    if let Some(Probe {
        kind: ProbeKind::Log(_),
        ..
    }) = &service.ready
        && !logs()
    {
        problems.push(
            Diagnostic::error(
                node.key("service").key("ready").key("log").mark_value(),
                "nothing of its output goes to the log, where this is looked for",
            )
            .help("let one of its ends go there as well: `stdout = [\"log\", { file = \"p\" }]`"),
        );
    }
}

/// A wait for `ready` of what is no service.
pub(super) fn never_ready(name: &str, mark: Mark) -> Diagnostic {
    Diagnostic::error(mark, format!("`{name}` is no service, and so is never `ready`")).help(format!(
        "leave the state out to wait until `{name}` has succeeded, or make it a service: `service = true`"
    ))
}

/// Who needs a service: it is kept for them.
fn users(nodes: &[Node]) -> BTreeMap<NodeId, Vec<NodeId>> {
    let mut users: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    for (id, node) in nodes.iter().enumerate() {
        for wait in node.needs(nodes) {
            let of = users.entry(wait).or_default();
            if of.last() != Some(&NodeId::from(id)) {
                of.push(NodeId::from(id));
            }
        }
    }
    users
}

/// Who waits for the end of a service may not be who keeps it: that end would never come. `joined` has a number for each node
/// that those of its group share.
pub(super) fn check_circles(nodes: &[Node], joined: &[u32], problems: &mut Problems) {
    // `(who waits, for the end of which service)`
    let waits: Vec<(NodeId, NodeId)> = nodes
        .iter()
        .enumerate()
        .flat_map(|(id, node)| {
            node.after
                .iter()
                .filter(|wait| wait.state.is_end() && nodes[wait.node.index()].service.is_some())
                .map(move |wait| (NodeId::from(id), wait.node))
        })
        .collect();
    if waits.is_empty() {
        return;
    }
    let users = users(nodes);
    let group = |node: NodeId| joined[node.index()];
    let mut next: HashMap<u32, Vec<u32>> = HashMap::new();
    for (id, node) in nodes.iter().enumerate() {
        for wait in &node.after {
            let from = next.entry(group(wait.node)).or_default();
            from.push(group(NodeId::from(id)));
        }
    }
    // The end of a service comes after those of all who keep it, and of those who keep these.
    let keepers = |service: NodeId| {
        let mut found = BTreeSet::new();
        let mut todo = vec![service];
        while let Some(at) = todo.pop() {
            for &user in users.get(&at).into_iter().flatten() {
                if found.insert(user) {
                    todo.push(user);
                }
            }
        }
        found
    };
    let keepers: Vec<BTreeSet<NodeId>> = waits.iter().map(|&(_, of)| keepers(of)).collect();
    for ((waiting, _), keepers) in waits.iter().zip(&keepers) {
        for &keeper in keepers {
            next.entry(group(keeper)).or_default().push(group(*waiting));
        }
    }
    for (&(waiting, service), keepers) in waits.iter().zip(&keepers) {
        let mut reached = BTreeSet::new();
        let mut todo = vec![group(waiting)];
        while let Some(at) = todo.pop() {
            if reached.insert(at) {
                todo.extend(next.get(&at).into_iter().flatten());
            }
        }
        let Some(&keeper) = keepers
            .iter()
            .find(|keeper| reached.contains(&group(**keeper)))
        else {
            continue;
        };
        let name = |node: NodeId| &nodes[node.index()].name;
        let place = |node: NodeId| Mark::Value(nodes[node.index()].place().key("after"));
        let (who, what) = (name(waiting), name(service));
        if keeper == waiting {
            problems.push(
                Diagnostic::error(
                    place(waiting),
                    format!("`{who}` needs service `{what}`, and waits for its end: that would never come"),
                )
                .help(format!("to run beside `{what}` say `after = [\"{what}\"]`, to run when it has been stopped `{{ node = \"{what}\", state = \"finished\" }}`")),
            );
            continue;
        }
        let other = name(keeper);
        problems.push(
            Diagnostic::error(
                place(waiting),
                format!("`{who}` waits for the end of service `{what}`, which is kept until `{other}` has ended, and that comes after `{who}`"),
            )
            .and(place(keeper), "")
            .help(format!("let `{who}` wait for something else than the end of `{what}`")),
        );
    }
}

/// Whether [`check_circles`] finds fault with a plan: for simulations, whose plans nobody has checked.
#[cfg(test)]
pub(crate) fn is_circular(plan: &crate::plan::Plan) -> bool {
    let units = |node: &Node| plan.units[node.units.start as usize].group.0;
    let joined: Vec<u32> = plan.nodes.iter().map(units).collect();
    let mut problems = Problems::default();
    check_circles(&plan.nodes, &joined, &mut problems);
    problems.fatal()
}

/// Services that nobody waits for.
pub(super) fn warn_idle(draft: &Draft, problems: &mut Problems) {
    let nodes = &draft.nodes;
    if nodes.iter().all(|node| node.service.is_none()) {
        return;
    }
    let users = users(nodes);
    let idle: Vec<&Node> = nodes
        .iter()
        .enumerate()
        .filter(|(id, node)| node.service.is_some() && !users.contains_key(&NodeId::from(*id)))
        .map(|(_, node)| node)
        .collect();
    let Some(first) = idle.first() else { return };
    let only_services = nodes.iter().all(|node| node.service.is_some());
    if only_services {
        let names = listed(idle.iter().map(|node| &*node.name));
        problems.push(
            Diagnostic::warning(
                Mark::Key(first.place()),
                format!("nobody waits for {names}, and there are only services: the run goes on until it is stopped (Ctrl-C)"),
            )
            .help("add a process that waits: `after = [\"NAME\"]`"),
        );
        return;
    }
    for node in idle {
        problems.push(
            Diagnostic::warning(
                Mark::Key(node.place()),
                format!(
                    "nobody waits for service `{}`: it runs until all other nodes have ended",
                    node.name
                ),
            )
            .help(format!(
                "let those wait that need it: `after = [\"{}\"]`",
                node.name
            )),
        );
    }
}
