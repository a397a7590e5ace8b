//! Two pipelines, drawn.

use crate::draw::words::{example, pools};
use crate::draw::{State, dot, mermaid, text};

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
