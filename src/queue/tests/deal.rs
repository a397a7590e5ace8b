//! Records dealt out: shared, in turn, by a key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::sync::{Arc, Barrier};
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::plan::{Deliver, Overflow};
use crate::queue::RelayEvent;
use crate::queue::model::deal;
use crate::queue::tests::{Shape, cut, in_sequence, next, read_up_to, write_pieces};
use crate::spec::{Merge, Records};

/// Each record says whose it is and its number, so that it can be found again.
fn record(records: &Records, writer: usize, number: usize, key: u8, fill: usize) -> Vec<u8> {
    let mut body = format!("{key} {writer} {number} ").into_bytes();
    body.resize(body.len() + fill, b'x');
    match records {
        Records::Lines => body.push(b'\n'),
        Records::Nul => body.push(0),
        Records::Separator(separator) => body.extend(separator.bytes()),
        Records::Start(start) => {
            body.splice(0..0, start.bytes());
            body.push(b'\n');
        }
        Records::Length32 => drop(body.splice(0..0, (body.len() as u32).to_be_bytes())),
        Records::Size(size) => body.resize(*size as usize, b'x'),
        Records::Bytes => {}
    }
    body
}

/// What `record` says of itself: writer and number.
fn told(records: &Records, record: &[u8]) -> (usize, usize) {
    let text = match records {
        Records::Length32 => &record[4..],
        Records::Start(start) => &record[start.len()..],
        _ => record,
    };
    let text = String::from_utf8_lossy(text);
    let mut words = text.split(' ').skip(1).map(|word| word.parse().unwrap());
    (words.next().unwrap(), words.next().unwrap())
}

fn framings() -> impl Strategy<Value = Records> {
    prop_oneof![
        4 => Just(Records::Lines),
        1 => Just(Records::Nul),
        1 => Just(Records::Length32),
        1 => (20..3000u32).prop_map(Records::Size),
        1 => Just(Records::Separator("||".into())),
        1 => Just(Records::Separator("\n\n".into())),
        1 => Just(Records::Start(">".into())),
    ]
}

#[derive(Debug, Clone)]
struct Case {
    shape: Shape,
    inputs: Vec<Vec<u8>>,
    pieces: Vec<usize>,
    leaves: Vec<Option<u64>>,
    spill: bool,
    paces: Vec<usize>,
}

fn cases() -> impl Strategy<Value = Case> {
    let deliver = prop_oneof![
        3 => Just(Deliver::Share),
        2 => Just(Deliver::RoundRobin),
        2 => (0..3u32).prop_map(|field| Deliver::ByField { field, separator: None }),
        1 => (1..3u32).prop_map(|field| Deliver::ByField { field, separator: Some(" ".into()) }),
        1 => Just(Deliver::Copy),
    ];
    let fill = prop_oneof![60 => 0..30usize, 4 => 100..3000usize, 1 => 4000..90_000usize];
    let count = prop_oneof![0..10usize, 0..500usize];
    let writer =
        count.prop_flat_map(move |count| (vec((0..9u8, fill.clone()), count), any::<bool>()));
    let leave = prop_oneof![8 => Just(None), 1 => (0..100_000u64).prop_map(Some)];
    (
        (framings(), vec(writer, 1..5), vec(leave, 2..5)),
        (
            deliver,
            0..4u32,
            prop::option::weighted(0.2, 1..20u32),
            prop::option::weighted(0.3, 1..20u64),
            prop_oneof![
                4 => Just(Overflow::Block),
                1 => Just(Overflow::DropNewest),
                1 => Just(Overflow::DropOldest),
            ],
        ),
        prop_oneof![Just(Merge::Arrive), Just(Merge::Sequence)],
        prop_oneof![Just(0), Just(5000), Just(300_000)],
        prop_oneof![Just(4096), Just(65536)],
        (
            vec(1..9000usize, 0..12),
            prop::bool::weighted(0.2),
            vec(prop_oneof![1 => 1..50usize, 9 => 500..70_000usize], 5),
        ),
    )
        .prop_map(
            |(
                (records, writers, leaves),
                (deliver, header, batch, max_records, overflow),
                merge,
                capacity,
                pipe,
                (pieces, spill, paces),
            )| {
                let inputs: Vec<Vec<u8>> = writers
                    .into_iter()
                    .enumerate()
                    .map(|(writer, (all, is_open))| {
                        let count = all.len();
                        let all = all.into_iter().enumerate();
                        let mut data: Vec<u8> = all
                            .flat_map(|(number, (key, fill))| {
                                record(&records, writer, number, key, fill)
                            })
                            .collect();
                        if is_open && count > 0 {
                            let less = match &records {
                                Records::Lines | Records::Nul | Records::Start(_) => 1,
                                Records::Separator(separator) => separator.len(),
                                _ => 0,
                            };
                            data.truncate(data.len() - less);
                        }
                        data
                    })
                    .collect();
                Case {
                    shape: Shape {
                        inputs: inputs.len(),
                        outputs: leaves.len(),
                        records,
                        merge,
                        capacity,
                        pipe,
                        deliver,
                        header,
                        batch,
                        max_records,
                        overflow,
                        ..Shape::default()
                    },
                    inputs,
                    pieces,
                    leaves,
                    spill,
                    paces,
                }
            },
        )
}

