//! Where in a text a [`Place`] stands: the text is parsed again, with spans, when there is something to show.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Mark, Place, Step};

/// The spans of a text's keys and values.
pub(crate) struct Spans<'i> {
    text: &'i str,
    root: DeTable<'i>,
}

impl<'i> Spans<'i> {
    /// Parses the text once more, as far as it can be.
    pub(crate) fn of(text: &'i str) -> Self {
        let (root, _) = DeTable::parse_recoverable(text);
        Spans {
            text,
            root: root.into_inner(),
        }
    }

    /// The bytes that a mark stands for; none where it stands for the whole file. A place that does not exist (a key
    /// that is missing) is that of the nearest table or value around it.
    pub(crate) fn find(&self, mark: &Mark) -> Option<Range<usize>> {
        let (place, wants_key) = match mark {
            Mark::Bytes(range) => return Some(self.within(range.clone())),
            Mark::Within(place, words) => {
                let value = self.walk(place, false).map(|range| self.within(range))?;
                let at = self.text.get(value.clone())?.find(words.as_str());
                return Some(at.map_or(value.clone(), |at| {
                    let start = value.start + at;
                    start..start + words.len()
                }));
            }
            Mark::Key(place) => (place, true),
            Mark::Value(place) => (place, false),
        };
        self.walk(place, wants_key).map(|range| self.within(range))
    }

    fn walk(&self, place: &Place, wants_key: bool) -> Option<Range<usize>> {
        let (Step::Key(first), rest) = place.0.split_first()? else {
            return None;
        };
        let (key, mut value) = self.root.get_key_value(first.as_str())?;
        let mut key = Some(key.span());
        for step in rest {
            let next = match (step, value.get_ref()) {
                (Step::Key(name), DeValue::Table(table)) => table
                    .get_key_value(name.as_str())
                    .map(|(key, value)| (Some(key.span()), value)),
                (Step::Index(index), DeValue::Array(array)) => {
                    array.get(*index).map(|value| (None, value))
                }
                _ => None,
            };
            // Beyond this the place does not exist.
            let Some(next) = next else {
                return Some(self.shown(key, value, false));
            };
            (key, value) = next;
        }
        Some(self.shown(key, value, wants_key))
    }

    /// The key of an entry, or its value; for a table with a header, the header is both.
    fn shown(
        &self,
        key: Option<Range<usize>>,
        value: &Spanned<DeValue<'i>>,
        wants_key: bool,
    ) -> Range<usize> {
        let span = value.span();
        let header = value.get_ref().is_table()
            && self
                .text
                .get(span.clone())
                .is_some_and(|text| text.starts_with('['));
        match key {
            Some(key) if wants_key && !header => key,
            _ => span,
        }
    }

    /// The range, made to lie within the text and on borders of characters.
    fn within(&self, range: Range<usize>) -> Range<usize> {
        let start = self
            .text
            .floor_char_boundary(range.start.min(self.text.len()));
        let end = self
            .text
            .ceil_char_boundary(range.end.clamp(start, self.text.len()));
        start..end
    }
}
