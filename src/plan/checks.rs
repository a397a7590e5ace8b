//! Rules that look at more than one node, and those of tables that are no node.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use indexmap::IndexMap;

use crate::diagnostic::{Diagnostic, Mark, Place, did_you_mean};
use crate::plan::arrange::Graph;
use crate::plan::build::{Draft, Names, ValueUse, check_name};
use crate::plan::cycles::Words;
use crate::plan::problems::{Problems, Site, listed, variable};
use crate::plan::stored::Why;
use crate::plan::{Feed, Node, NodeId, Overflow, Queue, Sink, Source, UnitId, ends, settings};
use crate::spec::{self, Records, Spec};

/// Names of processes, pools and queues.
pub(super) fn names(spec: &Spec, problems: &mut Problems) {
    let top = Site::top("process");
    for name in spec.process.keys() {
        check_name("process", name, &top.key(name), problems);
    }
    let processes = top;
    let top = Site::top("pool");
    for name in spec.pool.keys() {
        let site = top.key(name);
        check_name("pool", name, &site, problems);
        if spec.process.contains_key(name) {
            problems.push(
                Diagnostic::error(
                    site.mark_key(),
                    format!("`{name}` is both a process and a pool"),
                )
                .and(processes.key(name).mark_key(), "")
                .help("nodes are told apart by their names: rename one of them"),
            );
        }
    }
    let top = Site::top("queue");
    for (name, queue) in &spec.queue {
        let site = top.key(name);
        if ends::RESERVED.contains(&name.as_str()) {
            problems.push(ends::reserved(name, site.mark_key()));
        } else {
            check_name("queue", name, &site, problems);
        }
        queue_settings(queue, &site, problems);
    }
}

fn queue_settings(queue: &spec::Queue, site: &Site<'_>, problems: &mut Problems) {
    if queue.max_record.is_some_and(|size| size.0 == 0) {
        problems.push(
            Diagnostic::error(
                site.key("max_record").mark_value(),
                "no record fits 0 bytes",
            )
            .help("leave `max_record` out for 16MiB"),
        );
    }
    if let (Some(Records::Size(size)), Some(most)) = (&queue.records, queue.max_record)
        && u64::from(*size) > most.0
    {
        problems.push(
            Diagnostic::error(
                site.key("max_record").mark_value(),
                format!("every record is longer than this: they are of {size} bytes"),
            )
            .and(site.key("records").mark_value(), "")
            .help("leave `max_record` out: records of one size need none"),
        );
    }
    if queue.capacity.is_some_and(|size| size.0 == 0) {
        problems.push(
            Diagnostic::error(
                site.key("capacity").mark_value(),
                "a queue of 0 bytes carries nothing",
            )
            .help("leave `capacity` out for 256KiB"),
        );
    }
    let at = site.key("records");
    if let Some(Records::Start(text)) = &queue.records
        && text.contains('\n')
    {
        problems.push(
            Diagnostic::error(
                at.key("start").mark_value(),
                "`start` is the beginning of a line: there is no line end in it",
            )
            .help("for records with something between them say `separator`"),
        );
    }
}

/// `[run]`.
pub(super) fn run(run: &spec::Run, problems: &mut Problems) {
    let site = Site::top("run");
    settings::check_timeout(run.timeout.map(|d| d.0), &site, problems);
}

