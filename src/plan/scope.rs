//! What `${{ NAME }}` may name at a place of the file, and what it is there.

use std::cell::Cell;
use std::fmt::Write as _;

use indexmap::IndexMap;

use crate::diagnostic::{Diagnostic, Place, did_you_mean};
use crate::plan::ends::LAST_DESCRIPTOR;
use crate::plan::environment::Environment;
use crate::plan::matrix::{self, Combination, Matrices};
use crate::plan::params::Params;
use crate::plan::problems::{self, Problems, Site, is_name};
use crate::plan::template::{Builder, Part, Template};
use crate::plan::{DEAD_LETTER, Ends, NodeId};
use crate::spec::Process;

/// When a string is needed, which says what it may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// While planning: `workers`, `env_file`, `[env]`.
    Plan,
    /// The same, for the name of a queue, which has letters, digits, `_` and `-` only.
    Name,
    /// By procflow before it starts the process: paths. `/dev/fd/N` would be procflow's own descriptor there.
    Start,
    /// The same, for each process of a pool anew: `cwd`.
    Cwd,
    /// In the process: `command` and its `env`.
    Process,
}

/// Whose strings these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// A process's, or the pipeline's.
    Process,
    /// This worker's, of a pool fed by `stream`: it is there from the start to the end.
    Worker(u32),
    /// Those of any worker of a pool fed by `request`.
    Answerer,
    /// Those of any task of a pool.
    Task {
        /// How many fields each has at least.
        fields: u32,
        /// A process may get several.
        batch: bool,
    },
}

/// What a name can be looked up in.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) when: When,
    pub(super) params: &'a Params,
    pub(super) env: &'a Environment,
    pub(super) inherited: &'a dyn Fn(&str) -> Option<String>,
    pub(super) dir: &'a str,
    /// For their names alone; the processes may be taken out already.
    pub(super) nodes: &'a IndexMap<String, Process>,
    /// Which of them come from matrices.
    pub(super) matrices: &'a Matrices,
    /// The node's own combination.
    pub(super) matrix: Option<&'a Combination>,
    /// The node's own environment, as far as it is known here.
    pub(super) own_env: &'a [(String, Template)],
    /// The node's own ends.
    pub(super) ends: Option<&'a Ends>,
    /// Whose strings these are.
    pub(super) of: Of,
}

/// What came to light while templates were read.
pub(super) struct Found<'a> {
    pub(super) problems: &'a mut Problems,
    /// Every `value.NODE`, with the place that names it.
    pub(super) values: &'a mut Vec<(NodeId, Place)>,
    /// A secret has been put in since this was last set to false.
    pub(super) secret: Cell<bool>,
    /// The number of a worker has been put in since this was last set to false.
    pub(super) worker: Cell<bool>,
    /// A value of a matrix has been put in since this was last set to false.
    pub(super) matrix: Cell<bool>,
}

impl<'a> Found<'a> {
    pub(super) fn new(problems: &'a mut Problems, values: &'a mut Vec<(NodeId, Place)>) -> Self {
        Found {
            problems,
            values,
            secret: Cell::new(false),
            worker: Cell::new(false),
            matrix: Cell::new(false),
        }
    }
}

/// All that may stand before the first dot.
const ROOTS: [&str; 11] = [
    "params",
    "env",
    "matrix",
    "in",
    "out",
    "value",
    "run.id",
    "pipeline.dir",
    "task",
    "task.index",
    "worker",
];

