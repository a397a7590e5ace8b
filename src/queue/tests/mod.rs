//! Relays with real pipes and real threads, compared with a model. Nothing waits for time; a watchdog ends what hangs.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod deal;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::pipe2;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::plan::{Deliver, Overflow};
use crate::queue::model::{missing, split};
use crate::queue::{
    Fate, RelayEvent, RelayEvents, RelayHandle, RelayInput, RelayOutput, RelaySpec, TapPrinter,
    WriterState, start,
};
use crate::spec::{Merge, OnWriterFailure, Records};

/// Nothing here takes a second; what takes so long hangs.
const HANGS: Duration = Duration::from_secs(60);

fn pipe(size: i32) -> (OwnedFd, OwnedFd) {
    let ends = pipe2(OFlag::O_CLOEXEC).unwrap();
    fcntl(&ends.0, FcntlArg::F_SETPIPE_SZ(size)).unwrap();
    ends
}

fn events() -> (RelayEvents, mpsc::Receiver<(u64, RelayEvent)>, Arc<OwnedFd>) {
    let wake: Arc<OwnedFd> = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap().into());
    let (sender, receiver) = mpsc::channel();
    (
        RelayEvents {
            id: 7,
            sender,
            wake: Arc::clone(&wake),
        },
        receiver,
        wake,
    )
}

fn next(events: &mpsc::Receiver<(u64, RelayEvent)>) -> RelayEvent {
    let (id, event) = events.recv_timeout(HANGS).unwrap();
    assert_eq!(id, 7);
    event
}

/// A relay, with the other ends of its pipes.
struct Rig {
    writers: Vec<File>,
    fates: Vec<Arc<Fate>>,
    readers: Vec<File>,
    relay: RelayHandle,
    events: mpsc::Receiver<(u64, RelayEvent)>,
    _wake: Arc<OwnedFd>,
}

#[derive(Debug, Clone)]
struct Shape {
    inputs: usize,
    outputs: usize,
    records: Records,
    max_record: Option<u64>,
    merge: Merge,
    on_writer_failure: OnWriterFailure,
    capacity: usize,
    pipe: i32,
    deliver: Deliver,
    header: u32,
    batch: Option<u32>,
    max_records: Option<u64>,
    overflow: Overflow,
    tap: Option<TapPrinter>,
    /// The only input.
    file: Option<Arc<File>>,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            inputs: 1,
            outputs: 1,
            records: Records::Lines,
            max_record: None,
            merge: Merge::Arrive,
            on_writer_failure: OnWriterFailure::Cancel,
            capacity: 256 * 1024,
            pipe: 4096,
            deliver: Deliver::Copy,
            header: 0,
            batch: None,
            max_records: None,
            overflow: Overflow::Block,
            tap: None,
            file: None,
        }
    }
}

impl Shape {
    fn build(&self, spill: Option<&Path>) -> Rig {
        let (reads, writers): (Vec<_>, Vec<_>) = (0..self.inputs).map(|_| pipe(self.pipe)).unzip();
        let (reads, writers) = match &self.file {
            Some(file) => (vec![file.try_clone().unwrap().into()], Vec::new()),
            None => (reads, writers),
        };
        let (readers, writes): (Vec<_>, Vec<_>) =
            (0..self.outputs).map(|_| pipe(self.pipe)).unzip();
        let fates: Vec<Arc<Fate>> = reads.iter().map(|_| Arc::default()).collect();
        let (relay_events, events, wake) = events();
        let input = |(fd, fate): (OwnedFd, &Arc<Fate>)| RelayInput {
            fd,
            fate: Arc::clone(fate),
        };
        let spec = RelaySpec {
            name: "q".into(),
            inputs: reads.into_iter().zip(&fates).map(input).collect(),
            outputs: writes
                .into_iter()
                .map(|fd| RelayOutput {
                    fd,
                    spill: spill.map(Path::to_owned),
                })
                .collect(),
            records: self.records.clone(),
            max_record: self.max_record,
            merge: self.merge,
            on_writer_failure: self.on_writer_failure,
            capacity: self.capacity,
            deliver: self.deliver.clone(),
            header: self.header,
            batch: self.batch,
            max_records: self.max_records,
            feedback: false,
            tap: self.tap.clone(),
            overflow: if spill.is_some() {
                Overflow::Spill
            } else {
                self.overflow
            },
        };
        let relay = start(spec, relay_events).unwrap();
        let files = |fds: Vec<OwnedFd>| fds.into_iter().map(File::from).collect();
        Rig {
            writers: files(writers),
            fates,
            readers: files(readers),
            relay,
            events,
            _wake: wake,
        }
    }
}

