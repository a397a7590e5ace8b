//! How fast queues that procflow carries are, beside a loop that does nothing but the same job: whole lines of four writers
//! merged into one pipe, and one pipe copied to three.
//!
//! `cargo bench --bench relay_bare -- [GIB [ROUNDS]]`. The ways take turns, so that a machine's mood meets all of them; printed are the
//! medians. Writers and readers are threads that do as little as they can: write a block of 100-byte lines, read and forget.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a measurement that can't go on fails"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
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

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse::<u64>().ok());
    let bytes = arguments.next().unwrap_or(4) << 30;
    let rounds = arguments.next().unwrap_or(5);
    let mut stdout = std::io::stdout();
    for (job, inputs, outputs, bare) in [
        (
            "four writers' lines merged",
            4,
            1,
            bare_merge as fn(Vec<OwnedFd>, Vec<OwnedFd>),
        ),
        ("copied to three readers", 1, 3, bare_copy),
    ] {
        let mut seconds: [Vec<f64>; 2] = Default::default();
        for _ in 0..rounds {
            seconds[0].push(time(bytes, inputs, outputs, bare));
            seconds[1].push(time(bytes, inputs, outputs, relay));
        }
        let [bare, relay] = seconds.map(|mut seconds| {
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2]
        });
        let rate = |seconds: f64| bytes as f64 / seconds / 1e9;
        let (bare_rate, relay_rate) = (rate(bare), rate(relay));
        writeln!(
            stdout,
            "{job}: bare loop {bare_rate:.2} GB/s, relay {relay_rate:.2} GB/s, {:.2} of its time",
            relay / bare
        )
        .unwrap();
    }
}

/// Seconds until the readers have all.
fn time(bytes: u64, inputs: usize, outputs: usize, carry: fn(Vec<OwnedFd>, Vec<OwnedFd>)) -> f64 {
    let pipes = |count| {
        let pipe = |_| {
            let ends = pipe2(OFlag::O_CLOEXEC).unwrap();
            fcntl(&ends.0, FcntlArg::F_SETPIPE_SZ(PIPE)).unwrap();
            ends
        };
        (0..count)
            .map(pipe)
            .unzip::<_, _, Vec<OwnedFd>, Vec<OwnedFd>>()
    };
    let (reads, writers) = pipes(inputs);
    let (readers, writes) = pipes(outputs);
    let begin = Instant::now();
    thread::scope(|scope| {
        for writer in writers {
            scope.spawn(move || write_lines(writer.into(), bytes / inputs as u64));
        }
        for reader in readers {
            scope.spawn(move || read_all(reader.into()));
        }
        carry(reads, writes);
    });
    begin.elapsed().as_secs_f64()
}

fn write_lines(mut end: File, bytes: u64) {
    let mut block = [[b'x'; 99].as_slice(), b"\n"]
        .concat()
        .repeat(BLOCK / 100 + 1);
    block.truncate(BLOCK / 100 * 100);
    for _ in 0..bytes / block.len() as u64 {
        end.write_all(&block).unwrap();
    }
}

fn read_all(mut end: File) {
    let mut block = vec![0; BLOCK];
    while end.read(&mut block).unwrap() > 0 {}
}

fn relay(inputs: Vec<OwnedFd>, outputs: Vec<OwnedFd>) {
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
        deliver: Deliver::Copy,
        header: 0,
        batch: None,
        max_records: None,
        overflow: Overflow::Block,
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

/// Reads what is there, writes all of it that is whole lines, keeps the rest.
fn bare_merge(inputs: Vec<OwnedFd>, mut outputs: Vec<OwnedFd>) {
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
fn bare_copy(mut inputs: Vec<OwnedFd>, outputs: Vec<OwnedFd>) {
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