/// Reads in pieces of up to `pace` bytes, to the end or until it has so many.
fn read_at_pace(mut reader: File, pace: usize, most: usize) -> Vec<u8> {
    let mut found = Vec::new();
    while found.len() < most {
        let begin = found.len();
        found.resize(begin + pace, 0);
        let count = reader.read(&mut found[begin..]).unwrap();
        found.truncate(begin + count);
        if count == 0 {
            break;
        }
    }
    found
}

/// Runs a case; returns what each reader has read.
fn run(case: &Case) -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let rig = case.shape.build(case.spill.then(|| dir.path()));
    let outputs: Vec<Vec<u8>> = thread::scope(|scope| {
        for (writer, data) in rig.writers.into_iter().zip(&case.inputs) {
            scope.spawn(move || write_pieces(writer, data, &case.pieces));
        }
        let readers: Vec<_> = rig
            .readers
            .into_iter()
            .zip(&case.leaves)
            .zip(&case.paces)
            .map(|((reader, most), pace)| {
                let most = most.map_or(usize::MAX, |most| most as usize);
                scope.spawn(move || read_at_pace(reader, *pace, most))
            })
            .collect();
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect()
    });
    let mut event = next(&rig.events);
    if let RelayEvent::Lost { output } = event {
        assert!(
            case.leaves[output].is_some(),
            "{output} has not left: {case:?}"
        );
        event = next(&rig.events);
    }
    assert_eq!(event, RelayEvent::Ended);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let counts = rig.relay.counts();
    assert_eq!(counts.held, 0);
    if case.leaves.iter().all(Option::is_none) {
        let all: usize = case.inputs.iter().map(Vec::len).sum();
        assert_eq!(
            counts.inputs.iter().map(|count| count.bytes).sum::<u64>(),
            all as u64
        );
        for (count, output) in counts.outputs.iter().zip(&outputs) {
            assert_eq!(count.bytes, output.len() as u64);
            if let Some(records) = count.records
                && case.shape.records != Records::Bytes
            {
                assert_eq!(records, cut(&case.shape.records, output).len() as u64);
            }
        }
        assert_eq!(counts.lost.bytes, 0);
        // A copy is dropped for each reader by itself.
        let copies = match case.shape.deliver {
            Deliver::Copy => outputs.len(),
            _ => 1,
        };
        let sent: usize = case
            .inputs
            .iter()
            .map(|data| cut(&case.shape.records, data).len())
            .sum();
        let header = sent.min(case.shape.header as usize);
        let sent = header * outputs.len() + (sent - header) * copies;
        let read: usize = outputs
            .iter()
            .map(|output| cut(&case.shape.records, output).len())
            .sum();
        assert_eq!(counts.dropped.records.unwrap_or(0), (sent - read) as u64);
    }
    rig.relay.join();
    outputs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, max_shrink_iters: 0, ..ProptestConfig::default() })]

    /// Each record whole, and at one reader, in its writer's order; those of the header at each.
    #[test]
    fn each_record_has_one_reader(case in cases()) {
        let outputs = run(&case);
        let records = &case.shape.records;
        let is_any_gone = case.leaves.iter().any(Option::is_some);
        let read: Vec<Vec<(usize, usize)>> = outputs
            .iter()
            .zip(&case.leaves)
            .filter(|(_, most)| most.is_none())
            .map(|(output, _)| cut(records, output).iter().map(|record| told(records, record)).collect())
            .collect();
        let mut places: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for list in &read {
            for writer in 0..case.inputs.len() {
                let numbers: Vec<usize> = list.iter().filter(|told| told.0 == writer).map(|told| told.1).collect();
                prop_assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
            }
            list.iter().for_each(|told| *places.entry(*told).or_default() += 1);
        }
        let all: BTreeSet<(usize, usize)> = case
            .inputs
            .iter()
            .flat_map(|input| cut(records, input))
            .map(|record| told(records, &record))
            .collect();
        let found: BTreeSet<(usize, usize)> = places.keys().copied().collect();
        prop_assert!(found.is_subset(&all));
        let header = all.len().min(case.shape.header as usize);
        let drops = matches!(case.shape.overflow, Overflow::DropNewest | Overflow::DropOldest) && !case.spill;
        let is_copy = case.shape.deliver == Deliver::Copy;
        if !is_any_gone && !drops {
            prop_assert_eq!(&found, &all);
        }
        if !is_any_gone && !is_copy {
            let shared = places.values().filter(|count| **count > 1).count();
            prop_assert_eq!(shared, header);
        }
        for list in &read {
            let header = &list[..header.min(list.len())];
            prop_assert!(read.iter().all(|other| other.starts_with(header)));
            prop_assert!(is_any_gone || header.iter().all(|told| places[told] == read.len()));
        }
        prop_assert!(is_copy || places.values().all(|count| [1, read.len()].contains(count)));
        if is_copy && !drops {
            prop_assert!(read.iter().all(|list| *list == read[0]));
        }
        // Batches are whole but for the last one.
        if let Some(batch) = case.shape.batch
            && case.shape.deliver == Deliver::Share
            && !is_any_gone
        {
            let odd = |list: &&Vec<(usize, usize)>| {
                !(list.len() - header).is_multiple_of(batch as usize)
            };
            prop_assert!(read.iter().filter(odd).count() <= 1);
        }
        // Where the order of all is known, so is who gets what.
        if case.shape.merge == Merge::Sequence && !is_any_gone && !drops {
            let whole = in_sequence(records, &case.inputs);
            let whole = cut(records, &whole);
            if let Some(model) = deal(records, &case.shape.deliver, case.shape.header, case.leaves.len(), &whole) {
                let model: Vec<Vec<(usize, usize)>> = model
                    .iter()
                    .map(|list| list.iter().map(|record| told(records, record)).collect())
                    .collect();
                prop_assert_eq!(read, model);
            }
        }
    }
}

