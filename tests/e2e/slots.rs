//! What nodes claim and hold: resources, memory.

use crate::support::Pipeline;

/// Each node fails where another one that claims `db` runs: `mkdir` is not shared.
#[test]
fn nodes_that_claim_the_last_of_a_resource_take_turns() {
    let mut text = "[run]\njobs = 8\nresources = { db = 1 }\n".to_owned();
    for node in 0..8 {
        text.push_str(&format!(
            "[process.n{node}]\nscript = 'mkdir db; sleep 0.02; rmdir db'\nresources = {{ db = 1 }}\n"
        ));
    }
    Pipeline::new(&text).run();
}

/// `both` waits until nobody has any, though `one` and `other` come before and after it; each of these leaves a half.
#[test]
fn a_group_claims_the_sum_of_its_members() {
    Pipeline::new(
        r#"
        [run]
        jobs = 8
        resources = { half = 2 }
        [process.one]
        script = "mkdir one; sleep 0.02; rmdir one"
        resources = { half = 1 }
        [process.left]
        script = "mkdir one other; rmdir one other; seq 10"
        stdout = "q"
        resources = { half = 1 }
        [process.right]
        command = ["wc", "-l"]
        stdin = "q"
        stdout = "inherit"
        resources = { half = 1 }
        [process.other]
        script = "mkdir other; sleep 0.02; rmdir other"
        resources = { half = 1 }
        "#,
    )
    .run()
    .stdout("10\n");
}

#[test]
fn what_can_never_start_is_told_before_anything_starts() {
    Pipeline::new(
        r#"
[run]
resources = { gpu = 2 }
[process.first]
script = "echo started"
stdout = "inherit"
[process.train]
command = ["true"]
resources = { gpu = 4 }
"#,
    )
    .run()
    .exit(2)
    .no_nodes()
    .says(
        "\
error: `train` can never start: it claims 4 of `gpu`, and there are 2
 --> pipeline.toml:9:21
  |
3 | resources = { gpu = 2 }
  |                     - there are 2
...
9 | resources = { gpu = 4 }
  |                     ^
",
    );
}

#[test]
fn one_that_claims_more_memory_than_the_machine_has_runs_alone() {
    Pipeline::new(
        r#"
        [process.large]
        script = "mkdir alone; sleep 0.02; rmdir alone"
        memory = "4PiB"
        [process.small]
        script = "mkdir alone; sleep 0.02; rmdir alone"
        memory = "1KiB"
        "#,
    )
    .args(["--jobs", "4"])
    .run()
    .says("warning: `large` claims 4.0 PiB of memory, and this machine has ");
}
