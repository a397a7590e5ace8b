//! What nodes claim of the machine: slots, memory, resources. What a group claims together, and whether there is so much of it.
//! It knows names only where there is something wrong with them.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::diagnostic::{Diagnostic, Mark, Place};
use crate::plan::build::{Draft, check_name};
use crate::plan::problems::{Problems, Site, listed};
use crate::plan::{Arg, Node, Resource};
use crate::spec::values::Amount;

/// What a node claims of the machine, of a pool each of its workers.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) cpus: Option<u32>,
    pub(super) memory: u64,
    /// Of each resource; empty where it claims none.
    pub(super) resources: Arc<[u32]>,
}

/// What the members of a group claim together.
#[derive(Debug, Default)]
pub(super) struct Sum {
    pub(super) slots: u32,
    pub(super) memory: u64,
    pub(super) resources: Arc<[u32]>,
}

/// The counters of `[run] resources`.
pub(super) fn resources(said: &IndexMap<String, Amount>, problems: &mut Problems) -> Vec<Resource> {
    let run = Site::top("run");
    let site = run.key("resources");
    said.iter()
        .map(|(name, amount)| {
            check_name("resource", name, &site.key(name), problems);
            Resource {
                name: name.as_str().into(),
                amount: amount.0,
            }
        })
        .collect()
}

/// The place of a resource's amount.
fn amount_of(resource: &Resource) -> Mark {
    Mark::Value(Place::of(&["run", "resources", &resource.name]))
}

/// A node's claims on resources, by number.
pub(super) fn of_node(
    said: Option<&IndexMap<String, Amount>>,
    all: &[Resource],
    site: &Site<'_>,
    problems: &mut Problems,
) -> Arc<[u32]> {
    let mut claims = vec![0; all.len()];
    for (name, amount) in said.into_iter().flatten() {
        match all.iter().position(|known| *known.name == **name) {
            Some(at) => claims[at] = amount.0,
            None => {
                let there_are = match all {
                    [] => String::new(),
                    [one] => format!("there is `{}`", one.name),
                    _ => format!("there are {}", listed(all.iter().map(|one| &*one.name))),
                };
                let problem = Diagnostic::error(
                    site.key("resources").key(name).mark_key(),
                    format!("no resource `{name}`"),
                )
                .and(Mark::Key(Place::of(&["run", "resources"])), there_are);
                let declare =
                    format!("say how much there is of it: `[run] resources = {{ {name} = 1 }}`");
                let names = all.iter().map(|known| &*known.name);
                problems.push_unknown(problem, name, names, Some(declare));
            }
        }
    }
    dense(claims)
}

/// Nothing of all is nothing at all: the scheduler tells claims apart.
fn dense(claims: Vec<u32>) -> Arc<[u32]> {
    match claims.iter().all(|claim| *claim == 0) {
        true => Arc::default(),
        false => claims.into(),
    }
}

/// Processes of a node that run at the same time.
fn workers(node: &Node) -> u32 {
    node.pool.as_ref().map_or(1, |pool| pool.workers)
}

/// What the nodes of a group claim together. Those that are skipped claim nothing.
pub(super) fn sum<'a>(members: impl Iterator<Item = (&'a Node, &'a Claim)>) -> Sum {
    let mut sum = Sum::default();
    let mut resources = Vec::new();
    // Plain processes that say nothing hold one slot together: in a pipe they take turns.
    let mut unsaid = 0;
    for (node, claim) in members.filter(|(node, _)| !node.is_left_out()) {
        match (claim.cpus, &node.pool) {
            // It waits most of the time, and is not to keep out those it is there for.
            (None, None) if node.service.is_some() => {}
            (None, None) => unsaid = 1,
            (cpus, _) => {
                let of_all = cpus.unwrap_or(1).saturating_mul(workers(node));
                sum.slots = sum.slots.saturating_add(of_all);
            }
        }
        let of_all = claim.memory.saturating_mul(u64::from(workers(node)));
        sum.memory = sum.memory.saturating_add(of_all);
        resources.resize(resources.len().max(claim.resources.len()), 0);
        for (sum, claimed) in resources.iter_mut().zip(&*claim.resources) {
            *sum = claimed.saturating_mul(workers(node)).saturating_add(*sum);
        }
    }
    sum.slots = sum.slots.saturating_add(unsaid);
    sum.resources = dense(resources);
    sum
}