/// Every queue has both sides, and says what it must.
pub(super) fn queues(
    queues: &ends::Queues,
    said: &IndexMap<String, spec::Queue>,
    words: &Names<'_>,
    problems: &mut Problems,
) {
    let node = |end: &ends::End| &*words.node_of(end).name;
    // The other half of a pair that a typo has parted comes first.
    let near = |name: &str, writes: bool| {
        let lacking = queues.0.iter().filter(|(_, q)| {
            if writes {
                q.readers.is_empty()
            } else {
                q.writers.is_empty()
            }
        });
        let all = queues.0.iter().filter(|(_, q)| {
            if writes {
                !q.writers.is_empty()
            } else {
                !q.readers.is_empty()
            }
        });
        did_you_mean(name, lacking.map(|(n, _)| &**n))
            .or_else(|| did_you_mean(name, all.map(|(n, _)| &**n)))
            .map(|near| format!("did you mean `{near}`?"))
    };
    for (name, queue) in queues.0.iter().filter(|(_, queue)| !queue.internal) {
        if let (Some(reader), true) = (queue.readers.first(), queue.writers.is_empty()) {
            let hint = near(name, true)
                .unwrap_or_else(|| format!("let a node write it: `stdout = \"{name}\"`"));
            problems.push(
                Diagnostic::error(
                    words.mark(reader),
                    format!(
                        "`{}` reads queue `{name}`, which nobody writes",
                        node(reader)
                    ),
                )
                .help(hint),
            );
        }
        if let (Some(writer), true) = (queue.writers.first(), queue.readers.is_empty()) {
            let hint = near(name, false)
                .unwrap_or_else(|| format!("let a node read it: `stdin = \"{name}\"`"));
            problems.push(
                Diagnostic::error(
                    words.mark(writer),
                    format!(
                        "`{}` writes queue `{name}`, which nobody reads",
                        node(writer)
                    ),
                )
                .help(hint),
            );
        }
        let deliver = said.get(&**name).and_then(|said| said.deliver.as_ref());
        let mut readers: Vec<&ends::End> = queue.readers.iter().collect();
        readers.dedup_by_key(|end| words.units[end.unit.index()].node);
        if let ([first, others @ ..], true, None) = (&readers[..], readers.len() > 1, deliver) {
            let names = listed(readers.iter().map(|end| node(end)));
            let mut problem = Diagnostic::error(
                words.mark(first),
                format!("queue `{name}` is read by {names}: it must say who gets what"),
            );
            // Combinations of a matrix all say it at one place.
            let mut marks: Vec<Mark> = others.iter().map(|reader| words.mark(reader)).collect();
            marks.dedup();
            marks.retain(|mark| *mark != words.mark(first));
            for mark in marks {
                problem = problem.and(mark, "");
            }
            problems.push(problem.help(format!(
                "for every reader to get all, say `deliver = \"copy\"` under `[queue.{name}]`; for each record to go to one of them, `deliver = \"share\"`"
            )));
        }
    }
    let top = Site::top("queue");
    for name in said.keys().filter(|name| {
        !queues.0.contains_key(name.as_str()) && !ends::RESERVED.contains(&name.as_str())
    }) {
        let problem = Diagnostic::error(
            top.key(name).mark_key(),
            format!("queue `{name}` has settings, but no node reads or writes it"),
        );
        problems.push_unknown(problem, name, queues.0.keys().map(|known| &**known), None);
    }
}

/// Who comes after whom, through waits and through the groups that start together.
pub(super) struct Order<'a> {
    nodes: &'a [Node],
    group: &'a [u32],
    /// Groups that wait for a group; made when first asked for.
    next: Option<HashMap<u32, Vec<u32>>>,
    /// Groups that come after the end of a node.
    after: HashMap<NodeId, std::collections::HashSet<u32>>,
}

impl<'a> Order<'a> {
    /// `group` has a number for each node that those of its group share.
    pub(super) fn new(nodes: &'a [Node], group: &'a [u32]) -> Self {
        Order {
            nodes,
            group,
            next: None,
            after: HashMap::new(),
        }
    }

    /// Whether `node` is started only when `before` has ended.
    fn comes_after(&mut self, node: NodeId, before: NodeId) -> bool {
        let waits = |waiting: &Node| {
            waiting
                .after
                .iter()
                .any(|wait| wait.node == before && wait.state.is_end())
        };
        // Nearly always it says so itself.
        if waits(&self.nodes[node.index()]) {
            return true;
        }
        let (nodes, group) = (self.nodes, self.group);
        let next = self.next.get_or_insert_with(|| {
            let mut next: HashMap<u32, Vec<u32>> = HashMap::new();
            for (index, node) in nodes.iter().enumerate() {
                for wait in &node.after {
                    next.entry(group[wait.node.index()])
                        .or_default()
                        .push(group[index]);
                }
            }
            next
        });
        let reached = self.after.entry(before).or_insert_with(|| {
            let mut reached: std::collections::HashSet<u32> = std::collections::HashSet::new();
            let mut todo: Vec<u32> = nodes
                .iter()
                .enumerate()
                .filter(|(_, node)| waits(node))
                .map(|(index, _)| group[index])
                .collect();
            while let Some(at) = todo.pop() {
                if reached.insert(at) {
                    todo.extend(next.get(&at).into_iter().flatten());
                }
            }
            reached
        });
        reached.contains(&group[node.index()])
    }
}

