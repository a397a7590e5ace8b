//! Where a node's descriptors lead: `stdin`, `stdout`, `stderr`, `inputs`, `outputs`, and the queues that they name.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::diagnostic::{Diagnostic, Mark};
use crate::plan::environment::clash;
use crate::plan::problems::{NAME_RULE, Problems, Site, is_name, listed, variable};
use crate::plan::scope::{Found, Of, Scope, When};
use crate::plan::template::Template;
use crate::plan::{
    DEAD_LETTER, Ends, Feed, Input, Node, Output, QueueId, Sink, Source, UnitId, pools, template,
};
use crate::spec::{self, Inputs, Process, Stdin};

/// Words that say something else than a queue where one could stand.
pub(super) const RESERVED: [&str; 5] = ["inherit", "null", "log", "value", "stdout"];

/// The highest descriptor that may be named: the usual limit of open files is 1,024.
pub(super) const LAST_DESCRIPTOR: u32 = 1023;

/// A queue's end at a node: who, and by which key of the file.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) unit: UnitId,
    pub(super) key: Box<str>,
    /// Key and index below `inputs` and `outputs`, or the index in an array.
    pub(super) sub: Option<Box<str>>,
    pub(super) index: Option<usize>,
}

impl End {
    fn new(unit: UnitId, at: &At<'_>, index: Option<usize>) -> Self {
        let (key, sub) = match *at {
            At::Key(key) => (key, None),
            At::Sub(key, sub) => (key, Some(sub.into())),
        };
        End {
            unit,
            key: key.into(),
            sub,
            index,
        }
    }

    /// Its place in the file.
    pub(super) fn mark(&self, node: &Node) -> Mark {
        let mut place = node.place().key(&self.key);
        if let Some(sub) = &self.sub {
            place = place.key(sub);
        }
        Mark::Value(match self.index {
            Some(index) => place.index(index),
            None => place,
        })
    }
}

/// Which key of a process.
enum At<'a> {
    Key(&'a str),
    Sub(&'a str, &'a str),
}

/// A queue while its ends are collected.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) writers: Vec<End>,
    pub(super) readers: Vec<End>,
    /// procflow's own, within one pool: for a file that its workers share or write together.
    pub(super) internal: bool,
    /// The file that its readers share.
    pub(super) file: Option<Template>,
}

/// All queues so far, in order of first mention.
#[derive(Debug, Default)]
pub(super) struct Queues(
    pub(super) IndexMap<Arc<str>, Draft>,
    /// Of names that values of matrices are in, what they would be as these stand.
    HashMap<Box<str>, Box<str>>,
);

impl Queues {
    fn mention(&mut self, name: &str) -> (QueueId, &mut Draft) {
        let index = match self.0.get_index_of(name) {
            Some(index) => index,
            None => self.0.insert_full(name.into(), Draft::default()).0,
        };
        (QueueId::from(index), &mut self.0[index])
    }
}

/// The names of all queues that a node writes, in the file's order, each with its writers: what a pattern in `inputs` is held
/// against. Nothing is collected where no pattern is.
pub(super) fn written(
    nodes: &IndexMap<String, Process>,
    jobs: u32,
    scope: &Scope<'_>,
) -> IndexMap<String, Vec<usize>> {
    let mut written: IndexMap<String, Vec<usize>> = IndexMap::new();
    if !nodes.values().any(has_pattern) {
        return written;
    }
    // Its problems are found again when the node is built, so here they are dropped.
    let (mut problems, mut values) = (Problems::default(), Vec::new());
    let mut found = Found::new(&mut problems, &mut values);
    let top = Site::top("process");
    for (i, process) in nodes.values().enumerate() {
        let scope = &Scope {
            matrix: scope.matrices.of(i),
            ..*scope
        };
        let workers = match process.pool.as_deref() {
            Some(pool) if pools::feed(pool) == Feed::Stream => {
                Some(pools::workers(pool, jobs, &top, scope, &mut found))
            }
            _ => None,
        };
        let mut add = |name: &String| {
            // Once for each worker, as long as its number is in the name.
            for worker in 0..workers.unwrap_or(1) {
                let scope = Scope {
                    of: workers.map_or(Of::Process, |_| Of::Worker(worker)),
                    ..scope.at(When::Name)
                };
                found.worker.set(false);
                let name = template::parse(name.clone(), &scope, &top, &mut found);
                if let Some(name) = name.literal() {
                    written.entry(name.to_owned()).or_default().push(i);
                }
                if !found.worker.get() {
                    break;
                }
            }
        };
        let outputs = process.outputs.iter().flat_map(|outputs| outputs.values());
        for output in process.stdout.iter().chain(&process.stderr).chain(outputs) {
            let sinks = match output {
                spec::Output::One(sink) => std::slice::from_ref(sink),
                spec::Output::Many(sinks) => sinks.as_slice(),
            };
            for sink in sinks {
                if let spec::Sink::Queue(name) = sink {
                    add(name);
                }
            }
        }
        if let Some(name) = process
            .pool
            .as_ref()
            .and_then(|pool| pool.dead_letter.as_ref())
        {
            add(name);
        }
    }
    written
}

