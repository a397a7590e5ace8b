//! procflow's own memory stays within the capacities of its queues, however much waits behind them.

use std::fs;

use nix::sys::signal::Signal;
use procflow::sys::process::sleep::{Sleep, Thread, sleep};

use crate::support::{LIMIT, Live, Pipeline, children, wait_for};

/// What a queue of `capacity = "1MiB"` may cost, whatever waits behind it.
const BOUND: u64 = 4 << 20;

/// Looks at which nothing has moved, one after the other, until it is believed that nothing does.
const STILL: u32 = 50;

/// A number in a file of /proc, behind this word.
fn number(file: &str, word: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Resident memory of procflow's two processes in bytes: now (`VmRSS:`) or at most (`VmHWM:`).
fn resident(live: &Live, which: &str) -> u64 {
    let runner = children(live.pid());
    assert_eq!(runner.len(), 1, "a guard has one runner");
    let of = |pid: i32| number(&format!("/proc/{pid}/status"), which).unwrap() * 1024;
    of(live.pid()) + of(runner[0])
}

/// The processes of the run with this program, as many as there must be.
fn running(live: &Live, program: &str, count: usize) -> Vec<i32> {
    wait_for(program, || {
        let processes = live.processes().into_iter();
        let pids: Vec<i32> = processes
            .filter(|(_, command)| command.split(' ').next() == Some(program))
            .map(|(pid, _)| pid)
            .collect();
        (pids.len() == count).then_some(pids)
    })
}

/// Waits until these processes sleep because their pipe is full, and neither they nor any thread of procflow's has moved for many looks.
fn wait_until_stuck(live: &Live, writers: &[i32]) {
    let runner = children(live.pid())[0];
    let mut before = Vec::new();
    let mut still = 0;
    wait_for("the writers to be stuck", || {
        let are_full = writers.iter().all(|&process| {
            let id = process;
            matches!(sleep(Thread { process, id }), Sleep::Write(_))
        });
        let written = writers
            .iter()
            .map(|pid| number(&format!("/proc/{pid}/io"), "wchar:"));
        let threads = fs::read_dir(format!("/proc/{runner}/task"))
            .unwrap()
            .flatten();
        let ran = threads.map(|thread| {
            let status = thread.path().join("status");
            number(status.to_str().unwrap(), "voluntary_ctxt_switches:")
        });
        let now: Vec<Option<u64>> = written.chain(ran).collect();
        still = if are_full && now == before {
            still + 1
        } else {
            0
        };
        before = now;
        (still >= STILL).then_some(())
    });
}

/// Nodes that write for ever to `writes`, once they may, and one that reads nothing of queue `q`. `queues`: more of that queue's table, and what else
/// there is.
fn grows_within_its_capacity(writers: usize, writes: &str, queues: &str) {
    let mut text = format!(
        "[queue.q]\ncapacity = \"1MiB\"\n{queues}
        [process.stuck]
        script = \"read word < never\"
        stdin = \"q\"\n"
    );
    for writer in 0..writers {
        text += &format!(
            "[process.write{writer}]
            script = \"read word < gate{writer}; exec yes 'a line of a log that nobody reads, number {writer}'\"
            stdout = {writes}\n"
        );
    }
    let mut pipeline = Pipeline::new(&text).with_fifo("never");
    for writer in 0..writers {
        pipeline = pipeline.with_fifo(&format!("gate{writer}"));
    }
    let live = pipeline.start();
    running(&live, "sh", writers + 1);
    let before = resident(&live, "VmRSS:");
    for writer in 0..writers {
        live.release(&format!("gate{writer}"), "go\n");
    }
    let writing = running(&live, "yes", writers);
    wait_until_stuck(&live, &writing);
    let grown = resident(&live, "VmHWM:").saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes more");
    live.signal(Signal::SIGTERM);
    live.finish()
        .node("stuck", "cancelled: interrupted by SIGTERM")
        .signal(Signal::SIGTERM);
}

#[test]
fn a_merge_that_nobody_reads_stays_within_its_capacity() {
    grows_within_its_capacity(2, "\"q\"", "");
}

#[test]
fn writers_that_wait_for_their_turn_are_held_back() {
    grows_within_its_capacity(
        3,
        "\"all\"",
        "
        [process.pass]
        command = [\"cat\"]
        stdin = \"all\"
        stdout = \"q\"
        [queue.all]
        capacity = \"1MiB\"
        merge = \"sequence\"
    ",
    );
}

/// One of its readers takes all that it gets.
const TAKER: &str = "
    [process.take]
    command = [\"cat\"]
    stdout = \"null\"
";

#[test]
fn a_copy_to_one_that_reads_and_one_that_does_not_stays_within_its_capacity() {
    let taker = format!("{TAKER}stdin = \"q\"");
    for writers in [1, 2] {
        grows_within_its_capacity(writers, "\"q\"", &format!("deliver = \"copy\"\n{taker}"));
    }
}

#[test]
fn an_output_to_two_queues_is_held_back_by_the_one_that_nobody_reads() {
    grows_within_its_capacity(
        1,
        "[\"q\", \"taken\"]",
        &format!("{TAKER}stdin = \"taken\""),
    );
}

/// Bytes that wait on disk: `PROCFLOW_MEMORY_BYTES=10737418240` for 10 GiB.
fn much() -> u64 {
    std::env::var("PROCFLOW_MEMORY_BYTES").map_or(192 << 20, |text| text.parse().unwrap())
}

/// `a` splits into two queues that meet again, so they spill; all that it writes waits on disk while nobody reads, and comes
/// back from there.
#[test]
fn what_spills_takes_no_memory() {
    let much = much();
    let live = Pipeline::new(&format!(
        r#"
        [process.write]
        script = "read word < gate; yes 'a line of a log that is read much later' | head -c {much}"
        stdout = "q"
        outputs = {{ 3 = "other" }}
        [process.read]
        script = "read word < enough; wc -c; cat <&3; read word < seen"
        stdin = "q"
        inputs = {{ 3 = "other" }}
        stdout = "inherit"
        [queue.q]
        capacity = "1MiB"
        "#
    ))
    .with_fifo("gate")
    .with_fifo("enough")
    .with_fifo("seen")
    .args(["--events", "events.jsonl"])
    .start();
    running(&live, "sh", 2);
    let before = resident(&live, "VmRSS:");
    live.release("gate", "go\n");
    // It ends: nothing holds it back.
    let events = live.pipeline.path("events.jsonl");
    wait_patiently("the writer's end", much, || {
        fs::read_to_string(&events)
            .unwrap()
            .contains(r#""event":"ended","t":"#)
    });
    let grown = resident(&live, "VmHWM:").saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes more, written");
    live.release("enough", "enough\n");
    let stdout = live.pipeline.path("stdout");
    wait_patiently("the reader to have read", much, || {
        fs::read_to_string(&stdout).unwrap() == format!("{much}\n")
    });
    let grown = resident(&live, "VmHWM:").saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes more, read");
    live.release("seen", "seen\n");
    live.finish().stdout(format!("{much}\n"));
}

/// As [`wait_for`], with time for so many bytes: 20 MB in a second are written at least.
fn wait_patiently(what: &str, bytes: u64, condition: impl Fn() -> bool) {
    for _ in 0..=bytes / 20_000_000 / LIMIT.as_secs() {
        let begin = std::time::Instant::now();
        while begin.elapsed() < LIMIT {
            if condition() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    panic!("{what}: has not come to pass");
}
