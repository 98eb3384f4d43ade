//! The kernel with AVX2 and FMA: the one place with `unsafe`.
//!
//! Its twin is [`Kernel::add_scores_plainly`]; `kernel::tests` hold both to the formulas. Every index
//! here comes from arrays that [`Kernel::new`] filled from a checked forest; each `SAFETY` comment says
//! from which.
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::hint::select_unpredictable;

use super::{Block, EXITS, Kernel, KernelTree, LANES, LEAF_BIT, Path};

/// Adds what one tree says of each row; false if this machine can't.
pub(super) fn add_scores(
    kernel: &Kernel,
    tree: &KernelTree,
    rows: &[f32],
    sums: &mut [f32],
) -> bool {
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        return false;
    }
    assert_eq!(rows.len(), sums.len() * 2 * kernel.half);
    // SAFETY: the features are there; the rows are as many as the sums, each as wide as the boxes;
    // and `V`, where it is given, is their number of vectors.
    unsafe {
        match kernel.half {
            4 => add_all::<1>(kernel, tree, rows, sums),
            8 => add_all::<2>(kernel, tree, rows, sums),
            16 => add_all::<4>(kernel, tree, rows, sums),
            32 => add_all::<8>(kernel, tree, rows, sums),
            _ => add_all::<0>(kernel, tree, rows, sums),
        }
    }
    true
}

/// `V` is the number of vectors of a row, its width / 8, or 0 where it is known only at run time.
///
/// # Safety
/// AVX2 and FMA; `rows` has `2 * half` floats for each of `sums`.
#[target_feature(enable = "avx2,fma")]
unsafe fn add_all<const V: usize>(
    kernel: &Kernel,
    tree: &KernelTree,
    rows: &[f32],
    sums: &mut [f32],
) {
    let width = if V == 0 { 2 * kernel.half } else { 8 * V };
    let factor = _mm256_set1_ps(tree.factor);
    let (groups, rest) = sums.as_chunks_mut::<LANES>();
    let mut row = rows.as_ptr();
    // SAFETY: `row` steps through `rows`, which has one of `width` floats for each sum.
    unsafe {
        for sums in groups {
            let leaves = descend_together::<V>(kernel, tree, row, width);
            let scores = climb_together::<V>(kernel, tree, &leaves, row, width);
            let sum = _mm256_loadu_ps(sums.as_ptr());
            _mm256_storeu_ps(sums.as_mut_ptr(), _mm256_fmadd_ps(scores, factor, sum));
            row = row.add(LANES * width);
        }
        for sum in rest {
            let leaf = descend_alone::<V>(kernel, tree, row, width);
            *sum += tree.factor * climb_alone::<V>(kernel, tree, leaf, row, width);
            row = row.add(width);
        }
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
        let x = if V == 1 || V == 2 {
            // The last vector of the row, by the lower three bits of the coordinates.
            _mm256_permutevar8x32_ps(_mm256_loadu_ps(row.add(width - 8)), coordinates)
        } else {
            _mm256_i32gather_ps::<4>(row, coordinates)
        };
        let right = _mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_load_ps(block.cuts.as_ptr()));
        let bits = _mm256_movemask_ps(right).cast_unsigned() ^ block.flips;
        let exit = *EXITS.get_unchecked(bits as usize);
        *block.children.get_unchecked(usize::from(exit))
    }
}

/// The leaves where eight points fall.
///
/// # Safety
/// AVX2; `rows` points to eight rows of `width` floats.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn descend_together<const V: usize>(
    kernel: &Kernel,
    tree: &KernelTree,
    rows: *const f32,
    width: usize,
) -> [u32; LANES] {
    let mut at = [0_u32; LANES];
    // SAFETY: the offset of a child that is no leaf is that of a block of the tree.
    unsafe {
        let blocks: *const u8 = kernel.blocks.as_ptr().add(tree.block).cast();
        for _ in 0..tree.steps {
            let mut all = LEAF_BIT;
            for (lane, at) in at.iter_mut().enumerate() {
                // A point that has arrived looks at the root again and stays where it is: a branch
                // here would be mispredicted once a point.
                let arrived = *at & LEAF_BIT != 0;
                let block = &*blocks.add(select_unpredictable(arrived, 0, *at as usize)).cast();
                let next = step::<V>(block, rows.add(lane * width), width);
                *at = select_unpredictable(arrived, *at, next);
                all &= *at;
            }
            if all != 0 {
                break;
            }
        }
    }
    at.map(|leaf| leaf & !LEAF_BIT)
}

/// The leaf where one point falls.
///
/// # Safety
/// AVX2; `row` has `width` floats.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn descend_alone<const V: usize>(
    kernel: &Kernel,
    tree: &KernelTree,
    row: *const f32,
    width: usize,
) -> u32 {
    let mut at = 0;
    // SAFETY: as for `descend_together`.
    unsafe {
        let blocks: *const u8 = kernel.blocks.as_ptr().add(tree.block).cast();
        while at & LEAF_BIT == 0 {
            at = step::<V>(&*blocks.add(at as usize).cast(), row, width);
        }
    }
    at & !LEAF_BIT
}