impl Scope<'_> {
    /// The same at another time.
    pub(super) fn at(&self, when: When) -> Self {
        Scope { when, ..*self }
    }

    /// How a template says what a shell would put in for `$NAME`; none where that is nothing.
    pub(super) fn stands_for(&self, variable: &str) -> Option<String> {
        let param = self.params.keys().find(|param| {
            variable.strip_prefix("PARAM_") == Some(problems::variable(param).as_str())
        });
        match param {
            Some(param) => Some(format!("params.{param}")),
            None => (self.own_env.iter().any(|(name, _)| name == variable)
                || self.env.get(variable).is_some()
                || (self.inherited)(variable).is_some())
            .then(|| format!("env.{variable}")),
        }
    }

    /// Puts what `name` stands for into the template, or says why it can't.
    pub(super) fn put(
        &self,
        name: &str,
        site: &Site<'_>,
        into: &mut Builder,
        found: &mut Found<'_>,
    ) {
        match name.split_once('.') {
            Some(("params", param)) => self.put_param(param, site, into, found),
            Some(("env", variable)) => self.put_env(variable, site, into, found),
            Some(("matrix", axis)) => self.put_matrix(axis, site, into, found),
            Some(("in", end)) => self.put_end(end, Side::In, site, into, found),
            Some(("out", end)) => self.put_end(end, Side::Out, site, into, found),
            Some(("value", node)) => self.put_value(node, site, into, found),
            Some(("run", "id")) => match self.when {
                When::Plan | When::Name => found.problems.push(too_early(name, site)),
                When::Start | When::Cwd | When::Process => into.part(Part::RunId),
            },
            Some(("pipeline", "dir")) => into.text(self.dir),
            Some(("task", field)) => self.put_task(name, Some(field), site, into, found),
            None if name == "task" => self.put_task(name, None, site, into, found),
            None if name == "worker" => self.put_worker(site, into, found),
            _ => found.problems.push(unknown(name, site)),
        }
    }

    fn put_param(&self, param: &str, site: &Site<'_>, into: &mut Builder, found: &mut Found<'_>) {
        match self.params.get(param) {
            Some(known) => {
                into.text(&known.value);
                found.secret.set(found.secret.get() || known.secret);
            }
            None => {
                let names: Vec<String> = self
                    .params
                    .keys()
                    .map(|name| format!("params.{name}"))
                    .collect();
                let problem =
                    Diagnostic::error(site.mark_value(), format!("no parameter `{param}`"));
                let help =
                    is_name(param).then(|| format!("say `{param} = \"default\"` under `[params]`"));
                let word = format!("params.{param}");
                found
                    .problems
                    .push_unknown(problem, &word, names.iter().map(String::as_str), help);
            }
        }
    }

    fn put_env(&self, variable: &str, site: &Site<'_>, into: &mut Builder, found: &mut Found<'_>) {
        // The node's own first: it is the environment that the process will see.
        if let Some((_, own)) = self.own_env.iter().rev().find(|(name, _)| name == variable) {
            into.template(own);
        } else if let Some(known) = self.env.get(variable) {
            into.text(&known.value);
            found.secret.set(found.secret.get() || known.secret);
        } else if let Some(inherited) = (self.inherited)(variable) {
            into.text(&inherited);
        } else {
            let problem = Diagnostic::error(
                site.mark_value(),
                format!("environment variable `{variable}` is not set"),
            );
            let known = self
                .env
                .names()
                .chain(self.own_env.iter().map(|(name, _)| name.as_str()));
            let help = format!(
                "set it before procflow starts, or say `{variable} = \"...\"` under `[env]`"
            );
            found
                .problems
                .push_unknown(problem, variable, known, Some(help));
        }
    }

    fn put_end(
        &self,
        end: &str,
        side: Side,
        site: &Site<'_>,
        into: &mut Builder,
        found: &mut Found<'_>,
    ) {
        let (word, key) = match side {
            Side::In => ("in", "inputs"),
            Side::Out => ("out", "outputs"),
        };
        let Some(ends) = self.ends.filter(|_| self.when == When::Process) else {
            found.problems.push(
                Diagnostic::error(
                    site.mark_value(),
                    format!("`{word}.{end}` means nothing here"),
                )
                .help(format!(
                    "`{word}.X` names a descriptor inside the process: use it in `command` or `env`"
                )),
            );
            return;
        };
        let names: Vec<(&str, usize)> = match side {
            Side::In => ends
                .inputs
                .iter()
                .map(|input| (&*input.name, input.from.len()))
                .collect(),
            Side::Out => ends
                .outputs
                .iter()
                // That one is the pool's, and no descriptor of a process.
                .filter(|output| &*output.name != DEAD_LETTER || output.fd <= LAST_DESCRIPTOR)
                .map(|output| (&*output.name, 1))
                .collect(),
        };
        match names.iter().find(|(name, _)| *name == end) {
            Some((_, 1)) => into.part(match side {
                Side::In => Part::In(end.into()),
                Side::Out => Part::Out(end.into()),
            }),
            Some((_, several)) => found.problems.push(
                Diagnostic::error(site.mark_value(), format!("`{word}.{end}` are {several} descriptors, which one string can't hold"))
                    .help(format!("make `${{{{ {word}.{end} }}}}` an element of `command` of its own: it becomes {several} arguments")),
            ),
            None => {
                let problem = Diagnostic::error(site.mark_value(), format!("this node has no `{end}` in `{key}`"));
                let help = format!("add it: `{key} = {{ {end} = \"QUEUE\" }}`");
                found.problems.push_unknown(problem, end, names.iter().map(|(name, _)| *name), Some(help));
            }
        }
    }

    fn put_value(&self, node: &str, site: &Site<'_>, into: &mut Builder, found: &mut Found<'_>) {
        let nodes = self.matrices.find(self.nodes, node);
        let Some(nodes) = nodes.filter(|nodes| !nodes.is_empty()) else {
            let problem = Diagnostic::error(site.mark_value(), format!("no node `{node}`"));
            self.matrices
                .push_unknown(problem, self.nodes, node, None, found.problems);
            return;
        };
        let &[index] = nodes.as_slice() else {
            let first = nodes
                .first()
                .and_then(|first| self.nodes.get_index(first.index()));
            let problem = Diagnostic::error(
                site.mark_value(),
                format!(
                    "`{node}` stands for {} nodes, which have a value each",
                    nodes.len()
                ),
            );
            found.problems.push(match first {
                Some((name, _)) => {
                    problem.help(format!("name one of them: `${{{{ value.{name} }}}}`"))
                }
                None => problem,
            });
            return;
        };
        match self.when {
            When::Plan | When::Name => found
                .problems
                .push(too_early(&format!("value.{node}"), site)),
            When::Start | When::Cwd | When::Process => {
                found.values.push((index, site.place()));
                into.part(Part::Value(index));
            }
        }
    }
}

