//! How the ends of a process are written: strings, tables or arrays of them.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Unexpected, Visitor};

use crate::diagnostic::did_you_mean;
use crate::spec::values::{OneOrSeq, StringOrTable, Whole, one_or_seq, whole};
use crate::spec::{
    After, AfterState, Deliver, Feed, Inputs, JobserverStyle, Merge, OnFailure, OnWriterFailure,
    Order, Output, Overflow, Param, ParamTable, Records, Retries, RetriesTable, Sink, Stdin,
};

const INPUT: &str = "a queue's name, \"null\", \"inherit\", or a table such as { file = \"p\" } or { text = \"t\" }";
const SINK: &str =
    "a queue's name, \"log\", \"null\", \"inherit\", or a table such as { file = \"p\" }";
const OUTPUT: &str = "a queue's name, \"log\", \"null\", \"inherit\", a table such as { file = \"p\" }, or an array of these";

impl<'de> Deserialize<'de> for Stdin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            file: Option<String>,
            text: Option<String>,
        }
        deserializer.deserialize_any(StringOrTable::new(
            INPUT,
            |string| {
                Ok(match string {
                    "null" => Stdin::Null,
                    "inherit" => Stdin::Inherit,
                    queue => Stdin::Queue(queue.to_owned()),
                })
            },
            |table: Table| match (table.file, table.text) {
                (Some(file), None) => Ok(Stdin::File(file)),
                (None, Some(text)) => Ok(Stdin::Text(text)),
                (Some(_), Some(_)) => Err("expected `file` or `text`, found both".to_owned()),
                (None, None) => Err("expected `file` or `text`, found neither".to_owned()),
            },
        ))
    }
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const INPUTS: &str = "a queue's name or pattern, \"null\", \"inherit\", a table such as { file = \"p\" }, or an array of these";
        Ok(match one_or_seq(deserializer, INPUTS)? {
            OneOrSeq::One(one) => Inputs::One(one),
            OneOrSeq::Seq(many) => Inputs::Many(many),
        })
    }
}

impl<'de> Deserialize<'de> for Sink {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            file: String,
            #[serde(default)]
            append: bool,
        }
        deserializer.deserialize_any(StringOrTable::new(
            SINK,
            |string| {
                Ok(match string {
                    "log" => Sink::Log,
                    "null" => Sink::Null,
                    "inherit" => Sink::Inherit,
                    "value" => Sink::Value,
                    "stdout" => Sink::Stdout,
                    queue => Sink::Queue(queue.to_owned()),
                })
            },
            |table: Table| {
                Ok(Sink::File {
                    path: table.file,
                    append: table.append,
                })
            },
        ))
    }
}

impl<'de> Deserialize<'de> for Output {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match one_or_seq(deserializer, OUTPUT)? {
            OneOrSeq::One(one) => Output::One(one),
            OneOrSeq::Seq(many) => Output::Many(many),
        })
    }
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            node: String,
            state: Option<AfterState>,
        }
        deserializer.deserialize_any(StringOrTable::new(
            "a node's name, or a table such as { node = \"a\", state = \"finished\" }",
            |string| {
                Ok(After {
                    node: string.to_owned(),
                    state: None,
                })
            },
            |table: Table| {
                Ok(After {
                    node: table.node,
                    state: table.state,
                })
            },
        ))
    }
}

/// The array of `after`. A single string is a likely slip, and clear enough to say what is meant.
pub(crate) fn after<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<After>, D::Error> {
    struct Waits;
    impl<'de> Visitor<'de> for Waits {
        type Value = Vec<After>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array such as [\"a\", { node = \"b\", state = \"finished\" }]")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<After>, E> {
            Err(E::custom(format!(
                "expected an array, found string {text:?}\nwrite [{text:?}]"
            )))
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<After>, A::Error> {
            let mut waits = Vec::with_capacity(seq.size_hint().unwrap_or(0));
            while let Some(wait) = seq.next_element()? {
                waits.push(wait);
            }
            Ok(waits)
        }
    }
    deserializer.deserialize_any(Waits)
}

impl<'de> Deserialize<'de> for Retries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "a number, or a table such as { max = 3, delay = \"1s\" }";
        deserializer.deserialize_any(
            StringOrTable::new(
                EXPECTED,
                |string| Err(format!("expected {EXPECTED}, found string {string:?}")),
                |table: RetriesTable| {
                    Ok(Retries {
                        max: table.max,
                        delay: table.delay,
                        backoff: table.backoff,
                        max_delay: table.max_delay,
                        jitter: table.jitter,
                        on_codes: table.on_codes,
                    })
                },
            )
            .or_number(|number| match u32::try_from(number) {
                Ok(max) if max <= 1_000_000 => Ok(Retries {
                    max,
                    delay: None,
                    backoff: None,
                    max_delay: None,
                    jitter: None,
                    on_codes: Vec::new(),
                }),
                _ => Err(format!(
                    "expected a number from 0 to 1000000, found integer `{number}`"
                )),
            }),
        )
    }
}

