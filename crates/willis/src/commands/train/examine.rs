//! `willis train examine`: the expert classifier, and how it does on series that it has not
//! seen.

use anyhow::Context;
use willis_core::{Candidates, SITE_COUNT, Site, Switch, TrainingCase, VesselMap};
use willis_imaging::trace::trace;
use willis_nets::examine::{
    self, ExamineCase, ExamineNet, ExamineNetConfig, ExamineTraining, OscillatorsChoice, PatchEncoderConfig,
    PlainEncoderConfig,
};
use willis_nets::ops::cpu;
use willis_nets::propose::ProposeNet;
use willis_nets::weights::{Precision, Weights};
use willis_stats::figure::Undefined;
use willis_stats::metrics::detection::TOLERANCE_MM;
use willis_stats::metrics::{SeriesDetections, auroc, average_precision, detections, recall_at};

use super::{MARGIN_MM, MapMaker, PreparedCase, Start, checked_decay, overlaid, show};
use crate::cli::TrainExamineArgs;
use crate::config::Config;
use crate::line::candidates;
use crate::models::{self, EXAMINE};
use crate::progress::Progress;
use crate::scoreboard::{Scoreboard, TRAINING_SAMPLES};

/// Trains and prints how the net does.
pub fn run(args: &TrainExamineArgs, progress: &Progress) -> anyhow::Result<()> {
    let start = Start::new(&args.train, progress)?;
    let mut recipe = recipe(args, &start.config);
    let mut initial = args.from.as_deref().map(Weights::load).transpose()?;
    if let Some(weights) = &initial {
        weights.check_revision(ExamineNet::REVISION)?;
    }
    if let Some(path) = &args.encoder {
        recipe.train.rates = recipe.net.encoder_rates(checked_decay(args.layer_decay)?);
        let fits = || format!("{} is no encoder of this classifier; see `willis pretrain --help`", path.display());
        initial = Some(recipe.net.with_encoder(&Weights::load(path)?, recipe.train.seed).with_context(fits)?);
    }
    let (net, sha256) = models::load_segment(&args.models)?;
    let scorer = models::load_propose(&args.models)?;
    let maker = MapMaker { net: &net, sha256: &sha256, config: &start.config.segment };
    let bar = progress.bar("propose", start.kept(&args.train).count() as u64);
    let mut cases: Vec<ExamineCase> = Vec::new();
    for prepared in start.kept(&args.train) {
        let (case, map, candidates) = proposed(&maker, &scorer, prepared, &start.config)?;
        cases.push(ExamineCase::new(&map, &candidates, &case.lesions, &case.meta));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let bar = progress.bar("classifier", recipe.train.steps as u64);
    let fitted = examine::fit(&cases, &recipe, initial, &args.train.output, &cpu(), show(&bar))?;
    bar.finish_and_clear();
    println!("{} of {} steps on {} series", fitted.step, recipe.train.steps, cases.len());
    if !fitted.finished {
        return Ok(());
    }
    let weights = Weights::of(&fitted.net).described(&recipe.net, ExamineNet::REVISION);
    weights.save(&args.train.output.join(EXAMINE), Precision::F16)?;
    let left_out: Vec<_> =
        start.left_out(args.train.folds.left_out()).take(start.config.train.validation_cases).collect();
    let bar = progress.bar("scores", left_out.len() as u64);
    let mut answers = Vec::new();
    for prepared in left_out {
        let (case, map, candidates) = proposed(&maker, &scorer, prepared, &start.config)?;
        answers.push(Answers::of(&fitted.net, &case, &map, candidates, &start.config));
        bar.inc(1);
    }
    bar.finish_and_clear();
    scoreboard(&answers).report(&args.train.output)
}

/// The configured recipe with the arguments laid over it.
fn recipe(args: &TrainExamineArgs, config: &Config) -> ExamineTraining {
    let mut recipe = config.train.examine.clone();
    recipe.train = overlaid(&recipe.train, &args.train);
    if args.plain {
        let encoder = PatchEncoderConfig::Plain(PlainEncoderConfig { embed_dim: recipe.net.encoder.embed_dim() });
        recipe.net = ExamineNetConfig { encoder, oscillators: OscillatorsChoice::Off, film: Switch::Off };
    }
    recipe
}

fn proposed(
    maker: &MapMaker<'_>,
    scorer: &ProposeNet,
    prepared: &PreparedCase,
    config: &Config,
) -> anyhow::Result<(TrainingCase, VesselMap, Candidates)> {
    let (case, map) = maker.map(prepared)?;
    let candidates = candidates(scorer, &map, &trace(&map, &config.trace), config);
    Ok((case, map, candidates))
}

/// What the classifier says of the candidates of a left-out series.
struct Answers {
    /// Of each candidate as proposed: probability and whether it lies in a lesion.
    probabilities: Vec<f64>,
    is_lesion: Vec<bool>,
    /// Whether the most probable site is right, of the candidates in a lesion.
    site_is_right: Vec<bool>,
    detected: SeriesDetections,
}

impl Answers {
    fn of(net: &ExamineNet, case: &TrainingCase, map: &VesselMap, proposed: Candidates, config: &Config) -> Self {
        let (mut probabilities, mut is_lesion, mut site_is_right) = (Vec::new(), Vec::new(), Vec::new());
        // Each candidate alone and where it was proposed, so that every classifier is asked the
        // same questions.
        for candidate in &proposed {
            let inside = case.lesions.iter().find(|lesion| {
                let reach = lesion.diameter_mm.unwrap_or(0.0) / 2.0 + MARGIN_MM;
                lesion.centre.distance_mm(candidate.centre) <= reach
            });
            let answers = examine::examine(net, map, vec![candidate.clone()], &case.meta, &config.examine);
            let Some(answer) = answers.first() else { continue };
            probabilities.push(answer.probability);
            is_lesion.push(inside.is_some());
            if let (Some(lesion), Some(site)) = (inside, answer.evidence.site_probabilities.and_then(most_probable)) {
                site_is_right.push(site == lesion.site);
            }
        }
        let examined = examine::examine(net, map, proposed, &case.meta, &config.examine);
        Self { probabilities, is_lesion, site_is_right, detected: detections(&examined, &case.lesions, TOLERANCE_MM) }
    }
}

/// Figures over all left-out series.
fn scoreboard(answers: &[Answers]) -> Scoreboard {
    let mut board = Scoreboard::new(answers.len(), TRAINING_SAMPLES);
    let candidates = |metric: fn(&[f64], &[bool]) -> Result<f64, Undefined>| {
        move |sample: &[usize]| {
            let probabilities: Vec<f64> = sample.iter().flat_map(|&i| &answers[i].probabilities).copied().collect();
            let is_lesion: Vec<bool> = sample.iter().flat_map(|&i| &answers[i].is_lesion).copied().collect();
            metric(&probabilities, &is_lesion)
        }
    };
    board.add("candidate_auc", "AUC over candidates", "", candidates(auroc));
    board.add("candidate_average_precision", "average precision over candidates", "", candidates(average_precision));
    board.add("site_accuracy", "site accuracy", "candidates in a lesion", |sample| {
        let right: Vec<bool> = sample.iter().flat_map(|&i| &answers[i].site_is_right).copied().collect();
        if right.is_empty() {
            return Err(Undefined::NoPositives);
        }
        Ok(right.iter().filter(|&&right| right).count() as f64 / right.len() as f64)
    });
    for k in [1, 5] {
        board.add(format!("lesion_recall_at_{k}"), format!("lesion recall at {k}"), "", move |sample| {
            recall_at(&sample.iter().map(|&i| answers[i].detected.clone()).collect::<Vec<_>>(), k)
        });
    }
    let count = |of: fn(&Answers) -> usize| answers.iter().map(of).sum::<usize>() as f64;
    board.add_constant("candidates", "candidates", count(|a| a.is_lesion.len()));
    let in_a_lesion = count(|a| a.is_lesion.iter().filter(|&&is| is).count());
    board.add_constant("candidates_in_a_lesion", "candidates in a lesion", in_a_lesion);
    board
}

fn most_probable(sites: [f32; SITE_COUNT]) -> Option<Site> {
    let best = (0..SITE_COUNT).max_by(|&a, &b| sites[a].total_cmp(&sites[b]))?;
    Site::from_column(best)
}
