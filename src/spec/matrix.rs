//! How `matrix` is written: a table whose keys are axes, but for `exclude` and `include`.

use std::fmt;

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::spec::Matrix;

/// A value of an axis. Whole numbers and truth values are what one writes without quotes, and their text is plain; a number
/// with a point is not let through, since of 3.10 TOML leaves 3.1.
#[derive(PartialEq, Eq)]
struct Value(String);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a whole number")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value(text.to_owned()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
                Ok(Value(number.to_string()))
            }
            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Value, E> {
                Ok(Value(truth.to_string()))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// The values of an axis.
struct Axis(Vec<String>);

impl<'de> Deserialize<'de> for Axis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Axis;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of values")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Axis, A::Error> {
                let mut values = Vec::new();
                while let Some(Value(value)) = seq.next_element()? {
                    values.push(value);
                }
                Ok(Axis(values))
            }
        }
        deserializer.deserialize_any(Values)
    }
}

/// An element of `exclude` or `include`.
struct Row(IndexMap<String, String>);

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = Row;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table such as { py = \"3.12\" }")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut row = IndexMap::new();
                while let Some((key, Value(value))) = map.next_entry::<String, Value>()? {
                    row.insert(key, value);
                }
                Ok(Row(row))
            }
        }
        deserializer.deserialize_any(Table)
    }
}

/// `exclude` or `include`.
struct Rows(Vec<IndexMap<String, String>>);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tables;
        impl<'de> Visitor<'de> for Tables {
            type Value = Rows;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of tables such as [{ py = \"3.12\" }]")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Rows, A::Error> {
                let mut rows = Vec::new();
                while let Some(Row(row)) = seq.next_element()? {
                    rows.push(row);
                }
                Ok(Rows(rows))
            }
        }
        deserializer.deserialize_any(Tables)
    }
}

impl<'de> Deserialize<'de> for Matrix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = Matrix;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table such as { py = [\"3.11\", \"3.12\"] }")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Matrix, A::Error> {
                let mut matrix = Matrix::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "exclude" => matrix.exclude = map.next_value::<Rows>()?.0,
                        "include" => matrix.include = map.next_value::<Rows>()?.0,
                        _ => {
                            let Axis(values) = map.next_value()?;
                            matrix.axes.insert(key, values);
                        }
                    }
                }
                Ok(matrix)
            }
        }
        deserializer.deserialize_any(Table)
    }
}