/// `value.NODE` is there when it is used.
pub(super) fn values(
    draft: &Draft,
    uses: &[ValueUse],
    order: &mut Order<'_>,
    problems: &mut Problems,
) {
    let mut offered: HashMap<String, &str> = HashMap::new();
    for node in &draft.nodes {
        if !node.units.clone().any(|unit| offers_value(draft, unit)) {
            continue;
        }
        let name = variable(&node.name);
        if let Some(first) = offered.get(&name) {
            let named = |name: &str| draft.nodes.iter().find(|node| &*node.name == name);
            let place = |node: &Node| Mark::Key(node.place());
            problems.push(
                Diagnostic::error(
                    place(node),
                    format!(
                        "the values of `{first}` and `{}` would both be the variable `VALUE_{name}`",
                        node.name
                    ),
                )
                .and(named(first).map_or(place(node), place), "")
                .help("rename one of them"),
            );
        } else {
            offered.insert(name, &node.name);
        }
    }
    let mut told: HashSet<&Place> = HashSet::new();
    for used in uses {
        // Combinations of a matrix say the same at the same place.
        if told.contains(&used.place) {
            continue;
        }
        let before = problems.0.len();
        let (user, node) = (
            &draft.nodes[used.user.index()],
            &draft.nodes[used.node.index()],
        );
        let table = (user.table(), node.table());
        let (user, node) = (&user.name, &node.name);
        let mark = Mark::Value(used.place.clone());
        let mut units = draft.nodes[used.node.index()].units.clone();
        if !units.any(|unit| offers_value(draft, unit)) {
            problems.push(
                Diagnostic::error(mark, format!("`{node}` offers no value")).help(format!(
                    "say `stdout = \"value\"` in {} `{}`",
                    table.1,
                    draft.nodes[used.node.index()].base
                )),
            );
        } else if !order.comes_after(used.user, used.node) {
            problems.push(
                Diagnostic::error(
                    mark,
                    format!(
                        "the value of `{node}` is used by `{user}`, which does not wait for it"
                    ),
                )
                .help(format!(
                    "add `after = [\"{node}\"]` to {} `{}`",
                    table.0,
                    draft.nodes[used.user.index()].base
                )),
            );
        }
        if problems.0.len() > before {
            told.insert(&used.place);
        }
    }
}

fn offers_value(draft: &Draft, unit: u32) -> bool {
    let ends = &draft.units[unit as usize].ends;
    ends.outputs
        .iter()
        .any(|output| output.to.contains(&Sink::Value))
}

