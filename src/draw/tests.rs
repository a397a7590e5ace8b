//! Two pipelines, drawn.

use crate::draw::words::{example, pools};
use crate::draw::{Notes, State, dot, mermaid, picture, text};

fn printed(print: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    assert!(print(&mut out).is_ok());
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn the_example_as_dot() {
    let (_, plan) = example();
    assert_eq!(
        printed(|out| dot(&plan, &[], out)),
        r#"digraph "word-count" {
  rankdir=LR
  node [shape=box, style=rounded]
  n0 [label="fetch"]
  subgraph cluster_1 {
    label="group 2"
    color=gray
    n1 [label="read"]
    n2 [label="split"]
    n3 [label="left"]
    n4 [label="right"]
    n5 [label="total"]
    q3 [shape=ellipse, style=solid, label="counts (spills)"]
  }
  n6 [label="mail"]
  n1 -> n2 [label="text"]
  n2 -> n3 [label="odd (spills)"]
  n2 -> n4 [label="even (spills)"]
  n3 -> q3
  n4 -> q3
  q3 -> n5
  n0 -> n1 [style=dashed]
  n1 -> n6 [style=dashed]
  n5 -> n6 [style=dashed, label="failed"]
}
"#
    );
}

#[test]
fn the_example_as_mermaid() {
    let (_, plan) = example();
    assert_eq!(
        printed(|out| mermaid(&plan, &[], out)),
        r#"flowchart LR
  n0["fetch"]
  subgraph g1["group 2"]
    n1["read"]
    n2["split"]
    n3["left"]
    n4["right"]
    n5["total"]
    q3(["counts (spills)"])
  end
  n6["mail"]
  n1 -->|"text"| n2
  n2 -->|"odd (spills)"| n3
  n2 -->|"even (spills)"| n4
  n3 --> q3
  n4 --> q3
  q3 --> n5
  n0 -.-> n1
  n1 -.-> n6
  n5 -.->|"failed"| n6
"#
    );
}

#[test]
fn the_example_as_text() {
    let (_, plan) = example();
    assert_eq!(
        printed(|out| text(&plan, &[], out)),
        r#"fetch

read (after fetch) ─text→ split
                          ├─odd (spills)→ left ─counts (spills)→ total
                          └─even (spills)→ right ─counts (spills)→ total …

mail (after read, total failed)
"#
    );
}

#[test]
fn pools_as_text() {
    let (_, plan) = pools();
    assert_eq!(
        printed(|out| text(&plan, &[], out)),
        r#"read
├─lines→ letters
└─lines→ count ×2 ─counts→ total ─all (stored)→ fetch …

fetch ×3
├─pages (leads back)→ walk ×1
│                     ├─pages (leads back)→ walk …
│                     └─found (spills)→ show
└─bad (drops)→ show …
"#
    );
}

#[test]
fn pools_as_dot() {
    let (_, plan) = pools();
    assert_eq!(
        printed(|out| dot(&plan, &[], out)),
        r#"digraph "pools" {
  rankdir=LR
  node [shape=box, style=rounded]
  subgraph cluster_0 {
    label="group 1"
    color=gray
    n0 [label="read"]
    n1 [label="count ×2", peripheries=2]
    n2 [label="letters"]
    n3 [label="total"]
    q0 [shape=ellipse, style=solid, label="lines"]
  }
  subgraph cluster_1 {
    label="group 2"
    color=gray
    n4 [label="fetch ×3", peripheries=2]
    n5 [label="walk ×1", peripheries=2]
    n6 [label="show"]
    q4 [shape=ellipse, style=solid, label="pages (leads back)"]
  }
  n0 -> q0
  q0 -> n2
  q0 -> n1
  n1 -> n3 [label="counts"]
  n3 -> n4 [label="all (stored)"]
  n4 -> q4
  n5 -> q4
  q4 -> n5
  n4 -> n6 [label="bad (drops)"]
  n5 -> n6 [label="found (spills)"]
}
"#
    );
}

#[test]
fn pools_as_mermaid() {
    let (_, plan) = pools();
    assert_eq!(
        printed(|out| mermaid(&plan, &[], out)),
        r#"flowchart LR
  subgraph g0["group 1"]
    n0["read"]
    n1[["count #215;2"]]
    n2["letters"]
    n3["total"]
    q0(["lines"])
  end
  subgraph g1["group 2"]
    n4[["fetch #215;3"]]
    n5[["walk #215;1"]]
    n6["show"]
    q4(["pages (leads back)"])
  end
  n0 --> q0
  q0 --> n2
  q0 --> n1
  n1 -->|"counts"| n3
  n3 -->|"all (stored)"| n4
  n4 --> q4
  n5 --> q4
  q4 --> n5
  n4 -->|"bad (drops)"| n6
  n5 -->|"found (spills)"| n6
"#
    );
}

