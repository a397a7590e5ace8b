//! From what was said to what it means: the steps of planning, in order. Each step tells all problems that it finds and
//! goes on with what it has, so that one look shows them all.

use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::diagnostic::{Diagnostic, Mark, Place};
use crate::plan::arrange::{Arrangement, Graph};
use crate::plan::environment::{Dotenv, Environment};
use crate::plan::problems::{NAME_RULE, Problems, Site, error, is_name, variable};
use crate::plan::scope::{Found, Scope, When};
use crate::plan::{
    After, Arg, Deliver, Ends, Group, GroupId, Node, NodeId, Overflow, Plan, Queue, QueueId,
    QueueKind, Role, Unit, UnitId,
};
use crate::plan::{checks, cycles, ends, environment, params, select, settings, template};
use crate::spec::{self, AfterState, Process, Spec};

/// Where a pipeline comes from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The directory that relative paths are relative to; absolute.
    pub dir: PathBuf,
    /// The pipeline's name where the file gives none: its stem.
    pub name: String,
}

/// What the command line and the environment change.
pub struct Overrides<'a> {
    /// `--set NAME=VALUE`; the last of a name wins.
    pub set: Vec<(String, String)>,
    /// `--only NODE|@tag`; empty: everything.
    pub only: Vec<String>,
    /// `--skip NODE`.
    pub skip: Vec<String>,
    /// The environment that nodes inherit.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Ends of queues stood in what could not be read of the file: that one is missing, or a value, is then not said.
    pub ends_lost: bool,
}

impl Overrides<'_> {
    /// Nothing changed, nothing inherited.
    pub fn none() -> Self {
        Overrides {
            set: Vec::new(),
            only: Vec::new(),
            skip: Vec::new(),
            env: &|_| None,
            ends_lost: false,
        }
    }
}

/// What a node claims of the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) cpus: Option<u32>,
    pub(super) memory: u64,
}

/// The parts of a plan before they are grouped. Vectors of units and claims go by [`UnitId`].
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) nodes: Vec<Node>,
    pub(super) units: Vec<Unit>,
    pub(super) claims: Vec<Claim>,
    pub(super) queues: Vec<Queue>,
}

/// `value.NODE`, used by `user` at this place.
#[derive(Debug)]
pub(super) struct ValueUse {
    pub(super) user: NodeId,
    pub(super) node: NodeId,
    pub(super) place: Place,
}

