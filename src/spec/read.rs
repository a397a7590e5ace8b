//! From the text of a pipeline file to a [`Spec`], or to every problem that the text has.
//!
//! A good file is parsed once, in one pass, and keeps no places. serde stops at its first problem, so a file with one
//! is read again, table by table: what is wrong is noted and taken out, and the table read again, until nothing is
//! wrong any more. Unknown keys go the same way (`deny_unknown_fields`): one mechanism, and a good file pays nothing
//! for it. (serde_ignored was the road not taken: it copies every key of a good file, too.)

use std::collections::BTreeSet;
use std::ops::{Bound, Range};

use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, ValueDeserializer};

use crate::diagnostic::{Diagnostic, Label, Mark, Place, Step, did_you_mean};
use crate::spec::pieces::{PIECE, in_pieces};
use crate::spec::syntax::{roots, syntax};
use crate::spec::{Param, PoolTable, Process, Queue, Spec, pools};

/// So many problems are shown at most.
const MOST: usize = 100;

/// A file that cannot be read as it is.
#[derive(Debug, Clone)]
pub struct Wrong {
    /// Every problem that was found.
    pub problems: Vec<Diagnostic>,
    /// What could be made of the rest, so that its meaning can be checked as well; none where the text is no TOML.
    pub partial: Option<Box<Partial>>,
}

/// What a file with problems says in its other parts.
#[derive(Debug, Clone)]
pub struct Partial {
    /// The file without what is wrong in it.
    pub spec: Spec,
    /// What was left out of it.
    lost: BTreeSet<Place>,
    /// The tables in which something was left out.
    damaged: BTreeSet<Vec<Step>>,
}

impl Partial {
    /// Whether a problem that was found in [`Partial::spec`] is one of the file, and not of what was left out: it has
    /// no mark in a table that lost something, and is not about the file as a whole.
    pub fn trusts(&self, problem: &Diagnostic) -> bool {
        problem.labels.iter().all(|label| match &label.place {
            Mark::Key(place) | Mark::Value(place) | Mark::Within(place, _) => {
                let whole = !self.damaged.contains(section(place)) || self.is_whole_wait(place);
                whole && !place.0.is_empty()
            }
            Mark::Bytes(_) => true,
        })
    }

    /// Whether this is a place in the `after` of a process that lost nothing: what it says does not hang on the other keys.
    fn is_whole_wait(&self, place: &Place) -> bool {
        let Some(after) = place.0.get(..3) else {
            return false;
        };
        matches!(after, [Step::Key(process), _, Step::Key(after)] if is_node(process) && after == "after")
            && !self.lost.iter().any(|lost| lost.0.starts_with(after))
    }

    /// Whether an end of a queue, or what a queue says of its readers, may be among what was left out.
    pub fn lost_ends(&self) -> bool {
        const ENDS: [&str; 11] = [
            "stdin",
            "stdout",
            "stderr",
            "inputs",
            "outputs",
            "deliver",
            "dead_letter",
            "workers",
            "feed",
            "tasks",
            // Names of queues may come from it.
            "matrix",
        ];
        self.lost.iter().any(|lost| match lost.0.as_slice() {
            [Step::Key(table), _, Step::Key(key), ..] if is_node(table) || table == "queue" => {
                let known = || ENDS.iter().chain(&OTHERS).copied();
                let meant = known()
                    .find(|known| known == key)
                    .or_else(|| did_you_mean(key, known()));
                meant.is_none_or(|meant| ENDS.contains(&meant))
            }
            [Step::Key(table), ..] => is_node(table) || table == "queue",
            _ => false,
        })
    }
}

/// Whether this is one of the tables that hold nodes.
fn is_node(table: &str) -> bool {
    matches!(table, "process" | "pool")
}

/// Keys of processes, pools and queues that name no end.
const OTHERS: [&str; 43] = [
    "command",
    "script",
    "shell",
    "cwd",
    "env",
    "env_file",
    "clear_env",
    "reads",
    "writes",
    "after",
    "timeout",
    "stop_signal",
    "stop_grace",
    "retries",
    "success_codes",
    "epipe_codes",
    "allow_failure",
    "cpus",
    "memory",
    "limits",
    "nice",
    "description",
    "tags",
    "records",
    "max_record",
    "capacity",
    "merge",
    "on_writer_failure",
    "max_records",
    "overflow",
    "header",
    "store",
    "feedback",
    "order",
    "batch",
    "max_in_flight",
    "recycle_after",
    "task_timeout",
    "resources",
    "when",
    "service",
    "needs",
    "depends_on",
];

/// The table that a place belongs to: a whole process, queue or parameter, or the top-level key.
fn section(place: &Place) -> &[Step] {
    let deep = matches!(place.0.first(), Some(Step::Key(key)) if matches!(key.as_str(), "process" | "pool" | "queue" | "params"));
    let length = if deep { 2 } else { 1 };
    place.0.get(..length).unwrap_or(&place.0)
}

/// Reads a pipeline file.
///
/// # Errors
/// [`Wrong`], with every problem of the text: all syntax errors, or else all unknown keys and all values of the wrong
/// kind (up to 100 in all).
pub fn read(text: &str) -> Result<Spec, Wrong> {
    if let Some(spec) = in_pieces(text, PIECE) {
        return Ok(spec);
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let errors = roots(&errors, text);
        let explained = errors.iter().take(MOST).enumerate();
        // Where a duplicate stood first is found by reading again, which is only done for a few in a large file.
        let mut problems: Vec<_> = explained
            .map(|(i, error)| syntax(error, text, i * text.len() < 4 << 20))
            .collect();
        if errors.len() > MOST {
            problems.push(more_problems());
        }
        return Err(Wrong {
            problems,
            partial: None,
        });
    }
    let mut reader = Reader::default();
    let spec = reader.spec(table.into_inner());
    Err(reader.finish(spec))
}

/// Reads with all problems noted.
#[derive(Default)]
struct Reader {
    problems: Vec<Diagnostic>,
    damaged: BTreeSet<Place>,
}

impl Reader {
    /// Reads the file in pieces: each process, queue and parameter, and then the rest. The cost of a problem is then
    /// that of reading its piece again, not the file.
    fn spec(&mut self, mut root: DeTable<'_>) -> Spec {
        let params = self.each::<Param>(&mut root, "params");
        let behind = pools::behind(&root);
        let process = self.each::<Process>(&mut root, "process");
        let pool = self.each::<PoolTable>(&mut root, "pool");
        let mut pool = pool
            .into_iter()
            .map(|(name, table)| (name, table.into()))
            .collect();
        pools::place(&mut pool, &behind);
        let queue = self.each::<Queue>(&mut root, "queue");
        let root = Spanned::new(0..0, DeValue::Table(root));
        let rest: Spec = self.piece(root, &Place::default()).unwrap_or_default();
        Spec {
            params,
            process,
            pool,
            queue,
            ..rest
        }
    }

