//! Making and writing a whole data set of phantoms.

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use willis_core::cohort::SeriesTruth;
use willis_core::cohort::paths::truth_file;
use willis_core::files::json;

use super::SeriesUids;
use super::error::{WriteCohortError, at};
use super::series::write_series;
use super::tables::write_tables;
use crate::spec::{CohortMix, PhantomSpec};
use crate::synthesis::synthesise;

/// The content of `cohort.json`: the seed and mix of a data set. A run that resumes compares it
/// with its own.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct CohortOrigin {
    seed: u64,
    mix: String,
}

/// Makes a data set of `n` series and writes it to `root`.
///
/// The same seed and mix give the same bytes. Complete series of an earlier, interrupted run are
/// kept. The tables are written last. `progress` is called with the number of finished series.
///
/// # Errors
/// `InvalidMix` for an invalid mix; `OtherCohort` if the folder holds a data set of another seed or
/// mix; otherwise an error for a file that cannot be written, or for the truth of an earlier series
/// that cannot be read.
pub fn synthesise_cohort(
    root: &Path,
    n: usize,
    seed: u64,
    mix: &CohortMix,
    progress: &dyn Fn(usize),
) -> Result<(), WriteCohortError> {
    mix.validate()?;
    claim(root, CohortOrigin { seed, mix: format!("{mix:?}") })?;
    let mut truths = Vec::new();
    for index in 0..n as u64 {
        truths.push(series(root, seed, index, mix)?);
        progress(truths.len());
    }
    write_tables(root, &truths)
}

/// Writes `cohort.json`, or checks that an existing one is equal.
fn claim(root: &Path, origin: CohortOrigin) -> Result<(), WriteCohortError> {
    std::fs::create_dir_all(root).map_err(at(root))?;
    let path = root.join("cohort.json");
    if !path.exists() {
        return Ok(json::write(&path, &origin)?);
    }
    let found: CohortOrigin = json::read(&path)?;
    if found == origin { Ok(()) } else { Err(WriteCohortError::OtherCohort { path }) }
}

/// Makes the series at `index`, unless its truth, which is written last, exists.
fn series(root: &Path, seed: u64, index: u64, mix: &CohortMix) -> Result<SeriesTruth, WriteCohortError> {
    let uids = SeriesUids::new(seed, index);
    let truth = truth_file(root, &uids.series());
    if truth.exists() {
        return Ok(json::read(&truth)?);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index);
    let spec = PhantomSpec::draw(&mut rng, mix);
    let phantom = synthesise(&spec, rng.random());
    write_series(root, &phantom, &uids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ScanSize;

    #[test]
    fn a_resumed_run_keeps_complete_series_and_writes_the_same_tables() {
        let folder = tempfile::tempdir().unwrap();
        let mix = CohortMix { size: ScanSize::Tiny, ..CohortMix::default() };
        synthesise_cohort(folder.path(), 2, 3, &mix, &|_| ()).unwrap();
        let table = std::fs::read(folder.path().join("train.csv")).unwrap();
        let lost = truth_file(folder.path(), &SeriesUids::new(3, 1).series());
        let truth = std::fs::read(&lost).unwrap();
        std::fs::remove_file(&lost).unwrap();
        synthesise_cohort(folder.path(), 2, 3, &mix, &|_| ()).unwrap();
        assert_eq!(std::fs::read(folder.path().join("train.csv")).unwrap(), table);
        assert_eq!(std::fs::read(&lost).unwrap(), truth);
    }

    #[test]
    fn a_folder_of_another_mix_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mix = CohortMix { size: ScanSize::Tiny, ..CohortMix::default() };
        synthesise_cohort(folder.path(), 0, 3, &mix, &|_| ()).unwrap();
        let other = CohortMix { prevalence: 1.0, ..mix };
        let refused = synthesise_cohort(folder.path(), 1, 3, &other, &|_| ());
        assert!(matches!(refused, Err(WriteCohortError::OtherCohort { .. })));
    }
}
