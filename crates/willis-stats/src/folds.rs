//! Stratified folds that keep groups, such as patients, together.
//!
//! Rows get the folds that scikit-learn 1.9 assigns without shuffling. Row i is a test row of fold
//! `folds[i]` and a training row of all others.

/// Why rows cannot be split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// Fewer than two folds, or more folds than rows.
    #[error("cannot split {rows} rows into {folds} folds; there must be at least 2 folds and as many rows as folds")]
    Count {
        /// Number of rows.
        rows: usize,
        /// Number of folds asked for.
        folds: usize,
    },
    /// Every class has fewer rows than there are folds.
    #[error("every class has fewer than {folds} rows; ask for at most {largest} folds")]
    ScarceClasses {
        /// Number of folds asked for.
        folds: usize,
        /// Rows of the largest class.
        largest: usize,
    },
    /// Fewer groups than folds.
    #[error("cannot split {groups} groups into {folds} folds; ask for at most {groups}")]
    Groups {
        /// Number of groups.
        groups: usize,
        /// Number of folds asked for.
        folds: usize,
    },
}

/// The fold of every row, 0 to `n_folds − 1`, such that groups stay together and every fold has
/// about the same share of each class.
///
/// Greedy: groups are taken in decreasing order of the standard deviation of their class counts.
/// Each goes to the fold that makes the class shares most even; among equally good folds, to the
/// one with the fewest rows.
///
/// # Errors
/// `Count`, `ScarceClasses`, `Groups`.
///
/// # Panics
/// if classes and groups differ in number (programmer error).
pub fn stratified_group_k_fold<C: Ord, G: Ord>(
    classes: &[C],
    groups: &[G],
    n_folds: usize,
) -> Result<Vec<usize>, FoldError> {
    assert_eq!(classes.len(), groups.len(), "one group per row");
    check_count(classes.len(), n_folds)?;
    let (class_of, n_classes) = sorted_codes(classes);
    let (group_of, n_groups) = sorted_codes(groups);
    if n_groups < n_folds {
        return Err(FoldError::Groups { groups: n_groups, folds: n_folds });
    }
    let mut group_counts = vec![vec![0.0; n_classes]; n_groups];
    let mut class_counts = vec![0.0; n_classes];
    for (class, group) in class_of.iter().zip(&group_of) {
        group_counts[*group][*class] += 1.0;
        class_counts[*class] += 1.0;
    }
    let largest = class_counts.iter().copied().fold(0.0, f64::max) as usize;
    if largest < n_folds {
        return Err(FoldError::ScarceClasses { folds: n_folds, largest });
    }
    let mut order: Vec<usize> = (0..n_groups).collect();
    let spread: Vec<f64> = group_counts.iter().map(|counts| deviation(counts.iter().copied())).collect();
    order.sort_by(|a, b| spread[*b].total_cmp(&spread[*a]));

    let mut folds = vec![vec![0.0; n_classes]; n_folds];
    let mut fold_of_group = vec![0; n_groups];
    for group in order {
        let fold = best_fold(&mut folds, &group_counts[group], &class_counts);
        add(&mut folds[fold], &group_counts[group], 1.0);
        fold_of_group[group] = fold;
    }
    Ok(group_of.iter().map(|group| fold_of_group[*group]).collect())
}

fn best_fold(folds: &mut [Vec<f64>], group: &[f64], class_counts: &[f64]) -> usize {
    let (mut best, mut least_uneven, mut fewest_rows) = (0, f64::INFINITY, f64::INFINITY);
    for fold in 0..folds.len() {
        add(&mut folds[fold], group, 1.0);
        let of_class = |class: usize| deviation(folds.iter().map(|counts| counts[class] / class_counts[class]));
        let uneven = (0..class_counts.len()).map(of_class).sum::<f64>() / class_counts.len() as f64;
        let rows: f64 = folds[fold].iter().sum();
        add(&mut folds[fold], group, -1.0);
        if uneven < least_uneven || (is_close(uneven, least_uneven) && rows < fewest_rows) {
            (best, least_uneven, fewest_rows) = (fold, uneven, rows);
        }
    }
    best
}

fn add(counts: &mut [f64], group: &[f64], sign: f64) {
    counts.iter_mut().zip(group).for_each(|(total, count)| *total += sign * count);
}

/// numpy's `isclose` with its default tolerances.
fn is_close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-8 + 1e-5 * b.abs()
}

/// Population standard deviation.
fn deviation(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    (values.map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt()
}

/// Position of each value among the sorted distinct values, and the number of distinct values.
fn sorted_codes<T: Ord>(values: &[T]) -> (Vec<usize>, usize) {
    let mut distinct: Vec<&T> = values.iter().collect();
    distinct.sort_unstable();
    distinct.dedup();
    let code = |value: &T| distinct.binary_search(&value).expect("every value is among the distinct ones");
    (values.iter().map(code).collect(), distinct.len())
}

fn check_count(rows: usize, folds: usize) -> Result<(), FoldError> {
    if (2..=rows).contains(&folds) { Ok(()) } else { Err(FoldError::Count { rows, folds }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const Y: [u8; 13] = [1, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 1];
    const GROUPS: [u8; 13] = [0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 5, 6, 6];

    fn rows(folds: &[usize], fold: usize) -> Vec<usize> {
        (0..folds.len()).filter(|row| folds[*row] == fold).collect()
    }

    #[test]
    fn folds_equal_scikit_learns() {
        let folds = stratified_group_k_fold(&Y, &GROUPS, 3).unwrap();
        assert_eq!(rows(&folds, 0), [4, 5, 6, 7]);
        assert_eq!(rows(&folds, 1), [2, 3, 8, 11, 12]);
        assert_eq!(rows(&folds, 2), [0, 1, 9, 10]);
        assert!(matches!(stratified_group_k_fold(&Y, &[0; 13], 3), Err(FoldError::Groups { groups: 1, .. })));
        let too_many = stratified_group_k_fold(&Y, &GROUPS, 14);
        assert_eq!(too_many, Err(FoldError::Count { rows: 13, folds: 14 }));
        let scarce = stratified_group_k_fold(&[0, 1, 2], &[0, 1, 2], 3);
        assert_eq!(scarce, Err(FoldError::ScarceClasses { folds: 3, largest: 1 }));
    }

    proptest! {
        #[test]
        fn groups_stay_together(data in prop::collection::vec((0..2u8, 0..9u8), 30..80), k in 2..5usize) {
            let classes: Vec<u8> = data.iter().map(|d| d.0).collect();
            let groups: Vec<u8> = data.iter().map(|d| d.1).collect();
            if let Ok(folds) = stratified_group_k_fold(&classes, &groups, k) {
                for (a, fold_a) in groups.iter().zip(&folds) {
                    prop_assert!(*fold_a < k);
                    prop_assert!(groups.iter().zip(&folds).all(|(b, fold_b)| a != b || fold_a == fold_b));
                }
            }
        }
    }
}