/// Writes all, in these pieces, or until nobody reads any more.
fn write_pieces(mut end: File, data: &[u8], pieces: &[usize]) {
    let mut rest = data;
    for piece in pieces.iter().copied().chain(std::iter::repeat(usize::MAX)) {
        let (piece, behind) = rest.split_at(piece.min(rest.len()));
        rest = behind;
        match end.write_all(piece) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return,
            result => result.unwrap(),
        }
        if rest.is_empty() {
            return;
        }
    }
}

/// Reads to the end, or so many bytes and leaves.
fn read_up_to(end: File, most: Option<u64>) -> Vec<u8> {
    let mut data = Vec::new();
    end.take(most.unwrap_or(u64::MAX))
        .read_to_end(&mut data)
        .unwrap();
    data
}

fn cut(records: &Records, data: &[u8]) -> Vec<Vec<u8>> {
    let mut begin = 0;
    let mut cut = |end| data[std::mem::replace(&mut begin, end)..end].to_vec();
    split(records, data)
        .all_ends
        .into_iter()
        .map(&mut cut)
        .collect()
}

/// Whether `output` is what a merge of `inputs` may be: each record whole, once, and in its writer's order; terminators
/// added where they lack and something follows.
fn is_merge(records: &Records, inputs: &[Vec<u8>], output: &[u8]) -> bool {
    let inputs: Vec<Vec<Vec<u8>>> = inputs.iter().map(|data| cut(records, data)).collect();
    if inputs
        .iter()
        .map(|input| input.len() + 1)
        .product::<usize>()
        > 2000
    {
        // Too many ways to try: at least nothing is torn, lost or doubled.
        let whole = |mut record: Vec<u8>| {
            if split(records, &record).ends.is_empty() {
                record.extend(missing(records, &record));
            }
            record
        };
        let mut expected: Vec<Vec<u8>> = inputs.into_iter().flatten().map(whole).collect();
        let mut found: Vec<Vec<u8>> = cut(records, output).into_iter().map(whole).collect();
        expected.sort_unstable();
        found.sort_unstable();
        return expected == found;
    }
    // Equal records of several writers: each that it may have been.
    let mut places = BTreeSet::from([(vec![0; inputs.len()], 0)]);
    let total: usize = inputs.iter().map(Vec::len).sum();
    for done in 0..total {
        let mut next = BTreeSet::new();
        for (place, at) in &places {
            for (writer, input) in inputs.iter().enumerate() {
                let Some(record) = input.get(place[writer]) else {
                    continue;
                };
                let mut text = record.clone();
                if place[writer] + 1 == input.len()
                    && done + 1 < total
                    && split(records, record).ends.is_empty()
                {
                    text.extend(missing(records, record));
                }
                if output[*at..].starts_with(&text) {
                    let mut place = place.clone();
                    place[writer] += 1;
                    next.insert((place, at + text.len()));
                }
            }
        }
        places = next;
    }
    places.iter().any(|(_, at)| *at == output.len())
}

fn in_sequence(records: &Records, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut lacks = Vec::new();
    for input in inputs.iter().filter(|input| !input.is_empty()) {
        all.append(&mut lacks);
        all.extend_from_slice(input);
        let begin = split(records, input).ends.last().copied().unwrap_or(0);
        if begin < input.len() {
            lacks = missing(records, &input[begin..]);
        }
    }
    all
}

fn framings() -> impl Strategy<Value = Records> {
    prop_oneof![
        3 => Just(Records::Lines),
        1 => Just(Records::Nul),
        1 => Just(Records::Length32),
        1 => (1..2000u32).prop_map(Records::Size),
        2 => "[\n>a]{1,3}".prop_map(Records::Separator),
        2 => ">a?".prop_map(Records::Start),
        1 => Just(Records::Bytes),
    ]
}

