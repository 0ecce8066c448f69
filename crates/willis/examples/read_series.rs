//! Reads a series and prints what is known about it.
//!
//! ```text
//! cargo run --release --example read_series -- scan/
//! ```
//! The input is a folder or zip of DICOM files, a multi-frame DICOM file, NIfTI or MetaImage. With
//! `harmonise` the series then gets patient axes, the working spacing and normalised intensities;
//! that is the input of the nets.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use willis_imaging::harmonise::{HarmoniseConfig, harmonise};
use willis_imaging::ingest::{IngestConfig, ingest};

fn main() -> anyhow::Result<()> {
    let input: PathBuf = std::env::args_os().nth(1).context("usage: read_series INPUT")?.into();

    // `ingest` takes broken-but-usable files and reports each guess and repair as a finding.
    let volume = Arc::new(ingest(&input, &IngestConfig::default())?);
    let grid = volume.image.grid;
    println!("shape [z, y, x]     {:?}", grid.shape.zyx());
    println!("spacing [z, y, x]   {:?} mm", grid.spacing().zyx());
    println!("modality            {}", volume.meta.modality.map_or("unknown", |modality| modality.name()));

    // World coordinates are LPS in millimetres.
    println!("centre (LPS)        {:?} mm", grid.centre().xyz());

    // The region of interest on isotropic voxels, blood bright, soft tissue about 0.
    let harmonised = harmonise(&volume, &HarmoniseConfig::default())?;
    println!("region of interest  {:?}", harmonised.image.grid.shape.zyx());

    for finding in volume.findings.iter().chain(&harmonised.findings) {
        println!("finding             {}: {}", finding.code, finding.message);
    }
    Ok(())
}
