//! `willis volume nyul`: Nyúl–Udupa standardisation of files.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use willis_core::files::nifti;
use willis_core::{Image, Volume};
use willis_imaging::harmonise::nyul::{self, Anchor, Average, FitOptions, NyulError, Standard};
use willis_imaging::harmonise::{HarmoniseConfig, NyulStandard, tissue_on_standard};
use willis_imaging::ingest::{IngestConfig, ingest};

use crate::cli::{AverageName, NyulApplyArgs, NyulCommand, NyulFitArgs};
use crate::commands::destination;

/// Affines of an image and its mask may differ by this much, mm.
const SAME_PLACE_MM: f64 = 1e-3;

/// Runs one of the commands.
pub fn run(command: &NyulCommand) -> anyhow::Result<()> {
    match command {
        NyulCommand::Fit(args) => fit(args),
        NyulCommand::Apply(args) => apply(args),
    }
}

fn fit(args: &NyulFitArgs) -> anyhow::Result<()> {
    destination::file(&args.output)?;
    ensure!(
        args.mask.is_empty() || args.mask.len() == args.images.len(),
        "{} images but {} masks; give one mask per image, in order, or none",
        args.images.len(),
        args.mask.len()
    );
    let average = match args.average {
        AverageName::Mean => Average::Mean,
        AverageName::Median => Average::Median,
    };
    ensure!(
        args.high > args.low && args.low.is_finite() && args.high.is_finite(),
        "--high {} must be greater than --low {}",
        args.high,
        args.low
    );
    let anchor = if args.roi { Anchor::AsIs } else { Anchor::Ends { low: args.low, high: args.high } };
    // One image after the other is read and measured; only its landmarks are kept.
    let mut unreadable = None;
    let voxels = args.images.iter().enumerate().map_while(|(i, path)| {
        measured(path, args.mask.get(i), args.roi).map_err(|error| unreadable = Some(error)).ok()
    });
    let standard = nyul::fit(voxels, FitOptions { anchor, average });
    if let Some(error) = unreadable {
        return Err(error);
    }
    let standard = standard.with_context(|| names(&args.images))?;
    standard.save(&args.output)?;
    Ok(())
}

/// Which image has which number, for messages that name a number.
fn names(images: &[PathBuf]) -> String {
    let named = images.iter().zip(1..).map(|(path, i)| format!("image {i} is {}", path.display()));
    named.collect::<Vec<_>>().join(", ")
}

/// The voxels of an image that its landmarks are measured on.
fn measured(path: &Path, mask: Option<&PathBuf>, roi: bool) -> anyhow::Result<Result<Vec<f32>, NyulError>> {
    let volume = read(path)?;
    if roi {
        let tissue = tissue_on_standard(&volume, &HarmoniseConfig::default());
        return Ok(Ok(tissue.with_context(|| path.display().to_string())?));
    }
    foreground(&volume.image, mask)
}

fn apply(args: &NyulApplyArgs) -> anyhow::Result<()> {
    destination::nifti_file(&args.output)?;
    let standard = match NyulStandard::try_from(args.standard.clone()).map_err(|e| anyhow::anyhow!("--{e}"))? {
        NyulStandard::File(path) => Standard::load(&path)?,
        NyulStandard::Shipped(modality) => nyul::shipped(modality),
        NyulStandard::ByModality => {
            bail!("--standard by_modality is for configurations; name a modality or a file")
        }
    };
    let image = read(&args.image)?.image;
    let voxels = foreground(&image, args.mask.as_ref())?;
    let map = voxels.and_then(|voxels| standard.map(&voxels)).with_context(|| args.image.display().to_string())?;
    nifti::write(&args.output, &Image::new(image.grid, map.apply_all(&image.voxels)))?;
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Volume> {
    Ok(ingest(path, &IngestConfig::default())?)
}

/// Voxels inside the mask, or above zero without one.
fn foreground(image: &Image<f32>, mask: Option<&PathBuf>) -> anyhow::Result<Result<Vec<f32>, NyulError>> {
    let Some(path) = mask else { return Ok(nyul::foreground(&image.voxels, None)) };
    let mask = read(path).with_context(|| format!("mask {}", path.display()))?.image;
    if mask.grid.shape != image.grid.shape {
        bail!("mask {} has another shape than its image; resample it to the image", path.display());
    }
    let [a, b] = [image.grid.affine.0, mask.grid.affine.0];
    let apart = a.iter().flatten().zip(b.iter().flatten()).any(|(a, b)| (a - b).abs() > SAME_PLACE_MM);
    if apart {
        bail!("mask {} lies elsewhere than its image (another affine); resample it to the image", path.display());
    }
    Ok(nyul::foreground(&image.voxels, Some(&mask.voxels)))
}
