//! The kernel with AVX2 and FMA: the one place with `unsafe`.
//!
//! Its twin is [`Kernel::add_scores_plainly`]; `kernel::tests` hold both to the formulas. Every index
//! here comes from arrays that [`Kernel::new`] filled from a checked forest; each `SAFETY` comment says
//! from which.
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::hint::select_unpredictable;

use super::ahead::{LINE_BYTES, NextTree};
use super::{Block, EXITS, Kernel, KernelTree, LANES, LEAF_BIT, Path};
use crate::forest::Forest;

/// True if this machine has what the rest needs.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Runs code that is inlined here. Only where [`is_available`].
#[inline]
pub(super) fn with_vectors<T>(work: impl FnOnce() -> T) -> T {
    assert!(is_available());
    #[target_feature(enable = "avx2")]
    fn run<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    // SAFETY: the feature is there.
    unsafe { run(work) }
}

/// Adds what each tree says of each row. Only where [`is_available`].
pub(super) fn add_scores(kernel: &Kernel, forest: &Forest, rows: &[f32], sums: &mut [f32]) {
    assert!(is_available());
    assert_eq!(rows.len(), sums.len() * 2 * forest.half);
    // SAFETY: the features are there; the rows are as many as the sums, each as wide as the boxes;
    // and `V`, where it is given, is their number of vectors.
    unsafe {
        match forest.half {
            4 => match forest.dimensions {
                1 => add_all::<1, 1>(kernel, forest, rows, sums),
                2 => add_all::<1, 2>(kernel, forest, rows, sums),
                3 => add_all::<1, 3>(kernel, forest, rows, sums),
                _ => add_all::<1, 4>(kernel, forest, rows, sums),
            },
            8 => add_all::<2, 0>(kernel, forest, rows, sums),
            16 => add_all::<4, 0>(kernel, forest, rows, sums),
            32 => add_all::<8, 0>(kernel, forest, rows, sums),
            _ => add_all::<0, 0>(kernel, forest, rows, sums),
        }
    }
}

