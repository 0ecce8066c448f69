//! What a synthetic data set was made from: the content of `cohort.json`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::paths::origin_file;
use crate::files::{FileError, json};

/// Seeds that are kept for benchmarks: a data set for training cannot be made from them.
pub const BENCHMARK_SEEDS: Range<u64> = 9_000_000..10_000_000;

/// Seeds and mix of a synthetic data set. A run that resumes compares it with its own.
///
/// Every head of a data set is drawn from its seed and the number of the series, so two data sets
/// without a common seed have no head in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CohortOrigin {
    /// Seed; of a benchmark, the seed of its first part.
    pub seed: u64,
    /// Mix, as text.
    pub mix: String,
    /// Benchmark that the data set belongs to. Such a data set is for evaluation only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub benchmark: Option<String>,
    /// Seeds of the other parts of a benchmark.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_seeds: Vec<u64>,
}

impl CohortOrigin {
    /// Every seed that heads were drawn from.
    pub fn seeds(&self) -> BTreeSet<u64> {
        self.more_seeds.iter().copied().chain([self.seed]).collect()
    }

    /// Whether nothing may be trained on the data set.
    pub fn is_for_evaluation(&self) -> bool {
        self.benchmark.is_some() || self.seeds().iter().any(|seed| BENCHMARK_SEEDS.contains(seed))
    }

    /// Seeds of both data sets. If there is any, they have heads in common.
    pub fn common_seeds(&self, other: &Self) -> BTreeSet<u64> {
        self.seeds().intersection(&other.seeds()).copied().collect()
    }
}

/// The origin of a data set; `None` if it has no `cohort.json`, as real data sets have none.
///
/// # Errors
/// A file that cannot be read or is not such a record.
pub fn read_origin(root: &Path) -> Result<Option<CohortOrigin>, FileError> {
    let path = origin_file(root);
    if path.exists() { json::read(&path).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_data_set_is_recorded_as_before_and_a_benchmark_with_its_seeds() {
        let plain = CohortOrigin { seed: 3, mix: "m".into(), benchmark: None, more_seeds: Vec::new() };
        assert_eq!(serde_json::to_string(&plain).unwrap(), r#"{"seed":3,"mix":"m"}"#);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_origin(folder.path()).unwrap(), None);
        let benchmark = CohortOrigin { benchmark: Some("small".into()), more_seeds: vec![5, 4], ..plain };
        json::write(&origin_file(folder.path()), &benchmark).unwrap();
        let read = read_origin(folder.path()).unwrap().unwrap();
        assert_eq!(read, benchmark);
        assert_eq!(read.seeds(), BTreeSet::from([3, 4, 5]));
    }

    #[test]
    fn benchmarks_are_for_evaluation_and_common_seeds_are_found() {
        let of = |seed, benchmark: Option<&str>, more_seeds| CohortOrigin {
            seed,
            mix: String::new(),
            benchmark: benchmark.map(String::from),
            more_seeds,
        };
        let training = of(7, None, vec![]);
        assert!(!training.is_for_evaluation());
        assert!(of(7, Some("small"), vec![]).is_for_evaluation() && of(9_000_001, None, vec![]).is_for_evaluation());
        assert_eq!(training.common_seeds(&of(1, Some("small"), vec![7, 8])), BTreeSet::from([7]));
        assert!(training.common_seeds(&of(8, None, vec![])).is_empty());
    }
}
