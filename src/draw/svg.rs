//! The graph as an SVG picture: a file of its own, light or dark as the reader's screen is.
//!
//! Groups are laid out first, each by itself; then the groups, as boxes. What leads from one group into another leaves its own at
//! the right edge and comes in at the left edge, where the group's own layout has kept a way for it. A queue is a label with a
//! line from each writer and to each reader, so no label lies on anything else.
//!
//! No font is measured: texts get the room that a common sans-serif font needs, and a little more.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use crate::diagnostic::harmless;
use crate::draw::layout::{Body, Layout, Link, Pin, Point, layout};
use crate::draw::{Drawing, Edge, State, States, wait_label, words};
use crate::plan::{Deliver, GroupId, NodeId, Overflow, Plan, QueueKind, UnitId};

/// What the picture looks like; light, and dark where the reader's screen is.
pub const STYLE: &str = include_str!("svg.css");

/// Characters of a name at most; all of it is in the tooltip.
const NAME: usize = 30;
/// Around the picture, and between a group's edge and what is in it.
const MARGIN: f64 = 16.0;
const PADDING: f64 = 14.0;
/// A group's title, above what is in it.
const TITLE: f64 = 20.0;
/// Text sizes, as in the style.
const NODE_TEXT: f64 = 13.0;
const SMALL_TEXT: f64 = 11.0;

/// How a line is drawn, and what the legend says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Pipe,
    Relay,
    Shared,
    Copied,
    Spills,
    Stored,
    Back,
    Drops,
    Wait,
}

impl Kind {
    const ALL: [Kind; 9] = [
        Kind::Pipe,
        Kind::Relay,
        Kind::Shared,
        Kind::Copied,
        Kind::Spills,
        Kind::Stored,
        Kind::Back,
        Kind::Drops,
        Kind::Wait,
    ];

    fn of(edge: &Edge<'_>) -> Self {
        let queue = edge.queue;
        let several = queue.readers.len() > 1;
        match queue.overflow {
            _ if queue.kind == QueueKind::Stored => Kind::Stored,
            _ if queue.feedback => Kind::Back,
            Overflow::DropNewest | Overflow::DropOldest => Kind::Drops,
            Overflow::Spill => Kind::Spills,
            Overflow::Block if edge.parted => Kind::Copied,
            Overflow::Block if several && queue.deliver == Deliver::Copy => Kind::Copied,
            Overflow::Block if several => Kind::Shared,
            Overflow::Block if queue.kind == QueueKind::Direct => Kind::Pipe,
            Overflow::Block => Kind::Relay,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Kind::Pipe => "pipe",
            Kind::Relay => "relay",
            Kind::Shared => "shared",
            Kind::Copied => "copied",
            Kind::Spills => "spills",
            Kind::Stored => "stored",
            Kind::Back => "back",
            Kind::Drops => "drops",
            Kind::Wait => "wait",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Kind::Pipe => "pipe",
            Kind::Relay => "relayed",
            Kind::Shared => "shared out",
            Kind::Copied => "copied to each",
            Kind::Spills => "spills to disk",
            Kind::Stored => "stored, then read",
            Kind::Back => "leads back",
            Kind::Drops => "drops when full",
            Kind::Wait => "waits for",
        }
    }
}

/// What a picture shows besides the plan.
#[derive(Debug, Clone, Copy, Default)]
pub struct Notes<'a> {
    /// How nodes have ended.
    pub states: States<'a>,
    /// What is said of queues behind their names, by [`crate::plan::QueueId`], such as "12 MB/s".
    pub queues: &'a [Option<String>],
}

/// An SVG document; see [`picture`].
///
/// # Errors
/// Those of `out`.
pub fn svg(plan: &Plan, notes: Notes<'_>, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(picture(plan, notes, true).as_bytes())
}

/// The same as a string. What nodes are described as stands in it as it is: secrets are to be gone from the plan.
///
/// An `svg` element, with its [`STYLE`] or without. Each node is a `g` with `data-node`, its [`NodeId`].
pub fn picture(plan: &Plan, notes: Notes<'_>, styled: bool) -> String {
    let drawing = Drawing::of(plan, notes.states);
    let mut picture = Picture {
        notes,
        insides: (0..plan.groups.len())
            .map(|group| Inside::of(&drawing, GroupId::from(group), notes))
            .collect(),
        drawing: &drawing,
        lines: String::new(),
        boxes: String::new(),
        labels: String::new(),
        groups: String::new(),
        kinds: Vec::new(),
    };
    let (width, height) = picture.draw();
    picture.document(width, height, styled)
}