/// A group that claims more of a resource than there is can never start. (One that claims more slots or memory runs alone, spec 2.2:
/// these are guesses of what it will use. A resource counts things, and a third of two is not there.)
pub(super) fn check(draft: &Draft, group_of: &[u32], all: &[Resource], problems: &mut Problems) {
    let claims = |node: usize, at: usize| {
        let claimed = draft.claims[node].resources.get(at).copied().unwrap_or(0);
        match draft.nodes[node].is_left_out() {
            true => 0,
            false => claimed.saturating_mul(workers(&draft.nodes[node])),
        }
    };
    for (at, resource) in all.iter().enumerate() {
        let mut groups: IndexMap<u32, Vec<usize>> = IndexMap::new();
        for node in (0..draft.nodes.len()).filter(|node| claims(*node, at) > 0) {
            groups.entry(group_of[node]).or_default().push(node);
        }
        for nodes in groups.values() {
            let sum = |sum: u32, node: &usize| sum.saturating_add(claims(*node, at));
            let sum = nodes.iter().fold(0, sum);
            let too_much = |node: &&usize| claims(**node, at) > resource.amount;
            let alone = nodes.iter().filter(too_much);
            for node in alone.clone() {
                problems.push(never_starts(
                    &draft.nodes[*node],
                    claims(*node, at),
                    resource,
                ));
            }
            if sum > resource.amount && alone.count() == 0 {
                let nodes = nodes
                    .iter()
                    .map(|node| (&draft.nodes[*node], claims(*node, at)));
                problems.push(never_start_together(nodes, sum, resource));
            }
        }
        // What is too much already has been told.
        let is_service = |node: &usize| draft.nodes[*node].service.is_some();
        let others = groups
            .values()
            .filter(|nodes| !nodes.iter().any(is_service));
        let most = others
            .map(|nodes| nodes.iter().map(|node| claims(*node, at)).sum::<u32>())
            .filter(|sum| *sum <= resource.amount)
            .max();
        check_services(
            draft,
            resource,
            &|node| claims(node, at),
            most.unwrap_or(0),
            problems,
        );
    }
}

/// Services hold what they claim while others wait for them: where they don't all fit beside the largest of the rest, two may each
/// hold what the other waits for.
fn check_services(
    draft: &Draft,
    resource: &Resource,
    claim: &dyn Fn(usize) -> u32,
    most: u32,
    problems: &mut Problems,
) {
    let is_service = |node: &usize| draft.nodes[*node].service.is_some();
    let services: Vec<usize> = (0..draft.nodes.len())
        .filter(|node| is_service(node) && claim(*node) > 0)
        .collect();
    let held = services
        .iter()
        .map(|node| claim(*node))
        .fold(0, u32::saturating_add);
    let [first, ..] = services[..] else { return };
    if held <= resource.amount && held.saturating_add(most) > resource.amount {
        let Resource { name, .. } = resource;
        problems.push(
            Diagnostic::error(
                claim_on(&draft.nodes[first], resource),
                format!(
                    "services hold {held} of resource `{name}` while others wait for them, and others claim up to {most}: {}",
                    there_is(resource)
                ),
            )
            .and(amount_of(resource), "")
            .help(format!(
                "let there be {} of it, or claim less: what services hold must be there beside the rest",
                held.saturating_add(most)
            )),
        );
    } else if held > resource.amount && services.len() > 1 {
        let names = listed(services.iter().map(|node| &*draft.nodes[*node].name));
        let Resource { name, .. } = resource;
        problems.push(
            Diagnostic::error(
                claim_on(&draft.nodes[first], resource),
                format!(
                    "services {names} hold {held} of resource `{name}` together: {}",
                    there_is(resource)
                ),
            )
            .and(amount_of(resource), "")
            .help("services may all be needed at the same time, so there must be enough for all of them"),
        );
    }
}

/// The place of a node's claim on a resource.
fn claim_on(node: &Node, resource: &Resource) -> Mark {
    Mark::Value(node.place().key("resources").key(&resource.name))
}

fn there_is(resource: &Resource) -> String {
    match resource.amount {
        0 => "there is none".to_owned(),
        1 => "there is 1".to_owned(),
        amount => format!("there are {amount}"),
    }
}

