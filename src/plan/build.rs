//! From what was said to what it means: the steps of planning, in order. Each step tells all problems that it finds and
//! goes on with what it has, so that one look shows them all.

use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::diagnostic::{Diagnostic, Mark, Place, harmless};
use crate::plan::arrange::{Arrangement, Graph, Joint};
use crate::plan::claims::{self, Claim};
use crate::plan::condition::{self, Answer};
use crate::plan::environment::{Dotenv, Environment};
use crate::plan::problems::{NAME_RULE, Problems, Site, error, is_name, variable};
use crate::plan::scope::{Found, Of, Scope, When};
use crate::plan::stored::{self, Implied};
use crate::plan::{
    After, Arg, Deliver, Feed, Group, GroupId, Node, NodeId, Overflow, Plan, Pool, Queue, QueueId,
    QueueKind, Resource, Role, Settings, Skip, Unit, UnitId,
};
use crate::plan::{
    checks, cycles, deliver, ends, environment, matrix, params, pools, select, services, settings,
    stiff, template, uses,
};
use crate::spec::{self, AfterState, JobserverStyle, Process, Spec};

/// So many waits come of names that stand for several nodes, at most: two matrices of 10,000 combinations, one after the other,
/// would have 10,000 times as many.
const MOST_WAITS: usize = 1_000_000;

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
    /// Job slots of the run: how many workers a pool has that doesn't say. At least 1.
    pub jobs: u32,
    /// The environment that nodes inherit.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Bytes of memory that the machine has for nodes, where that is known. Asked only where some node claims memory.
    pub memory: &'a dyn Fn() -> Option<u64>,
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
            jobs: 1,
            env: &|_| None,
            memory: &|| None,
            ends_lost: false,
        }
    }
}

/// The nodes at the two sides of a queue, each once, in the file's order.
#[derive(Debug, Default, Clone)]
pub(super) struct Ends {
    pub(super) writers: Vec<NodeId>,
    pub(super) readers: Vec<NodeId>,
}

