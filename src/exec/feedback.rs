//! Ends cycles: a queue that leads back to its own writers never ends by itself.

use crate::exec::runner::Runner;

impl Runner<'_> {
    /// Some pool has nothing in hand: perhaps nothing is in hand anywhere on its cycle.
    pub(super) fn look_for_end_of_cycles(&mut self) {}
}
