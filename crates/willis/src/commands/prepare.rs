//! Training cases from a data set: each series read and harmonised once, its masks on the same grid, kept in a cache
//! folder inside the data set whose name is the hash of what made it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use willis_core::files::{case, hash::sha256_hex, nifti};
use willis_core::{Image, Modality, TrainingCase};
use willis_imaging::harmonise::harmonise;
use willis_imaging::ingest::ingest;
use willis_imaging::resample;
use willis_phantom::cohort::{Cohort, CohortRow};

use super::progress::Progress;
use crate::config::Config;

/// Folder of caches inside a data set.
const CACHE: &str = ".willis";

/// A prepared series.
#[derive(Debug, Clone)]
pub struct PreparedCase {
    /// Series instance UID.
    pub uid: String,
    /// Kind of series.
    pub modality: Modality,
    /// Fold it belongs to.
    pub fold: usize,
    /// Folder of the case.
    pub folder: PathBuf,
}

/// Fold of each row: grouped by patient (one series per patient in this layout), stratified by modality and presence.
pub fn fold_of_series(cohort: &Cohort, folds: usize) -> anyhow::Result<Vec<usize>> {
    ensure!(folds >= 2 && folds <= cohort.rows.len(), "{} series cannot be split into {folds} folds", cohort.rows.len());
    let stratum = |row: &CohortRow| 2 * row.modality as usize + usize::from(row.present);
    let strata: Vec<usize> = cohort.rows.iter().map(stratum).collect();
    let patients: Vec<usize> = (0..cohort.rows.len()).collect();
    let mut fold_of = vec![0; cohort.rows.len()];
    for (fold, rows) in willis_stats::folds::stratified_group_k_fold(&strata, &patients, folds).into_iter().enumerate() {
        rows.into_iter().for_each(|row| fold_of[row] = fold);
    }
    Ok(fold_of)
}

/// Prepares every series that is not in the cache yet. A series that cannot be read is named and left out.
pub fn prepare(cohort: &Cohort, config: &Config, folds: usize, progress: &Progress) -> anyhow::Result<Vec<PreparedCase>> {
    let fold_of = fold_of_series(cohort, folds)?;
    let recipe = toml::to_string(&(&config.ingest, &config.harmonise)).or_else(|_| serde_json::to_string(&(&config.ingest, &config.harmonise)))?;
    let cache = cohort.root.join(CACHE).join(format!("cases-{}", &sha256_hex(recipe.as_bytes())[..12]));
    let bar = progress.bar("prepare", cohort.rows.len() as u64);
    let mut prepared = Vec::new();
    for (row, &fold) in cohort.rows.iter().zip(&fold_of) {
        let folder = cache.join(&row.uid);
        let done = if case::exists(&folder) { Ok(()) } else { prepare_one(cohort, row, config, &folder) };
        match done {
            Ok(()) => prepared.push(PreparedCase { uid: row.uid.clone(), modality: row.modality, fold, folder }),
            Err(error) => bar.suspend(|| eprintln!("left out: {}: {error:#}", row.uid)),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    ensure!(!prepared.is_empty(), "no series of {} could be prepared", cohort.root.display());
    Ok(prepared)
}

fn prepare_one(cohort: &Cohort, row: &CohortRow, config: &Config, folder: &Path) -> anyhow::Result<()> {
    let mut ingest_config = config.ingest.clone();
    ingest_config.modality = Some(row.modality);
    let volume = Arc::new(ingest(&cohort.series_folder(row), &ingest_config)?);
    let harmonised = harmonise(&volume, &config.harmonise)?;
    let labels = |path: PathBuf| -> anyhow::Result<Image<u8>> {
        let mask = nifti::read_labels(&path).with_context(|| path.display().to_string())?;
        Ok(resample::nearest(&mask, &harmonised.image.grid))
    };
    let case = TrainingCase {
        sites: labels(cohort.sites_file(row))?,
        aneurysm: labels(cohort.aneurysm_file(row))?,
        lesions: cohort.lesions(row)?,
        meta: volume.meta.clone(),
        image: harmonised.image,
    };
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    case::save(folder, &case)?;
    Ok(())
}
