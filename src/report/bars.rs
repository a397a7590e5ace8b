//! [`Bars`]: the part of the terminal that is drawn again and again while a run goes on: a line for each node that runs, and
//! one bar for the run.
//!
//! It is a single indicatif bar of several lines, not one bar for each node: then a tick is one drawing, whatever runs, and
//! what has been drawn is exactly what must be cleared. (A `MultiProgress` draws at each change of each bar, leaves ghosts when
//! lines are printed between, and overflows a small screen.)

use std::fmt::Write;
use std::io;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::plan::UnitId;
use crate::report::observers::View;
use crate::report::terminal::{Look, Terminal};
use crate::report::units::{Label, short};

/// At most so many nodes have a line.
const MOST_LINES: usize = 8;

/// The moving part of the terminal.
#[derive(Debug)]
pub struct Bars {
    terminal: Terminal,
    bar: ProgressBar,
}

impl Bars {
    /// Draws on `terminal`.
    pub fn new(terminal: &Terminal) -> Self {
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(Screen(terminal.clone())), 255);
        let bar = ProgressBar::with_draw_target(None, target).with_style(plain_style());
        Bars {
            terminal: terminal.clone(),
            bar,
        }
    }

    /// Prints `above`, whole lines, and draws again below it what there is now.
    pub fn draw(
        &mut self,
        above: &str,
        now: Duration,
        running: impl ExactSizeIterator<Item = UnitId>,
        look: Look,
        view: &View<'_>,
    ) {
        let (width, height) = look.size.unwrap_or((80, 24));
        let (width, height) = (usize::from(width).max(10), usize::from(height));
        let text = picture(now, running, width, height, look.unicode, view);
        if !above.is_empty() {
            self.bar.suspend(|| self.terminal.queue(above));
        }
        self.bar.set_message(text);
        self.terminal.flush();
    }

    /// Takes it off the screen, for good.
    pub fn clear(self) {
        self.bar.finish_and_clear();
        self.terminal.flush();
    }
}

/// The whole picture is the bar's message: it has been laid out for the width of the screen.
fn plain_style() -> ProgressStyle {
    match ProgressStyle::with_template("{msg}") {
        Ok(style) => style,
        Err(e) => panic!("BUG: the template of the bars: {e}"),
    }
}

/// The lines to draw, no wider than the screen, and at least two fewer than it has.
fn picture(
    now: Duration,
    running: impl ExactSizeIterator<Item = UnitId>,
    width: usize,
    height: usize,
    unicode: bool,
    view: &View<'_>,
) -> String {
    let mut text = String::new();
    let rows = MOST_LINES.min(height.saturating_sub(3));
    let count = running.len();
    // Where not all fit, the last row says how many more there are.
    let shown = if count > rows {
        rows.saturating_sub(1)
    } else {
        count
    };
    let frames: &[char] = if unicode {
        &['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏']
    } else {
        &['|', '/', '-', '\\']
    };
    let frame = usize::try_from(now.as_millis() / 100).unwrap_or(0) % frames.len();
    let spinner = frames.get(frame).copied().unwrap_or('*');
    let units: Vec<UnitId> = running.take(shown).collect();
    let longest = units
        .iter()
        .map(|unit| Label::of(view.plan, *unit).to_string().len())
        .max()
        .unwrap_or(0);
    // Spinner, spaces and the time take 11 columns.
    let name_width = longest.min(width.saturating_sub(12));
    for unit in units {
        let time = now.saturating_sub(view.tally.unit(unit).started.unwrap_or(now));
        let name = Label::of(view.plan, unit).to_string();
        let name: String = name.chars().take(name_width).collect();
        let _ = writeln!(text, "{spinner} {name:<name_width$} {:>7}", short(time));
    }
    if count > shown && rows > 0 {
        let _ = writeln!(text, "  +{} more", count - shown);
    }
    run_line(&mut text, now, width, unicode, view);
    text
}

/// `━━━━━━━━━━╌╌╌╌╌ 7/12, 2 running, 1 failed, 3.2s`
fn run_line(text: &mut String, now: Duration, width: usize, unicode: bool, view: &View<'_>) {
    let counts = &view.tally.counts;
    let (done, total) = (counts.ended(), counts.total.max(1));
    let mut facts = format!("{done}/{}, {} running", counts.total, counts.running);
    if counts.failed > 0 {
        let _ = write!(facts, ", {} failed", counts.failed);
    }
    let _ = write!(facts, ", {}", short(now));
    let room = width.saturating_sub(facts.len() + 2).min(40);
    if room >= 5 {
        let filled = room * done / total;
        let (full, empty) = if unicode { ('━', '╌') } else { ('=', '-') };
        text.extend(std::iter::repeat_n(full, filled));
        text.extend(std::iter::repeat_n(empty, room - filled));
        text.push(' ');
    }
    text.extend(facts.chars().take(width.saturating_sub(1)));
}

/// indicatif's way to our terminal: what it writes is queued, and goes out with everything else of a tick.
#[derive(Debug)]
struct Screen(Terminal);

impl Screen {
    fn put(&self, text: &str) -> io::Result<()> {
        self.0.queue(text);
        Ok(())
    }

    fn step(&self, n: usize, direction: char) -> io::Result<()> {
        if n == 0 {
            Ok(())
        } else {
            self.put(&format!("\x1b[{n}{direction}"))
        }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.0.look().size.map_or(80, |(width, _)| width)
    }

    fn height(&self) -> u16 {
        self.0.look().size.map_or(24, |(_, height)| height)
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.step(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.step(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.step(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.step(n, 'D')
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        self.put(s)?;
        self.put("\n")
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.put(s)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.put("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        // The tick does it, once for all drawings in it.
        Ok(())
    }
}
