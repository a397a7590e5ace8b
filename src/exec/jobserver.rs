//! Job slots that are shared with other programs, by the protocol of GNU make's jobserver: one slot is everybody's own, each other costs a
//! token, a byte in a pipe.
//!
//! The pipe is our own, or that of the make that procflow runs in. To the loop both are the same: it takes tokens when something
//! waits for a slot, and puts back what nobody needs when it has nothing else to do. So a run whose nodes know nothing of
//! this moves no tokens but those of its beginning. What the nodes get to know of the pipe is the [`Offer`].

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::exec::makeflags::{self, Auth};
use crate::plan::{Ends, Plan};
use crate::spec::JobserverStyle;
use crate::sys::pipe::Pipe;
use crate::sys::tokens::{Debt, TokenPipe};

/// So many tokens lie in our own pipe at most: a page of it.
const MOST_OUTSIDE: usize = 4096;

/// The size of our own pipe: the kernel's usual. It must be more than a page. A page is free again when all of it has been written and read,
/// so where there is only one, and never empty, a write to it waits in the end, however few tokens lie in it.
const PIPE: usize = 64 << 10;

/// What a byte in our own pipe is.
const TOKEN: u8 = b'+';

/// The jobserver around procflow.
#[derive(Debug)]
pub enum Outer {
    /// There is none.
    None,
    /// `MAKEFLAGS` names one that can't be reached: so.
    Lost(String),
    /// There is one.
    There(Box<Client>),
}

/// The jobserver of the make that procflow runs in.
#[derive(Debug)]
pub struct Client {
    pipe: TokenPipe,
    auth: Auth,
    /// How many jobs make was told to run, where it says so.
    pub jobs: Option<u32>,
    /// What is to be given back, whatever becomes of the process that took it.
    pub debt: Arc<Debt>,
}

impl Outer {
    /// The one that `MAKEFLAGS` names. Call it before anything else is opened: where make has closed its descriptors, their numbers would be
    /// somebody else's.
    #[must_use]
    pub fn of(makeflags: Option<&OsStr>) -> Self {
        let Some(flags) = makeflags.map(OsStr::to_string_lossy) else {
            return Outer::None;
        };
        let auth = match makeflags::auth(&flags) {
            None => return Outer::None,
            Some(Ok(auth)) => auth,
            Some(Err(strange)) => {
                return Outer::Lost(format!("`{strange}` is no jobserver that Linux has"));
            }
        };
        let opened = match &auth {
            // Both are asked for: with one of them closed, nothing that was taken could ever be put back.
            Auth::Pipe(read, write) => {
                TokenPipe::of_fd(*write).and_then(|_| TokenPipe::of_fd(*read))
            }
            Auth::Fifo(path) => TokenPipe::of_path(path),
        };
        match opened.and_then(|pipe| Ok((Debt::to(&pipe)?, pipe))) {
            Ok((debt, pipe)) => Outer::There(Box::new(Client {
                pipe,
                auth,
                jobs: makeflags::jobs(&flags),
                debt: Arc::new(debt),
            })),
            Err(_) => Outer::Lost(match auth {
                Auth::Pipe(..) => "make has closed its jobserver for this recipe".to_owned(),
                Auth::Fifo(path) => format!("there is no jobserver at {}", path.display()),
            }),
        }
    }
}

/// The slots of a run.
#[derive(Debug)]
pub struct Jobserver {
    pipe: TokenPipe,
    /// The tokens in our hands.
    held: Vec<u8>,
    owner: Owner,
}

/// Whose the pipe is.
#[derive(Debug)]
enum Owner {
    /// Ours, with so many tokens in all.
    Own(usize),
    /// Somebody else's, to whom they are owed.
    Outer(Arc<Debt>),
}

impl Jobserver {
    /// Slots now.
    pub fn slots(&self) -> u32 {
        u32::try_from(self.held.len() + 1).unwrap_or(u32::MAX)
    }

    /// There may be fewer slots than the run could use, from the start.
    pub fn is_outer(&self) -> bool {
        matches!(self.owner, Owner::Outer(_))
    }

    /// Readable when there may be tokens to take.
    pub fn pipe(&self) -> &TokenPipe {
        &self.pipe
    }

    /// Takes tokens until there are so many slots, as far as there are any.
    ///
    /// # Errors
    /// None that a program without bugs sees.
    pub fn take(&mut self, slots: u32) -> io::Result<()> {
        let wanted = (slots as usize).saturating_sub(self.held.len() + 1);
        let taken = self.pipe.take(wanted, &mut self.held);
        self.note();
        taken
    }

    /// Puts tokens back for so many slots.
    ///
    /// # Errors
    /// None that a program without bugs sees.
    pub fn give(&mut self, slots: u32) -> io::Result<()> {
        let mut count = (slots as usize).min(self.held.len());
        if let Owner::Own(all) = self.owner {
            let outside = all.saturating_sub(self.held.len());
            count = count.min(MOST_OUTSIDE.saturating_sub(outside));
        }
        let tokens = self.held.split_off(self.held.len() - count);
        self.note();
        let put = self.pipe.put(&tokens)?;
        // Somebody has filled the pipe: they are kept until it is levelled.
        self.held.extend(tokens.get(put..).unwrap_or_default());
        self.note();
        Ok(())
    }

    fn note(&self) {
        if let Owner::Outer(debt) = &self.owner {
            debt.is(&self.held);
        }
    }