    /// Takes the table of tables `key` out of the root, if it is one, and reads each.
    fn each<T: DeserializeOwned + Default>(
        &mut self,
        root: &mut DeTable<'_>,
        key: &str,
    ) -> IndexMap<String, T> {
        let mut read = IndexMap::new();
        if !root
            .get(key)
            .is_some_and(|value| value.get_ref().is_table())
        {
            return read;
        }
        let Some(DeValue::Table(tables)) = root.remove(key).map(Spanned::into_inner) else {
            return read;
        };
        for (name, value) in tables {
            let name = name.into_inner().into_owned();
            // One that could not be read at all still exists: others may name it.
            let one = self
                .piece(value, &Place::of(&[key, &name]))
                .unwrap_or_default();
            read.insert(name, one);
        }
        read
    }

    /// Reads one value again and again, each time without what was wrong in it the last time.
    fn piece<T: DeserializeOwned>(
        &mut self,
        value: Spanned<DeValue<'_>>,
        place: &Place,
    ) -> Option<T> {
        let mut left = value.clone();
        // Each round costs the piece again: one with 100,000 problems must not be read 100,000 times.
        while self.problems.len() <= MOST {
            let error = match T::deserialize(ValueDeserializer::from(left.clone())) {
                Ok(read) => return Some(read),
                Err(error) => error,
            };
            let at = error.span().unwrap_or_else(|| value.span());
            let (mut here, mut there) = (Vec::new(), Vec::new());
            if !find(&left, &at, &mut here) || !find(&value, &at, &mut there) {
                // The piece itself is of the wrong kind.
                self.note(&error, &at, place, value.get_ref());
                return None;
            }
            // The place is that in the file: in what is left, elements of arrays have moved up.
            let mut wrong = place.clone();
            wrong.0.extend(there.iter().cloned());
            if let Some(found) = look(&value, &there) {
                self.note(&error, &at, &wrong, found);
            }
            remove(&mut left, &here);
        }
        None
    }

    /// Notes a problem, unless it only comes from what was taken out before.
    fn note(
        &mut self,
        error: &toml::de::Error,
        at: &Range<usize>,
        place: &Place,
        found: &DeValue<'_>,
    ) {
        // In their order, the places within a place follow it.
        let after = (Bound::Excluded(place), Bound::Unbounded);
        let within = self.damaged.range::<Place, _>(after).next();
        let consequence = within.is_some_and(|damaged| damaged.0.starts_with(&place.0));
        self.damaged.insert(place.clone());
        if !consequence {
            self.problems
                .push(explain(error.message(), at, place, found));
        }
    }

    fn finish(mut self, spec: Spec) -> Wrong {
        self.problems
            .sort_by_key(|problem| match problem.labels.first() {
                Some(Label {
                    place: Mark::Bytes(at),
                    ..
                }) => at.start,
                _ => 0,
            });
        if self.problems.len() > MOST {
            self.problems.truncate(MOST);
            self.problems.push(more_problems());
            return Wrong {
                problems: self.problems,
                partial: None,
            };
        }
        let damaged = self
            .damaged
            .iter()
            .map(|place| section(place).to_vec())
            .collect();
        Wrong {
            problems: self.problems,
            partial: Some(Box::new(Partial {
                spec,
                lost: self.damaged,
                damaged,
            })),
        }
    }
}

fn more_problems() -> Diagnostic {
    Diagnostic::note(format!("there are more problems than these {MOST}"))
}

/// Finds the deepest entry or element that a problem at the bytes `at` belongs to. False where that is the value itself.
///
/// A key and its value are one entry: a problem of either takes both out. Spans are compared, not searched: the value that
/// a problem belongs to has exactly the problem's span, and a table's span is its header alone.
fn find(value: &Spanned<DeValue<'_>>, at: &Range<usize>, steps: &mut Vec<Step>) -> bool {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table {
                steps.push(Step::Key(key.get_ref().to_string()));
                if find(value, at, steps) || value.span() == *at || key.span() == *at {
                    return true;
                }
                steps.pop();
            }
        }
        DeValue::Array(array) => {
            for (index, value) in array.iter().enumerate() {
                steps.push(Step::Index(index));
                if find(value, at, steps) || value.span() == *at {
                    return true;
                }
                steps.pop();
            }
        }
        _ => {}
    }
    false
}

/// The value at a path.
fn look<'a, 'i>(value: &'a Spanned<DeValue<'i>>, steps: &[Step]) -> Option<&'a DeValue<'i>> {
    steps
        .iter()
        .try_fold(value.get_ref(), |value, step| match step {
            Step::Key(key) => value.get(key.as_str()).map(Spanned::get_ref),
            Step::Index(index) => value.get(*index).map(Spanned::get_ref),
        })
}

/// Takes the entry or element at a path out.
fn remove<'i>(value: &mut Spanned<DeValue<'i>>, steps: &[Step]) {
    let Some((last, parents)) = steps.split_last() else {
        return;
    };
    let mut here = value.get_mut();
    for step in parents {
        let next = match (here, step) {
            (DeValue::Table(table), Step::Key(key)) => table.get_mut(key.as_str()),
            (DeValue::Array(array), Step::Index(index)) => array.get_mut(*index),
            _ => None,
        };
        let Some(next) = next else { return };
        here = next.get_mut();
    }
    match (here, last) {
        (DeValue::Table(table), Step::Key(key)) => {
            table.remove(key.as_str());
        }
        (DeValue::Array(array), Step::Index(index)) => {
            let rest = std::mem::replace(array, DeArray::new())
                .into_iter()
                .enumerate()
                .filter(|(i, _)| i != index);
            *array = rest.map(|(_, value)| value).collect::<DeArray<'i>>();
        }
        _ => {}
    }
}

/// Keys that the contract has and this version does not.
const LATER: [(&str, &str); 1] = [("executor", "executors are not part of this version")];

