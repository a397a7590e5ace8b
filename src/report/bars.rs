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

use crate::plan::{NodeId, UnitId};
use crate::report::flow::Pace;
use crate::report::observers::View;
use crate::report::terminal::{Look, Terminal};
use crate::report::units::{count, short, shortened};
use crate::report::words;

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
        running: impl ExactSizeIterator<Item = NodeId>,
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
    running: impl ExactSizeIterator<Item = NodeId>,
    width: usize,
    height: usize,
    unicode: bool,
    view: &View<'_>,
) -> String {
    let mut text = String::new();
    let rows = MOST_LINES.min(height.saturating_sub(3));
    let running_nodes = running.len();
    // Where not all fit, the last row says how many more there are.
    let shown = if running_nodes > rows {
        rows.saturating_sub(1)
    } else {
        running_nodes
    };
    let frames: &[char] = if unicode {
        &['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏']
    } else {
        &['|', '/', '-', '\\']
    };
    let frame = usize::try_from(now.as_millis() / 100).unwrap_or(0) % frames.len();
    let spinner = frames.get(frame).copied().unwrap_or('*');
    let nodes: Vec<NodeId> = running.take(shown).collect();
    let name = |node: NodeId| &*view.plan.node(node).name;
    let longest = nodes
        .iter()
        .map(|node| name(*node).chars().count())
        .max()
        .unwrap_or(0);
    let paces: Vec<Option<Pace>> = nodes
        .iter()
        .map(|node| view.tally.pace(view.plan, *node, now))
        .collect();
    // What moves gets room beside a long name.
    let most = if paces.iter().any(Option::is_some) {
        (width * 2 / 5).max(8)
    } else {
        width
    };
    // Spinner, spaces and the time take 11 columns.
    let name_width = longest.min(most).min(width.saturating_sub(12));
    for (node, pace) in nodes.into_iter().zip(paces) {
        let started = view.tally.node(node).started;
        let time = short(now.saturating_sub(started.unwrap_or(now)));
        let name = shortened(name(node), name_width, unicode);
        let _ = write!(text, "{spinner} {name:<name_width$} {time:>7}");
        let room = width.saturating_sub(name_width + 11);
        if let Some(pace) = pace {
            node_facts(&mut text, &pace, room, unicode);
        }
        if let Some(fact) = service_fact(view, node)
            && room >= fact.len() + 2
        {
            let _ = write!(text, "  {fact}");
        }
        text.push('\n');
    }
    if running_nodes > shown && rows > 0 {
        let _ = writeln!(text, "  +{} more", running_nodes - shown);
    }
    run_line(&mut text, now, width, unicode, view);
    text
}

/// How far a service has come.
fn service_fact(view: &View<'_>, id: NodeId) -> Option<&'static str> {
    let node = view.plan.node(id);
    node.service.as_ref()?;
    let unit = view.tally.unit(UnitId(node.units.start));
    Some(match unit.ready_after {
        Some(_) => "ready",
        None => "not ready yet",
    })
}

/// `  ━━━━━━━╌╌╌ 12,400 of 50,000 records, 1,230/s, 30s left`: as many facts as have room, and a bar where there is room left.
fn node_facts(text: &mut String, pace: &Pace, room: usize, unicode: bool) {
    let mut facts = String::new();
    for fact in words::pace(pace) {
        let gap = if facts.is_empty() { 0 } else { 2 };
        // Two spaces stand before all of it.
        if 2 + facts.chars().count() + gap + fact.chars().count() > room {
            break;
        }
        if gap > 0 {
            facts.push_str(", ");
        }
        facts.push_str(&fact);
    }
    let share = match (pace.done, pace.total) {
        (Some(done), Some(total)) => done.min(total) as f64 / total.max(1) as f64,
        _ => 0.0,
    };
    if facts.is_empty() {
        // Of a number nothing may be cut off; its share of a hundred is short.
        if pace.total.is_some() && room >= 6 {
            let _ = write!(text, "  {:.0}%", share * 100.0);
        }
        return;
    }
    text.push_str("  ");
    let left = room.saturating_sub(facts.chars().count() + 3).min(20);
    if pace.total.is_some() && left >= 5 {
        push_bar(text, (left as f64 * share) as usize, left, unicode);
        text.push(' ');
    }
    text.push_str(&facts);
}

fn push_bar(text: &mut String, filled: usize, width: usize, unicode: bool) {
    let (full, empty) = if unicode { ('━', '╌') } else { ('=', '-') };
    text.extend(std::iter::repeat_n(full, filled));
    text.extend(std::iter::repeat_n(empty, width.saturating_sub(filled)));
}

/// `━━━━━━━━━━╌╌╌╌╌ 7/12, 2 running, 1 failed, 3.2s`
fn run_line(text: &mut String, now: Duration, width: usize, unicode: bool, view: &View<'_>) {
    let counts = &view.tally.counts;
    let (done, total) = (counts.ended(), counts.total.max(1));
    let shown = |many: usize| count(many as u64);
    let mut facts = format!(
        "{}/{}, {} running",
        shown(done),
        shown(counts.total),
        shown(counts.running)
    );
    if counts.failed > 0 {
        let _ = write!(facts, ", {} failed", shown(counts.failed));
    }
    let _ = write!(facts, ", {}", short(now));
    // At the end there is room for the `^C` that a terminal echoes.
    let width = width.saturating_sub(3);
    let room = width.saturating_sub(facts.len() + 1).min(40);
    if room >= 5 {
        push_bar(text, room * done / total, room, unicode);
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