/// `V` is the number of vectors of a row, its width / 8, or 0 where it is known only at run time; `D`
/// the dimensions where they are at most four, else 0.
///
/// # Safety
/// AVX2 and FMA; `rows` has `2 * half` floats for each of `sums`.
#[target_feature(enable = "avx2,fma")]
unsafe fn add_all<const V: usize, const D: usize>(
    kernel: &Kernel,
    forest: &Forest,
    rows: &[f32],
    sums: &mut [f32],
) {
    let width = if V == 0 { 2 * forest.half } else { 8 * V };
    let whole = sums.len() / LANES * LANES;
    let (sums, rest) = sums.split_at_mut(whole);
    let (rows, rest_rows) = rows.split_at(whole * width);
    let mut order = Order::new(sums.len());
    // SAFETY: a row of `width` floats for each sum.
    unsafe {
        // All points in one tree.
        for (at, tree) in kernel.trees.iter().enumerate() {
            let mut next = NextTree::new(kernel, forest, at + 1, sums.len(), width);
            let lanes = |points| Points {
                tree,
                blocks: kernel.blocks.as_ptr().add(tree.block),
                boxes: forest.boxes.as_ptr().add(tree.leaf * width),
                leaf_points: forest.points.as_ptr().add(tree.leaf * width / 2),
                rows: rows.as_ptr(),
                points,
            };
            let (leaves, _) = order.leaves.as_chunks_mut::<LANES>();
            for (leaves, points) in leaves.iter_mut().zip(order.identity.as_chunks().0) {
                next.prefetch();
                *leaves = descend::<V>(&lanes(*points), tree.steps, width);
            }
            let sorted = sums.len() >= SORT_FROM;
            if sorted {
                order.sort(tree.leaves);
            }
            if D > 0 && sorted {
                let mut from = 0;
                for (leaf, &to) in order.ends.iter().enumerate() {
                    let of_leaf = &order.sorted[from as usize..to as usize];
                    from = to;
                    for points in of_leaf.chunks(LANES) {
                        let each = std::array::from_fn(|i| points.get(i).unwrap_or(&points[0]));
                        let rows = each.map(|&point| rows.as_ptr().add(point as usize * width));
                        let scores = climb_together::<D>(kernel, forest, tree, leaf, rows);
                        add(sums, points, tree.factor, scores);
                    }
                }
                continue;
            }
            let points = if sorted { &order.sorted } else { &order.identity };
            for points in points.as_chunks::<LANES>().0 {
                let leaves = points.map(|point| *order.leaves.get_unchecked(point as usize));
                let scores = climb::<V>(kernel, &lanes(*points), &leaves, width);
                add(sums, points, tree.factor, scores);
            }
        }
        // One point in eight trees: what is left of a batch, or all of a small one.
        for (sum, row) in rest.iter_mut().zip(rest_rows.chunks_exact(width)) {
            for trees in kernel.trees.chunks(LANES * AHEAD) {
                let sets = || {
                    let of = |trees| Trees::new(kernel, forest, trees, row.as_ptr(), width);
                    trees.chunks(LANES).map(move |trees| (trees, of(trees)))
                };
                // All the ways down first, so that what the ways up will read is known early.
                let mut leaves = [[0; LANES]; AHEAD];
                for ((trees, lanes), leaves) in sets().zip(&mut leaves) {
                    let steps = trees.iter().map(|tree| tree.steps).max().unwrap_or(0);
                    *leaves = descend::<V>(&lanes, steps, width);
                    for (lane, &leaf) in leaves.iter().enumerate() {
                        prefetch(kernel.paths.as_ptr().add(lanes.tree(lane).leaf + leaf as usize));
                        prefetch(lanes.leaf_points(lane).add(leaf as usize * width / 2));
                    }
                }
                let mut ahead = sets().zip(&leaves);
                let mut fetch_boxes = || {
                    let Some(((_, lanes), leaves)) = ahead.next() else { return };
                    for (lane, &leaf) in leaves.iter().enumerate() {
                        let path = lanes.tree(lane).leaf + leaf as usize;
                        for &offset in &kernel.paths.get_unchecked(path).boxes {
                            for at in (0..width).step_by(LINE) {
                                prefetch(lanes.boxes(lane).add(offset as usize + at));
                            }
                        }
                    }
                };
                fetch_boxes();
                for ((trees, lanes), leaves) in sets().zip(&leaves) {
                    fetch_boxes();
                    let scores = as_array(climb::<V>(kernel, &lanes, leaves, width));
                    // One after the other and fused, as `add` does.
                    for (tree, score) in trees.iter().zip(scores) {
                        *sum = score.mul_add(tree.factor, *sum);
                    }
                }
            }
        }
    }
}

/// Sets of eight trees that a single point goes down through before it climbs in the first of them.
const AHEAD: usize = 16;
/// Floats of a line of the cache.
const LINE: usize = LINE_BYTES / size_of::<f32>();