/// Plans a pipeline. There is a plan where no diagnostic is an error.
///
/// Reads the dotenv files that the pipeline names, and nothing else.
pub fn build(
    mut spec: Spec,
    origin: &Origin,
    overrides: &Overrides<'_>,
) -> (Option<Plan>, Vec<Diagnostic>) {
    let mut problems = Problems::default();
    checks::names(&spec, &mut problems);
    checks::run(&spec.run, &mut problems);
    let params = params::decide(&spec.params, overrides, &mut problems);
    let mut dotenv = Dotenv::new(&origin.dir, overrides.env);
    let dir = origin.dir.to_string_lossy();
    let mut values = Vec::new();
    let mut secrets: Vec<String> = params
        .values()
        .filter(|p| p.secret && !p.value.is_empty())
        .map(|p| p.value.clone())
        .collect();
    let env = {
        let mut found = Found {
            problems: &mut problems,
            values: &mut values,
            secret: false.into(),
        };
        pipeline_env(&mut spec, &params, &dir, overrides, &mut dotenv, &mut found)
    };
    secrets.extend(env.secrets().map(str::to_owned));
    let skip = names_of_skip(&spec.process, overrides, &mut problems);
    let keep = select::chosen(&spec.process, overrides, &mut problems);

    let mut queues = ends::Queues::default();
    let mut uses = Vec::new();
    let mut draft = {
        let mut found = Found {
            problems: &mut problems,
            values: &mut values,
            secret: false.into(),
        };
        let mut processes = std::mem::take(&mut spec.process);
        let mut nodes = Nodes {
            env: &env,
            params: &params,
            inherited: overrides.env,
            dir: &dir,
            defaults: &spec.defaults,
            queues: &mut queues,
            dotenv: &mut dotenv,
            secrets: &mut secrets,
        };
        nodes.build(&mut processes, &skip, &mut found, &mut uses)
    };
    draft.queues = finish_queues(&queues, &spec.queue);
    let words = Names {
        nodes: &draft.nodes,
        queues: &queues,
    };
    if !overrides.ends_lost {
        checks::queues(&queues, &spec.queue, &words, &mut problems);
    }
    let graph = graph_of(&draft);
    let joined = match graph.arrange() {
        Ok(arrangement) => arrangement.group_of,
        Err(stuck) => {
            cycles::explain(&graph, &stuck.joined, &words, &mut problems);
            stuck.joined
        }
    };
    let mut order = checks::Order::new(&draft.nodes, &joined);
    if !overrides.ends_lost {
        checks::values(&draft, &uses, &mut order, &mut problems);
    }
    checks::files(&draft, &origin.dir, &mut order, &mut problems);
    checks::standard_input(&draft, &mut order, &mut problems);
    if draft.nodes.is_empty() {
        problems.push(
            Diagnostic::warning(Mark::Key(Place::default()), "there is no process to run")
                .help("add one: `[process.hello]` with `command = [\"echo\", \"hello\"]`; `procflow init` writes an example"),
        );
    }
    checks::lonely(&draft.nodes, &draft.queues, &mut problems);
    let meets = graph.meets_again();
    secrets.sort_unstable();
    secrets.dedup();
    problems.hide(&secrets);
    if problems.fatal() {
        return (None, problems.0);
    }
    checks::note_spilling(&graph, &joined, &meets, &words, &mut problems);
    mark_spilling(&mut draft.queues, &meets);
    let draft = match keep {
        Some(chosen) => select::keep(draft, &chosen, &joined),
        None => draft,
    };
    let plan = Plan {
        name: spec.name.take().unwrap_or_else(|| origin.name.clone()),
        description: spec.description.take(),
        dir: origin.dir.clone(),
        jobs: spec.run.jobs,
        on_failure: spec.run.on_failure.unwrap_or_default(),
        timeout: spec.run.timeout.map(|d| d.0),
        env: env.into_vec(),
        secrets,
        nodes: Vec::new(),
        units: Vec::new(),
        queues: Vec::new(),
        groups: Vec::new(),
    };
    (Some(grouped(plan, draft)), problems.0)
}

/// Dotenv files, `[env]`, `PARAM_X`, `PIPELINE_DIR`.
fn pipeline_env(
    spec: &mut Spec,
    params: &params::Params,
    dir: &str,
    overrides: &Overrides<'_>,
    dotenv: &mut Dotenv<'_>,
    found: &mut Found<'_>,
) -> Environment {
    let mut env = Environment::default();
    let files = std::mem::take(&mut spec.env_file.0);
    let scope = Scope {
        when: When::Plan,
        params,
        env: &env,
        inherited: overrides.env,
        dir,
        nodes: &spec.process,
        own_env: &[],
        ends: None,
    };
    let files = environment::read_files(files, &Site::top("env_file"), &scope, dotenv, found);
    for (name, value) in files {
        env.set(name, value, false);
    }
    let top = Site::top("env");
    for (name, text) in &spec.env {
        let site = top.key(name);
        environment::check_name(name, &site, found.problems);
        found.secret.set(false);
        // It sees what stands before it, so `PATH = "${{ env.PATH }}:bin"` adds to what is inherited.
        let scope = Scope {
            when: When::Plan,
            params,
            env: &env,
            inherited: overrides.env,
            dir,
            nodes: &spec.process,
            own_env: &[],
            ends: None,
        };
        let value = template::parse(text.clone(), &scope, &site, found);
        let secret = found.secret.get();
        if environment::is_taken(name, &site, params, found.problems) {
            continue;
        }
        // A part that is left is a problem already told.
        env.set(
            name.clone(),
            value.literal().unwrap_or_default().to_owned(),
            secret,
        );
    }
    for (name, param) in params {
        env.set(
            format!("PARAM_{}", variable(name)),
            param.value.clone(),
            param.secret && !param.value.is_empty(),
        );
    }
    env.set("PIPELINE_DIR".to_owned(), dir.to_owned(), false);
    env
}

