//! Where the boxes of a directed graph stand, and how its lines run: layers from left to right (Sugiyama, Tagawa, Toda 1981).
//!
//! Lines that would lead against the direction are turned round for the time being. Each box gets the layer behind all that lead
//! to it; a line over several layers has a *bend*, a point without a box, in each that it passes. Boxes and bends are ordered by the
//! median of their neighbours' places, back and forth, and the order with the fewest crossings is kept. Then each layer is placed by
//! least squares: as near to its neighbours as order and distances allow (pool adjacent violators).
//!
//! What follows from it, and `tests` hold: no two boxes overlap; a line crosses a layer only where it has a bend, level, and turns
//! only between layers, so it never passes through a box.

use std::collections::VecDeque;

/// Between boxes of a layer.
const GAP: f64 = 18.0;
/// Between bends of a layer.
const BEND_GAP: f64 = 9.0;
/// So many bends at most; longer lines have none then and may pass through boxes.
const MAX_BENDS: usize = 60_000;

/// A point; y grows downwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: f64,
}

/// Where a box has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// Anywhere.
    Free,
    /// In a layer before all others.
    First,
    /// In a layer after all others.
    Last,
}

/// A box to place.
#[derive(Debug, Clone, Copy)]
pub struct Body {
    pub width: f64,
    pub height: f64,
    pub pin: Pin,
}

/// A line to draw. Where on the side of a box it begins and ends may be given, as a distance from its middle.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    pub from: usize,
    pub to: usize,
    pub from_at: Option<f64>,
    pub to_at: Option<f64>,
}

impl Link {
    /// One that begins and ends where it looks best.
    pub fn new(from: usize, to: usize) -> Self {
        Link {
            from,
            to,
            from_at: None,
            to_at: None,
        }
    }
}

/// A graph, laid out. Everything lies between zero and `width`, `height`.
#[derive(Debug, Default)]
pub struct Layout {
    /// The middle of each box.
    pub middles: Vec<Point>,
    /// Each line's points: level from one to the next, or a turn.
    pub routes: Vec<Vec<Point>>,
    pub width: f64,
    pub height: f64,
}

/// Lays out a graph: the parts that nothing joins stand next to each other.
pub fn layout(bodies: &[Body], links: &[Link]) -> Layout {
    if bodies.iter().any(|body| body.pin != Pin::Free) {
        return part(bodies, links);
    }
    let parts = components(bodies.len(), links);
    if parts.len() == 1 {
        return part(bodies, links);
    }
    let mut place = vec![(0, 0); bodies.len()];
    for (number, members) in parts.iter().enumerate() {
        for (index, &body) in members.iter().enumerate() {
            place[body] = (number, index);
        }
    }
    let mut links_of: Vec<Vec<usize>> = vec![Vec::new(); parts.len()];
    for (index, link) in links.iter().enumerate() {
        links_of[place[link.from].0].push(index);
    }
    let laid: Vec<Layout> = parts
        .iter()
        .zip(&links_of)
        .map(|(members, of)| {
            let bodies: Vec<Body> = members.iter().map(|&body| bodies[body]).collect();
            let links: Vec<Link> = of
                .iter()
                .map(|&index| Link {
                    from: place[links[index].from].1,
                    to: place[links[index].to].1,
                    ..links[index]
                })
                .collect();
            part(&bodies, &links)
        })
        .collect();
    shelve(bodies.len(), links.len(), &parts, &links_of, laid)
}

/// The parts of a graph in rows: the high ones first.
fn shelve(
    bodies: usize,
    links: usize,
    parts: &[Vec<usize>],
    links_of: &[Vec<usize>],
    laid: Vec<Layout>,
) -> Layout {
    const APART: f64 = 28.0;
    let area: f64 = laid
        .iter()
        .map(|part| (part.width + APART) * (part.height + APART))
        .sum();
    let widest = laid.iter().map(|part| part.width).fold(0.0, f64::max);
    let row = widest.max((area * 1.8).sqrt());
    let mut order: Vec<usize> = (0..laid.len()).collect();
    order.sort_by(|&a, &b| laid[b].height.total_cmp(&laid[a].height));
    let mut whole = Layout {
        middles: vec![Point { x: 0.0, y: 0.0 }; bodies],
        routes: vec![Vec::new(); links],
        ..Layout::default()
    };
    let (mut x, mut y, mut high) = (0.0, 0.0, 0.0_f64);
    for number in order {
        let part = &laid[number];
        if x > 0.0 && x + part.width > row {
            (x, y, high) = (0.0, y + high + APART, 0.0);
        }
        let moved = |point: &Point| Point {
            x: point.x + x,
            y: point.y + y,
        };
        for (&body, middle) in parts[number].iter().zip(&part.middles) {
            whole.middles[body] = moved(middle);
        }
        for (&link, route) in links_of[number].iter().zip(&part.routes) {
            whole.routes[link] = route.iter().map(moved).collect();
        }
        whole.width = whole.width.max(x + part.width);
        whole.height = whole.height.max(y + part.height);
        high = high.max(part.height);
        x += part.width + APART;
    }
    whole
}