impl<'de> Deserialize<'de> for Param {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StringOrTable::new(
            "a string (the default), or a table such as { default = \"v\", help = \"what it is\" }",
            |string| {
                Ok(Param {
                    default: Some(string.to_owned()),
                    ..Param::default()
                })
            },
            |table: ParamTable| {
                Ok(Param {
                    default: table.default,
                    help: table.help,
                    choices: table.choices,
                    required: table.required,
                    secret: table.secret,
                    env: table.env,
                })
            },
        ))
    }
}

impl<'de> Deserialize<'de> for Records {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "\"lines\", \"nul\", \"length32\", \"bytes\", or a table such as { separator = \"\\n\\n\" }";
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            #[serde(default, deserialize_with = "crate::spec::values::record_size")]
            size: Option<u32>,
            separator: Option<String>,
            start: Option<String>,
        }
        deserializer.deserialize_any(StringOrTable::new(
            EXPECTED,
            |string| match string {
                "lines" => Ok(Records::Lines),
                "nul" => Ok(Records::Nul),
                "length32" => Ok(Records::Length32),
                "bytes" => Ok(Records::Bytes),
                other => Err(unknown_word(
                    other,
                    EXPECTED,
                    &["lines", "nul", "length32", "bytes"],
                )),
            },
            |table: Table| match (table.size, table.separator, table.start) {
                (Some(size), None, None) => Ok(Records::Size(size)),
                (None, Some(separator), None) if !separator.is_empty() => {
                    Ok(Records::Separator(separator))
                }
                (None, None, Some(start)) if !start.is_empty() => Ok(Records::Start(start)),
                (None, Some(_), None) => {
                    Err("expected a separator of at least one byte, found \"\"".to_owned())
                }
                (None, None, Some(_)) => {
                    Err("expected a start of at least one byte, found \"\"".to_owned())
                }
                (None, None, None) => {
                    Err("expected one of `size`, `separator` and `start`, found none".to_owned())
                }
                _ => {
                    Err("expected one of `size`, `separator` and `start`, found several".to_owned())
                }
            },
        ))
    }
}

impl<'de> Deserialize<'de> for Deliver {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str =
            "\"share\", \"round_robin\", \"copy\", or a table such as { by_field = 1 }";
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            #[serde(deserialize_with = "field")]
            by_field: u32,
            separator: Option<String>,
        }
        fn field<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
            whole(deserializer, Whole::new("a field's number", 0, 1_000_000))
        }
        deserializer.deserialize_any(StringOrTable::new(
            EXPECTED,
            |string| match string {
                "share" => Ok(Deliver::Share),
                "round_robin" => Ok(Deliver::RoundRobin),
                "copy" => Ok(Deliver::Copy),
                "by_field" | "hash" | "key" | "partition" => Err(format!(
                    "expected {EXPECTED}, found {string:?}\nwrite {{ by_field = 1 }}, for the first field"
                )),
                other => Err(unknown_word(
                    other,
                    EXPECTED,
                    &["share", "round_robin", "copy"],
                )),
            },
            |table: Table| {
                if table.separator.as_deref() == Some("") {
                    return Err("expected a separator of at least one byte, found \"\"".to_owned());
                }
                Ok(Deliver::ByField {
                    field: table.by_field,
                    separator: table.separator,
                })
            },
        ))
    }
}

/// The message for a word that is none of those allowed, with the nearest as the way out.
pub(crate) fn unknown_word(found: &str, expected: &str, words: &[&str]) -> String {
    let elsewhere = match found {
        "success" | "ok" | "passed" => "succeeded",
        "failure" | "error" => "failed",
        "done" | "complete" | "completed" | "ended" | "exited" | "always" => "finished",
        "running" | "start" => "started",
        "healthy" | "up" => "ready",
        "broadcast" | "all" | "tee" => "copy",
        "any" | "free" | "shared" => "share",
        "round-robin" | "rr" | "roundrobin" => "round_robin",
        "wait" | "backpressure" => "block",
        "disk" | "file" => "spill",
        "drop" | "drop_new" | "drop_tail" => "drop_newest",
        "drop_old" | "drop_head" => "drop_oldest",
        "map" | "pipe" | "lines" => "stream",
        "worker" | "server" | "imap" => "request",
        "each" | "job" | "xargs" | "process" => "task",
        "ordered" | "in_order" | "keep" => "input",
        "unordered" | "any_order" => "completion",
        "ignore" | "keep-going" | "keep_going" => "continue",
        "terminate" => "kill",
        _ => found,
    };
    let meant = words.iter().copied().find(|word| *word == elsewhere);
    match meant.or_else(|| did_you_mean(found, words.iter().copied())) {
        Some(word) => format!("expected {expected}, found {found:?}\ndid you mean \"{word}\"?"),
        None => format!("expected {expected}, found {found:?}"),
    }
}

