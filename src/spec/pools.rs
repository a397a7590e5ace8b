//! How the keys of a pool are written, and where pools stand among processes.

use std::fmt;

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use toml::de::DeTable;

use crate::spec::values::{Whole, whole};
use crate::spec::{PoolTable, Process, Tasks, Workers};

/// The table of all pools.
pub(crate) fn pools<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<IndexMap<String, Process>, D::Error> {
    let tables = IndexMap::<String, PoolTable>::deserialize(deserializer)?;
    Ok(tables
        .into_iter()
        .map(|(name, table)| (name, table.into()))
        .collect())
}

/// For each pool of a file, how many of its processes stand before it. Nothing is looked at where there are no pools.
///
/// The places of keys say it: TOML gives each of the two tables in its own order only.
pub(crate) fn behind(root: &DeTable<'_>) -> Vec<usize> {
    let starts = |key: &str| -> Vec<usize> {
        let tables = root.get(key).and_then(|value| value.get_ref().as_table());
        let keys = tables.into_iter().flat_map(|tables| tables.keys());
        keys.map(|name| name.span().start).collect()
    };
    let pools = starts("pool");
    if pools.is_empty() {
        return pools;
    }
    let mut processes = starts("process");
    processes.sort_unstable();
    pools
        .iter()
        .map(|pool| processes.partition_point(|process| process < pool))
        .collect()
}

/// Notes what [`behind`] found.
pub(crate) fn place(pools: &mut IndexMap<String, Process>, behind: &[usize]) {
    for (process, &behind) in pools.values_mut().zip(behind) {
        if let Some(pool) = &mut process.pool {
            pool.behind = behind;
        }
    }
}

/// So many more processes stand before these pools.
pub(crate) fn move_behind(pools: &mut IndexMap<String, Process>, more: usize) {
    for pool in pools.values_mut().filter_map(|pool| pool.pool.as_mut()) {
        pool.behind += more;
    }
}

/// The most workers that a pool may have: as many processes as a usual system can hold.
const MOST_WORKERS: u32 = 32_768;

/// Workers as a number; the message of one that can't be.
pub(crate) fn workers(number: i64) -> Result<u32, String> {
    match u32::try_from(number) {
        Ok(count @ 1..=MOST_WORKERS) => Ok(count),
        _ => Err(format!(
            "expected a number of workers from 1 to {MOST_WORKERS}, or \"auto\", found `{number}`"
        )),
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Count;
        impl Visitor<'_> for Count {
            type Value = Workers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number from 1 to {MOST_WORKERS}, or \"auto\"")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Workers, E> {
                workers(number)
                    .map(Workers::Number)
                    .map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Workers, E> {
                match text {
                    "auto" => Ok(Workers::Auto),
                    template if template.contains("${{") => {
                        Ok(Workers::Template(template.to_owned()))
                    }
                    number if number.parse::<i64>().is_ok() => Err(E::custom(format!(
                        "expected a number from 1 to {MOST_WORKERS}, or \"auto\", found string {text:?}\nwrite it without quotes: {number}"
                    ))),
                    _ => Err(E::custom(format!(
                        "expected a number from 1 to {MOST_WORKERS}, or \"auto\", found {text:?}\n\"auto\" stands for as many workers as there are job slots"
                    ))),
                }
            }
        }
        deserializer.deserialize_any(Count)
    }
}

/// A count of at least one.
pub(crate) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    whole(deserializer, Whole::new("a number", 1, 1_000_000)).map(Some)
}

/// A count of at least one that may be large.
pub(crate) fn long_count<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    whole(deserializer, Whole::new("a number", 1, i64::MAX)).map(Some)
}

/// Records at the beginning of a queue.
pub(crate) fn header<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    whole(
        deserializer,
        Whole::new("a number of records", 0, 1_000_000),
    )
    .map(Some)
}

const TASKS: &str = "an array such as [\"a\", \"b\"], or a table such as { range = [0, 100] }, { glob = \"*.csv\" } or { lines = \"list.txt\" }";

/// A task of an array: a string, or an array of strings, its fields.
struct Fields(Vec<String>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Task;
        impl<'de> Visitor<'de> for Task {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or an array of strings")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Fields, E> {
                Ok(Fields(vec![text.to_owned()]))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Fields, E> {
                Err(E::custom(format!(
                    "expected a string, or an array of strings, found integer `{number}`\nput it in quotes: \"{number}\"; numbers in a row are `tasks = {{ range = [FROM, TO] }}`"
                )))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = seq.next_element()? {
                    fields.push(field);
                }
                if fields.is_empty() {
                    return Err(de::Error::custom(
                        "expected at least one field of a task, found none",
                    ));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_any(Task)
    }
}

/// Two numbers, of which the second is the first one left out.
struct Range(i64, i64);

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Two;
        impl<'de> Visitor<'de> for Two {
            type Value = Range;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two numbers, [FROM, TO]")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Range, E> {
                Err(E::custom(format!(
                    "expected two numbers, [FROM, TO], found integer `{number}`\nwrite [0, {number}]"
                )))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Range, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = seq.next_element::<i64>()? {
                    numbers.push(number);
                }
                match numbers[..] {
                    [from, to] => Ok(Range(from, to)),
                    _ => Err(de::Error::custom(format!(
                        "expected two numbers, [FROM, TO], found {}",
                        numbers.len()
                    ))),
                }
            }
        }
        deserializer.deserialize_any(Two)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TasksTable {
    range: Option<Range>,
    glob: Option<String>,
    lines: Option<String>,
    separator: Option<String>,
}

impl TasksTable {
    fn tasks(self) -> Result<Tasks, String> {
        if self.separator.as_deref() == Some("") {
            return Err("expected a separator of at least one byte, found \"\"".to_owned());
        }
        if self.separator.is_some() && self.lines.is_none() {
            return Err("`separator` cuts `lines`, and there are none\nfields of other tasks are arrays: [[\"a\", \"1\"], [\"b\", \"2\"]]".to_owned());
        }
        match (self.range, self.glob, self.lines) {
            (Some(Range(from, to)), None, None) => Ok(Tasks::Range(from, to)),
            (None, Some(glob), None) => Ok(Tasks::Glob(glob)),
            (None, None, Some(path)) => Ok(Tasks::Lines {
                path,
                separator: self.separator,
            }),
            (None, None, None) => {
                Err("expected one of `range`, `glob` and `lines`, found none".to_owned())
            }
            _ => Err("expected one of `range`, `glob` and `lines`, found several".to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for Tasks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Tasks;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(TASKS)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Tasks, E> {
                let help = if text.contains(['*', '?', '[']) {
                    format!("write {{ glob = {text:?} }}")
                } else {
                    format!("write [{text:?}], or for the lines of a file {{ lines = {text:?} }}")
                };
                Err(E::custom(format!(
                    "expected {TASKS}, found string {text:?}\n{help}"
                )))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Tasks, E> {
                Err(E::custom(format!(
                    "expected {TASKS}, found integer `{number}`\nwrite {{ range = [0, {number}] }}"
                )))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tasks, A::Error> {
                let mut tasks = Vec::new();
                while let Some(Fields(task)) = seq.next_element()? {
                    tasks.push(task);
                }
                Ok(Tasks::List(tasks))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Tasks, A::Error> {
                TasksTable::deserialize(de::value::MapAccessDeserializer::new(map))?
                    .tasks()
                    .map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(Shape)
    }
}