fn never_starts(node: &Node, claimed: u32, resource: &Resource) -> Diagnostic {
    let Resource { name, amount } = resource;
    let there_is = there_is(resource);
    let problem = |message| {
        Diagnostic::error(claim_on(node, resource), message)
            .and(amount_of(resource), there_is.clone())
    };
    match workers(node) {
        1 => problem(format!(
            "`{}` can never start: it claims {claimed} of `{name}`, and {there_is}",
            node.name
        )),
        count => {
            let each = claimed / count;
            let problem = problem(format!(
                "`{}` can never start: its {count} workers claim {claimed} of `{name}`, and {there_is}",
                node.name
            ));
            match amount / each {
                0 => problem,
                fit => problem.help(format!("so much is enough for `workers = {fit}`")),
            }
        }
    }
}

/// Nodes that queues join start together or not at all.
fn never_start_together<'a>(
    nodes: impl Iterator<Item = (&'a Node, u32)> + Clone,
    sum: u32,
    resource: &Resource,
) -> Diagnostic {
    let names = listed(nodes.clone().map(|(node, _)| &*node.name));
    let there_is = there_is(resource);
    let mut marks = nodes.map(|(node, claimed)| {
        let text = match workers(node) {
            1 => String::new(),
            count => format!("{claimed} for {count} workers"),
        };
        (claim_on(node, resource), text)
    });
    let message = format!(
        "{names} can never start: queues join them, so they run together, and claim {sum} of `{}`; {there_is}",
        resource.name
    );
    let mut problem = match marks.next() {
        Some((mark, text)) => Diagnostic::error(mark, message).label(text),
        None => panic!("BUG: no node claims too much of {resource:?}"),
    };
    // As many as can be taken in.
    for (mark, text) in marks.take(4) {
        problem = problem.and(mark, text);
    }
    problem.and(amount_of(resource), there_is).help(
        "give one of the queues between them `store = true`: then they run one after the other",
    )
}

/// A group that claims more memory than the machine has runs all the same, when nothing else does.
pub(super) fn check_memory(
    draft: &Draft,
    group_of: &[u32],
    machine: &dyn Fn() -> Option<u64>,
    problems: &mut Problems,
) {
    let mut groups: IndexMap<u32, Vec<usize>> = IndexMap::new();
    for node in (0..draft.nodes.len()).filter(|node| draft.claims[*node].memory > 0) {
        groups.entry(group_of[node]).or_default().push(node);
    }
    // Asked only where somebody claims some: it means a walk through the cgroups.
    let Some(there_is) = (!groups.is_empty()).then(machine).flatten() else {
        return;
    };
    for nodes in groups.values() {
        let members = nodes
            .iter()
            .map(|node| (&draft.nodes[*node], &draft.claims[*node]));
        let claimed = sum(members).memory;
        let mut marks = nodes
            .iter()
            .map(|node| Mark::Value(draft.nodes[*node].place().key("memory")));
        let Some(mark) = marks.next().filter(|_| claimed > there_is) else {
            continue;
        };
        let names = listed(nodes.iter().map(|node| &*draft.nodes[*node].name));
        let (claims, it) = match nodes.len() {
            1 => ("claims", "it runs"),
            _ => ("claim", "they run"),
        };
        let size = |bytes: u64| bytesize::ByteSize(bytes).display().iec().to_string();
        let mut problem = Diagnostic::warning(
            mark,
            format!(
                "{names} {claims} {} of memory, and this machine has {}: {it} when nothing else does",
                size(claimed),
                size(there_is)
            ),
        );
        for mark in marks.take(4) {
            problem = problem.and(mark, "");
        }
        problems.push(problem);
    }
}

/// A make that is told how many jobs it runs takes no notice of the job slots.
pub(super) fn note_own_jobs(draft: &Draft, problems: &mut Problems) {
    for node in &draft.nodes {
        let unit = draft.units.get(node.units.start as usize);
        let words = unit.into_iter().flat_map(|unit| &unit.argv);
        let mut words = words.filter_map(|arg| match arg {
            Arg::One(template) => template.literal(),
            Arg::EachInput(_) | Arg::EachTask => None,
        });
        let name = words.next().and_then(|path| path.rsplit('/').next());
        let is_jobs = |word: &&str| {
            let number = word
                .strip_prefix("-j")
                .or_else(|| word.strip_prefix("--jobs="));
            number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        if let (Some(name @ ("make" | "gmake")), Some(jobs)) = (name, words.find(is_jobs)) {
            problems.push(
                Diagnostic::note(format!(
                    "`{name} {jobs}` runs jobs of its own, beside the job slots"
                ))
                .and(
                    Mark::Within(node.place().key("command"), jobs.to_owned()),
                    "",
                )
                .help("leave it out: then the slots that nobody uses are shared"),
            );
        }
    }
}
