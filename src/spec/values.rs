//! Small values with a notation of their own: durations, sizes, signals, one-or-many, bounded numbers.
//!
//! Messages are ours, not serde's, and a second line of one is the way out: the reader makes it the diagnostic's help.

use std::fmt;
use std::marker::PhantomData;

use nix::sys::signal::Signal as Name;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Unexpected, Visitor};

use crate::diagnostic::did_you_mean;

/// A time span such as `"30s"`, `"1h 30m"`, `"250ms"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub std::time::Duration);

/// A number of bytes: an integer, or a string such as `"256KiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A signal by name (`"TERM"`, `"SIGTERM"`), as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub i32);

/// How much there is of a resource, or how much of it a node claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount(pub u32);

/// A string, or an array of strings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OneOrMany(pub Vec<String>);

/// What a deadline can be at most: enough for any run, and far from where adding it to a clock would overflow.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(100 * 365 * 24 * 3600);

/// What a size can be at most: file offsets and rlimits are signed or have meanings above it.
const LARGEST: u64 = i64::MAX as u64;

impl std::str::FromStr for Duration {
    type Err = String;

    /// Parses `"1h 30m"`. The error's second line, if there is one, is the way out.
    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected a duration such as \"30s\", \"1h 30m\" or \"250ms\"";
        // To humantime, `M` and `month` are 30.44 days, `y` 365.25: as deadlines they can only be slips.
        let units = text
            .split(|c: char| !c.is_alphabetic())
            .filter(|unit| !unit.is_empty());
        for unit in units {
            if unit == "M" {
                return Err(format!(
                    "{EXPECTED}, found {text:?}\n`m` is for minutes, `M` would be a month"
                ));
            }
            if unit.starts_with("month")
                || unit.starts_with("year")
                || matches!(unit, "y" | "yr" | "yrs")
            {
                return Err(format!(
                    "{EXPECTED}, found {text:?}\nunits are ms, s, m, h, d and w"
                ));
            }
        }
        match humantime::parse_duration(text) {
            Ok(time) if time > LONGEST => Err(format!("expected at most 36500d, found {text:?}")),
            Ok(time) => Ok(Duration(time)),
            Err(humantime::DurationError::NumberOverflow) => {
                Err(format!("expected at most 36500d, found {text:?}"))
            }
            Err(_) if text.trim_start().starts_with('-') => Err(format!(
                "{EXPECTED}, found {text:?}\na duration cannot be negative"
            )),
            Err(_) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => Err(format!(
                "{EXPECTED}, found {text:?}\nthe unit is missing: did you mean \"{text}s\"?"
            )),
            Err(_) => Err(format!(
                "{EXPECTED}, found {text:?}\nunits are ms, s, m, h, d and w"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Duration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"30s\", \"1h 30m\" or \"250ms\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Duration, E> {
                if number < 0 {
                    return Err(E::invalid_type(Unexpected::Signed(number), &self));
                }
                Err(E::custom(format!(
                    "expected a duration such as \"30s\", \"1h 30m\" or \"250ms\", found integer `{number}`\n\
                     the unit is missing: did you mean \"{number}s\"?"
                )))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl std::str::FromStr for ByteSize {
    type Err = String;

    /// Parses `"64MiB"` (2^20 bytes each), `"64MB"` or `"64M"` (10^6), `"512"`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().parse::<bytesize::ByteSize>() {
            // bytesize saturates instead of failing; every size that does so lies above the bound.
            Ok(size) if size.as_u64() > LARGEST => {
                Err(format!("expected a size below 8EiB, found {text:?}"))
            }
            Ok(size) => Ok(ByteSize(size.as_u64())),
            Err(_) => Err(format!(
                "expected a size such as \"64MiB\" or a number of bytes, found {text:?}\n\
                 units are B, kB, MB, GB, TB (powers of 1000) and KiB, MiB, GiB, TiB (powers of 1024)"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64MiB\" or a number of bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ByteSize, E> {
                match u64::try_from(number) {
                    Ok(number) => Ok(ByteSize(number)),
                    Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(Size)
    }
}

impl std::str::FromStr for Signal {
    type Err = String;

    /// Parses `"TERM"` or `"SIGTERM"`.
    fn from_str(text: &str) -> Result<Self, String> {
        let name = if text.starts_with("SIG") {
            text.to_owned()
        } else {
            format!("SIG{text}")
        };
        match name.parse::<Name>() {
            Ok(signal) => Ok(Signal(signal as i32)),
            Err(_) => {
                let names =
                    Name::iterator().map(|signal| signal.as_str().trim_start_matches("SIG"));
                let help = match did_you_mean(
                    text.to_ascii_uppercase().trim_start_matches("SIG"),
                    names,
                ) {
                    Some(name) => format!("did you mean \"{name}\"?"),
                    None => "`kill -l` lists them".to_owned(),
                };
                Err(format!(
                    "expected a signal's name such as \"TERM\" or \"INT\", found {text:?}\n{help}"
                ))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Signal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a signal's name such as \"TERM\" or \"INT\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Signal, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = OneOrMany;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<OneOrMany, A::Error> {
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(OneOrMany)
            }
        }
        deserializer.deserialize_any(Strings)
    }
}

/// A whole number between two bounds.
#[derive(Clone, Copy)]
pub(crate) struct Whole {
    what: &'static str,
    min: i64,
    max: i64,
}

impl Whole {
    pub(crate) fn new(what: &'static str, min: i64, max: i64) -> Self {
        Whole { what, min, max }
    }
}

impl Visitor<'_> for Whole {
    type Value = i64;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} to {}", self.what, self.min, self.max)
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<i64, E> {
        if (self.min..=self.max).contains(&number) {
            Ok(number)
        } else {
            Err(E::invalid_value(Unexpected::Signed(number), &self))
        }
    }
}

/// Job slots of a run: at least one.
pub(crate) fn jobs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    whole(
        deserializer,
        Whole {
            what: "a number",
            min: 1,
            max: 1_000_000,
        },
    )
    .map(Some)
}

/// Job slots of a node: none is allowed.
pub(crate) fn cpus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    whole(
        deserializer,
        Whole {
            what: "a number",
            min: 0,
            max: 1_000_000,
        },
    )
    .map(Some)
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole(deserializer, Whole::new("a number", 0, 1_000_000)).map(Amount)
    }
}

/// Tries after the first.
pub(crate) fn tries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    whole(
        deserializer,
        Whole {
            what: "a number",
            min: 0,
            max: 1_000_000,
        },
    )
}

