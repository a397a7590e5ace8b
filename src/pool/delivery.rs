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
        if let Some(parts) = order.extend(first, count)
            && let [part] = &mut parts[..]
        {
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