/// The parts of a plan before they are grouped. Claims go by [`NodeId`].
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
    let resources = claims::resources(&spec.run.resources, &mut problems);
    let (mut processes, matrices) = matrix::expand(pools::nodes(&mut spec), &mut problems);
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
        let mut found = Found::new(&mut problems, &mut values);
        pipeline_env(
            &mut spec,
            (&processes, &matrices),
            &params,
            &dir,
            overrides,
            &mut dotenv,
            &mut found,
        )
    };
    secrets.extend(env.secrets().map(str::to_owned));
    let skip = names_of_skip(&processes, &matrices, overrides, &mut problems);
    let keep = select::chosen(&processes, &matrices, overrides, &mut problems);

    let mut queues = ends::Queues::default();
    let mut value_uses = Vec::new();
    let mut draft = {
        let mut found = Found::new(&mut problems, &mut values);
        let mut nodes = Nodes {
            env: &env,
            params: &params,
            inherited: overrides.env,
            dir: &dir,
            jobs: overrides.jobs.max(1),
            resources: &resources,
            defaults: &spec.defaults,
            queues: &mut queues,
            dotenv: &mut dotenv,
            secrets: &mut secrets,
            matrices: &matrices,
            waits: 0,
        };
        nodes.build(&mut processes, &skip, &mut found, &mut value_uses)
    };
    let ends = ends_of(&draft, &queues, &spec.queue);
    let (stored, implied) = stored::decide(&mut draft.nodes, &ends);
    draft.queues = finish_queues(&queues, &spec.queue, &stored);
    let copies = deliver::decide(&mut draft, &queues, &|name| {
        spec.queue.get(name).and_then(|said| said.deliver.clone())
    });
    let mut graph = graph_of(&draft, &copies);
    let closes = checks::close_circles(&mut graph, &draft.queues);
    let words = Names {
        nodes: &draft.nodes,
        units: &draft.units,
        queues: &queues,
        implied: &implied,
    };
    if !overrides.ends_lost {
        checks::queues(&queues, &spec.queue, &words, &mut problems);
        uses::check(&draft, &spec.queue, &words, &mut problems);
    }
    let joined = match graph.arrange() {
        Ok(arrangement) => arrangement.group_of,
        Err(stuck) => {
            cycles::explain(&graph, &stuck.joined, &words, &mut problems);
            stuck.joined
        }
    };
    claims::check(&draft, &joined, &resources, &mut problems);
    claims::check_memory(&draft, &joined, overrides.memory, &mut problems);
    services::check_circles(&draft.nodes, &joined, &mut problems);
    let mut order = checks::Order::new(&draft.nodes, &joined);
    if !overrides.ends_lost {
        checks::values(&draft, &value_uses, &mut order, &mut problems);
    }
    checks::files(&draft, &origin.dir, &mut order, &mut problems);
    checks::standard_input(&draft, &mut order, &mut problems);
    if draft.nodes.is_empty() {
        problems.push(
            Diagnostic::warning(Mark::Key(Place::default()), "there is no process to run")
                .help("add one: `[process.hello]` with `command = [\"echo\", \"hello\"]`; `procflow init` writes an example"),
        );
    }
    checks::lonely(&draft, &mut problems);
    if spec.run.jobserver != Some(JobserverStyle::None) {
        claims::note_own_jobs(&draft, &mut problems);
    }
    let meets = graph.meets_again();
    // As they stand in quotes, and on a screen, they are secrets too.
    let written = |secret: &String| {
        let quoted = format!("{secret:?}");
        let bare = quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"'));
        [
            bare.unwrap_or_default().to_owned(),
            secret.escape_debug().to_string(),
            harmless(secret),
        ]
    };
    secrets.extend(secrets.iter().flat_map(written).collect::<Vec<_>>());
    secrets.sort_unstable();
    secrets.dedup();
    problems.hide(&secrets);
    if problems.fatal() {
        return (None, problems.0);
    }
    let spills = checks::spilling(&graph, &meets, &draft.queues, &spec.queue);
    checks::note_spilling(&graph, &joined, &spills, &words, &mut problems);
    checks::note_stored(&stored, &words, &mut problems);
    services::warn_idle(&draft, &mut problems);
    checks::warn_endless(&graph, &draft, &closes, &mut problems);
    checks::warn_blocking(&meets, &queues, &spec.queue, &closes, &mut problems);
    mark_spilling(&mut draft.queues, &spills, &copies);
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
        jobserver: spec.run.jobserver.unwrap_or_default(),
        resources,
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
    (nodes, matrices): (&IndexMap<String, Process>, &matrix::Matrices),
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
        nodes,
        matrices,
        matrix: None,
        own_env: &[],
        ends: None,
        of: Of::Process,
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
            nodes,
            matrices,
            matrix: None,
            own_env: &[],
            ends: None,
            of: Of::Process,
        };
        let value = template::parse(text.clone(), &scope, &site, found);
        let secret = found.secret.get();
        if environment::is_taken(name, &scope, &site, found.problems) {
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
    matrices: &matrix::Matrices,
    overrides: &Overrides<'_>,
    problems: &mut Problems,
) -> Vec<bool> {
    let mut skip = vec![false; processes.len()];
    for name in &overrides.skip {
        match matrices.find(processes, name) {
            Some(nodes) => nodes.iter().for_each(|node| skip[node.index()] = true),
            None => {
                let problem = error(format!("--skip {name}: no node `{name}`"));
                matrices.push_unknown(problem, processes, name, None, problems);
            }
        }
    }
    skip
}

