//! Figures of merit.

pub mod challenge;
pub mod detection;
pub mod overlap;
pub mod probability;
pub mod rank;

pub use challenge::{COLUMN_COUNT, ChallengeScore, challenge_score};
pub use detection::{Froc, SeriesDetections, detections, froc, recall_at};
pub use overlap::{cldice, dice};
pub use probability::{ReliabilityBin, brier, expected_calibration_error, reliability};
pub use rank::{auroc, average_precision};
