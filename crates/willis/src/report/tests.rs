use std::sync::Arc;

use willis_core::{
    Affine, Evidence, Grid, HarmonisedVolume, Image, Point, Prediction, SeriesMeta, SeriesSummary, Shape, Spacing,
    VesselGraph, VesselMap, Volume,
};

use super::*;
use crate::config::Config;

fn candidate() -> Candidate {
    Candidate {
        rank: 1,
        centre: Point::new(2.0, 2.0, 2.0),
        diameter_mm: 3.1,
        probability: 0.25,
        site: Some(Site::RightSupraclinoidIca),
        distance_to_vessel_mm: Some(10.8),
        evidence: Evidence { aneurysm_peak: Some(0.5), ..Evidence::default() },
    }
}

/// A report without its style sheet and pictures.
fn report(abstain: Option<&str>, findings: Vec<Finding>) -> String {
    let affine = Affine::axis_aligned(Spacing::isotropic(1.0), Point::new(0.0, 0.0, 0.0));
    let grid = Grid::new(Shape::new(5, 5, 5), affine);
    let image = Image::filled(grid, 0.0f32);
    let meta = SeriesMeta::default();
    let volume = Arc::new(Volume { image: image.clone(), meta: meta.clone(), findings: Vec::new() });
    let source = Arc::new(HarmonisedVolume { image: image.clone(), meta, source: volume, findings: Vec::new() });
    let map = VesselMap { vessel: image.clone(), aneurysm: image, site: Image::filled(grid, 0u8), source };
    let prediction = Prediction {
        schema: Prediction::SCHEMA,
        series: SeriesSummary { uid: "1.2".into(), modality: None, shape_zyx: [5; 3], spacing_zyx_mm: [1.0; 3] },
        probabilities: Prediction::probability_map([0.5; 13], 0.9),
        abstain: abstain.map(String::from),
        findings,
        models: Vec::new(),
    };
    let run = RunRecord::new(&Config::default(), &[], Vec::new(), &prediction.findings);
    let graph = VesselGraph { nodes: Vec::new(), edges: Vec::new() };
    let html = html(&SeriesResult { map, graph, candidates: vec![candidate()], prediction }, &run);
    let (_, body) = html.split_once("</style>").unwrap();
    body.to_string()
}

#[test]
fn an_abstaining_report_gives_the_reason_and_no_probability() {
    let silent = report(Some("is this a head?"), Vec::new());
    assert!(silent.contains("is this a head?"), "{silent}");
    assert!(!silent.contains('%') && !silent.contains("probability that"), "{silent}");
    assert!(!silent.contains("class='mark'"), "{silent}");
    let (before, after) = silent.split_once("<details class=\"folded\">").unwrap();
    assert!(!before.contains("Right Supraclinoid") && after.contains("Right Supraclinoid"), "{silent}");

    let spoken = report(None, Vec::new());
    assert!(spoken.contains("90.0 %") && spoken.contains("25.0 %") && spoken.contains("class='mark'"), "{spoken}");
    assert!(!spoken.contains("abstains"), "{spoken}");
}

#[test]
fn guesses_about_modality_and_geometry_come_first() {
    let warning = |code: &str| Finding::warning(code, format!("about {code}"));
    let mut findings: Vec<_> = (0..6).map(|i| warning(&format!("repaired-{i}"))).collect();
    findings.extend([warning("abstain"), warning("modality-guessed"), warning("orientation-guessed")]);
    findings.push(Finding::info("oblique", "about oblique"));
    let html = report(Some("no"), findings);
    let (guesses, rest) = html.split_once("section class=\"headline\"").unwrap();
    let order = ["about modality-guessed", "about orientation-guessed", "about repaired-0", "about repaired-2"];
    let places = order.map(|text| guesses.find(text).unwrap());
    assert!(places.is_sorted(), "{guesses}");
    assert!(guesses.contains("3 more") && !guesses.contains("repaired-3"), "{guesses}");
    assert!(!guesses.contains("about abstain") && !guesses.contains("oblique"), "{guesses}");
    assert!(rest.contains("about repaired-5") && rest.contains("about oblique"), "{rest}");
    assert!(!report(None, vec![Finding::info("oblique", "turned")]).contains("Guessed"));
}

/// Ten columns in one table were wider than the page.
#[test]
fn the_candidate_table_is_narrow_and_the_evidence_folds_out() {
    let html = candidate_table(&[candidate()], Probabilities::Shown).into_string();
    let (table, evidence) = html.split_once("<details>").unwrap();
    assert_eq!(table.matches("<th>").count(), 6, "{table}");
    assert!(table.contains("25.0 %") && !table.contains("0.50"), "{table}");
    assert!(evidence.contains("<td>0.50</td>") && evidence.contains("<td>n/a</td>"), "{evidence}");
}