/// Asks for the line of the cache at an address, which may be any, and waits for nothing.
#[inline(always)]
fn prefetch<T>(at: *const T) {
    // SAFETY: a hint; it reads nothing that could be seen.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

/// The same, but into the second cache.
#[inline(always)]
pub(super) fn prefetch_second(at: *const u8) {
    // SAFETY: a hint; it reads nothing that could be seen.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
}

/// Adds what a tree says of up to eight points.
///
/// # Safety
/// FMA; `points` are indexes of `sums`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add(sums: &mut [f32], points: &[u32], factor: f32, scores: __m256) {
    for (&point, score) in points.iter().zip(as_array(scores)) {
        // SAFETY: the caller's promise.
        let sum = unsafe { sums.get_unchecked_mut(point as usize) };
        *sum = score.mul_add(factor, *sum);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn as_array(vector: __m256) -> [f32; LANES] {
    let mut array = [0.0; LANES];
    // SAFETY: eight floats.
    unsafe { _mm256_storeu_ps(array.as_mut_ptr(), vector) };
    array
}

/// Points from which on it is worth to sort them by their leaf: then those that see the same boxes
/// follow one another.
pub(super) const SORT_FROM: usize = 1024;

/// The points of a chunk by the leaf that they fall on.
struct Order {
    /// Each point's leaf in the tree whose turn it is.
    leaves: Vec<u32>,
    /// 0, 1, 2, ...
    identity: Vec<u32>,
    /// The points, leaf by leaf, and where those of each leaf end.
    sorted: Vec<u32>,
    ends: Vec<u32>,
}

impl Order {
    #[expect(clippy::cast_possible_truncation, reason = "at most CHUNK points")]
    fn new(points: usize) -> Self {
        Self {
            leaves: vec![0; points],
            identity: (0..points as u32).collect(),
            sorted: vec![0; points],
            ends: Vec::new(),
        }
    }

    /// Sorts the points by their leaf, by counting.
    fn sort(&mut self, leaves: usize) {
        self.ends.clear();
        self.ends.resize(leaves, 0);
        for &leaf in &self.leaves {
            self.ends[leaf as usize] += 1;
        }
        let mut from = 0;
        for end in &mut self.ends {
            (*end, from) = (from, from + *end);
        }
        for (&leaf, &point) in self.leaves.iter().zip(&self.identity) {
            let end = &mut self.ends[leaf as usize];
            self.sorted[*end as usize] = point;
            *end += 1;
        }
    }
}

/// The box of a point of four floats.
///
/// # Safety
/// AVX2; four floats.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn box_of_four(point: *const f32) -> __m256 {
    // SAFETY: the caller's promise.
    let point = unsafe { _mm_loadu_ps(point) };
    _mm256_xor_ps(
        _mm256_set_m128(point, point),
        _mm256_set_ps(0.0, 0.0, 0.0, 0.0, -0.0, -0.0, -0.0, -0.0),
    )
}

/// What a tree with at most four dimensions says of eight points that fell on the same leaf, before
/// its factor: a vector holds a coordinate of each.
///
/// # Safety
/// AVX2 and FMA; a kernel with `half` of 4, the leaf its tree's, rows of eight floats.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn climb_together<const D: usize>(
    kernel: &Kernel,
    forest: &Forest,
    tree: &KernelTree,
    leaf: usize,
    rows: [*const f32; LANES],
) -> __m256 {
    // SAFETY: there is a path and a point for each leaf; ranks and parents are below the tree's number
    // of boxes, and above the root the last holds everything, one value of `unseen` behind the root's.
    unsafe {
        let columns = transpose(rows.map(|row| _mm256_loadu_ps(row)));
        let path = kernel.paths.get_unchecked(tree.leaf + leaf);
        let parents = kernel.parents.as_ptr().add(tree.leaf);
        let ranges = kernel.ranges.as_ptr().add(tree.leaf);
        let boxes = forest.boxes.as_ptr().add(tree.leaf * 8);
        let mut unseen = kernel.unseen.as_ptr().add(kernel.unseen_from(path));
        let mut scores = _mm256_set1_ps(path.seen);
        let leaf_box = as_array(box_of_four(forest.points.as_ptr().add((tree.leaf + leaf) * 4)));
        let (mut bounds, mut range) = (leaf_box.as_ptr(), 0.0);
        let mut rank = path.boxes[0] as usize / 8;
        loop {
            let gap = |i: usize| {
                let bound = _mm256_broadcast_ss(&*bounds.add(i));
                _mm256_max_ps(_mm256_sub_ps(columns[i], bound), _mm256_setzero_ps())
            };
            // In the order in which `levels` adds them: a record's score must not depend on its batch.
            let sum = |from: usize| match D {
                1 => gap(from),
                2 => _mm256_add_ps(gap(from), gap(from + 1)),
                3 => _mm256_add_ps(_mm256_add_ps(gap(from), gap(from + 1)), gap(from + 2)),
                _ => _mm256_add_ps(
                    _mm256_add_ps(gap(from), gap(from + 1)),
                    _mm256_add_ps(gap(from + 2), gap(from + 3)),
                ),
            };
            let out = _mm256_add_ps(sum(0), sum(4));
            let has_gap = _mm256_cmp_ps::<_CMP_GT_OQ>(out, _mm256_setzero_ps());
            if _mm256_movemask_ps(has_gap) == 0 {
                return scores;
            }
            let (said, kept) =
                separation(out, _mm256_set1_ps(range), _mm256_broadcast_ss(&*unseen));
            scores = _mm256_fmadd_ps(kept, scores, said);
            (bounds, range) = (boxes.add(rank * 8), *ranges.add(rank));
            rank = *parents.add(rank) as usize;
            unseen = unseen.add(1);
        }
    }
}

