//! `matrix`: one node for each combination of values, before anything else is made of the nodes. What comes later sees nodes
//! like others, with other names; only who looks up a name that the file says must ask here ([`Matrices::find`]).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::diagnostic::Diagnostic;
use crate::plan::environment::clash;
use crate::plan::problems::{NAME_RULE, Problems, Site, is_name, listed, variable};
use crate::plan::{Node, NodeId, Plan};
use crate::spec::{self, Process};

/// So many nodes the matrices of a file make at most: as many as a file of a sane size could hold without them.
pub(super) const MOST: usize = 100_000;

/// Axes and their values, for one node: axes first, in their order, then what `include` adds.
pub(super) type Values = Vec<(Arc<str>, Arc<str>)>;

/// What a node has of its matrix.
#[derive(Debug)]
pub(super) struct Combination {
    /// The name that the file declares.
    pub(super) base: Arc<str>,
    /// The values.
    pub(super) values: Values,
}

/// Which nodes come from matrices.
#[derive(Debug, Default)]
pub(super) struct Matrices {
    /// By declared name, the nodes that it stands for.
    declared: IndexMap<Arc<str>, Range<usize>>,
    /// For each node. Empty where the file has no matrix.
    of: Vec<Option<Combination>>,
}

/// Puts its combinations in place of each node with a matrix.
pub(super) fn expand(
    nodes: IndexMap<String, Process>,
    problems: &mut Problems,
) -> (IndexMap<String, Process>, Matrices) {
    if nodes.values().all(|process| process.matrix.is_none()) {
        return (nodes, Matrices::default());
    }
    let mut matrices = Matrices::default();
    let mut expanded = IndexMap::with_capacity(nodes.len());
    let mut made = 0;
    for (name, mut process) in nodes {
        let Some(matrix) = process.matrix.take() else {
            expanded.insert(name, process);
            matrices.of.push(None);
            continue;
        };
        let table = Site::top(match process.pool {
            Some(_) => "pool",
            None => "process",
        });
        let site = table.key(&name);
        let site = site.key("matrix");
        let base: Arc<str> = name.as_str().into();
        let first = expanded.len();
        let combinations = combine(&matrix, &name, MOST - made, &site, problems);
        if let Some(combinations) = combinations {
            made += combinations.len();
            for (name, values) in combinations {
                expanded.insert(name, process.clone());
                matrices.of.push(Some(Combination {
                    base: Arc::clone(&base),
                    values,
                }));
            }
        } else {
            // Something is wrong, and said. One node stands for all, so that nothing is said of others for it.
            expanded.insert(name, process);
            matrices.of.push(Some(Combination {
                base: Arc::clone(&base),
                values: stand_in(&matrix),
            }));
        }
        matrices.declared.insert(base, first..expanded.len());
    }
    (expanded, matrices)
}

/// The names of the nodes of a matrix; none where something is wrong with it.
pub fn names(base: &str, matrix: &spec::Matrix) -> Vec<String> {
    let site = Site::top("matrix");
    let combinations = combine(matrix, base, MOST, &site, &mut Problems::default());
    let combinations = combinations.into_iter().flatten();
    combinations.map(|(name, _)| name).collect()
}

