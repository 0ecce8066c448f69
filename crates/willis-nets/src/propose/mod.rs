//! Candidates: places that look like an aneurysm to the node scorer, the segmentation net or a
//! detector without learning.
//!
//! This stage aims at recall. The expert classifier of the examine stage adds precision.

pub mod data;
mod fit;
mod infer;
pub mod net;
mod peaks;
mod vessel;

pub use data::GraphCase;
pub use fit::{ProposeFitError, ProposeTraining, fit};
pub use infer::{ProposeConfig, propose};
pub use net::{ProposeNet, ProposeNetConfig};
