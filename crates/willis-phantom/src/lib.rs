//! Synthetic heads with arteries and aneurysms, imaged by synthetic scanners.
//!
//! [`synthesise`] makes one series together with its truth. The patient has an arterial tree with
//! the thirteen sites and its common variants, saccular aneurysms, vessels that resemble
//! aneurysms, veins, and a head; a scanner turns them into an image. Everything is drawn from one
//! seed.
//!
//! [`CohortWriter`] writes data sets of many series and [`write_instances`] the DICOM files of one;
//! [`AnatomyLibrary::read`] reads heads of real people. No other function accesses files.
//! [`willis_core::cohort`] reads such data sets.

mod anatomy;
mod appearance;
mod atlas;
mod head;
mod labels;
mod lesion;
mod mimics;
mod mix;
mod noise;
mod random;
mod render;
mod scanner;
mod scene;
mod spec;
mod synthesis;
mod vector;
mod veins;
mod visibility;
mod write;

pub use anatomy::{AnatomyError, AnatomyLibrary};
pub use appearance::{AppearanceModel, ModelShare, RandomConfig, ScannerConfig, TexturedConfig};
pub use labels::head_labels;
pub use mix::{CohortMix, LesionChoice, LookAlikes, ScanSize};
pub use spec::{FieldOfView, LesionPlan, PhantomSpec, Randomisation, SlicePlane};
pub use synthesis::{Phantom, synthesise};
pub use write::{CohortWriter, SeriesUids, WriteCohortError, synthesise_cohort, write_instances};
