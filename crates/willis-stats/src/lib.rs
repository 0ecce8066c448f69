//! Metrics, splits, boosting, stacking, calibration, bootstrap.
//!
//! Everything here is a pure function of numbers: no files, no images, no networks. A figure that
//! is not defined (an AUROC without positives) is `None`, never 0 or 0.5. Whatever draws random
//! numbers takes a seed and gives the same result at any number of threads.

pub mod bootstrap;
pub mod folds;
pub mod metrics;

pub mod boosting;
pub mod calibration;
pub mod logistic;
pub mod stack;
pub mod table;
