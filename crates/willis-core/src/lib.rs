//! Data types of willis and their file formats.
//!
//! The inputs and outputs of all stages are types of this crate; it contains no algorithm of a
//! stage.
//!
//! Conventions for the whole program:
//! - Arrays are C-order `[z, y, x]`; x is the fastest axis in memory.
//! - World coordinates are DICOM patient space: LPS (x to the patient's Left, y to Posterior, z to
//!   Superior), millimetres, `f64`. Other conventions (NIfTI's RAS) are converted where a file is
//!   read or written, nowhere else.
//! - Left and right are the patient's.

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
pub use prediction::{ModelRef, Prediction, SeriesSummary};
pub use series::{Finding, Modality, SeriesMeta, Severity, Sex};
pub use space::{Affine, Grid, Index, Point, Shape, Spacing, VoxelPoint};
pub use switch::Switch;