/// Which nodes `--skip` leaves out.
fn names_of_skip(
    processes: &IndexMap<String, Process>,
    overrides: &Overrides<'_>,
    problems: &mut Problems,
) -> Vec<bool> {
    let mut skip = vec![false; processes.len()];
    for name in &overrides.skip {
        match processes.get_index_of(name.as_str()) {
            Some(index) => skip[index] = true,
            None => {
                let problem = error(format!("--skip {name}: no node `{name}`"));
                problems.push_unknown(problem, name, processes.keys().map(String::as_str), None);
            }
        }
    }
    skip
}

/// Builds nodes and their units, one after the other, and takes each process apart while it does.
struct Nodes<'a> {
    env: &'a Environment,
    params: &'a params::Params,
    inherited: &'a dyn Fn(&str) -> Option<String>,
    dir: &'a str,
    defaults: &'a spec::Defaults,
    queues: &'a mut ends::Queues,
    dotenv: &'a mut Dotenv<'a>,
    secrets: &'a mut Vec<String>,
}

impl Nodes<'_> {
    fn build(
        &mut self,
        processes: &mut IndexMap<String, Process>,
        skip: &[bool],
        found: &mut Found<'_>,
        uses: &mut Vec<ValueUse>,
    ) -> Draft {
        let count = processes.len();
        let mut draft = Draft {
            nodes: Vec::with_capacity(count),
            units: Vec::with_capacity(count),
            claims: Vec::with_capacity(count),
            queues: Vec::new(),
        };
        // The names of all nodes stay in `processes`; what they say is taken out one by one, so that nothing is there twice.
        let scope = Scope {
            when: When::Process,
            params: self.params,
            env: self.env,
            inherited: self.inherited,
            dir: self.dir,
            nodes: processes,
            own_env: &[],
            ends: None,
        };
        let written = ends::written(processes, &scope);
        let mut settings = settings::Builder::new(self.defaults, &scope, found);
        let default_ends = ends::default_ends();
        let top = Site::top("process");
        for (index, &skip) in skip.iter().enumerate() {
            let Some((_, process)) = processes.get_index_mut(index) else {
                break;
            };
            let mut process = std::mem::take(process);
            let processes = &*processes;
            let Some((name, _)) = processes.get_index(index) else {
                break;
            };
            let site = top.key(name);
            let scope = Scope {
                when: When::Process,
                params: self.params,
                env: self.env,
                inherited: self.inherited,
                dir: self.dir,
                nodes: processes,
                own_env: &[],
                ends: None,
            };
            let id = UnitId::from(index);
            let said = ends::Said::take(&mut process);
            let mut builder = ends::Builder {
                scope,
                queues: self.queues,
                written: &written,
                default: &default_ends,
            };
            let ends = builder.build(id, said, &site, found);
            let scope = Scope {
                ends: Some(&ends),
                ..scope
            };
            let env = environment::of_node(
                std::mem::take(&mut process.env_file.0),
                process.env.take(),
                &site,
                &scope,
                self.dotenv,
                found,
                self.secrets,
            );
            let scope = Scope {
                own_env: &env,
                ..scope
            };
            let argv = argv(&mut process, self.defaults, &site, &scope, &ends, found);
            let settings = settings.build(&mut process, &site, &scope, found);
            let reads = globs(
                std::mem::take(&mut process.reads.0),
                "reads",
                &site,
                &scope,
                found,
            );
            let writes = globs(
                std::mem::take(&mut process.writes.0),
                "writes",
                &site,
                &scope,
                found,
            );
            let after = waits(
                &process.after,
                processes,
                &|name| self.queues.0.contains_key(name),
                &site,
                found.problems,
            );
            let user = NodeId::from(index);
            uses.extend(
                found
                    .values
                    .drain(..)
                    .map(|(node, place)| ValueUse { user, node, place }),
            );
            draft.nodes.push(Node {
                name: name.as_str().into(),
                units: id.0..id.0 + 1,
                after,
                allow_failure: process
                    .allow_failure
                    .or(self.defaults.allow_failure)
                    .unwrap_or(false),
                pool: None,
                skip,
                description: process.description.map(Into::into),
                tags: process.tags.into_iter().map(Into::into).collect(),
            });
            draft.claims.push(Claim {
                cpus: process.cpus,
                memory: process.memory.map_or(0, |size| size.0),
            });
            draft.units.push(Unit {
                node: user,
                group: GroupId(0),
                role: Role::Process,
                argv,
                env,
                settings,
                ends,
                reads,
                writes,
            });
        }
        draft
    }
}