/// What stands in a layout.
#[derive(Debug, Clone, Copy)]
enum Thing {
    Node(NodeId),
    /// A queue, by its place among the drawing's edges.
    Queue(usize),
    /// The state that a wait is for.
    State(&'static str),
    /// Where lines cross the group's edge.
    Port,
    Group(usize),
}

/// Things and lines to lay out.
#[derive(Default)]
struct Scene {
    things: Vec<Thing>,
    bodies: Vec<Body>,
    links: Vec<Link>,
    /// How each line is drawn, and whether it ends by an arrowhead.
    looks: Vec<(Kind, bool)>,
}

impl Scene {
    fn add(&mut self, thing: Thing, (width, height): (f64, f64), pin: Pin) -> usize {
        self.things.push(thing);
        self.bodies.push(Body { width, height, pin });
        self.things.len() - 1
    }

    fn link(&mut self, link: Link, kind: Kind, arrow: bool) {
        self.links.push(link);
        self.looks.push((kind, arrow));
    }
}

/// A port is one for all lines of a kind that leave a node, or come to it.
type Ports = HashMap<(NodeId, Kind, bool), usize>;

/// A group of several nodes, laid out. One of a single node is that node.
struct Inside {
    scene: Scene,
    laid: Layout,
    ports: Ports,
    nodes: Vec<NodeId>,
}

impl Inside {
    fn of(drawing: &Drawing<'_>, id: GroupId, notes: Notes<'_>) -> Self {
        let plan = drawing.plan;
        let nodes = words::nodes(plan, plan.group(id));
        let mut inside = Inside {
            scene: Scene::default(),
            laid: Layout::default(),
            ports: Ports::new(),
            nodes,
        };
        let mut places: HashMap<NodeId, usize> = HashMap::new();
        for &node in &inside.nodes {
            let size = node_size(plan, node);
            places.insert(node, inside.scene.add(Thing::Node(node), size, Pin::Free));
        }
        // One node alone may have queues too: those by which it feeds itself.
        for (index, edge) in drawing.edges.iter().enumerate() {
            if edge.queue.kind == QueueKind::Stored || !edge.is_in(plan, id) {
                continue;
            }
            let size = label_size(&queue_label(edge, notes));
            let queue = inside.scene.add(Thing::Queue(index), size, Pin::Free);
            let kind = Kind::of(edge);
            for writer in edge.writers.iter().filter_map(|node| places.get(node)) {
                inside.scene.link(Link::new(*writer, queue), kind, false);
            }
            for reader in edge.readers.iter().filter_map(|node| places.get(node)) {
                inside.scene.link(Link::new(queue, *reader), kind, true);
            }
        }
        for &node in &inside.nodes {
            for wait in drawing.waits(node) {
                let (Some(&from), Some(&to)) = (places.get(&wait.node), places.get(&node)) else {
                    continue;
                };
                let from = match wait_label(wait.state) {
                    "" => from,
                    label => {
                        let size = label_size(label);
                        let label = inside.scene.add(Thing::State(label), size, Pin::Free);
                        inside.scene.link(Link::new(from, label), Kind::Wait, false);
                        label
                    }
                };
                inside.scene.link(Link::new(from, to), Kind::Wait, true);
            }
        }
        if inside.is_box() {
            inside.open(drawing, id, &places);
        }
        inside.laid = layout(&inside.scene.bodies, &inside.scene.links);
        inside
    }

    /// Ways through the group's edge for what leads out of it and into it.
    fn open(&mut self, drawing: &Drawing<'_>, id: GroupId, places: &HashMap<NodeId, usize>) {
        let mut wanted: Vec<(NodeId, Kind, bool)> = Vec::new();
        for (from, to, kind) in between(drawing) {
            if let Some(from) = from.filter(|node| group_of(drawing.plan, *node) == id) {
                wanted.push((from, kind, true));
            }
            if let Some(to) = to.filter(|node| group_of(drawing.plan, *node) == id) {
                wanted.push((to, kind, false));
            }
        }
        wanted.sort();
        wanted.dedup();
        for key in wanted {
            let (node, kind, outgoing) = key;
            let Some(&place) = places.get(&node) else {
                continue;
            };
            let pin = if outgoing { Pin::Last } else { Pin::First };
            let port = self.scene.add(Thing::Port, (0.0, 4.0), pin);
            self.ports.insert(key, port);
            match outgoing {
                true => self.scene.link(Link::new(place, port), kind, false),
                false => self.scene.link(Link::new(port, place), kind, true),
            }
        }
    }