/// Bytes of one writer that are records to their end: some long, most short, with much of what framings look for.
fn writes(records: Records) -> impl Strategy<Value = Vec<u8>> {
    let long = (any::<u8>(), 0..70_000usize).prop_map(|(byte, size)| vec![byte; size]);
    let short = vec(
        prop_oneof![
            Just(b'\n'),
            Just(0),
            Just(b'>'),
            Just(b'a'),
            Just(b'b'),
            any::<u8>()
        ],
        0..40,
    );
    vec(prop_oneof![1 => long, 12 => short], 0..12).prop_map(move |pieces| {
        let mut data = Vec::new();
        for piece in pieces {
            if records == Records::Length32 {
                data.extend_from_slice(&(piece.len() as u32).to_be_bytes());
            }
            data.extend(piece);
        }
        match &records {
            Records::Size(size) => data.truncate(data.len() / *size as usize * *size as usize),
            // What stands before the first start would be one record with the end of another writer's.
            Records::Start(start) if !data.is_empty() => drop(data.splice(0..0, start.bytes())),
            _ => {}
        }
        data
    })
}

#[derive(Debug, Clone)]
struct Case {
    shape: Shape,
    inputs: Vec<(Vec<u8>, Vec<usize>)>,
    /// For each output: how much its reader reads.
    leaves: Vec<Option<u64>>,
    spill: bool,
    /// A reader begins when the one before has ended; without a spill that could not work.
    one_by_one: bool,
}

fn cases(inputs: Range<usize>) -> impl Strategy<Value = Case> {
    let input = |records| (writes(records), vec(1..9000usize, 0..12));
    let leave = prop_oneof![3 => Just(None), 1 => (0..100_000u64).prop_map(Some)];
    (framings(), inputs, 1..5usize).prop_flat_map(move |(records, inputs, outputs)| {
        (
            vec(input(records.clone()), inputs),
            vec(leave.clone(), outputs),
            prop_oneof![Just(Merge::Arrive), Just(Merge::Sequence)],
            prop_oneof![Just(OnWriterFailure::Cancel), Just(OnWriterFailure::Close)],
            prop_oneof![Just(0), Just(10), Just(5000), Just(300_000)],
            prop_oneof![Just(4096), Just(65536)],
            any::<(bool, bool)>(),
        )
            .prop_map(
                move |(
                    inputs,
                    leaves,
                    merge,
                    on_writer_failure,
                    capacity,
                    pipe,
                    (spill, one_by_one),
                )| Case {
                    shape: Shape {
                        inputs: inputs.len(),
                        outputs: leaves.len(),
                        records: records.clone(),
                        merge,
                        on_writer_failure,
                        capacity,
                        pipe,
                        ..Shape::default()
                    },
                    inputs,
                    leaves,
                    spill,
                    one_by_one: spill && one_by_one,
                },
            )
    })
}

/// Runs a case; returns what each reader has read.
fn run(case: &Case) -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let rig = case.shape.build(case.spill.then(|| dir.path()));
    let outputs: Vec<Vec<u8>> = thread::scope(|scope| {
        for (writer, (data, pieces)) in rig.writers.into_iter().zip(&case.inputs) {
            scope.spawn(move || write_pieces(writer, data, pieces));
        }
        let readers = rig.readers.into_iter().zip(&case.leaves);
        if case.one_by_one {
            return readers
                .map(|(reader, most)| read_up_to(reader, *most))
                .collect();
        }
        let readers: Vec<_> = readers
            .map(|(reader, most)| scope.spawn(move || read_up_to(reader, *most)))
            .collect();
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect()
    });
    assert_eq!(next(&rig.events), RelayEvent::Ended);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let counts = rig.relay.counts();
    if case.leaves.contains(&None) {
        let bytes: Vec<u64> = counts.inputs.iter().map(|count| count.bytes).collect();
        assert_eq!(
            bytes,
            case.inputs
                .iter()
                .map(|(data, _)| data.len() as u64)
                .collect::<Vec<_>>()
        );
    }
    for ((count, output), most) in counts.outputs.iter().zip(&outputs).zip(&case.leaves) {
        if most.is_none() {
            assert_eq!(count.bytes, output.len() as u64);
            if let Some(records) = count.records
                && case.shape.records != Records::Bytes
                && !counts.is_estimate
            {
                assert_eq!(
                    records,
                    case.inputs
                        .iter()
                        .map(|(data, _)| cut(&case.shape.records, data).len() as u64)
                        .sum::<u64>()
                );
            }
        }
    }
    rig.relay.join();
    outputs
}