/// `command` or `script` as arguments.
fn argv(
    process: &mut Process,
    defaults: &spec::Defaults,
    node: &Site<'_>,
    scope: &Scope<'_>,
    ends: &Ends,
    found: &mut Found<'_>,
) -> Vec<Arg> {
    match (process.command.take(), process.script.take()) {
        (Some(command), None) => command_argv(command, node, scope, ends, found),
        (None, Some(script)) => script_argv(script, process.shell.take(), defaults, node, found),
        (Some(_), Some(_)) => {
            found.problems.push(
                Diagnostic::error(node.key("script").mark_key(), "both `command` and `script`")
                    .and(node.key("command").mark_key(), "")
                    .help("a node runs one of them: drop the other"),
            );
            Vec::new()
        }
        (None, None) => {
            found.problems.push(
                Diagnostic::error(node.mark_key(), "neither `command` nor `script`").help("say what to run: `command = [\"program\", \"argument\"]`, or `script = \"shell code\"`"),
            );
            Vec::new()
        }
    }
}

fn command_argv(
    command: Vec<String>,
    node: &Site<'_>,
    scope: &Scope<'_>,
    ends: &Ends,
    found: &mut Found<'_>,
) -> Vec<Arg> {
    let site = node.key("command");
    match command.first().map(String::as_str) {
        None => found.problems.push(
            Diagnostic::error(site.mark_value(), "an empty command")
                .help("its first element is the program: `command = [\"true\"]`"),
        ),
        Some("") => found.problems.push(Diagnostic::error(
            site.index(0).mark_value(),
            "the program's name is empty",
        )),
        Some(_) => {
            shell_looks(&command, &site, found.problems);
            variable_for_a_shell(&command, scope, &site, found.problems);
        }
    }
    let mut argv = Vec::with_capacity(command.len());
    for (i, element) in command.into_iter().enumerate() {
        let each = template::sole_input(&element)
            .filter(|input| {
                ends.inputs
                    .iter()
                    .any(|known| &*known.name == *input && known.from.len() != 1)
            })
            .map(Box::from);
        argv.push(match each {
            Some(input) => Arg::EachInput(input),
            None => Arg::One(template::parse(element, scope, &site.index(i), found)),
        });
    }
    argv
}