fn has_pattern(process: &Process) -> bool {
    process
        .inputs
        .iter()
        .flat_map(|inputs| inputs.values())
        .any(|inputs| match inputs {
            Inputs::One(one) => is_pattern(one),
            Inputs::Many(many) => many.iter().any(is_pattern),
        })
}

fn is_pattern(stdin: &Stdin) -> bool {
    matches!(stdin, Stdin::Queue(name) if pattern(name))
}

fn pattern(name: &str) -> bool {
    // `{` alone is no pattern: it stands in `${{`.
    name.contains(['*', '?', '['])
}

/// What a node says of its descriptors, taken out of its process.
#[derive(Clone)]
pub(super) struct Said {
    stdin: Option<Stdin>,
    stdout: Option<spec::Output>,
    stderr: Option<spec::Output>,
    inputs: Option<Box<IndexMap<String, Inputs>>>,
    outputs: Option<Box<IndexMap<String, spec::Output>>>,
    dead_letter: Option<String>,
}

impl Said {
    pub(super) fn take(process: &mut Process) -> Self {
        let pool = process.pool.as_mut();
        Said {
            dead_letter: pool.and_then(|pool| pool.dead_letter.take()),
            stdin: process.stdin.take(),
            stdout: process.stdout.take(),
            stderr: process.stderr.take(),
            inputs: process.inputs.take(),
            outputs: process.outputs.take(),
        }
    }

    fn nothing(&self) -> bool {
        self.stdin.is_none()
            && self.stdout.is_none()
            && self.stderr.is_none()
            && self.inputs.is_none()
            && self.outputs.is_none()
            && self.dead_letter.is_none()
    }
}

/// The ends of a node that says nothing of them.
pub(super) fn default_ends() -> Arc<Ends> {
    Arc::new(Ends {
        inputs: vec![Input {
            name: "stdin".into(),
            from: vec![(0, Source::Null)],
        }],
        outputs: vec![
            Output {
                name: "stdout".into(),
                fd: 1,
                to: vec![Sink::Log],
            },
            Output {
                name: "stderr".into(),
                fd: 2,
                to: vec![Sink::Log],
            },
        ],
    })
}

/// What the workers of a pool write to one file, and who puts it together.
#[derive(Debug)]
pub(super) struct Gathered {
    /// The queue between them.
    pub(super) queue: QueueId,
    /// The end with its files.
    pub(super) output: Output,
    /// That end's place.
    key: Box<str>,
    sub: Option<Box<str>>,
}

impl Gathered {
    /// The ends of the unit that puts the file together; that it reads the queue is noted.
    pub(super) fn ends(self, unit: UnitId, queues: &mut Queues) -> Arc<Ends> {
        if let Some((_, draft)) = queues.0.get_index_mut(self.queue.index()) {
            draft.readers.push(End {
                unit,
                key: self.key,
                sub: self.sub,
                index: None,
            });
        }
        Arc::new(Ends {
            inputs: vec![Input {
                name: "stdin".into(),
                from: vec![(0, Source::Queue(self.queue))],
            }],
            outputs: vec![self.output],
        })
    }
}

/// Builds ends, unit after unit.
pub(super) struct Builder<'a> {
    pub(super) scope: Scope<'a>,
    pub(super) node: usize,
    pub(super) queues: &'a mut Queues,
    pub(super) written: &'a IndexMap<String, Vec<usize>>,
    pub(super) default: &'a Arc<Ends>,
    /// The name of the pool, where it has several workers that share files.
    pub(super) shares: Option<&'a str>,
    /// What they write to files.
    pub(super) gathered: Vec<Gathered>,
}

