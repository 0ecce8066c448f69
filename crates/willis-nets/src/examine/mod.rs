//! Examining candidates: the expert classifier looks at a patch around each.

pub mod augment;
mod condition;
pub mod data;
mod fit;
mod infer;
pub mod net;
mod oscillators;
pub mod patch;

pub use augment::AugmentConfig;
pub use condition::{CONDITIONS, condition};
pub use data::ExamineCase;
pub use fit::{ExamineFitError, ExamineTraining, fit};
pub use infer::{ExamineConfig, examine};
pub use net::{Backbone, ExamineNet, ExamineNetConfig};
pub use oscillators::{Oscillators, OscillatorsConfig, Reading};