/// Builds nodes and their units, one after the other, and takes each process apart while it does.
pub(super) struct Nodes<'a> {
    env: &'a Environment,
    params: &'a params::Params,
    inherited: &'a dyn Fn(&str) -> Option<String>,
    dir: &'a str,
    /// Job slots of the run.
    pub(super) jobs: u32,
    resources: &'a [Resource],
    pub(super) defaults: &'a spec::Defaults,
    queues: &'a mut ends::Queues,
    dotenv: &'a mut Dotenv<'a>,
    secrets: &'a mut Vec<String>,
    matrices: &'a matrix::Matrices,
    /// Waits of nodes for nodes so far, where a name stands for several.
    waits: usize,
}

impl<'a> Nodes<'a> {
    fn build(
        &mut self,
        processes: &mut IndexMap<String, Process>,
        skip: &[bool],
        found: &mut Found<'_>,
        uses: &mut Vec<ValueUse>,
    ) -> Draft {
        let count = processes.len();
        let is_service: Vec<bool> = processes.values().map(|p| p.service.is_some()).collect();
        let mut draft = Draft {
            nodes: Vec::with_capacity(count),
            units: Vec::with_capacity(count),
            claims: Vec::with_capacity(count),
            queues: Vec::new(),
        };
        // The names of all nodes stay in `processes`; what they say is taken out one by one, so that nothing is there twice.
        let scope = self.scope(processes);
        let written = ends::written(processes, self.jobs, &scope);
        let settings = settings::Builder::new(self.defaults, &scope, found);
        let mut shared = Shared {
            written: &written,
            default_ends: &ends::default_ends(),
            settings,
        };
        // Problems from this one on are of the node's matrix.
        let mut before = 0;
        for (index, &skip) in skip.iter().enumerate() {
            let Some((_, process)) = processes.get_index_mut(index) else {
                break;
            };
            let mut process = std::mem::take(process);
            let processes = &*processes;
            let Some((name, _)) = processes.get_index(index) else {
                break;
            };
            let combination = self.matrices.of(index);
            let base = combination.map_or(name.as_str(), |own| &own.base);
            let so_far = found.problems.0.len();
            if index == 0
                || self
                    .matrices
                    .of(index - 1)
                    .is_none_or(|last| *last.base != *base)
            {
                before = so_far;
            }
            let top = Site::top(match process.pool {
                Some(_) => "pool",
                None => "process",
            });
            let site = top.key(base);
            let node = NodeId::from(index);
            let declared = Declared {
                name,
                node,
                site: &site,
                scope: Scope {
                    matrix: combination,
                    ..self.scope(processes)
                },
            };
            let after = std::mem::take(&mut process.after);
            let when = process.when.take();
            let first = UnitId::from(draft.units.len());
            draft.claims.push(Claim {
                cpus: process.cpus,
                memory: process.memory.map_or(0, |size| size.0),
                resources: claims::of_node(
                    process.resources.as_deref(),
                    self.resources,
                    &site,
                    found.problems,
                ),
            });
            let name: Arc<str> = name.as_str().into();
            let mut common = Node {
                base: combination.map_or_else(|| Arc::clone(&name), |own| Arc::clone(&own.base)),
                name,
                matrix: combination.map_or_else(Vec::new, |own| own.values.clone()),
                units: first.0..first.0,
                after: Vec::new(),
                allow_failure: process
                    .allow_failure
                    .or(self.defaults.allow_failure)
                    .unwrap_or(false),
                pool: None,
                service: None,
                skip: skip.then_some(Skip::ByUser),
                asks: None,
                description: process.description.take().map(Into::into),
                tags: process.tags.drain(..).map(Into::into).collect(),
            };
            let service = services::decide(&mut process, &site, &declared.scope, found);
            common.pool = match pools::decide(&process, self, &site, &declared.scope, found) {
                None => {
                    let what = (first, Of::Process, Role::Process);
                    let (mut unit, _) =
                        self.unit(process, what, false, &declared, &mut shared, found);
                    if let Some((service, retry)) = service {
                        services::check_ends(&service, &unit, &site, found.problems);
                        unit.settings = services::settings(&unit.settings, retry);
                        common.service = Some(Arc::new(service));
                    }
                    draft.units.push(unit);
                    None
                }
                Some(mut pool) => {
                    let units = &mut draft.units;
                    self.pool(process, &mut pool, &declared, &mut shared, units, found);
                    Some(Arc::new(pool))
                }
            };
            common.units.end = UnitId::from(draft.units.len()).0;
            if let (Some(when), Some(unit)) = (when, draft.units.get(first.index())) {
                let answer = condition::decide(*when, unit, &site, &declared.scope, found);
                match answer {
                    _ if common.is_left_out() => {}
                    Answer::Yes => {}
                    Answer::No(unmet) => common.skip = Some(Skip::When(unmet)),
                    Answer::Ask(command) => common.asks = Some(command.into()),
                }
            }
            common.after = self.waits(&after, processes, &is_service, node, &site, found.problems);
            if before < so_far {
                found.problems.once(before, so_far);
            }
            draft.nodes.push(common);
            uses.extend(found.values.drain(..).map(|(value, place)| ValueUse {
                user: node,
                node: value,
                place,
            }));
        }
        draft
    }

