//! Segmentation: which voxels are artery, of which site, and which belong to an aneurysm.

mod augment;
mod branched;
mod degrade;
mod fit;
mod infer;
mod net;
mod polarity;
mod sample;
mod score;

pub use augment::SegmentAugmentConfig;
pub use branched::{Branched, BranchedConfig};
pub use degrade::DegradeConfig;
pub use fit::{SegmentFitError, SegmentTraining, fit};
pub use infer::{SegmentConfig, segment, window_count};
pub use net::{COORDINATE_MM, IN_CHANNELS, SegmentNet, SegmentNetConfig};
pub use polarity::{ArteryVoxels, MIN_CLEAR_VOXELS, arteries_by_polarity};
pub use sample::{AneurysmDraw, LabelledPatch, PackedCase, SampleConfig};
pub use score::{Agreement, THIN_MM, VoxelCounts};
