//! Writing phantoms as data sets in the layout of [`willis_core::cohort`], with real DICOM files.
//!
//! Nothing here draws a random number except identifiers.

mod cohort;
mod dicom;
mod error;
mod series;
mod tables;
mod uid;

pub use cohort::{CohortWriter, synthesise_cohort};
pub use dicom::write_instances;
pub use error::WriteCohortError;
pub use uid::SeriesUids;