/// What hangs together, each part in the order of its bodies.
fn components(bodies: usize, links: &[Link]) -> Vec<Vec<usize>> {
    let mut union = petgraph::unionfind::UnionFind::new(bodies);
    for link in links {
        union.union(link.from, link.to);
    }
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut number = vec![usize::MAX; bodies];
    for body in 0..bodies {
        let root = union.find(body);
        if number[root] == usize::MAX {
            number[root] = parts.len();
            parts.push(Vec::new());
        }
        parts[number[root]].push(body);
    }
    parts
}

/// A box or a bend, in its layer.
#[derive(Debug, Clone, Copy)]
struct Spot {
    width: f64,
    height: f64,
    rank: usize,
    bend: bool,
    y: f64,
}

/// A piece of a line, from one layer to the next (where there are too many bends: to a later one).
#[derive(Debug, Clone, Copy)]
struct Piece {
    from: usize,
    to: usize,
    from_at: Option<f64>,
    to_at: Option<f64>,
}

struct Layers {
    spots: Vec<Spot>,
    pieces: Vec<Piece>,
    /// Pieces that end at a spot, and that begin at it.
    before: Vec<Vec<usize>>,
    after: Vec<Vec<usize>>,
    /// Spots of each layer, in order.
    layers: Vec<Vec<usize>>,
    /// The place of a spot in its layer.
    place: Vec<usize>,
}

/// Lays out a graph as one.
fn part(bodies: &[Body], links: &[Link]) -> Layout {
    if bodies.is_empty() {
        return Layout::default();
    }
    let turned = turned(bodies, links);
    let ranks = ranks(bodies, links, &turned);
    let (mut layers, chains) = Layers::new(bodies, links, &turned, &ranks);
    layers.order();
    layers.place();
    layers.routes(links, &turned, &chains, bodies.len())
}

/// The lines to turn round, so that none leads back.
fn turned(bodies: &[Body], links: &[Link]) -> Vec<bool> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut out: Vec<Vec<usize>> = vec![Vec::new(); bodies.len()];
    let mut incoming = vec![0; bodies.len()];
    for (index, link) in links.iter().enumerate() {
        out[link.from].push(index);
        incoming[link.to] += 1;
    }
    let mut turned = vec![false; links.len()];
    let mut marks = vec![Mark::New; bodies.len()];
    let roots = (0..bodies.len()).filter(|&body| incoming[body] == 0);
    for root in roots.chain(0..bodies.len()) {
        if marks[root] != Mark::New {
            continue;
        }
        marks[root] = Mark::Open;
        // With a stack of its own: a graph may be deep.
        let mut stack = vec![(root, 0)];
        while let Some((body, next)) = stack.last_mut() {
            let Some(&link) = out[*body].get(*next) else {
                marks[*body] = Mark::Done;
                stack.pop();
                continue;
            };
            *next += 1;
            let to = links[link].to;
            match marks[to] {
                Mark::Open => turned[link] = true,
                Mark::New => {
                    marks[to] = Mark::Open;
                    stack.push((to, 0));
                }
                Mark::Done => {}
            }
        }
    }
    turned
}

