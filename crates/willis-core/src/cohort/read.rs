//! Reading a data set: its tables, its truth, and where its images are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::paths::{LOCALIZER_TABLE, SERIES_TABLE, aneurysm_file, series_folder, sites_file, truth_file};
use super::tables::{SeriesRow, read_localizer_table, read_series_table};
use super::{CohortError, Localizer, SeriesTruth};
use crate::files::json;
use crate::{SITE_COUNT, SeriesMeta};

/// A data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Cohort {
    /// Its folder.
    pub root: PathBuf,
    /// Its series, in the order of the table.
    pub series: Vec<CohortSeries>,
}

/// One series of a data set: its labels and the paths of its files.
#[derive(Debug, Clone, PartialEq)]
pub struct CohortSeries {
    /// UID, modality, age and sex.
    pub meta: SeriesMeta,
    /// Whether there is an aneurysm at each site, in the order of [`crate::Site::ALL`].
    pub sites: [bool; SITE_COUNT],
    /// Whether there is an aneurysm anywhere.
    pub present: bool,
    /// Lesions as pixels; empty if the data set has no table of lesions.
    pub localizers: Vec<Localizer>,
    /// Lesions in millimetres; only synthetic data sets have them.
    pub truth: Option<SeriesTruth>,
    /// Folder of the DICOM instances; it may be absent.
    pub folder: PathBuf,
    /// Label map of the sites, if the file exists.
    pub sites_file: Option<PathBuf>,
    /// Label map of the aneurysm sacs, if the file exists.
    pub aneurysm_file: Option<PathBuf>,
}

/// Reads the tables and the truth of a data set and finds its files; opens no image.
///
/// `train_localizers.csv`, label maps and truth may be absent.
///
/// # Errors
/// A table that is missing or invalid, or a truth file that cannot be read.
pub fn read(root: &Path) -> Result<Cohort, CohortError> {
    let rows = read_series_table(&root.join(SERIES_TABLE))?;
    let localizer_table = root.join(LOCALIZER_TABLE);
    let mut localizers =
        if localizer_table.exists() { read_localizer_table(&localizer_table)? } else { BTreeMap::new() };
    let series = |row: SeriesRow| {
        let uid = &row.meta.uid;
        let truth = existing(truth_file(root, uid)).map(|path| json::read(&path)).transpose()?;
        Ok(CohortSeries {
            localizers: localizers.remove(uid).unwrap_or_default(),
            truth,
            folder: series_folder(root, uid),
            sites_file: label_map(sites_file(root, uid)),
            aneurysm_file: label_map(aneurysm_file(root, uid)),
            meta: row.meta,
            sites: row.sites,
            present: row.present,
        })
    };
    let series = rows.into_iter().map(series).collect::<Result<_, CohortError>>()?;
    Ok(Cohort { root: root.to_path_buf(), series })
}

/// A label map, compressed or, as in the challenge's own files, not.
fn label_map(compressed: PathBuf) -> Option<PathBuf> {
    existing(compressed.with_extension("")).or_else(|| existing(compressed))
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.exists().then_some(path)
}
