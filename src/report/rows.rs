//! [`Rows`]: JSON that people can read too: indented down to its lists, of which each element has a line of its own. A tool
//! that works by lines finds a node with all that is said of it, and the text is half as long as one that is indented
//! throughout.

use std::io::{self, Write};

use serde_json::ser::Formatter;

/// Values nested deeper than this stand on their parent's line.
const DEEPEST: usize = 2;

/// See the module.
#[derive(Debug, Default)]
pub struct Rows {
    depth: usize,
    has_values: bool,
}

impl Rows {
    fn open<W: Write + ?Sized>(&mut self, out: &mut W, bracket: u8) -> io::Result<()> {
        self.depth += 1;
        self.has_values = false;
        out.write_all(&[bracket])
    }

    fn next<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        match self.depth {
            0..=DEEPEST => new_line(out, self.depth),
            _ if first => Ok(()),
            _ => out.write_all(b" "),
        }
    }

    fn close<W: Write + ?Sized>(&mut self, out: &mut W, bracket: u8) -> io::Result<()> {
        self.depth = self.depth.saturating_sub(1);
        if self.has_values && self.depth < DEEPEST {
            new_line(out, self.depth)?;
        }
        // To its parent, this was a value.
        self.has_values = true;
        out.write_all(&[bracket])
    }
}

fn new_line<W: Write + ?Sized>(out: &mut W, depth: usize) -> io::Result<()> {
    out.write_all(b"\n")?;
    (0..depth).try_for_each(|_| out.write_all(b"  "))
}

impl Formatter for Rows {
    fn begin_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b'[')
    }

    fn end_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b']')
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.next(out, first)
    }

    fn end_array_value<W: Write + ?Sized>(&mut self, _out: &mut W) -> io::Result<()> {
        self.has_values = true;
        Ok(())
    }

    fn begin_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b'{')
    }

    fn end_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b'}')
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.next(out, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, _out: &mut W) -> io::Result<()> {
        self.has_values = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;

    #[test]
    fn each_element_of_a_list_has_a_line() -> Result<(), Box<dyn std::error::Error>> {
        let value = serde_json::json!({
            "a": 1, "sums": { "b": 2 }, "none": [], "list": [{ "c": [3, { "d": 4 }], "e": {} }, 5]
        });
        let mut json = Vec::new();
        value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut json,
            Rows::default(),
        ))?;
        let expected = r#"{
  "a": 1,
  "sums": {
    "b": 2
  },
  "none": [],
  "list": [
    {"c": [3, {"d": 4}], "e": {}},
    5
  ]
}"#;
        assert_eq!(String::from_utf8(json)?, expected);
        Ok(())
    }
}
