//! Bounding boxes: the smallest axis-parallel box that holds a node's points.
//!
//! A box of `d` dimensions is a slice of `2 d` floats, the minima and then the maxima, so that a
//! forest keeps all its boxes in one array.

/// Sum of the side lengths. Sides are f32 differences, summed in f64, as AWS's library does.
pub(crate) fn range_sum(bounds: &[f32]) -> f64 {
    let (min, max) = bounds.split_at(bounds.len() / 2);
    min.iter().zip(max).map(|(&min, &max)| f64::from(max - min)).sum()
}

/// How far `point` lies below and above a side: (low, high), at most one of them above zero.
pub(crate) fn gaps(min: f32, max: f32, x: f32) -> (f64, f64) {
    (f64::from((min - x).max(0.0)), f64::from((x - max).max(0.0)))
}

/// Sum over dimensions of the distance from `point` to the box.
pub(crate) fn gap_sum(bounds: &[f32], point: &[f32]) -> f64 {
    let (min, max) = bounds.split_at(bounds.len() / 2);
    min.iter()
        .zip(max)
        .zip(point)
        .map(|((&min, &max), &x)| {
            let (low, high) = gaps(min, max, x);
            low + high
        })
        .sum()
}

/// Probability that a random cut of the box merged with `point` separates the two:
/// gap sum / (range sum + gap sum). 0 if the box holds the point.
pub(crate) fn separation(bounds: &[f32], point: &[f32]) -> f64 {
    let out = gap_sum(bounds, point);
    if out == 0.0 { 0.0 } else { out / (range_sum(bounds) + out) }
}

/// Makes `bounds` the box of one point.
pub(crate) fn set_to_point(bounds: &mut [f32], point: &[f32]) {
    let (min, max) = bounds.split_at_mut(point.len());
    min.copy_from_slice(point);
    max.copy_from_slice(point);
}

/// Grows `bounds` until it holds `other` too.
pub(crate) fn merge(bounds: &mut [f32], other: &[f32]) {
    let half = bounds.len() / 2;
    let (min, max) = bounds.split_at_mut(half);
    for (mine, &theirs) in min.iter_mut().zip(&other[..half]) {
        *mine = mine.min(theirs);
    }
    for (mine, &theirs) in max.iter_mut().zip(&other[half..]) {
        *mine = mine.max(theirs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separation_is_the_share_of_cuts_that_fall_outside() {
        // Sides 2 and 1; the point is 1 above the first side and 2 below the second.
        let bounds = [0.0, 0.0, 2.0, 1.0];
        assert_eq!(range_sum(&bounds), 3.0);
        assert_eq!(gap_sum(&bounds, &[3.0, -2.0]), 3.0);
        assert_eq!(separation(&bounds, &[3.0, -2.0]), 0.5);
        assert_eq!(separation(&bounds, &[2.0, 0.0]), 0.0);
        assert_eq!(separation(&[1.0, 1.0], &[1.0]), 0.0, "a box of one point, the point itself");
    }
}
