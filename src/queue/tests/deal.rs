//! Records dealt out: shared, in turn, by a key.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::plan::Deliver;
use crate::queue::RelayEvent;
use crate::queue::model::deal;
use crate::queue::tests::{Shape, cut, in_sequence, next, write_pieces};
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
    ];
    let fill = prop_oneof![60 => 0..30usize, 4 => 100..3000usize, 1 => 4000..90_000usize];
    let count = prop_oneof![0..10usize, 0..500usize];
    let writer =
        count.prop_flat_map(move |count| (vec((0..9u8, fill.clone()), count), any::<bool>()));
    let leave = prop_oneof![8 => Just(None), 1 => (0..100_000u64).prop_map(Some)];
    (
        (framings(), vec(writer, 1..5), vec(leave, 2..5)),
        (deliver, 0..4u32, prop::option::weighted(0.2, 1..20u32)),
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
                (deliver, header, batch),
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
            .map(|((mut reader, most), pace)| {
                scope.spawn(move || {
                    let most = most.map_or(usize::MAX, |most| most as usize);
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
                })
            })
            .collect();
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect()
    });
    assert_eq!(next(&rig.events), RelayEvent::Ended);
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
            if let Some(records) = count.records {
                assert_eq!(records, cut(&case.shape.records, output).len() as u64);
            }
        }
        assert_eq!((counts.lost.bytes, counts.dropped.bytes), (0, 0));
    }
    rig.relay.join();
    outputs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 0, ..ProptestConfig::default() })]

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
        if !is_any_gone {
            prop_assert_eq!(&found, &all);
            let shared = places.values().filter(|count| **count > 1).count();
            prop_assert_eq!(shared, header);
        }
        for list in &read {
            let header = &list[..header.min(list.len())];
            prop_assert!(read.iter().all(|other| other.starts_with(header)));
            prop_assert!(is_any_gone || header.iter().all(|told| places[told] == read.len()));
        }
        prop_assert!(places.values().all(|count| [1, read.len()].contains(count)));
        // Where the order of all is known, so is who gets what.
        if case.shape.merge == Merge::Sequence && !is_any_gone {
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
