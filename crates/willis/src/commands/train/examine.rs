//! `willis train examine`: the classifier, scored on left-out series.

use anyhow::Context;
use willis_core::{Candidates, SITE_COUNT, Site, Switch};
use willis_nets::examine::{
    ExamineCase, ExamineConfig, ExamineNet, ExamineNetConfig, ExamineTraining, OscillatorsChoice, PatchEncoderConfig,
    PlainEncoderConfig, examine, fit,
};
use willis_nets::ops::cpu;
use willis_nets::weights::{Precision, Weights};
use willis_stats::figure::Undefined;
use willis_stats::metrics::detection::TOLERANCE_MM;
use willis_stats::metrics::{SeriesDetections, auroc, average_precision, detections, recall_at};

use super::{MARGIN_MM, TrainingCases, checked_decay, overlaid, show};
use crate::cases::mapped::{CaseMapper, MappedCase};
use crate::cli::TrainExamineArgs;
use crate::config::Config;
use crate::models::{EXAMINE, load_propose, load_segment};
use crate::progress::Progress;
use crate::scoreboard::{Scoreboard, TRAINING_SAMPLES};

/// Trains the net, writes its weights and scores it on left-out series.
pub fn run(args: &TrainExamineArgs, progress: &Progress) -> anyhow::Result<()> {
    let set = TrainingCases::new(&args.train, progress)?;
    let mut config = training_config(args, &set.config);
    let mut initial = args.from.as_deref().map(Weights::load).transpose()?;
    if let Some(weights) = &initial {
        weights.check_revision(ExamineNet::REVISION)?;
    }
    if let Some(path) = &args.encoder {
        config.train.rates = config.net.encoder_rates(checked_decay(args.layer_decay)?);
        let fits = || format!("{} is not an encoder of this classifier; see `willis pretrain --help`", path.display());
        initial = Some(config.net.with_encoder(&Weights::load(path)?, config.train.seed).with_context(fits)?);
    }
    let (net, sha256) = load_segment(&args.models)?;
    let propose = load_propose(&args.models)?;
    let mapper = CaseMapper::new(net, &sha256, &set.config);
    let training = set.training()?;
    let bar = progress.bar("propose", training.len() as u64);
    let mut cases: Vec<ExamineCase> = Vec::new();
    for prepared in training {
        let mapped = mapper.load(prepared)?;
        let candidates = mapped.candidates(&propose, &set.config);
        cases.push(ExamineCase::new(&mapped.map, &candidates, &mapped.case.lesions, &mapped.case.meta));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let bar = progress.bar("examine", config.train.steps as u64);
    let fitted = fit(&cases, &config, initial, &args.train.output, &cpu(), show(&bar))?;
    bar.finish_and_clear();
    println!("{} of {} steps on {} series", fitted.step, config.train.steps, cases.len());
    if !fitted.finished {
        return Ok(());
    }
    let weights = Weights::of(&fitted.net).described(&config.net, ExamineNet::REVISION);
    weights.save(&args.train.output.join(EXAMINE), Precision::F16)?;
    let validation = set.validation();
    let bar = progress.bar("scores", validation.len() as u64);
    let mut examined = Vec::new();
    for prepared in validation {
        let mapped = mapper.load(prepared)?;
        let candidates = mapped.candidates(&propose, &set.config);
        examined.push(ExaminedCase::new(&fitted.net, &mapped, candidates, &set.config.examine));
        bar.inc(1);
    }
    bar.finish_and_clear();
    scoreboard(&examined).report(&args.train.output)
}

/// The configuration with the arguments laid over it.
fn training_config(args: &TrainExamineArgs, config: &Config) -> ExamineTraining {
    let mut training = config.train.examine.clone();
    training.train = overlaid(&training.train, &args.train);
    if args.plain {
        let encoder = PatchEncoderConfig::Plain(PlainEncoderConfig { embed_dim: training.net.encoder.embed_dim() });
        training.net = ExamineNetConfig { encoder, oscillators: OscillatorsChoice::Off, film: Switch::Off };
    }
    training
}

/// The classifier's output for the candidates of a left-out series.
struct ExaminedCase {
    /// Probability of each candidate at the place where it was proposed.
    probabilities: Vec<f64>,
    /// Whether each of these candidates is in a lesion.
    is_lesion: Vec<bool>,
    /// Whether the most probable site is right, for each candidate in a lesion.
    site_is_right: Vec<bool>,
    /// Candidates as the stage returns them, matched with the lesions.
    detected: SeriesDetections,
}

impl ExaminedCase {
    fn new(net: &ExamineNet, mapped: &MappedCase, proposed: Candidates, config: &ExamineConfig) -> Self {
        let MappedCase { case, map, .. } = mapped;
        let (mut probabilities, mut is_lesion, mut site_is_right) = (Vec::new(), Vec::new(), Vec::new());
        // The stage moves and merges candidates. Examined one by one, they stay as proposed, so
        // that every classifier is scored on the same candidates.
        for candidate in &proposed {
            let inside = case.lesions.iter().find(|lesion| {
                let reach = lesion.diameter_mm.unwrap_or(0.0) / 2.0 + MARGIN_MM;
                lesion.centre.distance_mm(candidate.centre) <= reach
            });
            let examined = examine(net, map, vec![candidate.clone()], &case.meta, config);
            let Some(examined) = examined.first() else { continue };
            probabilities.push(examined.probability);
            is_lesion.push(inside.is_some());
            if let (Some(lesion), Some(site)) = (inside, examined.evidence.site_probabilities.and_then(most_probable)) {
                site_is_right.push(site == lesion.site);
            }
        }
        let examined = examine(net, map, proposed, &case.meta, config);
        let detected = detections(&examined, &case.lesions, TOLERANCE_MM);
        Self { probabilities, is_lesion, site_is_right, detected }
    }
}

/// Figures over all left-out series.
fn scoreboard(examined: &[ExaminedCase]) -> Scoreboard {
    let mut board = Scoreboard::new(examined.len(), TRAINING_SAMPLES);
    let candidates = |metric: fn(&[f64], &[bool]) -> Result<f64, Undefined>| {
        move |sample: &[usize]| {
            let probabilities: Vec<f64> = sample.iter().flat_map(|&i| &examined[i].probabilities).copied().collect();
            let is_lesion: Vec<bool> = sample.iter().flat_map(|&i| &examined[i].is_lesion).copied().collect();
            metric(&probabilities, &is_lesion)
        }
    };
    board.add("candidate_auc", "AUC over candidates", "", candidates(auroc));
    board.add("candidate_average_precision", "average precision over candidates", "", candidates(average_precision));
    board.add("site_accuracy", "site accuracy", "candidates in a lesion", |sample| {
        let right: Vec<bool> = sample.iter().flat_map(|&i| &examined[i].site_is_right).copied().collect();
        if right.is_empty() {
            return Err(Undefined::NoPositives);
        }
        Ok(right.iter().filter(|&&right| right).count() as f64 / right.len() as f64)
    });
    for k in [1, 5] {
        board.add(format!("lesion_recall_at_{k}"), format!("lesion recall at {k}"), "", move |sample| {
            recall_at(&sample.iter().map(|&i| examined[i].detected.clone()).collect::<Vec<_>>(), k)
        });
    }
    let count = |of: fn(&ExaminedCase) -> usize| examined.iter().map(of).sum::<usize>() as f64;
    board.add_constant("candidates", "candidates", count(|a| a.is_lesion.len()));
    let in_a_lesion = count(|a| a.is_lesion.iter().filter(|&&is| is).count());
    board.add_constant("candidates_in_a_lesion", "candidates in a lesion", in_a_lesion);
    board
}

fn most_probable(sites: [f32; SITE_COUNT]) -> Option<Site> {
    let best = (0..SITE_COUNT).max_by(|&a, &b| sites[a].total_cmp(&sites[b]))?;
    Site::from_column(best)
}
