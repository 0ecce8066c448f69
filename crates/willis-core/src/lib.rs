//! The values that flow through willis, and their files.
//!
//! Everything a stage takes or gives is a type in this crate; no algorithm of a stage lives here.
//!
//! Conventions, once for the whole program:
//! - Arrays are C-order `[z, y, x]`; x is the fastest axis in memory.
//! - World coordinates are DICOM patient space: LPS (x to the patient's Left, y to Posterior, z to
//!   Superior), millimetres, `f64`. Other conventions (NIfTI's RAS) are converted where a file is
//!   read or written, nowhere else.
//! - Left and right in names are the patient's.

pub mod anatomy;
pub mod candidate;
pub mod case;
pub mod cohort;
pub mod files;
pub mod graph;
pub mod image;
pub mod invalid;
pub mod lesion;
pub mod prediction;
pub mod provenance;
pub mod series;
pub mod space;
pub mod switch;

pub use anatomy::{SITE_COUNT, Site};
pub use candidate::{Candidate, Candidates, Evidence};
pub use case::TrainingCase;
pub use graph::{CentrelinePoint, GraphEdge, GraphNode, NodeKind, NodeTable, VesselGraph};
pub use image::{HarmonisedVolume, Image, VesselMap, Volume};
pub use invalid::InvalidValue;
pub use lesion::Lesion;
pub use prediction::{Prediction, SeriesSummary};
pub use provenance::{ModelRef, Provenance};
pub use series::{Finding, Modality, SeriesMeta, Severity, Sex};
pub use space::{Affine, Grid, Index, Point, Shape, Spacing, VoxelPoint};
pub use switch::Switch;
