//! Whole data sets of phantoms.

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use willis_core::files::json;

use super::series::{SeriesToWrite, SeriesTruth, truth_path, write_series};
use super::tables::write_tables;
use super::uid::SeriesUids;
use super::{CohortError, at};
use crate::spec::{CohortMix, PhantomSpec};
use crate::synthesis::{Phantom, synthesise};

impl<'a> From<&'a Phantom> for SeriesToWrite<'a> {
    fn from(phantom: &'a Phantom) -> Self {
        Self {
            volume: &phantom.volume,
            rescale: phantom.rescale,
            sites: &phantom.sites,
            aneurysm: &phantom.aneurysm,
            lesions: &phantom.lesions,
            meta: &phantom.meta,
        }
    }
}

/// Seed and mix of a data set: the content of `cohort.json`, by which a second run knows its own
/// folder.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Recipe {
    seed: u64,
    mix: String,
}

/// Makes a data set of `n` series: the same seed and mix give the same bytes, whole series that are
/// there already are kept, and the tables come last. `progress` hears how many series are done.
///
/// # Errors
/// `OtherCohort` when the folder holds a data set of another seed or mix; else a file that cannot
/// be written, or the truth of an earlier series that cannot be read.
pub fn synthesise_cohort(
    root: &Path,
    n: usize,
    seed: u64,
    mix: &CohortMix,
    progress: &dyn Fn(usize),
) -> Result<(), CohortError> {
    claim(root, Recipe { seed, mix: format!("{mix:?}") })?;
    let mut truths = Vec::new();
    for index in 0..n as u64 {
        truths.push(series(root, seed, index, mix)?);
        progress(truths.len());
    }
    write_tables(root, &truths)
}

/// Marks a folder as this data set's, or finds that it is another's.
fn claim(root: &Path, recipe: Recipe) -> Result<(), CohortError> {
    std::fs::create_dir_all(root).map_err(at(root))?;
    let path = root.join("cohort.json");
    if !path.exists() {
        return Ok(json::write(&path, &recipe)?);
    }
    let found: Recipe = json::read(&path)?;
    if found == recipe { Ok(()) } else { Err(CohortError::OtherCohort { path }) }
}

/// One series by its number, made unless its truth, which is written last, is there.
fn series(root: &Path, seed: u64, index: u64, mix: &CohortMix) -> Result<SeriesTruth, CohortError> {
    let uids = SeriesUids::new(seed, index);
    let truth = truth_path(root, &uids.series());
    if truth.exists() {
        return Ok(json::read(&truth)?);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index);
    let spec = PhantomSpec::draw(&mut rng, mix);
    let phantom = synthesise(&spec, rng.random());
    write_series(root, &SeriesToWrite::from(&phantom), &uids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ScanSize;

    #[test]
    fn a_second_run_keeps_what_is_there_and_ends_in_the_same_tables() {
        let folder = tempfile::tempdir().unwrap();
        let mix = CohortMix { size: ScanSize::Tiny, ..CohortMix::default() };
        synthesise_cohort(folder.path(), 2, 3, &mix, &|_| ()).unwrap();
        let table = std::fs::read(folder.path().join("train.csv")).unwrap();
        let lost = truth_path(folder.path(), &SeriesUids::new(3, 1).series());
        let truth = std::fs::read(&lost).unwrap();
        std::fs::remove_file(&lost).unwrap();
        synthesise_cohort(folder.path(), 2, 3, &mix, &|_| ()).unwrap();
        assert_eq!(std::fs::read(folder.path().join("train.csv")).unwrap(), table);
        assert_eq!(std::fs::read(&lost).unwrap(), truth);
    }

    #[test]
    fn a_folder_of_another_mix_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mix = CohortMix { size: ScanSize::Tiny, ..CohortMix::default() };
        synthesise_cohort(folder.path(), 0, 3, &mix, &|_| ()).unwrap();
        let other = CohortMix { prevalence: 1.0, ..mix };
        let refused = synthesise_cohort(folder.path(), 1, 3, &other, &|_| ());
        assert!(matches!(refused, Err(CohortError::OtherCohort { .. })));
    }
}