/// What only a node with a matrix has.
impl Scope<'_> {
    fn put_matrix(&self, axis: &str, site: &Site<'_>, into: &mut Builder, found: &mut Found<'_>) {
        let Some(own) = self.matrix else {
            found.problems.push(
                Diagnostic::error(
                    site.mark_value(),
                    format!("`matrix.{axis}` means nothing here"),
                )
                .help("only a process or pool with a `matrix` has values of it, for each of its combinations"),
            );
            return;
        };
        if let Some((_, value)) = own.values.iter().find(|(known, _)| **known == *axis) {
            found.matrix.set(true);
            return match self.when {
                When::Name => into.text(&matrix::in_queue_name(value)),
                When::Plan | When::Start | When::Cwd | When::Process => into.text(value),
            };
        }
        let mut others = self.matrices.nodes_of(&own.base).into_iter().flatten();
        let elsewhere = others.any(|node| {
            let other = self.matrices.of(node);
            other.is_some_and(|other| other.values.iter().any(|(known, _)| **known == *axis))
        });
        if elsewhere {
            found.problems.push(
                Diagnostic::error(
                    site.mark_value(),
                    format!("not every combination has `{axis}`: only some of `include` say it"),
                )
                .help(format!(
                    "let `include` say it for all, `include = [{{ {axis} = \"\" }}, ...]` first; in a script the variable `MATRIX_{}` may be unset",
                    problems::variable(axis)
                )),
            );
            return;
        }
        let names: Vec<String> = own
            .values
            .iter()
            .map(|(known, _)| format!("matrix.{known}"))
            .collect();
        let names = || names.iter().map(String::as_str);
        found.problems.push_unknown(
            Diagnostic::error(
                site.mark_value(),
                format!("the matrix has no axis `{axis}`"),
            ),
            &format!("matrix.{axis}"),
            names(),
            Some(format!("known are {}", problems::listed(names()))),
        );
    }
}

