//! Segmentation: which voxels are artery, of which site, and which belong to an aneurysm.

mod augment;
mod branched;
mod fit;
mod infer;
mod net;
mod sample;
mod score;

pub use augment::AugmentConfig;
pub use branched::Branched;
pub use fit::{FitError, Fitted, SegmentTraining, fit};
pub use infer::{CLEAR_VOXELS, SegmentConfig, artery_voxels_both_ways, segment, window_count};
pub use net::{COORDINATE_MM, IN_CHANNELS, SegmentNet, SegmentNetConfig};
pub use sample::{AneurysmDraw, Patch, PreparedCase, SampleConfig, prepare};
pub use score::{Agreement, Scores, THIN_MM};