/// Bytes of a record of fixed size.
pub(crate) fn record_size<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u32>, D::Error> {
    whole(
        deserializer,
        Whole {
            what: "a number of bytes",
            min: 1,
            max: 1 << 30,
        },
    )
    .map(Some)
}

/// A count that setrlimit(2) takes.
pub(crate) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    whole(
        deserializer,
        Whole {
            what: "a number",
            min: 0,
            max: i64::MAX,
        },
    )
    .map(Some)
}

/// A nice value, as nice(1) adds it.
pub(crate) fn nice<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
    whole(
        deserializer,
        Whole {
            what: "a number",
            min: -20,
            max: 19,
        },
    )
    .map(Some)
}

pub(crate) fn whole<'de, D: Deserializer<'de>, N: TryFrom<i64>>(
    deserializer: D,
    bounds: Whole,
) -> Result<N, D::Error> {
    let number = deserializer.deserialize_any(bounds)?;
    // Unreachable while the bounds fit the type; a message is still better than a panic.
    N::try_from(number).map_err(|_| de::Error::invalid_value(Unexpected::Signed(number), &bounds))
}

/// An exit code of a process.
struct Code(u8);

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole(
            deserializer,
            Whole {
                what: "an exit code",
                min: 0,
                max: 255,
            },
        )
        .map(Code)
    }
}

/// An array of exit codes.
pub(crate) fn codes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    struct Codes;
    impl<'de> Visitor<'de> for Codes {
        type Value = Vec<u8>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of exit codes such as [0, 1]")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
            let mut codes = Vec::new();
            while let Some(Code(code)) = seq.next_element()? {
                codes.push(code);
            }
            Ok(codes)
        }
    }
    deserializer.deserialize_any(Codes)
}

/// [`codes`] of a key that may be missing.
pub(crate) fn some_codes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<u8>>, D::Error> {
    codes(deserializer).map(Some)
}

