//! Nothing is left behind, however procflow ends: here it is killed without a chance to do anything about it.

use std::time::Duration;

use crate::support::{Live, Pipeline, children};

/// Twenty processes, of all the kinds that are hard to get rid of. Each says by a line in a fifo that it is there.
fn twenty_processes() -> Live {
    let kinds = [
        "echo ready > ready; exec sleep 1000",
        "trap '' TERM INT HUP; echo ready > ready; sleep 1000; sleep 1000",
        "setsid sh -c 'echo ready > ready; sleep 1000; sleep 1000' & wait",
        "setsid sh -c \"trap '' TERM; sh -c 'echo ready > ready; exec sleep 1000' < /dev/null > /dev/null 2>&1 & sleep 1000\" & wait",
        "(trap '' TERM; (trap '' TERM; echo ready > ready; sleep 1000; sleep 1000) & wait) & wait",
    ];
    let mut text = String::new();
    for node in 0..20 {
        text.push_str(&format!(
            "[process.n{node}]\nscript = '''\n{}\n'''\n",
            kinds[node % kinds.len()]
        ));
    }
    let live = Pipeline::new(&text)
        .with_fifo("ready")
        .args(["--jobs", "20"])
        .start();
    live.lines("ready", 20);
    // The search for survivors sees them now, so that it means something when it sees none.
    let there = live.processes();
    assert!(
        there.len() >= 22,
        "twenty nodes, the guard and the runner: {there:#?}"
    );
    live
}

fn rounds() -> u32 {
    std::env::var("PROCFLOW_KILL_ROUNDS")
        .ok()
        .map_or(3, |rounds| rounds.parse().unwrap())
}

/// The issue's own words: nothing is left after two seconds. `PROCFLOW_KILL_ROUNDS=200` does it 200 times.
#[test]
fn kill_9_of_procflow_leaves_nothing_behind() {
    for round in 0..rounds() {
        let live = twenty_processes();
        let victim = live.pid();
        let took = live.kill_and_time(victim);
        assert!(
            took < Duration::from_secs(2),
            "round {round}: it took {took:?}"
        );
    }
}

/// procflow is two processes, a guard and a runner; either may be the one that is killed.
#[test]
fn kill_9_of_procflows_other_process_leaves_nothing_behind() {
    for round in 0..rounds() {
        let live = twenty_processes();
        // Of its children, the one that has children itself or none of the nodes' command lines: procflow's own program.
        let program = std::fs::read_link(format!("/proc/{}/exe", live.pid())).unwrap();
        let victim = children(live.pid())
            .into_iter()
            .find(|child| {
                std::fs::read_link(format!("/proc/{child}/exe")).is_ok_and(|exe| exe == program)
            })
            .expect("procflow has a child that is procflow");
        let took = live.kill_and_time(victim);
        assert!(
            took < Duration::from_secs(2),
            "round {round}: it took {took:?}"
        );
    }
}

/// A run that was killed is no obstacle to the next one.
#[test]
fn after_kill_9_the_same_pipeline_runs_again() {
    let pipeline = || {
        Pipeline::new("[process.a]\nscript = \"echo ready > ready; read go < go\"\nstdout = { file = \"out\" }\n")
            .with_fifo("ready")
            .with_fifo("go")
    };
    let live = pipeline().start();
    live.lines("ready", 1);
    let victim = live.pid();
    let state = live.pipeline.path(".procflow");
    let kept = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(&state)
        .arg(kept.path())
        .status()
        .unwrap();
    assert!(copied.success());
    live.kill_and_time(victim);

    let next = pipeline();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(kept.path().join(".procflow"))
        .arg(next.path("."))
        .status()
        .unwrap();
    assert!(copied.success());
    let live = next.start();
    live.lines("ready", 1);
    live.release("go", "go\n");
    drop(live.finish().file("out", ""));
}

#[test]
fn kill_9_of_a_procflow_leaves_nothing_of_the_one_within_it() {
    let live = Pipeline::new(
        r#"
        [process.outer]
        command = ["${{ env.PROCFLOW_PROGRAM }}", "run", "inner.toml"]
        "#,
    )
    .env("PROCFLOW_PROGRAM", crate::support::PROCFLOW)
    .with_file(
        "inner.toml",
        "[process.inner]\nscript = \"trap '' TERM; setsid sleep 1000 & echo ready > ready; sleep 1000\"\n",
    )
    .with_fifo("ready")
    .start();
    live.lines("ready", 1);
    let victim = live.pid();
    let took = live.kill_and_time(victim);
    assert!(took < Duration::from_secs(2), "it took {took:?}");
}
