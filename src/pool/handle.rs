//! A pool's thread as the loop sees it: it is told things, says things, and can be counted.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::event::PoolCounts;
use crate::plan::Feed;
use crate::pool::desk::Desk;
use crate::pool::{Ended, PoolCall, PoolEvent, PoolSpec, request, task};
use crate::queue::Events;

/// Where a pool says what it has to say.
pub type PoolEvents = Events<PoolEvent>;

/// A running pool. Dropping it stops it.
#[derive(Debug)]
pub struct PoolHandle {
    calls: mpsc::Sender<PoolCall>,
    control: Arc<Control>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
    /// Nothing is to be done when a process has been started.
    is_patient: bool,
}

impl PoolHandle {
    /// Tells the pool something.
    pub fn call(&self, call: PoolCall) {
        // A wake-up for each task less.
        let can_wait = self.is_patient && matches!(call, PoolCall::Started(..));
        // An error: it has ended.
        let _ = self.calls.send(call);
        if !can_wait {
            self.control.wake();
        }
    }

    /// What it has done so far. The last counts stand when it has ended.
    pub fn counts(&self) -> PoolCounts {
        self.counters.snapshot()
    }

    /// The run is about to be stopped (Ctrl-Z): the pool's clock stands still, so that no `task_timeout` counts the time between.
    pub fn suspend(&self) {
        self.control.clock.suspend();
    }

    /// It goes on.
    pub fn resume(&self) {
        self.control.clock.resume();
    }

    /// Lets the thread end at once, whatever it waits for, and without a word. Its ends are closed, and what it holds is lost: its
    /// workers, and readers that are not to take that for the end of data, must have ended before.
    pub fn stop(&self) {
        self.control.stop.store(true, Ordering::Release);
        self.control.wake();
    }

    /// Waits until the thread has ended: by itself, or stopped.
    pub fn join(mut self) {
        self.wait();
    }

    fn wait(&mut self) {
        // A panic has been reported as an event.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for PoolHandle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
            self.wait();
        }
    }
}

/// What the thread is told from outside.
#[derive(Debug)]
struct Control {
    /// Readable when there is something to look at.
    wake: EventFd,
    stop: AtomicBool,
    clock: Clock,
}

/// Time since the pool's start, without the time that the run stood still.
///
/// The pool's thread looks at it whenever it likes, so it is stopped before the process is and goes on after: what is set right
/// afterwards may be seen too late by a thread that the same SIGCONT has woken.
#[derive(Debug)]
struct Clock {
    begin: Instant,
    /// Nanoseconds that it stood still, all in all.
    skipped: AtomicU64,
    /// It stands still, at this time in nanoseconds; [`RUNS`] where it doesn't.
    stands_at: AtomicU64,
}

const RUNS: u64 = u64::MAX;

impl Clock {
    fn start() -> Self {
        Clock {
            begin: Instant::now(),
            skipped: AtomicU64::new(0),
            stands_at: AtomicU64::new(RUNS),
        }
    }

    fn now(&self) -> Duration {
        // First, since the process may be stopped after it: a time too short only lets the caller look once more.
        let elapsed = self.elapsed();
        Duration::from_nanos(match self.stands_at.load(Ordering::Acquire) {
            RUNS => elapsed.saturating_sub(self.skipped.load(Ordering::Relaxed)),
            stands_at => stands_at,
        })
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(RUNS - 1)
    }

    fn suspend(&self) {
        let now = u64::try_from(self.now().as_nanos()).unwrap_or(RUNS - 1);
        self.stands_at.store(now, Ordering::Release);
    }

    fn resume(&self) {
        let stands_at = self.stands_at.load(Ordering::Relaxed);
        if stands_at != RUNS {
            let skipped = self.elapsed().saturating_sub(stands_at);
            self.skipped.store(skipped, Ordering::Relaxed);
            self.stands_at.store(RUNS, Ordering::Release);
        }
    }
}

impl Control {
    fn wake(&self) {
        // Fails only where it has been written u64::MAX - 1 times.
        let _ = self.wake.write(1);
    }
}

/// The thread's end of it.
#[derive(Debug)]
pub(crate) struct Inbox {
    calls: mpsc::Receiver<PoolCall>,
    control: Arc<Control>,
}

