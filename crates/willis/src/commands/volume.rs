//! `willis volume`: runs the deterministic algorithms on files.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::json;
use willis_core::files::{json as json_file, nifti};
use willis_core::{Image, Volume};
use willis_imaging::harmonise::nyul;
use willis_imaging::ingest::{IngestConfig, ingest};
use willis_imaging::trace::{TraceConfig, graph_from_mask};

use super::Outcome;
use crate::cli::{Format, NyulCommand, VolumeCommand};

/// Runs one of the volume commands.
pub fn run(command: &VolumeCommand) -> anyhow::Result<Outcome> {
    match command {
        VolumeCommand::Info { input, format } => info(input, *format)?,
        VolumeCommand::Convert { input, output } => nifti::write(output, &read(input)?.image)?,
        VolumeCommand::Skeleton { input, output } => skeleton(input, output)?,
        VolumeCommand::Graph { input, output } => graph(input, output)?,
        VolumeCommand::Nyul(NyulCommand::Fit { images, mask, output }) => fit(images, mask, output)?,
        VolumeCommand::Nyul(NyulCommand::Apply { image, standard, mask, output }) => {
            apply(image, standard, mask.as_deref(), output)?
        }
    }
    Ok(Outcome::Done)
}

fn read(path: &Path) -> anyhow::Result<Volume> {
    Ok(ingest(path, &IngestConfig::default())?)
}

fn info(input: &Path, format: Format) -> anyhow::Result<()> {
    let volume = read(input)?;
    let grid = volume.image.grid;
    if format == Format::Json {
        let info = json!({
            "shape_zyx": grid.shape.zyx(),
            "spacing_zyx_mm": grid.spacing().zyx(),
            "affine_lps": grid.affine.to_4x4(),
            "modality": volume.meta.modality,
            "findings": volume.findings,
        });
        println!("{}", serde_json::to_string_pretty(&info)?);
        return Ok(());
    }
    let [nz, ny, nx] = grid.shape.zyx();
    let [dz, dy, dx] = grid.spacing().zyx();
    println!("shape      {nz} x {ny} x {nx} (slices, rows, columns)");
    println!("spacing    {dz:.4} x {dy:.4} x {dx:.4} mm");
    println!("modality   {}", volume.meta.modality.map_or("unknown", |m| m.name()));
    for row in grid.affine.to_4x4() {
        println!("affine     {:10.4} {:10.4} {:10.4} {:10.4}", row[0], row[1], row[2], row[3]);
    }
    for finding in &volume.findings {
        println!("finding    {}: {}", finding.code, finding.message);
    }
    Ok(())
}

fn skeleton(input: &Path, output: &Path) -> anyhow::Result<()> {
    let mask = foreground(input)?;
    let thin = willis_kernels::thinning::skeletonize(&mask.voxels, mask.grid.shape.zyx());
    nifti::write_labels(output, &Image::new(mask.grid, thin))?;
    Ok(())
}

fn graph(input: &Path, output: &Path) -> anyhow::Result<()> {
    let graph = graph_from_mask(&foreground(input)?, &TraceConfig::default());
    json_file::write(output, &graph)?;
    println!("{} nodes, {} branches, {:.1} mm", graph.nodes.len(), graph.edges.len(), graph.length_mm());
    Ok(())
}

/// Reads a mask as zeros and ones.
fn foreground(path: &Path) -> anyhow::Result<Image<u8>> {
    Ok(read(path)?.image.map(|&v| u8::from(v > 0.0)))
}

fn fit(images: &[PathBuf], masks: &[PathBuf], output: &Path) -> anyhow::Result<()> {
    ensure!(
        masks.is_empty() || masks.len() == images.len(),
        "{} images but {} masks; give one mask per image, in order, or none",
        images.len(),
        masks.len()
    );
    let values = images
        .iter()
        .enumerate()
        .map(|(i, path)| masked_values(&read(path)?.image, masks.get(i).map(PathBuf::as_path)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    nyul::fit(values)?.save(output)?;
    Ok(())
}

fn apply(image: &Path, standard: &Path, mask: Option<&Path>, output: &Path) -> anyhow::Result<()> {
    let standard = nyul::Standard::load(standard)?;
    let image = read(image)?.image;
    let map = nyul::map_to(&standard, masked_values(&image, mask)?)?;
    nifti::write(output, &image.map(|&v| map.apply(f64::from(v)) as f32))?;
    Ok(())
}

/// Voxels inside the mask, or above zero without one.
fn masked_values(image: &Image<f32>, mask: Option<&Path>) -> anyhow::Result<Vec<f32>> {
    let Some(path) = mask else { return Ok(image.voxels.iter().copied().filter(|&v| v > 0.0).collect()) };
    let mask = read(path).with_context(|| format!("mask {}", path.display()))?.image;
    if mask.grid.shape != image.grid.shape {
        bail!("mask {} has another shape than its image", path.display());
    }
    Ok(image.voxels.iter().zip(&mask.voxels).filter(|&(_, &m)| m > 0.0).map(|(&v, _)| v).collect())
}
