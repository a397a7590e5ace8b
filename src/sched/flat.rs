//! Lists of lists in two vectors: 24 bytes for each inner `Vec`, and its allocation, are too many for 100,000 nodes.

use std::ops::Range;

/// For each index a slice.
#[derive(Debug)]
pub(super) struct Flat<T> {
    /// Slice `i` is `items[starts[i]..starts[i + 1]]`.
    starts: Vec<u32>,
    items: Vec<T>,
}

impl<T: Copy> Flat<T> {
    /// From pairs of an index below `len` and an item; the items of an index keep their order. Linear.
    pub fn new(len: usize, pairs: &[(u32, T)]) -> Self {
        let mut starts = vec![0_u32; len + 1];
        for (index, _) in pairs {
            starts[*index as usize + 1] += 1;
        }
        for i in 0..len {
            starts[i + 1] += starts[i];
        }
        let mut next = starts.clone();
        let mut items: Vec<T> = match pairs.first() {
            Some((_, any)) => vec![*any; pairs.len()],
            None => Vec::new(),
        };
        for (index, item) in pairs {
            let at = &mut next[*index as usize];
            items[*at as usize] = *item;
            *at += 1;
        }
        Flat { starts, items }
    }

    /// Where in [`Flat::at`] the items of `index` are: to walk them while their owner changes.
    pub fn range(&self, index: usize) -> Range<usize> {
        self.starts[index] as usize..self.starts[index + 1] as usize
    }

    /// The item at a position of a [`Flat::range`].
    pub fn at(&self, position: usize) -> T {
        self.items[position]
    }

    pub fn of(&self, index: usize) -> &[T] {
        &self.items[self.range(index)]
    }
}

#[cfg(test)]
mod tests {
    use crate::sched::flat::Flat;

    #[test]
    fn keeps_each_lists_order() {
        let flat = Flat::new(4, &[(2, 'x'), (0, 'a'), (2, 'y'), (3, 'k'), (0, 'b')]);
        let lists: Vec<&[char]> = (0..4).map(|i| flat.of(i)).collect();
        assert_eq!(lists, [&['a', 'b'][..], &[], &['x', 'y'], &['k']]);
        assert_eq!(Flat::<char>::new(1, &[]).of(0), &[] as &[char]);
    }
}
