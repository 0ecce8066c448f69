//! Brain extraction: the signed distance of every voxel from the surface of the brain, learned from
//! generated images alone (SynthStrip).
//!
//! A training image is painted from a map of labels: the head is deformed, every tissue gets a
//! random brightness, and the image is spoiled as scanners spoil theirs. The net therefore never
//! sees a real image and works on any modality.

mod config;
mod contrast;
mod distort;
mod fields;
mod fit;
mod generate;
mod infer;
mod labels;
mod net;

pub use config::HeadGeneratorConfig;
pub use contrast::HeadClass;
pub use fit::{BrainFitError, BrainTraining, fit};
pub use generate::{GeneratedHead, HeadGenerator};
pub use infer::{BrainNet, BrainNetConfig, normalise};
pub use labels::{LabelError, LabelledHead};
pub use net::{StripModel, StripModelConfig};
