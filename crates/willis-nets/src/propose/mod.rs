//! Proposing candidates: places that look like an aneurysm to the node scorer or to the
//! segmentation net.
//!
//! Recall comes first here; the expert classifier buys precision.

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
