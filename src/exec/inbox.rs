//! What the loop hears of threads of ours: of relays, and of pools.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::queue::Events;

/// Takes what threads of one kind say.
#[derive(Debug)]
pub struct Inbox<E> {
    /// The number of the last thread. None is used twice: what is said by one that is gone finds nothing.
    last: u64,
    sender: Sender<(u64, E)>,
    receiver: Receiver<(u64, E)>,
    wake: Arc<OwnedFd>,
}

impl<E> Inbox<E> {
    /// For no thread yet.
    ///
    /// # Errors
    /// Where there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        let (sender, receiver) = channel();
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Inbox {
            last: 0,
            sender,
            receiver,
            wake: Arc::new(wake.into()),
        })
    }

    /// Readable when one has something to say.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// For one more thread, with a number of its own.
    pub fn events(&mut self) -> Events<E> {
        self.last += 1;
        Events {
            id: self.last,
            sender: self.sender.clone(),
            wake: Arc::clone(&self.wake),
        }
    }

    /// The next thing that one says. Call it until there is nothing more.
    pub fn next(&self) -> Option<(u64, E)> {
        self.receiver.try_recv().ok().or_else(|| {
            // Read first and asked again after, so that a word said in between is not slept over.
            let mut count = [0; 8];
            let _ = nix::unistd::read(&*self.wake, &mut count);
            self.receiver.try_recv().ok()
        })
    }

    /// The next thing that one says; waits for it.
    pub fn wait(&self) -> (u64, E) {
        match self.receiver.recv() {
            Ok(event) => event,
            Err(_) => panic!("BUG: no sender, but we have one"),
        }
    }
}
