//! The next tree is asked for while points go through this one.

use super::simd::{SORT_FROM, prefetch_second};
use super::{Kernel, LANES};
use crate::forest::Forest;

/// Bytes of a line of the cache.
pub(super) const LINE_BYTES: usize = 64;
/// Points from which on a whole tree is asked for ahead: fewer see too little of it.
const PREFETCH_FROM: usize = 32;

/// The arrays of the tree whose turn comes next, asked for piece by piece while points go through this
/// one. A batch that a function is handed finds the forest in no cache: other work has been there since,
/// and a forest is larger than the near caches anyway.
pub(super) struct NextTree {
    /// What is still to be asked for: an address, and how many lines of the cache from there on.
    stretches: [(*const u8, usize); 6],
    /// Lines at a time, so that the last are asked for with the last points.
    step: usize,
}

impl NextTree {
    /// The tree at an index, if there is one, of a batch of so many points.
    pub(super) fn new(
        kernel: &Kernel,
        forest: &Forest,
        at: usize,
        points: usize,
        width: usize,
    ) -> Self {
        let mut next = Self { stretches: [(std::ptr::null(), 0); 6], step: 0 };
        let Some(tree) = kernel.trees.get(at) else { return next };
        if points < PREFETCH_FROM {
            return next;
        }
        fn lines<T>(of: &[T]) -> (*const u8, usize) {
            (of.as_ptr().cast(), size_of_val(of).div_ceil(LINE_BYTES))
        }
        let end = kernel.trees.get(at + 1).map_or(kernel.blocks.len(), |tree| tree.block);
        let (from, to) = (tree.leaf, tree.leaf + tree.leaves);
        let columns = if points >= SORT_FROM { from..to } else { from..from };
        next.stretches = [
            lines(&kernel.blocks[tree.block..end]),
            lines(&kernel.paths[from..to]),
            lines(&forest.points[from * width / 2..to * width / 2]),
            lines(&forest.boxes[from * width..to * width]),
            // Only points that climb together read these.
            lines(&kernel.parents[columns.clone()]),
            lines(&kernel.ranges[columns]),
        ];
        let all: usize = next.stretches.iter().map(|(_, lines)| lines).sum();
        next.step = all.div_ceil(points / LANES);
        next
    }

    /// Asks for the next few lines.
    #[inline(always)]
    pub(super) fn prefetch(&mut self) {
        let mut left = self.step;
        for (at, lines) in &mut self.stretches {
            let now = left.min(*lines);
            for _ in 0..now {
                // The first cache is this tree's.
                prefetch_second(*at);
                *at = at.wrapping_add(LINE_BYTES);
            }
            *lines -= now;
            left -= now;
        }
    }
}
