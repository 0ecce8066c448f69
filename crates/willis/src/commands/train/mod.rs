//! `willis train`: trains the learned stages on a data set. Weights are written into the run folder
//! when all steps are done; a killed run resumes from its checkpoint.

mod brain;
mod examine;
mod propose;
mod segment;
mod stack;

use anyhow::{Context, ensure};
use indicatif::ProgressBar;
use willis_core::cohort;
use willis_core::files::atomic::write_atomically;
use willis_nets::train::{StepReport, TrainConfig};

use super::Outcome;
use crate::cases::{PreparedCase, prepare};
use crate::cli::{TrainArgs, TrainCommand};
use crate::config::Config;
use crate::progress::Progress;

/// Nodes and candidates within this distance of a sac belong to the lesion, mm.
const MARGIN_MM: f64 = 1.0;

/// Runs one of the trainings.
pub fn run(command: &TrainCommand, progress: &Progress) -> anyhow::Result<Outcome> {
    match command {
        TrainCommand::Segment(args) => segment::run(args, progress)?,
        TrainCommand::Propose { train, models } => propose::run(train, models, progress)?,
        TrainCommand::Examine(args) => examine::run(args, progress)?,
        TrainCommand::Brain(args) => brain::run(args, progress)?,
        TrainCommand::Stack { train, models } => stack::run(train, models, progress)?,
    }
    Ok(Outcome::Done)
}

/// Configuration and cases of a training.
struct TrainingCases {
    config: Config,
    cases: Vec<PreparedCase>,
    left_out_fold: usize,
    max_cases: usize,
}

impl TrainingCases {
    /// Prepares the cases and writes the resolved configuration into the run folder.
    fn new(args: &TrainArgs, progress: &Progress) -> anyhow::Result<Self> {
        let (folds, left_out_fold) = (args.folds.folds, args.folds.left_out());
        ensure!(left_out_fold < folds, "--fold {left_out_fold} does not exist; the {folds} folds are numbered from 0");
        let config = Config::load(args.config.as_deref())?;
        let cases = prepare(&cohort::read(&args.data)?, &config, folds, progress)?;
        std::fs::create_dir_all(&args.output).with_context(|| format!("cannot create {}", args.output.display()))?;
        let resolved = config.resolved();
        write_atomically(&args.output.join("config.toml"), |file| file.write_all(resolved.as_bytes()))?;
        Ok(Self { config, cases, left_out_fold, max_cases: args.cases.unwrap_or(usize::MAX) })
    }

    /// The cases to train a net on.
    ///
    /// # Errors
    /// when there are none
    fn training(&self) -> anyhow::Result<Vec<&PreparedCase>> {
        let cases = self.of(|fold| fold != self.left_out_fold, self.max_cases);
        ensure!(!cases.is_empty(), "no series outside of fold {} to train on; see --folds", self.left_out_fold);
        Ok(cases)
    }

    /// The left-out cases to fit the stack on.
    ///
    /// # Errors
    /// when there are none
    fn stacking(&self) -> anyhow::Result<Vec<&PreparedCase>> {
        let cases = self.of(|fold| fold == self.left_out_fold, self.max_cases);
        ensure!(!cases.is_empty(), "no series in fold {} to fit the stack on; see --folds", self.left_out_fold);
        Ok(cases)
    }

    /// The left-out cases to score a net on.
    fn validation(&self) -> Vec<&PreparedCase> {
        self.of(|fold| fold == self.left_out_fold, self.config.train.validation_cases)
    }

    /// The first `limit` cases of the wanted folds.
    fn of(&self, is_wanted: impl Fn(usize) -> bool, limit: usize) -> Vec<&PreparedCase> {
        self.cases.iter().filter(|case| is_wanted(case.fold)).take(limit).collect()
    }
}

/// The configuration with the steps, if given, and the seed of the command line.
fn overlaid(config: &TrainConfig, args: &TrainArgs) -> TrainConfig {
    TrainConfig { steps: args.steps.unwrap_or(config.steps), seed: args.seed, ..config.clone() }
}

/// The value of `--layer-decay`, if valid.
fn checked_decay(decay: f64) -> anyhow::Result<f64> {
    ensure!(decay > 0.0 && decay <= 1.0, "--layer-decay {decay} must be greater than 0 and at most 1");
    Ok(decay)
}

/// Shows the loss of each step in a progress bar.
fn show(bar: &ProgressBar) -> impl FnMut(&StepReport<'_>) + '_ {
    |report| {
        bar.set_length(report.steps as u64);
        bar.set_position(report.step as u64);
        bar.set_message(format!("loss {:.4}", report.loss));
    }
}
