//! `willis train stack`: the boosted trees and logistic regressions over the evidence.

use std::path::Path;

use willis_core::SITE_COUNT;
use willis_core::anatomy::ANEURYSM_PRESENT;
use willis_core::files::atomic::write_atomically;
use willis_nets::examine::examine;
use willis_stats::metrics::detection::TOLERANCE_MM;
use willis_stats::metrics::{COLUMN_COUNT, SeriesDetections, challenge_score, detections, recall_at};
use willis_stats::stack::{StackCase, StackFit, fit};

use super::TrainingCases;
use crate::cases::mapped::{CaseMapper, MappedCase};
use crate::cli::TrainArgs;
use crate::models::{STACK, load_examine, load_propose, load_segment};
use crate::progress::Progress;
use crate::scoreboard::{Scoreboard, TRAINING_SAMPLES};

/// Gathers the evidence of the left-out cases, fits the stack on it and writes its weights.
pub fn run(args: &TrainArgs, models: &Path, progress: &Progress) -> anyhow::Result<()> {
    let set = TrainingCases::new(args, progress)?;
    let (net, sha256) = load_segment(models)?;
    let (propose, classifier) = (load_propose(models)?, load_examine(models)?);
    let mapper = CaseMapper::new(net, &sha256, &set.config);
    let prepared = set.stacking()?;
    let bar = progress.bar("evidence", prepared.len() as u64);
    let (mut cases, mut detected) = (Vec::new(), Vec::new());
    for prepared in prepared {
        let mapped = mapper.load(prepared)?;
        let MappedCase { case, map, .. } = &mapped;
        let proposed = mapped.candidates(&propose, &set.config);
        let candidates = examine(&classifier, map, proposed, &case.meta, &set.config.examine);
        let mut sites = [false; SITE_COUNT];
        case.lesions.iter().for_each(|lesion| sites[lesion.site.column()] = true);
        let hits = detections(&candidates, &case.lesions, TOLERANCE_MM);
        cases.push(StackCase {
            is_aneurysm: hits.candidates.iter().map(|(_, lesion)| lesion.is_some()).collect(),
            patient: prepared.uid.clone(),
            modality: case.meta.modality,
            candidates,
            sites,
            present: !case.lesions.is_empty(),
        });
        detected.push(hits);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let fitted = fit(&cases, &set.config.train.stack)?;
    for (hits, probabilities) in detected.iter_mut().zip(&fitted.out_of_fold_candidates) {
        hits.candidates.iter_mut().zip(probabilities).for_each(|(candidate, &p)| candidate.0 = p);
    }
    let bytes = fitted.model.to_json()?;
    write_atomically(&args.output.join(STACK), |file| file.write_all(&bytes))?;
    out_of_fold(&cases, &fitted, &detected).report(&args.output)
}

/// Figures of the stack on the series it was fitted on, each predicted by the fold that left it
/// out.
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