/// Puts serde's message into our words. That these parts of serde's messages are what we take them for is held by the
/// tests below, which assert whole messages.
fn explain(message: &str, at: &Range<usize>, place: &Place, found: &DeValue<'_>) -> Diagnostic {
    let mark = Mark::Bytes(at.clone());
    let subject = place.in_words();
    // To serde, a date is a table with a key of the parser's own.
    let date = matches!(found, DeValue::Datetime(_));
    if date && message.starts_with("unknown field `$__toml_private") {
        return Diagnostic::error(mark, format!("{subject}: a date or time cannot stand here"));
    }
    if let Some(rest) = message.strip_prefix("unknown field `")
        && let Some(Step::Key(key)) = place.0.last()
        && let Some(known) = rest
            .strip_prefix(key.as_str())
            .and_then(|rest| rest.strip_prefix("`, expected "))
    {
        return unknown_key(mark, key, place, found, &quoted(known));
    }
    let (message, help) = message
        .split_once('\n')
        .map_or((message, None), |(message, help)| (message, Some(help)));
    if let Some(field) = message.strip_prefix("missing field `") {
        return Diagnostic::error(mark, format!("{subject}: `{field} is missing"));
    }
    let unexpected = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "));
    let Some((given, expected)) = unexpected.and_then(|rest| rest.rsplit_once(", expected "))
    else {
        let diagnostic = Diagnostic::error(mark, format!("{subject}: {message}"));
        return match help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        };
    };
    let expected = match expected {
        "a map" => "a table",
        "a sequence" => "an array of strings",
        "a boolean" => "true or false",
        other => other,
    };
    let given = match given {
        "map" if date => "a date or time".to_owned(),
        "map" => "a table".to_owned(),
        "sequence" => "an array".to_owned(),
        // The parser hands on what fits no i64 with a word on how.
        other => other
            .trim_end_matches(" as i128")
            .trim_end_matches(" as u128")
            .replace("floating point", "number"),
    };
    let diagnostic = Diagnostic::error(
        mark,
        format!("{subject}: expected {expected}, found {given}"),
    );
    match help_with(expected, place, found) {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

/// The way out where `found` stands and `expected` should.
fn help_with(expected: &str, place: &Place, found: &DeValue<'_>) -> Option<String> {
    let key = match place.0.last() {
        Some(Step::Key(key)) => key.as_str(),
        _ => "",
    };
    let number = expected.starts_with("a number") || expected.starts_with("an exit code");
    let array = expected.starts_with("an array");
    match found {
        DeValue::Integer(number) if key == "stop_signal" => {
            let name = i32::try_from(number.to_string().parse::<i64>().ok()?).ok()?;
            let name = nix::sys::signal::Signal::try_from(name).ok()?.as_str();
            Some(format!("write \"{}\"", name.trim_start_matches("SIG")))
        }
        DeValue::Float(_) if expected == "a string or a whole number" => Some(format!(
            "put it in quotes, \"{}\": as a number 3.10 would be 3.1",
            plain(found)
        )),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_)
            if expected.starts_with("a string") =>
        {
            Some(format!("put it in quotes: \"{}\"", plain(found)))
        }
        DeValue::Datetime(date) if expected.starts_with("a string") => {
            Some(format!("put it in quotes: \"{date}\""))
        }
        DeValue::String(text) if key == "jobs" && text == "auto" => {
            Some("leave `jobs` out for the CPUs that procflow may use".to_owned())
        }
        DeValue::String(text) if number && text.parse::<i64>().is_ok() => {
            Some(format!("write it without quotes: {text}"))
        }
        DeValue::String(text) if expected == "true or false" => {
            let truth = match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => "true",
                "false" | "no" | "off" | "0" => "false",
                _ => return None,
            };
            Some(format!("write {truth}, without quotes"))
        }
        // `include = ["a"]`
        DeValue::String(_) if expected == "a table such as { py = \"3.12\" }" => Some(
            "`include` and `exclude` hold combinations: call an axis something else".to_owned(),
        ),
        DeValue::String(text)
            if matches!(expected, "an array of strings" | "an array of values") =>
        {
            Some(format!("write [{text:?}]"))
        }
        DeValue::Table(_) if expected.starts_with("an array of tables") => {
            Some("put it in brackets: [{ ... }]".to_owned())
        }
        DeValue::Integer(_) if array => Some(format!("write [{}]", plain(found))),
        DeValue::Table(_) if array && key == "after" => {
            Some("put it in brackets: [{ ... }]".to_owned())
        }
        DeValue::Array(_) if key == "script" => {
            Some("an array of arguments is a `command`".to_owned())
        }
        DeValue::Array(_) if matches!(key, "inputs" | "outputs") => Some(format!(
            "give each a name: `{key} = {{ left = \"q1\", right = \"q2\" }}`"
        )),
        DeValue::Array(_) if key == "env" => {
            Some("write { NAME = \"value\" }, or name a file by `env_file`".to_owned())
        }
        // `[[process]]`: its place is that of the array or of its first element, which have the same span.
        DeValue::Array(_) | DeValue::Table(_) => match place.0.as_slice() {
            [Step::Key(table)] | [Step::Key(table), Step::Index(_)]
                if matches!(table.as_str(), "process" | "pool" | "queue") =>
            {
                Some(format!("write a table for each: `[{table}.NAME]`"))
            }
            _ => None,
        },
        _ => None,
    }
}

/// A number or truth value as it is written.
fn plain(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        other => other.type_str().to_owned(),
    }
}

/// The names in serde's "`a`, `b` or `c`".
fn quoted(list: &str) -> Vec<&str> {
    list.split('`').skip(1).step_by(2).collect()
}

/// What other programs call a key, and what it is called here.
const ELSEWHERE: [(&str, &[&str]); 27] = [
    (
        "after",
        &[
            "needs",
            "depends_on",
            "depends",
            "deps",
            "dependencies",
            "requires",
            "wait_for",
        ],
    ),
    ("command", &["cmd", "exec", "args", "argv", "entrypoint"]),
    ("script", &["run", "shell_command", "sh", "bash"]),
    (
        "cwd",
        &[
            "workdir",
            "working_dir",
            "working_directory",
            "dir",
            "directory",
            "chdir",
        ],
    ),
    ("env", &["environment", "variables", "vars"]),
    ("retries", &["retry", "attempts"]),
    (
        "allow_failure",
        &["continue_on_error", "ignore_errors", "ignore_failure"],
    ),
    ("stdin", &["input", "reads_from"]),
    ("stdout", &["output", "writes_to"]),
    ("file", &["path", "filename"]),
    (
        "process",
        &["tasks", "steps", "jobs", "nodes", "services", "stages"],
    ),
    (
        "service",
        &["daemon", "background", "detach", "long_running"],
    ),
    (
        "ready",
        &[
            "healthcheck",
            "health",
            "probe",
            "readiness",
            "readiness_probe",
            "wait_for",
            "when",
        ],
    ),
    ("restart", &["retries", "respawn", "restart_policy"]),
    ("timeout", &["time_limit", "deadline"]),
    ("open_files", &["nofile"]),
    ("max", &["times", "count", "attempts"]),
    (
        "workers",
        &[
            "replicas",
            "jobs",
            "processes",
            "parallel",
            "parallelism",
            "concurrency",
            "threads",
            "instances",
            "scale",
            "size",
            "n",
        ],
    ),
    (
        "batch",
        &["chunksize", "chunk_size", "chunk", "batch_size", "max_args"],
    ),
    (
        "recycle_after",
        &["maxtasksperchild", "max_tasks_per_child", "max_requests"],
    ),
    (
        "max_in_flight",
        &["in_flight", "prefetch", "max_outstanding"],
    ),
    (
        "task_timeout",
        &["record_timeout", "item_timeout", "job_timeout"],
    ),
    (
        "dead_letter",
        &[
            "dlq",
            "dead_letter_queue",
            "deadletter",
            "poison",
            "rejects",
        ],
    ),
    ("tasks", &["items", "args_list", "list", "iterable"]),
    (
        "max_records",
        &["maxsize", "max_size", "max_len", "maxlen", "limit"],
    ),
    (
        "deliver",
        &["delivery", "distribution", "partition", "routing", "mode"],
    ),
    ("store", &["persistent", "durable", "stored", "persist"]),
];

