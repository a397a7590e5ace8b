//! The relays that run, by number: whose they are, and what they have to say.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;

use crate::exec::inbox::Inbox;
use crate::plan::{GroupId, Plan, QueueId, UnitId};
use crate::queue::{Counts, RelayEvent, RelayHandle, RelaySpec, start};

/// What a relay is for.
#[derive(Debug, Clone)]
pub enum Carries {
    /// A queue; its inputs are these writers', in order.
    Queue(QueueId, Vec<UnitId>),
    /// Copies of an output of this unit.
    Tee(UnitId),
}

/// A relay whose end has not come.
#[derive(Debug)]
struct Running {
    handle: RelayHandle,
    group: GroupId,
    carries: Carries,
    /// It has said that it cannot go on. It says nothing more.
    is_broken: bool,
}

/// All relays that run.
#[derive(Debug)]
pub struct Relays {
    running: HashMap<u64, Running>,
    inbox: Inbox<RelayEvent>,
    /// What was said while one of them was waited for.
    heard: VecDeque<(u64, RelayEvent)>,
}

impl Relays {
    /// None yet.
    ///
    /// # Errors
    /// Where there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Relays {
            running: HashMap::new(),
            inbox: Inbox::new()?,
            heard: VecDeque::new(),
        })
    }

    /// Readable when one has something to say.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.inbox.wake()
    }

    /// Starts one.
    ///
    /// # Errors
    /// Where there is no descriptor or thread to be had.
    pub fn start(&mut self, spec: RelaySpec, group: GroupId, carries: Carries) -> io::Result<()> {
        let events = self.inbox.events();
        let number = events.id;
        let handle = start(spec, events)?;
        self.running.insert(
            number,
            Running {
                handle,
                group,
                carries,
                is_broken: false,
            },
        );
        Ok(())
    }

    /// The next thing that one says. Call it until there is nothing more.
    pub fn next_event(&mut self) -> Option<(u64, RelayEvent)> {
        let heard = self.heard.pop_front();
        let event = heard.or_else(|| self.inbox.next());
        if let Some((number, RelayEvent::Broken(_))) = &event
            && let Some(relay) = self.running.get_mut(number)
        {
            relay.is_broken = true;
        }
        event
    }

    /// Waits until this one has handed on everything. To be asked of one that writes to a file and whose writers have all ended: it
    /// waits for nobody but the disk.
    ///
    /// # Errors
    /// Why it cannot, in words for people; nothing where it has said so before.
    pub fn wait_for(&mut self, number: u64) -> Result<(), Option<String>> {
        if self
            .running
            .get(&number)
            .is_some_and(|relay| relay.is_broken)
        {
            return Err(None);
        }
        let mut at = 0;
        loop {
            if at == self.heard.len() {
                self.heard.push_back(self.inbox.wait());
            }
            match self.heard.get(at) {
                Some((of, RelayEvent::Ended)) if *of == number => return Ok(()),
                Some((of, RelayEvent::Broken(why))) if *of == number => {
                    return Err(Some(why.clone()));
                }
                _ => at += 1,
            }
        }
    }

    /// What it is for, while it runs.
    pub fn carries(&self, number: u64) -> Option<&Carries> {
        self.running.get(&number).map(|relay| &relay.carries)
    }

    /// Who writes this input of it; nobody where it is gone, or no queue's.
    pub fn writer(&self, number: u64, input: usize) -> Option<UnitId> {
        match self.carries(number)? {
            Carries::Queue(_, writers) => writers.get(input).copied(),
            Carries::Tee(_) => None,
        }
    }

    /// Waits until its thread, which has said that it ends or is stopped by this, is gone. Nothing where it was gone already.
    pub fn end(&mut self, number: u64) -> Option<(Carries, Counts)> {
        let relay = self.running.remove(&number)?;
        relay.handle.stop();
        let counts = relay.handle.counts();
        relay.handle.join();
        Some((relay.carries, counts))
    }

    /// Tells those that carry this queue, or copy an output of this unit, to look at what has become of their writers.
    pub fn look(&self, wanted: impl Fn(&Carries) -> bool) {
        for relay in self.running.values().filter(|relay| wanted(&relay.carries)) {
            relay.handle.look();
        }
    }

    /// The numbers of those that carry a queue which this unit writes.
    pub fn written_by(&self, unit: UnitId) -> HashSet<u64> {
        let is_written = |carries: &Carries| matches!(carries, Carries::Queue(_, writers) if writers.contains(&unit));
        self.running
            .iter()
            .filter(|(_, relay)| is_written(&relay.carries))
            .map(|(&number, _)| number)
            .collect()
    }

    /// What each queue that is carried has moved so far.
    pub fn queues(&self) -> impl Iterator<Item = (QueueId, Counts)> {
        self.running
            .values()
            .filter_map(|relay| match relay.carries {
                Carries::Queue(queue, _) => Some((queue, relay.handle.counts())),
                Carries::Tee(_) => None,
            })
    }

    /// The relay of a queue, and what it has moved so far.
    pub fn carrying(&self, queue: QueueId) -> Option<(&Carries, Counts)> {
        let mut running = self.running.values();
        let relay =
            running.find(|relay| matches!(relay.carries, Carries::Queue(of, _) if of == queue))?;
        Some((&relay.carries, relay.handle.counts()))
    }

    /// The numbers of those that carry a queue which this unit reads.
    pub fn read_by(&self, plan: &Plan, unit: UnitId) -> Vec<u64> {
        let is_read = |carries: &Carries| matches!(carries, Carries::Queue(queue, _) if plan.queue(*queue).readers.contains(&unit));
        self.running
            .iter()
            .filter(|(_, relay)| is_read(&relay.carries))
            .map(|(&number, _)| number)
            .collect()
    }

    /// Whether an output of this unit still is being copied.
    pub fn has_tees(&self, unit: UnitId) -> bool {
        self.running
            .values()
            .any(|relay| matches!(relay.carries, Carries::Tee(owner) if owner == unit))
    }

    /// The numbers of those that serve this group.
    pub fn of_group(&self, group: GroupId) -> Vec<u64> {
        self.running
            .iter()
            .filter(|(_, relay)| relay.group == group)
            .map(|(&number, _)| number)
            .collect()
    }

    /// Bytes that those which serve this group have moved so far, in and out.
    pub fn moved(&self, group: GroupId) -> u64 {
        let of_group = self.running.values().filter(|relay| relay.group == group);
        of_group
            .map(|relay| {
                let Counts {
                    inputs, outputs, ..
                } = relay.handle.counts();
                inputs
                    .iter()
                    .chain(&outputs)
                    .map(|count| count.bytes)
                    .sum::<u64>()
            })
            .sum()
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}