/// Some value for every key that the matrix names.
fn stand_in(matrix: &spec::Matrix) -> Values {
    let mut values: IndexMap<&str, &str> = IndexMap::new();
    for (axis, of_axis) in &matrix.axes {
        values.insert(axis, of_axis.first().unwrap_or(axis));
    }
    for (key, value) in matrix.include.iter().flatten() {
        values.entry(key).or_insert(value);
    }
    values
        .into_iter()
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

/// The combinations of a matrix, each with the name of its node; none where something is wrong.
fn combine(
    matrix: &spec::Matrix,
    base: &str,
    room: usize,
    site: &Site<'_>,
    problems: &mut Problems,
) -> Option<Vec<(String, Values)>> {
    let before = problems.0.len();
    check_keys(matrix, site, problems);
    check_axes(matrix, site, problems);
    let product = matrix
        .axes
        .values()
        .try_fold(1_usize, |product, values| product.checked_mul(values.len()))
        .and_then(|product| product.checked_add(matrix.include.len()))
        .filter(|&product| product <= room);
    if product.is_none() {
        let mut sizes: Vec<String> = matrix
            .axes
            .iter()
            .map(|(axis, values)| format!("{} of `{axis}`", values.len()))
            .collect();
        sizes.truncate(5);
        problems.push(
            Diagnostic::error(
                site.mark_key(),
                format!("too many combinations: {}", sizes.join(" × ")),
            )
            .help(format!(
                "the matrices of a file make up to {MOST} processes; for more work of one kind take a pool with `tasks`"
            )),
        );
    }
    if problems.0.len() > before {
        return None;
    }
    let axes: Vec<(Arc<str>, Vec<Arc<str>>)> = matrix
        .axes
        .iter()
        .map(|(axis, values)| {
            let values = values.iter().map(|value| value.as_str().into()).collect();
            (axis.as_str().into(), values)
        })
        .collect();
    let mut combinations = excluded(product_of(&axes), matrix, site, problems);
    let original = combinations.len();
    let names: Vec<Arc<str>> = match axes.as_slice() {
        // Without axes the first that is included says what they are.
        [] => {
            let first = matrix.include.first();
            let keys = first.into_iter().flat_map(|row| row.keys());
            keys.map(|key| key.as_str().into()).collect()
        }
        axes => axes.iter().map(|(axis, _)| Arc::clone(axis)).collect(),
    };
    include(matrix, &names, &mut combinations, original, site, problems);
    if combinations.is_empty() && problems.0.len() == before {
        problems.push(if matrix.exclude.is_empty() {
            Diagnostic::error(site.mark_key(), "a matrix without axes")
                .help("name one, with its values: `matrix = { py = [\"3.11\", \"3.12\"] }`")
        } else {
            Diagnostic::error(
                site.key("exclude").mark_value(),
                "every combination is excluded",
            )
            .help("drop one of `exclude`, or the process")
        });
    }
    if problems.fatal_since(before) {
        return None;
    }
    let count = names.len();
    Some(
        combinations
            .into_iter()
            .map(|values| (name_of(base, &values[..count.min(values.len())]), values))
            .collect(),
    )
}

/// Names of axes, and of what `include` adds.
fn check_keys(matrix: &spec::Matrix, site: &Site<'_>, problems: &mut Problems) {
    let wrong = |key: &str| {
        (!is_name(key)).then(|| format!("`{}` can't be the name of an axis", key.escape_debug()))
    };
    for axis in matrix.axes.keys() {
        if let Some(message) = wrong(axis) {
            problems.push(Diagnostic::error(site.key(axis).mark_key(), message).help(NAME_RULE));
        }
    }
    let rows = site.key("include");
    let mut more: IndexMap<&str, usize> = IndexMap::new();
    for (i, row) in matrix.include.iter().enumerate() {
        for key in row.keys().filter(|key| !matrix.axes.contains_key(*key)) {
            more.entry(key).or_insert(i);
        }
    }
    for (key, &i) in &more {
        if let Some(message) = wrong(key) {
            problems.push(
                Diagnostic::error(rows.index(i).key(key).mark_key(), message).help(NAME_RULE),
            );
        }
    }
    let keys = matrix
        .axes
        .keys()
        .map(String::as_str)
        .chain(more.keys().copied());
    if let Some((first, second)) = clash(keys) {
        let place = |key: &str| match more.get(key) {
            Some(&i) => rows.index(i).key(key).mark_key(),
            None => site.key(key).mark_key(),
        };
        problems.push(
            Diagnostic::error(
                place(second),
                format!(
                    "`{first}` and `{second}` would both be the variable `MATRIX_{}`",
                    variable(first)
                ),
            )
            .and(place(first), "")
            .help("rename one of them"),
        );
    }
}

/// Values of axes, and the keys of `exclude`.
fn check_axes(matrix: &spec::Matrix, site: &Site<'_>, problems: &mut Problems) {
    for (axis, values) in &matrix.axes {
        let site = site.key(axis);
        if values.is_empty() {
            problems.push(
                Diagnostic::error(site.mark_value(), format!("axis `{axis}` has no values")).help(
                    "there is one process for each value, so there would be none: give it one, or drop it",
                ),
            );
        }
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (i, value) in values.iter().enumerate() {
            check_value(value, &site.index(i), problems);
            if let Some(first) = seen.insert(value, i) {
                problems.push(
                    Diagnostic::error(
                        site.index(i).mark_value(),
                        format!("`{}` is twice in axis `{axis}`", value.escape_debug()),
                    )
                    .and(site.index(first).mark_value(), "")
                    .help("drop one of the two"),
                );
            }
        }
    }
    let rows = site.key("exclude");
    for (i, row) in matrix.exclude.iter().enumerate() {
        let site = rows.index(i);
        if row.is_empty() {
            problems.push(
                Diagnostic::error(site.mark_value(), "an empty table would exclude everything")
                    .help("name values: `exclude = [{ py = \"3.11\" }]`"),
            );
        }
        for key in row.keys().filter(|key| !matrix.axes.contains_key(*key)) {
            let axes = || matrix.axes.keys().map(String::as_str);
            let help = axes()
                .next()
                .map(|_| format!("the axes are {}", listed(axes())));
            problems.push_unknown(
                Diagnostic::error(site.key(key).mark_key(), format!("no axis `{key}`")),
                key,
                axes(),
                help,
            );
        }
    }
    let rows = site.key("include");
    for (i, row) in matrix.include.iter().enumerate() {
        let site = rows.index(i);
        if row.is_empty() {
            problems.push(
                Diagnostic::error(site.mark_value(), "an empty table includes nothing")
                    .help("name values: `include = [{ py = \"3.13\", db = \"pg\" }]`"),
            );
        }
        for (key, value) in row {
            check_value(value, &site.key(key), problems);
        }
    }
}

fn check_value(value: &str, site: &Site<'_>, problems: &mut Problems) {
    if value.contains('\0') {
        problems.push(Diagnostic::error(
            site.mark_value(),
            "a NUL byte, which no argument, variable or path can hold",
        ));
    }
    if value.contains("${{") {
        problems.push(
            Diagnostic::error(
                site.mark_value(),
                "`${{` in a value of a matrix, where nothing is replaced",
            )
            .help("a matrix says what processes there are, so its values stand as they are"),
        );
    }
}

/// All combinations; the last axis changes first. None where there are no axes.
fn product_of(axes: &[(Arc<str>, Vec<Arc<str>>)]) -> Vec<Values> {
    if axes.is_empty() {
        return Vec::new();
    }
    let count = axes.iter().map(|(_, values)| values.len()).product();
    let mut combinations = Vec::with_capacity(count);
    let mut at = vec![0; axes.len()];
    for _ in 0..count {
        let values = axes.iter().zip(&at);
        combinations.push(
            values
                .map(|((axis, values), &at)| (Arc::clone(axis), Arc::clone(&values[at])))
                .collect(),
        );
        for (at, (_, values)) in at.iter_mut().zip(axes).rev() {
            *at += 1;
            if *at < values.len() {
                break;
            }
            *at = 0;
        }
    }
    combinations
}

/// Whether a combination has all values that a row says of keys that it knows.
fn agrees(values: &Values, row: &IndexMap<String, String>) -> bool {
    values
        .iter()
        .all(|(key, value)| row.get(&**key).is_none_or(|said| **said == **value))
}

/// The combinations without those that `exclude` names.
fn excluded(
    combinations: Vec<Values>,
    matrix: &spec::Matrix,
    site: &Site<'_>,
    problems: &mut Problems,
) -> Vec<Values> {
    let rows = site.key("exclude");
    let mut left_out = vec![false; combinations.len()];
    for (i, row) in matrix.exclude.iter().enumerate() {
        // Also what another row has left out already: two rows may overlap.
        let mut matched = false;
        for (left_out, values) in left_out.iter_mut().zip(&combinations) {
            if agrees(values, row) {
                *left_out = true;
                matched = true;
            }
        }
        if !matched {
            let wrong = row
                .iter()
                .find(|(axis, value)| matrix.axes.get(*axis).is_some_and(|v| !v.contains(value)));
            let site = rows.index(i);
            problems.push(match wrong {
                Some((axis, value)) => {
                    let values = matrix.axes.get(axis).into_iter().flatten();
                    let problem = Diagnostic::warning(
                        site.key(axis).mark_value(),
                        format!(
                            "it excludes nothing: axis `{axis}` has no `{}`",
                            value.escape_debug()
                        ),
                    );
                    problem.help(format!(
                        "its values are {}",
                        listed(values.map(String::as_str))
                    ))
                }
                // A row of axes without wrong values matches something.
                None => Diagnostic::warning(site.mark_value(), "it excludes nothing"),
            });
        }
    }
    let mut left_out = left_out.into_iter();
    combinations
        .into_iter()
        .filter(|_| left_out.next() == Some(false))
        .collect()
}

/// Adds what `include` says. As at GitHub: a row goes to the combinations of the axes that it agrees with, where it has
/// something new for them; where there is none it is a combination of its own.
fn include(
    matrix: &spec::Matrix,
    axes: &[Arc<str>],
    combinations: &mut Vec<Values>,
    original: usize,
    site: &Site<'_>,
    problems: &mut Problems,
) {
    if matrix.include.is_empty() {
        return;
    }
    let rows = site.key("include");
    let mut names: HashSet<String> = combinations
        .iter()
        .map(|values| name_of("", values))
        .collect();
    for (i, row) in matrix.include.iter().enumerate() {
        let site = rows.index(i);
        let more: Vec<(Arc<str>, Arc<str>)> = row
            .iter()
            .filter(|(key, _)| !axes.iter().any(|axis| **axis == ***key))
            .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
            .collect();
        let mut extends = false;
        if !more.is_empty() {
            for values in &mut combinations[..original] {
                if !agrees_on(axes.len(), values, row) {
                    continue;
                }
                extends = true;
                for (key, value) in &more {
                    match values.iter_mut().find(|(known, _)| known == key) {
                        Some(known) => known.1 = Arc::clone(value),
                        None => values.push((Arc::clone(key), Arc::clone(value))),
                    }
                }
            }
        }
        if extends {
            continue;
        }
        let lacking: Vec<&str> = axes
            .iter()
            .map(|axis| &**axis)
            .filter(|axis| !row.contains_key(*axis))
            .collect();
        if !lacking.is_empty() {
            problems.push(
                Diagnostic::error(
                    site.mark_value(),
                    format!("a combination without {}", listed(lacking.iter().copied())),
                )
                .help(if more.is_empty() {
                    "what is included has a value for every axis"
                } else {
                    "no combination has these values, so this is a new one, which has a value for every axis"
                }),
            );
            continue;
        }
        let mut values: Values = axes
            .iter()
            .filter_map(|axis| Some((Arc::clone(axis), row.get(&**axis)?.as_str().into())))
            .collect();
        if !names.insert(name_of("", &values)) {
            problems.push(
                Diagnostic::error(
                    site.mark_value(),
                    format!("there is a combination {} already", name_of("", &values)),
                )
                .help("drop one of the two"),
            );
            continue;
        }
        values.extend(more);
        combinations.push(values);
    }
}

/// The same for the axes alone: what another row has added does not count.
fn agrees_on(axes: usize, values: &Values, row: &IndexMap<String, String>) -> bool {
    values
        .iter()
        .take(axes)
        .all(|(key, value)| row.get(&**key).is_none_or(|said| **said == **value))
}

/// `test[py=3.11,db=pg]`.
fn name_of(base: &str, values: &[(Arc<str>, Arc<str>)]) -> String {
    let mut name = String::with_capacity(base.len() + 16 * values.len());
    name.push_str(base);
    name.push('[');
    for (i, (axis, value)) in values.iter().enumerate() {
        if i > 0 {
            name.push(',');
        }
        name.push_str(axis);
        name.push('=');
        name.push_str(&word(value));
    }
    name.push(']');
    name
}

/// A value as it stands in a name: in quotes where it would be taken for something else, or can't be seen. No two are the same.
fn word(value: &str) -> Cow<'_, str> {
    let plain = !value.is_empty()
        && !value.contains(['"', '\\', ',', '[', ']'])
        && value.trim() == value
        && value.escape_debug().eq(value.chars());
    if plain {
        Cow::Borrowed(value)
    } else {
        Cow::Owned(format!("{value:?}"))
    }
}

