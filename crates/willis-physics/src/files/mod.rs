//! Files of the solver, one format per module. Sizes in a file are never trusted.

pub mod vti;