/// Warns where a command looks as if it were meant for a shell.
fn shell_looks(command: &[String], site: &Site<'_>, problems: &mut Problems) {
    let [program, arguments @ ..] = command else {
        return;
    };
    if arguments.is_empty() && program.contains(char::is_whitespace) && !program.contains("${{") {
        problems.push(
            Diagnostic::warning(
                site.index(0).mark_value(),
                format!(
                    "the whole of `{}` is the program's name",
                    program.escape_debug()
                ),
            )
            .help(format!(
                "did you mean `script = {program:?}`, or one element for each argument?"
            )),
        );
        return;
    }
    // These take such words as arguments.
    if matches!(
        program.rsplit('/').next(),
        Some("expr" | "test" | "[" | "awk" | "jq" | "printf" | "echo")
    ) {
        return;
    }
    const OPERATORS: [&str; 7] = ["|", "&&", "||", ">", ">>", "2>&1", "2>"];
    if let Some((i, operator)) = arguments
        .iter()
        .enumerate()
        .find(|(_, argument)| OPERATORS.contains(&argument.as_str()))
    {
        problems.push(
            Diagnostic::warning(
                site.index(i + 1).mark_value(),
                format!("`{operator}` is an argument here: `command` has no shell"),
            )
            .help("use `script` for shell code, or queues and files as ends"),
        );
    }
}

/// Warns where an argument is a variable that only a shell would replace.
fn variable_for_a_shell(
    command: &[String],
    scope: &Scope<'_>,
    site: &Site<'_>,
    problems: &mut Problems,
) {
    let [program, arguments @ ..] = command else {
        return;
    };
    // A shell further on (`ssh`, `docker exec x sh -c`) replaces it.
    if program.ends_with("sh") || arguments.iter().any(|argument| argument == "-c") {
        return;
    }
    // `$NF` and the like are programs of awk: only what would be replaced in a shell is one that was meant for it.
    let variable = arguments.iter().enumerate().find_map(|(i, argument)| {
        let name = argument.strip_prefix('$')?;
        let name = name
            .strip_prefix('{')
            .and_then(|name| name.strip_suffix('}'))
            .unwrap_or(name);
        scope.stands_for(name).map(|meant| (i, argument, meant))
    });
    if let Some((i, argument, meant)) = variable {
        problems.push(
            Diagnostic::warning(
                site.index(i + 1).mark_value(),
                format!("`{argument}` is an argument as it stands: `command` has no shell"),
            )
            .help(format!("did you mean `${{{{ {meant} }}}}`?")),
        );
    }
}

fn script_argv(
    script: String,
    shell: Option<Vec<String>>,
    defaults: &spec::Defaults,
    node: &Site<'_>,
    found: &mut Found<'_>,
) -> Vec<Arg> {
    let site = node.key("script");
    if script.trim().is_empty() {
        found.problems.push(
            Diagnostic::error(site.mark_value(), "an empty script")
                .help("for a node that does nothing say `command = [\"true\"]`"),
        );
    }
    let script = template::script(script, &site, found.problems);
    let top = Site::top("defaults");
    let (shell, site) = match (shell, &defaults.shell) {
        (Some(own), _) => (own, node.key("shell")),
        (None, Some(common)) => (common.clone(), top.key("shell")),
        (None, None) => (
            settings::SHELL.map(str::to_owned).to_vec(),
            node.key("shell"),
        ),
    };
    if shell.first().is_none_or(String::is_empty) {
        found.problems.push(
            Diagnostic::error(site.mark_value(), "an empty shell")
                .help("`shell` is what stands before the script: `[\"bash\", \"-euc\"]`"),
        );
    }
    if shell
        .iter()
        .any(|word| word.contains(['\0']) || word.contains("${{"))
    {
        found.problems.push(Diagnostic::error(
            site.mark_value(),
            "`shell` is taken as it stands: neither NUL nor `${{` can be in it",
        ));
    }
    shell
        .into_iter()
        .chain([script])
        .map(|word| Arg::One(template::Template::Literal(word.into())))
        .collect()
}

fn globs(
    patterns: Vec<String>,
    key: &str,
    node: &Site<'_>,
    scope: &Scope<'_>,
    found: &mut Found<'_>,
) -> Vec<template::Template> {
    if patterns.is_empty() {
        return Vec::new();
    }
    let site = node.key(key);
    let one = patterns.len() == 1;
    patterns
        .into_iter()
        .enumerate()
        .map(|(i, pattern)| {
            let site = if one { site } else { site.index(i) };
            if let Err(reason) = globset::Glob::new(&pattern) {
                found.problems.push(Diagnostic::error(
                    site.mark_value(),
                    format!("not a pattern: {}", reason.kind()),
                ));
            }
            template::parse(pattern, &scope.at(When::Start), &site, found)
        })
        .collect()
}

