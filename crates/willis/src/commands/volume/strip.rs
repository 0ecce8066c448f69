//! `willis volume strip`: the brain of a series.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use willis_core::files::nifti;
use willis_imaging::strip::{mask, stripped};

use crate::brain::BrainFinder;
use crate::cli::StripArgs;
use crate::commands::destination::{distinct, nifti_file};

use super::{print_findings, read_volume};

/// A mask of less or more than this is not that of a whole brain, litres.
const LITRES: [f64; 2] = [0.6, 2.2];
/// A border beyond this is a slip of the pen, mm.
const FARTHEST_BORDER_MM: f64 = 100.0;

/// Finds the brain and writes the files that were asked for.
pub fn run(args: &StripArgs) -> anyhow::Result<()> {
    let results: Vec<&Path> = [Some(&args.output), args.distance.as_ref(), args.image.as_ref()]
        .into_iter()
        .flatten()
        .map(PathBuf::as_path)
        .collect();
    results.iter().try_for_each(|path| nifti_file(path))?;
    distinct(&args.input, &results)?;
    ensure!(
        args.border.is_finite() && args.border.abs() <= FARTHEST_BORDER_MM,
        "--border {} is not a distance between -100 and 100 mm",
        args.border
    );
    let finder = match &args.weights {
        Some(path) => BrainFinder::load(path)?,
        None => BrainFinder::embedded()?,
    };
    let volume = &read_volume(&args.input, args.volume)?;
    print_findings(volume);
    let distances = finder.distances(volume, args.border)?;
    let mask = mask(&distances, args.border);
    let voxels = mask.voxels.iter().filter(|&&inside| inside == 1).count();
    let litres = voxels as f64 * mask.grid.spacing().voxel_volume_mm3() / 1e6;
    if voxels == 0 {
        let deepest = distances.voxels.iter().copied().fold(f32::INFINITY, f32::min);
        ensure!(
            args.border >= 0.0 || deepest >= 0.0,
            "no voxel is {} mm below the brain's surface, the deepest is {:.1} mm; give a larger --border",
            -args.border,
            -deepest
        );
        bail!("no brain was found; is this an image of a head?");
    }
    nifti::write_labels(&args.output, &mask)?;
    if let Some(path) = &args.distance {
        nifti::write(path, &distances)?;
    }
    if let Some(path) = &args.image {
        nifti::write_compact(path, &stripped(&volume.image, &mask))?;
    }
    println!("{litres:.2} litres within {} mm of the brain's surface", args.border);
    if args.border <= 5.0 && !(LITRES[0]..=LITRES[1]).contains(&litres) {
        eprintln!("warning: a brain has {} to {} litres; check the mask", LITRES[0], LITRES[1]);
    }
    Ok(())
}
