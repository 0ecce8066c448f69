//! Making and writing a whole data set of phantoms.

use std::path::{Path, PathBuf};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use willis_core::cohort::paths::{origin_file, truth_file};
use willis_core::cohort::{Appearance, CohortOrigin, ScanTruth, SeriesTruth, read_origin};
use willis_core::files::json;

use super::SeriesUids;
use super::error::{WriteCohortError, at};
use super::series::write_series;
use super::tables::write_tables;
use crate::appearance::AppearanceModel;
use crate::mix::CohortMix;
use crate::spec::{PhantomSpec, Randomisation};
use crate::synthesis::{Phantom, synthesise};

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
    let origin = CohortOrigin { seed, mix: format!("{mix:?}"), benchmark: None, more_seeds: Vec::new() };
    let mut cohort = CohortWriter::claim(root, &origin)?;
    for index in 0..n as u64 {
        cohort.add_drawn(seed, index, mix, None)?;
        progress(cohort.len());
    }
    cohort.finish()
}

/// A data set that is being written, series by series.
#[derive(Debug)]
pub struct CohortWriter {
    root: PathBuf,
    truths: Vec<SeriesTruth>,
}

impl CohortWriter {
    /// Starts a data set, or resumes it if the folder holds a part of the same one.
    ///
    /// # Errors
    /// `OtherCohort` if the folder holds a data set of another origin; `Io` and `File`.
    pub fn claim(root: &Path, origin: &CohortOrigin) -> Result<Self, WriteCohortError> {
        std::fs::create_dir_all(root).map_err(at(root))?;
        let path = origin_file(root);
        match read_origin(root)? {
            None => json::write(&path, origin)?,
            Some(found) if found != *origin => return Err(WriteCohortError::OtherCohort { path }),
            Some(_) => {}
        }
        Ok(Self { root: root.to_path_buf(), truths: Vec::new() })
    }

    /// Adds the phantom at `index` of the heads of `seed`, as part of a benchmark if `part` is
    /// given. `mix` must be valid.
    ///
    /// # Errors
    /// as [`Self::add`]
    pub fn add_drawn(
        &mut self,
        seed: u64,
        index: u64,
        mix: &CohortMix,
        part: Option<&str>,
    ) -> Result<&SeriesTruth, WriteCohortError> {
        self.add(&SeriesUids::new(seed, index), || {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(index);
            let spec = PhantomSpec::draw(&mut rng, mix);
            let phantom = synthesise(&spec, rng.random());
            let appearance = match (&spec.model, spec.randomise) {
                (AppearanceModel::Scanner(_), _) => Appearance::Scanner,
                (AppearanceModel::Random(_), _) => Appearance::Random,
                (AppearanceModel::Textured(_), _) => Appearance::Textured,
                (AppearanceModel::Plain, Randomisation::Realistic) => Appearance::Realistic,
                (AppearanceModel::Plain, Randomisation::Wide) => Appearance::Wide,
            };
            let scan = ScanTruth::new(phantom.volume.grid, appearance);
            (phantom, ScanTruth { header: mix.header, part: part.map(String::from), ..scan })
        })
    }

    /// Adds a series, unless its truth, which is written last, exists from an earlier run.
    ///
    /// # Errors
    /// An error for a file that cannot be written, or for the truth of an earlier series that
    /// cannot be read.
    pub fn add(
        &mut self,
        uids: &SeriesUids,
        make: impl FnOnce() -> (Phantom, ScanTruth),
    ) -> Result<&SeriesTruth, WriteCohortError> {
        let truth = truth_file(&self.root, &uids.series());
        let added = if truth.exists() {
            json::read(&truth)?
        } else {
            let (phantom, scan) = make();
            write_series(&self.root, &phantom, uids, scan)?
        };
        Ok(self.truths.push_mut(added))
    }

    /// Number of series so far.
    pub fn len(&self) -> usize {
        self.truths.len()
    }

    /// Whether there is no series yet.
    pub fn is_empty(&self) -> bool {
        self.truths.is_empty()
    }

    /// Writes the tables.
    ///
    /// # Errors
    /// `File` for a table that cannot be written.
    pub fn finish(self) -> Result<(), WriteCohortError> {
        write_tables(&self.root, &self.truths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::ScanSize;

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
