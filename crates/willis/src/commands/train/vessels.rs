//! `willis train vessels`: the vessel net, and how it does on series that it has not seen.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde::Serialize;
use willis_core::files::{atomic::write_atomically, case};
use willis_core::{Image, TrainingCase, VesselGraph, VesselMap};
use willis_imaging::trace::trace;
use willis_kernels::{distance::squared_distance_mm2, thinning::skeletonize};
use willis_nets::cpu;
use willis_nets::segment::{Agreement, Scores, SegmentNet, SegmentTraining, THIN_MM, fit, segment};
use willis_nets::weights::{Precision, Weights};
use willis_stats::metrics;

use super::{PreparedCase, Start, overlaid, show};
use crate::cli::VesselsArgs;
use crate::commands::maps::harmonised;
use crate::commands::progress::Progress;
use crate::config::Config;
use crate::weights::VESSELS;

/// A true centreline farther than this from every traced one is missed, mm.
const MISSED_MM: f64 = 2.0;
/// Name of the figures in a run's folder.
const SCORES: &str = "scores.json";

/// Trains and prints how the net does.
pub fn run(args: &VesselsArgs, progress: &Progress) -> anyhow::Result<()> {
    let start = Start::new(&args.train, progress)?;
    let mut recipe = recipe(args, &start.config);
    let mut initial = args.from.as_deref().map(Weights::load).transpose()?;
    if let Some(path) = &args.encoder {
        let decay = args.layer_decay;
        ensure!(decay > 0.0 && decay <= 1.0, "--layer-decay {decay} is not above 0 and at most 1");
        recipe.train.rates = recipe.net.encoder_rates(decay);
        let fits = || format!("{} is no encoder of this vessel net; see `willis pretrain --help`", path.display());
        initial = Some(recipe.net.with_encoder(&Weights::load(path)?, recipe.train.seed).with_context(fits)?);
    }
    let folders = |cases: &mut dyn Iterator<Item = &PreparedCase>| {
        cases.map(|case| case.folder.clone()).collect::<Vec<PathBuf>>()
    };
    let training = folders(&mut start.kept(&args.train));
    let mut validation = folders(&mut start.left_out(args.train.fold));
    validation.truncate(start.config.train.validation_cases);
    let bar = progress.bar("vessels", recipe.train.steps as u64);
    let fitted = fit(&training, &validation, &recipe, initial, &args.train.output, &cpu(), show(&bar))?;
    bar.finish_and_clear();
    println!("{} of {} steps on {} series", fitted.step, recipe.train.steps, training.len());
    if !fitted.finished {
        return Ok(());
    }
    let mut weights = fitted.net.weights();
    weights.metadata.insert("config".into(), serde_json::to_string(&recipe.net)?);
    weights.save(&args.train.output.join(VESSELS), Precision::F16)?;
    let report = Report::of(&fitted.net, &recipe, &start.config, &validation, progress)?;
    let json = serde_json::to_vec_pretty(&report)?;
    write_atomically(&args.train.output.join(SCORES), |file| file.write_all(&json))?;
    report.print();
    Ok(())
}

/// The configured recipe with the arguments laid over it.
fn recipe(args: &VesselsArgs, config: &Config) -> SegmentTraining {
    let mut recipe = config.train.vessels.clone();
    recipe.train = overlaid(&recipe.train, &args.train);
    if let Some(backbone) = args.backbone {
        recipe.net.kind = backbone.into();
    }
    recipe
}

/// How a vessel net does on left-out series.
#[derive(Debug, Serialize)]
struct Report {
    cases: usize,
    #[serde(flatten)]
    scores: Scores,
    /// Mean over the series.
    cldice: Option<f64>,
    /// Share of the true centrelines that lies farther than [`MISSED_MM`] from the traced graph.
    missed_by_graph: Option<f64>,
    parameters: usize,
    /// Of one window.
    multiplications: u64,
    /// To segment one series.
    seconds_per_series: Option<f64>,
}

