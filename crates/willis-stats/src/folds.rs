//! Splits of rows into folds, row for row as scikit-learn 1.9 assigns them (unshuffled).
//!
//! Each function gives the fold of every row, 0 to k − 1: row i is tested in fold `folds[i]` and
//! trains in all others.

use std::collections::BTreeMap;

/// Why rows cannot be split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// Fewer than two folds, or more folds than rows.
    #[error("cannot split {rows} rows into {folds} folds; ask for 2 to {rows}")]
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

/// Contiguous folds; the first `n_rows mod n_folds` have one row more.
///
/// # Errors
/// `Count`.
pub fn k_fold(n_rows: usize, n_folds: usize) -> Result<Vec<usize>, FoldError> {
    check_count(n_rows, n_folds)?;
    let size = |fold: usize| n_rows / n_folds + usize::from(fold < n_rows % n_folds);
    Ok((0..n_folds).flat_map(|fold| std::iter::repeat_n(fold, size(fold))).collect())
}

/// Folds with the same share of each class.
///
/// Classes are numbered by first appearance; the sorted labels are dealt round-robin to find how
/// many rows of a class each fold gets, and the rows of a class fill the folds in blocks.
///
/// # Errors
/// `Count`, or `ScarceClasses` when no class reaches every fold.
pub fn stratified_k_fold<C: Ord>(classes: &[C], n_folds: usize) -> Result<Vec<usize>, FoldError> {
    check_count(classes.len(), n_folds)?;
    let mut number = BTreeMap::new();
    let codes: Vec<usize> = classes
        .iter()
        .map(|class| {
            let next = number.len();
            *number.entry(class).or_insert(next)
        })
        .collect();
    let mut sorted = codes.clone();
    sorted.sort_unstable();
    let mut quota = vec![vec![0usize; n_folds]; number.len()];
    for (position, code) in sorted.iter().enumerate() {
        quota[*code][position % n_folds] += 1;
    }
    let largest = quota.iter().map(|folds| folds.iter().sum()).max().unwrap_or(0);
    if largest < n_folds {
        return Err(FoldError::ScarceClasses { folds: n_folds, largest });
    }
    let mut blocks: Vec<_> = quota
        .into_iter()
        .map(|folds| folds.into_iter().enumerate().flat_map(|(fold, count)| std::iter::repeat_n(fold, count)))
        .collect();
    Ok(codes.iter().map(|code| blocks[*code].next().expect("a class has as many places as rows")).collect())
}

/// Folds that keep groups (patients) whole and come close to the same share of each class.
///
/// Greedy: groups in order of falling standard deviation of their class counts, each to the fold
/// that makes the class shares most even; among equally good folds, to the one with the fewest
/// rows.
///
/// # Errors
/// `Count`, `ScarceClasses`, or `Groups` when there are fewer groups than folds.
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

/// Standard deviation of a whole population.
fn deviation(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    (values.map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt()
}

/// Each value's position among the sorted distinct values, and how many there are.
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
    fn contiguous_folds() {
        assert_eq!(k_fold(7, 3).unwrap(), [0, 0, 0, 1, 1, 2, 2]);
        assert_eq!(k_fold(3, 1), Err(FoldError::Count { rows: 3, folds: 1 }));
        assert_eq!(k_fold(3, 4), Err(FoldError::Count { rows: 3, folds: 4 }));
    }

    #[test]
    fn stratified_folds_of_scikit_learn() {
        let folds = stratified_k_fold(&Y, 3).unwrap();
        assert_eq!(rows(&folds, 0), [0, 1, 2, 3, 4]);
        assert_eq!(rows(&folds, 1), [5, 6, 7, 9]);
        assert_eq!(rows(&folds, 2), [8, 10, 11, 12]);
        assert!(matches!(stratified_k_fold(&[0, 1, 2], 3), Err(FoldError::ScarceClasses { largest: 1, .. })));
    }

    #[test]
    fn stratified_group_folds_of_scikit_learn() {
        let folds = stratified_group_k_fold(&Y, &GROUPS, 3).unwrap();
        assert_eq!(rows(&folds, 0), [4, 5, 6, 7]);
        assert_eq!(rows(&folds, 1), [2, 3, 8, 11, 12]);
        assert_eq!(rows(&folds, 2), [0, 1, 9, 10]);
        assert!(matches!(stratified_group_k_fold(&Y, &[0; 13], 3), Err(FoldError::Groups { groups: 1, .. })));
    }

    proptest! {
        #[test]
        fn groups_stay_whole(data in prop::collection::vec((0..2u8, 0..9u8), 30..80), k in 2..5usize) {
            let classes: Vec<u8> = data.iter().map(|d| d.0).collect();
            let groups: Vec<u8> = data.iter().map(|d| d.1).collect();
            if let Ok(folds) = stratified_group_k_fold(&classes, &groups, k) {
                for (a, fold_a) in groups.iter().zip(&folds) {
                    prop_assert!(*fold_a < k);
                    prop_assert!(groups.iter().zip(&folds).all(|(b, fold_b)| a != b || fold_a == fold_b));
                }
            }
        }

        #[test]
        fn classes_are_spread_evenly(classes in prop::collection::vec(0..3u8, 10..60), k in 2..4usize) {
            let folds = stratified_k_fold(&classes, k).unwrap();
            for class in 0..3u8 {
                let count = |fold: usize| (0..classes.len()).filter(|i| classes[*i] == class && folds[*i] == fold).count();
                let counts: Vec<usize> = (0..k).map(count).collect();
                prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
            }
        }
    }
}
