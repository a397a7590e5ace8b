//! Results on their way out: in the order of the records, where that is asked for, and as they are done, where it is not.

use std::io;

use crate::pool::outlet::Outlet;
use crate::pool::reorder::Reorder;
use crate::pool::shelf::{Held, Shelf};

/// What one result has for one output.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// Its bytes.
    pub data: Held,
    /// What it lacks at its end.
    pub missing: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// What a worker writes to standard output, then what it writes to the outputs that are held back.
    pub outlets: Vec<Outlet>,
    /// What is held back, here and elsewhere in the pool.
    pub shelf: Shelf,
    order: Option<Reorder<Vec<Part>>>,
}

impl Delivery {
    pub fn new(outlets: Vec<Outlet>, shelf: Shelf, is_ordered: bool) -> Delivery {
        Delivery {
            outlets,
            shelf,
            order: is_ordered.then(Reorder::new),
        }
    }

    /// Results leave in the order of the records.
    pub fn is_ordered(&self) -> bool {
        self.order.is_some()
    }

    /// No more results are to be made before some have left.
    pub fn is_full(&self) -> bool {
        self.outlets.iter().any(Outlet::is_full)
    }

    /// All that can leave has left.
    pub fn is_empty(&self) -> bool {
        self.outlets.iter().all(Outlet::is_empty)
    }

    /// The only output's bytes of these records; the last record lacks `missing` at its end.
    ///
    /// # Errors
    /// An output or the file for what is held back fails.
    pub fn pass(
        &mut self,
        first: u64,
        count: u64,
        data: &[u8],
        missing: Vec<u8>,
    ) -> io::Result<()> {
        let Some(order) = &mut self.order else {
            return self.outlets[0].put(data, missing, &mut self.shelf);
        };
        if order.pass(first, count) {
            self.outlets[0].put(data, missing, &mut self.shelf)?;
            return self.follow();
        }
        if let Some(parts) = order.extend(first, count) {
            // Of a dead record before it there is none. It counts as held with this one now, so this must go in there.
            if parts.is_empty() {
                parts.push(Part::default());
            }
            let [part] = &mut parts[..] else {
                panic!("BUG: {} parts for one output", parts.len());
            };
            let before = std::mem::take(&mut part.missing);
            part.data.push(&before, &mut self.shelf)?;
            part.data.push(data, &mut self.shelf)?;
            part.missing = missing;
            return Ok(());
        }
        let mut held = Held::default();
        held.push(data, &mut self.shelf)?;
        let part = Part {
            data: held,
            missing,
        };
        order.hold(first, count, vec![part]);
        Ok(())
    }

    /// The result of these records, a part for each output; none of records that have no result.
    ///
    /// # Errors
    /// As [`Delivery::pass`].
    pub fn pass_held(&mut self, first: u64, count: u64, parts: Vec<Part>) -> io::Result<()> {
        let is_next = self
            .order
            .as_mut()
            .is_none_or(|order| order.pass(first, count));
        if is_next {
            self.put(parts)?;
            self.follow()
        } else {
            if let Some(order) = &mut self.order {
                order.hold(first, count, parts);
            }
            Ok(())
        }
    }

    /// What was held for what has just left goes, too.
    fn follow(&mut self) -> io::Result<()> {
        while let Some(parts) = self.order.as_mut().and_then(Reorder::pop) {
            self.put(parts)?;
        }
        Ok(())
    }

    fn put(&mut self, parts: Vec<Part>) -> io::Result<()> {
        for (outlet, part) in self.outlets.iter_mut().zip(parts) {
            if outlet.is_closed() {
                part.data.drop(&mut self.shelf)?;
            } else {
                outlet.put_held(part.data, part.missing, &mut self.shelf)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

    use std::io::Read;

    use crate::pool::PoolOutput;
    use crate::pool::delivery::Delivery;
    use crate::pool::outlet::Outlet;
    use crate::pool::shelf::Shelf;
    use crate::spec::Records;

    /// Where a result is held behind a dead record, and both wait for the one before them.
    #[test]
    fn a_dead_record_takes_no_result_along() {
        let (mut read, write) = std::io::pipe().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let outlet = Outlet::new(PoolOutput {
            fd: write.into(),
            records: Records::Lines,
            always_terminated: false,
        });
        let shelf = Shelf::new(dir.path().to_owned(), 1000);
        let mut delivery = Delivery::new(vec![outlet.unwrap()], shelf, true);
        delivery.pass_held(1, 1, Vec::new()).unwrap();
        delivery.pass(2, 1, b"c\n", Vec::new()).unwrap();
        delivery.pass_held(3, 1, Vec::new()).unwrap();
        delivery.pass_held(4, 1, Vec::new()).unwrap();
        delivery.pass(5, 2, b"f\ng\n", Vec::new()).unwrap();
        delivery.pass(0, 1, b"a\n", Vec::new()).unwrap();
        delivery.pass(7, 1, b"h\n", Vec::new()).unwrap();
        assert!(delivery.is_empty());
        drop(delivery);
        let mut found = String::new();
        read.read_to_string(&mut found).unwrap();
        assert_eq!(found, "a\nc\nf\ng\nh\n");
    }
}
