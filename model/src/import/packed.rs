//! The packed integer arrays of AWS's Java library.
//!
//! An array of fewer than three numbers stands as it is. A longer one is `[lo, hi, n, codes...]`:
//! with `lo = hi` there are no codes and `n` copies of `lo`; otherwise every code holds k digits to
//! the base `hi - lo + 1`, least significant first, and a digit is a value less `lo`. k is the most
//! digits that a 31-bit number holds, but at least one; the last code holds what is left over.

/// Why numbers are no packed array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackedFault {
    /// More values than there can be. Checked before anything is allocated.
    #[error("it has {got} values; at most {limit} are possible here")]
    TooMany {
        /// As it says.
        got: i64,
        /// As the file's other fields allow.
        limit: usize,
    },
    /// Fewer than no values.
    #[error("packed array: its length (third number) is {got}")]
    NegativeLength {
        /// As it says.
        got: i32,
    },
    /// A least value above the greatest.
    #[error("packed array: its least value {low} (first number) is above its greatest {high}")]
    Order {
        /// The first number.
        low: i32,
        /// The second number.
        high: i32,
    },
    /// Another number of codes than the values take.
    #[error("packed array: {values} values take {expected} codes, {got} are there")]
    Codes {
        /// Values it is to have.
        values: usize,
        /// Codes these take.
        expected: usize,
        /// Codes there are.
        got: usize,
    },
    /// A code that no digits give.
    #[error("packed array: the number {code} at {at} is not {digits} digits to the base {base}")]
    Code {
        /// Where it stands, from 0.
        at: usize,
        /// The code.
        code: i32,
        /// How many digits it has.
        digits: usize,
        /// Their base.
        base: i64,
    },
}

/// How many digits to a base of at least 2 one code holds: the largest k with base^k < 2^31 - 1,
/// but at least 1.
fn digits_a_code(base: i64) -> usize {
    let mut power = base;
    let mut digits = 0;
    while power < i64::from(i32::MAX) {
        power *= base;
        digits += 1;
    }
    digits.max(1)
}

