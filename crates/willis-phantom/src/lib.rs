//! Synthetic heads with arteries and aneurysms, seen by synthetic scanners.
//!
//! One call, [`synthesise`], makes a series with its truth: an arterial tree with the thirteen
//! sites and its common variants, saccular aneurysms and what only looks like one, veins, a head
//! around them, and a scanner. Everything is drawn from a seed. [`cohort`] writes and reads data
//! sets of many series; nothing else here touches a file.

mod atlas;
pub mod cohort;
mod head;
mod lesion;
mod mimics;
mod noise;
mod random;
mod render;
mod scanner;
mod scene;
mod spec;
mod synthesis;
mod vector;
mod veins;
mod window;

pub use spec::{CohortMix, FieldOfView, LesionPlan, PhantomSpec, Plane, Randomisation, ScanSize};
pub use synthesis::{Phantom, synthesise};
