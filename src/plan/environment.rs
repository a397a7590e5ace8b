//! What the pipeline adds to the environment: dotenv files, `[env]`, `PARAM_X`, `PIPELINE_DIR`. The inherited part and
//! what differs from node to node at run time (`IN_X`, `PROCFLOW_NODE`, ...) is added where processes are started.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use crate::diagnostic::Diagnostic;
use crate::plan::dotenv::{self, Wrong};
use crate::plan::problems::{Problems, Site, variable};
use crate::plan::scope::{Found, Of, Scope, When};
use crate::plan::template::{self, Template};

/// The pipeline's variables; the later has won. In order of first mention.
#[derive(Debug, Default)]
pub(super) struct Environment(IndexMap<String, Variable>);

/// A variable's value.
#[derive(Debug)]
pub(super) struct Variable {
    pub(super) value: String,
    /// A secret param is in it.
    pub(super) secret: bool,
}

impl Environment {
    pub(super) fn get(&self, name: &str) -> Option<&Variable> {
        self.0.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn set(&mut self, name: String, value: String, secret: bool) {
        self.0.insert(name, Variable { value, secret });
    }

    /// What came from secret params.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.0
            .values()
            .filter(|variable| variable.secret)
            .map(|variable| variable.value.as_str())
    }

    pub(super) fn into_vec(self) -> Vec<(String, String)> {
        self.0
            .into_iter()
            .map(|(name, variable)| (name, variable.value))
            .collect()
    }
}

/// Dotenv files read so far: 100,000 nodes may name the same one.
pub(super) struct Dotenv<'a> {
    dir: &'a Path,
    inherited: &'a dyn Fn(&str) -> Option<String>,
    files: HashMap<PathBuf, Arc<[(String, String)]>>,
}

impl<'a> Dotenv<'a> {
    pub(super) fn new(dir: &'a Path, inherited: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Dotenv {
            dir,
            inherited,
            files: HashMap::new(),
        }
    }

    /// The variables of a file, in its order. Empty where it can't be read or understood, which is then a problem.
    pub(super) fn read(
        &mut self,
        path: &str,
        site: &Site<'_>,
        problems: &mut Problems,
    ) -> Arc<[(String, String)]> {
        let path = self.dir.join(path);
        if let Some(known) = self.files.get(&path) {
            return Arc::clone(known);
        }
        let variables: Arc<[(String, String)]> = match std::fs::read_to_string(&path) {
            Ok(text) => parse_dotenv(&text, &path, self.inherited, site, problems).into(),
            Err(reason) => {
                problems.push(
                    Diagnostic::error(
                        site.mark_value(),
                        format!(
                            "cannot read env_file {}: {}",
                            path.display(),
                            crate::diagnostic::reason(&reason)
                        ),
                    )
                    .help(format!(
                        "relative paths start from the pipeline's directory, {}",
                        self.dir.display()
                    )),
                );
                Arc::new([])
            }
        };
        self.files.insert(path, Arc::clone(&variables));
        variables
    }
}

fn parse_dotenv(
    text: &str,
    path: &Path,
    inherited: &dyn Fn(&str) -> Option<String>,
    site: &Site<'_>,
    problems: &mut Problems,
) -> Vec<(String, String)> {
    let (mut variables, wrong) = dotenv::parse(text, inherited);
    for Wrong { line, name } in wrong {
        problems.push(
            Diagnostic::error(
                site.mark_value(),
                format!(
                    "{}:{line}: not a line of a dotenv file: `{name}...`",
                    path.display()
                ),
            )
            .help("lines are `NAME=value`; a value with spaces is quoted: `NAME=\"two words\"`"),
        );
    }
    variables.retain(|(name, value)| {
        let holds_nul = value.contains('\0');
        if holds_nul {
            problems.push(Diagnostic::error(
                site.mark_value(),
                format!("{}: variable `{name}` holds a NUL byte", path.display()),
            ));
        }
        !holds_nul
    });
    variables
}

/// Checks a variable's name.
pub(super) fn check_name(name: &str, site: &Site<'_>, problems: &mut Problems) {
    if name.is_empty() || name.contains(['=', '\0']) {
        problems.push(
            Diagnostic::error(
                site.mark_key(),
                format!(
                    "`{}` can't be the name of an environment variable",
                    name.escape_debug()
                ),
            )
            .help("it must not be empty or hold `=` or NUL"),
        );
    }
}

