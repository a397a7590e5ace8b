//! Makes a line that a child printed harmless on a terminal: its text and its colours stay, everything else that a terminal
//! would obey is dropped (cursor movement, titles, hyperlinks, clipboard writes, C0 and C1 controls, and the controls that
//! reorder text).

use anstyle_parse::{Params, Parser, Perform};

/// Appends a line (without its newline) to `out`, harmless. `colour`: keep its colours, and end them with the line.
pub fn line(out: &mut String, line: &[u8], colour: bool) {
    // What a terminal would show of "10%\r20%\r": the last of them.
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = match memchr::memrchr(b'\r', line) {
        Some(at) => line.get(at + 1..).unwrap_or_default(),
        None => line,
    };
    if let Ok(text) = str::from_utf8(line)
        && line.iter().all(|b| matches!(b, b'\t' | b' '..=b'~'))
    {
        out.push_str(text);
        return;
    }
    let mut keep = Keep {
        out,
        colour,
        styled: false,
    };
    let mut parser = Parser::<anstyle_parse::DefaultCharAccumulator>::new();
    // Decoded first: then a byte of 0x80 to 0x9F is part of a character, never a control of its own that the parser might
    // obey.
    for byte in String::from_utf8_lossy(line).bytes() {
        parser.advance(&mut keep, byte);
    }
    if keep.styled {
        out.push_str("\x1b[0m");
    }
}

struct Keep<'a> {
    out: &'a mut String,
    colour: bool,
    styled: bool,
}

impl Perform for Keep<'_> {
    fn print(&mut self, c: char) {
        if !is_control(c) {
            self.out.push(c);
        }
    }

    fn execute(&mut self, byte: u8) {
        if byte == b'\t' {
            self.out.push('\t');
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: u8) {
        if action != b'm' || !self.colour || ignore || !intermediates.is_empty() {
            return;
        }
        if let Some(sgr) = harmless_sgr(params) {
            self.styled = sgr != "0";
            self.out.push_str("\x1b[");
            self.out.push_str(&sgr);
            self.out.push('m');
        }
    }
}

/// Controls beyond ASCII: C1, line and paragraph separators, the bidirectional controls (a text that is shown in another
/// order than it is read), and tags.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The parameters of a select-graphic-rendition that set weight, slant, underline and colours. Blinking, hidden and foreign
/// fonts are left out: a hidden line is one that nobody reads.
fn harmless_sgr(params: &Params) -> Option<String> {
    let mut kept: Vec<String> = Vec::new();
    let mut params = params.iter();
    while let Some(param) = params.next() {
        match param {
            [38 | 48 | 58] => {
                // The old form spreads a colour over several parameters: 38;5;N or 38;2;R;G;B.
                let more = match params.next() {
                    Some([5]) => 1,
                    Some([2]) => 3,
                    _ => break,
                };
                let values: Vec<String> = params
                    .by_ref()
                    .take(more)
                    .filter_map(|p| p.first())
                    .map(u16::to_string)
                    .collect();
                if values.len() < more {
                    break;
                }
                let kind = if more == 1 { 5 } else { 2 };
                kept.push(format!(
                    "{};{kind};{}",
                    param.first().copied().unwrap_or_default(),
                    values.join(";")
                ));
            }
            [38 | 48 | 58, ..] | [4, _] => {
                kept.push(
                    param
                        .iter()
                        .map(u16::to_string)
                        .collect::<Vec<_>>()
                        .join(":"),
                );
            }
            [
                n @ (0..=4
                | 7
                | 9
                | 21..=24
                | 27
                | 29..=37
                | 39..=47
                | 49
                | 53
                | 55
                | 59
                | 90..=97
                | 100..=107),
            ] => {
                kept.push(n.to_string());
            }
            _ => {}
        }
    }
    (!kept.is_empty()).then(|| kept.join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(bytes: &[u8]) -> String {
        let mut out = String::new();
        line(&mut out, bytes, true);
        out
    }

    #[test]
    fn text_tabs_and_colours_stay() {
        assert_eq!(shown(b"a\tb"), "a\tb");
        assert_eq!(shown("grüße 🎉".as_bytes()), "grüße 🎉");
        assert_eq!(
            shown(b"\x1b[1;31merror\x1b[0m: x"),
            "\x1b[1;31merror\x1b[0m: x"
        );
        assert_eq!(
            shown(b"\x1b[38;5;9ma\x1b[48;2;1;2;3mb"),
            "\x1b[38;5;9ma\x1b[48;2;1;2;3mb\x1b[0m"
        );
        assert_eq!(shown(b"\x1b[4:3mcurly"), "\x1b[4:3mcurly\x1b[0m");
        assert_eq!(shown(b"\x1b[mplain"), "\x1b[0mplain");
    }

    #[test]
    fn without_colours_none_stay() {
        let mut out = String::new();
        line(&mut out, b"\x1b[1;31merror\x1b[0m: x", false);
        assert_eq!(out, "error: x");
    }

    #[test]
    fn the_last_of_what_was_overwritten_stays() {
        assert_eq!(shown(b"10%\r20%\r\x1b[K30%\r"), "30%");
        assert_eq!(shown(b"dos\r"), "dos");
    }

    #[test]
    fn what_a_terminal_would_obey_goes() {
        for hostile in [
            &b"\x1b[2J"[..],
            b"\x1b[10A\x1b[999D\x1b[K",
            b"\x1b]0;title\x07",
            b"\x1b]52;c;aGk=\x1b\\",
            b"\x1b]8;;http://evil\x1b\\",
            b"\x1bP+q544e\x1b\\",
            b"\x1bc\x1b7\x1b8\x1b#8\x1b(0",
            b"\x1b[?1049h\x1b[?25l\x1b[6n\x1b[c",
            b"\x1b[8m\x1b[5m\x1b[11m",
            b"\x1b[>4;2m\x1b[?4m",
            b"\x07\x08\x0b\x0c\x0e\x0f\x7f",
            "\u{9b}\u{90}\u{9d}\u{85}".as_bytes(),
            "\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}\u{feff}\u{e0041}".as_bytes(),
            b"\x1b",
            b"\x1b[",
            b"\x1b]never ended",
        ] {
            let around = [b"a", hostile].concat();
            assert_eq!(shown(&around), "a", "{around:?}");
        }
        // C1 controls as single bytes are no UTF-8; a terminal that takes them must not see them.
        assert_eq!(shown(b"a\x9b2Jb"), "a\u{fffd}2Jb");
    }

    proptest! {
        /// Nothing but printable text, tabs and `ESC [ digits m` ever comes out.
        #[test]
        fn only_text_and_colours_come_out(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(b'm'), Just(b';')], 0..200)) {
            let out = shown(&bytes);
            let mut rest = out.as_str();
            while let Some(at) = rest.find('\x1b') {
                prop_assert!(!rest[..at].chars().any(|c| c != '\t' && is_control(c)));
                let after = &rest[at + 1..];
                prop_assert!(after.starts_with('['), "{:?}", out);
                let end = after.find('m');
                prop_assert!(end.is_some_and(|end| after[1..end].bytes().all(|b| matches!(b, b'0'..=b'9' | b';' | b':'))), "{:?}", out);
                rest = &after[end.unwrap_or(0) + 1..];
            }
            prop_assert!(!rest.chars().any(|c| c != '\t' && is_control(c)));
        }
    }
}
