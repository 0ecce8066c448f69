//! `willis volume`: runs the deterministic algorithms on files.

use std::num::NonZeroUsize;
use std::path::Path;

use serde_json::json;
use willis_core::files::{json as json_file, nifti};
use willis_core::{Image, Severity, Volume};
use willis_imaging::ingest::{IngestConfig, ingest};
use willis_imaging::trace::{TraceConfig, graph_from_mask};

use super::Outcome;
use super::destination::{self, ImageFormat};
use crate::cli::{Format, VolumeCommand};

mod nyul;
mod strip;

/// Runs one of the volume commands.
pub fn run(command: &VolumeCommand) -> anyhow::Result<Outcome> {
    match command {
        VolumeCommand::Info { input, volume, format } => info(input, *volume, *format)?,
        VolumeCommand::Convert { input, volume, output } => convert(input, *volume, output)?,
        VolumeCommand::Skeleton { input, output } => skeleton(input, output)?,
        VolumeCommand::Graph { input, output } => graph(input, output)?,
        VolumeCommand::Strip(args) => strip::run(args)?,
        VolumeCommand::Nyul(command) => nyul::run(command)?,
    }
    Ok(Outcome::Done)
}

fn read(path: &Path) -> anyhow::Result<Volume> {
    read_volume(path, None)
}

/// Reads a volume, or a single slice.
fn read_volume(path: &Path, number: Option<NonZeroUsize>) -> anyhow::Result<Volume> {
    let config = IngestConfig { volume: number.map(NonZeroUsize::get), min_slices: 1, ..IngestConfig::default() };
    Ok(ingest(path, &config)?)
}

/// Converts a series; what was guessed or repaired goes to stderr.
fn convert(input: &Path, number: Option<NonZeroUsize>, output: &Path) -> anyhow::Result<()> {
    let format = ImageFormat::of(output)?;
    let volume = read_volume(input, number)?;
    print_findings(&volume);
    format.write(output, &volume.image)?;
    Ok(())
}

/// Prints what was guessed or repaired while reading to stderr, but the modality, which does not
/// enter the files.
fn print_findings(volume: &Volume) {
    for finding in volume.findings.iter().filter(|finding| finding.code != "modality-guessed") {
        let severity = match finding.severity {
            Severity::Info => "note",
            Severity::Warning => "warning",
        };
        eprintln!("{severity}: {}: {}", finding.code, finding.message);
    }
}

fn info(input: &Path, number: Option<NonZeroUsize>, format: Format) -> anyhow::Result<()> {
    let volume = read_volume(input, number)?;
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
    destination::nifti_file(output)?;
    let mask = foreground(input)?;
    let thin = willis_kernels::thinning::skeletonize(&mask.voxels, mask.grid.shape.zyx());
    nifti::write_labels(output, &Image::new(mask.grid, thin))?;
    Ok(())
}

fn graph(input: &Path, output: &Path) -> anyhow::Result<()> {
    destination::file(output)?;
    let graph = graph_from_mask(&foreground(input)?, &TraceConfig::default());
    json_file::write(output, &graph)?;
    println!("{} nodes, {} branches, {:.1} mm", graph.nodes.len(), graph.edges.len(), graph.length_mm());
    Ok(())
}

/// Reads a mask as zeros and ones.
fn foreground(path: &Path) -> anyhow::Result<Image<u8>> {
    Ok(read(path)?.image.map(|&v| u8::from(v > 0.0)))
}
