//! How a condition is written: `when = { env = "CI" }`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::Deserializer;

use crate::spec::values::{self, StringOrTable};

/// On what condition a node runs. Else it is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// This variable of its environment is set, and not empty; or it is this.
    Env {
        /// The variable.
        name: String,
        /// What it has to be.
        is: Option<String>,
    },
    /// This param is this.
    Param {
        /// The param.
        name: String,
        /// What it has to be.
        is: String,
    },
    /// This command says so: by exit code 0 yes, by 1 no.
    Command(Vec<String>),
}

/// One of `env`, `param` and `command`.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
#[schemars(rename = "WhenTable")]
#[derive(Default)]
struct WhenTable {
    /// It runs when this variable of its environment is set, and not empty: `"CI"`; with `is`, when it is that.
    env: Option<String>,
    /// It runs when this parameter is what `is` says: `"deploy"`.
    param: Option<String>,
    /// What the variable or the parameter has to be: `"yes"`.
    is: Option<String>,
    /// It runs when this command ends with exit code 0, and is skipped when that is 1; any other end is a failure. Asked once, when all else that it waits for is there.
    #[serde(deserialize_with = "values::argv")]
    #[schemars(length(min = 1))]
    command: Option<Vec<String>>,
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "a table such as { env = \"CI\" }";
        const KINDS: &str = "expected one of `env`, `param` and `command`";
        deserializer.deserialize_any(StringOrTable::new(
            EXPECTED,
            |string| {
                let name = string.trim_start_matches('$');
                let is_name = !name.is_empty()
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                let help = match is_name {
                    true => format!("\nsay what it is: {{ env = {name:?} }}"),
                    false => "\nthere are no expressions: for what `env` and `param` can't say there is { command = [\"sh\", \"-c\", \"...\"] }".to_owned(),
                };
                Err(format!("expected {EXPECTED}, found string {string:?}{help}"))
            },
            |table: WhenTable| match (table.env, table.param, table.command, table.is) {
                (None, None, None, _) => Err(format!("{KINDS}, found none")),
                (Some(name), None, None, is) => Ok(When::Env { name, is }),
                (None, Some(name), None, Some(is)) => Ok(When::Param { name, is }),
                (None, Some(name), None, None) => Err(format!(
                    "`is` is missing\nsay what the parameter has to be: {{ param = {name:?}, is = \"yes\" }}"
                )),
                (None, None, Some(command), None) => Ok(When::Command(command)),
                (None, None, Some(_), Some(_)) => Err(
                    "`is` goes with `env` and `param`\na command says yes by exit code 0, and no by 1"
                        .to_owned(),
                ),
                _ => Err(format!(
                    "{KINDS}, found several\nmake one of them a node of its own that this one comes after, or ask all by one command"
                )),
            },
        ))
    }
}

impl JsonSchema for When {
    fn schema_name() -> Cow<'static, str> {
        "When".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = WhenTable::json_schema(generator);
        schema.insert(
            "oneOf".to_owned(),
            serde_json::json!([
                { "required": ["env"] },
                { "required": ["param", "is"] },
                { "required": ["command"], "not": { "required": ["is"] } },
            ]),
        );
        schema
    }
}
