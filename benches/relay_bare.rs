//! How fast queues that procflow carries are, beside a loop that does nothing but the same job: whole lines of four writers
//! merged into one pipe, one pipe copied to three, and one pipe's lines shared by four.
//!
//! `cargo bench --bench relay_bare -- [GIB [ROUNDS]]`. The ways take turns, so that a machine's mood meets all of them; printed are the
//! medians. Writers and readers are threads that do as little as they can: write a block of lines, read and forget.
//!
//! With the name of a way to carry instead, how many processes, and a command, it starts that command so often and carries its
//! standard input to them, or merges what they write: what `benches/run.py` puts beside other programs.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a measurement that can't go on fails"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use memchr::memrchr;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice, tee};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::unistd::pipe2;
use procflow::plan::{Deliver, Overflow};
use procflow::queue::{Fate, RelayEvents, RelayInput, RelayOutput, RelaySpec, start};
use procflow::spec::{Merge, OnWriterFailure, Records};

const PIPE: i32 = 256 * 1024;
const BLOCK: usize = 128 * 1024;

/// A way to carry bytes from these ends to those.
type Way = fn(Vec<OwnedFd>, Vec<OwnedFd>, &Job);

/// What is carried.
#[derive(Clone)]
struct Job {
    bytes: u64,
    inputs: usize,
    outputs: usize,
    /// Of a line, newline included.
    line: usize,
    deliver: Deliver,
}

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    if let [kind, outputs @ ..] = &arguments[..]
        && kind.parse::<f64>().is_err()
    {
        return stand_alone(kind, outputs);
    }
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<f64>().ok());
    let bytes = (number(0).unwrap_or(4.0) * (1u64 << 30) as f64) as u64;
    let rounds = number(1).unwrap_or(5.0) as usize;
    let mut stdout = std::io::stdout();
    let job = |inputs, outputs, line, deliver| Job {
        bytes,
        inputs,
        outputs,
        line,
        deliver,
    };
    for (name, job, bare) in [
        (
            "four writers' lines merged",
            job(4, 1, 100, Deliver::Copy),
            bare_merge as Way,
        ),
        (
            "copied to three readers",
            job(1, 3, 100, Deliver::Copy),
            bare_copy,
        ),
        (
            "lines of 16 bytes to four workers",
            job(1, 4, 16, Deliver::Share),
            bare_share,
        ),
        (
            "lines of 100 bytes to four workers",
            job(1, 4, 100, Deliver::Share),
            bare_share,
        ),
        (
            "lines of 1,000 bytes to four workers",
            job(1, 4, 1000, Deliver::Share),
            bare_share,
        ),
    ] {
        let mut seconds: [Vec<f64>; 2] = Default::default();
        for _ in 0..rounds {
            seconds[0].push(time(&job, bare));
            seconds[1].push(time(&job, relay));
        }
        let [bare, relay] = seconds.map(|mut seconds| {
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2]
        });
        let rate = |seconds: f64| bytes as f64 / seconds / 1e9;
        let (bare_rate, relay_rate) = (rate(bare), rate(relay));
        writeln!(
            stdout,
            "{name}: bare loop {bare_rate:.2} GB/s, relay {relay_rate:.2} GB/s, {:.2} of its time",
            relay / bare
        )
        .unwrap();
    }
}

/// `share`, `round_robin`, `copy`, `by_field`, `bare_share`, `bare_copy` or `bare_merge`, how many processes, and their command.
fn stand_alone(kind: &str, arguments: &[String]) {
    let [count, program, more @ ..] = arguments else {
        panic!("usage: relay_bare KIND COUNT COMMAND..");
    };
    let count: usize = count.parse().unwrap();
    let deliver = match kind {
        "share" | "bare_share" => Deliver::Share,
        "round_robin" => Deliver::RoundRobin,
        "copy" | "bare_copy" | "bare_merge" => Deliver::Copy,
        "by_field" => Deliver::ByField {
            field: 1,
            separator: None,
        },
        other => panic!("no such way to carry: {other}"),
    };
    let is_merge = kind == "bare_merge";
    let (mut children, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (read, write) = pipe();
        let mut command = Command::new(program);
        command.args(more);
        let (theirs, ours) = if is_merge {
            (command.stdin(Stdio::null()).stdout(write), read)
        } else {
            (command.stdin(read).stdout(Stdio::null()), write)
        };
        children.push(theirs.spawn().unwrap());
        ends.push(ours);
    }
    let here = if is_merge {
        std::io::stdout().as_fd().try_clone_to_owned().unwrap()
    } else {
        std::io::stdin().as_fd().try_clone_to_owned().unwrap()
    };
    // As a queue has it.
    let _ = fcntl(&here, FcntlArg::F_SETPIPE_SZ(PIPE));
    let (inputs, outputs) = if is_merge {
        (ends, vec![here])
    } else {
        (vec![here], ends)
    };
    let way: Way = match kind {
        "bare_share" => bare_share,
        "bare_copy" => bare_copy,
        "bare_merge" => bare_merge,
        _ => relay,
    };
    let job = Job {
        bytes: 0,
        inputs: inputs.len(),
        outputs: outputs.len(),
        line: 0,
        deliver,
    };
    way(inputs, outputs, &job);
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let ends = pipe2(OFlag::O_CLOEXEC).unwrap();
    fcntl(&ends.0, FcntlArg::F_SETPIPE_SZ(PIPE)).unwrap();
    ends
}

