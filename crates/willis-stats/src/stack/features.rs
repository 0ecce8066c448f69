//! Rows of features: one per candidate, one per site, and one per series for "aneurysm present".
//!
//! A value that was not measured is missing (NaN), never 0. The probability of a candidate that
//! does not exist is 0: it is known, not missing.

use willis_core::{Candidate, Modality, SITE_COUNT, Site};

use crate::logistic::{logit, sigmoid};
use crate::table::FeatureTable;

/// Columns of a candidate's evidence, in this order in every row.
const EVIDENCE: [&str; 13] = [
    "aneurysm_peak",
    "aneurysm_volume_mm3",
    "graph_score",
    "blob_score",
    "radius_excess",
    "class_logit",
    "order_inside",
    "order_contrast",
    "energy",
    "physics_residual",
    "distance_to_junction_mm",
    "distance_to_vessel_mm",
    "diameter_mm",
];

/// Number of candidates whose probabilities have columns of their own in the "present" row.
const TOP: usize = 3;

/// Types of artery. A site and its mirror image are of one type.
const ARTERIES: [(&str, Site); 8] = [
    ("kind_infraclinoid_ica", Site::LeftInfraclinoidIca),
    ("kind_supraclinoid_ica", Site::LeftSupraclinoidIca),
    ("kind_mca", Site::LeftMca),
    ("kind_acom", Site::Acom),
    ("kind_aca", Site::LeftAca),
    ("kind_pcom", Site::LeftPcom),
    ("kind_basilar_tip", Site::BasilarTip),
    ("kind_other_posterior", Site::OtherPosterior),
];

/// Number of leading columns of a site row that are probabilities. Predictions never decrease with
/// them.
pub(super) const SITE_PROBABILITIES: usize = 4;
/// Number of leading columns of a "present" row that are probabilities.
pub(super) const PRESENT_PROBABILITIES: usize = 1 + TOP;

/// Number of leading columns of a candidate row that are probabilities.
pub(super) const CANDIDATE_PROBABILITIES: usize = 3;

/// Column names of a candidate row.
pub fn candidate_columns() -> Vec<String> {
    let own = ["class_probability", "aneurysm_probability", "graph_probability", "class_lead", "aneurysm_lead"];
    let own = own.into_iter().chain(["vessel_probability"]).map(String::from);
    let kinds = ARTERIES.map(|(name, _)| name.to_string());
    own.chain(EVIDENCE.map(String::from)).chain(kinds).chain(modality_columns()).collect()
}

/// One row per candidate: its probabilities from the classifier, the aneurysm map and the graph
/// net; the lead of its class logit and of its aneurysm peak over the best of the other candidates;
/// its evidence; its type of artery; the modality.
pub fn candidate_rows(candidates: &[Candidate], modality: Option<Modality>) -> FeatureTable {
    let class_logit = |c: &Candidate| c.evidence.class_logit;
    let aneurysm_peak = |c: &Candidate| c.evidence.aneurysm_peak;
    let row = |(i, candidate): (usize, &Candidate)| {
        let e = &candidate.evidence;
        let lead = |value: &dyn Fn(&Candidate) -> Option<f32>| {
            let others = candidates.iter().enumerate().filter(|&(j, _)| j != i).filter_map(|(_, c)| value(c));
            Some(value(candidate)? - others.reduce(f32::max)?)
        };
        let class_probability = e.class_logit.map(|logit| sigmoid(f64::from(logit)) as f32);
        let own = [class_probability, e.aneurysm_peak, e.graph_score, lead(&class_logit), lead(&aneurysm_peak)];
        let own = own.into_iter().chain([e.vessel_probability]).map(|value| value.unwrap_or(f32::NAN));
        let kinds = ARTERIES.map(|(_, kind)| {
            candidate.site.map_or(f32::NAN, |site| f32::from(u8::from(kind == site || kind.mirror() == site)))
        });
        let row = own.chain(self::evidence(Some(candidate))).chain(kinds).chain(modality_flags(modality));
        row.collect::<Vec<f32>>()
    };
    FeatureTable::new(candidate_columns().len(), candidates.iter().enumerate().flat_map(row).collect())
}

/// Column names of a site row.
pub fn site_columns() -> Vec<String> {
    let own = ["any_here", "best_here", "second_here", "any_anywhere"].map(String::from);
    let kinds = ARTERIES.map(|(name, _)| name.to_string());
    own.into_iter().chain(EVIDENCE.map(String::from)).chain(kinds).chain(modality_columns()).collect()
}