impl Builder<'_> {
    /// The ends of one unit; its queues are noted.
    pub(super) fn build(
        &mut self,
        unit: UnitId,
        said: Said,
        node: &Site<'_>,
        found: &mut Found<'_>,
    ) -> Arc<Ends> {
        if said.nothing() {
            return Arc::clone(self.default);
        }
        let mut descriptors = Descriptors::of(&said);
        let mut inputs = Vec::new();
        let stdin = said.stdin.unwrap_or(Stdin::Null);
        let source = self.source(
            unit,
            stdin,
            &At::Key("stdin"),
            None,
            &node.key("stdin"),
            found,
        );
        inputs.push(Input {
            name: "stdin".into(),
            from: source.into_iter().map(|source| (0, source)).collect(),
        });
        self.check_variables(&said.inputs, "inputs", "IN", node, found);
        let site = node.key("inputs");
        for (name, from) in said.inputs.into_iter().flat_map(|inputs| *inputs) {
            let site = site.key(&name);
            let sources = self.sources(unit, &name, from, &site, found);
            let Some(number) = descriptors.named(&name, "stdin", &site, found) else {
                continue;
            };
            let from = match (number, sources.len()) {
                (Number::Free, _) => sources
                    .into_iter()
                    .map(|source| (descriptors.next(), source))
                    .collect(),
                (Number::Fixed(fd), 0 | 1) => {
                    sources.into_iter().map(|source| (fd, source)).collect()
                }
                (Number::Fixed(fd), several) => {
                    found.problems.push(
                        Diagnostic::error(site.mark_value(), format!("descriptor {fd} can't be {several} inputs"))
                            .help("give the input a name instead of a number: it then gets a descriptor for each"),
                    );
                    continue;
                }
            };
            inputs.push(Input {
                name: name.into(),
                from,
            });
        }
        let stdout = said.stdout.unwrap_or(spec::Output::One(spec::Sink::Log));
        let stderr = said.stderr.unwrap_or(spec::Output::One(spec::Sink::Log));
        let mut outputs = vec![
            Output {
                name: "stdout".into(),
                fd: 1,
                to: self.sinks(unit, stdout, &At::Key("stdout"), &node.key("stdout"), found),
            },
            Output {
                name: "stderr".into(),
                fd: 2,
                to: self.sinks(unit, stderr, &At::Key("stderr"), &node.key("stderr"), found),
            },
        ];
        self.check_variables(&said.outputs, "outputs", "OUT", node, found);
        let site = node.key("outputs");
        for (name, to) in said.outputs.into_iter().flat_map(|outputs| *outputs) {
            let site = site.key(&name);
            let to = self.sinks(unit, to, &At::Sub("outputs", &name), &site, found);
            let fd = match descriptors.named(&name, "stdout", &site, found) {
                None => continue,
                Some(Number::Free) => descriptors.next(),
                Some(Number::Fixed(fd)) => fd,
            };
            outputs.push(Output {
                name: name.into(),
                fd,
                to,
            });
        }
        if let Some(queue) = said.dead_letter {
            let site = node.key(DEAD_LETTER);
            if outputs.iter().any(|output| &*output.name == DEAD_LETTER) {
                found.problems.push(
                    Diagnostic::error(
                        node.key("outputs").key(DEAD_LETTER).mark_key(),
                        "`dead_letter` is both an output and where bad records go",
                    )
                    .and(site.mark_key(), "")
                    .help("give the output another name"),
                );
            }
            let queue = spec::Output::One(spec::Sink::Queue(queue));
            outputs.push(Output {
                name: DEAD_LETTER.into(),
                fd: LAST_DESCRIPTOR + 1,
                to: self.sinks(unit, queue, &At::Key(DEAD_LETTER), &site, found),
            });
        }
        for output in &mut outputs {
            let gathered = self.gathered.iter_mut();
            for gathered in gathered.filter(|gathered| gathered.output.name == output.name) {
                gathered.output.fd = output.fd;
            }
        }
        Arc::new(Ends { inputs, outputs })
    }

    /// A queue of procflow's own for an end of this pool.
    fn internal(&mut self, pool: &str, at: &At<'_>) -> (QueueId, &mut Draft) {
        // No name of the file has a dot.
        let name = match at {
            At::Key(key) => format!("{pool}.{key}"),
            At::Sub(key, sub) => format!("{pool}.{key}.{sub}"),
        };
        let (queue, draft) = self.queues.mention(&name);
        draft.internal = true;
        (queue, draft)
    }

    /// Where the files among the ends of an output lead: the workers of a pool write them together, by a queue of their own.
    fn gather(&mut self, unit: UnitId, at: &At<'_>, files: Vec<Sink>) -> Option<Sink> {
        let pool = self.shares?;
        let end = End::new(unit, at, None);
        let (queue, draft) = self.internal(pool, at);
        draft.writers.push(end);
        let (name, key, sub) = match *at {
            At::Key(key) => (key, key, None),
            At::Sub(key, sub) => (sub, key, Some(sub.into())),
        };
        self.gathered.push(Gathered {
            queue,
            output: Output {
                name: name.into(),
                fd: 1,
                to: files,
            },
            key: key.into(),
            sub,
        });
        Some(Sink::Queue(queue))
    }

    /// Two names that would be one variable.
    fn check_variables<T>(
        &self,
        ends: &Option<Box<IndexMap<String, T>>>,
        key: &str,
        prefix: &str,
        node: &Site<'_>,
        found: &mut Found<'_>,
    ) {
        let Some(ends) = ends.as_ref().filter(|ends| ends.len() > 1) else {
            return;
        };
        if let Some((first, second)) = clash(ends.keys().map(String::as_str)) {
            let site = node.key(key);
            found.problems.push(
                Diagnostic::error(
                    site.key(second).mark_key(),
                    format!(
                        "`{first}` and `{second}` would both be the variable `{prefix}_{}`",
                        variable(first)
                    ),
                )
                .and(site.key(first).mark_key(), "")
                .help("rename one of them"),
            );
        }
    }

    fn sources(
        &mut self,
        unit: UnitId,
        name: &str,
        from: Inputs,
        site: &Site<'_>,
        found: &mut Found<'_>,
    ) -> Vec<Source> {
        let at = At::Sub("inputs", name);
        match from {
            Inputs::One(one) => self.matching(unit, one, &at, None, site, found),
            Inputs::Many(many) => {
                if many.is_empty() {
                    found.problems.push(
                        Diagnostic::error(site.mark_value(), "an empty array of inputs")
                            .help("for an input without data say `\"null\"`"),
                    );
                }
                let mut sources = Vec::new();
                for (i, one) in many.into_iter().enumerate() {
                    sources.extend(self.matching(unit, one, &at, Some(i), &site.index(i), found));
                }
                sources
            }
        }
    }

    /// One element of `inputs`: a pattern gives several.
    fn matching(
        &mut self,
        unit: UnitId,
        one: Stdin,
        at: &At<'_>,
        index: Option<usize>,
        site: &Site<'_>,
        found: &mut Found<'_>,
    ) -> Vec<Source> {
        if !is_pattern(&one) {
            return self
                .source(unit, one, at, index, site, found)
                .into_iter()
                .collect();
        }
        let Stdin::Queue(text) = one else {
            return Vec::new();
        };
        let text = template::parse(text, &self.scope.at(When::Name), site, found);
        let Some(text) = text.literal() else {
            return Vec::new();
        };
        let glob = match globset::Glob::new(text) {
            Ok(glob) => glob.compile_matcher(),
            Err(reason) => {
                found.problems.push(Diagnostic::error(
                    site.mark_value(),
                    format!("not a pattern: `{text}`: {}", reason.kind()),
                ));
                return Vec::new();
            }
        };
        // What the node writes itself is not meant: that would only be a cycle.
        let names: Vec<&String> = self
            .written
            .iter()
            .filter(|(name, writers)| glob.is_match(name.as_str()) && !writers.contains(&self.node))
            .map(|(name, _)| name)
            .collect();
        if names.is_empty() {
            let others = self
                .written
                .iter()
                .filter(|(_, writers)| !writers.contains(&self.node));
            let written = others.map(|(name, _)| name.as_str());
            let help = written
                .clone()
                .next()
                .map(|_| format!("queues that are written: {}", listed(written.clone())));
            found.problems.push_unknown(
                Diagnostic::error(site.mark_value(), format!("no queue matches `{text}`")),
                text,
                written,
                help,
            );
        }
        names
            .into_iter()
            .filter_map(|name| self.read(unit, name, at, index, site, found))
            .collect()
    }

    fn source(
        &mut self,
        unit: UnitId,
        one: Stdin,
        at: &At<'_>,
        index: Option<usize>,
        site: &Site<'_>,
        found: &mut Found<'_>,
    ) -> Option<Source> {
        match one {
            Stdin::Null => Some(Source::Null),
            Stdin::Inherit => Some(Source::Inherit),
            Stdin::File(path) => {
                found.worker.set(false);
                let path = self.path(path, &site.key("file"), found);
                let own = found.worker.get();
                match (self.shares, at) {
                    (Some(pool), At::Key("stdin")) if !own => {
                        let end = End::new(unit, at, index);
                        let (queue, draft) = self.internal(pool, at);
                        draft.file = Some(path);
                        draft.readers.push(end);
                        Some(Source::Queue(queue))
                    }
                    _ => Some(Source::File(path)),
                }
            }
            Stdin::Text(text) => {
                if text.contains("${{") {
                    found.problems.push(
                        Diagnostic::warning(
                            site.key("text").mark_value(),
                            "`${{` in `text`, where nothing is replaced",
                        )
                        .help("let a `script` print it from environment variables"),
                    );
                }
                Some(Source::Text(text.into()))
            }
            Stdin::Queue(name) => {
                let name = self.queue_name(name, site, found)?;
                self.read(unit, &name, at, index, site, found)
            }
        }
    }

    fn read(
        &mut self,
        unit: UnitId,
        name: &str,
        at: &At<'_>,
        index: Option<usize>,
        site: &Site<'_>,
        found: &mut Found<'_>,
    ) -> Option<Source> {
        let (queue, draft) = self.queues.mention(name);
        if draft.readers.last().is_some_and(|end| end.unit == unit) {
            found.problems.push(
                Diagnostic::error(
                    site.mark_value(),
                    format!("queue `{name}` is read twice by one node"),
                )
                .help("a second read would take records away from the first: read it once"),
            );
            return None;
        }
        draft.readers.push(End::new(unit, at, index));
        Some(Source::Queue(queue))
    }

    fn sinks(
        &mut self,
        unit: UnitId,
        said: spec::Output,
        at: &At<'_>,
        site: &Site<'_>,
        found: &mut Found<'_>,
    ) -> Vec<Sink> {
        let mut files = Vec::new();
        let mut sinks = self.said_sinks(unit, said, at, site, &mut files, found);
        if !files.is_empty() {
            sinks.extend(self.gather(unit, at, files));
        }
        sinks
    }

    /// The same without the `files` that the workers of a pool write together.
    fn said_sinks(
        &mut self,
        unit: UnitId,
        said: spec::Output,
        at: &At<'_>,
        site: &Site<'_>,
        files: &mut Vec<Sink>,
        found: &mut Found<'_>,
    ) -> Vec<Sink> {
        let shares = self.shares.is_some();
        let mut sink = |builder: &mut Self, one, index, site: &Site<'_>, found: &mut Found<'_>| {
            found.worker.set(false);
            let sink = builder.sink(unit, one, at, index, site, found)?;
            let own = found.worker.get();
            if shares && !own && matches!(sink, Sink::File { .. }) {
                if files.contains(&sink) {
                    found.problems.push(twice(site));
                } else {
                    files.push(sink);
                }
                return None;
            }
            Some(sink)
        };
        match said {
            spec::Output::One(one) => sink(self, one, None, site, found).into_iter().collect(),
            spec::Output::Many(many) => {
                if many.is_empty() {
                    found.problems.push(
                        Diagnostic::error(site.mark_value(), "an empty array of outputs")
                            .help("to drop the output say `\"null\"`"),
                    );
                }
                let alone = many.len() == 1;
                let mut sinks = Vec::new();
                for (i, one) in many.into_iter().enumerate() {
                    let site = site.index(i);
                    if one == spec::Sink::Stdout && !alone {
                        found.problems.push(
                            Diagnostic::error(
                                site.mark_value(),
                                "`\"stdout\"` stands for the whole end and can't be one of several",
                            )
                            .help("say `stderr = \"stdout\"`, and what gets a copy in `stdout`"),
                        );
                        continue;
                    }
                    if let Some(sink) = sink(self, one, Some(i), &site, found) {
                        if sinks.contains(&sink) {
                            found.problems.push(twice(&site));
                            continue;
                        }
                        sinks.push(sink);
                    }
                }
                sinks
            }
        }
    }

    fn sink(
        &mut self,
        unit: UnitId,
        one: spec::Sink,
        at: &At<'_>,
        index: Option<usize>,
        site: &Site<'_>,
        found: &mut Found<'_>,
    ) -> Option<Sink> {
        match one {
            spec::Sink::Log => Some(Sink::Log),
            spec::Sink::Null => Some(Sink::Null),
            spec::Sink::Inherit => Some(Sink::Inherit),
            // That only `stdout` can be the value, and only `stderr` the same as `stdout`, is seen when the file is read.
            spec::Sink::Value => Some(Sink::Value),
            spec::Sink::Stdout => Some(Sink::Stdout),
            spec::Sink::File { path, append } => Some(Sink::File {
                path: self.path(path, &site.key("file"), found),
                append,
            }),
            spec::Sink::Queue(name) => {
                let name = self.queue_name(name, site, found)?;
                let (queue, draft) = self.queues.mention(&name);
                let again = draft.writers.last().filter(|end| end.unit == unit);
                if let Some(first) = again {
                    // In one array: said where the array is read.
                    if first.key == End::new(unit, at, index).key
                        && first.sub == End::new(unit, at, index).sub
                    {
                        return Some(Sink::Queue(queue));
                    }
                    let help = match at {
                        At::Key("stderr") if &*first.key == "stdout" => {
                            "say `stderr = \"stdout\"`: both are then one end of the queue"
                        }
                        _ => "two queues, or one end, can carry it",
                    };
                    found.problems.push(
                        Diagnostic::error(
                            site.mark_value(),
                            format!("queue `{name}` is written by two ends of one node"),
                        )
                        .help(help),
                    );
                    return None;
                }
                draft.writers.push(End::new(unit, at, index));
                Some(Sink::Queue(queue))
            }
        }
    }

    fn path(&self, path: String, site: &Site<'_>, found: &mut Found<'_>) -> template::Template {
        if path.is_empty() {
            found.problems.push(
                Diagnostic::error(site.mark_value(), "an empty path")
                    .help("name a file; for none say `\"null\"`"),
            );
        }
        template::parse(path, &self.scope.at(When::Start), site, found)
    }

    /// A queue's name with what is known put in; none where it can't be one, which is then a problem.
    fn queue_name(
        &mut self,
        name: String,
        site: &Site<'_>,
        found: &mut Found<'_>,
    ) -> Option<Box<str>> {
        let before = found.problems.0.len();
        found.secret.set(false);
        found.matrix.set(false);
        let said = name.clone();
        let template::Template::Literal(name) =
            template::parse(name, &self.scope.at(When::Name), site, found)
        else {
            return None;
        };
        if found.problems.0.len() > before {
            return None;
        }
        if found.secret.get() {
            found.problems.push(
                Diagnostic::error(
                    site.mark_value(),
                    "a secret in a queue's name, which reports show",
                )
                .help("name the queue by something else"),
            );
            return None;
        }
        if RESERVED.contains(&&*name) {
            found.problems.push(reserved(&name, site.mark_value()));
            return None;
        }
        if !is_name(&name) {
            let problem = Diagnostic::error(
                site.mark_value(),
                format!("`{}` can't be a queue's name", name.escape_debug()),
            );
            found.problems.push(if pattern(&name) {
                problem.help("a pattern works in `inputs`: `inputs = { parts = \"sorted-*\" }`")
            } else if name.contains(['/', '.']) {
                problem.help(format!("for a file say `{{ file = \"{name}\" }}`"))
            } else {
                problem.help(NAME_RULE)
            });
            return None;
        }
        if found.matrix.get() {
            self.check_apart(said, &name, site, found);
        }
        Some(name)
    }

    /// Two values of a matrix that differ, and would be one in the name of a queue.
    fn check_apart(&mut self, said: String, name: &str, site: &Site<'_>, found: &mut Found<'_>) {
        let meant = template::parse(said, &self.scope.at(When::Plan), site, found);
        let Some(meant) = meant.literal() else { return };
        let known = self.queues.1.entry(name.into());
        let known = known.or_insert_with(|| meant.into());
        if **known != *meant {
            found.problems.push(
                Diagnostic::error(
                    site.mark_value(),
                    format!("`{known}` and `{meant}` would both be queue `{name}`"),
                )
                .help("names of queues have letters, digits, `_` and `-` only, and `_` stands for all else: take values that differ in more"),
            );
        }
    }
}

