//! `willis train segment`: the segmentation net, scored on left-out series.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use willis_core::files::case;
use willis_core::{Image, TrainingCase, VesselGraph, VesselMap};
use willis_kernels::{distance::squared_distance_mm2, thinning::skeletonize};
use willis_nets::ops::cpu;
use willis_nets::segment::{Agreement, SegmentNet, SegmentNetConfig, SegmentTraining, VoxelCounts, fit, segment};
use willis_nets::weights::{Precision, Weights};
use willis_stats::figure::Undefined;
use willis_stats::metrics;

use super::{TrainingCases, checked_decay, overlaid, show};
use crate::cases::PreparedCase;
use crate::cases::mapped::MappedCase;
use crate::cli::TrainSegmentArgs;
use crate::config::Config;
use crate::models::SEGMENT;
use crate::progress::Progress;
use crate::scoreboard::{Scoreboard, TRAINING_SAMPLES};

/// A voxel of the true skeleton counts as missed if it is farther than this from the traced graph,
/// mm.
const MISSED_MM: f64 = 2.0;

/// Trains the net, writes its weights and scores it on left-out series.
pub fn run(args: &TrainSegmentArgs, progress: &Progress) -> anyhow::Result<()> {
    let set = TrainingCases::new(&args.train, progress)?;
    let mut config = training_config(args, &set.config);
    let mut initial = args.from.as_deref().map(Weights::load).transpose()?;
    if let Some(weights) = &initial {
        weights.check_revision(SegmentNet::REVISION)?;
    }
    if let Some(path) = &args.encoder {
        config.train.rates = config.net.encoder_rates(checked_decay(args.layer_decay)?);
        let fits =
            || format!("{} is not an encoder of this segmentation net; see `willis pretrain --help`", path.display());
        initial = Some(config.net.with_encoder(&Weights::load(path)?, config.train.seed).with_context(fits)?);
    }
    let folders = |cases: Vec<&PreparedCase>| cases.iter().map(|case| case.folder.clone()).collect::<Vec<_>>();
    let (training, validation) = (folders(set.training()?), folders(set.validation()));
    let bar = progress.bar("segment", config.train.steps as u64);
    let fitted = fit(&training, &validation, &config, initial, &args.train.output, &cpu(), show(&bar))?;
    bar.finish_and_clear();
    println!("{} of {} steps on {} series", fitted.step, config.train.steps, training.len());
    if !fitted.finished {
        return Ok(());
    }
    let weights = fitted.net.weights().described(&config.net, SegmentNet::REVISION);
    weights.save(&args.train.output.join(SEGMENT), Precision::F16)?;
    scoreboard(&fitted.net, &config, &set.config, &validation, progress)?.report(&args.train.output)
}

/// The configuration with the arguments laid over it.
fn training_config(args: &TrainSegmentArgs, config: &Config) -> SegmentTraining {
    let mut training = config.train.segment.clone();
    training.train = overlaid(&training.train, &args.train);
    if let Some(backbone) = args.backbone {
        let kind = backbone.into();
        if training.net.backbone().kind() != kind {
            training.net = SegmentNetConfig::around(kind);
        }
    }
    training
}

/// Agreement of a net with the truth of one series.
struct CaseScores {
    counts: VoxelCounts,
    cldice: Result<f64, Undefined>,
    /// Voxels of the true skeleton farther than [`MISSED_MM`] from the traced graph, and all of
    /// them.
    missed: [usize; 2],
    seconds: f64,
}