/// A value in the name of a queue, which has letters, digits, `_` and `-` only.
pub(super) fn in_queue_name(value: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c
        } else {
            '_'
        }
    };
    value.chars().map(plain).collect()
}

/// `test[py=3.12]` as what it says: the declared name, and values as they stand in names.
fn parts(name: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let (base, rest) = name.strip_suffix(']')?.split_once('[')?;
    let mut said = Vec::new();
    let mut rest = rest.trim();
    while !rest.is_empty() {
        let (key, value) = rest.split_once('=')?;
        let end = match value.strip_prefix('"') {
            None => value.find(',').unwrap_or(value.len()),
            Some(quoted) => {
                let mut escaped = false;
                let end = quoted.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                })?;
                end + 2
            }
        };
        let (value, after) = value.split_at(end);
        said.push((key.trim(), value.trim()));
        rest = match after.trim_start() {
            "" => "",
            after => after.strip_prefix(',')?.trim_start(),
        };
    }
    Some((base, said))
}

impl Matrices {
    /// The combination of a node.
    pub(super) fn of(&self, node: usize) -> Option<&Combination> {
        self.of.get(node)?.as_ref()
    }

    /// All nodes of a declared name that has a matrix.
    pub(super) fn nodes_of(&self, base: &str) -> Option<Range<usize>> {
        self.declared.get(base).cloned()
    }

