//! Fitting the stack: features, folds by patient, boosters, logistic regressions, calibration.

use willis_core::{Candidate, Modality, SITE_COUNT};

use super::features::{
    CANDIDATE_PROBABILITIES, PRESENT_PROBABILITIES, SITE_PROBABILITIES, candidate_columns, candidate_rows,
    present_columns, present_row, site_columns, site_rows, with_logits,
};
use super::model::{StackMember, StackModel, blend, ranked};
use super::{StackCase, StackError, StackFit, StackTraining};
use crate::boosting::{Booster, cross_fit};
use crate::calibration::{CalibrationError, Platt};
use crate::folds::stratified_group_k_fold;
use crate::logistic::{Logistic, sigmoid};
use crate::table::FeatureTable;

/// Fits the stack.
///
/// Folds keep the series of a patient together and are stratified by "aneurysm present". They
/// choose the number of trees and give the out-of-fold scores for calibration. The models of sites
/// and series are fitted on out-of-fold probabilities of the candidates, in the same folds. The
/// final boosters are fitted on all series.
///
/// # Errors
/// `Folds` with fewer than two patients or series of each class, `Calibration` when a class is
/// missing, `Boost`.
///
/// # Panics
/// if a case does not have one label per candidate (programmer error).
pub fn fit(cases: &[StackCase], training: &StackTraining) -> Result<StackFit, StackError> {
    let present: Vec<bool> = cases.iter().map(|case| case.present).collect();
    let sites: Vec<bool> = cases.iter().flat_map(|case| case.sites).collect();
    let patients: Vec<&str> = cases.iter().map(|case| case.patient.as_str()).collect();
    let folds = stratified_group_k_fold(&present, &patients, feasible_folds(&present, &patients, training.folds))?;
    let site_folds: Vec<usize> = folds.iter().flat_map(|fold| [*fold; SITE_COUNT]).collect();

    let candidate_table =
        stack(candidate_columns().len(), cases.iter().map(|c| candidate_rows(&c.candidates, c.modality)));
    let is_aneurysm: Vec<bool> = cases.iter().flat_map(|case| case.is_aneurysm.iter().copied()).collect();
    let counts = cases.iter().map(|case| case.candidates.len());
    let candidate_folds: Vec<usize> =
        folds.iter().zip(counts.clone()).flat_map(|(fold, n)| std::iter::repeat_n(*fold, n)).collect();
    let task = Task {
        target: "candidates",
        table: &candidate_table,
        labels: &is_aneurysm,
        folds: &candidate_folds,
        n_probabilities: CANDIDATE_PROBABILITIES,
    };
    let candidate = task.fit(training)?;
    let mut rest = candidate.out_of_fold.as_slice();
    let out_of_fold_candidates: Vec<Vec<f64>> =
        counts.map(|n| rest.split_off(..n).expect("one probability per candidate").to_vec()).collect();
    let candidates: Vec<_> = cases
        .iter()
        .zip(&out_of_fold_candidates)
        .map(|(case, probabilities)| ranked(case.candidates.clone(), probabilities))
        .collect();

    let rows = |of: fn(&[Candidate], Option<Modality>) -> FeatureTable, columns: usize| {
        stack(columns, candidates.iter().zip(cases).map(|(candidates, case)| of(candidates, case.modality)))
    };
    let site_table = rows(site_rows, site_columns().len());
    let present_table = rows(present_row, present_columns().len());
    let task = Task {
        target: "sites",
        table: &site_table,
        labels: &sites,
        folds: &site_folds,
        n_probabilities: SITE_PROBABILITIES,
    };
    let site = task.fit(training)?;
    let task = Task {
        target: "aneurysm present",
        table: &present_table,
        labels: &present,
        folds: &folds,
        n_probabilities: PRESENT_PROBABILITIES,
    };
    let any = task.fit(training)?;

    let fourteen = |sites: &[f64], present: &[f64]| -> Vec<[f64; SITE_COUNT + 1]> {
        let row = |(sites, present): (&[f64], &f64)| std::array::from_fn(|c| *sites.get(c).unwrap_or(present));
        sites.chunks_exact(SITE_COUNT).zip(present).map(row).collect()
    };
    Ok(StackFit {
        model: StackModel { candidate: candidate.member, site: site.member, present: any.member },
        out_of_fold_candidates,
        out_of_fold: fourteen(&site.out_of_fold, &any.out_of_fold),
        out_of_fold_boosted: fourteen(&site.out_of_fold_boosted, &any.out_of_fold_boosted),
        out_of_fold_logistic: fourteen(&site.out_of_fold_logistic, &any.out_of_fold_logistic),
    })
}