/// Each body's layer.
fn ranks(bodies: &[Body], links: &[Link], turned: &[bool]) -> Vec<usize> {
    let ends = |index: usize| match turned[index] {
        true => (links[index].to, links[index].from),
        false => (links[index].from, links[index].to),
    };
    let mut out: Vec<Vec<usize>> = vec![Vec::new(); bodies.len()];
    let mut incoming = vec![0usize; bodies.len()];
    for index in 0..links.len() {
        let (from, to) = ends(index);
        // One that leads to itself is none.
        if from != to {
            out[from].push(to);
            incoming[to] += 1;
        }
    }
    let ins = incoming.clone();
    let first = usize::from(bodies.iter().any(|body| body.pin == Pin::First));
    let mut ranks: Vec<usize> = bodies
        .iter()
        .map(|body| match body.pin {
            Pin::First => 0,
            Pin::Free | Pin::Last => first,
        })
        .collect();
    let mut queue: VecDeque<usize> = (0..bodies.len())
        .filter(|&body| incoming[body] == 0)
        .collect();
    let mut sorted = Vec::with_capacity(bodies.len());
    while let Some(body) = queue.pop_front() {
        sorted.push(body);
        for &to in &out[body] {
            ranks[to] = ranks[to].max(ranks[body] + 1);
            incoming[to] -= 1;
            if incoming[to] == 0 {
                queue.push_back(to);
            }
        }
    }
    let last = bodies
        .iter()
        .zip(&ranks)
        .filter(|(body, _)| body.pin != Pin::Last)
        .map(|(_, &rank)| rank + 1)
        .max();
    for (rank, body) in ranks.iter_mut().zip(bodies) {
        if let (Pin::Last, Some(last)) = (body.pin, last) {
            *rank = last.max(*rank);
        }
    }
    // Near to what needs it, where more needs it than it needs.
    for &body in sorted.iter().rev() {
        let nearest = out[body].iter().map(|&to| ranks[to]).min();
        if let (Pin::Free, Some(nearest)) = (bodies[body].pin, nearest)
            && out[body].len() > ins[body]
            && nearest > ranks[body] + 1
        {
            ranks[body] = nearest - 1;
        }
    }
    ranks
}

impl Layers {
    /// With bends, and the spots of each line.
    fn new(
        bodies: &[Body],
        links: &[Link],
        turned: &[bool],
        ranks: &[usize],
    ) -> (Self, Vec<Vec<usize>>) {
        let mut spots: Vec<Spot> = bodies
            .iter()
            .zip(ranks)
            .map(|(body, &rank)| Spot {
                width: body.width,
                height: body.height,
                rank,
                bend: false,
                y: 0.0,
            })
            .collect();
        let bends: usize = links
            .iter()
            .map(|link| ranks[link.from].abs_diff(ranks[link.to]).saturating_sub(1))
            .sum();
        let mut pieces = Vec::new();
        let mut chains = Vec::new();
        for (link, &turned) in links.iter().zip(turned) {
            let (from, to, from_at, to_at) = match turned {
                false => (link.from, link.to, link.from_at, link.to_at),
                true => (link.to, link.from, link.to_at, link.from_at),
            };
            let mut chain = vec![from];
            if bends <= MAX_BENDS {
                for rank in ranks[from] + 1..ranks[to] {
                    chain.push(spots.len());
                    spots.push(Spot {
                        width: 0.0,
                        height: 0.0,
                        rank,
                        bend: true,
                        y: 0.0,
                    });
                }
            }
            chain.push(to);
            let begin = pieces.len();
            for ends in chain.windows(2) {
                if let [from, to] = *ends {
                    pieces.push(Piece {
                        from,
                        to,
                        from_at: spots[from].bend.then_some(0.0),
                        to_at: spots[to].bend.then_some(0.0),
                    });
                }
            }
            if let Some(piece) = pieces.get_mut(begin) {
                piece.from_at = from_at;
            }
            if let Some(piece) = pieces.last_mut() {
                piece.to_at = to_at;
            }
            chains.push(chain);
        }
        let mut before = vec![Vec::new(); spots.len()];
        let mut after = vec![Vec::new(); spots.len()];
        for (index, piece) in pieces.iter().enumerate() {
            if piece.from != piece.to {
                after[piece.from].push(index);
                before[piece.to].push(index);
            }
        }
        let count = spots.iter().map(|spot| spot.rank + 1).max().unwrap_or(0);
        let layers = Layers {
            place: vec![0; spots.len()],
            spots,
            pieces,
            before,
            after,
            layers: vec![Vec::new(); count],
        };
        (layers, chains)
    }

    /// The first order: along the lines, so that what hangs together begins together.
    fn first_order(&mut self) {
        let mut seen = vec![false; self.spots.len()];
        let roots: Vec<usize> = (0..self.spots.len())
            .filter(|&spot| self.before[spot].is_empty())
            .chain(0..self.spots.len())
            .collect();
        for root in roots {
            let mut stack = vec![root];
            while let Some(spot) = stack.pop() {
                if std::mem::replace(&mut seen[spot], true) {
                    continue;
                }
                self.layers[self.spots[spot].rank].push(spot);
                let after = self.after[spot].iter().rev();
                stack.extend(after.map(|&piece| self.pieces[piece].to));
            }
        }
        self.number();
    }

