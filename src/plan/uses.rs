//! Rules on what a queue is used for: its settings among each other, and with the nodes at its ends.

use indexmap::IndexMap;

use crate::diagnostic::{Diagnostic, Mark};
use crate::plan::build::{Draft, Names};
use crate::plan::problems::{Problems, Site};
use crate::plan::{Feed, Node, NodeId, Queue, QueueKind, Role, ends};
use crate::spec::{self, AfterState, Deliver, Merge, Overflow, Records};

/// Checks every queue that the file names.
pub(super) fn check(
    draft: &Draft,
    said: &IndexMap<String, spec::Queue>,
    words: &Names<'_>,
    problems: &mut Problems,
) {
    let top = Site::top("queue");
    for (queue, (name, ends)) in draft.queues.iter().zip(&words.queues.0) {
        if let Some(said) = said.get(&**name) {
            let site = top.key(name);
            check_settings(said, queue, &site, problems);
            check_delivery(said, ends, words, &site, problems);
        }
        if queue.header > 0 {
            check_header(ends, words, &top.key(name), problems);
        }
        check_come_and_go(queue, ends, words, problems);
    }
    for index in 0..draft.nodes.len() {
        check_stored_failure(draft, NodeId::from(index), words, problems);
    }
}

/// Settings that mean nothing together.
fn check_settings(said: &spec::Queue, queue: &Queue, site: &Site<'_>, problems: &mut Problems) {
    let at = |key: &str| site.key(key).mark_value();
    if said.store == Some(true) && queue.feedback {
        problems.push(
            Diagnostic::error(
                at("store"),
                "a queue that leads back can't be stored: who reads it would wait for who writes it",
            )
            .and(at("feedback"), "")
            .help("drop one of the two; what does not fit memory goes to disk anyway"),
        );
    }
    let drops = matches!(
        said.overflow,
        Some(Overflow::DropNewest | Overflow::DropOldest)
    );
    if drops && queue.kind == QueueKind::Stored {
        let problem = Diagnostic::error(
            at("overflow"),
            "a queue that is stored on disk is never full: nothing of it would be dropped",
        );
        problems.push(if said.store == Some(true) {
            problem.and(at("store"), "").help("drop one of the two")
        } else {
            problem.help("it is stored because a reader waits for a writer's end; drop `overflow`, or the wait")
        });
    }
    if queue.feedback && queue.merge == Merge::Sequence {
        problems.push(
            Diagnostic::error(
                at("merge"),
                "a queue that leads back can't be read writer after writer: one of them ends only with the others",
            )
            .and(at("feedback"), "")
            .help("leave `merge` out"),
        );
    }
    if queue.records == Records::Bytes {
        let by_record = [
            ("max_records", said.max_records.is_some()),
            ("header", said.header.is_some_and(|count| count > 0)),
            (
                "deliver",
                matches!(
                    said.deliver,
                    Some(Deliver::RoundRobin | Deliver::ByField { .. })
                ),
            ),
        ];
        for (key, _) in by_record.iter().filter(|(_, said)| *said) {
            problems.push(
                Diagnostic::error(
                    at(key),
                    format!("`{key}` is about records, and in \"bytes\" there are none"),
                )
                .and(at("records"), "")
                .help("say what a record is: `records = \"lines\"`"),
            );
        }
    }
}

/// The pool fed by procflow that an end belongs to.
fn fed_pool<'a>(end: &ends::End, words: &Names<'a>) -> Option<(&'a Node, Feed)> {
    let unit = &words.units[end.unit.index()];
    let node = &words.nodes[unit.node.index()];
    let pool = node.pool.as_ref().filter(|_| unit.role == Role::Pool)?;
    Some((node, pool.feed))
}

/// How the file calls it.
fn feed(feed: Feed) -> &'static str {
    match feed {
        Feed::Stream => "stream",
        Feed::Request => "request",
        Feed::Task => "task",
    }
}

/// Which worker gets a record is up to the pool, where procflow feeds it.
fn check_delivery(
    said: &spec::Queue,
    ends: &ends::Draft,
    words: &Names<'_>,
    site: &Site<'_>,
    problems: &mut Problems,
) {
    let what = match said.deliver {
        Some(Deliver::ByField { .. }) => "by_field",
        Some(Deliver::RoundRobin) => "round_robin",
        _ => return,
    };
    let [only] = ends.readers.as_slice() else {
        return;
    };
    if let Some((node, fed)) = fed_pool(only, words) {
        problems.push(
            Diagnostic::error(
                site.key("deliver").mark_value(),
                format!(
                    "`{what}` means nothing to pool `{}`, which is fed by `{}`: its records go to whichever worker is free",
                    node.name,
                    feed(fed)
                ),
            )
            .and(words.mark(only), "")
            .help("say `feed = \"stream\"` in the pool, or drop `deliver`"),
        );
    }
}

/// A header that would be taken for a question.
fn check_header(ends: &ends::Draft, words: &Names<'_>, site: &Site<'_>, problems: &mut Problems) {
    for end in &ends.readers {
        if let Some((node, Feed::Request)) = fed_pool(end, words) {
            problems.push(
                Diagnostic::error(
                    site.key("header").mark_value(),
                    format!(
                        "a header can't go to pool `{}`: its workers would answer it like any record",
                        node.name
                    ),
                )
                .and(words.mark(end), "")
                .help("cut it off before: `command = [\"tail\", \"-n\", \"+2\"]`; or say `feed = \"stream\"` in the pool"),
            );
        }
    }
}

/// Workers that come and go can't share what passes but once.
fn check_come_and_go(
    queue: &Queue,
    ends: &ends::Draft,
    words: &Names<'_>,
    problems: &mut Problems,
) {
    if queue.kind == QueueKind::Stored {
        return;
    }
    for end in ends.readers.iter().filter(|end| &*end.key != "stdin") {
        if let Some((node, fed)) = fed_pool(end, words) {
            problems.push(
                Diagnostic::error(
                    words.mark(end),
                    format!(
                        "pool `{}` is fed by `{}`: its workers come and go, and each would need queue `{}` from its start",
                        node.name,
                        feed(fed),
                        queue.name
                    ),
                )
                .help(format!(
                    "store it, and each worker reads it from disk: `store = true` under `[queue.{}]`; or name a file",
                    queue.name
                )),
            );
        }
    }
}

/// A node that waits for a failure and reads what is whole only after a success.
fn check_stored_failure(draft: &Draft, id: NodeId, words: &Names<'_>, problems: &mut Problems) {
    let node = &draft.nodes[id.index()];
    for pair in node.after.windows(2) {
        let [a, b] = pair else { continue };
        let both = |x, y| a.state == x && b.state == y || a.state == y && b.state == x;
        if a.node != b.node || !both(AfterState::Succeeded, AfterState::Failed) {
            continue;
        }
        let Some(queue) = words.implied.by(id, a.node) else {
            continue;
        };
        let writer = &draft.nodes[a.node.index()].name;
        let name = &draft.queues[queue].name;
        problems.push(
            Diagnostic::error(
                Mark::Value(node.place().key("after")),
                format!(
                    "`{}` waits for the failure of `{writer}`, and reads queue `{name}`, which is whole only when `{writer}` has succeeded",
                    node.name
                ),
            )
            .help(format!(
                "to read what it had written until then say `on_writer_failure = \"close\"` under `[queue.{name}]`"
            )),
        );
    }
}
