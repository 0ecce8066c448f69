//! Training cases from a data set: each series read and harmonised once, its masks on the same
//! grid, kept in a cache folder inside the data set whose name is the hash of what made it.

pub mod maps;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use willis_core::cohort::{Cohort, CohortSeries};
use willis_core::files::{case, hash::sha256_hex, nifti};
use willis_core::{Image, TrainingCase};
use willis_imaging::harmonise::harmonise;
use willis_imaging::ingest::ingest;
use willis_imaging::resample;
use willis_stats::folds::stratified_group_k_fold;

use crate::config::Config;
use crate::progress::Progress;

/// Folder of caches inside a data set.
const CACHE: &str = ".willis";

/// A prepared series.
#[derive(Debug, Clone)]
pub struct PreparedCase {
    /// Series instance UID.
    pub uid: String,
    /// Fold it belongs to.
    pub fold: usize,
    /// Folder of the case.
    pub folder: PathBuf,
}

/// Fold of each series, all 0 for one fold: grouped by patient (one series per patient in this
/// layout), stratified by modality and presence.
pub fn fold_of_series(cohort: &Cohort, folds: usize) -> anyhow::Result<Vec<usize>> {
    if folds == 1 {
        return Ok(vec![0; cohort.series.len()]);
    }
    let strata: Vec<_> = cohort.series.iter().map(|s| (s.meta.modality, s.present)).collect();
    let patients: Vec<&str> = cohort.series.iter().map(|s| s.meta.uid.as_str()).collect();
    Ok(stratified_group_k_fold(&strata, &patients, folds)?)
}

/// Prepares every series that is not in the cache yet. A series that cannot be read is named and
/// left out.
pub fn prepare(
    cohort: &Cohort,
    config: &Config,
    folds: usize,
    progress: &Progress,
) -> anyhow::Result<Vec<PreparedCase>> {
    let fold_of = fold_of_series(cohort, folds)?;
    let recipe = serde_json::to_string(&(&config.ingest, &config.harmonise))?;
    let cache = cohort.root.join(CACHE).join(format!("cases-{}", &sha256_hex(recipe.as_bytes())[..12]));
    let bar = progress.bar("prepare", cohort.series.len() as u64);
    let mut prepared = Vec::new();
    for (series, &fold) in cohort.series.iter().zip(&fold_of) {
        let folder = cache.join(&series.meta.uid);
        let done = if folder.join(case::FILE_NAME).exists() { Ok(()) } else { prepare_one(series, config, &folder) };
        match done {
            Ok(()) => prepared.push(PreparedCase { uid: series.meta.uid.clone(), fold, folder }),
            Err(error) => bar.suspend(|| eprintln!("left out: {}: {error:#}", series.meta.uid)),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    ensure!(!prepared.is_empty(), "no series of {} could be prepared", cohort.root.display());
    Ok(prepared)
}

fn prepare_one(series: &CohortSeries, config: &Config, folder: &Path) -> anyhow::Result<()> {
    let mut ingest_config = config.ingest.clone();
    ingest_config.modality = series.meta.modality;
    let volume = Arc::new(ingest(&series.folder, &ingest_config)?);
    let harmonised = harmonise(&volume, &config.harmonise)?;
    let labels = |file: &Option<PathBuf>| -> anyhow::Result<Image<u8>> {
        let path = file.as_ref().context("it has no label map in segmentations/")?;
        Ok(resample::nearest(&nifti::read_labels(path)?, &harmonised.image.grid, 0))
    };
    let truth = series.truth.as_ref().context("it has no truth/<uid>.json with its lesions")?;
    let case = TrainingCase {
        sites: labels(&series.sites_file)?,
        aneurysm: labels(&series.aneurysm_file)?,
        lesions: truth.lesions.clone(),
        meta: volume.meta.clone(),
        image: harmonised.image,
    };
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    case::save(folder, &case)?;
    Ok(())
}
