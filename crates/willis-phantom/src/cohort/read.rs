//! A data set in the challenge's layout, as training and evaluation see it.

use std::path::{Path, PathBuf};

use willis_core::files::json;
use willis_core::{SITE_COUNT, SeriesMeta};

use super::CohortError;
use super::series::{Localizer, SeriesTruth, labels_path, series_folder, truth_path};
use super::tables::{LOCALIZER_TABLE, SERIES_TABLE, SeriesRow, read_localizer_table, read_series_table};

/// A data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Cohort {
    /// Its folder.
    pub root: PathBuf,
    /// Its series, in the order of the table.
    pub series: Vec<CohortSeries>,
}

/// One series of a data set: labels, and where its files are.
#[derive(Debug, Clone, PartialEq)]
pub struct CohortSeries {
    /// UID, modality, age and sex.
    pub meta: SeriesMeta,
    /// Whether there is an aneurysm at each site, column order.
    pub sites: [bool; SITE_COUNT],
    /// Whether there is an aneurysm anywhere.
    pub present: bool,
    /// Lesions as pixels; empty where the data set does not tell.
    pub localizers: Vec<Localizer>,
    /// Lesions in millimetres; only of synthetic data sets.
    pub truth: Option<SeriesTruth>,
    /// Folder of the DICOM instances; not checked.
    pub folder: PathBuf,
    /// Site label map, where there is one.
    pub sites_file: Option<PathBuf>,
    /// Aneurysm label map, where there is one.
    pub aneurysm_file: Option<PathBuf>,
}

/// Reads the tables of a data set and finds its files; no image is opened.
///
/// `train_localizers.csv`, label maps and truth may be absent.
///
/// # Errors
/// a table that is missing or senseless, or a truth file that cannot be understood.
pub fn read(root: &Path) -> Result<Cohort, CohortError> {
    let rows = read_series_table(&root.join(SERIES_TABLE))?;
    let localizer_table = root.join(LOCALIZER_TABLE);
    let mut localizers = match localizer_table.exists() {
        true => read_localizer_table(&localizer_table)?,
        false => Default::default(),
    };
    let series = |row: SeriesRow| {
        let uid = &row.meta.uid;
        let truth_file = existing(truth_path(root, uid));
        Ok(CohortSeries {
            localizers: localizers.remove(uid).unwrap_or_default(),
            truth: truth_file.map(|path| json::read(&path)).transpose()?,
            folder: series_folder(root, uid),
            sites_file: labels_file(root, uid, "cowseg"),
            aneurysm_file: labels_file(root, uid, "aneurysm"),
            meta: row.meta,
            sites: row.sites,
            present: row.present,
        })
    };
    let series = rows.into_iter().map(series).collect::<Result<_, CohortError>>()?;
    Ok(Cohort { root: root.to_path_buf(), series })
}

/// The label map, compressed or, as in the challenge's own files, not.
fn labels_file(root: &Path, uid: &str, kind: &str) -> Option<PathBuf> {
    let compressed = labels_path(root, uid, kind);
    existing(compressed.with_extension("")).or_else(|| existing(compressed))
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.exists().then_some(path)
}