    /// The nodes that a name stands for: one, all of a matrix, or those of it that have these values. None where there are no
    /// such nodes.
    pub(super) fn find(
        &self,
        nodes: &IndexMap<String, Process>,
        name: &str,
    ) -> Option<Vec<NodeId>> {
        if let Some(node) = nodes.get_index_of(name) {
            return Some(vec![NodeId::from(node)]);
        }
        if let Some(all) = self.nodes_of(name) {
            return Some(all.map(NodeId::from).collect());
        }
        let (base, said) = parts(name)?;
        let all = self.nodes_of(base)?;
        let has = |node: &usize| self.of(*node).is_some_and(|own| has(&own.values, &said));
        let found: Vec<NodeId> = all.filter(has).map(NodeId::from).collect();
        (!found.is_empty()).then_some(found)
    }

    /// Says that there are no nodes of a name.
    pub(super) fn push_unknown(
        &self,
        problem: Diagnostic,
        nodes: &IndexMap<String, Process>,
        name: &str,
        otherwise: Option<String>,
        problems: &mut Problems,
    ) {
        let of_matrix = name
            .split_once('[')
            .and_then(|(base, _)| self.nodes_of(base));
        match of_matrix {
            Some(range) => {
                let names = || {
                    nodes
                        .get_range(range.clone())
                        .into_iter()
                        .flat_map(|nodes| nodes.keys())
                        .map(String::as_str)
                };
                let help = format!("there are {}", listed(names()));
                problems.push_unknown(problem, name, names().take(1000), Some(help));
            }
            None => {
                let plain = nodes
                    .keys()
                    .enumerate()
                    .filter(|(index, _)| self.of(*index).is_none())
                    .map(|(_, name)| name.as_str());
                let names = plain.chain(self.declared.keys().map(|base| &**base));
                problems.push_unknown(problem, name, names, otherwise);
            }
        }
    }
}