/// An end that stands in an array twice.
fn twice(site: &Site<'_>) -> Diagnostic {
    Diagnostic::error(site.mark_value(), "the same end twice in one array")
        .help("drop one of the two")
}

/// A queue that has the name of another kind of end.
pub(super) fn reserved(name: &str, mark: Mark) -> Diagnostic {
    Diagnostic::error(mark, format!("a queue can't be called `{name}`")).help(format!(
        "`\"{name}\"` means something else as an end of a process: choose another name"
    ))
}

/// Which descriptors are taken, by node.
struct Descriptors {
    taken: Vec<(u32, Box<str>)>,
    next: u32,
}

enum Number {
    Fixed(u32),
    Free,
}

impl Descriptors {
    /// With all that the node names by number, so that named ends get others, whatever stands first.
    fn of(said: &Said) -> Self {
        let inputs = said.inputs.iter().flat_map(|inputs| inputs.keys());
        let outputs = said.outputs.iter().flat_map(|outputs| outputs.keys());
        let mut taken: Vec<(u32, Box<str>)> = vec![
            (0, "stdin".into()),
            (1, "stdout".into()),
            (2, "stderr".into()),
        ];
        taken.extend(
            inputs
                .chain(outputs)
                .filter_map(|name| name.parse().ok())
                .map(|fd| (fd, "".into())),
        );
        Descriptors { taken, next: 3 }
    }

