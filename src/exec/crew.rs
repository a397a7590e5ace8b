//! Starts several groups at once, on more than one CPU.
//!
//! Making a process stops the thread that makes it until the program is loaded, which is most of what starting a small
//! one takes. So where a wake-up brings several groups to be started, threads of this crew take some of them; the loop takes
//! the others itself and goes on when all are made. With one group, as in a chain, nobody is woken. On two CPUs this starts
//! processes about 1.5 times as fast.
//!
//! A child is killed when the thread that made it ends (PR_SET_PDEATHSIG), so these threads live as long as the run.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::exec::jobserver::Offer;
use crate::exec::launch::{As, For, Launcher, StartError};
use crate::plan::{NodeId, Plan, UnitId};
use crate::pool::Task;
use crate::sys::machine::cpus;
use crate::sys::process::{Child, Origin};

/// So many threads help at most: beyond that the kernel's own locks are what they wait for.
const HELPERS: u32 = 3;

/// What nodes that have ended had to say.
pub type Values = Arc<HashMap<NodeId, String>>;

/// A group to start, or a worker of a pool.
#[derive(Debug)]
pub struct Job {
    /// The try, from 1.
    pub attempt: u32,
    /// Its units in order, each with its descriptors: (ours, its number). Ours stay open until the job is done.
    pub units: Vec<(UnitId, Vec<(RawFd, u32)>)>,
    /// The unit is a pool, of which this is a worker.
    pub worker: Option<Worker>,
    /// What the processes are for.
    pub purpose: For,
}

/// A worker of a pool that procflow feeds.
#[derive(Debug)]
pub struct Worker {
    /// Its number, from 0.
    pub number: u32,
    /// What it is started for, in a `task` pool.
    pub task: Option<Task>,
}

/// What came of a [`Job`]: for each unit in order, up to the first that could not be started.
pub type Done = Vec<Result<Child, StartError>>;

/// The loop's launcher, and the threads that help it.
#[derive(Debug)]
pub struct Crew {
    plan: Arc<Plan>,
    run_id: String,
    origin: Origin,
    offer: Offer,
    launcher: Launcher<Arc<Plan>>,
    desk: Arc<Desk>,
    helpers: Vec<JoinHandle<()>>,
    /// More would not help; not known before somebody asks, since it means a look at cgroups.
    most: Option<u32>,
    done: Receiver<(usize, thread::Result<Done>)>,
    /// For helpers to come.
    sender: Sender<(usize, thread::Result<Done>)>,
}

/// Where jobs lie until somebody takes them.
#[derive(Debug, Default)]
struct Desk {
    jobs: Mutex<Jobs>,
    brought: Condvar,
}