/// Eight pairs of a point and a tree that are worked on together.
trait Lanes {
    /// The lane's tree.
    fn tree(&self, lane: usize) -> &KernelTree;
    /// The tree's first block.
    fn blocks(&self, lane: usize) -> *const Block;
    /// The tree's first box.
    fn boxes(&self, lane: usize) -> *const f32;
    /// The point of the tree's first leaf.
    fn leaf_points(&self, lane: usize) -> *const f32;
    /// The lane's point, a row of `width` floats.
    fn row(&self, lane: usize, width: usize) -> *const f32;
}

/// Eight points in one tree.
struct Points<'k> {
    tree: &'k KernelTree,
    blocks: *const Block,
    boxes: *const f32,
    leaf_points: *const f32,
    rows: *const f32,
    points: [u32; LANES],
}

impl Lanes for Points<'_> {
    #[inline(always)]
    fn tree(&self, _: usize) -> &KernelTree {
        self.tree
    }
    #[inline(always)]
    fn blocks(&self, _: usize) -> *const Block {
        self.blocks
    }
    #[inline(always)]
    fn boxes(&self, _: usize) -> *const f32 {
        self.boxes
    }
    #[inline(always)]
    fn leaf_points(&self, _: usize) -> *const f32 {
        self.leaf_points
    }
    #[inline(always)]
    fn row(&self, lane: usize, width: usize) -> *const f32 {
        self.rows.wrapping_add(self.points[lane] as usize * width)
    }
}

/// One point in eight trees.
struct Trees<'k> {
    trees: [&'k KernelTree; LANES],
    blocks: [*const Block; LANES],
    boxes: [*const f32; LANES],
    leaf_points: [*const f32; LANES],
    row: *const f32,
}

impl<'k> Trees<'k> {
    /// Of one to eight trees; lanes without one go through the first again, for nothing.
    ///
    /// # Safety
    /// Trees of the kernel, which is the forest's, as `width` is that of its boxes.
    #[inline(always)]
    unsafe fn new(
        kernel: &Kernel,
        forest: &Forest,
        trees: &'k [KernelTree],
        row: *const f32,
        width: usize,
    ) -> Self {
        let trees = std::array::from_fn(|lane| trees.get(lane).unwrap_or(&trees[0]));
        // SAFETY: a tree's first block, box and leaf are in their arrays.
        unsafe {
            Self {
                trees,
                blocks: trees.map(|tree| kernel.blocks.as_ptr().add(tree.block)),
                boxes: trees.map(|tree| forest.boxes.as_ptr().add(tree.leaf * width)),
                leaf_points: trees.map(|tree| forest.points.as_ptr().add(tree.leaf * width / 2)),
                row,
            }
        }
    }
}

impl Lanes for Trees<'_> {
    #[inline(always)]
    fn tree(&self, lane: usize) -> &KernelTree {
        self.trees[lane]
    }
    #[inline(always)]
    fn blocks(&self, lane: usize) -> *const Block {
        self.blocks[lane]
    }
    #[inline(always)]
    fn boxes(&self, lane: usize) -> *const f32 {
        self.boxes[lane]
    }
    #[inline(always)]
    fn leaf_points(&self, lane: usize) -> *const f32 {
        self.leaf_points[lane]
    }
    #[inline(always)]
    fn row(&self, _: usize, _: usize) -> *const f32 {
        self.row
    }
}

