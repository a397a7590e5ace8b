//! Conditions: whether a node runs at all (`when`). What a variable or a parameter says is known now; a command is asked in the run.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::plan::problems::{Site, is_name, listed};
use crate::plan::scope::{Found, Scope, When};
use crate::plan::template::{self, Template};
use crate::plan::{Unit, Unmet, services};
use crate::spec;

/// What is known of a condition before the run.
pub(super) enum Answer {
    /// It holds.
    Yes,
    /// It does not.
    No(Unmet),
    /// This command says so.
    Ask(Vec<Template>),
}

/// Decides a node's condition; `unit` is its first.
pub(super) fn decide(
    when: spec::When,
    unit: &Unit,
    node: &Site<'_>,
    scope: &Scope<'_>,
    found: &mut Found<'_>,
) -> Answer {
    let site = node.key("when");
    match when {
        spec::When::Env { name, is } => {
            let is = match is.map(|is| word(is, &site, scope, found)) {
                Some(None) => return Answer::Yes,
                is => is.flatten(),
            };
            of_variable(&name, is, unit, &site.key("env"), scope, found)
        }
        spec::When::Param { name, is } => match word(is, &site, scope, found) {
            Some(is) => of_param(&name, is, &site, scope, found),
            None => Answer::Yes,
        },
        spec::When::Command(words) => {
            let site = site.key("command");
            // There is one directory for the whole pool to ask in.
            if unit.settings.cwd.is_per_process() {
                found.problems.push(
                    Diagnostic::error(
                        site.mark_key(),
                        "this pool has no directory to ask in: its `cwd` is another for each process",
                    )
                    .help("ask in a process of its own that the pool comes after"),
                );
            }
            let at_start = scope.at(When::Start);
            Answer::Ask(services::command(words, "test", &site, &at_start, found))
        }
    }
}

/// What `is` says.
struct Is {
    value: Box<str>,
    /// As it may be shown.
    shown: Arc<str>,
}

/// What `is` says. None where that is a problem.
fn word(is: String, site: &Site<'_>, scope: &Scope<'_>, found: &mut Found<'_>) -> Option<Is> {
    found.secret.set(false);
    let template = template::parse(is, &scope.at(When::Plan), &site.key("is"), found);
    let value: Box<str> = template.literal()?.into();
    let shown = match found.secret.get() {
        true => "***".into(),
        false => Arc::from(&*value),
    };
    Some(Is { value, shown })
}

/// What the node would find in its environment.
fn of_variable(
    name: &str,
    is: Option<Is>,
    unit: &Unit,
    site: &Site<'_>,
    scope: &Scope<'_>,
    found: &mut Found<'_>,
) -> Answer {
    if name.is_empty() || name.contains(['=', '\0', '$']) {
        let problem = Diagnostic::error(
            site.mark_value(),
            format!("{name:?} can't be the name of an environment variable"),
        );
        let bare = name.trim_start_matches('$').trim_matches(['{', '}']);
        found.problems.push(match is_name(bare) {
            true => problem.help(format!("did you mean {bare:?}?")),
            false => problem.help("it must not be empty or hold `=`, `$` or NUL"),
        });
        return Answer::Yes;
    }
    let own = unit.env.iter().rev().find(|(own, _)| own == name);
    let value = match own {
        Some((_, template)) => match template.literal() {
            Some(text) => Some(text.to_owned()),
            None => {
                found.problems.push(
                    Diagnostic::error(
                        site.mark_value(),
                        format!("variable `{name}` of this node is known only when it starts"),
                    )
                    .help("ask it by a command: `when = { command = [\"test\", \"...\"] }`"),
                );
                return Answer::Yes;
            }
        },
        None => scope
            .env
            .get(name)
            .map(|known| known.value.clone())
            .or_else(|| (scope.inherited)(name).filter(|_| !unit.settings.clear_env)),
    };
    let name = || Arc::from(name);
    match (value, is) {
        (None, _) => Answer::No(Unmet::EnvUnset(name())),
        (Some(value), Some(is)) if *value == *is.value => Answer::Yes,
        (Some(_), Some(is)) => Answer::No(Unmet::EnvIsNot {
            name: name(),
            is: is.shown,
        }),
        (Some(value), None) if value.is_empty() => Answer::No(Unmet::EnvEmpty(name())),
        (Some(_), None) => Answer::Yes,
    }
}

fn of_param(
    name: &str,
    is: Is,
    site: &Site<'_>,
    scope: &Scope<'_>,
    found: &mut Found<'_>,
) -> Answer {
    let Some(param) = scope.params.get(name) else {
        let problem = Diagnostic::error(
            site.key("param").mark_value(),
            format!("no parameter `{name}`"),
        );
        let help = is_name(name).then(|| format!("say `{name} = \"default\"` under `[params]`"));
        let known = scope.params.keys().map(String::as_str);
        found.problems.push_unknown(problem, name, known, help);
        return Answer::Yes;
    };
    let choices = || param.choices.iter().map(String::as_str);
    if !param.choices.is_empty() && !choices().any(|choice| choice == &*is.value) {
        let help = match did_you_mean(&is.value, choices()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("its choices are {}", listed(choices())),
        };
        found.problems.push(
            Diagnostic::error(
                site.key("is").mark_value(),
                format!("parameter `{name}` is never {:?}", is.shown),
            )
            .help(help),
        );
        return Answer::Yes;
    }
    match *param.value == *is.value {
        true => Answer::Yes,
        false => Answer::No(Unmet::ParamIsNot {
            name: name.into(),
            is: is.shown,
        }),
    }
}
