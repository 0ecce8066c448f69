//! Where the files of a data set are, relative to its root.

use std::path::{Path, PathBuf};

/// Name of the table of series.
pub const SERIES_TABLE: &str = "train.csv";
/// Name of the table of lesions.
pub const LOCALIZER_TABLE: &str = "train_localizers.csv";
/// Name of the folder that holds one folder of DICOM instances per series.
pub const SERIES_FOLDER: &str = "series";
/// Name of the folder of label maps.
pub const SEGMENTATIONS_FOLDER: &str = "segmentations";
/// Name of the folder of truth files.
pub const TRUTH_FOLDER: &str = "truth";

/// Whether a folder holds a data set in this layout.
pub fn is_data_set(root: &Path) -> bool {
    root.join(SERIES_TABLE).is_file() && root.join(SERIES_FOLDER).is_dir()
}

/// Folder of the DICOM instances of a series.
pub fn series_folder(root: &Path, uid: &str) -> PathBuf {
    root.join(SERIES_FOLDER).join(uid)
}

/// Label map with the site of each arterial voxel.
pub fn sites_file(root: &Path, uid: &str) -> PathBuf {
    root.join(SEGMENTATIONS_FOLDER).join(format!("{uid}_cowseg.nii.gz"))
}

/// Label map of the aneurysm sacs.
pub fn aneurysm_file(root: &Path, uid: &str) -> PathBuf {
    root.join(SEGMENTATIONS_FOLDER).join(format!("{uid}_aneurysm.nii.gz"))
}

/// Truth of a series. It is written last, so its presence means that the series is complete.
pub fn truth_file(root: &Path, uid: &str) -> PathBuf {
    root.join(TRUTH_FOLDER).join(format!("{uid}.json"))
}

/// What a synthetic data set was made from.
pub fn origin_file(root: &Path) -> PathBuf {
    root.join("cohort.json")
}