/// `after`, by number.
fn waits(
    after: &[spec::After],
    processes: &IndexMap<String, Process>,
    is_queue: &dyn Fn(&str) -> bool,
    node: &Site<'_>,
    problems: &mut Problems,
) -> Vec<After> {
    let mut waits = Vec::with_capacity(after.len());
    for (i, wait) in after.iter().enumerate() {
        match processes.get_index_of(wait.node.as_str()) {
            Some(index) => waits.push(After {
                node: NodeId::from(index),
                state: wait.state,
            }),
            None => {
                let problem = Diagnostic::error(
                    node.key("after").index(i).mark_value(),
                    format!("no node `{}`", wait.node),
                );
                problems.push_unknown(
                    problem,
                    &wait.node,
                    processes.keys().map(String::as_str),
                    is_queue(&wait.node).then(|| {
                        format!("`{}` is a queue: wait for a node that writes it", wait.node)
                    }),
                );
            }
        }
    }
    // Stable: several states of one node stay as they were said.
    waits.sort_by_key(|wait| wait.node);
    waits.dedup();
    let contradicts = |a: AfterState, b: AfterState| {
        matches!(
            (a, b),
            (AfterState::Succeeded, AfterState::Failed)
                | (AfterState::Failed, AfterState::Succeeded)
        )
    };
    for pair in waits.windows(2) {
        if pair[0].node == pair[1].node && contradicts(pair[0].state, pair[1].state) {
            let name = processes
                .get_index(pair[0].node.index())
                .map_or("", |(name, _)| name.as_str());
            problems.push(
                Diagnostic::error(
                    node.key("after").mark_value(),
                    format!("it waits for both the success and the failure of `{name}`"),
                )
                .help(format!(
                    "for either of them say `{{ node = \"{name}\", state = \"finished\" }}`"
                )),
            );
        }
    }
    waits
}

/// Queues with their settings. `spills` and kind follow when the graph is known.
fn finish_queues(queues: &ends::Queues, said: &IndexMap<String, spec::Queue>) -> Vec<Queue> {
    const CAPACITY: u64 = 256 << 10;
    let unsaid = spec::Queue::default();
    queues
        .0
        .iter()
        .map(|(name, draft)| {
            let said = said.get(&**name).unwrap_or(&unsaid);
            let records = said.records.clone().unwrap_or_default();
            // What was asked for can be seen only by looking at the data.
            let looked_at = said.max_record.is_some() && records != spec::Records::Bytes
                || matches!(records, spec::Records::Length32 | spec::Records::Size(_));
            let lone = draft.writers.len() == 1 && draft.readers.len() == 1;
            Queue {
                name: Arc::clone(name),
                writers: draft.writers.iter().map(|end| end.unit).collect(),
                readers: draft.readers.iter().map(|end| end.unit).collect(),
                kind: if lone && !looked_at {
                    QueueKind::Direct
                } else {
                    QueueKind::Relayed
                },
                records,
                max_record: said.max_record.map(|size| size.0),
                capacity: said.capacity.map_or(CAPACITY, |size| size.0),
                merge: said.merge.unwrap_or_default(),
                on_writer_failure: said.on_writer_failure.unwrap_or_default(),
                file: None,
                max_records: None,
                overflow: Overflow::Block,
                deliver: Deliver::Copy,
                header: 0,
                feedback: false,
            }
        })
        .collect()
}

fn mark_spilling(queues: &mut [Queue], meets: &[bool]) {
    for (queue, &meets) in queues.iter_mut().zip(meets) {
        if meets {
            queue.overflow = Overflow::Spill;
            queue.kind = QueueKind::Relayed;
        }
    }
}