    fn number(&mut self) {
        for layer in &self.layers {
            for (place, &spot) in layer.iter().enumerate() {
                self.place[spot] = place;
            }
        }
    }

    /// Where an end of a piece is in the order: a box with given places on its side is several.
    fn at(&self, spot: usize, at: Option<f64>) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "layers are short")]
        let place = self.place[spot] as f64;
        match at {
            Some(at) if self.spots[spot].height > 0.0 => place + at / self.spots[spot].height * 0.9,
            _ => place,
        }
    }

    /// Orders each layer so that few lines cross.
    fn order(&mut self) {
        self.first_order();
        let size = self.spots.len() + self.pieces.len();
        let sweeps = (600_000 / size.max(1)).clamp(3, 24);
        let mut best = (self.crossings(), self.layers.clone());
        for sweep in 0..sweeps {
            if best.0 == 0 {
                break;
            }
            let forward = sweep % 2 == 0;
            let count = self.layers.len();
            for step in 1..count {
                let rank = if forward { step } else { count - 1 - step };
                self.sort(rank, forward, sweep % 4 < 2);
            }
            if size < 3_000 {
                self.swap_neighbours();
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.layers.clone());
            }
        }
        self.layers = best.1;
        self.number();
    }

    /// Orders a layer by that before it, or behind it.
    fn sort(&mut self, rank: usize, forward: bool, by_median: bool) {
        let mut keyed: Vec<(f64, usize)> = self.layers[rank]
            .iter()
            .map(|&spot| {
                let mut places: Vec<f64> = match forward {
                    true => self.before[spot]
                        .iter()
                        .map(|&piece| &self.pieces[piece])
                        .map(|piece| self.at(piece.from, piece.from_at))
                        .collect(),
                    false => self.after[spot]
                        .iter()
                        .map(|&piece| &self.pieces[piece])
                        .map(|piece| self.at(piece.to, piece.to_at))
                        .collect(),
                };
                let key = if by_median {
                    median(&mut places)
                } else {
                    mean(&places)
                };
                (key.unwrap_or_else(|| self.at(spot, None)), spot)
            })
            .collect();
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.layers[rank] = keyed.into_iter().map(|(_, spot)| spot).collect();
        for (place, &spot) in self.layers[rank].iter().enumerate() {
            self.place[spot] = place;
        }
    }

    /// Swaps neighbours of a layer where fewer lines cross then.
    fn swap_neighbours(&mut self) {
        for rank in 0..self.layers.len() {
            for upper in 1..self.layers[rank].len() {
                let (a, b) = (self.layers[rank][upper - 1], self.layers[rank][upper]);
                if self.crossed(b, a) < self.crossed(a, b) {
                    self.layers[rank].swap(upper - 1, upper);
                    self.place[a] = upper;
                    self.place[b] = upper - 1;
                }
            }
        }
    }

    /// How often lines of two spots of a layer cross where the first is above the second.
    fn crossed(&self, above: usize, below: usize) -> usize {
        let ends = |spot: usize| {
            let before: Vec<f64> = self.before[spot]
                .iter()
                .map(|&piece| &self.pieces[piece])
                .map(|piece| self.at(piece.from, piece.from_at))
                .collect();
            let after: Vec<f64> = self.after[spot]
                .iter()
                .map(|&piece| &self.pieces[piece])
                .map(|piece| self.at(piece.to, piece.to_at))
                .collect();
            (before, after)
        };
        let count = |above: &[f64], below: &[f64]| {
            above
                .iter()
                .map(|a| below.iter().filter(|b| *b < a).count())
                .sum::<usize>()
        };
        let (above, below) = (ends(above), ends(below));
        count(&above.0, &below.0) + count(&above.1, &below.1)
    }

    /// How many pairs of lines cross: inversions, counted by a tree of sums.
    fn crossings(&self) -> usize {
        let mut crossings = 0;
        for layer in &self.layers {
            let mut ends: Vec<(f64, f64)> = layer
                .iter()
                .flat_map(|&spot| &self.after[spot])
                .map(|&piece| &self.pieces[piece])
                .map(|piece| {
                    (
                        self.at(piece.from, piece.from_at),
                        self.at(piece.to, piece.to_at),
                    )
                })
                .collect();
            ends.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
            let mut sorted: Vec<f64> = ends.iter().map(|end| end.1).collect();
            sorted.sort_by(f64::total_cmp);
            sorted.dedup();
            let mut sums = vec![0usize; sorted.len() + 1];
            for (seen, (_, to)) in ends.into_iter().enumerate() {
                let place = sorted.partition_point(|other| *other < to) + 1;
                let mut not_after = 0;
                let mut index = place;
                while index > 0 {
                    not_after += sums[index];
                    index &= index - 1;
                }
                crossings += seen - not_after;
                let mut index = place;
                while index < sums.len() {
                    sums[index] += 1;
                    index += index & index.wrapping_neg();
                }
            }
        }
        crossings
    }

    /// How far the middles of two neighbours must be apart.
    fn distance(&self, above: usize, below: usize) -> f64 {
        let (a, b) = (&self.spots[above], &self.spots[below]);
        let gap = if a.bend && b.bend { BEND_GAP } else { GAP };
        (a.height + b.height) / 2.0 + gap
    }

    /// Gives every spot its height.
    fn place(&mut self) {
        for rank in 0..self.layers.len() {
            let mut y = 0.0;
            for place in 0..self.layers[rank].len() {
                let spot = self.layers[rank][place];
                if place > 0 {
                    y += self.distance(self.layers[rank][place - 1], spot);
                }
                self.spots[spot].y = y;
            }
            for place in 0..self.layers[rank].len() {
                let spot = self.layers[rank][place];
                self.spots[spot].y -= y / 2.0;
            }
        }
        let sweeps = (2_000_000 / self.spots.len().max(1)).clamp(6, 40);
        let count = self.layers.len();
        for sweep in 0..sweeps {
            let both = sweep + 4 >= sweeps;
            for step in 0..count {
                let forward = sweep % 2 == 0;
                let rank = if forward { step } else { count - 1 - step };
                self.settle(rank, forward || both, !forward || both);
            }
        }
        let top = self
            .spots
            .iter()
            .map(|spot| spot.y - spot.height / 2.0)
            .fold(f64::INFINITY, f64::min);
        for spot in &mut self.spots {
            spot.y -= top;
        }
    }

    /// Moves the spots of a layer to where their neighbours are, as far as order and distances allow.
    fn settle(&mut self, rank: usize, before: bool, after: bool) {
        /// Spots that stand as close as may be: where the first would be, by which weight, and how many.
        struct Block {
            target: f64,
            weight: f64,
            spots: usize,
        }
        let mut blocks: Vec<Block> = Vec::new();
        let mut offsets = Vec::with_capacity(self.layers[rank].len());
        let mut offset = 0.0;
        for (place, &spot) in self.layers[rank].iter().enumerate() {
            if place > 0 {
                offset += self.distance(self.layers[rank][place - 1], spot);
            }
            offsets.push(offset);
            let (wish, weight) = self.wish(spot, before, after);
            blocks.push(Block {
                target: wish - offset,
                weight,
                spots: 1,
            });
            while let [.., above, below] = blocks.as_slice()
                && above.target > below.target
            {
                let weight = above.weight + below.weight;
                let joined = Block {
                    target: (above.target * above.weight + below.target * below.weight) / weight,
                    weight,
                    spots: above.spots + below.spots,
                };
                blocks.truncate(blocks.len() - 2);
                blocks.push(joined);
            }
        }
        let mut place = 0;
        for block in blocks {
            for _ in 0..block.spots {
                let spot = self.layers[rank][place];
                self.spots[spot].y = block.target + offsets[place];
                place += 1;
            }
        }
    }

    /// Where a spot would like to be, and how much: long lines are to be straight.
    fn wish(&self, spot: usize, before: bool, after: bool) -> (f64, f64) {
        let mut wishes = Vec::new();
        let mut weight = 0.0;
        let mut hear = |other: usize, at: Option<f64>, own: Option<f64>| {
            wishes.push(self.spots[other].y + at.unwrap_or(0.0) - own.unwrap_or(0.0));
            weight += match (self.spots[spot].bend, self.spots[other].bend) {
                (true, true) => 8.0,
                (false, false) => 1.0,
                _ => 2.0,
            };
        };
        if before {
            for &piece in &self.before[spot] {
                let piece = &self.pieces[piece];
                hear(piece.from, piece.from_at, piece.to_at);
            }
        }
        if after {
            for &piece in &self.after[spot] {
                let piece = &self.pieces[piece];
                hear(piece.to, piece.to_at, piece.from_at);
            }
        }
        match median(&mut wishes) {
            Some(wish) => (wish, weight),
            None => (self.spots[spot].y, 0.05),
        }
    }

    /// Spreads the ends of lines over the sides of their boxes, where it is not given where they are.
    fn spread(&mut self, bodies: usize) {
        /// So far apart at most, and at least: nearer ones had better be one.
        const APART: (f64, f64) = (11.0, 6.0);
        for spot in 0..bodies {
            let height = self.spots[spot].height;
            for outgoing in [false, true] {
                let side = if outgoing { &self.after } else { &self.before };
                let mut ends: Vec<(f64, usize)> = side[spot]
                    .iter()
                    .map(|&index| {
                        let piece = &self.pieces[index];
                        let (other, at) = match outgoing {
                            true => (piece.to, piece.to_at),
                            false => (piece.from, piece.from_at),
                        };
                        (self.spots[other].y + at.unwrap_or(0.0), index)
                    })
                    .filter(|&(_, index)| {
                        let piece = &self.pieces[index];
                        let at = if outgoing { piece.from_at } else { piece.to_at };
                        at.is_none()
                    })
                    .collect();
                ends.sort_by(|a, b| a.0.total_cmp(&b.0));
                #[allow(clippy::cast_precision_loss, reason = "a few")]
                let count = ends.len() as f64;
                let apart = ((height - 8.0) / count).min(APART.0);
                let apart = if apart < APART.1 { 0.0 } else { apart };
                let mut at = -apart * (count - 1.0) / 2.0;
                for (_, index) in ends {
                    let piece = &mut self.pieces[index];
                    match outgoing {
                        true => piece.from_at = Some(at),
                        false => piece.to_at = Some(at),
                    }
                    at += apart;
                }
            }
        }
    }

    /// The columns, and the lines.
    fn routes(
        mut self,
        links: &[Link],
        turned: &[bool],
        chains: &[Vec<usize>],
        bodies: usize,
    ) -> Layout {
        self.spread(bodies);
        let count = self.layers.len();
        let mut widths = vec![0.0_f64; count];
        let mut steep = vec![0.0_f64; count];
        for spot in &self.spots {
            widths[spot.rank] = widths[spot.rank].max(spot.width);
        }
        for piece in &self.pieces {
            let (from, to) = (&self.spots[piece.from], &self.spots[piece.to]);
            steep[from.rank] = steep[from.rank].max((from.y - to.y).abs());
        }
        let mut left = vec![0.0; count];
        let mut x = 0.0;
        for rank in 0..count {
            left[rank] = x;
            x += widths[rank];
            if rank + 1 < count {
                x += (22.0 + steep[rank] * 0.25).min(120.0);
            }
        }
        let middle = |spot: &Spot| left[spot.rank] + widths[spot.rank] / 2.0;
        let mut pieces = self.pieces.iter();
        let mut routes = Vec::with_capacity(links.len());
        for (chain, &turned) in chains.iter().zip(turned) {
            let mut route: Vec<Point> = Vec::new();
            for piece in pieces.by_ref().take(chain.len() - 1) {
                let (from, to) = (&self.spots[piece.from], &self.spots[piece.to]);
                let y = from.y + piece.from_at.unwrap_or(0.0);
                let end = to.y + piece.to_at.unwrap_or(0.0);
                let from_side = middle(from) + from.width / 2.0;
                let to_side = middle(to) - to.width / 2.0;
                let turn = left[from.rank] + widths[from.rank];
                for (x, y) in [
                    (from_side, y),
                    (turn, y),
                    (left[to.rank], end),
                    (to_side, end),
                ] {
                    let point = Point { x, y };
                    if route.last() != Some(&point) {
                        route.push(point);
                    }
                }
            }
            if turned {
                route.reverse();
            }
            routes.push(route);
        }
        let bottom = self
            .spots
            .iter()
            .map(|spot| spot.y + spot.height / 2.0)
            .fold(0.0, f64::max);
        Layout {
            middles: self.spots[..bodies]
                .iter()
                .map(|spot| Point {
                    x: middle(spot),
                    y: spot.y,
                })
                .collect(),
            routes,
            width: x,
            height: bottom,
        }
    }
}

/// Of two in the middle, what is between them.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle)?;
    match values.len().is_multiple_of(2) {
        true => values.get(middle - 1).map(|lower| (lower + upper) / 2.0),
        false => Some(*upper),
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "a few")]
    let count = values.len() as f64;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / count)
}
