//! Overlap of masks.

use crate::figure::Undefined;

/// Dice coefficient `2 |A ∩ B| / (|A| + |B|)` of two masks, where any value but 0 is inside.
///
/// # Errors
/// `EmptyMask` when both are empty.
///
/// # Panics
/// if the masks differ in size (programmer error).
pub fn dice(a: &[u8], b: &[u8]) -> Result<f64, Undefined> {
    let (shared, total) = (overlap(a, b), count(a) + count(b));
    if total > 0 { Ok(2.0 * shared as f64 / total as f64) } else { Err(Undefined::EmptyMask) }
}

/// Centreline Dice of a predicted and a true vessel mask, given the skeleton of each.
///
/// The harmonic mean of precision, the share of the predicted skeleton inside the true mask, and
/// sensitivity, the share of the true skeleton inside the predicted mask.
///
/// # Errors
/// `EmptyMask` when a skeleton is empty.
///
/// # Panics
/// if the masks differ in size (programmer error).
///
/// # Source
/// Shit et al., CVPR 2021, arXiv:2003.07311, eq. 1 and 2.
pub fn cldice(
    predicted: &[u8],
    predicted_skeleton: &[u8],
    truth: &[u8],
    truth_skeleton: &[u8],
) -> Result<f64, Undefined> {
    let inside = |skeleton: &[u8], mask: &[u8]| {
        let length = count(skeleton);
        if length > 0 { Ok(overlap(skeleton, mask) as f64 / length as f64) } else { Err(Undefined::EmptyMask) }
    };
    let precision = inside(predicted_skeleton, truth)?;
    let sensitivity = inside(truth_skeleton, predicted)?;
    let sum = precision + sensitivity;
    Ok(if sum == 0.0 { 0.0 } else { 2.0 * precision * sensitivity / sum })
}

fn count(mask: &[u8]) -> usize {
    mask.iter().filter(|v| **v != 0).count()
}

fn overlap(a: &[u8], b: &[u8]) -> usize {
    assert_eq!(a.len(), b.len(), "masks of one size");
    a.iter().zip(b).filter(|(a, b)| **a != 0 && **b != 0).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_worked_overlaps() {
        assert_eq!(dice(&[1, 1, 0, 0], &[0, 5, 1, 0]), Ok(0.5));
        assert_eq!(dice(&[0, 0], &[0, 0]), Err(Undefined::EmptyMask));
        assert_eq!(dice(&[0, 1], &[1, 0]), Ok(0.0));
        // Precision 1 of 1, sensitivity 1 of 2.
        assert_eq!(cldice(&[1, 1, 0, 0], &[0, 1, 0, 0], &[0, 1, 1, 1], &[0, 1, 1, 0]), Ok(2.0 / 3.0));
        assert_eq!(cldice(&[1, 0], &[1, 0], &[0, 1], &[0, 1]), Ok(0.0));
        assert_eq!(cldice(&[0, 0], &[0, 0], &[0, 1], &[0, 1]), Err(Undefined::EmptyMask));
    }
}
