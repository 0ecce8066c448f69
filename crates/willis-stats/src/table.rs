//! A table of features.

/// Rows of features; NaN marks a missing value.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureTable {
    n_columns: usize,
    values: Vec<f32>,
}

impl FeatureTable {
    /// A table from its values in row-major order; infinite values become missing.
    ///
    /// # Panics
    /// if there are no columns, or the values are not whole rows (programmer errors).
    pub fn new(n_columns: usize, values: Vec<f32>) -> Self {
        assert!(n_columns > 0 && values.len().is_multiple_of(n_columns), "whole rows of {n_columns} columns");
        let finite = |v: f32| if v.is_finite() { v } else { f32::NAN };
        Self { n_columns, values: values.into_iter().map(finite).collect() }
    }

    /// Number of columns.
    pub fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.values.len() / self.n_columns
    }

    /// Iterates over the rows.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.n_columns)
    }

    /// All values in row-major order.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The rows at the given positions.
    ///
    /// # Panics
    /// if a position is beyond the last row (programmer error).
    pub fn select(&self, rows: &[usize]) -> Self {
        let row = |i: &usize| self.values[i * self.n_columns..][..self.n_columns].iter().copied();
        Self { n_columns: self.n_columns, values: rows.iter().flat_map(row).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_selected_and_infinities_are_missing() {
        let table = FeatureTable::new(2, vec![1.0, 2.0, 3.0, f32::INFINITY, 5.0, 6.0]);
        assert_eq!((table.n_rows(), table.n_columns()), (3, 2));
        assert_eq!(table.select(&[2, 0]).values(), [5.0, 6.0, 1.0, 2.0]);
        assert!(table.values()[3].is_nan());
    }
}