/// Figures over left-out series.
fn scoreboard(
    net: &SegmentNet,
    training: &SegmentTraining,
    config: &Config,
    folders: &[PathBuf],
    progress: &Progress,
) -> anyhow::Result<Scoreboard> {
    let bar = progress.bar("scores", folders.len() as u64);
    let mut cases = Vec::new();
    for folder in folders {
        let case = case::load(folder)?;
        let source = Arc::new(case.harmonised());
        let begin = Instant::now();
        let map = segment(net, &source, &training.infer);
        let seconds = begin.elapsed().as_secs_f64();
        let MappedCase { case, map, graph } = MappedCase::new(case, map, config);
        let (counts, cldice) = (VoxelCounts::of(&map, &case), cldice(&map, &case));
        cases.push(CaseScores { counts, cldice, missed: missed_by(&graph, &case), seconds });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut board = Scoreboard::new(cases.len(), TRAINING_SAMPLES);
    let pooled = |metric: fn(Agreement) -> Option<f64>| {
        let cases = &cases;
        move |sample: &[usize]| {
            let counts = sample.iter().map(|&i| cases[i].counts).sum::<VoxelCounts>();
            metric(counts.agreement()).ok_or(Undefined::EmptyMask)
        }
    };
    let mean = |metric: fn(&CaseScores) -> Result<f64, Undefined>| {
        let cases = &cases;
        move |sample: &[usize]| mean(sample.iter().map(|&i| metric(&cases[i])))
    };
    board.add("vessel_dice", "vessel Dice", "", pooled(|s| s.vessel_dice));
    board.add("vessel_recall", "vessel recall", "", pooled(|s| s.vessel_recall));
    board.add("vessel_precision", "vessel precision", "", pooled(|s| s.vessel_precision));
    board.add("aneurysm_dice", "aneurysm Dice", "", pooled(|s| s.aneurysm_dice));
    board.add("site_accuracy", "site accuracy", "true vessel voxels that were found", pooled(|s| s.site_accuracy));
    board.add("cldice", "clDice", "mean over series", mean(|case| case.cldice));
    board.add("skeleton_recall", "skeleton recall", "", pooled(|s| s.skeleton_recall));
    board.add("skeleton_recall_below_1.5_mm", "skeleton recall below 1.5 mm", "", pooled(|s| s.thin_recall));
    board.add("missed_by_the_graph", "share of the skeleton missed by the graph", "", |sample| {
        let [far, all] = [0, 1].map(|k| sample.iter().map(|&i| cases[i].missed[k]).sum::<usize>());
        if all > 0 { Ok(far as f64 / all as f64) } else { Err(Undefined::EmptyMask) }
    });
    board.add_constant("million_parameters", "million parameters", net.parameters() as f64 / 1e6);
    let macs = net.multiplications(training.sample.patch) as f64;
    board.add_constant("giga_macs_per_patch", "giga multiply-accumulates per patch", macs / 1e9);
    board.add("seconds_per_series", "seconds per series", "", mean(|case| Ok(case.seconds)));
    Ok(board)
}

/// Mean of the values that are defined.
fn mean(values: impl Iterator<Item = Result<f64, Undefined>> + Clone) -> Result<f64, Undefined> {
    let (sum, count) = values.clone().flatten().fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    if count > 0 {
        Ok(sum / f64::from(count))
    } else {
        Err(values.flat_map(Result::err).next().unwrap_or(Undefined::Empty))
    }
}

fn true_vessels(case: &TrainingCase) -> Vec<u8> {
    case.sites.voxels.iter().map(|&site| u8::from(site != 0)).collect()
}

fn cldice(map: &VesselMap, case: &TrainingCase) -> Result<f64, Undefined> {
    let (truth, shape) = (true_vessels(case), case.sites.grid.shape.zyx());
    let found: Vec<u8> = map.vessel.voxels.iter().map(|&p| u8::from(p >= 0.5)).collect();
    metrics::cldice(&found, &skeletonize(&found, shape), &truth, &skeletonize(&truth, shape))
}

/// Number of voxels of the true skeleton that the graph misses, and of all of them.
fn missed_by(graph: &VesselGraph, case: &TrainingCase) -> [usize; 2] {
    let grid = case.sites.grid;
    // One distance transform of the voxels on the graph replaces a search over all its points.
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