/// The example as it may have ended: its reader failed.
const ENDED: [Option<State>; 7] = [
    Some(State::Succeeded),
    Some(State::Failed),
    Some(State::Cancelled),
    Some(State::Cancelled),
    Some(State::Tolerated),
    None,
    Some(State::Skipped),
];

#[test]
fn the_example_with_states() {
    let (_, plan) = example();
    assert_eq!(
        printed(|out| text(&plan, &ENDED, out)),
        r#"fetch (succeeded)

read (failed) (after fetch) ─text→ split (cancelled)
                                   ├─odd (spills)→ left (cancelled) ─counts (spills)→ total
                                   └─even (spills)→ right (failed, may fail) ─counts (spills)→ total …

mail (skipped) (after read, total failed)
"#
    );
    let drawn = printed(|out| mermaid(&plan, &ENDED, out));
    let classes = drawn.split_once("|\"failed\"| n6\n").map(|(_, rest)| rest);
    assert_eq!(
        classes,
        Some(
            r#"  classDef succeeded stroke:#1a7f37,fill:#d2f4d9,color:#1f2328
  class n0 succeeded
  classDef failed stroke:#b3261e,fill:#ffd3cf,color:#1f2328
  class n1 failed
  classDef tolerated stroke:#9a6700,fill:#fff1c2,color:#1f2328
  class n4 tolerated
  classDef cancelled stroke:#6639ba,fill:#e9defa,color:#1f2328
  class n2,n3 cancelled
  classDef skipped stroke:#6e7781,fill:#e6e9ec,color:#1f2328
  class n6 skipped
"#
        )
    );
    let drawn = printed(|out| dot(&plan, &ENDED, out));
    assert!(drawn.contains(
        r##"n1 [label="read", style="rounded,filled", color="#b3261e", fillcolor="#ffd3cf", tooltip="failed"]"##
    ));
}

/// A graph of that many nodes: layers of jobs, each after some before it, with streams among them.
fn grown(nodes: usize) -> String {
    let mut file = String::new();
    let mut seed = 7usize;
    let mut next = |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below.max(1)
    };
    for index in 0..nodes {
        file.push_str(&format!("[process.n{index}]\ncommand = [\"true\"]\n"));
        match index % 5 {
            0 if index > 0 => file.push_str(&format!("after = [\"n{}\"]\n", next(index))),
            1 => file.push_str(&format!("stdout = \"q{index}\"\n")),
            2 => file.push_str(&format!(
                "stdin = \"q{}\"\nstdout = \"q{index}\"\n",
                index - 1
            )),
            3 => file.push_str(&format!("stdin = \"q{}\"\n", index - 1)),
            4 => file.push_str(&format!(
                "after = [\"n{}\", \"n{}\"]\n",
                next(index / 2),
                index / 2 + next(index - index / 2)
            )),
            _ => {}
        }
    }
    // What nobody reads is no queue.
    if nodes % 5 == 2 || nodes % 5 == 3 {
        file.push_str("[process.last]\ncommand = [\"true\"]\n");
        file.push_str(&format!("stdin = \"q{}\"\n", nodes - 1));
    }
    file
}

/// A rectangle of the picture: left, top, right, bottom.
type Area = [f64; 4];

/// The number that an attribute has.
fn number(line: &str, name: &str) -> f64 {
    let rest = line
        .split_once(&format!(" {name}=\""))
        .map(|(_, rest)| rest);
    let text = rest
        .and_then(|rest| rest.split_once('"'))
        .map(|(text, _)| text);
    match text.map(str::parse) {
        Some(Ok(number)) => number,
        other => panic!("{name} of {line}: {other:?}"),
    }
}

/// The boxes of nodes and labels, as they are drawn.
fn boxes(svg: &str) -> Vec<Area> {
    let of_graph = svg.split("<g class=\"legend\">").next().unwrap_or_default();
    let lines = of_graph
        .lines()
        .filter(|line| line.starts_with("<g class=\"node") || line.starts_with("<g class=\"label"));
    let mut areas = Vec::new();
    for line in lines {
        let rects = line.split("<rect").skip(1).map(|rect| {
            let (x, y) = (number(rect, "x"), number(rect, "y"));
            [x, y, x + number(rect, "width"), y + number(rect, "height")]
        });
        // Those of a pool are one.
        areas.extend(rects.reduce(|a, b| {
            [
                a[0].min(b[0]),
                a[1].min(b[1]),
                a[2].max(b[2]),
                a[3].max(b[3]),
            ]
        }));
    }
    areas
}

