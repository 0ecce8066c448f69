//! Segmentation: which voxels are artery, of which site, and which belong to an aneurysm.

mod augment;
mod fit;
mod infer;
mod net;
mod sample;

pub use augment::AugmentConfig;
pub use fit::{FitError, Fitted, Scores, SegmentTraining, THIN_MM, fit, score};
pub use infer::{SegmentConfig, segment, window_count};
pub use net::{COORDINATE_MM, IN_CHANNELS, SegmentNet, SegmentNetConfig};
pub use sample::{AneurysmDraw, Patch, PreparedCase, SampleConfig, prepare};
