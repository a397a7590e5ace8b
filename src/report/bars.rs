//! [`Bars`]: the part of the terminal that is drawn again and again while a run goes on: a line for each node that runs, and
//! one bar for the run.
//!
//! It is a single indicatif bar of several lines, not one bar for each node: then a tick is one drawing, whatever runs, and
//! what has been drawn is exactly what must be cleared. (A `MultiProgress` draws at each change of each bar, leaves ghosts when
//! lines are printed between, and overflows a small screen.)
//!
//! indicatif draws in place. Taking the picture off is done here ([`Bars::hide`]), since indicatif does not know what a
//! terminal makes of its lines when it becomes narrower: it breaks them, and they stand on more rows than were drawn.

use std::fmt::Write;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::plan::UnitId;
use crate::report::observers::View;
use crate::report::terminal::{Look, Terminal};
use crate::report::units::{Label, short, shortened};

/// At most so many nodes have a line.
const MOST_LINES: usize = 8;

/// The moving part of the terminal.
#[derive(Debug)]
pub struct Bars {
    terminal: Terminal,
    bar: ProgressBar,
    /// The columns of each line that stands on the screen.
    drawn: Vec<usize>,
    /// The screen's width then.
    width: usize,
}

impl Bars {
    /// Draws on `terminal`.
    pub fn new(terminal: &Terminal) -> Self {
        let bar = ProgressBar::with_draw_target(None, target(terminal)).with_style(plain_style());
        Bars {
            terminal: terminal.clone(),
            bar,
            drawn: Vec::new(),
            width: 0,
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
        if !above.is_empty() || width != self.width {
            self.take_off(width, height);
            self.terminal.queue(above);
        }
        let text = picture(now, running, width, height, look.unicode, view);
        self.drawn.clear();
        self.drawn
            .extend(text.lines().map(|line| line.chars().count()));
        self.width = width;
        self.bar.set_message(text);
        self.terminal.flush();
    }

    /// Takes it off the screen. The next [`Bars::draw`] draws it where the cursor is then.
    pub fn hide(&mut self) {
        let (width, height) = self.terminal.look().size.unwrap_or((80, 24));
        self.take_off(usize::from(width).max(1), usize::from(height));
        self.terminal.flush();
    }

    /// As [`Bars::hide`], on a screen that has this size now. A terminal that has become narrower has broken the lines that did
    /// not fit any more, as nearly all do (xterm cuts them off instead: there a line above the picture may be lost).
    fn take_off(&mut self, width: usize, height: usize) {
        let rows: usize = self
            .drawn
            .drain(..)
            .map(|columns| columns.div_ceil(width).max(1))
            .sum();
        if rows > 0 {
            // Beyond the screen's top nothing can be reached.
            match (rows - 1).min(height.saturating_sub(1)) {
                0 => self.terminal.queue("\r\x1b[J"),
                up => self.terminal.queue(&format!("\r\x1b[{up}A\x1b[J")),
            }
        }
        // A new target believes that nothing has been drawn.
        self.bar.set_draw_target(target(&self.terminal));
    }

    /// Takes it off the screen, for good.
    pub fn clear(mut self) {
        self.hide();
        // Or it would draw at its end.
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
        self.bar.finish();
    }
}

/// How often is our own business: see [`Console`](crate::report::console::Console)'s tick.
fn target(terminal: &Terminal) -> ProgressDrawTarget {
    ProgressDrawTarget::term_like_with_hz(Box::new(Screen::new(terminal.clone())), 255)
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
        let name = shortened(&Label::of(view.plan, unit).to_string(), name_width, unicode);
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
    // At the end there is room for the `^C` that a terminal echoes.
    let width = width.saturating_sub(3);
    let room = width.saturating_sub(facts.len() + 1).min(40);
    if room >= 5 {
        let filled = room * done / total;
        let (full, empty) = if unicode { ('━', '╌') } else { ('=', '-') };
        text.extend(std::iter::repeat_n(full, filled));
        text.extend(std::iter::repeat_n(empty, room - filled));
        text.push(' ');
    }
    text.extend(facts.chars().take(width));
}

/// indicatif's way to our terminal: what it writes is queued, and goes out with everything else of a tick.
///
/// indicatif writes a line and then as many spaces as lead to the edge of the screen, and counts on the terminal to begin a row
/// there. A terminal that becomes narrower breaks such a row, though there is nothing in it, and the `^C` that it echoes stands on
/// a row of its own; each is a ghost of the picture that stays. So lines end here where their text ends.
#[derive(Debug)]
struct Screen {
    terminal: Terminal,
    /// A line has ended; what is written next begins another.
    ended: AtomicBool,
}

impl Screen {
    fn new(terminal: Terminal) -> Self {
        Screen {
            terminal,
            ended: AtomicBool::new(false),
        }
    }

    /// Moves the cursor.
    fn put(&self, text: &str) -> io::Result<()> {
        self.ended.store(false, Ordering::Relaxed);
        self.terminal.queue(text);
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
        self.terminal.look().size.map_or(80, |(width, _)| width)
    }

    fn height(&self) -> u16 {
        self.terminal.look().size.map_or(24, |(_, height)| height)
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
        if s.bytes().all(|b| b == b' ') {
            // The filling. Of what stood there nothing stays.
            self.terminal.queue("\x1b[K");
            self.ended.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if s != "\r" && self.ended.load(Ordering::Relaxed) {
            self.terminal.queue("\n");
        }
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
