//! Training cases: series read and harmonised once, with their ground truth on the same grid, kept
//! in a cache.

pub mod mapped;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use willis_core::cohort::{self, Cohort, CohortSeries};
use willis_core::files::{case, hash::sha256_hex, nifti};
use willis_core::{HarmonisedVolume, Image, TrainingCase};
use willis_imaging::ingest::{IngestConfig, ingest};
use willis_imaging::resample;
use willis_stats::folds::stratified_group_k_fold;

use crate::brain::BrainFinder;
use crate::config::Config;
use crate::line::harmonised;
use crate::progress::Progress;

/// Folder of caches inside a data set.
const CACHE: &str = ".willis";

/// A training case in the cache.
#[derive(Debug, Clone)]
pub struct PreparedCase {
    /// Series instance UID.
    pub uid: String,
    /// Fold of the series.
    pub fold: usize,
    /// Folder of the case.
    pub folder: PathBuf,
}

/// Fold of each series: grouped by patient (one series per patient in this layout), stratified by
/// modality and presence of an aneurysm. A single fold holds every series.
///
/// # Errors
/// when there are fewer series than folds
pub fn fold_of_series(cohort: &Cohort, folds: usize) -> anyhow::Result<Vec<usize>> {
    if folds == 1 {
        return Ok(vec![0; cohort.series.len()]);
    }
    let strata: Vec<_> = cohort.series.iter().map(|s| (s.meta.modality, s.present)).collect();
    let patients: Vec<&str> = cohort.series.iter().map(|s| s.meta.uid.as_str()).collect();
    Ok(stratified_group_k_fold(&strata, &patients, folds)?)
}

/// Cases of the series of a data set. A series that cannot be read is named on stderr and left out.
///
/// The cache is a folder inside the data set, named by the hash of the configuration.
///
/// # Errors
/// when no series can be read
pub fn prepare(
    cohort: &Cohort,
    config: &Config,
    folds: usize,
    progress: &Progress,
) -> anyhow::Result<Vec<PreparedCase>> {
    refuse_benchmark(&cohort.root)?;
    let fold_of = fold_of_series(cohort, folds)?;
    let made_by = serde_json::to_string(&(&config.ingest, &config.harmonise))?;
    let cache = cohort.root.join(CACHE).join(format!("cases-{}", &sha256_hex(made_by.as_bytes())[..12]));
    let bar = progress.bar("prepare", cohort.series.len() as u64);
    let mut prepared = Vec::new();
    for (series, &fold) in cohort.series.iter().zip(&fold_of) {
        let folder = cache.join(&series.meta.uid);
        match prepare_once(&folder, || labelled(series, config)) {
            Ok(()) => prepared.push(PreparedCase { uid: series.meta.uid.clone(), fold, folder }),
            Err(error) => bar.suspend(|| eprintln!("left out: {}: {error:#}", series.meta.uid)),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    ensure!(!prepared.is_empty(), "no series of {} could be read", cohort.root.display());
    Ok(prepared)
}

/// Refuses to train on heads that benchmarks are made of.
///
/// # Errors
/// when the folder, or the one it lies in, is a data set of a benchmark or has one of its seeds
pub fn refuse_benchmark(data: &Path) -> anyhow::Result<()> {
    for root in std::iter::once(data).chain(data.parent()) {
        let origin = cohort::read_origin(root)?;
        if let Some(origin) = origin.filter(cohort::CohortOrigin::is_for_evaluation) {
            bail!(
                "{} is kept for evaluation (benchmark seed {}), so nothing may be trained on it; train on a data set \
                 that `willis cohort synth` made",
                root.display(),
                origin.seed
            );
        }
    }
    Ok(())
}

/// Folders of unlabelled cases, one per series of a folder. A series that cannot be read is named
/// on stderr and left out.
///
/// Each case is a folder in `cache`, named by the hash of its path and the configuration.
///
/// # Errors
/// when no series can be read
pub fn prepare_unlabelled(
    data: &Path,
    config: &Config,
    cache: &Path,
    progress: &Progress,
) -> anyhow::Result<Vec<PathBuf>> {
    refuse_benchmark(data)?;
    let entries = std::fs::read_dir(data).with_context(|| data.display().to_string())?;
    let mut inputs = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>()?;
    inputs.sort();
    let bar = progress.bar("prepare", inputs.len() as u64);
    let mut folders = Vec::new();
    for input in &inputs {
        let made_by = serde_json::to_string(&(input, &config.ingest, &config.harmonise))?;
        let folder = cache.join(&sha256_hex(made_by.as_bytes())[..12]);
        match prepare_once(&folder, || unlabelled(input, config)) {
            Ok(()) => folders.push(folder),
            Err(error) => bar.suspend(|| eprintln!("left out: {}: {error:#}", input.display())),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    ensure!(!folders.is_empty(), "no series of {} could be read", data.display());
    Ok(folders)
}

/// Makes and saves a case unless its folder holds one.
fn prepare_once(folder: &Path, make: impl FnOnce() -> anyhow::Result<TrainingCase>) -> anyhow::Result<()> {
    if folder.join(case::FILE_NAME).exists() {
        return Ok(());
    }
    let case = make()?;
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    Ok(case::save(folder, &case)?)
}

fn labelled(series: &CohortSeries, config: &Config) -> anyhow::Result<TrainingCase> {
    let ingest = IngestConfig { modality: series.meta.modality, ..config.ingest.clone() };
    let HarmonisedVolume { image, meta, .. } = read(&series.folder, &ingest, config)?;
    let labels = |file: &Option<PathBuf>| -> anyhow::Result<Image<u8>> {
        let path = file.as_ref().context("it has no label map in segmentations/")?;
        Ok(resample::nearest(&nifti::read_labels(path)?, &image.grid, 0))
    };
    let truth = series.truth.as_ref().context("it has no truth/<uid>.json with its lesions")?;
    Ok(TrainingCase {
        sites: labels(&series.sites_file)?,
        aneurysm: labels(&series.aneurysm_file)?,
        lesions: truth.lesions.clone(),
        meta,
        image,
    })
}

fn unlabelled(input: &Path, config: &Config) -> anyhow::Result<TrainingCase> {
    let HarmonisedVolume { image, meta, .. } = read(input, &config.ingest, config)?;
    let no_labels = Image::filled(image.grid, 0u8);
    Ok(TrainingCase { sites: no_labels.clone(), aneurysm: no_labels, lesions: Vec::new(), meta, image })
}

fn read(input: &Path, ingest_config: &IngestConfig, config: &Config) -> anyhow::Result<HarmonisedVolume> {
    let volume = Arc::new(ingest(input, ingest_config)?);
    Ok(harmonised(&volume, &BrainFinder::embedded()?, config)?)
}