/// Whether a node has these values, as they stand in names or as they are.
fn has(values: &Values, said: &[(&str, &str)]) -> bool {
    said.iter().all(|(key, value)| {
        values.iter().any(|(known, of_node)| {
            **known == **key && (word(of_node) == *value || **of_node == **value)
        })
    })
}

impl Plan {
    /// The nodes that a name stands for: one, all of a matrix (`test`), or those of it that have these values (`test[py=3.12]`).
    /// Empty where there are no such nodes.
    pub fn find(&self, name: &str) -> Vec<NodeId> {
        let those = |is: &dyn Fn(&Node) -> bool| -> Vec<NodeId> {
            let nodes = self.nodes.iter().enumerate();
            nodes
                .filter(|(_, node)| is(node))
                .map(|(index, _)| NodeId::from(index))
                .collect()
        };
        let found = those(&|node| *node.name == *name || *node.base == *name);
        if !found.is_empty() {
            return found;
        }
        match parts(name) {
            Some((base, said)) => those(&|node| {
                *node.base == *base && !node.matrix.is_empty() && has(&node.matrix, &said)
            }),
            None => found,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a test that can't go on fails")]

    use std::collections::HashSet;

    use indexmap::IndexMap;
    use proptest::prelude::*;

    use crate::plan::matrix::{Combination, Matrices, combine, in_queue_name, parts, word};
    use crate::plan::problems::{Problems, Site};
    use crate::spec::{Matrix, Process};

    type Pairs = Vec<(String, String)>;

    /// What a matrix means, in few words: for each combination its axes, and its axes with what is included.
    fn model(matrix: &Matrix) -> Option<Vec<(Pairs, Pairs)>> {
        let mut all: Vec<Pairs> = vec![Vec::new()];
        for (axis, values) in &matrix.axes {
            all = all
                .iter()
                .flat_map(|before| {
                    values.iter().map(move |value| {
                        let mut row = before.clone();
                        row.push((axis.clone(), value.clone()));
                        row
                    })
                })
                .collect();
        }
        let says = |pairs: &Pairs, row: &IndexMap<String, String>| {
            pairs
                .iter()
                .all(|(key, value)| row.get(key).is_none_or(|said| said == value))
        };
        let mut all: Vec<(Pairs, Pairs)> = all
            .into_iter()
            .filter(|pairs| !pairs.is_empty() && !matrix.exclude.iter().any(|row| says(pairs, row)))
            .map(|pairs| (pairs.clone(), pairs))
            .collect();
        let axes: Vec<String> = match (matrix.axes.is_empty(), matrix.include.first()) {
            (true, Some(first)) => first.keys().cloned().collect(),
            _ => matrix.axes.keys().cloned().collect(),
        };
        let original = all.len();
        for row in &matrix.include {
            let more = row.iter().filter(|(key, _)| !axes.contains(key));
            let more: Pairs = more
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            let mut found = false;
            for (axes, whole) in all[..original]
                .iter_mut()
                .filter(|(axes, _)| says(axes, row))
            {
                found |= !more.is_empty();
                let mut map: IndexMap<String, String> = whole.drain(..).collect();
                map.extend(more.clone());
                *whole = map.into_iter().collect();
                assert!(whole.starts_with(axes));
            }
            if !found {
                let own = axes
                    .iter()
                    .map(|axis| Some((axis.clone(), row.get(axis)?.clone())));
                let own: Pairs = own.collect::<Option<_>>()?;
                if all.iter().any(|(known, _)| *known == own) {
                    return None;
                }
                all.push((own.clone(), own.into_iter().chain(more).collect()));
            }
        }
        (!all.is_empty()).then_some(all)
    }

    /// Values that look like names of others, and some that are usual.
    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            "[0-2]",
            "[ab=,\\[\\]\"\\\\ \n]{0,4}",
            Just("3.10".to_owned())
        ]
    }

