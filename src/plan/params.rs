//! The values of `[params]`: from `--set`, else from the variable that `env` names, else the default.

use indexmap::IndexMap;

use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::plan::Overrides;
use crate::plan::problems::{NAME_RULE, Problems, Site, error, is_name, listed, variable};
use crate::spec::Param;

/// Shorter secrets are refused: hiding them would blank out every second word, and not hiding them is no secret.
pub(super) const SHORTEST_SECRET: usize = 4;

/// A param's value for this run.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) value: String,
    pub(super) secret: bool,
    /// What it may be; empty: anything.
    pub(super) choices: Vec<String>,
}

/// All params by name, in the file's order.
pub(super) type Params = IndexMap<String, Value>;

/// Where a value came from, for messages.
enum From {
    Set,
    Variable,
    Default,
}

/// Decides every param's value. Those with a problem are there too, so that nothing else complains about them.
pub(super) fn decide(
    spec: &IndexMap<String, Param>,
    overrides: &Overrides<'_>,
    problems: &mut Problems,
) -> Params {
    for (name, _) in &overrides.set {
        if !spec.contains_key(name) {
            // Not its value: it may be a mistyped secret's.
            let problem = error(format!(
                "--set {name}: no parameter `{name}` in this pipeline"
            ));
            problems.push_unknown(problem, name, spec.keys().map(String::as_str), None);
        }
    }
    let top = Site::top("params");
    let mut variables: IndexMap<String, &str> = IndexMap::new();
    let mut params = Params::new();
    for (name, param) in spec {
        let site = top.key(name);
        if !is_name(name) {
            problems.push(
                Diagnostic::error(
                    site.mark_key(),
                    format!("`{}` can't be a parameter's name", name.escape_debug()),
                )
                .help(NAME_RULE),
            );
        }
        if let Some(other) = variables.insert(variable(name), name) {
            problems.push(
                Diagnostic::error(
                    site.mark_key(),
                    format!(
                        "parameters `{other}` and `{name}` would both be the variable `PARAM_{}`",
                        variable(name)
                    ),
                )
                .and(top.key(other).mark_key(), "")
                .help("rename one of them"),
            );
        }
        let value = decide_one(name, param, overrides, &site, problems);
        params.insert(
            name.clone(),
            Value {
                value,
                secret: param.secret,
                choices: param.choices.clone(),
            },
        );
    }
    params
}

fn decide_one(
    name: &str,
    param: &Param,
    overrides: &Overrides<'_>,
    site: &Site<'_>,
    problems: &mut Problems,
) -> String {
    let allowed = |value: &String| param.choices.is_empty() || param.choices.contains(value);
    if let Some(default) = param.default.as_ref().filter(|default| !allowed(default)) {
        problems.push(not_a_choice(
            Diagnostic::error(
                site.key("default").mark_value(),
                format!("the default of parameter `{name}` is none of its choices"),
            ),
            default,
            param,
        ));
    }
    let set = overrides
        .set
        .iter()
        .rev()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.clone());
    let from_variable = || {
        param
            .env
            .as_ref()
            .and_then(|variable| (overrides.env)(variable))
    };
    let (value, from) = match (set, param.default.clone()) {
        (Some(value), _) => (value, From::Set),
        (None, default) => match (from_variable(), default) {
            (Some(value), _) => (value, From::Variable),
            (None, Some(default)) => (default, From::Default),
            (None, None) if param.required => {
                let other = param.env.as_ref().map_or(String::new(), |variable| {
                    format!(", or set the environment variable `{variable}`")
                });
                problems.push(
                    Diagnostic::error(site.mark_key(), format!("parameter `{name}` must be given"))
                        .help(format!("add `--set {name}=VALUE`{other}")),
                );
                return String::new();
            }
            // Optional and not given: it is empty.
            (None, None) => return String::new(),
        },
    };
    // A secret's value never goes into a message.
    let shown = if param.secret { "***" } else { value.as_str() };
    if !allowed(&value) {
        let variable = param.env.as_deref().unwrap_or_default();
        let problem = match from {
            From::Set => error(format!(
                "--set {name}={shown}: not one of the choices of parameter `{name}`"
            )),
            From::Variable => Diagnostic::error(
                site.key("env").mark_value(),
                format!(
                    "environment variable `{variable}` is `{shown}`: not one of the choices of parameter `{name}`"
                ),
            ),
            // Said above.
            From::Default => return value,
        };
        problems.push(not_a_choice(problem, &value, param));
    }
    if value.contains('\0') {
        problems.push(Diagnostic::error(
            site.mark_key(),
            format!("parameter `{name}` holds a NUL byte, which no argument or variable can hold"),
        ));
    }
    if param.secret && !value.is_empty() && value.len() < SHORTEST_SECRET {
        problems.push(
            Diagnostic::error(site.mark_key(), format!("the value of secret parameter `{name}` is shorter than {SHORTEST_SECRET} bytes: it can't be hidden in what is shown"))
                .help("take a longer secret, or drop `secret = true`"),
        );
    }
    value
}

fn not_a_choice(problem: Diagnostic, value: &str, param: &Param) -> Diagnostic {
    if param.secret {
        return problem;
    }
    let choices = param.choices.iter().map(String::as_str);
    match did_you_mean(value, choices.clone()) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help(format!("the choices are {}", listed(choices))),
    }
}