/// Points along the lines, as they are drawn.
fn points(svg: &str) -> Vec<Vec<(f64, f64)>> {
    let of_graph = svg.split("<g class=\"legend\">").next().unwrap_or_default();
    let mut lines = Vec::new();
    for line in of_graph
        .lines()
        .filter(|line| line.starts_with("<path class=\"line"))
    {
        let path = line
            .split(" d=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        let mut at = (0.0, 0.0);
        let mut points = Vec::new();
        let steps = path.unwrap_or_default().split_inclusive(['M', 'H', 'C']);
        let mut command = ' ';
        for step in steps {
            let numbers: Vec<f64> = step
                .trim_end_matches(['M', 'H', 'C'])
                .split_whitespace()
                .map(|number| number.parse().unwrap_or(f64::NAN))
                .collect();
            let to = match (command, numbers.as_slice()) {
                ('M', [x, y]) => (*x, *y),
                ('H', [x]) => (*x, at.1),
                ('C', [_, _, _, _, x, y]) => (*x, *y),
                (' ', []) => at,
                other => panic!("{other:?} in {line}"),
            };
            for part in 1..=20 {
                let t = f64::from(part) / 20.0;
                let bent = 3.0 * t * t - 2.0 * t * t * t;
                let across = match command {
                    // Both its handles are half-way.
                    'C' => 1.5 * t - 1.5 * t * t + t * t * t,
                    _ => t,
                };
                let along = if command == 'C' { bent } else { t };
                if command != 'M' && command != ' ' {
                    points.push((at.0 + (to.0 - at.0) * across, at.1 + (to.1 - at.1) * along));
                }
            }
            at = to;
            command = step.chars().last().unwrap_or(' ');
        }
        lines.push(points);
    }
    lines
}

/// What must hold of any picture.
fn assert_sound(svg: &str) {
    let head = svg.lines().next().unwrap_or_default();
    let (width, height) = (number(head, "width"), number(head, "height"));
    let boxes = boxes(svg);
    for (index, a) in boxes.iter().enumerate() {
        assert!(
            a[0] >= 0.0 && a[1] >= 0.0 && a[2] <= width && a[3] <= height,
            "{a:?} lies outside"
        );
        for b in &boxes[index + 1..] {
            let apart = a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1];
            assert!(apart, "{a:?} and {b:?} overlap");
        }
    }
    for line in points(svg) {
        for (x, y) in line {
            assert!(
                x >= 0.0 && y >= 0.0 && x <= width && y <= height,
                "{x} {y} lies outside"
            );
            let within = |area: &&Area| {
                x > area[0] + 0.6 && x < area[2] - 0.6 && y > area[1] + 0.6 && y < area[3] - 0.6
            };
            if let Some(area) = boxes.iter().find(within) {
                panic!("a line passes through {area:?} at {x} {y}");
            }
        }
    }
}

#[test]
fn pictures_are_sound() {
    let mut files = vec![
        include_str!("example.toml").to_owned(),
        include_str!("pools.toml").to_owned(),
    ];
    files.extend([1, 5, 15, 33, 60].map(grown));
    for file in files {
        let (_, plan) = crate::draw::words::planned(&file);
        let drawn = picture(&plan, Notes::default(), true);
        assert_sound(&drawn);
        assert_eq!(drawn.matches("<g class=\"node").count(), plan.nodes.len());
        assert_eq!(drawn, picture(&plan, Notes::default(), true));
    }
}

#[test]
fn a_picture_shows_states_and_notes() {
    let (_, plan) = example();
    let queues = vec![Some("12 MB/s".to_owned())];
    let drawn = picture(
        &plan,
        Notes {
            states: &ENDED,
            queues: &queues,
        },
        false,
    );
    assert!(drawn.contains("<g class=\"node failed\" data-node=\"1\"><title>read (failed)"));
    assert!(drawn.contains(">text  12 MB/s</text>"));
    assert!(!drawn.contains("<style>"));
    assert_sound(&drawn);
}

#[test]
fn names_are_no_markup() {
    let (_, plan) = crate::draw::words::planned(
        "name = \"<script>alert(1)</script>\"\n[process.a]\ncommand = [\"true\"]\ndescription = \"\\\"><script>&\\u0007]]>\"\n",
    );
    let drawn = picture(&plan, Notes::default(), true);
    assert!(!drawn.contains("<script"));
    assert!(drawn.contains("aria-label=\"The graph of &lt;script&gt;alert(1)&lt;/script&gt;\""));
    assert!(drawn.contains("<title>a\n&quot;&gt;&lt;script&gt;&amp;\\u{7}]]&gt;</title>"));
}

/// The picture of the README is that of its pipeline. With `UPDATE_EXPECT=1` in the environment it is drawn anew.
#[test]
fn the_picture_of_the_readme_is_up_to_date() {
    let (_, plan) = crate::draw::words::planned(include_str!("../../pipelines/word-count.toml"));
    let drawn = picture(&plan, Notes::default(), true);
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/img/word-count.svg");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        assert!(std::fs::write(&file, &drawn).is_ok());
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == drawn,
        "UPDATE_EXPECT=1 cargo test --lib up_to_date draws it anew"
    );
}