/// Files that several write, and files that are read while they may not be there yet.
pub(super) fn files(draft: &Draft, dir: &Path, order: &mut Order<'_>, problems: &mut Problems) {
    struct Writer {
        unit: usize,
        place: Place,
        append: bool,
    }
    let key = |unit: usize, name: &str, table: &str| {
        let place = draft.nodes[draft.units[unit].node.index()].place();
        if matches!(name, "stdin" | "stdout" | "stderr") {
            place.key(name)
        } else {
            place.key(table).key(name)
        }
    };
    let name = |unit: usize| &draft.nodes[draft.units[unit].node.index()].name;
    let mut told: HashSet<Place> = HashSet::new();
    let mut writers: HashMap<PathBuf, Writer> = HashMap::new();
    for (unit, said) in draft.units.iter().enumerate() {
        for output in &said.ends.outputs {
            for sink in &output.to {
                let Sink::File { path, append } = sink else {
                    continue;
                };
                let Some(path) = path.literal() else { continue };
                let (file, append) = (lexical(dir, path), *append);
                let place = key(unit, &output.name, "outputs");
                match writers.get(&file) {
                    Some(first) if first.append && append => {}
                    Some(first) if first.place == place && first.unit != unit => {
                        // Two of one matrix; told once for all of them, and all write where the first one does.
                        if told.insert(place.clone()) {
                            problems.push(of_one_matrix(draft, first.unit, unit, path, place));
                        }
                    }
                    Some(first) => {
                        let both = if first.unit == unit {
                            format!("by two ends of `{}`", name(unit))
                        } else {
                            format!("by `{}` and by `{}`", name(first.unit), name(unit))
                        };
                        problems.push(
                            Diagnostic::error(Mark::Value(place), format!("{path} is written {both}"))
                                .and(Mark::Value(first.place.clone()), "first here")
                                .help("one would replace the other's: take two files, or a queue with two writers, or `append = true` for both"),
                        );
                    }
                    None => {
                        writers.insert(
                            file,
                            Writer {
                                unit,
                                place,
                                append,
                            },
                        );
                    }
                }
            }
        }
    }
    if writers.is_empty() {
        return;
    }
    for (unit, said) in draft.units.iter().enumerate() {
        for input in &said.ends.inputs {
            for (_, source) in &input.from {
                let Source::File(path) = source else { continue };
                let Some(path) = path.literal() else { continue };
                let Some(writer) = writers
                    .get(&lexical(dir, path))
                    .filter(|writer| writer.unit != unit)
                else {
                    continue;
                };
                let place = key(unit, &input.name, "inputs");
                if !told.contains(&place)
                    && !order.comes_after(said.node, draft.units[writer.unit].node)
                {
                    told.insert(place.clone());
                    problems.push(
                        Diagnostic::warning(
                            Mark::Value(place),
                            format!(
                                "`{}` reads {path}, which `{}` writes, without waiting for it",
                                name(unit),
                                name(writer.unit)
                            ),
                        )
                        .and(Mark::Value(writer.place.clone()), "written here")
                        .help(format!(
                            "add `after = [\"{}\"]` to {} `{}`",
                            draft.nodes[draft.units[writer.unit].node.index()].base,
                            draft.nodes[said.node.index()].table(),
                            draft.nodes[said.node.index()].base
                        )),
                    );
                }
            }
        }
    }
}

/// Two combinations that write one file.
fn of_one_matrix(
    draft: &Draft,
    first: usize,
    second: usize,
    path: &str,
    place: Place,
) -> Diagnostic {
    let node = |unit: usize| &draft.nodes[draft.units[unit].node.index()];
    let (first, second) = (node(first), node(second));
    let both = first.matrix.iter().zip(&second.matrix);
    let axis = both
        .filter(|(one, other)| one != other)
        .map(|((axis, _), _)| axis)
        .next();
    let problem = Diagnostic::error(
        Mark::Value(place),
        format!(
            "{path} is written by `{}` and by `{}`",
            first.name, second.name
        ),
    );
    match axis {
        Some(axis) => problem.help(format!(
            "one would replace the other's: put `${{{{ matrix.{axis} }}}}` in the path, and all else that they differ in"
        )),
        None => problem,
    }
}

/// Two nodes that read procflow's own standard input at the same time.
pub(super) fn standard_input(draft: &Draft, order: &mut Order<'_>, problems: &mut Problems) {
    let mut last: Option<(usize, &str)> = None;
    let mut told = None;
    for (unit, said) in draft.units.iter().enumerate() {
        let mut inputs = said.ends.inputs.iter();
        let Some(input) = inputs.find(|i| i.from.iter().any(|(_, s)| *s == Source::Inherit)) else {
            continue;
        };
        let Some((other, end)) = last.replace((unit, &input.name)) else {
            continue;
        };
        let (node, before) = (said.node, draft.units[other].node);
        let base = &draft.nodes[node.index()].base;
        if node == before
            || told == Some(base)
            || order.comes_after(node, before)
            || order.comes_after(before, node)
        {
            continue;
        }
        // The next one of its matrix is no news.
        told = Some(base);
        let name = |node: NodeId| &draft.nodes[node.index()].name;
        let place = |node: NodeId, end: &str| {
            let place = draft.nodes[node.index()].place();
            Mark::Value(if end == "stdin" {
                place.key(end)
            } else {
                place.key("inputs").key(end)
            })
        };
        let problem = Diagnostic::warning(
            place(node, &input.name),
            format!(
                "`{}` and `{}` both read procflow's standard input: who gets which part of it is chance",
                name(before),
                name(node)
            ),
        );
        if *draft.nodes[before.index()].base == **base {
            problems.push(problem.help("let a process read it, `command = [\"cat\"]` with `stdin = \"inherit\"` and `stdout = \"all\"`; then `stdin = \"all\"` here, and `deliver = \"copy\"` under `[queue.all]`"));
            continue;
        }
        problems.push(
            problem
            .and(place(before, end), "first here")
            .help(format!(
                "let one come after the other: `after = [\"{}\"]` in process `{}` (on a terminal they take turns by themselves)",
                name(before),
                name(node)
            )),
        );
    }
}

