//! `willis volume strip`: the brain of a series.

use anyhow::ensure;
use willis_core::files::nifti;
use willis_imaging::strip::{mask, stripped};

use crate::brain::BrainFinder;
use crate::cli::StripArgs;
use crate::commands::destination::nifti_file;

use super::{print_findings, read_volume};

/// A mask of less or more than this is not that of a whole brain, litres.
const LITRES: [f64; 2] = [0.6, 2.2];

/// Finds the brain and writes the files that were asked for.
pub fn run(args: &StripArgs) -> anyhow::Result<()> {
    [Some(&args.output), args.distance.as_ref(), args.image.as_ref()]
        .into_iter()
        .flatten()
        .try_for_each(|p| nifti_file(p))?;
    ensure!(
        args.border.is_finite() && args.border.abs() <= 100.0,
        "--border {} is not a distance between -100 and 100 mm",
        args.border
    );
    let volume = &read_volume(&args.input, args.volume)?;
    print_findings(volume);
    let finder = match &args.weights {
        Some(path) => BrainFinder::load(path)?,
        None => BrainFinder::embedded()?,
    };
    let distances = finder.distances(volume, args.border)?;
    let mask = mask(&distances, args.border);
    let voxels = mask.voxels.iter().filter(|&&inside| inside == 1).count();
    let litres = voxels as f64 * mask.grid.spacing().voxel_volume_mm3() / 1e6;
    ensure!(voxels > 0, "no brain was found; is this an image of a head?");
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
