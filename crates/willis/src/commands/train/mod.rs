//! `willis train`: each learned stage from a data set, resumable; the weights appear in the run
//! folder when all steps are done.

mod examine;
mod segment;

use std::path::Path;

use anyhow::{Context, ensure};
use indicatif::ProgressBar;
use willis_core::SITE_COUNT;
use willis_core::anatomy::ANEURYSM_PRESENT;
use willis_core::cohort;
use willis_core::files::atomic::write_atomically;
use willis_imaging::trace::{nodes::node_table, trace};
use willis_nets::ops::cpu;
use willis_nets::propose::{self as propose_stage, GraphCase, ProposeNet};
use willis_nets::train::{StepReport, TrainConfig};
use willis_nets::weights::{Precision, Weights};
use willis_stats::metrics::detection::TOLERANCE_MM;
use willis_stats::metrics::{COLUMN_COUNT, SeriesDetections, challenge_score, detections, recall_at};
use willis_stats::stack::{self, StackCase, StackFit};

use super::Outcome;
use crate::cases::maps::MapMaker;
use crate::cases::{PreparedCase, prepare};
use crate::cli::{FoldArgs, TrainArgs, TrainCommand};
use crate::config::Config;
use crate::line::candidates;
use crate::models::{self, PROPOSE, STACK};
use crate::progress::Progress;
use crate::scoreboard::{Scoreboard, TRAINING_SAMPLES};

/// Nodes and candidates within this distance of a sac belong to the lesion, mm.
const MARGIN_MM: f64 = 1.0;

/// Runs one of the trainings.
pub fn run(command: &TrainCommand, progress: &Progress) -> anyhow::Result<Outcome> {
    match command {
        TrainCommand::Segment(args) => segment::run(args, progress)?,
        TrainCommand::Propose { train, models } => propose(train, models, progress)?,
        TrainCommand::Examine(args) => examine::run(args, progress)?,
        TrainCommand::Stack { train, models } => stack(train, models, progress)?,
    }
    Ok(Outcome::Done)
}

/// What a training starts from: configuration with the arguments laid over it, and the prepared
/// cases.
struct Start {
    config: Config,
    cases: Vec<PreparedCase>,
}

impl Start {
    fn new(args: &TrainArgs, progress: &Progress) -> anyhow::Result<Self> {
        let FoldArgs { folds, .. } = args.folds;
        let left_out = args.folds.left_out();
        ensure!(left_out < folds, "--fold {left_out} does not exist; the {folds} folds are numbered from 0");
        let config = Config::load(args.config.as_deref())?;
        let cases = prepare(&cohort::read(&args.data)?, &config, folds, progress)?;
        std::fs::create_dir_all(&args.output).with_context(|| format!("cannot create {}", args.output.display()))?;
        let resolved = config.resolved();
        write_atomically(&args.output.join("config.toml"), |file| file.write_all(resolved.as_bytes()))?;
        Ok(Self { config, cases })
    }

    /// The cases that are trained on.
    fn kept(&self, args: &TrainArgs) -> impl Iterator<Item = &PreparedCase> {
        let fold = args.folds.left_out();
        self.cases.iter().filter(move |case| case.fold != fold).take(args.cases.unwrap_or(usize::MAX))
    }

    /// The cases that are not.
    fn left_out(&self, fold: usize) -> impl Iterator<Item = &PreparedCase> {
        self.cases.iter().filter(move |case| case.fold == fold)
    }
}

/// Steps and seed as typed, else as configured.
fn overlaid(config: &TrainConfig, args: &TrainArgs) -> TrainConfig {
    TrainConfig { steps: args.steps.unwrap_or(config.steps), seed: args.seed, ..config.clone() }
}

/// The fraction of `--layer-decay`.
fn checked_decay(decay: f64) -> anyhow::Result<f64> {
    ensure!(decay > 0.0 && decay <= 1.0, "--layer-decay {decay} is not above 0 and at most 1");
    Ok(decay)
}