/// Column names of the "present" row.
pub fn present_columns() -> Vec<String> {
    let probabilities = (1..=TOP).map(|rank| format!("probability_{rank}"));
    ["any_anywhere".to_string()]
        .into_iter()
        .chain(probabilities)
        .chain(EVIDENCE.map(String::from))
        .chain(modality_columns())
        .collect()
}

/// Thirteen rows, one per site in column order.
///
/// With `p_c` the candidate's probability and `q_c` its probability of belonging to the site, the
/// columns are: the probability that any candidate is an aneurysm here, `1 − Π (1 − p_c q_c)`; the
/// highest and second highest `p_c q_c`; the probability of any aneurysm anywhere; the evidence of
/// the candidate with the highest `p_c q_c`; the type of artery; the modality.
pub fn site_rows(candidates: &[Candidate], modality: Option<Modality>) -> FeatureTable {
    let anywhere = any(candidates.iter().map(probability));
    let row = |site: Site| {
        let here = |c: &Candidate| probability(c) * site_probability(c, site);
        let mut order: Vec<&Candidate> = candidates.iter().collect();
        order.sort_by(|a, b| here(b).total_cmp(&here(a)));
        let product = |rank: usize| order.get(rank).map_or(0.0, |c| here(c));
        let own = [any(candidates.iter().map(here)), product(0), product(1), anywhere].map(|p| p as f32);
        let best = order.first().copied().filter(|c| here(c) > 0.0);
        let kinds = ARTERIES.map(|(_, kind)| f32::from(u8::from(kind == site || kind.mirror() == site)));
        own.into_iter().chain(evidence(best)).chain(kinds).chain(modality_flags(modality)).collect::<Vec<f32>>()
    };
    FeatureTable::new(site_columns().len(), Site::ALL.into_iter().flat_map(row).collect())
}

/// One row: the probability of any aneurysm, the probabilities of the three most probable
/// candidates, the evidence of the most probable one, the modality.
///
/// The evidence of the other candidates enters through their probabilities only, because there are
/// too few series to fit more columns.
pub fn present_row(candidates: &[Candidate], modality: Option<Modality>) -> FeatureTable {
    let mut order: Vec<&Candidate> = candidates.iter().collect();
    order.sort_by(|a, b| probability(b).total_cmp(&probability(a)));
    let top = |rank: usize| order.get(rank).copied();
    let any = any(candidates.iter().map(probability)) as f32;
    let probabilities = (0..TOP).map(|rank| top(rank).map_or(0.0, probability) as f32);
    let row = [any].into_iter().chain(probabilities).chain(evidence(top(0))).chain(modality_flags(modality)).collect();
    FeatureTable::new(present_columns().len(), row)
}

/// Probability that a candidate belongs to a site: the mean of the classifier's site probability
/// and of the site from the vessel map (0 or 1), or the one that is known, or 1/13.
fn site_probability(candidate: &Candidate, site: Site) -> f64 {
    match (&candidate.evidence.site_probabilities, candidate.site) {
        (Some(shares), Some(named)) => {
            0.5 * unit(f64::from(shares[site.column()])) + 0.5 * f64::from(u8::from(named == site))
        }
        (Some(shares), None) => unit(f64::from(shares[site.column()])),
        (None, Some(named)) => f64::from(u8::from(named == site)),
        (None, None) => 1.0 / SITE_COUNT as f64,
    }
}

/// The rows with their leading probabilities as log odds, for a linear model.
pub(super) fn with_logits(table: &FeatureTable, n_probabilities: usize) -> FeatureTable {
    let value = |(column, v): (usize, &f32)| if column < n_probabilities { logit(f64::from(*v)) as f32 } else { *v };
    FeatureTable::new(table.n_columns(), table.rows().flat_map(|row| row.iter().enumerate().map(value)).collect())
}

fn probability(candidate: &Candidate) -> f64 {
    unit(candidate.probability)
}

/// A probability clamped to [0, 1]; 0 for NaN.
fn unit(p: f64) -> f64 {
    if p.is_nan() { 0.0 } else { p.clamp(0.0, 1.0) }
}

/// Probability that at least one of several independent events happens.
fn any(probabilities: impl Iterator<Item = f64>) -> f64 {
    1.0 - probabilities.map(|p| 1.0 - p).product::<f64>()
}