/// The path without `.` and empty steps. `..` stays: what it means depends on links.
fn lexical(dir: &Path, path: &str) -> PathBuf {
    dir.join(path)
        .components()
        .filter(|step| *step != Component::CurDir)
        .collect()
}

/// The only node that nothing joins to the others has probably lost its end.
pub(super) fn lonely(draft: &Draft, problems: &mut Problems) {
    let nodes = &draft.nodes;
    // Where something is wrong, that may be what should have joined it.
    if nodes.len() < 3 || problems.fatal() {
        return;
    }
    let mut joined = vec![false; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        for wait in &node.after {
            joined[index] = true;
            joined[wait.node.index()] = true;
        }
    }
    for queue in draft.queues.iter().filter(|queue| !is_own(draft, queue)) {
        for unit in queue.writers.iter().chain(&queue.readers) {
            joined[draft.units[unit.index()].node.index()] = true;
        }
    }
    let mut alone = joined
        .iter()
        .enumerate()
        // Of a service it is told that nobody waits for it.
        .filter(|(index, joined)| !**joined && nodes[*index].service.is_none())
        .map(|(index, _)| index);
    if let (Some(index), None) = (alone.next(), alone.next()) {
        let name = &nodes[index].name;
        let mut problem = Diagnostic::note(format!(
            "`{name}` is the only node that no queue and no wait joins to another: it starts at once"
        ));
        problem = problem.and(Mark::Key(nodes[index].place()), "");
        problems.push(problem);
    }
}

/// Says which queues spill, and why (2.4): one note for each group.
pub(super) fn note_spilling(
    graph: &Graph,
    joined: &[u32],
    meets: &[bool],
    words: &Names<'_>,
    problems: &mut Problems,
) {
    let mut groups: IndexMap<u32, Vec<usize>> = IndexMap::new();
    for (queue, _) in meets.iter().enumerate().filter(|(_, meets)| **meets) {
        if let Some(writer) = graph.queues[queue].ends().next() {
            groups
                .entry(joined[writer as usize])
                .or_default()
                .push(queue);
        }
    }
    for queues in groups.values() {
        let names = listed(queues.iter().map(|&queue| words.queue(queue)));
        let (noun, verb) = if queues.len() == 1 {
            ("queue", "spills")
        } else {
            ("queues", "spill")
        };
        let mut problem = Diagnostic::note(format!(
            "{noun} {names} {verb} to disk when memory is full: data splits and meets again there, where a full pipe could block for ever"
        ));
        let mut marks: Vec<Mark> = Vec::new();
        for &queue in queues.iter().take(6) {
            if let Some(writer) = graph.queues[queue].ends().next() {
                marks.push(words.end(queue, writer, false));
            }
        }
        // Queues of workers are all named in one place.
        marks.dedup();
        for mark in marks {
            problem = problem.and(mark, "");
        }
        problems.push(problem);
    }
}

/// Whether a queue lies within one node: it is procflow's own, for a file.
fn is_own(draft: &Draft, queue: &Queue) -> bool {
    let node = |unit: &UnitId| draft.units[unit.index()].node;
    let mut ends = queue.writers.iter().chain(&queue.readers).map(node);
    let first = ends.next();
    queue.is_internal() && ends.all(|node| Some(node) == first)
}