/// Numbered lines, as many as four pipes, and what is held for them, have no room for.
fn numbered(count: usize) -> Vec<u8> {
    (0..count)
        .flat_map(|number| format!("{number:07}\n").into_bytes())
        .collect()
}

fn numbers(data: &[u8]) -> Vec<usize> {
    let text = str::from_utf8(data).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// Readers that don't read hold up nobody where records may be dropped; what they then find is whole, in order, and what was
/// not dropped.
#[test]
fn what_has_no_room_is_dropped() {
    const ALL: usize = 10_000;
    for overflow in [Overflow::DropNewest, Overflow::DropOldest] {
        for deliver in [
            Deliver::Copy,
            Deliver::Share,
            Deliver::RoundRobin,
            Deliver::ByField {
                field: 1,
                separator: None,
            },
        ] {
            for max_records in [None, Some(1), Some(50)] {
                for outputs in [1, 3] {
                    let what =
                        format!("{overflow:?}, {deliver:?}, {max_records:?}, {outputs} readers");
                    let mut rig = Shape {
                        outputs,
                        deliver: deliver.clone(),
                        overflow,
                        max_records,
                        header: 2,
                        capacity: 10_000,
                        ..Shape::default()
                    }
                    .build(None);
                    write_pieces(rig.writers.remove(0), &numbered(ALL), &[]);
                    while rig.relay.counts().inputs[0].bytes < 8 * ALL as u64 {
                        thread::yield_now();
                    }
                    // Nobody has read anything so far.
                    let found: Vec<Vec<usize>> = thread::scope(|scope| {
                        let readers: Vec<_> = rig
                            .readers
                            .drain(..)
                            .map(|reader| scope.spawn(|| read_up_to(reader, None)))
                            .collect();
                        readers
                            .into_iter()
                            .map(|reader| numbers(&reader.join().unwrap()))
                            .collect()
                    });
                    assert_eq!(next(&rig.events), RelayEvent::Ended);
                    let copies = if deliver == Deliver::Copy { outputs } else { 1 };
                    let sent = if deliver == Deliver::Copy {
                        ALL * outputs
                    } else {
                        2 * outputs + ALL - 2
                    };
                    let read: usize = found.iter().map(Vec::len).sum();
                    let counts = rig.relay.counts();
                    assert_eq!(counts.dropped.records, Some((sent - read) as u64), "{what}");
                    assert_eq!(counts.dropped.bytes, 8 * (sent - read) as u64, "{what}");
                    assert!(
                        found.iter().all(
                            |list| list.is_sorted_by(|a, b| a < b) && list.starts_with(&[0, 1])
                        ),
                        "{what}"
                    );
                    let last = found
                        .iter()
                        .filter(|list| list.last() == Some(&(ALL - 1)))
                        .count();
                    assert_eq!(
                        last,
                        if overflow == Overflow::DropOldest {
                            copies
                        } else {
                            0
                        },
                        "{what}"
                    );
                    // What pipes and memory have room for, in records of eight bytes, is what there was.
                    let room = match max_records {
                        Some(most) => most as usize + 3,
                        None => (4096 + 10_000) / 8,
                    };
                    assert!(read <= 2 * outputs + outputs * room, "{what}: {read}");
                    assert!(
                        read >= max_records.unwrap_or(500) as usize,
                        "{what}: {read}"
                    );
                }
            }
        }
    }
}

/// A writer is no further ahead of its reader than the count says, and what its own pipe has.
#[test]
fn a_bound_of_records_holds_back_the_writer() {
    for (deliver, outputs) in [
        (Deliver::Copy, 1),
        (Deliver::Copy, 2),
        (Deliver::Share, 2),
        (Deliver::RoundRobin, 2),
    ] {
        for most in [1, 10] {
            let mut rig = Shape {
                outputs,
                deliver: deliver.clone(),
                max_records: Some(most),
                ..Shape::default()
            }
            .build(None);
            let writer = rig.writers.remove(0);
            let data = numbered(1_000);
            thread::scope(|scope| {
                scope.spawn(|| write_pieces(writer, &data, &[]));
                let most = most as usize;
                let pending = || crate::sys::pipe::unread(&rig.readers[0]).unwrap();
                while pending() < 8 {
                    thread::yield_now();
                }
                (0..10_000).for_each(|_| thread::yield_now());
                let unread: usize = rig
                    .readers
                    .iter()
                    .map(|reader| crate::sys::pipe::unread(reader).unwrap())
                    .sum();
                let held = unread + rig.relay.counts().held as usize;
                let queues = if deliver == Deliver::Share {
                    1
                } else {
                    outputs
                };
                assert!(held <= 8 * most * queues, "{deliver:?}, {most}: {held}");
                let readers: Vec<_> = rig
                    .readers
                    .drain(..)
                    .map(|reader| scope.spawn(|| read_up_to(reader, None)))
                    .collect();
                let mut found: Vec<usize> = readers
                    .into_iter()
                    .flat_map(|reader| numbers(&reader.join().unwrap()))
                    .collect();
                found.sort_unstable();
                found.dedup();
                assert!(found == numbers(&data), "{deliver:?}, {most}");
            });
            assert_eq!(next(&rig.events), RelayEvent::Ended);
        }
    }
}

/// Eight lines, four readers that each do nothing else while they have one: two each, whatever comes when.
#[test]
fn few_records_are_shared_evenly() {
    for pieces in [&[][..], &[2, 2, 2, 2, 2, 2, 2]] {
        let mut rig = Shape {
            outputs: 4,
            deliver: Deliver::Share,
            pipe: 65536,
            ..Shape::default()
        }
        .build(None);
        let all_have_one_more = Barrier::new(4);
        let writer = rig.writers.remove(0);
        let counts: Vec<usize> = thread::scope(|scope| {
            scope.spawn(move || write_pieces(writer, b"a\nb\nc\nd\ne\nf\ng\nh\n", pieces));
            let readers: Vec<_> = rig
                .readers
                .drain(..)
                .map(|mut reader| {
                    let all_have_one_more = &all_have_one_more;
                    scope.spawn(move || {
                        let mut count = 0;
                        for _ in 0..2 {
                            let mut line = [0; 2];
                            count += reader.read(&mut line).unwrap();
                            // Busy until all have as many, or nothing more to come.
                            all_have_one_more.wait();
                        }
                        (count + read_up_to(reader, None).len()) / 2
                    })
                })
                .collect();
            readers
                .into_iter()
                .map(|reader| reader.join().unwrap())
                .collect()
        });
        assert_eq!(counts, [2; 4]);
    }
}

/// Who doesn't read is not given much: the others do nearly all of it.
#[test]
fn a_stuck_reader_does_not_keep_others_from_working() {
    let mut rig = Shape {
        outputs: 4,
        deliver: Deliver::Share,
        pipe: 65536,
        ..Shape::default()
    }
    .build(None);
    let writer = rig.writers.remove(0);
    let stuck = rig.readers.remove(1);
    let data = numbered(200_000);
    let mut found: Vec<usize> = thread::scope(|scope| {
        scope.spawn(|| write_pieces(writer, &data, &[]));
        let readers: Vec<_> = rig
            .readers
            .drain(..)
            .map(|reader| scope.spawn(|| read_up_to(reader, None)))
            .collect();
        let stuck_reader = scope.spawn(|| {
            while rig
                .relay
                .counts()
                .outputs
                .iter()
                .map(|count| count.bytes)
                .sum::<u64>()
                < data.len() as u64
            {
                thread::yield_now();
            }
            read_up_to(stuck, None)
        });
        let late = numbers(&stuck_reader.join().unwrap());
        assert!(late.len() <= 2, "{}", late.len());
        let found = readers
            .into_iter()
            .flat_map(|reader| numbers(&reader.join().unwrap()));
        found.chain(late).collect()
    });
    found.sort_unstable();
    assert!(found == numbers(&data));
}

/// Numbered lines of any length, in all so many bytes.
fn lines_of_any_length(random: &mut fastrand::Rng, bytes: usize) -> Vec<u8> {
    let mut data = Vec::new();
    for number in 0.. {
        let fill = match random.u8(..) {
            0 => random.usize(..200_000),
            1..20 => random.usize(..9_000),
            _ => random.usize(..200),
        };
        data.extend(format!("0 0 {number} ").bytes());
        data.resize(data.len() + fill, b'x');
        data.push(b'\n');
        if data.len() >= bytes {
            break;
        }
    }
    data
}

/// Each line whole, once, and in order at its reader.
fn is_shared(data: &[u8], outputs: &[Vec<u8>]) -> bool {
    let lines = |data: &[u8]| cut(&Records::Lines, data);
    let mut found: Vec<Vec<u8>> = Vec::new();
    for output in outputs {
        let output = lines(output);
        let numbers: Vec<usize> = output
            .iter()
            .map(|line| told(&Records::Lines, line).1)
            .collect();
        if !numbers.is_sorted_by(|a, b| a < b) {
            return false;
        }
        found.extend(output);
    }
    let mut all = lines(data);
    found.sort_unstable();
    all.sort_unstable();
    found == all
}

/// Much at once: blocks whose bulk is moved unseen, from a pipe and from a file, with and without a last terminator.
#[test]
fn blocks_that_nobody_looks_at_are_whole_records() {
    let mut random = fastrand::Rng::with_seed(5);
    for outputs in 2..5 {
        for is_file in [false, true] {
            for is_open in [false, true] {
                let mut shape = Shape {
                    outputs,
                    deliver: Deliver::Share,
                    pipe: 1 << 18,
                    ..Shape::default()
                };
                let mut data = lines_of_any_length(&mut random, 3_000_000);
                if is_open {
                    data.pop();
                }
                if is_file {
                    let mut file = tempfile::tempfile().unwrap();
                    file.write_all(&data).unwrap();
                    file.rewind().unwrap();
                    shape.file = Some(Arc::new(file));
                }
                let mut rig = shape.build(None);
                let writer = rig.writers.pop();
                let paces: Vec<usize> = (0..outputs).map(|_| random.usize(1000..200_000)).collect();
                let found: Vec<Vec<u8>> = thread::scope(|scope| {
                    if !is_file {
                        scope.spawn(|| write_pieces(writer.unwrap(), &data, &[]));
                    }
                    let readers: Vec<_> = rig
                        .readers
                        .drain(..)
                        .zip(paces)
                        .map(|(reader, pace)| {
                            scope.spawn(move || read_at_pace(reader, pace, usize::MAX))
                        })
                        .collect();
                    readers
                        .into_iter()
                        .map(|reader| reader.join().unwrap())
                        .collect()
                });
                assert!(is_shared(&data, &found), "{outputs} {is_file} {is_open}");
                assert_eq!(next(&rig.events), RelayEvent::Ended);
                let counts = rig.relay.counts();
                assert_eq!(counts.inputs[0].bytes, data.len() as u64);
                let bytes: Vec<u64> = found.iter().map(|output| output.len() as u64).collect();
                assert_eq!(
                    counts
                        .outputs
                        .iter()
                        .map(|count| count.bytes)
                        .collect::<Vec<_>>(),
                    bytes
                );
            }
        }
    }
}

/// A reader leaves within a block: what was not its own the others get, whole.
/// Also where it begins in a block that nobody looks at, and its reader is owed the rest of it.
#[test]
fn a_record_without_end_is_refused_within_blocks() {
    let shape = Shape {
        deliver: Deliver::Share,
        outputs: 2,
        pipe: 256 * 1024,
        ..Shape::default()
    };
    let rig = shape.build(None);
    let mut writer = rig.writers.into_iter().next().unwrap();
    let mut data = b"a line of a few words\n".repeat(1_000_000);
    data.resize(data.len() + (17 << 20), b'x');
    for mut reader in rig.readers {
        // Until the relay is stopped.
        thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    }
    thread::spawn(move || {
        // What is behind the fault is not read.
        let _ = writer.write_all(&data);
    });
    let event = next(&rig.events);
    let RelayEvent::Fault { input: 0, why } = &event else {
        panic!("{event:?}");
    };
    assert!(why.contains("is longer than max_record (16 MiB)"), "{why}");
    // It went by blocks.
    let counts = rig.relay.counts();
    assert!(counts.is_estimate);
    // About all the lines: of the block in which they end, most was taken to be like what came before.
    let lines = counts.inputs[0].records.unwrap();
    assert!(lines.abs_diff(1_000_000) <= 50_000, "{lines}");
    rig.relay.stop();
    rig.relay.join();
}

#[test]
fn a_reader_that_leaves_within_a_block_takes_nothing_from_the_others() {
    let mut random = fastrand::Rng::with_seed(6);
    for _ in 0..4 {
        let data = lines_of_any_length(&mut random, 3_000_000);
        let most = random.usize(1..2_000_000);
        let mut rig = Shape {
            outputs: 3,
            deliver: Deliver::Share,
            pipe: 1 << 18,
            ..Shape::default()
        }
        .build(None);
        let writer = rig.writers.remove(0);
        let found: Vec<Vec<u8>> = thread::scope(|scope| {
            scope.spawn(|| write_pieces(writer, &data, &[]));
            let readers: Vec<_> = rig
                .readers
                .drain(..)
                .enumerate()
                .map(|(at, reader)| {
                    let most = if at == 0 { most } else { usize::MAX };
                    scope.spawn(move || read_at_pace(reader, 60_000, most))
                })
                .collect();
            readers
                .into_iter()
                .map(|reader| reader.join().unwrap())
                .collect()
        });
        assert_eq!(next(&rig.events), RelayEvent::Ended);
        let all = cut(&Records::Lines, &data);
        let of_others: Vec<Vec<u8>> = found[1..]
            .iter()
            .flat_map(|output| cut(&Records::Lines, output))
            .collect();
        assert!(of_others.iter().all(|line| {
            all.binary_search_by_key(&told(&Records::Lines, line), |line| {
                told(&Records::Lines, line)
            })
            .is_ok_and(|at| all[at] == *line)
        }));
        let given = rig.relay.counts().outputs[0].bytes as usize;
        let missing: usize =
            all.iter().map(Vec::len).sum::<usize>() - of_others.iter().map(Vec::len).sum::<usize>();
        // What it was given, and the end of a record of which it had the beginning.
        assert!(
            missing >= given && missing <= given + 200_100,
            "{missing} {given}"
        );
    }
}

/// The same where what stands before it in memory must stay, since its reader has the beginning.
#[test]
fn a_dropped_record_leaves_no_terminator_behind_another() {
    let mut rig = Shape {
        inputs: 2,
        merge: Merge::Sequence,
        max_records: Some(1),
        overflow: Overflow::DropOldest,
        ..Shape::default()
    }
    .build(None);
    let long = "x".repeat(9_000);
    rig.writers[0]
        .write_all(format!("{long}\ntwo").as_bytes())
        .unwrap();
    rig.writers.remove(0);
    while rig.relay.counts().inputs[0].records != Some(2) {
        thread::yield_now();
    }
    rig.writers[0].write_all(b"three\n").unwrap();
    rig.writers.clear();
    while rig.relay.counts().inputs[1].records != Some(1) {
        thread::yield_now();
    }
    let found = read_up_to(rig.readers.remove(0), None);
    assert_eq!(
        String::from_utf8(found).unwrap(),
        format!("{long}\nthree\n")
    );
}

/// The terminator that a record lacks goes with it when it is dropped: alone it would be a record that nobody wrote.
#[test]
fn a_dropped_record_leaves_no_terminator() {
    let mut rig = Shape {
        inputs: 2,
        merge: Merge::Sequence,
        max_records: Some(2),
        overflow: Overflow::DropOldest,
        ..Shape::default()
    }
    .build(None);
    rig.writers[0].write_all(b"one\ntwo\nthree").unwrap();
    rig.writers.remove(0);
    rig.writers[0].write_all(b"four\nfive\n").unwrap();
    rig.writers.clear();
    while rig.relay.counts().inputs[1].records != Some(2) {
        thread::yield_now();
    }
    let found = read_up_to(rig.readers.remove(0), None);
    assert_eq!(String::from_utf8(found).unwrap(), "one\ntwo\nfive\n");
    assert_eq!(next(&rig.events), RelayEvent::Ended);
}

/// Readers that never read and a writer that never ends: what is taken in is bounded, however it is dealt.
#[test]
fn stuck_readers_bound_what_is_held() {
    let by_field = Deliver::ByField {
        field: 1,
        separator: None,
    };
    for deliver in [Deliver::Share, Deliver::RoundRobin, by_field] {
        for batch in [None, Some(7)] {
            let mut rig = Shape {
                outputs: 3,
                deliver: deliver.clone(),
                batch,
                capacity: 10_000,
                ..Shape::default()
            }
            .build(None);
            let writer = rig.writers.remove(0);
            let data = numbered(200_000);
            thread::scope(|scope| {
                let writer = scope.spawn(|| write_pieces(writer, &data, &[]));
                let taken = || rig.relay.counts().inputs[0].bytes;
                while taken() < 4096 {
                    thread::yield_now();
                }
                // It could take much more now, if it did.
                (0..10_000).for_each(|_| thread::yield_now());
                rig.relay.stop();
                writer.join().unwrap();
                // A block that has been read, and for each reader a pipe of one page and what is gathered for it.
                let most = crate::queue::BLOCK + 3 * (4096 + 64 * 1024 + 8);
                assert!(taken() <= most as u64, "{deliver:?}: {} bytes", taken());
            });
        }
    }
}