    fn scope<'s>(&self, nodes: &'s IndexMap<String, Process>) -> Scope<'s>
    where
        'a: 's,
    {
        Scope {
            when: When::Process,
            params: self.params,
            env: self.env,
            inherited: self.inherited,
            dir: self.dir,
            nodes,
            matrices: self.matrices,
            matrix: None,
            own_env: &[],
            ends: None,
            of: Of::Process,
        }
    }

    /// `after`, by number.
    fn waits(
        &mut self,
        after: &[spec::After],
        processes: &IndexMap<String, Process>,
        is_service: &[bool],
        node: NodeId,
        site: &Site<'_>,
        problems: &mut Problems,
    ) -> Vec<After> {
        let mut waits = Vec::with_capacity(after.len());
        let own = self.matrices.of(node.index()).map(|own| &own.base);
        for (i, wait) in after.iter().enumerate() {
            let mark = || site.key("after").index(i).mark_value();
            let Some(nodes) = self.matrices.find(processes, &wait.node) else {
                let name = &wait.node;
                let problem = Diagnostic::error(mark(), format!("no node `{name}`"));
                let is_queue = self.queues.0.contains_key(name.as_str());
                let hint = is_queue
                    .then(|| format!("`{name}` is a queue: wait for a node that writes it"));
                self.matrices
                    .push_unknown(problem, processes, name, hint, problems);
                continue;
            };
            let base = |node: &NodeId| self.matrices.of(node.index()).map(|other| &other.base);
            if let (Some(own), Some(_)) = (own, nodes.iter().find(|node| base(node) == own)) {
                problems.push(
                    Diagnostic::error(
                        mark(),
                        format!("`{own}` waits for itself: all of its combinations would"),
                    )
                    .help("drop it from `after`; what comes first is a process of its own"),
                );
                continue;
            }
            if nodes.len() > 1 {
                self.waits += nodes.len();
                // Told once, at the first that is one too many.
                if self.waits > MOST_WAITS {
                    if self.waits - nodes.len() <= MOST_WAITS {
                        problems.push(
                            Diagnostic::error(
                                mark(),
                                format!("more than {MOST_WAITS} waits of one combination for another"),
                            )
                            .help(format!(
                                "let a process wait for `{}`, `command = [\"true\"]`, and this one for that",
                                wait.node
                            )),
                        );
                    }
                    continue;
                }
            }
            // All of a matrix are services, or none is.
            let serves = nodes.first().is_some_and(|node| is_service[node.index()]);
            let default = match serves {
                true => AfterState::Ready,
                false => AfterState::Succeeded,
            };
            let state = wait.state.unwrap_or(default);
            if state == AfterState::Ready && !serves {
                problems.push(services::never_ready(
                    &wait.node,
                    site.key("after").index(i).key("state").mark_value(),
                ));
            }
            waits.extend(nodes.into_iter().map(|node| After { node, state }));
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
        let before = problems.0.len();
        for pair in waits.windows(2) {
            if pair[0].node == pair[1].node && contradicts(pair[0].state, pair[1].state) {
                let index = pair[0].node.index();
                let name = processes
                    .get_index(index)
                    .map_or("", |(name, _)| name.as_str());
                let name = self.matrices.of(index).map_or(name, |of| &of.base);
                let first = problems.0.len();
                problems.push(
                    Diagnostic::error(
                        site.key("after").mark_value(),
                        format!("it waits for both the success and the failure of `{name}`"),
                    )
                    .help(format!(
                        "for either of them say `{{ node = \"{name}\", state = \"finished\" }}`"
                    )),
                );
                problems.once(before, first);
            }
        }
        waits
    }

    /// The units of a pool.
    fn pool(
        &mut self,
        process: Process,
        pool: &mut Pool,
        declared: &Declared<'_>,
        shared: &mut Shared<'_>,
        units: &mut Vec<Unit>,
        found: &mut Found<'_>,
    ) {
        if pool.feed == Feed::Stream {
            return self.workers(process, pool.workers, declared, shared, units, found);
        }
        let is_script = process.script.is_some();
        let what = (UnitId::from(units.len()), pools::of(pool), Role::Pool);
        let (mut unit, _) = self.unit(process, what, false, declared, shared, found);
        // The pool tries its records again, and itself once.
        unit.settings = Arc::new(Settings {
            retry: settings::retry(None),
            ..(*unit.settings).clone()
        });
        let mentioned = unit.argv.iter().any(|arg| match arg {
            Arg::One(template) => template.names_task(),
            Arg::EachTask => true,
            Arg::EachInput(_) => false,
        });
        pool.record_on_stdin = pool.feed == Feed::Task && (is_script || !mentioned);
        units.push(unit);
    }

    /// The workers of a `stream` pool, and who puts what they write to files together.
    fn workers(
        &mut self,
        process: Process,
        workers: u32,
        declared: &Declared<'_>,
        shared: &mut Shared<'_>,
        units: &mut Vec<Unit>,
        found: &mut Found<'_>,
    ) {
        let first = units.len();
        let before = found.problems.0.len();
        let mut gathered = Vec::new();
        for worker in 0..workers {
            let so_far = found.problems.0.len();
            let what = (
                UnitId::from(units.len()),
                Of::Worker(worker),
                Role::Worker(worker),
            );
            let (mut unit, files) =
                self.unit(process.clone(), what, workers > 1, declared, shared, found);
            if worker == 0 {
                gathered = files;
            } else {
                // What was told of one worker holds for all.
                if before < so_far {
                    found.problems.once(before, so_far);
                }
                found.values.sort();
                found.values.dedup();
                if units[first].ends == unit.ends {
                    unit.ends = Arc::clone(&units[first].ends);
                }
            }
            units.push(unit);
        }
        for files in gathered {
            let id = UnitId::from(units.len());
            units.push(Unit {
                node: declared.node,
                group: GroupId(0),
                role: Role::Gather,
                argv: Vec::new(),
                env: Vec::new(),
                settings: Arc::clone(&units[first].settings),
                ends: files.ends(id, self.queues),
                reads: Vec::new(),
                writes: Vec::new(),
            });
        }
    }

    /// One unit, and what it writes to files together with others: with its `siblings`, where it is one of several workers.
    fn unit(
        &mut self,
        mut process: Process,
        (id, of, role): (UnitId, Of, Role),
        siblings: bool,
        declared: &Declared<'_>,
        shared: &mut Shared<'_>,
        found: &mut Found<'_>,
    ) -> (Unit, Vec<ends::Gathered>) {
        let site = declared.site;
        let scope = Scope {
            of,
            ..declared.scope
        };
        let said = ends::Said::take(&mut process);
        let mut builder = ends::Builder {
            scope,
            node: declared.node.index(),
            queues: self.queues,
            written: shared.written,
            default: shared.default_ends,
            shares: siblings.then_some(declared.name),
            gathered: Vec::new(),
        };
        let ends = builder.build(id, said, site, found);
        let gathered = builder.gathered;
        let scope = Scope {
            ends: Some(&ends),
            ..scope
        };
        let env = environment::of_node(
            std::mem::take(&mut process.env_file.0),
            process.env.take(),
            site,
            &scope,
            self.dotenv,
            found,
            self.secrets,
        );
        let scope = Scope {
            own_env: &env,
            ..scope
        };
        let argv = argv(&mut process, self.defaults, site, &scope, &ends, found);
        let settings = shared.settings.build(&mut process, site, &scope, found);
        let mut globs = |patterns: &mut spec::values::OneOrMany, key| {
            globs(std::mem::take(&mut patterns.0), key, site, &scope, found)
        };
        let reads = globs(&mut process.reads, "reads");
        let writes = globs(&mut process.writes, "writes");
        let unit = Unit {
            node: declared.node,
            group: GroupId(0),
            role,
            argv,
            env,
            settings,
            ends,
            reads,
            writes,
        };
        (unit, gathered)
    }
}

