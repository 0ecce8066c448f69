//! Rules that several configurations check their values by.

use std::fmt::Display;

use willis_core::InvalidValue;

/// A real number of any width, which messages show as it was written.
pub(crate) trait RealNumber: Copy + Display + Into<f64> {}

impl<T: Copy + Display + Into<f64>> RealNumber for T {}

/// Checks a rule, given as whether it holds and as a predicate for the message.
pub(crate) fn require(field: &str, value: impl Display, holds: bool, rule: &str) -> Result<(), InvalidValue> {
    if holds { Ok(()) } else { Err(InvalidValue::new(field, value, rule)) }
}

/// A count that may not be 0.
pub(crate) fn at_least_one(field: &str, value: usize) -> Result<(), InvalidValue> {
    require(field, value, value >= 1, "must be at least 1")
}

/// A probability or share.
pub(crate) fn fraction<T: RealNumber>(field: &str, value: T) -> Result<(), InvalidValue> {
    require(field, value, (0.0..=1.0).contains(&value.into()), "must lie between 0 and 1")
}

/// A finite number that is not negative.
pub(crate) fn non_negative<T: RealNumber>(field: &str, value: T) -> Result<(), InvalidValue> {
    let real: f64 = value.into();
    require(field, value, real.is_finite() && real >= 0.0, "must be finite and at least 0")
}

/// A finite number above 0.
pub(crate) fn positive<T: RealNumber>(field: &str, value: T) -> Result<(), InvalidValue> {
    let real: f64 = value.into();
    require(field, value, real.is_finite() && real > 0.0, "must be finite and above 0")
}

/// Largest number of channels, heads or blocks: more is a typing error.
const MAX_SIZE: usize = 4096;

/// A number of channels, heads or blocks.
pub(crate) fn size(field: &str, value: usize) -> Result<(), InvalidValue> {
    let rule = format!("must lie between 1 and {MAX_SIZE}");
    require(field, value, (1..=MAX_SIZE).contains(&value), &rule)
}

/// [`size`] for every entry of a list.
pub(crate) fn sizes(field: &str, values: &[usize]) -> Result<(), InvalidValue> {
    values.iter().enumerate().try_for_each(|(i, &value)| size(&format!("{field}[{i}]"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_hold_at_their_limits_and_refuse_nan() {
        assert!(at_least_one("n", 1).is_ok() && at_least_one("n", 0).is_err());
        assert!(fraction("p", 0.0).is_ok() && fraction("p", 1.0).is_ok() && fraction("p", 1.1).is_err());
        assert!(non_negative("x", 0.0).is_ok() && non_negative("x", -0.1).is_err());
        assert!(positive("x", 1e-300).is_ok() && positive("x", 0.0).is_err());
        for rule in [fraction::<f64>, non_negative, positive] {
            assert!(rule("x", f64::NAN).is_err() && rule("x", f64::INFINITY).is_err());
        }
        assert_eq!(fraction("p", 1.1f32).unwrap_err().to_string(), "p = 1.1 must lie between 0 and 1");
    }
}
