//! The pipes that units write their logs to, used again where that is safe.
//!
//! Making two pipes and closing them costs a third of what starting a small program does, most of it in cold memory of the
//! kernel's. A pipe can serve another unit only when nobody of the last one's can write to it any more. There is one moment
//! at which the kernel says so: when this process has no child left at all (waitid(2): ECHILD). It is a subreaper, so whatever
//! a unit has left, a daemon too, would be its child then. That moment comes after each node of a chain, and seldom otherwise,
//! which is where it is needed: wide graphs keep all CPUs busy as it is.

use std::io;

use crate::sys::pipe::{Pipe, set_blocking};

/// So many are kept: a chain's node has two.
const SPARE: usize = 16;

/// The pipes that wait for another unit.
#[derive(Debug, Default)]
pub struct LogPipes {
    /// Nobody but us has an end of these, and they are empty.
    spare: Vec<Pipe>,
    /// Their units have ended, and all has been read.
    spent: Vec<Pipe>,
}

impl LogPipes {
    /// One for a unit. Its read end does not wait.
    ///
    /// # Errors
    /// As pipe(2).
    pub fn take(&mut self) -> io::Result<Pipe> {
        match self.spare.pop() {
            Some(pipe) => {
                // The last unit may have made it non-blocking, for everybody who has this end.
                set_blocking(&pipe.write)?;
                Ok(pipe)
            }
            None => Pipe::to_here(),
        }
    }

    /// Its unit has ended, and all that the unit wrote has been read.
    pub fn give_back(&mut self, pipe: Pipe) {
        self.spent.push(pipe);
    }

    /// Every process that has ended has been reaped; `alone`: there is no other.
    pub fn sort_out(&mut self, alone: bool) {
        if alone {
            let room = SPARE - self.spare.len().min(SPARE);
            self.spent.truncate(room);
            self.spare.append(&mut self.spent);
        } else {
            self.spent.clear();
        }
    }
}