/// The child of a block that a point goes to.
///
/// # Safety
/// AVX2; `row` has `width` floats and the block is of a kernel of that width.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn step<const V: usize>(block: &Block, row: *const f32, width: usize) -> u32 {
    // SAFETY: the block's coordinates are below `width`; a block is aligned to 32 bytes; eight bits
    // with those of `flips` are below 512; a way out is below 8.
    unsafe {
        let coordinates = _mm256_load_si256(block.coordinates.as_ptr().cast());
        // By the lower three bits of the coordinates, from one vector of the row.
        let from = |back: usize| {
            _mm256_permutevar8x32_ps(_mm256_loadu_ps(row.add(width - 8 * back)), coordinates)
        };
        let bit = |places| {
            _mm256_castsi256_ps(_mm256_sll_epi32(coordinates, _mm_cvtsi32_si128(31 - places)))
        };
        // Several permutations and a choice by the other bits are faster than a gather.
        let x = match V {
            1 | 2 => from(1),
            4 => _mm256_blendv_ps(from(2), from(1), bit(3)),
            8 => _mm256_blendv_ps(
                _mm256_blendv_ps(from(4), from(3), bit(3)),
                _mm256_blendv_ps(from(2), from(1), bit(3)),
                bit(4),
            ),
            _ => _mm256_i32gather_ps::<4>(row, coordinates),
        };
        let right = _mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_load_ps(block.cuts.as_ptr()));
        let bits = _mm256_movemask_ps(right).cast_unsigned() ^ block.flips;
        let exit = *EXITS.get_unchecked(bits as usize);
        *block.children.get_unchecked(usize::from(exit))
    }
}

/// The leaf where each lane's point falls.
///
/// # Safety
/// AVX2; trees of a kernel; rows of `width` floats; as many `steps` as the tree of most blocks needs.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn descend<const V: usize>(lanes: &impl Lanes, steps: usize, width: usize) -> [u32; LANES] {
    let mut at = [0_u32; LANES];
    for _ in 0..steps {
        let mut all = LEAF_BIT;
        for (lane, at) in at.iter_mut().enumerate() {
            // A point that has arrived looks at the root again and stays where it is: a branch here
            // would be mispredicted once a point.
            let arrived = *at & LEAF_BIT != 0;
            let offset = select_unpredictable(arrived, 0, *at as usize);
            // SAFETY: the offset of a child that is no leaf is that of a block of the tree.
            let next = unsafe {
                step::<V>(&*lanes.blocks(lane).byte_add(offset), lanes.row(lane, width), width)
            };
            *at = select_unpredictable(arrived, *at, next);
            all &= *at;
        }
        if all != 0 {
            break;
        }
    }
    at.map(|leaf| leaf & !LEAF_BIT)
}