/// Training rows of one model.
struct Task<'a> {
    target: &'static str,
    table: &'a FeatureTable,
    labels: &'a [bool],
    folds: &'a [usize],
    n_probabilities: usize,
}

/// A fitted model with its out-of-fold probabilities.
struct MemberFit {
    member: StackMember,
    out_of_fold: Vec<f64>,
    out_of_fold_boosted: Vec<f64>,
    out_of_fold_logistic: Vec<f64>,
}

impl Task<'_> {
    fn fit(&self, training: &StackTraining) -> Result<MemberFit, StackError> {
        let increasing: Vec<usize> = (0..self.n_probabilities).collect();
        let failed = |source| StackError::Calibration { target: self.target, source };
        let positives = self.labels.iter().filter(|y| **y).count();
        let negatives = self.labels.len() - positives;
        if positives == 0 || negatives == 0 {
            return Err(failed(CalibrationError::OneClass { positives, negatives }));
        }
        let cross = cross_fit(self.table, self.labels, self.folds, &increasing, &training.boosting)?;
        let linear = with_logits(self.table, self.n_probabilities);
        let log_odds = self.linear_out_of_fold(&linear, training.logistic_c);
        let blended: Vec<f64> =
            cross.margins.iter().zip(&log_odds).map(|(b, l)| blend(*b, *l, training.linear_share)).collect();
        let calibration = Platt::fit(&blended, self.labels).map_err(failed)?;
        let boosted = Platt::fit(&cross.margins, self.labels).map_err(failed)?;
        let member = StackMember {
            booster: Booster::fit(self.table, self.labels, &increasing, cross.rounds, &training.boosting)?,
            calibration,
            logistic: Logistic::fit(&linear, self.labels, training.logistic_c),
            linear_share: training.linear_share,
            n_probabilities: self.n_probabilities,
            prevalence: positives as f64 / self.labels.len() as f64,
        };
        Ok(MemberFit {
            member,
            out_of_fold: blended.iter().map(|margin| calibration.apply(*margin)).collect(),
            out_of_fold_boosted: cross.margins.iter().map(|margin| boosted.apply(*margin)).collect(),
            out_of_fold_logistic: log_odds.into_iter().map(sigmoid).collect(),
        })
    }

    /// Out-of-fold log odds of the logistic regression.
    fn linear_out_of_fold(&self, table: &FeatureTable, c: f64) -> Vec<f64> {
        let mut log_odds = vec![0.0; table.n_rows()];
        let n_folds = self.folds.iter().max().map_or(0, |last| last + 1);
        for fold in 0..n_folds {
            let (test, train): (Vec<usize>, Vec<usize>) = (0..table.n_rows()).partition(|row| self.folds[*row] == fold);
            let labels: Vec<bool> = train.iter().map(|row| self.labels[*row]).collect();
            let model = Logistic::fit(&table.select(&train), &labels, c);
            for (row, value) in test.iter().zip(model.log_odds(&table.select(&test))) {
                log_odds[*row] = value;
            }
        }
        log_odds
    }
}

/// The wanted number of folds, reduced to the size of the rarer class and the number of patients,
/// but at least two, so that the split fails when even two are impossible.
fn feasible_folds(present: &[bool], patients: &[&str], wanted: usize) -> usize {
    let positives = present.iter().filter(|y| **y).count();
    let distinct = patients.iter().collect::<std::collections::BTreeSet<_>>().len();
    wanted.min(positives).min(present.len() - positives).min(distinct).max(2)
}