/// Keys of other programs that say by their value what another key says here by a word.
const OTHERWISE: [(&str, &str, &str); 11] = [
    (
        "order",
        "ordered",
        "for results as the records came say `order = \"input\"`",
    ),
    (
        "order",
        "keep_order",
        "for results as the records came say `order = \"input\"`",
    ),
    (
        "order",
        "unordered",
        "for results as they are done say `order = \"completion\"`, the default",
    ),
    ("deliver", "share", "say `deliver = \"share\"`"),
    ("deliver", "copy", "say `deliver = \"copy\"`"),
    ("deliver", "round_robin", "say `deliver = \"round_robin\"`"),
    ("deliver", "by_field", "say `deliver = { by_field = 1 }`"),
    ("tasks", "range", "say `tasks = { range = [0, 100] }`"),
    ("tasks", "glob", "say `tasks = { glob = \"*.csv\" }`"),
    ("tasks", "lines", "say `tasks = { lines = \"list.txt\" }`"),
    ("overflow", "spill", "say `overflow = \"spill\"`"),
];

/// Keys of a pool that a process can't have.
const POOLS: [&str; 9] = [
    "workers",
    "feed",
    "tasks",
    "order",
    "batch",
    "max_in_flight",
    "recycle_after",
    "task_timeout",
    "dead_letter",
];

