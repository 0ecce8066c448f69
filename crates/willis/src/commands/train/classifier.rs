//! `willis train classifier`: the expert classifier, and how it does on series that it has not seen.

use anyhow::{Context, ensure};
use serde::Serialize;
use willis_core::files::atomic::write_atomically;
use willis_core::{Candidates, SITE_COUNT, Site, TrainingCase, VesselMap};
use willis_imaging::trace::trace;
use willis_nets::examine::{self, Backbone, ExamineCase, ExamineNet, ExamineTraining};
use willis_nets::propose::ProposeNet;
use willis_nets::train::export;
use willis_nets::weights::Weights;
use willis_nets::{Switch, cpu};
use willis_stats::metrics::detection::TOLERANCE_MM;
use willis_stats::metrics::{auroc, average_precision, detections, recall_at};

use super::{MARGIN_MM, MapMaker, PreparedCase, Start, overlaid, show};
use crate::cli::ClassifierArgs;
use crate::commands::progress::Progress;
use crate::config::Config;
use crate::line::candidates;
use crate::weights::{self, CLASSIFIER};

/// Name of the figures in a run's folder.
const SCORES: &str = "scores.json";

/// Trains and prints how the net does.
pub fn run(args: &ClassifierArgs, progress: &Progress) -> anyhow::Result<()> {
    let start = Start::new(&args.train, progress)?;
    let mut recipe = recipe(args, &start.config);
    let mut initial = args.from.as_deref().map(Weights::load).transpose()?;
    if let Some(weights) = &initial {
        weights.check_revision(ExamineNet::REVISION)?;
    }
    if let Some(path) = &args.encoder {
        let decay = args.layer_decay;
        ensure!(decay > 0.0 && decay <= 1.0, "--layer-decay {decay} is not above 0 and at most 1");
        recipe.train.rates = recipe.net.encoder_rates(decay);
        let fits = || format!("{} is no encoder of this classifier; see `willis pretrain --help`", path.display());
        initial = Some(recipe.net.with_encoder(&Weights::load(path)?, recipe.train.seed).with_context(fits)?);
    }
    let (net, sha256) = weights::load_segment(&args.models)?;
    let scorer = weights::load_propose(&args.models)?;
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
    let config = serde_json::to_string(&recipe.net)?;
    let metadata = [("config", config.as_str()), ("revision", ExamineNet::REVISION)];
    export(&fitted.net, &args.train.output.join(CLASSIFIER), &metadata)?;
    let left_out: Vec<_> = start.left_out(args.train.fold).take(start.config.train.validation_cases).collect();
    let bar = progress.bar("scores", left_out.len() as u64);
    let mut tally = Tally::default();
    for prepared in left_out {
        let (case, map, candidates) = proposed(&maker, &scorer, prepared, &start.config)?;
        tally.add(&fitted.net, &case, &map, candidates, &start.config);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let report = tally.report();
    let json = serde_json::to_vec_pretty(&report)?;
    write_atomically(&args.train.output.join(SCORES), |file| file.write_all(&json))?;
    report.print();
    Ok(())
}

/// The configured recipe with the arguments laid over it.
fn recipe(args: &ClassifierArgs, config: &Config) -> ExamineTraining {
    let mut recipe = config.train.classifier.clone();
    recipe.train = overlaid(&recipe.train, &args.train);
    if args.plain {
        recipe.net.backbone = Backbone::Plain;
        (recipe.net.oscillators, recipe.net.film) = (Switch::Off, Switch::Off);
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

/// What the classifier says of the candidates of left-out series.
#[derive(Debug, Default)]
struct Tally {
    cases: usize,
    /// Of each candidate as proposed: probability and whether it lies in a lesion.
    probabilities: Vec<f64>,
    is_lesion: Vec<bool>,
    /// Candidates in a lesion whose most probable site is right, and all of them.
    sites: [usize; 2],
    detected: Vec<willis_stats::metrics::SeriesDetections>,
}

/// How the classifier does on left-out series; `None` where there is nothing to count.
#[derive(Debug, Serialize)]
struct Report {
    cases: usize,
    candidates: usize,
    lesion_candidates: usize,
    candidate_auc: Option<f64>,
    candidate_average_precision: Option<f64>,
    site_accuracy: Option<f64>,
    lesion_recall_at_1: Option<f64>,
    lesion_recall_at_5: Option<f64>,
}

impl Tally {
    fn add(&mut self, net: &ExamineNet, case: &TrainingCase, map: &VesselMap, proposed: Candidates, config: &Config) {
        self.cases += 1;
        // Each candidate alone and where it was proposed, so that every classifier is asked the same questions.
        for candidate in &proposed {
            let inside = case.lesions.iter().find(|lesion| {
                let reach = lesion.diameter_mm.unwrap_or(0.0) / 2.0 + MARGIN_MM;
                lesion.centre.distance_mm(candidate.centre) <= reach
            });
            let answers = examine::examine(net, map, vec![candidate.clone()], &case.meta, &config.examine);
            let Some(answer) = answers.first() else { continue };
            self.probabilities.push(answer.probability);
            self.is_lesion.push(inside.is_some());
            if let (Some(lesion), Some(site)) = (inside, answer.evidence.site_probabilities.and_then(most_probable)) {
                self.sites[0] += usize::from(site == lesion.site);
                self.sites[1] += 1;
            }
        }
        let examined = examine::examine(net, map, proposed, &case.meta, &config.examine);
        self.detected.push(detections(&examined, &case.lesions, TOLERANCE_MM));
    }

    fn report(&self) -> Report {
        let [right, all] = self.sites;
        Report {
            cases: self.cases,
            candidates: self.is_lesion.len(),
            lesion_candidates: self.is_lesion.iter().filter(|&&is| is).count(),
            candidate_auc: auroc(&self.probabilities, &self.is_lesion),
            candidate_average_precision: average_precision(&self.probabilities, &self.is_lesion),
            site_accuracy: (all > 0).then(|| right as f64 / all as f64),
            lesion_recall_at_1: recall_at(&self.detected, 1),
            lesion_recall_at_5: recall_at(&self.detected, 5),
        }
    }
}

fn most_probable(sites: [f32; SITE_COUNT]) -> Option<Site> {
    let best = (0..SITE_COUNT).max_by(|&a, &b| sites[a].total_cmp(&sites[b]))?;
    Site::from_column(best)
}

impl Report {
    fn print(&self) {
        let number = |v: Option<f64>| v.map_or("n/a".into(), |v| format!("{v:.3}"));
        println!(
            "left-out fold, {} series, {} candidates, {} in a lesion: AUC {}, average precision {}, site accuracy {}",
            self.cases,
            self.candidates,
            self.lesion_candidates,
            number(self.candidate_auc),
            number(self.candidate_average_precision),
            number(self.site_accuracy)
        );
        println!("lesion recall {} at 1, {} at 5", number(self.lesion_recall_at_1), number(self.lesion_recall_at_5));
    }
}