#[derive(Debug, Default)]
struct Jobs {
    waiting: VecDeque<(usize, Job)>,
    values: Values,
    /// Nothing more comes.
    closed: bool,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        // Whoever panicked with it left whole jobs.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; waits for one where `wait`.
    fn take(&self, wait: bool) -> Option<(usize, Job, Values)> {
        let mut jobs = self.lock();
        loop {
            if let Some((number, job)) = jobs.waiting.pop_front() {
                return Some((number, job, Arc::clone(&jobs.values)));
            }
            if !wait || jobs.closed {
                return None;
            }
            jobs = self
                .brought
                .wait(jobs)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Crew {
    /// The loop alone; helpers come with the first jobs that need them. This process must
    /// run in the pipeline's directory: most nodes do, and going there takes a tenth of what starting a small one takes.
    ///
    /// # Errors
    /// As [`Launcher::new`].
    pub fn new(plan: Arc<Plan>, run_id: &str, origin: Origin, offer: Offer) -> io::Result<Self> {
        let (sender, done) = channel();
        Ok(Crew {
            launcher: Launcher::new(Arc::clone(&plan), run_id, origin.clone())?
                .offering(&offer)?
                .at_home(),
            offer,
            plan,
            run_id: run_id.to_owned(),
            origin,
            desk: Arc::default(),
            helpers: Vec::new(),
            most: None,
            done,
            sender,
        })
    }

    /// Starts all of them, and comes back when each has been started or has failed.
    pub fn start(&mut self, mut jobs: Vec<Job>, values: &Values) -> Vec<Done> {
        if jobs.len() <= 1
            && let Some(job) = jobs.pop()
        {
            return vec![self.start_one(&job, values)];
        }
        let mut done: Vec<Done> = jobs.iter().map(|_| Vec::new()).collect();
        let helped = self.get_help(jobs.len().saturating_sub(1));
        let mut missing = jobs.len();
        {
            let mut desk = self.desk.lock();
            desk.values = Arc::clone(values);
            desk.waiting.extend(jobs.into_iter().enumerate());
        }
        for _ in 0..helped {
            self.desk.brought.notify_one();
        }
        while let Some((number, job, values)) = self.desk.take(false) {
            done[number] = work(&mut self.launcher, &job, &values);
            missing -= 1;
        }
        while missing > 0 {
            match self.done.recv() {
                Ok((number, Ok(result))) => done[number] = result,
                Ok((_, Err(panic))) => resume_unwind(panic),
                Err(_) => panic!("BUG: no sender, but we have one"),
            }
            missing -= 1;
        }
        done
    }

    fn start_one(&mut self, job: &Job, values: &Values) -> Done {
        let done = work(&mut self.launcher, job, values);
        // The kernel wakes us as soon as the new program is loaded, on the CPU on which it is about to run, and an idle CPU
        // then pulls it over to cold caches. What we have to do can wait until a short one has ended: in a chain, a third
        // less time.
        thread::yield_now();
        done
    }

    /// Sees to it that so many helpers are there, as far as they help; how many can be woken.
    fn get_help(&mut self, wanted: usize) -> usize {
        if wanted == 0 {
            return 0;
        }
        let most = *self
            .most
            .get_or_insert_with(|| cpus().saturating_sub(1).min(HELPERS));
        let wanted = wanted.min(most as usize);
        while self.helpers.len() < wanted {
            match self.helper() {
                Ok(helper) => self.helpers.push(helper),
                Err(_) => {
                    // No thread, no memory: it goes without.
                    self.most = u32::try_from(self.helpers.len()).ok();
                    break;
                }
            }
        }
        wanted.min(self.helpers.len())
    }

    fn helper(&self) -> io::Result<JoinHandle<()>> {
        let sender = self.sender.clone();
        let mut launcher =
            Launcher::new(Arc::clone(&self.plan), &self.run_id, self.origin.clone())?
                .offering(&self.offer)?
                .at_home();
        let desk = Arc::clone(&self.desk);
        let work = move || {
            while let Some((number, job, values)) = desk.take(true) {
                // The loop waits for each job, so it must hear of a panic: it goes on there.
                let done = catch_unwind(AssertUnwindSafe(|| work(&mut launcher, &job, &values)));
                if sender.send((number, done)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(work)
    }
}

fn work(launcher: &mut Launcher<Arc<Plan>>, job: &Job, values: &Values) -> Done {
    // A node that was left out, as `$(..)` of nothing, has an empty value.
    let value = |node| Some(values.get(&node).map_or("", String::as_str));
    let role = As {
        attempt: job.attempt,
        worker: job.worker.as_ref().map(|worker| worker.number),
        task: job.worker.as_ref().and_then(|worker| worker.task.as_ref()),
        purpose: job.purpose,
    };
    let mut done = Vec::with_capacity(job.units.len());
    for (unit, fds) in &job.units {
        let started = launcher.start(*unit, role, fds, &value);
        let failed = started.is_err();
        done.push(started);
        if failed {
            break;
        }
    }
    done
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.desk.lock().closed = true;
        self.desk.brought.notify_all();
        for helper in self.helpers.drain(..) {
            // A panic in it has gone on in the loop.
            let _ = helper.join();
        }
    }
}