/// What the trees say of points that fell on `leaves`, before their factors.
///
/// # Safety
/// As for [`descend`]; the leaves are the trees'.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn climb<const V: usize>(
    kernel: &Kernel,
    lanes: &impl Lanes,
    leaves: &[u32; LANES],
    width: usize,
) -> __m256 {
    let (mut said, mut kept) = ([_mm256_setzero_ps(); LANES], [_mm256_setzero_ps(); LANES]);
    let mut seen = [0.0_f32; LANES];
    // SAFETY: there is a path for each leaf; see `levels`.
    unsafe {
        for (lane, &leaf) in leaves.iter().enumerate() {
            let path = kernel.paths.get_unchecked(lanes.tree(lane).leaf + leaf as usize);
            // Half a path each: the first of the offsets and ranges are the leaf's, and something else.
            let [offsets, ranges] = *(&raw const *path).cast::<[[u32; LANES]; 2]>();
            let ranges = _mm256_castsi256_ps(_mm256_loadu_si256(ranges.as_ptr().cast()));
            let ranges = _mm256_blend_ps::<1>(ranges, _mm256_setzero_ps());
            let unseen = kernel.unseen.as_ptr().add(kernel.unseen_from(path));
            let (boxes, row) = (lanes.boxes(lane), lanes.row(lane, width));
            let leaf = lanes.leaf_points(lane).add(leaf as usize * width / 2);
            (said[lane], kept[lane]) =
                levels::<V, true>(boxes, &offsets, leaf, ranges, unseen, row, width);
            seen[lane] = path.seen;
        }
        // From a vector a point to a vector a level: then the levels follow one another for all
        // points at once.
        let (said, kept) = (transpose(said), transpose(kept));
        let mut scores = _mm256_loadu_ps(seen.as_ptr());
        for (&said, &kept) in said.iter().zip(&kept) {
            scores = _mm256_fmadd_ps(kept, scores, said);
        }
        let has_gap = _mm256_cmp_ps::<_CMP_LT_OQ>(kept[LANES - 1], _mm256_set1_ps(1.0));
        let mut has_gap = _mm256_movemask_ps(has_gap);
        if has_gap != 0 {
            let mut one_by_one = as_array(scores);
            while has_gap != 0 {
                let at = has_gap.trailing_zeros() as usize;
                has_gap &= has_gap - 1;
                one_by_one[at] = climb_on::<V>(
                    kernel,
                    lanes.tree(at),
                    lanes.boxes(at),
                    leaves[at],
                    lanes.row(at, width),
                    width,
                    one_by_one[at],
                );
            }
            scores = _mm256_loadu_ps(one_by_one.as_ptr());
        }
        scores
    }
}

/// Goes on from a leaf's eighth box, which doesn't hold the point.
///
/// # Safety
/// As for [`descend`]; the leaf is the tree's.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
unsafe fn climb_on<const V: usize>(
    kernel: &Kernel,
    tree: &KernelTree,
    first: *const f32,
    leaf: u32,
    row: *const f32,
    width: usize,
    mut score: f32,
) -> f32 {
    // SAFETY: there is a path for each leaf; ranks and parents are below the tree's number of
    // boxes. `unseen` ends with two vectors of zeros behind its last row, and a climb goes on only
    // from a box that doesn't hold the point, so at most one vector behind.
    unsafe {
        let parents = kernel.parents.as_ptr().add(tree.leaf);
        let of_rank = kernel.ranges.as_ptr().add(tree.leaf);
        let path: &Path = kernel.paths.get_unchecked(tree.leaf + leaf as usize);
        let mut unseen = kernel.unseen.as_ptr().add(kernel.unseen_from(path));
        let mut rank = path.boxes[LANES - 2] as usize / width;
        loop {
            let (mut ranges, mut boxes) = ([0.0_f32; LANES], [0_u32; LANES]);
            for (range, offset) in ranges.iter_mut().zip(&mut boxes) {
                rank = *parents.add(rank) as usize;
                *range = *of_rank.add(rank);
                *offset = (rank * width) as u32;
            }
            let ranges = _mm256_loadu_ps(ranges.as_ptr());
            unseen = unseen.add(LANES);
            let levels = levels::<V, false>(first, &boxes, first, ranges, unseen, row, width);
            let (said, kept) = (as_array(levels.0), as_array(levels.1));
            for (said, kept) in said.iter().zip(&kept) {
                score = kept.mul_add(score, *said);
            }
            let has_gap = kept[LANES - 1] < 1.0;
            if !has_gap {
                return score;
            }
        }
    }
}

