//! Trains the vessel net for two steps with the library, writes its weights and segments a volume
//! with them. Takes seconds on two cores.
//!
//! ```text
//! cargo run --release -p willis-nets --example train_two_steps
//! ```
//!
//! A real training does the same with more cases and steps: `willis train segment` reads the cases
//! from a data set and the configuration from a TOML file.

use std::error::Error;
use std::sync::Arc;

use burn::tensor::Device;
use willis_core::files::case;
use willis_core::{
    Affine, Grid, HarmonisedVolume, Image, Lesion, Point, SeriesMeta, Shape, Site, Spacing, TrainingCase, Volume,
};
use willis_nets::segment::{SampleConfig, SegmentConfig, SegmentNet, SegmentTraining, VoxelCounts, fit, segment};
use willis_nets::train::TrainConfig;
use willis_nets::weights::Precision;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;

    // A training case is a volume on the working grid with its labels, one folder per case.
    let case_folder = folder.path().join("case");
    let training_case = artery_with_aneurysm();
    case::save(&case_folder, &training_case)?;

    // Every configuration has defaults; a training differs from them in a few values.
    let config = SegmentTraining {
        train: TrainConfig { steps: 2, learning_rate: 2e-3, ..TrainConfig::default() },
        sample: SampleConfig { patch: 32, batch: 1, ..SampleConfig::default() },
        infer: SegmentConfig { window: 32, ..SegmentConfig::default() },
        ..SegmentTraining::default()
    };

    // The run folder gets a checkpoint and a log. A second call with the same folder resumes the
    // run.
    let run = folder.path().join("run");
    let cases = [case_folder];
    let trained = fit(&cases, &cases, &config, None, &run, &Device::flex(), |report| {
        println!("step {} of {}: loss {:.4}", report.step, report.steps, report.loss);
        report.terms.iter().for_each(|(name, value)| println!("  {name} {value:.4}"));
    })?;

    // Weights are written in 16 bits, with the configuration and the revision of their net.
    let path = folder.path().join("segment.safetensors");
    trained.net.weights().described(&config.net, SegmentNet::REVISION).save(&path, Precision::F16)?;
    println!("{} parameters in {} kB", trained.net.parameters(), path.metadata()?.len() / 1000);

    // Inference slides windows over a harmonised volume.
    let map = segment(&trained.net, &Arc::new(harmonised(&training_case)), &config.infer);
    let agreement = VoxelCounts::of(&map, &training_case).agreement();
    println!("vessel Dice {:.3}, which two steps cannot make good", agreement.vessel_dice.unwrap_or(0.0));
    Ok(())
}

/// A bright left middle cerebral artery along x, 2 mm wide, with an aneurysm of 3 mm on it.
fn artery_with_aneurysm() -> TrainingCase {
    const SIDE: usize = 48;
    let spacing = Spacing::isotropic(0.5);
    let grid = Grid::new(Shape::new(SIDE, SIDE, SIDE), Affine::axis_aligned(spacing, Point::new(-12.0, -12.0, -12.0)));
    let centre = Point::new(0.0, 2.0, 0.0);
    let points = || (0..grid.shape.len()).map(|voxel| grid.affine.to_world(grid.shape.index(voxel).into()));
    let in_artery = |p: &Point| p.y.hypot(p.z) <= 1.0;
    let in_sac = |p: &Point| p.distance_mm(centre) <= 1.5;
    let site = Site::LeftMca;
    TrainingCase {
        image: Image::new(grid, points().map(|p| if in_artery(&p) || in_sac(&p) { 1.0 } else { 0.0 }).collect()),
        sites: Image::new(
            grid,
            points().map(|p| if in_artery(&p) || in_sac(&p) { site.mask_value() } else { 0 }).collect(),
        ),
        aneurysm: Image::new(grid, points().map(|p| u8::from(in_sac(&p) && !in_artery(&p))).collect()),
        lesions: vec![Lesion { centre, diameter_mm: Some(3.0), site, neck: None, neck_width_mm: None }],
        meta: SeriesMeta::default(),
    }
}

/// The volume of a case, in the form that inference takes.
fn harmonised(case: &TrainingCase) -> HarmonisedVolume {
    let source = Volume { image: case.image.clone(), meta: case.meta.clone(), findings: Vec::new() };
    HarmonisedVolume {
        image: case.image.clone(),
        meta: case.meta.clone(),
        source: Arc::new(source),
        findings: Vec::new(),
    }
}