fn stack(n_columns: usize, tables: impl Iterator<Item = FeatureTable>) -> FeatureTable {
    FeatureTable::new(n_columns, tables.flat_map(|table| table.values().to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{auroc, challenge_score, expected_calibration_error};
    use crate::stack::{probabilities, rank};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use willis_core::{Evidence, Point, Site};

    /// Series with four candidates each; a candidate in a lesion has higher evidence.
    fn cases(n: usize) -> Vec<StackCase> {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut uniform = move || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut case = |i: usize| {
            let lesion = i.is_multiple_of(2).then(|| Site::ALL[(i / 2) % SITE_COUNT]);
            let candidates = (0..4)
                .map(|k| {
                    let site = if k == 0 { lesion } else { None };
                    let real = site.is_some();
                    let site = site.unwrap_or_else(|| Site::ALL[(uniform() * 13.0) as usize]);
                    let probability = (uniform() * 0.6 + if real { 0.4 } else { 0.0 }).min(1.0);
                    let evidence = Evidence {
                        order_inside: (uniform() < 0.8).then(|| if real { 0.9 } else { 0.3 } * uniform() as f32),
                        ..Evidence::default()
                    };
                    let centre = Point::new(0.0, 0.0, 0.0);
                    Candidate {
                        rank: k + 1,
                        centre,
                        diameter_mm: 3.0,
                        probability,
                        site: Some(site),
                        distance_to_vessel_mm: Some(0.0),
                        evidence,
                    }
                })
                .collect();
            StackCase {
                patient: format!("patient {}", i / 2 * 2 % 260),
                modality: Some(Modality::ALL[i % 4]).filter(|_| !i.is_multiple_of(5)),
                candidates,
                is_aneurysm: (0..4).map(|k| k == 0 && lesion.is_some()).collect(),
                sites: Site::ALL.map(|s| Some(s) == lesion),
                present: lesion.is_some(),
            }
        };
        (0..n).map(&mut case).collect()
    }

    fn quick() -> StackTraining {
        let mut config = StackTraining { folds: 4, ..StackTraining::default() };
        config.boosting.max_rounds = 60;
        config
    }

    #[test]
    fn the_stack_learns_is_calibrated_and_survives_json() {
        let cases = cases(260);
        let fitted = fit(&cases, &quick()).unwrap();
        let labels: Vec<[bool; SITE_COUNT + 1]> =
            cases.iter().map(|case| std::array::from_fn(|c| *case.sites.get(c).unwrap_or(&case.present))).collect();
        for rows in [&fitted.out_of_fold, &fitted.out_of_fold_boosted, &fitted.out_of_fold_logistic] {
            let score = challenge_score(rows, &labels).score.unwrap();
            assert!(score > 0.8, "{score}");
        }
        let present: Vec<bool> = cases.iter().map(|c| c.present).collect();
        let p: Vec<f64> = fitted.out_of_fold.iter().map(|row| row[SITE_COUNT]).collect();
        assert!(expected_calibration_error(&p, &present, 5).unwrap() < 0.1);
        assert!((fitted.model.prevalence() - 0.5).abs() < 1e-12);

        let json = fitted.model.to_json().unwrap();
        let loaded = StackModel::from_json(&json).unwrap();
        for case in &cases[..10] {
            let candidates = rank(&fitted.model, case.candidates.clone(), case.modality).unwrap();
            assert!(candidates.is_sorted_by(|a, b| a.probability >= b.probability && a.rank < b.rank));
            let (sites, present) = probabilities(&fitted.model, &candidates, case.modality).unwrap();
            assert_eq!(probabilities(&loaded, &candidates, case.modality).unwrap(), (sites, present));
            assert!(sites.iter().chain([&present]).all(|p| (0.0..=1.0).contains(p)));
            let rare = loaded.at_prevalence((sites, present), 0.05);
            assert!(rare.1 < present);
        }
        assert_eq!(fit(&cases, &quick()).unwrap().model.to_json().unwrap(), json, "same data, same bytes");
        let in_sample = |c: &StackCase| {
            probabilities(&loaded, &rank(&loaded, c.candidates.clone(), c.modality).unwrap(), c.modality).unwrap().1
        };
        let fitted_on: Vec<f64> = cases.iter().map(in_sample).collect();
        let candidates: Vec<f64> = fitted.out_of_fold_candidates.concat();
        let is_aneurysm: Vec<bool> = cases.iter().flat_map(|c| c.is_aneurysm.clone()).collect();
        assert!(auroc(&candidates, &is_aneurysm).unwrap() > 0.8);
        assert!(auroc(&fitted_on, &present).unwrap() >= auroc(&p, &present).unwrap());
        assert!(probabilities(&loaded, &[], None).unwrap().1 < 0.5, "no candidates");
    }

    #[test]
    fn other_models_are_refused() {
        let json = fit(&cases(60), &quick()).unwrap().model.to_json().unwrap();
        let text = String::from_utf8(json).unwrap();
        for (find, put) in [("\"schema\":3", "\"schema\":9"), ("best_here", "beast_here")] {
            let other = text.replacen(find, put, 1);
            assert!(matches!(StackModel::from_json(other.as_bytes()), Err(StackError::Incompatible { .. })), "{put}");
        }
        assert!(matches!(StackModel::from_json(b"[]"), Err(StackError::Json(_))));
    }

    #[test]
    fn one_class_or_one_patient_cannot_be_fitted() {
        let mut healthy = cases(20);
        for case in &mut healthy {
            (case.present, case.sites) = (false, [false; SITE_COUNT]);
            case.is_aneurysm.fill(false);
        }
        assert!(matches!(fit(&healthy, &quick()), Err(StackError::Calibration { target: "candidates", .. })));
        let mut one = cases(20);
        one.iter_mut().for_each(|c| c.patient = "the same".into());
        assert!(matches!(fit(&one, &quick()), Err(StackError::Folds(_))));
        assert!(matches!(fit(&[], &quick()), Err(StackError::Folds(_))));
    }
}
