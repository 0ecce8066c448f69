//! Data sets in the layout of the RSNA 2025 Intracranial Aneurysm Detection challenge.
//!
//! ```text
//! train.csv                                     one row per series: age, sex, modality, 14 labels
//! train_localizers.csv                          one row per lesion: slice, pixel, site
//! series/<series uid>/<instance uid>.dcm        one slice per file
//! segmentations/<series uid>_cowseg.nii.gz      site of each arterial voxel, as mask value
//! segmentations/<series uid>_aneurysm.nii.gz    1 inside an aneurysm sac, else 0
//! truth/<series uid>.json                       lesions in patient millimetres
//! cohort.json                                   seeds and mix of a synthetic data set
//! ```
//!
//! The last three entries are not part of the challenge's layout; synthetic data sets have them.
//! This module reads tables and truth and finds the image files; it opens no image.

mod error;
mod origin;
pub mod paths;
mod read;
pub mod tables;
mod truth;

pub use error::CohortError;
pub use origin::{BENCHMARK_SEEDS, CohortOrigin, read_origin};
pub use read::{Cohort, CohortSeries, read};
pub use truth::{Appearance, HeaderContent, Localizer, ScanPlane, ScanTruth, SeriesTruth, SiteKnowledge};