/// What only a pool has, and where in it.
impl Scope<'_> {
    /// Whether the workers that come and go are known here one by one.
    fn is_per_process(&self) -> bool {
        matches!(self.when, When::Cwd | When::Process)
    }

    fn put_worker(&self, site: &Site<'_>, into: &mut Builder, found: &mut Found<'_>) {
        match self.of {
            Of::Worker(worker) => {
                found.worker.set(true);
                into.text(&worker.to_string());
            }
            Of::Answerer | Of::Task { .. } if self.is_per_process() => into.part(Part::Worker),
            Of::Answerer | Of::Task { .. } => found.problems.push(of_the_whole("worker", site)),
            Of::Process => found.problems.push(only_in_pools("worker", site)),
        }
    }

    /// `task`, `task.index`, `task.0`.
    fn put_task(
        &self,
        name: &str,
        field: Option<&str>,
        site: &Site<'_>,
        into: &mut Builder,
        found: &mut Found<'_>,
    ) {
        let (fields, batch) = match self.of {
            Of::Task { fields, batch } => (fields, batch),
            Of::Process => return found.problems.push(only_in_pools(name, site)),
            Of::Worker(_) | Of::Answerer => {
                return found.problems.push(
                    Diagnostic::error(site.mark_value(), format!("`{name}` means nothing here"))
                        .help("the workers of this pool read their records from standard input; with `feed = \"task\"` there is a process for each"),
                );
            }
        };
        if !self.is_per_process() {
            return found.problems.push(of_the_whole(name, site));
        }
        let number = match field {
            Some("index") => return into.part(Part::TaskIndex),
            Some(field) => match field.parse::<u32>() {
                Ok(number) if number.to_string() == field => Some(number),
                _ => {
                    return found.problems.push(
                        Diagnostic::error(site.mark_value(), format!("unknown name `{name}`"))
                            .help("known of a task are task, task.0, task.1 and so on, and task.index"),
                    );
                }
            },
            None => None,
        };
        if batch {
            let each = "make `${{ task }}` an element of `command` of its own, which becomes an argument for each; or drop `batch`";
            return found.problems.push(
                Diagnostic::error(
                    site.mark_value(),
                    format!("`{name}` of a batch are several records, which one string can't hold"),
                )
                .help(each),
            );
        }
        match number {
            None => into.part(Part::Task),
            Some(number) if number < fields => into.part(Part::TaskField(number)),
            Some(_) => found.problems.push(
                Diagnostic::error(
                    site.mark_value(),
                    format!("there is no `{name}`: {}", match fields {
                        1 => "tasks have one field, `task.0`".to_owned(),
                        _ => format!("a task has {fields} fields, from `task.0`"),
                    }),
                )
                .help("fields are those of arrays, `tasks = [[\"a\", \"1\"]]`, or of lines with a separator, `tasks = { lines = \"list.txt\", separator = \"\\t\" }`"),
            ),
        }
    }
}

/// `task` and `worker` outside of a pool.
fn only_in_pools(name: &str, site: &Site<'_>) -> Diagnostic {
    Diagnostic::error(
        site.mark_value(),
        format!("`{name}` means something in a pool only"),
    )
    .help("a pool is `[pool.NAME]` instead of `[process.NAME]`")
}

/// `task` and `worker` in what all workers have together.
fn of_the_whole(name: &str, site: &Site<'_>) -> Diagnostic {
    Diagnostic::error(site.mark_value(), format!("`{name}` means nothing here")).help(
        "this belongs to the pool as a whole, whose workers come and go: use it in `command`, `env` or `cwd`",
    )
}

enum Side {
    In,
    Out,
}

fn too_early(name: &str, site: &Site<'_>) -> Diagnostic {
    Diagnostic::error(
        site.mark_value(),
        format!("`{name}` is known only when the pipeline runs, and this is needed before"),
    )
    .help("known before are `params.X` and `env.X`")
}

fn unknown(name: &str, site: &Site<'_>) -> Diagnostic {
    if name.is_empty() {
        return Diagnostic::error(site.mark_value(), "`${{ }}` names nothing")
            .help("write `$${{` where `${{` itself is meant");
    }
    let (root, rest) = name
        .split_once('.')
        .map_or((name, None), |(root, rest)| (root, Some(rest)));
    let problem = Diagnostic::error(site.mark_value(), format!("unknown name `{name}`"));
    let whole = did_you_mean(name, ROOTS);
    let by_root = did_you_mean(root, ROOTS);
    let mut help = String::new();
    match (whole, by_root, rest) {
        (Some(near), _, _) if near.contains('.') => {
            let _ = write!(help, "did you mean `{near}`?");
        }
        (_, Some(near), Some(rest)) if !near.contains('.') => {
            let _ = write!(help, "did you mean `{near}.{rest}`?");
        }
        _ => help.push_str(
            "known are params.X, env.X, matrix.X, in.X, out.X, value.NODE, run.id and pipeline.dir, and in pools task, task.N, task.index and worker",
        ),
    }
    problem.help(help)
}