/// For each of eight boxes: p * unseen, and 1 - p, with p the probability that a cut separates the
/// point from the box. With `LEAF` the first is that of a leaf's point.
///
/// # Safety
/// AVX2; `boxes` are offsets from a tree's `first` box, but for the first of them with `LEAF`; `leaf`
/// points to `width / 2` floats, `unseen` to eight, `row` to `width`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn levels<const V: usize, const LEAF: bool>(
    first: *const f32,
    boxes: &[u32; LANES],
    leaf: *const f32,
    ranges: __m256,
    unseen: *const f32,
    row: *const f32,
    width: usize,
) -> (__m256, __m256) {
    let zero = _mm256_setzero_ps();
    let mut gaps = [zero; LANES];
    // SAFETY: the caller's promises.
    let unseen = unsafe {
        // The maximum of NaN and 0 is its second operand.
        if V == 1 {
            let x = _mm256_loadu_ps(row);
            for (i, gap) in gaps.iter_mut().enumerate() {
                let bounds = if LEAF && i == 0 {
                    box_of_four(leaf)
                } else {
                    _mm256_loadu_ps(first.add(boxes[i] as usize))
                };
                *gap = _mm256_max_ps(_mm256_sub_ps(x, bounds), zero);
            }
        } else {
            let half = if V == 0 { width / 2 } else { 4 * V };
            for at in (0..half).step_by(8) {
                let (minus, plus) =
                    (_mm256_loadu_ps(row.add(at)), _mm256_loadu_ps(row.add(half + at)));
                for (i, gap) in gaps.iter_mut().enumerate() {
                    let (below, above) = if LEAF && i == 0 {
                        let point = _mm256_loadu_ps(leaf.add(at));
                        (_mm256_sub_ps(point, plus), _mm256_sub_ps(plus, point))
                    } else {
                        let bounds = first.add(boxes[i] as usize + at);
                        (
                            _mm256_sub_ps(minus, _mm256_loadu_ps(bounds)),
                            _mm256_sub_ps(plus, _mm256_loadu_ps(bounds.add(half))),
                        )
                    };
                    let out = _mm256_max_ps(_mm256_max_ps(below, above), zero);
                    *gap = if at == 0 { out } else { _mm256_add_ps(*gap, out) };
                }
            }
        }
        _mm256_loadu_ps(unseen)
    };
    let [a, b, c, d, e, f, g, h] = gaps;
    let low = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    let high = _mm256_hadd_ps(_mm256_hadd_ps(e, f), _mm256_hadd_ps(g, h));
    let out = _mm256_add_ps(
        _mm256_permute2f128_ps::<0x20>(low, high),
        _mm256_permute2f128_ps::<0x31>(low, high),
    );
    separation(out, ranges, unseen)
}

/// p * unseen and 1 - p, from gaps and ranges.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn separation(out: __m256, ranges: __m256, unseen: __m256) -> (__m256, __m256) {
    // A leaf has no range: for a point that equals it 0 / 0 must be 0.
    let has_gap = _mm256_cmp_ps::<_CMP_GT_OQ>(out, _mm256_setzero_ps());
    let p = _mm256_and_ps(_mm256_div_ps(out, _mm256_add_ps(out, ranges)), has_gap);
    (_mm256_mul_ps(p, unseen), _mm256_sub_ps(_mm256_set1_ps(1.0), p))
}

/// Rows to columns.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn transpose(rows: [__m256; LANES]) -> [__m256; LANES] {
    let [a, b, c, d, e, f, g, h] = rows;
    let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
    let (ef, gh) = (_mm256_unpacklo_ps(e, f), _mm256_unpacklo_ps(g, h));
    let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
    let (ef_high, gh_high) = (_mm256_unpackhi_ps(e, f), _mm256_unpackhi_ps(g, h));
    let first = [
        _mm256_shuffle_ps::<0x44>(ab, cd),
        _mm256_shuffle_ps::<0xee>(ab, cd),
        _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
        _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
    ];
    let last = [
        _mm256_shuffle_ps::<0x44>(ef, gh),
        _mm256_shuffle_ps::<0xee>(ef, gh),
        _mm256_shuffle_ps::<0x44>(ef_high, gh_high),
        _mm256_shuffle_ps::<0xee>(ef_high, gh_high),
    ];
    let mut columns = [_mm256_setzero_ps(); LANES];
    for (i, (first, last)) in first.into_iter().zip(last).enumerate() {
        columns[i] = _mm256_permute2f128_ps::<0x20>(first, last);
        columns[4 + i] = _mm256_permute2f128_ps::<0x31>(first, last);
    }
    columns
}