    /// It has a frame.
    fn is_box(&self) -> bool {
        self.scene.things.len() > 1
    }

    fn size(&self) -> (f64, f64) {
        match self.is_box() {
            true => (
                self.laid.width + 2.0 * PADDING,
                self.laid.height + 2.0 * PADDING + TITLE,
            ),
            false => (self.laid.width, self.laid.height),
        }
    }

    /// Where what is in it begins, from its upper left corner.
    fn offset(&self) -> (f64, f64) {
        match self.is_box() {
            true => (PADDING, PADDING + TITLE),
            false => (0.0, 0.0),
        }
    }

    /// Where a line crosses its edge, from the middle of that edge.
    fn port(&self, node: NodeId, kind: Kind, outgoing: bool) -> Option<f64> {
        let port = *self.ports.get(&(node, kind, outgoing))?;
        let middle = self.laid.middles.get(port)?;
        Some(middle.y + self.offset().1 - self.size().1 / 2.0)
    }
}

impl Edge<'_> {
    /// It joins units of this group.
    fn is_in(&self, plan: &Plan, id: GroupId) -> bool {
        let node = self.writers.first().or(self.readers.first());
        node.is_some_and(|node| group_of(plan, *node) == id)
    }
}

fn group_of(plan: &Plan, node: NodeId) -> GroupId {
    plan.unit(UnitId(plan.node(node).units.start)).group
}

/// The ends of what leads between groups: of a wait both, of a stored queue each with the queue.
fn between(drawing: &Drawing<'_>) -> Vec<(Option<NodeId>, Option<NodeId>, Kind)> {
    let plan = drawing.plan;
    let mut ends = Vec::new();
    for edge in &drawing.edges {
        if edge.queue.kind == QueueKind::Stored {
            ends.extend(
                edge.writers
                    .iter()
                    .map(|&node| (Some(node), None, Kind::Stored)),
            );
            ends.extend(
                edge.readers
                    .iter()
                    .map(|&node| (None, Some(node), Kind::Stored)),
            );
        }
    }
    for index in 0..plan.nodes.len() {
        let node = NodeId::from(index);
        for wait in drawing.waits(node) {
            if group_of(plan, wait.node) != group_of(plan, node) {
                ends.push((Some(wait.node), Some(node), Kind::Wait));
            }
        }
    }
    ends
}

/// What is being drawn: what lies below comes first in a document.
struct Picture<'a> {
    drawing: &'a Drawing<'a>,
    notes: Notes<'a>,
    insides: Vec<Inside>,
    groups: String,
    lines: String,
    labels: String,
    boxes: String,
    kinds: Vec<Kind>,
}

