//! Synthetic heads with arteries and aneurysms, seen by synthetic scanners, and data sets made of them.

pub mod cohort;
