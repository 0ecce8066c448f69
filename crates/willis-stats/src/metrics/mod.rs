//! Metrics. Each returns a value or says why it is [`Undefined`](crate::figure::Undefined).

pub mod challenge;
pub mod detection;
pub mod overlap;
pub mod probability;
pub mod rank;

pub use challenge::{COLUMN_COUNT, ChallengeScore, challenge_score};
pub use detection::{Froc, SeriesDetections, detections, froc, recall_at};
pub use overlap::{cldice, dice};
pub use probability::{brier, expected_calibration_error};
pub use rank::{auroc, average_precision};
