//! A share that was counted in a sample, with exact bounds on what it is where the sample is from.

use statrs::function::beta::beta_reg;

/// An estimate and the bounds within which the truth lies but for a stated chance on either side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounded {
    /// The estimate.
    pub value: f64,
    /// The truth is lower with at most the stated chance.
    pub low: f64,
    /// The truth is higher with at most the stated chance.
    pub high: f64,
}

/// Halvings of the interval from 0 to 1: more than an `f64` has bits behind the point.
const HALVINGS: u32 = 60;

/// Clopper and Pearson's bounds of a share of which `count` were found in `of` trials: whatever the
/// truth, the chance that it lies beyond either bound is at most `error`. `None` without a trial.
///
/// A bound is the share at which what was found, or anything further out, would be seen with
/// probability `error`; the binomial tail is the regularised incomplete beta function.
pub fn bounds(count: usize, of: usize, error: f64) -> Option<Bounded> {
    if of == 0 || count > of {
        return None;
    }
    let (k, n) = (as_f64(count), as_f64(of));
    // At least k of n: beta(k, n - k + 1) at p; at most k: 1 - beta(k + 1, n - k) at p.
    let low = match count {
        0 => 0.0,
        _ => rises_to(error, |p| beta_reg(k, n - k + 1.0, p)),
    };
    let high = match count {
        _ if count == of => 1.0,
        _ => rises_to(1.0 - error, |p| beta_reg(k + 1.0, n - k, p)),
    };
    Some(Bounded { value: k / n, low, high })
}

/// Where between 0 and 1 a function that rises from 0 to 1 reaches a value.
fn rises_to(value: f64, function: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _halving in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if function(middle) < value {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(crate) fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chance of at least `k` of `n` at `p`, term by term.
    fn at_least(k: usize, n: usize, p: f64) -> f64 {
        let mut term = (1.0 - p).powi(n as i32);
        let mut sum = 0.0;
        for i in 0..=n {
            if i >= k {
                sum += term;
            }
            term *= as_f64(n - i) / as_f64(i + 1) * p / (1.0 - p);
        }
        sum
    }

    #[test]
    fn bounds_are_where_the_tails_of_the_binomial_are_the_error() {
        for (k, n) in [(0, 10), (1, 10), (10, 10), (7, 40), (1, 300), (150, 300)] {
            for error in [0.05, 0.001 / 3.0] {
                let Bounded { value, low, high } = bounds(k, n, error).expect("trials");
                assert!(low <= value && value <= high, "{k} of {n}: {low} {value} {high}");
                if k > 0 {
                    let tail = at_least(k, n, low);
                    assert!((tail / error - 1.0).abs() < 1e-6, "{k} of {n}: {tail} for {error}");
                } else {
                    assert_eq!(low, 0.0);
                }
                if k < n {
                    let tail = 1.0 - at_least(k + 1, n, high);
                    assert!((tail / error - 1.0).abs() < 1e-6, "{k} of {n}: {tail} for {error}");
                } else {
                    assert_eq!(high, 1.0);
                }
            }
        }
        assert_eq!(bounds(0, 0, 0.01), None);
    }

    #[test]
    fn known_bounds() {
        // The rule of three: none of n, and yet up to about 3 / n with an error of 5 %.
        let none = bounds(0, 100, 0.05).expect("trials");
        assert!((none.high - (1.0 - 0.05_f64.powf(0.01))).abs() < 1e-12, "{}", none.high);
        let half = bounds(5, 10, 0.025).expect("trials");
        assert!((half.low - 0.187_086).abs() < 1e-6 && (half.high - 0.812_914).abs() < 1e-6);
    }
}