/// Parts the writers of queues with `feedback` that lead back; for each queue whether it closes a circle.
pub(super) fn close_circles(graph: &mut Graph, queues: &[Queue]) -> Vec<bool> {
    (0..queues.len())
        .map(|queue| queues[queue].feedback && graph.lead_back(queue) > 0)
        .collect()
}

/// Which queues spill because of a cycle: those that would block otherwise, and don't say that they shall.
pub(super) fn spilling(
    graph: &Graph,
    meets: &[bool],
    queues: &[Queue],
    said: &IndexMap<String, spec::Queue>,
) -> Vec<bool> {
    debug_assert_eq!(
        graph.queues.len(),
        meets.len(),
        "BUG: as many answers as queues"
    );
    meets
        .iter()
        .zip(queues)
        .map(|(&meets, queue)| {
            let said = said.get(&*queue.name).and_then(|said| said.overflow);
            meets && queue.overflow == Overflow::Block && said.is_none()
        })
        .collect()
}

/// Says which queues are stored because of a wait (2.3).
pub(super) fn note_stored(stored: &[Option<Why>], words: &Names<'_>, problems: &mut Problems) {
    for (queue, why) in stored.iter().enumerate() {
        if let Some(Why::Wait { reader, writer }) = *why {
            let (reader_name, writer_name) = (words.node(reader.0), words.node(writer.0));
            problems.push(
                Diagnostic::note(format!(
                    "queue `{}` is stored on disk: `{reader_name}` reads it and waits for the end of `{writer_name}`, which writes it",
                    words.queue(queue)
                ))
                .and(words.wait(reader.0, writer.0), "")
                .and(words.end(queue, reader.0, true), ""),
            );
        }
    }
}

/// Warns of circles that neither procflow nor a process of them can end: a fed pool goes on for as long as its queue does, and
/// procflow knows that nothing is left on a circle only where all of it is fed.
pub(super) fn warn_endless(graph: &Graph, draft: &Draft, closes: &[bool], problems: &mut Problems) {
    for (queue, _) in closes.iter().enumerate().filter(|(_, closes)| **closes) {
        let circle = graph.circle(queue);
        let is_fed = |node: &u32| {
            let pool = draft.nodes[*node as usize].pool.as_ref();
            pool.is_some_and(|pool| pool.feed != Feed::Stream)
        };
        let fed = circle.iter().copied().find(is_fed);
        let other = circle.iter().copied().find(|node| !is_fed(node));
        let (Some(fed), Some(other)) = (fed, other) else {
            continue;
        };
        let name = |node: u32| &draft.nodes[node as usize].name;
        let queue = &draft.queues[queue].name;
        problems.push(
            Diagnostic::warning(
                Site::top("queue").key(queue).key("feedback").mark_value(),
                format!(
                    "queue `{queue}` never ends: procflow feeds `{}`, but knows nothing of what `{}`, on the same circle, has in hand",
                    name(fed),
                    name(other)
                ),
            )
            .help(format!(
                "make a pool of `{}` that is fed as well: `feed = \"request\"` or `feed = \"task\"`",
                name(other)
            )),
        );
    }
}

/// Warns of queues that shall block where that may be for ever, and of queues that could lead back and don't.
pub(super) fn warn_blocking(
    meets: &[bool],
    queues: &ends::Queues,
    said: &IndexMap<String, spec::Queue>,
    closes: &[bool],
    problems: &mut Problems,
) {
    let top = Site::top("queue");
    for (name, said) in said {
        let Some(index) = queues.0.get_index_of(name.as_str()) else {
            continue;
        };
        let site = top.key(name);
        if meets.get(index) == Some(&true) && said.overflow == Some(spec::Overflow::Block) {
            problems.push(
                Diagnostic::warning(
                    site.key("overflow").mark_value(),
                    format!("queue `{name}` may block for ever when it is full: data splits and meets again there"),
                )
                .help("leave `overflow` out: then what does not fit memory goes to disk"),
            );
        }
        if said.feedback == Some(true) && closes.get(index) == Some(&false) {
            problems.push(
                Diagnostic::warning(
                    site.key("feedback").mark_value(),
                    format!("queue `{name}` leads back to nobody: none of its readers is upstream of a writer"),
                )
                .help("drop `feedback`"),
            );
        }
    }
}
