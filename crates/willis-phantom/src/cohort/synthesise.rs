//! Whole data sets of phantoms.

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use willis_core::files::json;

use super::CohortError;
use super::series::{SeriesToWrite, SeriesTruth, truth_path, write_series};
use super::tables::write_tables;
use super::uid::SeriesUids;
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

/// Makes a data set of `n` series: the same seed and mix give the same bytes, whole series that are there already are
/// kept, and the tables come last. `progress` hears how many series are done.
///
/// # Errors
/// a file that cannot be written, or the truth of an earlier series that cannot be read.
pub fn synthesise_cohort(
    root: &Path,
    n: usize,
    seed: u64,
    mix: &CohortMix,
    progress: &dyn Fn(usize),
) -> Result<(), CohortError> {
    let mut truths = Vec::with_capacity(n);
    for index in 0..n as u64 {
        truths.push(series(root, seed, index, mix)?);
        progress(truths.len());
    }
    write_tables(root, &truths)
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
}
