//! willis finds intracranial aneurysms in CT and MR series.
//!
//! The program is a straight line of stages, in [`mod@line`]:
//!
//! 1. **ingest** reads a DICOM folder, zip, NIfTI or MetaImage file into a volume with findings;
//! 2. **harmonise** cuts out the region of interest on patient axes, at working spacing, with
//!    normalised intensities;
//! 3. **polarity** corrects a modality that was guessed wrong, so that arteries are bright;
//! 4. **segment** predicts vessel, aneurysm and site of each voxel (SegFormer3D);
//! 5. **trace** thins the vessels to a graph of centrelines with radii;
//! 6. **propose** finds candidates (GATv2 node scores, aneurysm peaks, blobs);
//! 7. **examine** gathers evidence on each candidate (WaveFormer, AKOrN, FiLM);
//! 8. **stack** turns the evidence into fourteen calibrated probabilities (boosted trees and
//!    logistic regression);
//! 9. **report** writes JSON, NIfTI, Slicer markups and one HTML page.
//!
//! Research use only. Not a medical device.

pub mod brain;
pub mod cases;
pub mod cli;
pub mod commands;
pub mod config;
mod embedded;
pub mod line;
pub mod models;
pub mod outputs;
pub mod polarity;
pub mod progress;
pub mod report;
pub mod run;
pub mod scoreboard;