/// Implements `Deserialize` for an enum whose values are words.
macro_rules! words {
    ($type:ident, $expected:literal, $($word:literal => $variant:ident),+) => {
        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($type::$variant),)+
                    other => Err(unknown_word(other, $expected, &[$($word),+])),
                }
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(StringOrTable::new(
                    $expected,
                    |string: &str| string.parse(),
                    |_: NoTable| Err(concat!("expected ", $expected, ", found a table").to_owned()),
                ))
            }
        }
    };
}

/// Takes any table, for values that cannot be one.
#[derive(Deserialize)]
struct NoTable {}

words!(OnFailure, "\"stop\", \"kill\" or \"continue\"", "stop" => Stop, "kill" => Kill, "continue" => Continue);
words!(JobserverStyle, "\"pipe\", \"fifo\" or \"none\"", "pipe" => Pipe, "fifo" => Fifo, "none" => None);
words!(AfterState, "\"succeeded\", \"failed\", \"finished\", \"started\" or \"ready\"",
    "succeeded" => Succeeded, "failed" => Failed, "finished" => Finished, "started" => Started, "ready" => Ready);
words!(Feed, "\"stream\", \"request\" or \"task\"", "stream" => Stream, "request" => Request, "task" => Task);
words!(Order, "\"input\" or \"completion\"", "input" => Input, "completion" => Completion);
words!(Overflow, "\"block\", \"spill\", \"drop_newest\" or \"drop_oldest\"",
    "block" => Block, "spill" => Spill, "drop_newest" => DropNewest, "drop_oldest" => DropOldest);
words!(Merge, "\"arrive\" or \"sequence\"", "arrive" => Arrive, "sequence" => Sequence);
words!(OnWriterFailure, "\"cancel\" or \"close\"", "cancel" => Cancel, "close" => Close);

/// `stdout`: everything but `"stdout"` itself.
pub(crate) fn stdout<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Output>, D::Error> {
    output(deserializer, |sink| match sink {
        Sink::Stdout => {
            Some("expected another end than \"stdout\"\nonly `stderr` can be joined to stdout")
        }
        _ => None,
    })
}

/// `stderr`: everything but `"value"`.
pub(crate) fn stderr<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Output>, D::Error> {
    output(deserializer, |sink| match sink {
        Sink::Value => {
            Some("expected another end than \"value\"\nonly `stdout` can be a node's value")
        }
        _ => None,
    })
}

fn output<'de, D: Deserializer<'de>>(
    deserializer: D,
    wrong: fn(&Sink) -> Option<&'static str>,
) -> Result<Option<Output>, D::Error> {
    let output = Output::deserialize(deserializer)?;
    let sinks = match &output {
        Output::One(sink) => std::slice::from_ref(sink),
        Output::Many(sinks) => sinks,
    };
    match sinks.iter().find_map(wrong) {
        Some(message) => Err(de::Error::custom(message)),
        None => Ok(Some(output)),
    }
}

/// One of `outputs`: neither `"value"` nor `"stdout"`.
pub(crate) fn outputs<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<indexmap::IndexMap<String, Output>>>, D::Error> {
    struct Other(Output);
    impl<'de> Deserialize<'de> for Other {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            output(deserializer, |sink| match sink {
                Sink::Value => {
                    Some("expected another end than \"value\"\nonly `stdout` can be a node's value")
                }
                Sink::Stdout => Some(
                    "expected another end than \"stdout\"\nonly `stderr` can be joined to stdout",
                ),
                _ => None,
            })?
            .map(Other)
            .ok_or_else(|| de::Error::invalid_type(Unexpected::Unit, &OUTPUT))
        }
    }
    let outputs = indexmap::IndexMap::<String, Other>::deserialize(deserializer)?;
    Ok(Some(Box::new(
        outputs
            .into_iter()
            .map(|(name, Other(output))| (name, output))
            .collect(),
    )))
}