fn show(bar: &ProgressBar) -> impl FnMut(&StepReport<'_>) + '_ {
    |report| {
        bar.set_length(report.steps as u64);
        bar.set_position(report.step as u64);
        bar.set_message(format!("loss {:.4}", report.loss));
    }
}

fn propose(args: &TrainArgs, models: &Path, progress: &Progress) -> anyhow::Result<()> {
    let start = Start::new(args, progress)?;
    let (net, sha256) = models::load_segment(models)?;
    let maker = MapMaker { net: &net, sha256: &sha256, config: &start.config.segment };
    let bar = progress.bar("trace", start.kept(args).count() as u64);
    let mut cases = Vec::new();
    for prepared in start.kept(args) {
        let (case, map) = maker.map(prepared)?;
        let table = node_table(&trace(&map, &start.config.trace), &map, &start.config.trace);
        if !table.points.is_empty() {
            cases.push(GraphCase::new(&table, &case.lesions, MARGIN_MM));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut recipe = start.config.train.propose.clone();
    recipe.train = overlaid(&recipe.train, args);
    let bar = progress.bar("graph", recipe.train.steps as u64);
    let fitted = propose_stage::fit(&cases, &recipe, &args.output, &cpu(), show(&bar))?;
    bar.finish_and_clear();
    if fitted.finished {
        let weights = Weights::of(&fitted.net).described(&fitted.net.config(), ProposeNet::REVISION);
        weights.save(&args.output.join(PROPOSE), Precision::F16)?;
    }
    println!("{} of {} steps on {} graphs", fitted.step, recipe.train.steps, cases.len());
    Ok(())
}

fn stack(args: &TrainArgs, models: &Path, progress: &Progress) -> anyhow::Result<()> {
    let start = Start::new(args, progress)?;
    let (net, sha256) = models::load_segment(models)?;
    let (scorer, examiner) = (models::load_propose(models)?, models::load_examine(models)?);
    let maker = MapMaker { net: &net, sha256: &sha256, config: &start.config.segment };
    let chosen: Vec<_> = start.left_out(args.folds.left_out()).take(args.cases.unwrap_or(usize::MAX)).collect();
    let bar = progress.bar("evidence", chosen.len() as u64);
    let (mut cases, mut detected) = (Vec::new(), Vec::new());
    for prepared in chosen {
        let (case, map) = maker.map(prepared)?;
        let proposed = candidates(&scorer, &map, &trace(&map, &start.config.trace), &start.config);
        let candidates = willis_nets::examine::examine(&examiner, &map, proposed, &case.meta, &start.config.examine);
        let mut sites = [false; SITE_COUNT];
        case.lesions.iter().for_each(|lesion| sites[lesion.site.column()] = true);
        let present = !case.lesions.is_empty();
        let hits = detections(&candidates, &case.lesions, TOLERANCE_MM);
        cases.push(StackCase {
            is_aneurysm: hits.candidates.iter().map(|(_, lesion)| lesion.is_some()).collect(),
            patient: prepared.uid.clone(),
            modality: case.meta.modality,
            candidates,
            sites,
            present,
        });
        detected.push(hits);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let fitted = stack::fit(&cases, &start.config.train.stack)?;
    for (hits, probabilities) in detected.iter_mut().zip(&fitted.out_of_fold_candidates) {
        hits.candidates.iter_mut().zip(probabilities).for_each(|(candidate, &p)| candidate.0 = p);
    }
    let bytes = fitted.model.to_json()?;
    write_atomically(&args.output.join(STACK), |file| file.write_all(&bytes))?;
    out_of_fold(&cases, &fitted, &detected).report(&args.output)
}

/// Figures of the stack on the series it was fitted on, each predicted by the fold that left it out.
fn out_of_fold(cases: &[StackCase], fitted: &StackFit, detected: &[SeriesDetections]) -> Scoreboard {
    let mut board = Scoreboard::new(cases.len(), TRAINING_SAMPLES);
    let labels: Vec<[bool; COLUMN_COUNT]> =
        cases.iter().map(|c| std::array::from_fn(|i| *c.sites.get(i).unwrap_or(&c.present))).collect();
    let score = |rows: &[[f64; COLUMN_COUNT]], sample: &[usize]| {
        let (rows, labels): (Vec<_>, Vec<_>) = sample.iter().map(|&i| (rows[i], labels[i])).unzip();
        challenge_score(&rows, &labels)
    };
    for (id, name, rows) in [
        ("stack", "stack", &fitted.out_of_fold),
        ("boosted", "boosted trees alone", &fitted.out_of_fold_boosted),
        ("logistic", "logistic regression alone", &fitted.out_of_fold_logistic),
    ] {
        let label = format!("{name}: challenge score of the defined columns");
        board.add(format!("{id}_challenge_score_of_defined"), label, "", |sample| score(rows, sample).score_of_defined);
        let label = format!("{name}: AUC {ANEURYSM_PRESENT}");
        board.add(format!("{id}_auc_aneurysm_present"), label, "", |sample| score(rows, sample).auc[SITE_COUNT]);
    }
    for k in [1, 5, 15] {
        board.add(format!("lesion_recall_at_{k}"), format!("lesion recall at {k}"), "", |sample| {
            recall_at(&sample.iter().map(|&i| detected[i].clone()).collect::<Vec<_>>(), k)
        });
    }
    board
}
