//! Metrics, splits, boosting, stacking, calibration, bootstrap.
//!
//! Everything here is a pure function of numbers: no files, no images, no networks. An undefined
//! figure (an AUROC without positives) has a reason instead of a value, never 0 or 0.5. Functions
//! that draw random numbers take a seed, and their results do not depend on the number of threads.

pub mod bootstrap;
pub mod figure;
pub mod folds;
pub mod metrics;

pub mod boosting;
pub mod calibration;
pub mod logistic;
pub mod stack;
pub mod table;