fn evidence(candidate: Option<&Candidate>) -> [f32; EVIDENCE.len()] {
    let Some(candidate) = candidate else { return [f32::NAN; EVIDENCE.len()] };
    let e = &candidate.evidence;
    let contrast = e.order_inside.zip(e.order_shell).map(|(inside, shell)| inside - shell);
    [
        e.aneurysm_peak,
        e.aneurysm_volume_mm3,
        e.graph_score,
        e.blob_score,
        e.radius_excess,
        e.class_logit,
        e.order_inside,
        contrast,
        e.energy,
        e.physics_residual,
        e.distance_to_junction_mm,
        candidate.distance_to_vessel_mm.map(|mm| mm as f32),
        Some(candidate.diameter_mm as f32),
    ]
    .map(|value| value.unwrap_or(f32::NAN))
}

fn modality_columns() -> [String; 4] {
    Modality::ALL.map(|m| format!("modality_{}", m.name().to_ascii_lowercase().replace(' ', "_")))
}

fn modality_flags(modality: Option<Modality>) -> [f32; 4] {
    Modality::ALL.map(|m| modality.map_or(f32::NAN, |known| f32::from(u8::from(known == m))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use willis_core::{Evidence, Point};

    fn candidate(probability: f64, site: Option<Site>, evidence: Evidence) -> Candidate {
        let centre = Point::new(0.0, 0.0, 0.0);
        Candidate { rank: 1, centre, diameter_mm: 4.0, probability, site, distance_to_vessel_mm: None, evidence }
    }

    fn cell(table: &FeatureTable, row: usize, columns: &[String], name: &str) -> f32 {
        table.rows().nth(row).unwrap()[columns.iter().position(|c| c == name).unwrap()]
    }

    #[test]
    fn hand_worked_rows() {
        let mut shares = [0.0; SITE_COUNT];
        shares[Site::Acom.column()] = 0.5;
        shares[Site::LeftAca.column()] = 0.5;
        let measured = Evidence {
            site_probabilities: Some(shares),
            order_inside: Some(0.75),
            order_shell: Some(0.5),
            ..Evidence::default()
        };
        let candidates = [candidate(0.5, Some(Site::Acom), Evidence::default()), candidate(0.8, None, measured)];
        let (rows, columns) = (site_rows(&candidates, Some(Modality::Mra)), site_columns());
        let acom = |name| cell(&rows, Site::Acom.column(), &columns, name);
        // Products 0.5 · 1 and 0.8 · 0.5, so the probability of any is 1 − 0.5 · 0.6.
        assert_eq!([acom("any_here"), acom("best_here"), acom("second_here")], [0.7, 0.5, 0.4]);
        assert_eq!((acom("any_anywhere"), acom("kind_acom"), acom("kind_aca")), (0.9, 1.0, 0.0));
        assert!(acom("order_inside").is_nan(), "the best candidate here is the first, which has no evidence");
        let aca = |name| cell(&rows, Site::LeftAca.column(), &columns, name);
        assert_eq!((aca("best_here"), aca("second_here"), aca("order_contrast")), (0.4, 0.0, 0.25));
        assert!(aca("energy").is_nan());
        let mca = |name| cell(&rows, Site::RightMca.column(), &columns, name);
        assert_eq!((mca("any_here"), mca("kind_mca"), mca("modality_mra"), mca("modality_cta")), (0.0, 1.0, 1.0, 0.0));
        assert!(mca("diameter_mm").is_nan(), "no candidate belongs here");

        let (row, columns) = (present_row(&candidates, None), present_columns());
        let present = |name| cell(&row, 0, &columns, name);
        assert_eq!((present("probability_1"), present("order_inside"), present("probability_3")), (0.8, 0.75, 0.0));
        assert!(present("energy").is_nan() && present("modality_mri_t2").is_nan());
    }

    #[test]
    fn rows_are_complete_without_candidates() {
        let rows = site_rows(&[], None);
        assert_eq!((rows.n_rows(), rows.values()[0]), (SITE_COUNT, 0.0));
        assert_eq!(present_row(&[], None).n_rows(), 1);
        let broken = candidate(f64::NAN, None, Evidence { energy: Some(f32::INFINITY), ..Evidence::default() });
        assert!(site_rows(&[broken], None).values().iter().all(|v| v.is_nan() || v.is_finite()));
    }
}
