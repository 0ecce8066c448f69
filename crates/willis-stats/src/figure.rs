//! A figure of merit with its interval, or with the reason why it is undefined.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use crate::bootstrap::{Interval, interval_by_group};

/// Seed of the bootstrap samples behind every figure.
const SEED: u64 = 0;

/// Why a metric has no value for some data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Undefined {
    /// There are no rows.
    #[error("no data")]
    Empty,
    /// Positives or negatives are missing.
    #[error("one class only")]
    OneClass,
    /// Positives are missing.
    #[error("no positives")]
    NoPositives,
    /// No series has a lesion.
    #[error("no lesions")]
    NoLesions,
    /// A mask or a skeleton is empty.
    #[error("empty mask")]
    EmptyMask,
    /// A score is not a number.
    #[error("a score is not a number")]
    NotANumber,
    /// There is too little to tell anything.
    #[error("fewer than {least}")]
    TooFew {
        /// The least number.
        least: usize,
    },
    /// What the metric needs was not measured for every series.
    #[error("not measured")]
    NotMeasured,
    /// Columns of the challenge without an area under the curve.
    #[error("no AUC in {columns} of 14 columns")]
    UndefinedColumns {
        /// Their number.
        columns: usize,
    },
}

impl Serialize for Undefined {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A figure of merit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Stable identifier, by which programs look a figure up.
    pub id: Cow<'static, str>,
    /// Number of series it was computed from.
    pub n: usize,
    /// The value; `None` where undefined.
    pub value: Option<f64>,
    /// 95 % bootstrap interval over series; `None` where undefined or where series do not matter.
    pub interval: Option<Interval>,
    /// Why there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undefined: Option<Undefined>,
}

impl Figure {
    /// A metric of all `n` series, with its interval from `samples` bootstrap samples.
    ///
    /// `metric` gets indices of series, with repeats in a bootstrap sample.
    pub fn new(
        id: impl Into<Cow<'static, str>>,
        n: usize,
        samples: usize,
        metric: impl Fn(&[usize]) -> Result<f64, Undefined> + Sync,
    ) -> Self {
        Self::by_group(id, &(0..n).map(|i| vec![i]).collect::<Vec<_>>(), samples, metric)
    }

    /// As [`Self::new`], but the bootstrap draws whole groups of series, such as those of a patient.
    pub fn by_group(
        id: impl Into<Cow<'static, str>>,
        groups: &[Vec<usize>],
        samples: usize,
        metric: impl Fn(&[usize]) -> Result<f64, Undefined> + Sync,
    ) -> Self {
        let n = groups.iter().map(Vec::len).sum();
        let all: Vec<usize> = (0..n).collect();
        let value = metric(&all).and_then(|v| if v.is_nan() { Err(Undefined::NotANumber) } else { Ok(v) });
        Self {
            id: id.into(),
            n,
            value: value.ok(),
            interval: interval_by_group(groups, SEED, samples, |sample| metric(sample).ok()),
            undefined: value.err(),
        }
    }

    /// A number that does not vary with the choice of series, such as a count of parameters.
    pub fn constant(id: impl Into<Cow<'static, str>>, n: usize, value: f64) -> Self {
        Self { id: id.into(), n, value: Some(value), interval: None, undefined: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::auroc;

    const SCORES: [f64; 6] = [0.9, 0.4, 0.6, 0.2, 0.8, 0.1];

    fn area(labels: [bool; 6]) -> Figure {
        Figure::new("auc_present", 6, 200, |sample| {
            let (scores, labels): (Vec<f64>, Vec<bool>) = sample.iter().map(|&i| (SCORES[i], labels[i])).unzip();
            auroc(&scores, &labels)
        })
    }

    #[test]
    fn a_figure_has_a_value_and_an_interval_around_it() {
        let figure = area([true, true, false, false, true, false]);
        let interval = figure.interval.unwrap();
        assert_eq!((figure.n, figure.undefined), (6, None));
        assert!(
            interval.lo <= figure.value.unwrap() && figure.value.unwrap() <= interval.hi && interval.lo < interval.hi
        );
    }

    #[test]
    fn one_class_is_a_reason_not_a_number() {
        let figure = area([true; 6]);
        assert_eq!((figure.value, figure.interval, figure.undefined), (None, None, Some(Undefined::OneClass)));
        let json = r#"{"id":"auc_present","n":6,"value":null,"interval":null,"undefined":"one class only"}"#;
        assert_eq!(serde_json::to_string(&figure).unwrap(), json);
    }

    #[test]
    fn not_a_number_is_never_a_value() {
        let figure = Figure::new("x", 3, 10, |_| Ok(f64::NAN));
        assert_eq!((figure.value, figure.interval, figure.undefined), (None, None, Some(Undefined::NotANumber)));
    }

    #[test]
    fn constants_have_no_interval() {
        let figure = Figure::constant("parameters_millions", 4, 2.5);
        let json = r#"{"id":"parameters_millions","n":4,"value":2.5,"interval":null}"#;
        assert_eq!(serde_json::to_string(&figure).unwrap(), json);
    }
}