/// The number of records of a copy through pipes, which nobody reads: exact while it is little, then an estimate.
#[test]
fn records_that_go_by_unseen_are_estimated() {
    for (lines, exact) in [(40_000, true), (400_000, false)] {
        let shape = Shape {
            outputs: 2,
            ..Shape::default()
        };
        let rig = shape.build(None);
        let mut writer = rig.writers.into_iter().next().unwrap();
        // The last lacks its terminator.
        let mut data = b"a line of few words\n".repeat(lines);
        data.pop();
        let readers: Vec<_> = rig
            .readers
            .into_iter()
            .map(|mut reader| {
                thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()))
            })
            .collect();
        writer.write_all(&data).unwrap();
        drop(writer);
        for reader in readers {
            assert_eq!(reader.join().unwrap().unwrap(), data.len() as u64);
        }
        assert_eq!(next(&rig.events), RelayEvent::Ended);
        let counts = rig.relay.counts();
        let records: Vec<u64> = counts
            .inputs
            .iter()
            .chain(&counts.outputs)
            .flat_map(|count| count.records)
            .collect();
        assert_eq!((counts.is_estimate, records.len()), (!exact, 3));
        let slack = if exact { 0 } else { lines as u64 / 100 };
        for records in records {
            assert!(
                records.abs_diff(lines as u64) <= slack,
                "{records} of {lines}"
            );
        }
        rig.relay.join();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_torn_lost_doubled_or_reordered(case in cases(1..6)) {
        check(&case)?;
    }

    /// One writer's bytes go other ways (tee, or without a look at records).
    #[test]
    fn a_copy_of_one_writer_is_the_same(case in cases(1..2)) {
        check(&case)?;
    }
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let outputs = run(case);
    let inputs: Vec<Vec<u8>> = case.inputs.iter().map(|(data, _)| data.clone()).collect();
    let records = &case.shape.records;
    let whole = outputs
        .iter()
        .zip(&case.leaves)
        .find(|(_, most)| most.is_none())
        .map(|(output, _)| output);
    let model = match (case.shape.merge, whole) {
        (Merge::Sequence, _) => Some(in_sequence(records, &inputs)),
        (Merge::Arrive, whole) => whole.cloned(),
    };
    if case.shape.merge == Merge::Arrive
        && *records != Records::Bytes
        && let Some(whole) = whole
    {
        prop_assert!(is_merge(records, &inputs, whole), "{whole:?}");
    }
    if let Some(model) = model {
        for (output, most) in outputs.iter().zip(&case.leaves) {
            let most = most.map_or(model.len(), |most| {
                model.len().min(usize::try_from(most).unwrap())
            });
            prop_assert!(output == &model[..most]);
        }
    }
    Ok(())
}

#[test]
fn a_torn_record_is_dropped_where_the_data_ends_all_the_same() {
    let shape = Shape {
        inputs: 2,
        on_writer_failure: OnWriterFailure::Close,
        ..Shape::default()
    };
    let mut rig = shape.build(None);
    rig.writers[0].write_all(b"one\ntw").unwrap();
    rig.fates[0].set(WriterState::Torn);
    rig.writers.remove(0);
    assert_eq!(rig.relay.counts().outputs.len(), 1);
    let mut first = [0; 4];
    rig.readers[0].read_exact(&mut first).unwrap();
    rig.writers[0].write_all(b"three").unwrap();
    rig.writers.clear();
    let mut rest = String::new();
    rig.readers[0].read_to_string(&mut rest).unwrap();
    assert_eq!((&first, rest.as_str()), (b"one\n", "three"));
    assert_eq!(next(&rig.events), RelayEvent::Ended);
}

