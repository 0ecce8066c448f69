//! `willis train brain`: the net that finds the brain, and how it does on heads that it has not
//! seen.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use willis_core::files::atomic::write_atomically;
use willis_core::files::nifti;
use willis_imaging::strip::left_inferior_anterior;
use willis_nets::brain::{BrainNet, BrainTraining, GeneratedHead, HeadGenerator, LabelledHead, fit};
use willis_nets::ops::cpu;
use willis_nets::weights::{Precision, Weights};
use willis_phantom::head_labels;
use willis_stats::figure::Undefined;

use super::show;
use crate::cli::TrainBrainArgs;
use crate::config::Config;
use crate::models::BRAIN;
use crate::progress::Progress;
use crate::scoreboard::{Scoreboard, TRAINING_SAMPLES};

/// Seed of the generator of validation images; those of training come from other streams.
const VALIDATION_SEED: u64 = 0x5eed;

/// Trains and prints how the net does.
pub fn run(args: &TrainBrainArgs, progress: &Progress) -> anyhow::Result<()> {
    let config = Config::load(args.config.as_deref())?;
    let mut recipe = config.train.brain.clone();
    recipe.train.steps = args.steps.unwrap_or(recipe.train.steps);
    recipe.train.seed = args.seed;
    let start = args.from.as_deref().map(Weights::load).transpose()?;

    let mut heads = read_heads(&args.labels, progress)?;
    let left_out = if heads.len() > 1 { heads.pop() } else { None };
    for i in 0..recipe.phantoms {
        let map = head_labels(args.seed.wrapping_add(i as u64)).map(|&number| f32::from(number));
        heads.push(LabelledHead::new(&left_inferior_anterior(&map))?);
    }
    std::fs::create_dir_all(&args.output).with_context(|| format!("cannot create {}", args.output.display()))?;
    let resolved = config.resolved();
    write_atomically(&args.output.join("config.toml"), |file| file.write_all(resolved.as_bytes()))?;

    let bar = progress.bar("brain", recipe.train.steps as u64);
    let fitted = fit(&heads, &recipe, start, &args.output, &cpu(), show(&bar))?;
    bar.finish_and_clear();
    println!("{} of {} steps on {} heads", fitted.step, recipe.train.steps, heads.len());
    if !fitted.finished {
        return Ok(());
    }
    let net = BrainNet::new(fitted.net, recipe.net.clone());
    net.weights().save(&args.output.join(BRAIN), Precision::F16)?;
    match left_out {
        Some(head) => scores(&net, &recipe, &[head], progress)?.report(&args.output),
        None => Ok(()),
    }
}

/// Every label map of a folder, in order of names.
fn read_heads(folder: &Path, progress: &Progress) -> anyhow::Result<Vec<LabelledHead>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read folder {}", folder.display()))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    let is_nifti = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        name.ends_with(".nii") || name.ends_with(".nii.gz")
    };
    let mut paths: Vec<PathBuf> = paths.into_iter().filter(is_nifti).collect();
    ensure!(!paths.is_empty(), "{} has no .nii or .nii.gz file; give a folder of label maps", folder.display());
    paths.sort();
    let bar = progress.bar("labels", paths.len() as u64);
    let mut heads = Vec::new();
    for path in paths {
        let map = left_inferior_anterior(&nifti::read(&path)?);
        heads.push(LabelledHead::new(&map).with_context(|| path.display().to_string())?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(heads)
}

/// How the net does on generated images of these heads.
fn scores(
    net: &BrainNet,
    recipe: &BrainTraining,
    heads: &[LabelledHead],
    progress: &Progress,
) -> anyhow::Result<Scoreboard> {
    let generator = HeadGenerator::new(heads, recipe.net.spacing_mm, &recipe.generate);
    let bar = progress.bar("scores", recipe.validation_heads as u64);
    let mut dice = Vec::new();
    for number in 0..recipe.validation_heads {
        let mut rng = ChaCha8Rng::seed_from_u64(VALIDATION_SEED);
        rng.set_stream(number as u64);
        let mut head = generator.draw(&mut rng);
        let found = net.symmetric_distances_mm(std::mem::take(&mut head.image), head.shape);
        dice.push(overlap(&found, &head));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut board = Scoreboard::new(dice.len(), TRAINING_SAMPLES);
    board.add("brain_dice", "Dice of the brain", "generated images of a left-out head", |sample| {
        let defined: Vec<f64> = sample.iter().filter_map(|&i| dice[i]).collect();
        let count = defined.len() as f64;
        if defined.is_empty() { Err(Undefined::Empty) } else { Ok(defined.iter().sum::<f64>() / count) }
    });
    let lowest = dice.iter().flatten().copied().fold(1.0, f64::min);
    board.add_constant("brain_dice_lowest", "lowest Dice of an image", lowest);
    Ok(board)
}

/// Dice coefficient of the found brain in the field of view; `None` if neither has a voxel.
fn overlap(found: &[f32], head: &GeneratedHead) -> Option<f64> {
    let (mut both, mut sum) = (0usize, 0usize);
    for ((&found, &truth), _) in found.iter().zip(&head.distance_mm).zip(&head.inside).filter(|(_, seen)| **seen > 0.0)
    {
        both += usize::from(found < 0.0 && truth < 0.0);
        sum += usize::from(found < 0.0) + usize::from(truth < 0.0);
    }
    (sum > 0).then(|| 2.0 * both as f64 / sum as f64)
}