    /// Nobody runs who could hold a token, so all of our own must be here or in the pipe. What a killed program had with it is made again,
    /// and what somebody has added is taken out.
    ///
    /// # Errors
    /// None that a program without bugs sees.
    pub fn level(&mut self) -> io::Result<()> {
        let Owner::Own(all) = self.owner else {
            return Ok(());
        };
        let outside = all.saturating_sub(self.held.len());
        if self.pipe.lying() == outside {
            return Ok(());
        }
        self.pipe.take(usize::MAX, &mut Vec::new())?;
        self.held = vec![TOKEN; all];
        Ok(())
    }
}

impl Drop for Jobserver {
    fn drop(&mut self) {
        if self.is_outer() {
            // Where that fails, there is nobody left to whom it matters.
            let _ = self.give(u32::MAX);
        }
    }
}

/// What nodes get to know of the slots: `MAKEFLAGS`, and the pipe's ends.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// Variables that hold the flags, and what they are to be.
    pub(super) variables: Vec<(&'static str, String)>,
    /// Those that are there already, without what they say of a jobserver: for who gets none.
    pub(super) without: Vec<(&'static str, String)>,
    /// (ours, its number)
    pub(super) fds: Vec<(RawFd, u32)>,
    /// The descriptors named there, where they are ours.
    _ends: Option<Arc<(OwnedFd, OwnedFd)>>,
}

impl Offer {
    /// What `MAKEFLAGS` is for nodes.
    pub(super) fn makeflags(&self) -> Option<&str> {
        let first = self.variables.first()?;
        Some(&first.1)
    }

    /// `auth`: of the jobserver; none where nodes get none. Variables that say so already are changed, and `MAKEFLAGS` is made.
    fn new(auth: Option<(&str, u32)>, inherited: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut offer = Offer::default();
        for name in ["MAKEFLAGS", "CARGO_MAKEFLAGS", "MFLAGS"] {
            let flags = inherited(name);
            if let Some(flags) = &flags {
                offer.without.push((name, makeflags::with(flags, None)));
            }
            if flags.is_some() || auth.is_some() && name == "MAKEFLAGS" {
                let flags = makeflags::with(&flags.unwrap_or_default(), auth);
                offer.variables.push((name, flags));
            }
        }
        offer
    }
}

/// The slots of a run, and what its nodes get to know of them: those of the make around it, or our own.
///
/// # Errors
/// There are no descriptors left for a pipe.
pub fn slots(
    outer: Option<Box<Client>>,
    plan: &Plan,
    jobs: u32,
    inherited: &dyn Fn(&str) -> Option<String>,
) -> io::Result<(Option<Jobserver>, Offer)> {
    let numbers = free_numbers(plan);
    let jobserver = |pipe, held, owner| Jobserver { pipe, held, owner };
    if let Some(client) = outer {
        let jobs = client.jobs.unwrap_or(jobs);
        let (auth, fds) = match client.auth {
            Auth::Pipe(read, write) => {
                let [r, w] = numbers;
                (format!("{r},{w}"), vec![(read, r), (write, w)])
            }
            Auth::Fifo(path) => (format!("fifo:{}", path.display()), Vec::new()),
        };
        let auth = Some((auth.as_str(), jobs)).filter(|_| plan.jobserver != JobserverStyle::None);
        let mut offer = Offer::new(auth, inherited);
        if auth.is_some() {
            offer.fds = fds;
        }
        let slots = jobserver(client.pipe, Vec::new(), Owner::Outer(client.debt));
        return Ok((Some(slots), offer));
    }
    if plan.jobserver == JobserverStyle::None {
        return Ok((None, Offer::new(None, inherited)));
    }
    let Pipe { read, write } = Pipe::new(PIPE)?;
    let pipe = TokenPipe::of_fd(read.as_raw_fd())?;
    let [r, w] = numbers;
    let (auth, fds) = match plan.jobserver {
        // A name that is there as long as we are, and leaves nothing behind.
        JobserverStyle::Fifo => {
            let auth = format!("fifo:/proc/{}/fd/{}", std::process::id(), read.as_raw_fd());
            (auth, Vec::new())
        }
        JobserverStyle::Pipe | JobserverStyle::None => (
            format!("{r},{w}"),
            vec![(read.as_raw_fd(), r), (write.as_raw_fd(), w)],
        ),
    };
    let mut offer = Offer::new(Some((&auth, jobs)), inherited);
    offer.fds = fds;
    offer._ends = Some(Arc::new((read, write)));
    let all = jobs.saturating_sub(1) as usize;
    let slots = jobserver(pipe, vec![TOKEN; all], Owner::Own(all));
    Ok((Some(slots), offer))
}

/// Two numbers that are no end of any node. From 10 on: those below are what scripts take by themselves (`exec 3> file`).
fn free_numbers(plan: &Plan) -> [u32; 2] {
    let ends = |ends: &Ends| -> Vec<u32> {
        let inputs = ends.inputs.iter().flat_map(|input| &input.from);
        let outputs = ends.outputs.iter().map(|output| output.fd);
        inputs.map(|(fd, _)| *fd).chain(outputs).collect()
    };
    let taken = plan.units.iter().flat_map(|unit| ends(&unit.ends));
    let mut taken: Vec<u32> = taken.filter(|fd| *fd >= 10).collect();
    taken.sort_unstable();
    taken.dedup();
    let mut free = (10..).filter(|number| taken.binary_search(number).is_err());
    // There is always a next one.
    std::array::from_fn(|_| free.next().unwrap_or(u32::MAX))
}