impl Picture<'_> {
    /// All but the frame of the document; how wide and how high it is.
    fn draw(&mut self) -> (f64, f64) {
        let scene = self.scene();
        let laid = layout(&scene.bodies, &scene.links);
        self.scene_at(&scene, &laid, (MARGIN, MARGIN));
        let mut groups = String::new();
        for (thing, middle) in scene.things.iter().zip(&laid.middles) {
            let Thing::Group(number) = *thing else {
                continue;
            };
            let inside = std::mem::replace(
                &mut self.insides[number],
                Inside {
                    scene: Scene::default(),
                    laid: Layout::default(),
                    ports: Ports::new(),
                    nodes: Vec::new(),
                },
            );
            let (width, height) = inside.size();
            let (x, y) = (
                MARGIN + middle.x - width / 2.0,
                MARGIN + middle.y - height / 2.0,
            );
            if inside.is_box() {
                let _ = writeln!(
                    groups,
                    "<g class=\"group\"><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"8\"/>\
                     <text x=\"{:.1}\" y=\"{:.1}\">group {}</text></g>",
                    x + 10.0,
                    y + 17.0,
                    number + 1
                );
            }
            let offset = inside.offset();
            self.scene_at(&inside.scene, &inside.laid, (x + offset.0, y + offset.1));
            // The way from a box's edge through its padding.
            for (&(_, kind, outgoing), &port) in sorted(&inside.ports) {
                let port = inside.laid.middles[port];
                let (px, py) = (x + offset.0 + port.x, y + offset.1 + port.y);
                let edge = if outgoing { x + width } else { x };
                let route = match outgoing {
                    true => [Point { x: px, y: py }, Point { x: edge, y: py }],
                    false => [Point { x: edge, y: py }, Point { x: px, y: py }],
                };
                self.line(&route, (0.0, 0.0), kind, false);
            }
        }
        self.groups = groups;
        (laid.width + 2.0 * MARGIN, laid.height + 2.0 * MARGIN)
    }

    /// The groups as boxes, and what leads between them.
    fn scene(&self) -> Scene {
        let plan = self.drawing.plan;
        let mut scene = Scene::default();
        for (number, inside) in self.insides.iter().enumerate() {
            scene.add(Thing::Group(number), inside.size(), Pin::Free);
        }
        let end = |node: NodeId, kind: Kind, outgoing: bool| {
            let group = group_of(plan, node).index();
            (group, self.insides[group].port(node, kind, outgoing))
        };
        for (index, edge) in self.drawing.edges.iter().enumerate() {
            if edge.queue.kind != QueueKind::Stored {
                continue;
            }
            let size = label_size(&queue_label(edge, self.notes));
            let queue = scene.add(Thing::Queue(index), size, Pin::Free);
            for &writer in &edge.writers {
                let (group, at) = end(writer, Kind::Stored, true);
                let link = Link {
                    from_at: at,
                    ..Link::new(group, queue)
                };
                scene.link(link, Kind::Stored, false);
            }
            for &reader in &edge.readers {
                let (group, at) = end(reader, Kind::Stored, false);
                let link = Link {
                    to_at: at,
                    ..Link::new(queue, group)
                };
                // In a box, the arrowhead is where the line ends.
                scene.link(link, Kind::Stored, at.is_none());
            }
        }
        for index in 0..plan.nodes.len() {
            let node = NodeId::from(index);
            for wait in self.drawing.waits(node) {
                if group_of(plan, wait.node) == group_of(plan, node) {
                    continue;
                }
                let (mut from, mut from_at) = end(wait.node, Kind::Wait, true);
                let (to, to_at) = end(node, Kind::Wait, false);
                let label = wait_label(wait.state);
                if !label.is_empty() {
                    let place = scene.add(Thing::State(label), label_size(label), Pin::Free);
                    let link = Link {
                        from_at,
                        ..Link::new(from, place)
                    };
                    scene.link(link, Kind::Wait, false);
                    (from, from_at) = (place, None);
                }
                let link = Link {
                    from,
                    to,
                    from_at,
                    to_at,
                };
                scene.link(link, Kind::Wait, to_at.is_none());
            }
        }
        scene
    }

    /// What a scene shows, but for groups.
    fn scene_at(&mut self, scene: &Scene, laid: &Layout, (x, y): (f64, f64)) {
        for (route, &(kind, arrow)) in laid.routes.iter().zip(&scene.looks) {
            self.line(route, (x, y), kind, arrow);
        }
        for ((thing, body), middle) in scene.things.iter().zip(&scene.bodies).zip(&laid.middles) {
            let middle = Point {
                x: middle.x + x,
                y: middle.y + y,
            };
            match *thing {
                Thing::Node(node) => self.node(node, middle, body),
                Thing::Queue(place) => self.queue(place, middle, body),
                Thing::State(word) => self.label("state", "", word, word, middle, body),
                Thing::Port | Thing::Group(_) => {}
            }
        }
    }

    fn line(&mut self, route: &[Point], (x, y): (f64, f64), kind: Kind, arrow: bool) {
        /// Of an arrowhead.
        const LENGTH: f64 = 8.0;
        let [first, .., last] = route else {
            return;
        };
        if !self.kinds.contains(&kind) {
            self.kinds.push(kind);
        }
        let class = kind.class();
        // A line goes one way from end to end.
        let to_right = last.x >= first.x;
        let mut path = format!("M{:.1} {:.1}", first.x + x, first.y + y);
        let mut from = *first;
        let count = route.len();
        for (index, &point) in route.iter().enumerate().skip(1) {
            let mut to = point;
            if arrow && index + 1 == count {
                // The line ends within the arrowhead.
                to.x += if to_right { -LENGTH } else { LENGTH } * 0.8;
            }
            if (from.y - to.y).abs() < 0.05 {
                let _ = write!(path, "H{:.1}", to.x + x);
            } else {
                let half = (from.x + to.x) / 2.0 + x;
                let _ = write!(
                    path,
                    "C{half:.1} {:.1} {half:.1} {:.1} {:.1} {:.1}",
                    from.y + y,
                    to.y + y,
                    to.x + x,
                    to.y + y
                );
            }
            from = to;
        }
        let _ = writeln!(self.lines, "<path class=\"line {class}\" d=\"{path}\"/>");
        if arrow {
            let back = if to_right { -LENGTH } else { LENGTH };
            let _ = writeln!(
                self.lines,
                "<path class=\"head {class}\" d=\"M{:.1} {:.1}l{back} -4v8z\"/>",
                last.x + x,
                last.y + y
            );
        }
    }

    fn node(&mut self, id: NodeId, middle: Point, body: &Body) {
        let plan = self.drawing.plan;
        let node = plan.node(id);
        let state = self.drawing.state(id);
        let mut title = harmless(&node.name);
        if let Some(state) = state {
            let _ = write!(title, " ({})", state.word());
        }
        if let Some(description) = &node.description {
            let _ = write!(title, "\n{}", harmless(description));
        }
        let mut class = "node".to_owned();
        if let Some(state) = state {
            let _ = write!(class, " {}", state.class());
        } else if node.is_left_out() {
            class.push_str(" skipped");
        }
        let (x, y) = (middle.x - body.width / 2.0, middle.y - body.height / 2.0);
        let _ = write!(
            self.boxes,
            "<g class=\"{class}\" data-node=\"{}\"><title>{}</title>",
            id.0,
            escaped(&title)
        );
        let (mut width, mut height, mut top) = (body.width, body.height, y);
        if node.pool.is_some() {
            // A stack of boxes.
            (width, height, top) = (width - STACK, height - STACK, y + STACK);
            let _ = write!(
                self.boxes,
                "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"6\"/>",
                x + STACK
            );
        }
        let _ = write!(
            self.boxes,
            "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"6\"/>"
        );
        let centre = x + width / 2.0;
        let name = escaped(&short_name(&node.name));
        match second_line(plan, id) {
            None => {
                let _ = write!(
                    self.boxes,
                    "<text x=\"{centre:.1}\" y=\"{:.1}\">{name}</text>",
                    top + height / 2.0 + 4.5
                );
            }
            Some(second) => {
                let _ = write!(
                    self.boxes,
                    "<text x=\"{centre:.1}\" y=\"{:.1}\">{name}</text><text class=\"second\" x=\"{centre:.1}\" y=\"{:.1}\">{}</text>",
                    top + height / 2.0 - 2.5,
                    top + height / 2.0 + 12.0,
                    escaped(&second)
                );
            }
        }
        self.boxes.push_str("</g>\n");
    }

    fn queue(&mut self, place: usize, middle: Point, body: &Body) {
        let edge = &self.drawing.edges[place];
        let kind = Kind::of(edge);
        let title = format!("{}: {}", harmless(&edge.label()), kind.words());
        let text = queue_label(edge, self.notes);
        let id = format!(" data-queue=\"{}\"", edge.id);
        self.label(kind.class(), &id, &text, &title, middle, body);
    }

    fn label(&mut self, class: &str, id: &str, text: &str, title: &str, at: Point, body: &Body) {
        let _ = writeln!(
            self.labels,
            "<g class=\"label {class}\"{id}><title>{}</title><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"9\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            escaped(title),
            at.x - body.width / 2.0,
            at.y - body.height / 2.0,
            body.width,
            body.height,
            at.x,
            at.y + 4.0,
            escaped(text)
        );
    }

    /// What is to be known of the picture, in rows: how wide and how high.
    fn legend(&self, top: f64, width: f64, out: &mut String) -> (f64, f64) {
        const ROW: f64 = 20.0;
        let states: Vec<State> = State::ALL
            .into_iter()
            .filter(|state| self.drawing.states.contains(&Some(*state)))
            .collect();
        let kinds = Kind::ALL
            .into_iter()
            .filter(|kind| self.kinds.contains(kind));
        let lines = kinds.map(|kind| (true, kind.class(), kind.words()));
        let boxes = states
            .into_iter()
            .map(|state| (false, state.class(), state.word()));
        let room = width.max(420.0) - MARGIN;
        let (mut x, mut y, mut right) = (MARGIN, top + ROW / 2.0, 0.0_f64);
        let mut any = false;
        for (is_line, class, words) in lines.chain(boxes) {
            let need = 40.0 + text_width(words, SMALL_TEXT) + 20.0;
            if any && x + need > room {
                (x, y) = (MARGIN, y + ROW);
            }
            any = true;
            let _ = match is_line {
                true => write!(
                    out,
                    "<path class=\"line {class}\" d=\"M{x:.1} {y:.1}h24\"/><path class=\"head {class}\" d=\"M{:.1} {y:.1}l-8 -4v8z\"/>",
                    x + 32.0
                ),
                false => write!(
                    out,
                    "<g class=\"node {class}\"><rect x=\"{:.1}\" y=\"{:.1}\" width=\"20\" height=\"12\" rx=\"3\"/></g>",
                    x + 12.0,
                    y - 6.0
                ),
            };
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\">{words}</text>",
                x + 38.0,
                y + 4.0
            );
            x += need;
            right = right.max(x - 20.0);
        }
        match any {
            true => (right + MARGIN, y + ROW / 2.0 + MARGIN / 2.0),
            false => (0.0, top),
        }
    }

    fn document(&self, width: f64, height: f64, styled: bool) -> String {
        let mut legend = String::new();
        let (right, height) = self.legend(height, width, &mut legend);
        let width = width.max(right);
        let name = escaped(&harmless(&self.drawing.plan.name));
        let style = match styled {
            true => format!("<style>\n{STYLE}</style>\n"),
            false => String::new(),
        };
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"procflow\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" aria-label=\"The graph of {name}\">\n\
             {style}<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n\
             {}{}{}{}<g class=\"legend\">\n{legend}</g>\n</svg>\n",
            self.groups, self.lines, self.labels, self.boxes
        )
    }
}