    /// The lowest that is not taken.
    fn next(&mut self) -> u32 {
        while self.taken.iter().any(|(fd, _)| *fd == self.next) {
            self.next += 1;
        }
        self.next += 1;
        self.next - 1
    }

    /// What a name says of its descriptor; none where it can't be a name.
    fn named(
        &mut self,
        name: &str,
        standard: &str,
        site: &Site<'_>,
        found: &mut Found<'_>,
    ) -> Option<Number> {
        if matches!(name, "stdin" | "stdout" | "stderr") {
            found.problems.push(
                Diagnostic::error(site.mark_key(), format!("`{name}` is a key of its own"))
                    .help(format!("move it out: `{name} = ...`")),
            );
            return None;
        }
        if is_name(name) {
            return Some(Number::Free);
        }
        let fd = match name.parse::<u32>() {
            Ok(fd) if fd.to_string() == name => fd,
            _ => {
                found.problems.push(
                    Diagnostic::error(
                        site.mark_key(),
                        format!("`{}` can't be the name of an end", name.escape_debug()),
                    )
                    .help(format!("{NAME_RULE}; or a number: that descriptor")),
                );
                return None;
            }
        };
        if fd > LAST_DESCRIPTOR {
            found.problems.push(
                Diagnostic::error(site.mark_key(), format!("descriptor {fd} is too high"))
                    .help(format!("descriptors go up to {LAST_DESCRIPTOR}")),
            );
            return None;
        }
        if fd <= 2 {
            let key = ["stdin", "stdout", "stderr"][fd as usize];
            let hint = if key == standard || standard == "stdout" && key == "stderr" {
                format!("say `{key} = ...`")
            } else {
                "take a number from 3".to_owned()
            };
            found.problems.push(
                Diagnostic::error(site.mark_key(), format!("descriptor {fd} is `{key}`"))
                    .help(hint),
            );
            return None;
        }
        // Named twice: once in `inputs`, once in `outputs`; said at the second.
        if let Some(entry) = self
            .taken
            .iter_mut()
            .find(|(taken, by)| *taken == fd && !by.is_empty())
        {
            let _ = entry;
            found.problems.push(
                Diagnostic::error(
                    site.mark_key(),
                    format!("descriptor {fd} is in both `inputs` and `outputs`"),
                )
                .help("give one of them another number, or a name"),
            );
            return None;
        }
        if let Some(entry) = self.taken.iter_mut().find(|(taken, _)| *taken == fd) {
            entry.1 = "used".into();
        }
        Some(Number::Fixed(fd))
    }
}