/// Whether procflow sets this variable itself, for every node: what the file says of it then counts for nothing.
fn is_procflows(name: &str, scope: &Scope<'_>) -> bool {
    let in_pools = match scope.of {
        Of::Process => false,
        Of::Worker(_) | Of::Answerer => name == "WORKER",
        Of::Task { .. } => matches!(name, "WORKER" | "TASK" | "TASK_INDEX"),
    };
    in_pools
        || matches!(
            name,
            "PIPELINE_DIR" | "PROCFLOW_RUN_ID" | "PROCFLOW_NODE" | "PROCFLOW_ATTEMPT"
        )
        || name
            .strip_prefix("PARAM_")
            .is_some_and(|rest| scope.params.keys().any(|param| variable(param) == rest))
        || name.strip_prefix("MATRIX_").is_some_and(|rest| {
            let own = scope.matrix.into_iter();
            let mut keys = own.flat_map(|own| own.values.iter().map(|(key, _)| key));
            keys.any(|key| variable(key) == rest)
        })
}

/// Whether a variable of an `env` table is procflow's own, which is then a warning: procflow's value wins.
pub(super) fn is_taken(
    name: &str,
    scope: &Scope<'_>,
    site: &Site<'_>,
    problems: &mut Problems,
) -> bool {
    let taken = is_procflows(name, scope);
    if taken {
        problems.push(
            Diagnostic::warning(
                site.mark_key(),
                format!("`{name}` is set by procflow itself, and its value wins"),
            )
            .help("take another name, or drop it"),
        );
    }
    taken
}

/// A node's own variables: those of its matrix, of its dotenv files, then its `env`. Secret values that came to be go to `secrets`.
pub(super) fn of_node(
    files: Vec<String>,
    env: Option<Box<IndexMap<String, String>>>,
    node: &Site<'_>,
    scope: &Scope<'_>,
    dotenv: &mut Dotenv<'_>,
    found: &mut Found<'_>,
    secrets: &mut Vec<String>,
) -> Vec<(String, Template)> {
    let mut own: Vec<(String, Template)> = Vec::new();
    for (key, value) in scope.matrix.into_iter().flat_map(|own| &own.values) {
        own.push((
            format!("MATRIX_{}", variable(key)),
            Template::Literal((&**value).into()),
        ));
    }
    for (name, value) in read_files(files, &node.key("env_file"), scope, dotenv, found) {
        if !is_procflows(&name, scope) {
            own.push((name, Template::Literal(value.into())));
        }
    }
    let env_site = node.key("env");
    for (name, text) in env.into_iter().flat_map(|env| *env) {
        let site = env_site.key(&name);
        check_name(&name, &site, found.problems);
        found.secret.set(false);
        let value = template::parse(
            text,
            &Scope {
                own_env: &own,
                ..*scope
            },
            &site,
            found,
        );
        if let (true, Some(value)) = (found.secret.get(), value.literal()) {
            secrets.push(value.to_owned());
        }
        if !is_taken(&name, scope, &site, found.problems) {
            own.push((name, value));
        }
    }
    own
}

/// The variables of `env_file`s, whose paths may name what is known already.
pub(super) fn read_files(
    files: Vec<String>,
    site: &Site<'_>,
    scope: &Scope<'_>,
    dotenv: &mut Dotenv<'_>,
    found: &mut Found<'_>,
) -> Vec<(String, String)> {
    let one = files.len() == 1;
    let mut variables = Vec::new();
    for (i, file) in files.into_iter().enumerate() {
        // `env_file = "x"` and `env_file = ["x"]` are the same here; a place that is not there is looked for one up.
        let site = if one { *site } else { site.index(i) };
        let path = template::parse(file, &scope.at(When::Plan), &site, found);
        if let Some(path) = path.literal() {
            variables.extend(dotenv.read(path, &site, found.problems).iter().cloned());
        }
    }
    variables
}

/// `name` where [`variable`] of two names is the same: `(first, second)`.
pub(super) fn clash<'a>(names: impl Iterator<Item = &'a str>) -> Option<(&'a str, &'a str)> {
    let mut seen: Vec<(String, &str)> = Vec::new();
    for name in names {
        let of_name = variable(name);
        if let Some((_, other)) = seen.iter().find(|(v, _)| *v == of_name) {
            return Some((other, name));
        }
        seen.push((of_name, name));
    }
    None
}