impl Inbox {
    /// The end to wait on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.control.wake.as_fd()
    }

    /// Since the pool's start, without the time that the run stood still.
    pub fn now(&self) -> Duration {
        self.control.clock.now()
    }

    /// Takes the wake-up; whether it says to stop at once.
    pub fn is_stop(&self) -> bool {
        // EAGAIN: there was none.
        let _ = self.control.wake.read();
        self.control.stop.load(Ordering::Acquire)
    }

    /// What was said, in order.
    pub fn next(&self) -> Option<PoolCall> {
        self.calls.try_recv().ok()
    }
}

/// Written by the pool's thread alone, read by any. Relaxed, since nothing is concluded from one about another.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub taken: AtomicU64,
    pub taken_bytes: AtomicU64,
    pub answered: AtomicU64,
    pub result_bytes: AtomicU64,
    pub dead: AtomicU64,
    pub retried: AtomicU64,
    pub in_flight: AtomicU64,
    pub started: AtomicU64,
    /// `u64::MAX`: not known.
    pub total: AtomicU64,
}

impl Counters {
    fn snapshot(&self) -> PoolCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PoolCounts {
            taken: get(&self.taken),
            taken_bytes: get(&self.taken_bytes),
            answered: get(&self.answered),
            result_bytes: get(&self.result_bytes),
            dead: get(&self.dead),
            retried: get(&self.retried),
            in_flight: get(&self.in_flight),
            started: get(&self.started),
            total: Some(get(&self.total)).filter(|total| *total != u64::MAX),
        }
    }
}

/// Starts a pool's thread. It asks for its first workers at once.
///
/// Each [`PoolEvent::Start`] is to be answered by [`PoolCall::Started`] or [`PoolCall::CannotStart`], and after the first of these by
/// [`PoolCall::Exited`], also after [`PoolCall::Stop`]: the pool ends when the last of them has come.
///
/// # Errors
/// A setting that makes no sense (`InvalidInput`), no descriptor or thread to be had.
pub fn start(spec: PoolSpec, events: PoolEvents) -> io::Result<PoolHandle> {
    let control = Arc::new(Control {
        wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        stop: AtomicBool::new(false),
        clock: Clock::start(),
    });
    let (calls, receiver) = mpsc::channel();
    let inbox = Inbox {
        calls: receiver,
        control: Arc::clone(&control),
    };
    let counters = Arc::new(Counters::default());
    let feed = spec.settings.feed;
    let is_patient = feed == Feed::Task && spec.settings.task_timeout.is_none();
    let name = spec.name.replace('\0', "?");
    let mut desk = Desk::new(spec, inbox, events.clone(), Arc::clone(&counters))?;
    let thread = std::thread::Builder::new()
        .name(format!("pool {name}"))
        .spawn(move || {
            let ended = catch_unwind(AssertUnwindSafe(|| match feed {
                Feed::Task => task::Crew::new(&desk).live(&mut desk),
                Feed::Request | Feed::Stream => request::Crew::new(&desk).live(&mut desk),
            }));
            // All its ends are closed before anybody hears that it has ended.
            drop(desk);
            let ended = match ended {
                Ok(Some(ended)) => ended,
                Ok(None) => return,
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    let text = text
                        .or_else(|| panic.downcast_ref::<&str>().copied())
                        .unwrap_or("no message");
                    Ended::Unable(format!("pool `{name}` panicked: {text}"))
                }
            };
            events.send(PoolEvent::Ended(ended));
        })?;
    Ok(PoolHandle {
        calls,
        control,
        counters,
        thread: Some(thread),
        is_patient,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool that was stopped for longer than a `task_timeout` would otherwise kill whatever works, at `fg`.
    #[test]
    fn time_that_the_run_stood_still_is_not_counted() {
        let clock = Clock::start();
        clock.suspend();
        let before = clock.now();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(clock.now(), before, "it stands still");
        clock.resume();
        assert!(clock.now() >= before);
        assert!(clock.now() + Duration::from_millis(50) <= clock.begin.elapsed());
        clock.suspend();
        std::thread::sleep(Duration::from_millis(50));
        clock.resume();
        assert!(clock.now() + Duration::from_millis(100) <= clock.begin.elapsed());
    }
}
