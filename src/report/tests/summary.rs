//! The job summary of GitHub Actions, whole, and within its limit.

use super::*;

#[test]
fn it_has_the_verdict_the_failures_the_table_and_the_graph() {
    let mut plan = plan(&["fetch", "test", "deploy"], &[]);
    plan.name = "ci | <nightly>".to_owned();
    plan.secrets = vec!["hunter2".to_owned()];
    let mut story = Story::new(&plan, Progress::None, Output::None);
    story.start(0);
    story.start(1);
    story.at(1310).ok(0);
    story.print(
        1,
        Stream::Err,
        "</pre><img src=x>\n\n```\n@all hunter2 \x1b[31mred\x1b[0m\n",
    );
    story.fail(1, Exit::Code(3));
    let cause = Cause::After {
        node: NodeId(1),
        root: NodeId(1),
    };
    story.end(2, Outcome::Skipped(cause), None);
    let (_, observers) = story.finish(ExitCode::NodeFailed);
    assert_eq!(
        observers.summary(100_000),
        "\
### ❌ ci &#124; &#60;nightly&#62;

failed: 3 nodes: 1 succeeded, 1 failed, 1 skipped in 1.31s

<details open><summary><b>test</b>: exit 3</summary>

<pre>
&lt;/pre&gt;&lt;img src=x&gt;

```
@all *** red
</pre>

</details>

| node | state | exit | time | CPU | memory | tries | |
| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |
| fetch | ✅ succeeded | 0 | 1.31s | 0.49s | 12.0 MiB |  |  |
| test | ❌ failed | 3 | 1.31s | 0.49s | 12.0 MiB |  | exit 3 |
| deploy | ⏭️ skipped |  |  |  |  |  | test failed |

```mermaid
flowchart LR
  subgraph g0[\"group 1\"]
    n0[\"fetch\"]
    n1[\"test\"]
    n2[\"deploy\"]
  end
  classDef succeeded stroke:#1a7f37,fill:#d2f4d9,color:#1f2328
  class n0 succeeded
  classDef failed stroke:#b3261e,fill:#ffd3cf,color:#1f2328
  class n1 failed
  classDef skipped stroke:#6e7781,fill:#e6e9ec,color:#1f2328
  class n2 skipped
```
"
    );
    // Whatever room there is, it is enough, and each part is whole.
    for room in 0..2_000 {
        let summary = observers.summary(room);
        assert!(summary.len() <= room, "{room}: {summary}");
        assert_eq!(
            summary.matches("<details").count(),
            summary.matches("</details>").count()
        );
        assert_eq!(
            summary.matches("```mermaid").count(),
            summary.matches("skipped\n```").count()
        );
    }
}

#[test]
fn a_run_of_thousands_fits() {
    let names: Vec<String> = (0..5_000).map(|i| format!("node-{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let plan = plan(&names, &[]);
    let mut story = Story::new(&plan, Progress::None, Output::None);
    for unit in 0..5_000 {
        story.start(unit);
        story.print(unit, Stream::Err, &"x & y\n".repeat(1000));
        story.fail(unit, Exit::Code(3));
    }
    let (_, observers) = story.finish(ExitCode::NodeFailed);
    let summary = observers.summary(1024 * 1024);
    assert!(summary.contains("\nand 4,980 more failed\n"), "{summary}");
    assert!(summary.contains("\nand 4,800 more\n"), "{summary}");
    assert!(!summary.contains("left out") && !summary.contains("mermaid"));
}