/// The pipe of a writer whose process has ended is still held open, as the loop holds it: what is in it is settled without
/// an end of data, and that comes when the writer counts as ended, whoever still holds the pipe.
#[test]
fn what_a_writer_left_is_settled_before_its_end() {
    for inputs in [1, 2] {
        for outputs in [1, 2] {
            let shape = Shape {
                inputs,
                outputs,
                ..Shape::default()
            };
            let mut rig = shape.build(None);
            rig.writers[0].write_all(b"one\ntwo").unwrap();
            rig.fates[0].set(WriterState::Exited);
            rig.relay.look();
            assert_eq!(next(&rig.events), RelayEvent::Settled { input: 0 });
            rig.fates
                .iter()
                .for_each(|fate| fate.set(WriterState::Ended));
            rig.relay.look();
            for reader in &mut rig.readers {
                let mut all = String::new();
                reader.read_to_string(&mut all).unwrap();
                assert_eq!(all, "one\ntwo", "{inputs} to {outputs}");
            }
            assert_eq!(next(&rig.events), RelayEvent::Ended);
        }
    }
}

/// What is cut off at a writer's exit is its fault before it can count as succeeded. Forgiven, its data has ended.
#[test]
fn a_record_cut_off_is_known_before_the_writers_end() {
    let shape = Shape {
        inputs: 2,
        records: Records::Size(4),
        ..Shape::default()
    };
    let mut rig = shape.build(None);
    rig.writers[0].write_all(b"wholepart").unwrap();
    rig.fates[0].set(WriterState::Exited);
    rig.relay.look();
    let why = "the last record of queue `q` is cut off after 1 bytes of it, 8 bytes into the data"
        .to_owned();
    assert_eq!(next(&rig.events), RelayEvent::Fault { input: 0, why });
    rig.fates
        .iter()
        .for_each(|fate| fate.set(WriterState::Ended));
    rig.relay.look();
    let mut all = String::new();
    rig.readers[0].read_to_string(&mut all).unwrap();
    assert_eq!(all, "wholepar");
    assert_eq!(next(&rig.events), RelayEvent::Ended);
}

#[test]
fn a_record_too_long_is_its_writers_fault() {
    for on_writer_failure in [OnWriterFailure::Cancel, OnWriterFailure::Close] {
        let shape = Shape {
            inputs: 2,
            max_record: Some(1024),
            on_writer_failure,
            ..Shape::default()
        };
        let mut rig = shape.build(None);
        rig.writers[0].write_all(b"fine\n").unwrap();
        let mut fine = [0; 5];
        rig.readers[0].read_exact(&mut fine).unwrap();
        rig.writers[0].write_all(&[b'x'; 1025]).unwrap();
        let why =
            "a record of queue `q` is longer than max_record (1 KiB), after 5 bytes".to_owned();
        assert_eq!(next(&rig.events), RelayEvent::Fault { input: 0, why });
        // It is no end of data, neither for the other writer's records ...
        rig.writers[1].write_all(b"other\n").unwrap();
        let mut other = [0; 6];
        rig.readers[0].read_exact(&mut other).unwrap();
        assert_eq!((&fine, &other), (b"fine\n", b"other\n"));
        // ... nor, unless that is wanted, when both have gone.
        rig.writers.clear();
        if on_writer_failure == OnWriterFailure::Close {
            assert_eq!(next(&rig.events), RelayEvent::Ended);
            assert_eq!(rig.readers[0].read(&mut other).unwrap(), 0);
        } else {
            rig.relay.stop();
            rig.relay.join();
            assert_eq!(rig.events.try_recv(), Err(mpsc::TryRecvError::Disconnected));
        }
    }
}

#[test]
fn an_end_within_a_record_of_known_length_is_a_fault() {
    for on_writer_failure in [OnWriterFailure::Cancel, OnWriterFailure::Close] {
        let shape = Shape {
            records: Records::Size(4),
            on_writer_failure,
            ..Shape::default()
        };
        let mut rig = shape.build(None);
        rig.writers[0].write_all(b"onlyha").unwrap();
        rig.writers.clear();
        let why =
            "the last record of queue `q` is cut off after 2 bytes of it, 4 bytes into the data"
                .to_owned();
        assert_eq!(next(&rig.events), RelayEvent::Fault { input: 0, why });
        let mut only = [0; 4];
        rig.readers[0].read_exact(&mut only).unwrap();
        assert_eq!(&only, b"only");
        if on_writer_failure == OnWriterFailure::Close {
            assert_eq!(next(&rig.events), RelayEvent::Ended);
            assert_eq!(rig.readers[0].read(&mut only).unwrap(), 0);
        }
    }
}