/// The numbers alone.
fn graph_of(draft: &Draft) -> Graph {
    let waits = draft
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(index, node)| {
            node.after
                .iter()
                .map(move |wait| (wait.node.0, index as u32))
        })
        .collect();
    let numbers = |units: &[UnitId]| units.iter().map(|unit| unit.0).collect();
    let queues = draft
        .queues
        .iter()
        .map(|queue| (numbers(&queue.writers), numbers(&queue.readers)))
        .collect();
    Graph {
        units: draft.units.len(),
        waits,
        queues,
    }
}

/// Puts the parts together, in groups.
fn grouped(mut plan: Plan, draft: Draft) -> Plan {
    let graph = graph_of(&draft);
    let Arrangement { groups, group_of } = match graph.arrange() {
        Ok(arrangement) => arrangement,
        Err(stuck) => panic!("BUG: part of a graph that has an order has none: {stuck:?}"),
    };
    let Draft {
        nodes,
        mut units,
        claims,
        queues,
    } = draft;
    for (unit, &group) in units.iter_mut().zip(&group_of) {
        unit.group = GroupId(group);
    }
    plan.groups = groups
        .into_iter()
        .map(|members| {
            let runs = || {
                members
                    .iter()
                    .map(|&unit| unit as usize)
                    .filter(|&unit| !nodes[units[unit].node.index()].skip)
            };
            let said: u32 = runs()
                .filter_map(|unit| claims[unit].cpus)
                .fold(0, u32::saturating_add);
            // Those that say nothing hold one slot together: in a pipe they take turns.
            let unsaid = u32::from(runs().any(|unit| claims[unit].cpus.is_none()));
            Group {
                slots: said.saturating_add(unsaid),
                memory: runs()
                    .map(|unit| claims[unit].memory)
                    .fold(0, u64::saturating_add),
                units: members.into_iter().map(UnitId).collect(),
                queues: Vec::new(),
            }
        })
        .collect();
    for (index, queue) in queues.iter().enumerate() {
        if let Some(writer) = queue.writers.first() {
            plan.groups[group_of[writer.index()] as usize]
                .queues
                .push(QueueId::from(index));
        }
    }
    plan.nodes = nodes;
    plan.units = units;
    plan.queues = queues;
    plan
}

/// Names and places of what the graph knows by number.
pub(super) struct Names<'a> {
    pub(super) nodes: &'a [Node],
    pub(super) queues: &'a ends::Queues,
}

impl cycles::Words for Names<'_> {
    fn node(&self, unit: u32) -> &str {
        &self.nodes[unit as usize].name
    }

    fn queue(&self, queue: usize) -> &str {
        self.queues.0.get_index(queue).map_or("", |(name, _)| name)
    }

    fn end(&self, queue: usize, unit: u32, reads: bool) -> crate::diagnostic::Mark {
        let name = self.node(unit);
        let draft = self.queues.0.get_index(queue).map(|(_, draft)| draft);
        let ends = draft.map_or(&[][..], |draft| {
            if reads {
                &draft.readers
            } else {
                &draft.writers
            }
        });
        match ends.iter().find(|end| end.unit.0 == unit) {
            Some(end) => end.mark(name),
            None => crate::diagnostic::Mark::Key(cycles::process(name)),
        }
    }

    fn wait(&self, unit: u32, _before: u32) -> crate::diagnostic::Mark {
        crate::diagnostic::Mark::Value(cycles::process(self.node(unit)).key("after"))
    }
}

/// The name of a queue or node that could be one, or says why not.
pub(super) fn check_name(what: &str, name: &str, site: &Site<'_>, problems: &mut Problems) {
    if !is_name(name) {
        problems.push(
            Diagnostic::error(
                site.mark_key(),
                format!("`{}` can't be a {what}'s name", name.escape_debug()),
            )
            .help(NAME_RULE),
        );
    }
}
