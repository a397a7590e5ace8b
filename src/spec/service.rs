//! How a service is written: `service = true`, or a table with its probe and its restarts.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::spec::values::{self, Duration, StringOrTable};

/// What makes a service of a process: it runs for as long as somebody needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// When it is ready; none: as soon as it runs.
    pub ready: Option<Probe>,
    /// How often it is started again when it ends too early; none: never.
    pub restart: Option<Restart>,
}

/// How one sees that a service is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is looked at.
    pub kind: ProbeKind,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// Between two looks.
    pub interval: Option<Duration>,
}

/// What is looked at to see that a service is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeKind {
    /// This address takes a connection.
    Tcp(String),
    /// This URL is answered, and not by an error.
    Http(String),
    /// A line of its output matches.
    Log(String),
    /// This file is there.
    File(String),
    /// This command succeeds.
    Command(Vec<String>),
}

/// How often a service is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// So often in the whole run.
    pub max: u32,
    /// Before the first time.
    pub delay: Option<Duration>,
}

/// What makes a service of a process.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
#[schemars(rename = "ServiceTable")]
#[derive(Default)]
struct ServiceTable {
    /// How one sees that it is ready: `{ tcp = "127.0.0.1:5432" }`, `{ http = "http://..." }`, `{ log = "regex" }`, `{ file = "p" }` or `{ command = [..] }`. Default: it is ready as soon as it runs.
    ready: Option<Probe>,
    /// How often it is started again when it ends while somebody needs it, or is not ready in time: `3`, or a table. Default: never.
    restart: Option<Restart>,
}

/// A probe: one of `tcp`, `http`, `log`, `file` and `command`.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
#[schemars(rename = "ProbeTable")]
#[derive(Default)]
struct ProbeTable {
    /// Ready when this address takes a connection: `"127.0.0.1:5432"`, `"[::1]:80"` or `"localhost:80"`.
    tcp: Option<String>,
    /// Ready when a GET of this URL is answered by a status of 200 to 399: `"http://127.0.0.1:8080/health"`.
    http: Option<String>,
    /// Ready when a line of its output (to the log) matches this regular expression: `"ready to accept connections"`.
    log: Option<String>,
    /// Ready when this file is there, and is not the one that was there before. Relative to this file.
    file: Option<String>,
    /// Ready when this command ends with exit code 0: `["pg_isready", "-q"]`.
    #[serde(deserialize_with = "values::argv")]
    #[schemars(length(min = 1))]
    command: Option<Vec<String>>,
    /// How long it may take until it is ready; then the service has failed. Default: `"1m"`.
    timeout: Option<Duration>,
    /// How long to wait between two looks. Default: `"100ms"` at first, growing to `"1s"`.
    interval: Option<Duration>,
}

/// How often a service is started again.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[schemars(rename = "RestartTable")]
struct RestartTable {
    /// So often in the whole run.
    #[serde(deserialize_with = "values::tries")]
    #[schemars(range(min = 0, max = 1_000_000))]
    max: u32,
    /// How long to wait before the first time; each time after that twice as long, up to a minute. Default: `"1s"`.
    delay: Option<Duration>,
}

/// `service`: false is as if it were not there.
pub(crate) fn service<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<Service>>, D::Error> {
    struct Shape;
    impl<'de> Visitor<'de> for Shape {
        type Value = Option<Box<Service>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, or a table such as { ready = { tcp = \"127.0.0.1:5432\" } }")
        }
        fn visit_bool<E: de::Error>(self, yes: bool) -> Result<Self::Value, E> {
            Ok(yes.then(Box::default))
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            let table = ServiceTable::deserialize(de::value::MapAccessDeserializer::new(map))?;
            Ok(Some(Box::new(Service {
                ready: table.ready,
                restart: table.restart,
            })))
        }
    }
    deserializer.deserialize_any(Shape)
}

impl<'de> Deserialize<'de> for Probe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "a table such as { tcp = \"127.0.0.1:5432\" }";
        const KINDS: &str = "expected one of `tcp`, `http`, `log`, `file` and `command`";
        deserializer.deserialize_any(StringOrTable::new(
            EXPECTED,
            |string| {
                let kind = match string {
                    url if url.starts_with("http") => "http",
                    _ => "tcp",
                };
                Err(format!(
                    "expected {EXPECTED}, found string {string:?}\nsay what it is: {{ {kind} = {string:?} }}"
                ))
            },
            |table: ProbeTable| {
                let kinds = [
                    table.tcp.map(ProbeKind::Tcp),
                    table.http.map(ProbeKind::Http),
                    table.log.map(ProbeKind::Log),
                    table.file.map(ProbeKind::File),
                    table.command.map(ProbeKind::Command),
                ];
                let mut kinds = kinds.into_iter().flatten();
                let Some(kind) = kinds.next() else {
                    return Err(format!("{KINDS}, found none"));
                };
                if kinds.next().is_some() {
                    return Err(format!("{KINDS}, found several"));
                }
                Ok(Probe {
                    kind,
                    timeout: table.timeout,
                    interval: table.interval,
                })
            },
        ))
    }
}

impl<'de> Deserialize<'de> for Restart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "a number, or a table such as { max = 3, delay = \"1s\" }";
        deserializer.deserialize_any(
            StringOrTable::new(
                EXPECTED,
                |string| Err(format!("expected {EXPECTED}, found string {string:?}")),
                |table: RestartTable| {
                    Ok(Restart {
                        max: table.max,
                        delay: table.delay,
                    })
                },
            )
            .or_number(|number| match u32::try_from(number) {
                Ok(max) if max <= 1_000_000 => Ok(Restart { max, delay: None }),
                _ => Err(format!(
                    "expected a number from 0 to 1000000, found integer `{number}`"
                )),
            }),
        )
    }
}

impl JsonSchema for Service {
    fn schema_name() -> Cow<'static, str> {
        "Service".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "It is a service: true, or a table.",
            "anyOf": [{ "type": "boolean" }, generator.subschema_for::<ServiceTable>()],
        })
    }
}

impl JsonSchema for Probe {
    fn schema_name() -> Cow<'static, str> {
        "Probe".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = ProbeTable::json_schema(generator);
        let kinds = ["tcp", "http", "log", "file", "command"];
        let one: Vec<_> = kinds
            .iter()
            .map(|kind| serde_json::json!({ "required": [kind] }))
            .collect();
        schema.insert("oneOf".to_owned(), one.into());
        schema
    }
}

impl JsonSchema for Restart {
    fn schema_name() -> Cow<'static, str> {
        "Restart".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How often it is started again: a number, or a table.",
            "anyOf": [
                { "type": "integer", "minimum": 0, "maximum": 1_000_000 },
                generator.subschema_for::<RestartTable>(),
            ],
        })
    }
}