/// The values of an array, at most `limit` of them.
pub(super) fn unpack(
    numbers: Vec<i32>,
    compressed: bool,
    limit: usize,
) -> Result<Vec<i32>, PackedFault> {
    let too_many = |got: usize| PackedFault::TooMany { got: got as i64, limit };
    let (low, high, count, codes) = match numbers.as_slice() {
        [low, high, count, codes @ ..] if compressed => (*low, *high, *count, codes),
        plain if plain.len() > limit => return Err(too_many(plain.len())),
        _ => return Ok(numbers),
    };
    let values = usize::try_from(count).map_err(|_| PackedFault::NegativeLength { got: count })?;
    if values > limit {
        return Err(too_many(values));
    }
    let got = codes.len();
    if low == high {
        if got > 0 {
            return Err(PackedFault::Codes { values, expected: 0, got });
        }
        return Ok(vec![low; values]);
    }
    if low > high {
        return Err(PackedFault::Order { low, high });
    }
    let base = i64::from(high) - i64::from(low) + 1;
    let k = digits_a_code(base);
    let expected = values.div_ceil(k);
    if got != expected {
        return Err(PackedFault::Codes { values, expected, got });
    }
    let mut out = Vec::with_capacity(values);
    for (at, &code) in codes.iter().enumerate() {
        let digits = k.min(values - out.len());
        // A single digit to a base above 2^31 wraps round in Java's int.
        let mut rest = if k == 1 { i64::from(code.cast_unsigned()) } else { i64::from(code) };
        let fault = PackedFault::Code { at: at + 3, code, digits, base };
        if rest < 0 {
            return Err(fault);
        }
        for _ in 0..digits {
            out.push(i32::try_from(i64::from(low) + rest % base).map_err(|_| fault)?);
            rest /= base;
        }
        if rest != 0 {
            return Err(fault);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The obvious encoder: the digits of a code as a list, then their value by Horner's rule.
    fn pack(values: &[i32]) -> Vec<i32> {
        let (Some(&low), Some(&high)) = (values.iter().min(), values.iter().max()) else {
            return Vec::new();
        };
        if values.len() < 3 {
            return values.to_vec();
        }
        let mut packed = vec![low, high, i32::try_from(values.len()).expect("short")];
        if low == high {
            return packed;
        }
        let base = i128::from(high) - i128::from(low) + 1;
        let mut k = 1;
        while base.pow(k + 1) < i128::from(i32::MAX) {
            k += 1;
        }
        for group in values.chunks(k as usize) {
            let digits = group.iter().map(|&value| i128::from(value) - i128::from(low));
            let code = digits.rev().fold(0, |code, digit| code * base + digit);
            packed.push(code as u32 as i32);
        }
        packed
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(
            (low, width) in (any::<i32>(), 0_u32..40),
            picks in proptest::collection::vec(any::<u32>(), 0..200),
        ) {
            let span = (1_u64 << width).min(1 << 32);
            let values: Vec<i32> = picks
                .iter()
                .map(|&pick| (i64::from(low) + (u64::from(pick) % span) as i64)
                    .min(i64::from(i32::MAX)) as i32)
                .collect();
            prop_assert_eq!(unpack(pack(&values), true, values.len()), Ok(values.clone()));
            prop_assert_eq!(unpack(values.clone(), false, values.len()), Ok(values.clone()));
            if let Some(limit) = values.len().checked_sub(1) {
                let got = values.len() as i64;
                let fault = PackedFault::TooMany { got, limit };
                prop_assert_eq!(unpack(pack(&values), true, limit), Err(fault));
                prop_assert_eq!(unpack(values, false, limit), Err(fault));
            }
        }

        #[test]
        fn any_numbers_are_values_or_a_fault(
            numbers in proptest::collection::vec(prop_oneof![any::<i32>(), -3..40], 0..12),
            compressed: bool,
        ) {
            if let Ok(values) = unpack(numbers, compressed, 1000) {
                prop_assert!(values.len() <= 1000);
            }
        }
    }

    #[test]
    fn the_extremes_wrap_as_in_java() {
        let values = [i32::MIN, i32::MAX, 0, -1];
        let packed = pack(&values);
        assert_eq!(packed[3..], [0, -1, i32::MIN, i32::MAX]);
        assert_eq!(unpack(packed, true, 4), Ok(values.to_vec()));
    }

    #[test]
    fn a_binary_code_holds_thirty_digits() {
        assert_eq!(digits_a_code(2), 30);
        assert_eq!(digits_a_code(i64::from(i32::MAX)), 1);
        assert_eq!(digits_a_code(1 << 32), 1);
        assert_eq!(unpack(vec![0, 1, 31, 5, 1], true, 31).expect("good")[..4], [1, 0, 1, 0]);
    }

    #[test]
    fn absurd_arrays_are_refused_before_they_are_made() {
        let limit = 255;
        let refused = |numbers: &[i32]| unpack(numbers.to_vec(), true, limit).expect_err("absurd");
        assert_eq!(
            refused(&[7, 7, i32::MAX]),
            PackedFault::TooMany { got: i64::from(i32::MAX), limit }
        );
        assert_eq!(refused(&[0, 1, -1]), PackedFault::NegativeLength { got: -1 });
        assert_eq!(refused(&[1, 0, 3, 0]), PackedFault::Order { low: 1, high: 0 });
        let codes = PackedFault::Codes { values: 31, expected: 2, got: 1 };
        assert_eq!(refused(&[0, 1, 31, 0]), codes);
        let copies = PackedFault::Codes { values: 3, expected: 0, got: 1 };
        assert_eq!(refused(&[4, 4, 3, 9]), copies);
        let code = PackedFault::Code { at: 3, code: 8, digits: 3, base: 2 };
        assert_eq!(refused(&[0, 1, 3, 8]), code, "four digits");
        let code = PackedFault::Code { at: 3, code: -1, digits: 3, base: 2 };
        assert_eq!(refused(&[0, 1, 3, -1]), code);
    }
}