/// The factor between two delays.
pub(crate) fn backoff<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    struct Factor;
    impl Visitor<'_> for Factor {
        type Value = f64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number from 1.0 to 1000.0")
        }
        fn visit_f64<E: de::Error>(self, number: f64) -> Result<f64, E> {
            // Not a number is in no range.
            if (1.0..=1000.0).contains(&number) {
                Ok(number)
            } else {
                Err(E::invalid_value(Unexpected::Float(number), &self))
            }
        }
        fn visit_i64<E: de::Error>(self, number: i64) -> Result<f64, E> {
            match i32::try_from(number) {
                Ok(number) if (1..=1000).contains(&number) => Ok(f64::from(number)),
                _ => Err(E::invalid_value(Unexpected::Signed(number), &self)),
            }
        }
    }
    deserializer.deserialize_any(Factor).map(Some)
}

/// An argv: an array of strings. A plain string is the most common slip, so its answer shows both ways out.
pub(crate) fn argv<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    struct Argv;
    impl<'de> Visitor<'de> for Argv {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of strings such as [\"ls\", \"-l\"]")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<String>, E> {
            let words: Vec<&str> = text.split_whitespace().collect();
            Err(E::custom(format!(
                "expected an array of strings, found string {text:?}\n\
                 write {words:?}, one string for each argument; only `script` is handed to a shell"
            )))
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
            // Exact: there may be 100,000 of these, and most have one to three elements.
            let mut words = Vec::with_capacity(seq.size_hint().unwrap_or(0));
            while let Some(word) = seq.next_element()? {
                words.push(word);
            }
            Ok(words)
        }
    }
    deserializer.deserialize_any(Argv).map(Some)
}

/// Reads a value that is a string or a table, in our own words where it is neither.
///
/// The road not taken is serde's `untagged`: all it can say is "data did not match any variant", and it has lost the
/// places within the value.
pub(crate) struct StringOrTable<Value, Table> {
    expected: &'static str,
    string: fn(&str) -> Result<Value, String>,
    table: fn(Table) -> Result<Value, String>,
    number: Option<fn(i64) -> Result<Value, String>>,
    kind: PhantomData<(Value, Table)>,
}

impl<Value, Table> StringOrTable<Value, Table> {
    /// `expected` completes "expected ...".
    pub(crate) fn new(
        expected: &'static str,
        string: fn(&str) -> Result<Value, String>,
        table: fn(Table) -> Result<Value, String>,
    ) -> Self {
        StringOrTable {
            expected,
            string,
            table,
            number: None,
            kind: PhantomData,
        }
    }

    /// A whole number is allowed as well.
    pub(crate) fn or_number(mut self, number: fn(i64) -> Result<Value, String>) -> Self {
        self.number = Some(number);
        self
    }
}

impl<'de, Value, Table: Deserialize<'de>> Visitor<'de> for StringOrTable<Value, Table> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        (self.string)(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
        match self.number {
            Some(read) => read(number).map_err(E::custom),
            None => Err(E::invalid_type(Unexpected::Signed(number), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
        (self.table)(table).map_err(de::Error::custom)
    }
}

/// One value, or an array of them.
pub(crate) enum OneOrSeq<T> {
    One(T),
    Seq(Vec<T>),
}

/// Reads [`OneOrSeq`]; `expected` completes "expected ..." for what is neither a string, a table nor an array.
pub(crate) fn one_or_seq<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
    expected: &'static str,
) -> Result<OneOrSeq<T>, D::Error> {
    struct Shape<T>(&'static str, PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Shape<T> {
        type Value = OneOrSeq<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrSeq<T>, E> {
            T::deserialize(de::value::StrDeserializer::new(text)).map(OneOrSeq::One)
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OneOrSeq<T>, A::Error> {
            T::deserialize(de::value::MapAccessDeserializer::new(map)).map(OneOrSeq::One)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrSeq<T>, A::Error> {
            let mut many = Vec::new();
            while let Some(one) = seq.next_element()? {
                many.push(one);
            }
            Ok(OneOrSeq::Seq(many))
        }
    }
    deserializer.deserialize_any(Shape(expected, PhantomData))
}
