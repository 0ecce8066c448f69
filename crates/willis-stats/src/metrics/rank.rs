//! Metrics that depend only on the order of the scores.

use crate::figure::Undefined;

/// Positives and negatives that share one score.
struct Tie {
    positives: f64,
    negatives: f64,
}

/// Groups of equal scores, highest first.
///
/// # Errors
/// `Empty`, `NotANumber`.
///
/// # Panics
/// if scores and labels differ in number (programmer error).
fn ties_descending(scores: &[f64], labels: &[bool]) -> Result<Vec<Tie>, Undefined> {
    assert_eq!(scores.len(), labels.len(), "one label per score");
    if scores.is_empty() {
        return Err(Undefined::Empty);
    }
    if scores.iter().any(|s| s.is_nan()) {
        return Err(Undefined::NotANumber);
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let tie = |group: &[usize]| {
        let positives = group.iter().filter(|&&i| labels[i]).count();
        Tie { positives: positives as f64, negatives: (group.len() - positives) as f64 }
    };
    Ok(order.chunk_by(|&a, &b| scores[a] == scores[b]).map(tie).collect())
}

/// Area under the ROC curve: the probability that a positive scores above a negative, where a tie
/// counts half. O(n log n).
///
/// # Errors
/// `Empty`, `OneClass`, `NotANumber`.
///
/// # Panics
/// if scores and labels differ in number (programmer error).
pub fn auroc(scores: &[f64], labels: &[bool]) -> Result<f64, Undefined> {
    let ties = ties_descending(scores, labels)?;
    let (mut positives, mut negatives, mut wins) = (0.0, 0.0, 0.0);
    for tie in &ties {
        wins += tie.negatives * (positives + tie.positives / 2.0);
        positives += tie.positives;
        negatives += tie.negatives;
    }
    if positives > 0.0 && negatives > 0.0 { Ok(wins / (positives * negatives)) } else { Err(Undefined::OneClass) }
}

/// Average precision: precision at each distinct score, weighted by the recall gained there; not
/// interpolated.
///
/// # Errors
/// `Empty`, `NoPositives`, `NotANumber`.
///
/// # Panics
/// if scores and labels differ in number (programmer error).
pub fn average_precision(scores: &[f64], labels: &[bool]) -> Result<f64, Undefined> {
    let ties = ties_descending(scores, labels)?;
    let (mut positives, mut taken, mut sum) = (0.0, 0.0, 0.0);
    for tie in &ties {
        positives += tie.positives;
        taken += tie.positives + tie.negatives;
        sum += tie.positives * positives / taken;
    }
    if positives > 0.0 { Ok(sum / positives) } else { Err(Undefined::NoPositives) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hand_worked_areas() {
        for (scores, labels, expected) in [
            // Pairs (positive, negative): (.8, .4) and (.8, .6) won, (.5, .4) won, (.5, .6) lost.
            (&[0.8, 0.5, 0.4, 0.6][..], &[true, true, false, false][..], Ok(0.75)),
            // One win, one tie.
            (&[0.5, 0.5, 0.1], &[true, false, false], Ok(0.75)),
            (&[1.0, 1.0], &[true, false], Ok(0.5)),
            (&[0.0, -0.0], &[true, false], Ok(0.5)),
            (&[1.0, 2.0], &[true, true], Err(Undefined::OneClass)),
            (&[], &[], Err(Undefined::Empty)),
            (&[f64::NAN, 1.0], &[true, false], Err(Undefined::NotANumber)),
        ] {
            assert_eq!(auroc(scores, labels), expected, "{scores:?}");
        }
    }

    #[test]
    fn hand_worked_average_precision() {
        // scikit-learn's example: precision 1 at recall 1/2, 2/3 at recall 1.
        let (scores, labels) = ([0.1, 0.4, 0.35, 0.8], [false, false, true, true]);
        assert!((average_precision(&scores, &labels).unwrap() - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-15);
        assert_eq!(average_precision(&[0.5, 0.5], &[true, false]), Ok(0.5));
        assert_eq!(average_precision(&[0.5], &[false]), Err(Undefined::NoPositives));
    }

    /// Slow reference: every pair.
    fn auroc_by_pairs(scores: &[f64], labels: &[bool]) -> Option<f64> {
        let of = |class: bool| scores.iter().zip(labels).filter(move |(_, l)| **l == class).map(|(s, _)| *s);
        let wins: Vec<f64> = of(true)
            .flat_map(|p| {
                of(false).map(move |n| {
                    if p > n {
                        1.0
                    } else if p == n {
                        0.5
                    } else {
                        0.0
                    }
                })
            })
            .collect();
        (!wins.is_empty()).then(|| wins.iter().sum::<f64>() / wins.len() as f64)
    }

    proptest! {
        #[test]
        fn equals_pairs_and_ignores_monotone_maps(rows in prop::collection::vec((0..12i32, any::<bool>()), 0..60)) {
            let scores: Vec<f64> = rows.iter().map(|r| f64::from(r.0) / 4.0).collect();
            let labels: Vec<bool> = rows.iter().map(|r| r.1).collect();
            let bent: Vec<f64> = scores.iter().map(|s| s.exp() * 3.0 - 7.0).collect();
            let turned: Vec<f64> = scores.iter().map(|s| -s).collect();
            let area = auroc(&scores, &labels);
            match (area, auroc_by_pairs(&scores, &labels)) {
                (Ok(fast), Some(slow)) => prop_assert!((fast - slow).abs() < 1e-12),
                (fast, slow) => prop_assert_eq!(fast.ok(), slow),
            }
            prop_assert_eq!(area, auroc(&bent, &labels));
            prop_assert_eq!(average_precision(&scores, &labels), average_precision(&bent, &labels));
            if let (Ok(a), Ok(b)) = (area, auroc(&turned, &labels)) {
                prop_assert!((a + b - 1.0).abs() < 1e-12);
            }
        }
    }
}
