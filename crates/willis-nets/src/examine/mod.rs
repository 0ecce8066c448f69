//! Examination: the expert classifier looks at a patch around each candidate.

pub mod augment;
mod condition;
pub mod data;
mod encoder;
mod fit;
mod infer;
pub mod net;
mod objective;
mod oscillators;
pub mod patch;
mod sampler;

pub use augment::ExamineAugmentConfig;
pub use condition::{CONDITIONS, condition};
pub use data::ExamineCase;
pub use encoder::{PatchEncoderConfig, PlainEncoderConfig, WaveFormerPatchConfig};
pub use fit::{ExamineFitError, ExamineTraining, fit};
pub use infer::{ExamineConfig, examine};
pub use net::{ExamineNet, ExamineNetConfig, OscillatorsChoice};
pub use objective::{ExamineBalance, FixedBalance};
pub use oscillators::{Oscillators, OscillatorsConfig, Synchrony};
pub use sampler::{DualConfig, ExamineSampler, TriConfig};