impl Report {
    fn of(
        net: &SegmentNet,
        recipe: &SegmentTraining,
        config: &Config,
        folders: &[PathBuf],
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let bar = progress.bar("scores", folders.len() as u64);
        let (mut agreement, mut cldices, mut missed, mut seconds) = (Agreement::default(), Vec::new(), [0, 0], 0.0);
        for folder in folders {
            let case = case::load(folder)?;
            let begin = Instant::now();
            let map = segment(net, &harmonised(&case), &recipe.infer);
            seconds += begin.elapsed().as_secs_f64();
            agreement.add(&map, &case);
            cldices.extend(cldice(&map, &case));
            let [far, all] = missed_by(&trace(&map, &config.trace), &case);
            missed = [missed[0] + far, missed[1] + all];
            bar.inc(1);
        }
        bar.finish_and_clear();
        let mean = |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
        Ok(Self {
            cases: folders.len(),
            scores: agreement.scores(),
            cldice: mean(&cldices),
            missed_by_graph: (missed[1] > 0).then(|| missed[0] as f64 / missed[1] as f64),
            parameters: net.parameters(),
            multiplications: net.multiplications(recipe.sample.patch),
            seconds_per_series: (!folders.is_empty()).then(|| seconds / folders.len() as f64),
        })
    }

    fn print(&self) {
        let number = |v: Option<f64>| v.map_or("n/a".into(), |v| format!("{v:.3}"));
        let Scores { vessel_dice, aneurysm_dice, site_accuracy, vessel_recall, vessel_precision, .. } = self.scores;
        println!(
            "left-out fold, {} cases: vessel Dice {}, clDice {}, aneurysm Dice {}, site accuracy {}",
            self.cases,
            number(vessel_dice),
            number(self.cldice),
            number(aneurysm_dice),
            number(site_accuracy)
        );
        println!(
            "vessel recall {}, precision {}; skeleton recall {}, of vessels below {THIN_MM} mm {}; missed by the graph {}",
            number(vessel_recall),
            number(vessel_precision),
            number(self.scores.skeleton_recall),
            number(self.scores.thin_recall),
            number(self.missed_by_graph)
        );
        println!(
            "{} parameters, {:.2} G multiply-accumulates a window, {} s a series",
            self.parameters,
            self.multiplications as f64 / 1e9,
            number(self.seconds_per_series)
        );
    }
}

fn true_vessels(case: &TrainingCase) -> Vec<u8> {
    case.sites.voxels.iter().map(|&site| u8::from(site != 0)).collect()
}

fn cldice(map: &VesselMap, case: &TrainingCase) -> Option<f64> {
    let (truth, shape) = (true_vessels(case), case.sites.grid.shape.zyx());
    let found: Vec<u8> = map.vessel.voxels.iter().map(|&p| u8::from(p >= 0.5)).collect();
    metrics::cldice(&found, &skeletonize(&found, shape), &truth, &skeletonize(&truth, shape))
}

/// Voxels of the true skeleton far from the graph, and all of them.
fn missed_by(graph: &VesselGraph, case: &TrainingCase) -> [usize; 2] {
    let grid = case.sites.grid;
    // Distances to the voxels that hold a point of the graph, in place of one to every point.
    let mut traced = Image::filled(grid, 0u8);
    for at in graph.points() {
        if let Some(voxel) = grid.affine.to_voxel(at.point).filter(|&voxel| grid.shape.contains(voxel)) {
            traced.voxels[grid.shape.offset(grid.shape.nearest(voxel))] = 1;
        }
    }
    let elsewhere: Vec<u8> = traced.voxels.iter().map(|&on| 1 - on).collect();
    let distances = squared_distance_mm2(&elsewhere, grid.shape.zyx(), grid.spacing().zyx());
    let skeleton = skeletonize(&true_vessels(case), grid.shape.zyx());
    let on: Vec<usize> = (0..skeleton.len()).filter(|&i| skeleton[i] != 0).collect();
    let far = on.iter().filter(|&&i| f64::from(distances[i]) > MISSED_MM * MISSED_MM).count();
    [far, on.len()]
}
