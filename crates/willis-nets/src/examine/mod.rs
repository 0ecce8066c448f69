//! Examining candidates: the expert classifier looks at a patch around each.

mod condition;
pub mod net;
mod oscillators;

pub use condition::{CONDITIONS, condition};
pub use net::{Backbone, ExamineNet, ExamineNetConfig, Switch};
pub use oscillators::{Oscillators, OscillatorsConfig, Reading};
