//! willis finds intracranial aneurysms in CT and MR series.
//!
//! The program is one straight line of stages, in [`mod@line`]:
//!
//! 1. **ingest**: a DICOM folder, zip, NIfTI or MetaImage file becomes a volume with findings;
//! 2. **harmonise**: canonical axes, region of interest, working spacing, normalised intensity;
//! 3. **segment**: SegFormer3D gives vessel, aneurysm and site per voxel;
//! 4. **trace**: thinning and graph give centrelines with radii;
//! 5. **propose**: GATv2 node scores and aneurysm peaks give candidates;
//! 6. **examine**: WaveFormer, AKOrN and FiLM give evidence for each candidate;
//! 7. **stack**: boosted trees over the evidence give fourteen calibrated probabilities;
//! 8. **report**: JSON, NIfTI, Slicer markups and one HTML page.
//!
//! Research use only. Not a medical device.

pub mod cases;
pub mod cli;
pub mod commands;
pub mod config;
pub mod line;
pub mod models;
pub mod outputs;
pub mod polarity;
pub mod progress;
pub mod report;
pub mod run;
pub mod scoreboard;