/// What the tree says of eight points that fell on `leaves`, before its factor.
///
/// # Safety
/// AVX2 and FMA; `leaves` are the tree's; `rows` points to eight rows of `width` floats.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn climb_together<const V: usize>(
    kernel: &Kernel,
    tree: &KernelTree,
    leaves: &[u32; LANES],
    rows: *const f32,
    width: usize,
) -> __m256 {
    let (mut said, mut kept) = ([_mm256_setzero_ps(); LANES], [_mm256_setzero_ps(); LANES]);
    let mut seen = [0.0_f32; LANES];
    // SAFETY: there is a path for each leaf; see `levels`.
    unsafe {
        for (lane, &leaf) in leaves.iter().enumerate() {
            let path = kernel.paths.get_unchecked(tree.leaf + leaf as usize);
            let ranges = _mm256_loadu_ps(path.ranges.as_ptr());
            let unseen = kernel.unseen.as_ptr().add(path.unseen_from as usize);
            let row = rows.add(lane * width);
            (said[lane], kept[lane]) =
                levels::<V>(kernel, tree, &path.boxes, ranges, unseen, row, width);
            seen[lane] = path.seen;
        }
        // From a vector a point to a vector a level: then the levels follow one another for all
        // points at once.
        let (said, kept) = (transpose(said), transpose(kept));
        let mut scores = _mm256_loadu_ps(seen.as_ptr());
        for (&said, &kept) in said.iter().zip(&kept) {
            scores = _mm256_fmadd_ps(kept, scores, said);
        }
        let unfinished = _mm256_cmp_ps::<_CMP_NEQ_UQ>(kept[LANES - 1], _mm256_set1_ps(1.0));
        let unfinished = _mm256_movemask_ps(unfinished);
        if unfinished != 0 {
            let mut one_by_one = [0.0_f32; LANES];
            _mm256_storeu_ps(one_by_one.as_mut_ptr(), scores);
            for (lane, score) in one_by_one.iter_mut().enumerate() {
                if unfinished >> lane & 1 == 1 {
                    *score =
                        climb_alone::<V>(kernel, tree, leaves[lane], rows.add(lane * width), width);
                }
            }
            scores = _mm256_loadu_ps(one_by_one.as_ptr());
        }
        scores
    }
}

/// What the tree says of one point that fell on `leaf`, before its factor.
///
/// # Safety
/// AVX2 and FMA; `leaf` is the tree's; `row` has `width` floats.
#[target_feature(enable = "avx2,fma")]
unsafe fn climb_alone<const V: usize>(
    kernel: &Kernel,
    tree: &KernelTree,
    leaf: u32,
    row: *const f32,
    width: usize,
) -> f32 {
    // SAFETY: there is a path for each leaf; entries and parents are below the tree's number of
    // them. `unseen` ends with two vectors of zeros behind its last row, and a climb goes on only
    // from a box that doesn't hold the point, so at most one vector behind.
    unsafe {
        let parents = kernel.parents.as_ptr().add(tree.entry);
        let path: &Path = kernel.paths.get_unchecked(tree.leaf + leaf as usize);
        let mut unseen = kernel.unseen.as_ptr().add(path.unseen_from as usize);
        let mut boxes = path.boxes;
        let mut ranges = _mm256_loadu_ps(path.ranges.as_ptr());
        let mut score = path.seen;
        loop {
            let levels = levels::<V>(kernel, tree, &boxes, ranges, unseen, row, width);
            let (mut said, mut kept) = ([0.0_f32; LANES], [0.0_f32; LANES]);
            _mm256_storeu_ps(said.as_mut_ptr(), levels.0);
            _mm256_storeu_ps(kept.as_mut_ptr(), levels.1);
            for (said, kept) in said.iter().zip(&kept) {
                score = kept.mul_add(score, *said);
            }
            let has_gap = kept[LANES - 1] < 1.0;
            if !has_gap {
                return score;
            }
            let mut entry = boxes[LANES - 1] as usize / width;
            let mut entries = [0_u32; LANES];
            for (entries, boxes) in entries.iter_mut().zip(&mut boxes) {
                *entries = *parents.add(entry);
                entry = *entries as usize;
                *boxes = *entries * width as u32;
            }
            let entries = _mm256_loadu_si256(entries.as_ptr().cast());
            ranges = _mm256_i32gather_ps::<4>(kernel.ranges.as_ptr().add(tree.entry), entries);
            unseen = unseen.add(LANES);
        }
    }
}

/// For each of eight boxes: p * unseen, and 1 - p, with p the probability that a cut separates the
/// point from the box.
///
/// # Safety
/// AVX2; `boxes` are offsets of boxes of the tree, `unseen` points to eight floats, `row` to `width`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn levels<const V: usize>(
    kernel: &Kernel,
    tree: &KernelTree,
    boxes: &[u32; LANES],
    ranges: __m256,
    unseen: *const f32,
    row: *const f32,
    width: usize,
) -> (__m256, __m256) {
    let mut gaps = [_mm256_setzero_ps(); LANES];
    // SAFETY: the caller's promises.
    let unseen = unsafe {
        let first = kernel.boxes.as_ptr().add(tree.entry * width);
        for vector in 0..if V == 0 { width / 8 } else { V } {
            let x = _mm256_loadu_ps(row.add(8 * vector));
            for (gap, &offset) in gaps.iter_mut().zip(boxes) {
                let bound = _mm256_loadu_ps(first.add(offset as usize + 8 * vector));
                // The maximum of NaN and 0 is its second operand.
                let out = _mm256_max_ps(_mm256_sub_ps(x, bound), _mm256_setzero_ps());
                *gap = if vector == 0 { out } else { _mm256_add_ps(*gap, out) };
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
    // A leaf has no range: 0 / 0 for a point that equals it must be 0.
    let merged = _mm256_max_ps(_mm256_add_ps(out, ranges), _mm256_set1_ps(f32::MIN_POSITIVE));
    let p = _mm256_div_ps(out, merged);
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
