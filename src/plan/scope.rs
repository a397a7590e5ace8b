//! What `${{ NAME }}` may name at a place of the file, and what it is there.

use std::cell::Cell;
use std::fmt::Write as _;

use indexmap::IndexMap;

use crate::diagnostic::{Diagnostic, Place, did_you_mean};
use crate::plan::environment::Environment;
use crate::plan::params::Params;
use crate::plan::problems::{self, Problems, Site, is_name};
use crate::plan::template::{Builder, Part, Template};
use crate::plan::{Ends, NodeId};
use crate::spec::Process;

/// When a string is needed, which says what it may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// While planning: queue names, `env_file`, `[env]`.
    Plan,
    /// By procflow before it starts the process: paths, `cwd`. `/dev/fd/N` would be procflow's own descriptor there.
    Start,
    /// In the process: `command` and its `env`.
    Process,
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
    /// The node's own environment, as far as it is known here.
    pub(super) own_env: &'a [(String, Template)],
    /// The node's own ends.
    pub(super) ends: Option<&'a Ends>,
}

/// What came to light while templates were read.
pub(super) struct Found<'a> {
    pub(super) problems: &'a mut Problems,
    /// Every `value.NODE`, with the place that names it.
    pub(super) values: &'a mut Vec<(NodeId, Place)>,
    /// A secret has been put in since this was last set to false.
    pub(super) secret: Cell<bool>,
}

/// All that may stand before the first dot.
const ROOTS: [&str; 7] = [
    "params",
    "env",
    "in",
    "out",
    "value",
    "run.id",
    "pipeline.dir",
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
            Some(("in", end)) => self.put_end(end, Side::In, site, into, found),
            Some(("out", end)) => self.put_end(end, Side::Out, site, into, found),
            Some(("value", node)) => self.put_value(node, site, into, found),
            Some(("run", "id")) => match self.when {
                When::Plan => found.problems.push(too_early(name, site)),
                When::Start | When::Process => into.part(Part::RunId),
            },
            Some(("pipeline", "dir")) => into.text(self.dir),
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
        let Some(index) = self.nodes.get_index_of(node) else {
            let problem = Diagnostic::error(site.mark_value(), format!("no node `{node}`"));
            found
                .problems
                .push_unknown(problem, node, self.nodes.keys().map(String::as_str), None);
            return;
        };
        match self.when {
            When::Plan => found
                .problems
                .push(too_early(&format!("value.{node}"), site)),
            When::Start | When::Process => {
                found.values.push((NodeId::from(index), site.place()));
                into.part(Part::Value(NodeId::from(index)));
            }
        }
    }
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
    match root {
        "task" | "worker" | "matrix" => {
            return problem.help(format!(
                "`{root}` comes with pools and matrices, which this version does not have"
            ));
        }
        _ => {}
    }
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
            "known are params.X, env.X, in.X, out.X, value.NODE, run.id and pipeline.dir",
        ),
    }
    problem.help(help)
}