/// Seconds until the readers have all.
fn time(job: &Job, carry: Way) -> f64 {
    let pipes = |count| {
        (0..count)
            .map(|_| pipe())
            .unzip::<_, _, Vec<OwnedFd>, Vec<OwnedFd>>()
    };
    let (reads, writers) = pipes(job.inputs);
    let (readers, writes) = pipes(job.outputs);
    let begin = Instant::now();
    thread::scope(|scope| {
        for writer in writers {
            let bytes = job.bytes / job.inputs as u64;
            scope.spawn(move || write_lines(writer.into(), bytes, job.line));
        }
        for reader in readers {
            scope.spawn(move || read_all(reader.into()));
        }
        carry(reads, writes, job);
    });
    begin.elapsed().as_secs_f64()
}

fn write_lines(mut end: File, bytes: u64, line: usize) {
    let mut block = [&vec![b'x'; line - 1][..], b"\n"]
        .concat()
        .repeat(BLOCK / line + 1);
    block.truncate(BLOCK / line * line);
    for _ in 0..bytes / block.len() as u64 {
        end.write_all(&block).unwrap();
    }
}

fn read_all(mut end: File) {
    let mut block = vec![0; BLOCK];
    while end.read(&mut block).unwrap() > 0 {}
}

fn relay(inputs: Vec<OwnedFd>, outputs: Vec<OwnedFd>, job: &Job) {
    let (sender, _receiver) = mpsc::channel();
    let wake = Arc::new(EventFd::new().unwrap().into());
    let spec = RelaySpec {
        name: "q".into(),
        inputs: inputs
            .into_iter()
            .map(|fd| RelayInput {
                fd,
                fate: Arc::new(Fate::default()),
            })
            .collect(),
        outputs: outputs
            .into_iter()
            .map(|fd| RelayOutput { fd, spill: None })
            .collect(),
        records: Records::Lines,
        max_record: None,
        merge: Merge::Arrive,
        on_writer_failure: OnWriterFailure::Cancel,
        capacity: 256 * 1024,
        deliver: job.deliver.clone(),
        header: 0,
        batch: None,
        max_records: None,
        feedback: false,
        overflow: Overflow::Block,
        tap: None,
    };
    start(
        spec,
        RelayEvents {
            id: 0,
            sender,
            wake,
        },
    )
    .unwrap()
    .join();
}

/// Gives each reader in turn what is there, up to half a pipe, but for the last page, of which it reads the whole lines. Waits in
/// each call.
fn bare_share(mut inputs: Vec<OwnedFd>, outputs: Vec<OwnedFd>, _: &Job) {
    let mut input = File::from(inputs.remove(0));
    let mut page = [0; 4096];
    let mut begun = Vec::new();
    for output in outputs.iter().cycle() {
        let mut file = File::from(output.try_clone().unwrap());
        file.write_all(&begun).unwrap();
        let there = unread(&input);
        if there > page.len() {
            let bulk = (there - page.len()).min(BLOCK);
            let mut owed = bulk;
            while owed > 0 {
                owed -= splice(&input, None, output, None, owed, SpliceFFlags::empty()).unwrap();
            }
        }
        loop {
            let count = input.read(&mut page).unwrap();
            let end = memrchr(b'\n', &page[..count]);
            file.write_all(&page[..end.map_or(count, |at| at + 1)])
                .unwrap();
            if count == 0 {
                return;
            }
            if let Some(at) = end {
                begun = page[at + 1..count].to_vec();
                break;
            }
        }
    }
}

fn unread(pipe: &File) -> usize {
    procflow::sys::pipe::unread(pipe).unwrap()
}

/// Reads what is there, writes all of it that is whole lines, keeps the rest.
fn bare_merge(inputs: Vec<OwnedFd>, mut outputs: Vec<OwnedFd>, _: &Job) {
    let mut output = File::from(outputs.remove(0));
    let mut inputs: Vec<(File, Vec<u8>, usize)> = inputs
        .into_iter()
        .map(|fd| (fd.into(), vec![0; BLOCK], 0))
        .collect();
    while !inputs.is_empty() {
        let mut fds: Vec<PollFd> = inputs
            .iter()
            .map(|(file, ..)| PollFd::new(std::os::fd::AsFd::as_fd(file), PollFlags::POLLIN))
            .collect();
        poll(&mut fds, PollTimeout::NONE).unwrap();
        let mut ready = fds
            .iter()
            .map(|fd| fd.any() == Some(true))
            .collect::<Vec<_>>()
            .into_iter();
        inputs.retain_mut(|(file, block, held)| {
            if ready.next() != Some(true) {
                return true;
            }
            let count = file.read(&mut block[*held..]).unwrap();
            *held += count;
            if let Some(last) = memrchr(b'\n', &block[..*held]) {
                output.write_all(&block[..=last]).unwrap();
                block.copy_within(last + 1..*held, 0);
                *held -= last + 1;
            }
            count > 0
        });
    }
}

/// tee and splice, waiting in each.
fn bare_copy(mut inputs: Vec<OwnedFd>, outputs: Vec<OwnedFd>, _: &Job) {
    let input = inputs.remove(0);
    let (link_read, link_write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    fcntl(&link_write, FcntlArg::F_SETPIPE_SZ(PIPE)).unwrap();
    let flags = SpliceFFlags::empty();
    loop {
        let mut held = tee(&input, &outputs[0], 1 << 30, flags).unwrap();
        if held == 0 {
            return;
        }
        let mut owed = held;
        while owed > 0 {
            owed -= splice(&input, None, &link_write, None, owed, flags).unwrap();
        }
        while held > 0 {
            let mut owed = tee(&link_read, &outputs[1], held, flags).unwrap();
            held -= owed;
            while owed > 0 {
                owed -= splice(&link_read, None, &outputs[2], None, owed, flags).unwrap();
            }
        }
    }
}
