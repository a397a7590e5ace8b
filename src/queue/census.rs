//! [`Census`]: how many records go by where not all bytes are looked at.
//!
//! What splice(2) and tee(2) move is never seen, so its records can't be counted. But some of it is seen, a page of each block or
//! now and then one, and the rest has about as many records in as many bytes. Who is told of such a number is told that it is
//! an estimate ([`Counters::estimate`](crate::queue::counts::Counters::estimate)).
//!
//! *Tried before:* no number at all. People look at a queue to see whether it moves and how many records are left; for that a
//! number that is right to some percent is as good, and it costs a thousandth.

/// What was seen so far, and so what may be taken for granted of the rest.
#[derive(Debug, Default)]
pub(crate) struct Census {
    bytes: u64,
    ends: u64,
}

impl Census {
    /// Records in `unseen` bytes and in `seen` others, in which so many end.
    pub fn count(&mut self, seen: usize, ends: u64, unseen: usize) -> u64 {
        self.bytes += seen as u64;
        self.ends += ends;
        ends + self.guess(unseen)
    }

    fn guess(&self, unseen: usize) -> u64 {
        if self.bytes == 0 {
            return 0;
        }
        let guess = u128::from(self.ends) * unseen as u128 / u128::from(self.bytes);
        u64::try_from(guess).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use crate::queue::census::Census;

    #[test]
    fn what_is_not_seen_is_like_what_is() {
        let mut census = Census::default();
        assert_eq!(census.count(0, 0, 1000), 0);
        assert_eq!(census.count(100, 10, 0), 10);
        assert_eq!(census.count(0, 0, 1000), 100);
        assert_eq!(census.count(100, 0, 1000), 50);
        assert_eq!(census.count(0, 0, usize::MAX), (usize::MAX / 20) as u64);
    }
}