/// A pipe can always be read. A file is who names it to blame for, and no reason to end the run.
#[test]
fn a_file_that_cannot_be_read_is_a_fault() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "one\n").unwrap();
    let file = File::options().write(true).open(&file).unwrap();
    let shape = Shape {
        file: Some(Arc::new(file)),
        ..Shape::default()
    };
    let rig = shape.build(None);
    let why = "can't read the file of queue `q`: Bad file descriptor (os error 9)".to_owned();
    assert_eq!(next(&rig.events), RelayEvent::Fault { input: 0, why });
}

/// Where a queue must not block its writers it doesn't, not even those whose turn hasn't come.
#[test]
fn a_sequence_that_spills_holds_up_no_writer() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Shape {
        inputs: 3,
        merge: Merge::Sequence,
        capacity: 5000,
        ..Shape::default()
    }
    .build(Some(dir.path()));
    let first = rig.writers.remove(0);
    let text = |name: &str| name.repeat(50_000);
    for name in ["two\n", "three\n"] {
        write_pieces(rig.writers.remove(0), text(name).as_bytes(), &[]);
    }
    write_pieces(first, text("one\n").as_bytes(), &[]);
    let output = read_up_to(rig.readers.remove(0), None);
    assert!(output == ["one\n", "two\n", "three\n"].map(text).concat().as_bytes());
    assert_eq!(next(&rig.events), RelayEvent::Ended);
}

/// A writer that never ends and a reader that never reads: what has been taken in is bounded, and stopping works then.
#[test]
fn a_stuck_reader_bounds_what_is_held_and_does_not_hold_up_a_stop() {
    for (outputs, capacity) in [(1, 0), (1, 100_000), (3, 100_000)] {
        let mut rig = Shape {
            inputs: 2,
            outputs,
            capacity,
            ..Shape::default()
        }
        .build(None);
        // All but the first read on: the stuck one holds them back.
        let stuck = rig.readers.remove(0);
        thread::scope(|scope| {
            for reader in rig.readers.drain(..) {
                scope.spawn(move || read_up_to(reader, None));
            }
            let writers: Vec<_> = rig
                .writers
                .drain(..)
                .map(|writer| {
                    scope.spawn(move || write_pieces(writer, &b"line\n".repeat(1_000_000), &[]))
                })
                .collect();
            let taken = || {
                rig.relay
                    .counts()
                    .inputs
                    .iter()
                    .map(|count| count.bytes)
                    .sum::<u64>()
            };
            let least = capacity.max(4096) as u64;
            while taken() < least {
                thread::yield_now();
            }
            // It could take much more now, if it did.
            (0..10_000).for_each(|_| thread::yield_now());
            rig.relay.stop();
            while !rig.relay.is_finished() {
                thread::yield_now();
            }
            let taken = taken();
            let blocks = 2 * crate::queue::BLOCK as u64;
            assert!(
                taken <= least + blocks,
                "{taken} bytes for a capacity of {capacity}"
            );
            for writer in writers {
                writer.join().unwrap();
            }
        });
        drop(stuck);
    }
}

/// What has no room on disk is said, with the place, and no reader takes it for the end of data.
#[test]
fn a_spill_that_cannot_be_written_breaks_the_run() {
    let gone = tempfile::tempdir().unwrap().path().to_owned();
    let mut rig = Shape {
        capacity: 1,
        ..Shape::default()
    }
    .build(Some(&gone));
    write_pieces(rig.writers.remove(0), &[b'\n'; 10_000], &[]);
    let RelayEvent::Broken(why) = next(&rig.events) else {
        panic!("not broken")
    };
    let place = format!(
        "can't make a spill file of queue `q` in {}: No such file or directory",
        gone.display()
    );
    assert!(why.starts_with(&place), "{why}");
    assert!(!rig.relay.is_finished());
    rig.relay.stop();
    rig.relay.join();
}