    fn matrix() -> impl Strategy<Value = Matrix> {
        let axis = proptest::collection::hash_set(value(), 1..4);
        let axes = proptest::collection::vec(axis, 0..4);
        axes.prop_flat_map(|axes| {
            let names = ["a", "b", "c", "d", "e"];
            let row = |keys: usize| {
                let pair = (0..keys.max(1), value(), 0..3_usize);
                let axes = axes.clone();
                proptest::collection::vec(pair, 1..5).prop_map(move |pairs| {
                    let pairs = pairs.into_iter().map(|(key, other, pick)| {
                        // Mostly a value that there is.
                        let known = axes.get(key).and_then(|values| values.iter().nth(pick));
                        (names[key].to_owned(), known.cloned().unwrap_or(other))
                    });
                    pairs.collect::<IndexMap<_, _>>()
                })
            };
            let count = axes.len();
            let exclude = proptest::collection::vec(row(count), 0..if count > 0 { 3 } else { 1 });
            let include = proptest::collection::vec(row(count + 2), 0..4);
            let axes: IndexMap<String, Vec<String>> = names
                .iter()
                .zip(&axes)
                .map(|(name, values)| ((*name).to_owned(), values.iter().cloned().collect()))
                .collect();
            (exclude, include).prop_map(move |(exclude, include)| Matrix {
                axes: axes.clone(),
                exclude,
                include,
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_matrix_is_what_the_plain_model_says(matrix in matrix()) {
            let site = Site::top("matrix");
            let mut problems = Problems::default();
            let made = combine(&matrix, "t", 1000, &site, &mut problems);
            let expected = model(&matrix);
            prop_assert_eq!(made.is_none(), problems.fatal());
            let Some(made) = made else {
                prop_assert_eq!(expected, None, "{:?}", problems);
                return Ok(());
            };
            let values: Vec<Pairs> = made
                .iter()
                .map(|(_, values)| {
                    values.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
                })
                .collect();
            let expected = expected.unwrap_or_default();
            let (axes, whole): (Vec<Pairs>, Vec<Pairs>) = expected.into_iter().unzip();
            prop_assert_eq!(values, whole);
            let names: HashSet<&String> = made.iter().map(|(name, _)| name).collect();
            prop_assert_eq!(names.len(), made.len());
            // Each name leads to its node alone, and its values can be read off it.
            let nodes: IndexMap<String, Process> =
                made.iter().map(|(name, _)| (name.clone(), Process::default())).collect();
            let mut matrices = Matrices::default();
            matrices.declared.insert("t".into(), 0..made.len());
            for ((name, values), axes) in made.iter().zip(&axes) {
                let (base, said) = parts(name).expect("a name");
                let words: Vec<_> =
                    axes.iter().map(|(key, value)| (key.clone(), word(value).into_owned())).collect();
                prop_assert_eq!(base, "t");
                let said: Pairs =
                    said.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
                prop_assert_eq!(said, words);
                matrices.of.push(Some(Combination { base: "t".into(), values: values.clone() }));
            }
            for (index, (name, _)) in made.iter().enumerate() {
                let found = matrices.find(&nodes, name).unwrap_or_default();
                prop_assert_eq!(found.iter().map(|node| node.index()).collect::<Vec<_>>(), [index]);
            }
        }
    }

    #[test]
    fn values_in_names() {
        for plain in ["3.11", "pg", "Ubuntu 22", "a/b", "-O2=x", "ä", "${x}", "*"] {
            assert_eq!(word(plain), plain);
        }
        for (value, shown) in [
            ("", "\"\""),
            ("a,b=c", "\"a,b=c\""),
            ("a]", "\"a]\""),
            (" a", "\" a\""),
            ("a\"b\\", "\"a\\\"b\\\\\""),
            ("a\nb\u{1b}", "\"a\\nb\\u{1b}\""),
            ("\u{202e}x", "\"\\u{202e}x\""),
        ] {
            assert_eq!(word(value), shown);
        }
        assert_eq!(in_queue_name("3.11/ä"), "3_11__");
    }

    #[test]
    fn there_are_only_so_many() {
        let values = |count: u32| (0..count).map(|value| value.to_string()).collect();
        let mut matrix = Matrix::default();
        for axis in ["a", "b", "c"] {
            matrix.axes.insert(axis.to_owned(), values(2000));
        }
        let (site, mut problems) = (Site::top("matrix"), Problems::default());
        assert!(combine(&matrix, "t", super::MOST, &site, &mut problems).is_none());
        let [problem] = problems.0.as_slice() else {
            panic!("{problems:?}");
        };
        assert_eq!(
            (&*problem.message, problem.help.as_deref()),
            (
                "too many combinations: 2000 of `a` × 2000 of `b` × 2000 of `c`",
                Some(
                    "the matrices of a file make up to 100000 processes; for more work of one kind take a pool with `tasks`"
                )
            )
        );
        matrix.axes.shift_remove("c");
        matrix.axes.insert("b".to_owned(), values(50));
        let mut problems = Problems::default();
        let made = combine(&matrix, "t", super::MOST, &site, &mut problems);
        assert_eq!(made.map(|made| made.len()), Some(super::MOST));
    }

    #[test]
    fn names_are_read() {
        assert_eq!(parts("test"), None);
        assert_eq!(parts("test[py=3"), None);
        assert_eq!(parts("test[]"), Some(("test", vec![])));
        assert_eq!(
            parts("t[py=3.12, db=a=b]"),
            Some(("t", vec![("py", "3.12"), ("db", "a=b")]))
        );
        assert_eq!(
            parts("t[a=\"x,\\\"]\",b=1]"),
            Some(("t", vec![("a", "\"x,\\\"]\""), ("b", "1")]))
        );
        assert_eq!(parts("t[a=\"x\"y]"), None);
    }
}