/// Ports in a given order.
fn sorted(ports: &Ports) -> Vec<(&(NodeId, Kind, bool), &usize)> {
    let mut sorted: Vec<_> = ports.iter().collect();
    sorted.sort();
    sorted
}

/// By so much the boxes of a pool are apart.
const STACK: f64 = 4.0;

/// What a node is besides its name.
fn second_line(plan: &Plan, node: NodeId) -> Option<String> {
    let node = plan.node(node);
    match &node.pool {
        Some(pool) if pool.workers == 1 => Some("1 worker".to_owned()),
        Some(pool) => Some(format!("{} workers", pool.workers)),
        None => node.service.is_some().then(|| "service".to_owned()),
    }
}

fn node_size(plan: &Plan, id: NodeId) -> (f64, f64) {
    let node = plan.node(id);
    let second = second_line(plan, id);
    let width = text_width(&short_name(&node.name), NODE_TEXT).max(
        second
            .as_deref()
            .map_or(0.0, |text| text_width(text, SMALL_TEXT)),
    );
    let stack = if node.pool.is_some() { STACK } else { 0.0 };
    let height = if second.is_some() { 42.0 } else { 32.0 };
    ((width + 24.0).max(56.0) + stack, height + stack)
}

fn label_size(text: &str) -> (f64, f64) {
    (text_width(text, SMALL_TEXT) + 14.0, 18.0)
}

fn queue_label(edge: &Edge<'_>, notes: Notes<'_>) -> String {
    let name = short_name(&edge.queue.name);
    match usize::try_from(edge.id)
        .ok()
        .and_then(|id| notes.queues.get(id))
    {
        Some(Some(note)) => format!("{name}  {note}"),
        _ => name,
    }
}

fn short_name(name: &str) -> String {
    let name = harmless(name);
    match name.char_indices().nth(NAME) {
        None => name,
        Some(_) => name.chars().take(NAME - 1).chain(['…']).collect(),
    }
}

/// How wide a text is in a common sans-serif font, at most.
fn text_width(text: &str, size: f64) -> f64 {
    let ems = |c: char| match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.31,
        ' ' | 'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '/' | '-' => 0.41,
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '…' => 0.99,
        'A'..='Z' | '=' | '+' | '<' | '>' | '_' | '&' | '#' => 0.74,
        c if u32::from(c) < 0x1100 => 0.63,
        // Chinese, Japanese, Korean, signs and faces.
        _ => 1.05,
    };
    text.chars().map(ems).sum::<f64>() * size
}

/// For text and attributes of XML: what is no character of it stands as U+FFFD.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' => safe.push('\n'),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}