/// Standard output is shared with whoever started procflow: its flags stay as they are, and a full pipe is waited for.
#[test]
fn a_shared_output_keeps_its_flags() {
    let (read, write) = pipe(4096);
    let ours = write.try_clone().unwrap();
    let (input, writer) = pipe(65536);
    let (relay_events, events, _wake) = events();
    let spec = RelaySpec {
        name: "q".into(),
        inputs: vec![RelayInput {
            fd: input,
            fate: Arc::default(),
        }],
        outputs: vec![RelayOutput {
            fd: write,
            spill: None,
        }],
        records: Records::Lines,
        max_record: Some(1 << 20),
        merge: Merge::Arrive,
        on_writer_failure: OnWriterFailure::Cancel,
        capacity: 0,
        deliver: Deliver::Copy,
        header: 0,
        batch: None,
        max_records: None,
        feedback: false,
        overflow: Overflow::Block,
        tap: None,
    };
    let relay = start(spec, relay_events).unwrap();
    assert_eq!(
        fcntl(&ours, FcntlArg::F_GETFL).unwrap() & OFlag::O_NONBLOCK.bits(),
        0
    );
    drop(ours);
    let data = b"many a line\n".repeat(10_000);
    let found = thread::scope(|scope| {
        scope.spawn(|| write_pieces(writer.into(), &data, &[]));
        read_up_to(read.into(), None)
    });
    assert!(found == data);
    assert_eq!(next(&events), RelayEvent::Ended);
    relay.join();
}

/// When the last reader has gone the writer hears of it at its next write, as with a plain pipe.
#[test]
fn a_writer_without_readers_gets_a_broken_pipe() {
    let mut rig = Shape {
        outputs: 2,
        ..Shape::default()
    }
    .build(None);
    rig.readers.clear();
    assert_eq!(next(&rig.events), RelayEvent::Ended);
    let error = rig.writers[0].write_all(b"x\n").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

/// Copies by tee where each output takes other amounts at other times, and one leaves on the way.
#[test]
fn a_copy_to_readers_of_any_pace_is_the_same() {
    let mut random = fastrand::Rng::with_seed(2);
    for outputs in 2..5 {
        for leaver in 0..=outputs {
            let rig = Shape {
                outputs,
                pipe: 65536,
                ..Shape::default()
            }
            .build(None);
            let data: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
                .take(400_000)
                .collect();
            let pieces: Vec<usize> = (0..200).map(|_| random.usize(1..3000)).collect();
            let readers: Vec<(File, usize)> = rig
                .readers
                .into_iter()
                .enumerate()
                .map(|(at, reader)| {
                    // Wide and narrow ones in turn: what one takes at once the next takes in parts.
                    fcntl(
                        &reader,
                        FcntlArg::F_SETPIPE_SZ([65536, 4096][(at + outputs) % 2]),
                    )
                    .unwrap();
                    (reader, random.usize(1..9000))
                })
                .collect();
            thread::scope(|scope| {
                scope.spawn(|| {
                    write_pieces(rig.writers.into_iter().next().unwrap(), &data, &pieces)
                });
                for (at, (mut reader, step)) in readers.into_iter().enumerate() {
                    let data = &data;
                    scope.spawn(move || {
                        let mut found = Vec::new();
                        let most = if at == leaver { 100_000 } else { usize::MAX };
                        while found.len() < most {
                            let begin = found.len();
                            found.resize(begin + step, 0);
                            let count = reader.read(&mut found[begin..]).unwrap();
                            found.truncate(begin + count);
                            if count == 0 {
                                break;
                            }
                        }
                        let whole = if at == leaver {
                            found.len()
                        } else {
                            data.len()
                        };
                        assert!(found == data[..whole], "reader {at} of {outputs}");
                    });
                }
            });
            assert_eq!(next(&rig.events), RelayEvent::Ended);
            let counts = rig.relay.counts();
            assert_eq!(counts.inputs[0].bytes, data.len() as u64);
        }
    }
}