/// A node while its units are made.
struct Declared<'a> {
    name: &'a str,
    node: NodeId,
    site: &'a Site<'a>,
    scope: Scope<'a>,
}

/// What all nodes have together.
struct Shared<'a> {
    written: &'a IndexMap<String, Vec<usize>>,
    default_ends: &'a Arc<crate::plan::Ends>,
    settings: settings::Builder<'a>,
}

/// `command` or `script` as arguments.
fn argv(
    process: &mut Process,
    defaults: &spec::Defaults,
    node: &Site<'_>,
    scope: &Scope<'_>,
    ends: &crate::plan::Ends,
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
    ends: &crate::plan::Ends,
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
        let batch = matches!(scope.of, Of::Task { batch: true, .. });
        argv.push(match each {
            Some(input) => Arg::EachInput(input),
            None if batch && template::is_sole_task(&element) => Arg::EachTask,
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

/// The nodes at the ends of each queue, and what is said of it.
fn ends_of(
    draft: &Draft,
    queues: &ends::Queues,
    said: &IndexMap<String, spec::Queue>,
) -> Vec<(Ends, stored::Said)> {
    let nodes = |ends: &[ends::End]| -> Vec<NodeId> {
        let units = ends.iter().map(|end| end.unit);
        once(units.map(|unit| draft.units[unit.index()].node))
    };
    let said_of = |name: &str, internal: bool| {
        let said = said.get(name).filter(|_| !internal);
        stored::Said {
            store: match said {
                _ if internal => Some(false),
                // A queue that leads back has no reader that could come after all its writers.
                Some(said) if said.feedback == Some(true) => said.store.or(Some(false)),
                said => said.and_then(|said| said.store),
            },
            on_writer_failure: said
                .and_then(|said| said.on_writer_failure)
                .unwrap_or_default(),
        }
    };
    queues
        .0
        .iter()
        .map(|(name, draft)| {
            let ends = Ends {
                writers: nodes(&draft.writers),
                readers: nodes(&draft.readers),
            };
            (ends, said_of(name, draft.internal))
        })
        .collect()
}

/// Each once. Units of a node stand together, so what is equal does, too.
fn once(nodes: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = nodes.collect();
    nodes.dedup();
    nodes
}

/// Queues with their settings. What they deliver, and whether they spill, follows when the graph is known.
fn finish_queues(
    queues: &ends::Queues,
    said: &IndexMap<String, spec::Queue>,
    stored: &[Option<stored::Why>],
) -> Vec<Queue> {
    const CAPACITY: u64 = 256 << 10;
    let unsaid = spec::Queue::default();
    queues
        .0
        .iter()
        .zip(stored)
        .map(|((name, draft), stored)| {
            let said = said.get(&**name).unwrap_or(&unsaid);
            let records = said.records.clone().unwrap_or_default();
            let feedback = said.feedback == Some(true);
            let overflow = match said.overflow {
                Some(spec::Overflow::Block) => Overflow::Block,
                Some(spec::Overflow::Spill) => Overflow::Spill,
                Some(spec::Overflow::DropNewest) => Overflow::DropNewest,
                Some(spec::Overflow::DropOldest) => Overflow::DropOldest,
                None if feedback => Overflow::Spill,
                None => Overflow::Block,
            };
            let mut queue = Queue {
                name: Arc::clone(name),
                file: draft.file.clone(),
                writers: draft.writers.iter().map(|end| end.unit).collect(),
                readers: draft.readers.iter().map(|end| end.unit).collect(),
                kind: QueueKind::Stored,
                records,
                max_record: said.max_record.map(|size| size.0),
                capacity: said.capacity.map_or(CAPACITY, |size| size.0),
                max_records: said.max_records,
                overflow,
                deliver: Deliver::default(),
                header: said.header.unwrap_or(0),
                merge: said.merge.unwrap_or_default(),
                on_writer_failure: said.on_writer_failure.unwrap_or_default(),
                feedback,
            };
            if stored.is_none() {
                queue.kind = live_kind(&queue);
            }
            queue
        })
        .collect()
}

/// How a queue that is not stored is carried.
pub(super) fn live_kind(queue: &Queue) -> QueueKind {
    // What was asked for can be seen only by looking at the data.
    let looked_at = queue.max_record.is_some() && queue.records != spec::Records::Bytes
        || matches!(
            queue.records,
            spec::Records::Length32 | spec::Records::Size(_)
        )
        || queue.max_records.is_some();
    let lone = queue.writers.len() == 1 && queue.readers.len() == 1;
    if lone && !looked_at && queue.overflow == Overflow::Block {
        QueueKind::Direct
    } else {
        QueueKind::Relayed
    }
}

fn mark_spilling(queues: &mut [Queue], spills: &[bool], copies: &[(QueueId, QueueId)]) {
    let spill = |queue: &mut Queue| {
        queue.overflow = Overflow::Spill;
        queue.kind = live_kind(queue);
    };
    for (queue, _) in queues.iter_mut().zip(spills).filter(|(_, spills)| **spills) {
        spill(queue);
    }
    for &(copy, of) in copies {
        if spills.get(of.index()) == Some(&true) {
            spill(&mut queues[copy.index()]);
        }
    }
}

/// `(a, b)` for each node b that waits for a.
pub(super) fn waits_of(nodes: &[Node]) -> Vec<(u32, u32)> {
    (0u32..)
        .zip(nodes)
        .flat_map(|(waiting, node)| node.after.iter().map(move |wait| (wait.node.0, waiting)))
        .collect()
}

/// The numbers alone. What is within one node, a copy for a pool, and what is stored joins nobody.
fn graph_of(draft: &Draft, copies: &[(QueueId, QueueId)]) -> Graph {
    let numbers = |units: &[UnitId]| -> Vec<u32> {
        let nodes = units.iter().map(|unit| draft.units[unit.index()].node);
        once(nodes).into_iter().map(|node| node.0).collect()
    };
    let own = |queue: &Queue| {
        let writers = numbers(&queue.writers);
        queue.file.is_some()
            || writers.len() == 1 && writers == numbers(&queue.readers) && queue.is_internal()
    };
    let mut queues: Vec<Joint> = draft
        .queues
        .iter()
        .map(|queue| match queue.kind {
            // Its writers write one file together; its readers come later.
            QueueKind::Stored => Joint {
                writers: numbers(&queue.writers),
                ..Joint::default()
            },
            _ if own(queue) => Joint::default(),
            QueueKind::Direct | QueueKind::Relayed => Joint {
                writers: numbers(&queue.writers),
                readers: numbers(&queue.readers),
                back: Vec::new(),
            },
        })
        .collect();
    for &(copy, of) in copies {
        let copy = std::mem::take(&mut queues[copy.index()]);
        let of = &mut queues[of.index()].readers;
        of.extend(copy.readers);
        of.sort_unstable();
    }
    Graph {
        nodes: draft.nodes.len(),
        waits: waits_of(&draft.nodes),
        queues,
        several: stiff::ends(draft),
    }
}

/// Puts the parts together, in groups.
fn grouped(mut plan: Plan, draft: Draft) -> Plan {
    let copies = Vec::new();
    let mut graph = graph_of(&draft, &copies);
    checks::close_circles(&mut graph, &draft.queues);
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
    for unit in &mut units {
        unit.group = GroupId(group_of[unit.node.index()]);
    }
    plan.groups = groups
        .into_iter()
        .map(|members| group(&members, &nodes, &claims))
        .collect();
    for (index, queue) in queues.iter().enumerate() {
        let mut ends = queue.writers.iter().chain(&queue.readers);
        if let Some(end) = ends.next() {
            plan.groups[units[end.index()].group.index()]
                .queues
                .push(QueueId::from(index));
        }
    }
    plan.nodes = nodes;
    plan.units = units;
    plan.queues = queues;
    plan
}

/// A group of these nodes.
fn group(members: &[u32], nodes: &[Node], claims: &[Claim]) -> Group {
    let indices = members.iter().map(|&member| member as usize);
    let sum = claims::sum(indices.map(|at| (&nodes[at], &claims[at])));
    Group {
        slots: sum.slots,
        memory: sum.memory,
        resources: sum.resources,
        units: members
            .iter()
            .flat_map(|&member| nodes[member as usize].units.clone())
            .map(UnitId)
            .collect(),
        queues: Vec::new(),
    }
}

/// Names and places of what the graph knows by number.
pub(super) struct Names<'a> {
    pub(super) nodes: &'a [Node],
    pub(super) units: &'a [Unit],
    pub(super) queues: &'a ends::Queues,
    pub(super) implied: &'a Implied,
}

impl Names<'_> {
    /// The node that an end belongs to.
    pub(super) fn node_of(&self, end: &ends::End) -> &Node {
        &self.nodes[self.units[end.unit.index()].node.index()]
    }

    /// The place of an end.
    pub(super) fn mark(&self, end: &ends::End) -> Mark {
        end.mark(self.node_of(end))
    }
}

impl cycles::Words for Names<'_> {
    fn node(&self, node: u32) -> &str {
        &self.nodes[node as usize].name
    }

    fn queue(&self, queue: usize) -> &str {
        self.queues.0.get_index(queue).map_or("", |(name, _)| name)
    }

    fn end(&self, queue: usize, node: u32, reads: bool) -> Mark {
        let draft = self.queues.0.get_index(queue).map(|(_, draft)| draft);
        let ends = draft.map_or(&[][..], |draft| {
            if reads {
                &draft.readers
            } else {
                &draft.writers
            }
        });
        let of_node = |end: &&ends::End| self.units[end.unit.index()].node.0 == node;
        match ends.iter().find(of_node) {
            Some(end) => self.mark(end),
            None => Mark::Key(self.nodes[node as usize].place()),
        }
    }

    fn wait(&self, node: u32, before: u32) -> Mark {
        match self.implied.by(NodeId(node), NodeId(before)) {
            Some(queue) => self.end(queue, node, true),
            None => Mark::Value(self.nodes[node as usize].place().key("after")),
        }
    }

    fn stored(&self, node: u32, before: u32) -> Option<&str> {
        let queue = self.implied.by(NodeId(node), NodeId(before))?;
        Some(self.queue(queue))
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
