//! How a thread of ours, that of a relay or of a pool, says something to the loop.

use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};

/// Where such a thread says what it has to say.
#[derive(Debug)]
pub struct Events<E> {
    /// Comes with each event.
    pub id: u64,
    /// Takes the event.
    pub sender: mpsc::Sender<(u64, E)>,
    /// An eventfd(2) that is written to after each event, or several.
    pub wake: Arc<OwnedFd>,
}

// Not derived: that would ask for events that can be cloned.
impl<E> Clone for Events<E> {
    fn clone(&self) -> Self {
        Events {
            id: self.id,
            sender: self.sender.clone(),
            wake: Arc::clone(&self.wake),
        }
    }
}

impl<E> Events<E> {
    /// Says something, and lets it be heard.
    pub(crate) fn send(&self, event: E) {
        self.post(event);
        self.wake();
    }

    /// Says something, which is heard at the next [`Events::wake`].
    pub(crate) fn post(&self, event: E) {
        // Nobody listens any more.
        let _ = self.sender.send((self.id, event));
    }

    /// Lets what was said be heard.
    pub(crate) fn wake(&self) {
        // EAGAIN: the loop is awake already.
        let _ = nix::unistd::write(&*self.wake, &1u64.to_ne_bytes());
    }
}