fn unknown_key(
    mark: Mark,
    key: &str,
    place: &Place,
    found: &DeValue<'_>,
    known: &[&str],
) -> Diagnostic {
    let parent = Place(
        place
            .0
            .get(..place.0.len().saturating_sub(1))
            .unwrap_or_default()
            .to_vec(),
    );
    let message = if parent.0.is_empty() {
        format!("unknown key `{key}` at the top level")
    } else {
        format!("unknown key `{key}` in {}", parent.in_words())
    };
    let diagnostic = Diagnostic::error(mark, message);
    let is_process = matches!(parent.0.as_slice(), [Step::Key(table), _] if table == "process");
    let of_pools = |key: &str| POOLS.contains(&key);
    if is_process
        && (of_pools(key)
            || ELSEWHERE.iter().any(|(word, others)| {
                of_pools(word) && others.contains(&key) && *word == "workers"
            }))
    {
        let name = match parent.0.get(1) {
            Some(Step::Key(name)) => name.as_str(),
            _ => "NAME",
        };
        return diagnostic.help(format!("a process with workers is a pool: `[pool.{name}]`"));
    }
    let otherwise = OTHERWISE
        .iter()
        .find(|(word, other, _)| *other == key && known.contains(word));
    if let Some((_, _, help)) = otherwise {
        return diagnostic.help(*help);
    }
    if let Some(word) = did_you_mean(key, known.iter().copied()) {
        return diagnostic.help(format!("did you mean `{word}`?"));
    }
    if let Some((word, _)) = ELSEWHERE
        .iter()
        .find(|(word, others)| known.contains(word) && others.contains(&key))
    {
        return diagnostic.help(format!("it is called `{word}` here"));
    }
    if let Some((_, help)) = LATER.iter().find(|(later, _)| *later == key) {
        return diagnostic.help(*help);
    }
    if let ([Step::Key(table), Step::Key(name)], DeValue::Table(_)) = (parent.0.as_slice(), found)
        && matches!(table.as_str(), "process" | "pool" | "queue")
    {
        return diagnostic.help(format!(
            "a name has no dots: did you mean `[{table}.{name}-{key}]`?"
        ));
    }
    diagnostic.help(format!("known keys are {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use proptest::prelude::*;

    use crate::diagnostic::{Diagnostic, Mark, Place, render};
    use crate::spec::Spec;
    use crate::spec::pieces::{PIECE, THREAD, in_pieces};
    use crate::spec::read::{MOST, read};

    /// All that is shown of a wrong file.
    fn shown(text: &str) -> String {
        match read(text) {
            Ok(spec) => panic!("{text:?} is right: {spec:?}"),
            Err(wrong) => render(&wrong.problems, "p.toml", text, false),
        }
    }

    /// The messages alone, with their help, one in a line.
    fn said(text: &str) -> Vec<String> {
        match read(text) {
            Ok(_) => Vec::new(),
            Err(wrong) => wrong
                .problems
                .into_iter()
                .map(|problem| match problem.help {
                    Some(help) => format!("{} | {help}", problem.message),
                    None => problem.message,
                })
                .collect(),
        }
    }

    #[test]
    fn an_unknown_key_is_shown_with_the_nearest_known_one() {
        assert_eq!(
            shown("name = \"x\"\n\n[process.sort]\ncomand = [\"sort\"]\n"),
            "\
error: unknown key `comand` in process `sort`
 --> p.toml:4:1
  |
4 | comand = [\"sort\"]
  | ^^^^^^
  |
  = help: did you mean `command`?
"
        );
    }

    #[test]
    fn values_of_a_matrix_are_what_one_sees() {
        let matrix = |text: &str| said(&format!("[process.b]\nmatrix = {text}\n"));
        assert_eq!(
            matrix(
                "{ py = [3.10, 4], x = \"a\", include = [\"a\", { y = [1] }], exclude = { py = 4 } }"
            ),
            [
                "`matrix.py[0]` of process `b`: expected a string or a whole number, found number `3.1` | put it in quotes, \"3.10\": as a number 3.10 would be 3.1",
                "`matrix.x` of process `b`: expected an array of values, found string \"a\" | write [\"a\"]",
                "`matrix.include[0]` of process `b`: expected a table such as { py = \"3.12\" }, found string \"a\" | `include` and `exclude` hold combinations: call an axis something else",
                "`matrix.include[1].y` of process `b`: expected a string or a whole number, found an array",
                "`matrix.exclude` of process `b`: expected an array of tables such as [{ py = \"3.12\" }], found a table | put it in brackets: [{ ... }]",
            ]
        );
        assert_eq!(
            matrix("[\"a\"]"),
            [
                "`matrix` of process `b`: expected a table such as { py = [\"3.11\", \"3.12\"] }, found an array"
            ]
        );
    }

    #[test]
    fn an_unknown_key_that_is_like_no_other_gets_all_of_them() {
        assert_eq!(
            said("[run]\nzzz = 1\n"),
            [
                "unknown key `zzz` in `run` | known keys are jobs, on_failure, timeout, resources, jobserver"
            ]
        );
        assert_eq!(
            said("[polo.a]\nworkers = 3\n[run]\nexecutor = \"slurm\"\n"),
            [
                "unknown key `polo` at the top level | did you mean `pool`?",
                "unknown key `executor` in `run` | executors are not part of this version",
            ]
        );
    }

    #[test]
    fn keys_may_hold_what_messages_are_made_of() {
        assert_eq!(
            said("[run]\n\"a`, expected `b\" = 1\n\"\" = 2\n"),
            [
                "unknown key `a`, expected `b` in `run` | known keys are jobs, on_failure, timeout, resources, jobserver",
                "unknown key `` in `run` | known keys are jobs, on_failure, timeout, resources, jobserver",
            ]
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_shown_with_what_may_stand_there() {
        assert_eq!(
            shown("[process.sort]\ncommand = [\"sort\"]\nstdin = 3\n"),
            "\
error: `stdin` of process `sort`: expected a queue's name, \"null\", \"inherit\", or a table such as { file = \"p\" } or { text = \"t\" }, found integer `3`
 --> p.toml:3:9
  |
3 | stdin = 3
  |         ^
"
        );
    }

    #[test]
    fn a_word_that_is_none_of_the_allowed_is_shown_with_the_nearest() {
        assert_eq!(
            shown("[run]\non_failure = \"stpo\"\n"),
            "\
error: `run.on_failure`: expected \"stop\", \"kill\" or \"continue\", found \"stpo\"
 --> p.toml:2:14
  |
2 | on_failure = \"stpo\"
  |              ^^^^^^
  |
  = help: did you mean \"stop\"?
"
        );
    }

    #[test]
    fn what_people_bring_from_elsewhere_is_understood() {
        let one = |value: &str| said(&format!("[process.a]\n{value}\n")).join("; ");
        for (value, help) in [
            ("needs = [\"b\"]", "it is called `after` here"),
            ("workdir = \"/\"", "it is called `cwd` here"),
            ("retries = { times = 3 }", "it is called `max` here"),
            ("stdout = { path = \"x\" }", "it is called `file` here"),
            ("after = { node = \"b\" }", "put it in brackets: [{ ... }]"),
            (
                "after = [{ node = \"b\", state = \"done\" }]",
                "did you mean \"finished\"?",
            ),
            (
                "after = [{ node = \"b\", state = \"healthy\" }]",
                "did you mean \"ready\"?",
            ),
            (
                "service = { ready = \"127.0.0.1:80\" }",
                "say what it is: { tcp = \"127.0.0.1:80\" }",
            ),
            (
                "service = { ready = \"http://127.0.0.1\" }",
                "say what it is: { http = \"http://127.0.0.1\" }",
            ),
            (
                "service = { healthcheck = { file = \"f\" } }",
                "it is called `ready` here",
            ),
            ("daemon = true", "it is called `service` here"),
            ("allow_failure = \"yes\"", "write true, without quotes"),
            ("nice = \"10\"", "write it without quotes: 10"),
            ("tags = \"fast\"", "write [\"fast\"]"),
            ("success_codes = 1", "write [1]"),
            ("script = [\"a\"]", "an array of arguments is a `command`"),
            (
                "env = [\"A=1\"]",
                "write { NAME = \"value\" }, or name a file by `env_file`",
            ),
            (
                "inputs = [\"q\"]",
                "give each a name: `inputs = { left = \"q1\", right = \"q2\" }`",
            ),
            (
                "[process.a.b]\nscript = \"x\"",
                "a name has no dots: did you mean `[process.a-b]`?",
            ),
            (
                "workers = 4",
                "a process with workers is a pool: `[pool.a]`",
            ),
            (
                "replicas = 4",
                "a process with workers is a pool: `[pool.a]`",
            ),
            ("[pool.b]\nreplicas = 4", "it is called `workers` here"),
            ("[pool.b]\njobs = 4", "it is called `workers` here"),
            ("[pool.b]\nchunksize = 4", "it is called `batch` here"),
            (
                "[pool.b]\nmaxtasksperchild = 4",
                "it is called `recycle_after` here",
            ),
            (
                "[pool.b]\nordered = true",
                "for results as the records came say `order = \"input\"`",
            ),
            ("[pool.b]\nneeds = [\"a\"]", "it is called `after` here"),
            ("[pool.b]\nwokers = 4", "did you mean `workers`?"),
            ("[pool.b]\nworkers = \"4\"", "write it without quotes: 4"),
            (
                "[pool.b]\nworkers = \"all\"",
                "\"auto\" stands for as many workers as there are job slots",
            ),
            ("[pool.b]\nfeed = \"each\"", "did you mean \"task\"?"),
            ("[pool.b]\ntasks = \"*.csv\"", "write { glob = \"*.csv\" }"),
            ("[pool.b]\ntasks = 10", "write { range = [0, 10] }"),
            (
                "[pool.b]\ntasks = [1]",
                "put it in quotes: \"1\"; numbers in a row are `tasks = { range = [FROM, TO] }`",
            ),
            ("[pool.b]\ntasks = { range = 5 }", "write [0, 5]"),
            (
                "[[pool]]\nname = \"q\"",
                "write a table for each: `[pool.NAME]`",
            ),
            ("[queue.q]\nmaxsize = 4", "it is called `max_records` here"),
            (
                "[queue.q]\nby_field = 1",
                "say `deliver = { by_field = 1 }`",
            ),
            (
                "[queue.q]\ndeliver = \"hash\"",
                "write { by_field = 1 }, for the first field",
            ),
            (
                "[queue.q]\noverflow = \"drop\"",
                "did you mean \"drop_newest\"?",
            ),
            (
                "[[queue]]\nname = \"q\"",
                "write a table for each: `[queue.NAME]`",
            ),
            (
                "[queue.q]\ndeliver = \"broadcast\"",
                "did you mean \"copy\"?",
            ),
        ] {
            let told = one(value);
            assert!(told.ends_with(&format!(" | {help}")), "{value}: {told}");
        }
    }

    #[test]
    fn what_only_follows_from_a_syntax_error_is_left_out() {
        for (text, expected) in [
            // A string that does not end takes the next lines with it.
            (
                "[process.a]\ncommand = [\"true]\n[process.b]\ncommand = [\"true\"]\n",
                &[
                    "invalid basic string, expected `\"` | the string does not end: close it by `\"`, or take \"\"\"...\"\"\" for several lines",
                ][..],
            ),
            (
                "name: \"x\"\njobs: 3\n",
                &[
                    "invalid unquoted key, expected letters, numbers, `-`, `_` | TOML joins a key and its value by `=`",
                    "key with no value, expected `=`",
                ],
            ),
            // Each escape is one of its own, and so is what stands in the next table.
            (
                "[process.a]\nscript = \"\\$ \\.\"\n[process.a]\nscript = \"\"\n[run]\nx = y\n",
                &[
                    "missing escaped value, expected `b`, `e`, `f`, `n`, `r`, `\\`, `\"`, `x`, `u`, `U` | for a backslash write `\\\\`, or take '...' or '''...''' for the quotes, where it stands for itself",
                    "missing escaped value, expected `b`, `e`, `f`, `n`, `r`, `\\`, `\"`, `x`, `u`, `U` | for a backslash write `\\\\`, or take '...' or '''...''' for the quotes, where it stands for itself",
                    "duplicate key `a`",
                    "string values must be quoted, expected literal string | write \"y\"",
                ],
            ),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
    }

    #[test]
    fn a_missing_key_is_shown_at_its_table() {
        assert_eq!(
            shown("[process.a]\nretries = { delay = \"1s\" }\n"),
            "\
error: `retries` of process `a`: `max` is missing
 --> p.toml:2:11
  |
2 | retries = { delay = \"1s\" }
  |           ^^^^^^^^^^^^^^^^
"
        );
        assert_eq!(
            shown("[process.a.retries]\ndelay = \"1s\"\n"),
            "\
error: `retries` of process `a`: `max` is missing
 --> p.toml:1:1
  |
1 | [process.a.retries]
  | ^^^^^^^^^^^^^^^^^^^
"
        );
    }

    #[test]
    fn every_problem_is_found_at_once_and_none_that_follows_from_another() {
        let text = "
nam = \"x\"
[run]
jobs = 0
[process.a]
command = \"ls -l\"
stdout = { fil = \"p\", append = 3 }
success_codes = [0, 256, 1, \"a\"]
env = { A = 1, B = true, C = 1.5, D = 2026-01-01 }
after = [\"a\", { node = \"b\", state = \"finishd\" }, 7, { state = \"failed\" }]
stderr = \"value\"
[process.b]
stdin = { file = 3 }
when = 2026-01-01
description = 2026-01-01
[process]
c = 3
";
        assert_eq!(
            said(text),
            [
                "unknown key `nam` at the top level | did you mean `name`?",
                "`run.jobs`: expected a number from 1 to 1000000, found integer `0`",
                "`command` of process `a`: expected an array of strings, found string \"ls -l\" | write [\"ls\", \"-l\"], one string for each argument; only `script` is handed to a shell",
                "unknown key `fil` in `stdout` of process `a` | did you mean `file`?",
                "`stdout.append` of process `a`: expected true or false, found integer `3`",
                "`success_codes[1]` of process `a`: expected an exit code from 0 to 255, found integer `256`",
                "`success_codes[3]` of process `a`: expected an exit code from 0 to 255, found string \"a\"",
                "`env.A` of process `a`: expected a string, found integer `1` | put it in quotes: \"1\"",
                "`env.B` of process `a`: expected a string, found boolean `true` | put it in quotes: \"true\"",
                "`env.C` of process `a`: expected a string, found number `1.5` | put it in quotes: \"1.5\"",
                "`env.D` of process `a`: expected a string, found a date or time | put it in quotes: \"2026-01-01\"",
                "`after[1].state` of process `a`: expected \"succeeded\", \"failed\", \"finished\", \"started\" or \"ready\", found \"finishd\" | did you mean \"finished\"?",
                "`after[2]` of process `a`: expected a node's name, or a table such as { node = \"a\", state = \"finished\" }, found integer `7`",
                "`after[3]` of process `a`: `node` is missing",
                "`stderr` of process `a`: expected another end than \"value\" | only `stdout` can be a node's value",
                "`stdin.file` of process `b`: expected a string, found integer `3` | put it in quotes: \"3\"",
                "`when` of process `b`: a date or time cannot stand here",
                "`description` of process `b`: expected a string, found a date or time | put it in quotes: \"2026-01-01\"",
                "process `c`: expected a table, found integer `3`",
            ]
        );
    }

    #[test]
    fn a_date_where_a_string_or_table_may_stand_is_called_one() {
        assert_eq!(
            said("[process.a]\nstdin = 2026-01-01\nretries = 10:00:00\n"),
            [
                "`stdin` of process `a`: a date or time cannot stand here",
                "`retries` of process `a`: a date or time cannot stand here"
            ]
        );
    }

    #[test]
    fn syntax_errors_are_found_at_once_with_both_places_of_a_duplicate() {
        assert_eq!(
            shown(
                "name = \"a\"\nname = \"b\"\nx = [1,,2]\n[process.a]\ncommand = ls\n[process.a]\n"
            ),
            "\
error: duplicate key `name`
 --> p.toml:2:1
  |
1 | name = \"a\"
  | ---- it is here already
2 | name = \"b\"
  | ^^^^

error: extra comma in array, expected value
 --> p.toml:3:8
  |
3 | x = [1,,2]
  |        ^

error: string values must be quoted, expected literal string
 --> p.toml:5:11
  |
5 | command = ls
  |           ^^
  |
  = help: write \"ls\"

error: duplicate key `a`
 --> p.toml:6:10
  |
4 | [process.a]
  |          - it is here already
5 | command = ls
6 | [process.a]
  |          ^
"
        );
    }

    #[test]
    fn a_duplicate_within_an_inline_table_or_after_a_header_finds_its_first() {
        let inline = shown("A = 1\nenv = { A = \"1\", A = \"2\" }\n");
        assert!(
            inline.contains("2 | env = { A = \"1\", A = \"2\" }\n  |         -        ^\n"),
            "{inline}"
        );
        let after = shown("script = 1\n[process.b]\nscript = \"a\"\nscript = \"b\"\n");
        assert!(
            after.contains("3 | script = \"a\"\n  | ------ it is here already\n4 | script"),
            "{after}"
        );
    }

    #[test]
    fn values_are_bounded_by_name() {
        let one = |value: &str| said(&format!("[process.a]\n{value}\n")).join("; ");
        for good in [
            "timeout = \"1h 30m\"",
            "timeout = \"250ms\"",
            "timeout = \"2days\"",
            "timeout = \"0s\"",
            "memory = 0",
            "memory = \"1.5GiB\"",
            "memory = \"64M\"",
            "nice = -20",
            "nice = 19",
            "cpus = 0",
            "resources = { gpu = 1 }",
            "resources = {}",
            "stop_signal = \"SIGKILL\"",
            "retries = 0",
            "retries = { max = 1, backoff = 1 }",
            "success_codes = []",
            "limits = { core = \"0\" }",
        ] {
            assert_eq!(one(good), "", "{good}");
        }
        let bad = [
            (
                "timeout = \"5M\"",
                "`timeout` of process `a`: expected a duration such as \"30s\", \"1h 30m\" or \"250ms\", found \"5M\" | `m` is for minutes, `M` would be a month",
            ),
            (
                "timeout = \"1y\"",
                "`timeout` of process `a`: expected a duration such as \"30s\", \"1h 30m\" or \"250ms\", found \"1y\" | units are ms, s, m, h, d and w",
            ),
            (
                "timeout = \"-5s\"",
                "`timeout` of process `a`: expected a duration such as \"30s\", \"1h 30m\" or \"250ms\", found \"-5s\" | a duration cannot be negative",
            ),
            (
                "timeout = \"30\"",
                "`timeout` of process `a`: expected a duration such as \"30s\", \"1h 30m\" or \"250ms\", found \"30\" | the unit is missing: did you mean \"30s\"?",
            ),
            (
                "timeout = 30",
                "`timeout` of process `a`: expected a duration such as \"30s\", \"1h 30m\" or \"250ms\", found integer `30` | the unit is missing: did you mean \"30s\"?",
            ),
            (
                "timeout = -1",
                "`timeout` of process `a`: expected a duration such as \"30s\", \"1h 30m\" or \"250ms\", found integer `-1`",
            ),
            (
                "timeout = \"\"",
                "`timeout` of process `a`: expected a duration such as \"30s\", \"1h 30m\" or \"250ms\", found \"\" | units are ms, s, m, h, d and w",
            ),
            (
                "timeout = \"99999999999w\"",
                "`timeout` of process `a`: expected at most 36500d, found \"99999999999w\"",
            ),
            (
                "timeout = \"99999999999999999999999s\"",
                "`timeout` of process `a`: expected at most 36500d, found \"99999999999999999999999s\"",
            ),
            (
                "memory = -1",
                "`memory` of process `a`: expected a size such as \"64MiB\" or a number of bytes, found integer `-1`",
            ),
            (
                "memory = \"8EiB\"",
                "`memory` of process `a`: expected a size below 8EiB, found \"8EiB\"",
            ),
            (
                "memory = \"99999999999TB\"",
                "`memory` of process `a`: expected a size below 8EiB, found \"99999999999TB\"",
            ),
            (
                "memory = \"2 gigs\"",
                "`memory` of process `a`: expected a size such as \"64MiB\" or a number of bytes, found \"2 gigs\" | units are B, kB, MB, GB, TB (powers of 1000) and KiB, MiB, GiB, TiB (powers of 1024)",
            ),
            (
                "memory = 99999999999999999999",
                "`memory` of process `a`: expected a size such as \"64MiB\" or a number of bytes, found integer `99999999999999999999`",
            ),
            (
                "nice = 20",
                "`nice` of process `a`: expected a number from -20 to 19, found integer `20`",
            ),
            (
                "cpus = -1",
                "`cpus` of process `a`: expected a number from 0 to 1000000, found integer `-1`",
            ),
            (
                "resources = { gpu = -1 }",
                "`resources.gpu` of process `a`: expected a number from 0 to 1000000, found integer `-1`",
            ),
            (
                "resources = { gpu = \"1\" }",
                "`resources.gpu` of process `a`: expected a number from 0 to 1000000, found string \"1\" | write it without quotes: 1",
            ),
            (
                "resources = [\"gpu\"]",
                "`resources` of process `a`: expected a table, found an array",
            ),
            (
                "cpus = 1.0",
                "`cpus` of process `a`: expected a number from 0 to 1000000, found number `1.0`",
            ),
            (
                "stop_signal = \"TREM\"",
                "`stop_signal` of process `a`: expected a signal's name such as \"TERM\" or \"INT\", found \"TREM\" | did you mean \"TERM\"?",
            ),
            (
                "stop_signal = 15",
                "`stop_signal` of process `a`: expected a signal's name such as \"TERM\" or \"INT\", found integer `15` | write \"TERM\"",
            ),
            (
                "retries = -1",
                "`retries` of process `a`: expected a number from 0 to 1000000, found integer `-1`",
            ),
            (
                "retries = { max = 1, backoff = nan }",
                "`retries.backoff` of process `a`: expected a number from 1.0 to 1000.0, found number `NaN`",
            ),
            (
                "command = { a = 1 }",
                "`command` of process `a`: expected an array of strings such as [\"ls\", \"-l\"], found a table",
            ),
            (
                "after = \"b\"",
                "`after` of process `a`: expected an array, found string \"b\" | write [\"b\"]",
            ),
            (
                "stdin = { }",
                "`stdin` of process `a`: expected `file` or `text`, found neither",
            ),
            (
                "stdout = \"stdout\"",
                "`stdout` of process `a`: expected another end than \"stdout\" | only `stderr` can be joined to stdout",
            ),
            (
                "outputs = { x = [\"q\", \"value\"] }",
                "`outputs.x` of process `a`: expected another end than \"value\" | only `stdout` can be a node's value",
            ),
        ];
        for (value, message) in bad {
            assert_eq!(one(value), message, "{value}");
        }
    }

    #[test]
    fn byte_order_mark_and_carriage_returns_are_fine_and_places_right() {
        assert!(read("\u{feff}name = \"a\"\r\n[process.a]\r\ncommand = [\"x\"]\r\n").is_ok());
        let wrong = shown("\u{feff}nam = \"a\"\r\n[run]\r\njob = 3\r\n");
        assert_eq!(
            wrong,
            "\
error: unknown key `nam` at the top level
 --> p.toml:1:1
  |
1 | nam = \"a\"
  | ^^^
  |
  = help: did you mean `name`?

error: unknown key `job` in `run`
 --> p.toml:3:1
  |
3 | job = 3
  | ^^^
  |
  = help: did you mean `jobs`?
"
        );
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_overflow() {
        for text in [
            format!("x = {}", "[".repeat(100_000)),
            format!("x = {}", "{a=".repeat(100_000)),
            format!("x = {}1{}", "[".repeat(100_000), "]".repeat(100_000)),
            format!("{}a = 1", "a.".repeat(100_000)),
            format!("[{}a]", "a.".repeat(100_000)),
        ] {
            assert!(!said(&text).is_empty());
        }
    }

    #[test]
    fn at_most_a_hundred_problems_are_told() {
        let text = (0..250)
            .map(|i| format!("[process.p{i}]\ncomand = 1\n"))
            .collect::<String>();
        let said = said(&text);
        assert_eq!(said.len(), MOST + 1);
        assert_eq!(said[MOST], "there are more problems than these 100");
        // So it is within one table, and it does not take a square of the time.
        let text = (0..20_000)
            .map(|i| format!("E{i} = {i}\n"))
            .collect::<String>();
        let said = self::said(&format!("[env]\n{text}"));
        assert_eq!(said.len(), MOST + 1);
    }

    #[test]
    fn what_is_left_of_a_wrong_file_is_trusted_where_nothing_was_taken_out() {
        let wrong = read("[process.a]\ncomand = [\"x\"]\n[process.b]\nafter = [\"c\"]\n[process.d]\ncommand = 1\n").unwrap_err();
        let partial = wrong.partial.unwrap();
        assert_eq!(
            partial.spec.process.keys().collect::<Vec<_>>(),
            ["a", "b", "d"]
        );
        let about = |keys: &[&str]| Diagnostic::error(Mark::Key(Place::of(keys)), "");
        assert!(!partial.trusts(&about(&["process", "a"])));
        assert!(!partial.trusts(&about(&["process", "d", "command"])));
        assert!(partial.trusts(&about(&["process", "b", "after"])));
        assert!(
            !partial
                .trusts(&about(&["process", "b"]).and(Mark::Key(Place::of(&["process", "a"])), ""))
        );
    }

    #[test]
    fn a_wait_is_trusted_whatever_else_its_process_lost_and_lost_ends_are_known() {
        let partial = |text: &str| *read(text).unwrap_err().partial.unwrap();
        let wait = Diagnostic::error(
            Mark::Value(Place::of(&["process", "a", "after"]).index(0)),
            "",
        );
        let other = Diagnostic::error(Mark::Value(Place::of(&["process", "a", "stdin"])), "");
        for (line, trusted, lost) in [
            ("timeout = 3", true, false),
            ("comand = [\"x\"]", true, false),
            ("stdot = \"q\"", true, true),
            ("stdin = 3", true, true),
            ("after = [3]", false, false),
            ("zzz = 1", true, true),
        ] {
            let partial = partial(&format!("[process.a]\n{line}\n"));
            assert_eq!(partial.trusts(&wait), trusted, "{line}");
            assert_eq!(partial.lost_ends(), lost, "{line}");
            assert!(!partial.trusts(&other), "{line}");
        }
        let nothing = Diagnostic::warning(Mark::Key(Place::default()), "");
        assert!(!partial("[proces.a]\n").trusts(&nothing));
        assert!(partial("[queue.q]\ndeliver = \"shar\"\n").lost_ends());
        assert!(!partial("[run]\njobs = 0\n").lost_ends());
        assert!(partial("[process]\na = 3\n").lost_ends());
    }

    #[test]
    fn what_only_the_whole_file_tells_is_not_missed_in_pieces() {
        // Each is wrong as a whole, while its pieces, cut at headers, are not.
        for text in [
            "[process.a]\ncommand = [\"x\"]\n[process.a]\nscript = \"y\"\n",
            "process = { a = { script = \"y\" } }\n[process.b]\nscript = \"y\"\n",
            "[run]\njobs = 1\n[run]\ntimeout = \"1s\"\n",
            "[process]\na = { script = \"x\" }\n[process]\nb = { script = \"x\" }\n",
            "[env]\nA = \"1\"\n[process.a]\nscript = \"y\"\n[env]\nB = \"1\"\n",
            "[process.a]\nenv = { A = \"1\" }\n[process.a.env]\nB = \"1\"\n",
        ] {
            assert!(in_pieces(text, 1).is_none(), "{text}");
            assert!(read(text).is_err(), "{text}");
        }
        // Each is right, though cut it is not.
        for text in [
            "[process.a]\ncommand = [\"x\"]\n[process.a.env]\nA = \"1\"\n",
            "[process.a]\nscript = \"\"\"\n[run]\njobs = 0\n\"\"\"\n",
            "[process.a]\ncommand = [\n[\"x\"],\n]\n"
                .replace("[\"x\"]", "\"x\"")
                .as_str(),
        ] {
            assert!(read(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn several_threads_read_what_one_reads() {
        let mut text = "name = \"big\"\n".to_owned();
        for i in 0..30_000 {
            text.push_str(&format!(
                "[process.node{i}]\ncommand = [\"/bin/true\", \"{i}\"]\nafter = [\"node{}\"]\n",
                i / 2
            ));
        }
        text.push_str("[run]\njobs = 3\n");
        assert!(text.len() > 2 * THREAD);
        let pieces = in_pieces(&text, PIECE).expect("it is right");
        let whole = in_pieces(&text, usize::MAX).expect("it is right");
        assert_eq!(format!("{pieces:?}"), format!("{whole:?}"));
        text.push_str("[process.node0]\n");
        assert!(in_pieces(&text, PIECE).is_none());
    }

    #[test]
    fn pools_know_how_many_processes_stand_before_them() {
        let text = "[process.a]\n[pool.x]\n[process.b]\n[process.c]\n[pool.y]\n[pool.z]\n";
        let behind = |spec: &Spec| -> Vec<usize> {
            let pools = spec.pool.values();
            pools
                .filter_map(|pool| Some(pool.pool.as_ref()?.behind))
                .collect()
        };
        for size in [1, 20, usize::MAX] {
            let spec = in_pieces(text, size).expect("it is right");
            assert_eq!(behind(&spec), [1, 3, 3], "{size}");
        }
        let wrong = read(&format!("{text}zzz = 1\n")).unwrap_err();
        assert_eq!(behind(&wrong.partial.unwrap().spec), [1, 3, 3]);
    }

    /// Tables and lines of which random files are made, right and wrong ones.
    fn line() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "[process.a]",
            "[process.b]",
            "[process.a.env]",
            "[pool.a]",
            "[pool.b]",
            "[pool.a.env]",
            "workers = 2",
            "[queue.q]",
            "[params]",
            "[params.p]",
            "[run]",
            "[env]",
            "[defaults]",
            "[defaults.limits]",
            "[process]",
            "[[process.c]]",
            "name = \"x\"",
            "script = \"x\"",
            "script = \"\"\"",
            "\"\"\"",
            "A = \"1\"",
            "B = \"2\"",
            "jobs = 2",
            "p = \"v\"",
            "default = \"v\"",
            "process.d.script = \"x\"",
            "process = { e = { script = \"x\" } }",
            "core = 0",
            "limits.core = 1",
            "records = \"nul\"",
            "env_file = \"f\"",
            "after = [",
            "\"a\",",
            "]",
            "# [run]",
            "",
            "x = 1",
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

        /// However a file is cut, what is read is the same; and a file that the pieces take, the whole takes too.
        #[test]
        fn pieces_say_what_the_whole_says(lines in prop::collection::vec(line(), 0..12), size in 1usize..60) {
            let text = lines.join("\n");
            let whole = in_pieces(&text, usize::MAX);
            let pieces = in_pieces(&text, size);
            if let Some(pieces) = pieces {
                prop_assert_eq!(format!("{:?}", pieces), format!("{:?}", whole.expect("the whole is right where its pieces are")), "{}", text);
            }
        }

        /// Whatever the text, every problem has its place, and reading ends.
        #[test]
        fn any_text_is_read_or_explained(lines in prop::collection::vec(line(), 0..12), noise in "\\PC{0,8}") {
            let text = format!("{}\n{noise}", lines.join("\n"));
            if let Err(wrong) = read(&text) {
                prop_assert!(!wrong.problems.is_empty());
                prop_assert!(render(&wrong.problems, "p", &text, false).contains("error: "));
            }
        }
    }
}
