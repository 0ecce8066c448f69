//! Metrics of probabilities against outcomes.

use crate::figure::Undefined;

/// One bin of a reliability diagram.
struct ReliabilityBin {
    /// Number of predictions in the bin.
    count: usize,
    /// Mean predicted probability; `None` in an empty bin.
    predicted: Option<f64>,
    /// Share of positives; `None` in an empty bin.
    observed: Option<f64>,
}

/// Brier score: mean squared difference between probability and outcome.
///
/// # Errors
/// `Empty`, `NotANumber`.
///
/// # Panics
/// if probabilities and labels differ in number (programmer error).
pub fn brier(probabilities: &[f64], labels: &[bool]) -> Result<f64, Undefined> {
    check(probabilities, labels)?;
    let squares = probabilities.iter().zip(labels).map(|(p, y)| (p - f64::from(*y)).powi(2));
    Ok(squares.sum::<f64>() / labels.len() as f64)
}

/// Predictions in `bins` bins of equal width over 0 to 1; the last bin includes 1.
fn reliability(probabilities: &[f64], labels: &[bool], bins: usize) -> Vec<ReliabilityBin> {
    assert!(bins > 0, "at least one bin");
    let mut sums = vec![(0usize, 0.0, 0.0); bins];
    for (p, y) in probabilities.iter().zip(labels) {
        let bin = ((p * bins as f64) as usize).min(bins - 1);
        let (count, predicted, observed) = &mut sums[bin];
        *count += 1;
        *predicted += p;
        *observed += f64::from(*y);
    }
    let bin = |(count, predicted, observed): (usize, f64, f64)| ReliabilityBin {
        count,
        predicted: mean(predicted, count),
        observed: mean(observed, count),
    };
    sums.into_iter().map(bin).collect()
}

/// Expected calibration error: mean of |predicted − observed| over `bins` bins of equal width,
/// weighted by their number of predictions.
///
/// # Errors
/// `Empty`, `NotANumber`.
///
/// # Panics
/// if probabilities and labels differ in number, or `bins` is 0 (programmer errors).
pub fn expected_calibration_error(probabilities: &[f64], labels: &[bool], bins: usize) -> Result<f64, Undefined> {
    check(probabilities, labels)?;
    let gap = |bin: ReliabilityBin| Some(bin.count as f64 * (bin.predicted? - bin.observed?).abs());
    let gaps: f64 = reliability(probabilities, labels, bins).into_iter().filter_map(gap).sum();
    Ok(gaps / labels.len() as f64)
}

fn check(probabilities: &[f64], labels: &[bool]) -> Result<(), Undefined> {
    assert_eq!(probabilities.len(), labels.len(), "one label per probability");
    if probabilities.is_empty() {
        return Err(Undefined::Empty);
    }
    if probabilities.iter().any(|p| p.is_nan()) { Err(Undefined::NotANumber) } else { Ok(()) }
}

fn mean(sum: f64, count: usize) -> Option<f64> {
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_worked_values() {
        let (p, y) = ([0.1, 0.3, 0.8, 1.0], [false, true, true, true]);
        assert!((brier(&p, &y).unwrap() - (0.01 + 0.49 + 0.04) / 4.0).abs() < 1e-15);
        let bins = reliability(&p, &y, 2);
        assert_eq!((bins[0].count, bins[0].predicted, bins[0].observed), (2, Some(0.2), Some(0.5)));
        assert_eq!((bins[1].count, bins[1].predicted, bins[1].observed), (2, Some(0.9), Some(1.0)));
        assert!((expected_calibration_error(&p, &y, 2).unwrap() - (2.0 * 0.3 + 2.0 * 0.1) / 4.0).abs() < 1e-15);
        assert_eq!(reliability(&p, &y, 5)[2].predicted, None);
    }

    #[test]
    fn undefined_without_numbers() {
        let ece = |p: &[f64], y: &[bool]| expected_calibration_error(p, y, 10);
        assert_eq!((brier(&[], &[]), ece(&[], &[])), (Err(Undefined::Empty), Err(Undefined::Empty)));
        let (p, y) = ([0.5, f64::NAN], [true, false]);
        assert_eq!((brier(&p, &y), ece(&p, &y)), (Err(Undefined::NotANumber), Err(Undefined::NotANumber)));
    }
}
