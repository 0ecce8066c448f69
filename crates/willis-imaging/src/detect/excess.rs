//! Candidates without any net: places where the vessel is wider than its surroundings.
//!
//! The simplest aneurysm signal on a centreline, and the baseline that learned scorers must beat.

use serde::{Deserialize, Serialize};
use willis_core::{Candidate, Candidates, Evidence, Point, Site, VesselGraph};

use crate::trace::samples::CentrelineSamples;

/// How radius excess becomes candidates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExcessConfig {
    /// Distance between scored places along a branch, mm.
    pub step_mm: f64,
    /// Surroundings reach this far along the branches, mm.
    pub window_mm: f64,
    /// Two candidates are at least this far apart, mm, and at least the radius of the better one.
    pub separation_mm: f64,
    /// Number of candidates kept.
    pub max_candidates: usize,
}

impl Default for ExcessConfig {
    fn default() -> Self {
        Self { step_mm: 1.0, window_mm: 20.0, separation_mm: 3.0, max_candidates: 15 }
    }
}

/// Centreline places ranked by radius over the median radius of their surroundings, best first.
///
/// The surroundings of a place are the samples from three radii to `window_mm` away along any
/// branch; places without surroundings are compared with their own branch, and score 1 when that is
/// too short as well. The probability is `e / (1 + e)` for an excess `e`: it orders candidates and
/// is not calibrated.
pub fn candidates(graph: &VesselGraph, config: &ExcessConfig) -> Candidates {
    let samples = CentrelineSamples::new(graph, config.step_mm);
    let to_junction = samples.distance_to_junction_mm();
    let excess: Vec<f64> = (0..samples.points.len())
        .map(|i| samples.window_excess(i, config.window_mm).or_else(|| samples.branch_excess(i)).unwrap_or(1.0))
        .collect();
    let mut order: Vec<usize> = (0..excess.len()).collect();
    order.sort_by(|&a, &b| excess[b].total_cmp(&excess[a]).then(a.cmp(&b)));
    let mut kept: Vec<usize> = Vec::new();
    for i in order {
        let clear = |j: &usize| {
            let better = samples.points[*j];
            better.point.distance_mm(samples.points[i].point) >= better.radius_mm.max(config.separation_mm)
        };
        if kept.len() < config.max_candidates && kept.iter().all(clear) {
            kept.push(i);
        }
    }
    let candidate = |(rank, i): (usize, usize)| {
        let at = samples.points[i];
        Candidate {
            rank,
            centre: at.point,
            diameter_mm: 2.0 * at.radius_mm,
            probability: excess[i] / (1.0 + excess[i]),
            site: nearest_site(graph, at.point),
            distance_to_vessel_mm: distance_outside(&samples, at.point, at.radius_mm),
            evidence: Evidence {
                radius_excess: Some(excess[i] as f32),
                distance_to_junction_mm: to_junction[i].map(|d| d as f32),
                ..Evidence::default()
            },
        }
    };
    (1..).zip(kept).map(candidate).collect()
}

/// Site of the nearest node that has one.
fn nearest_site(graph: &VesselGraph, point: Point) -> Option<Site> {
    let named = graph.nodes.iter().filter(|node| node.site.is_some());
    named.min_by(|a, b| a.at.point.distance_mm(point).total_cmp(&b.at.point.distance_mm(point)))?.site
}

/// Distance to the nearest vessel whose centreline lies outside the candidate's ball, to its wall,
/// mm.
fn distance_outside(samples: &CentrelineSamples, centre: Point, radius_mm: f64) -> Option<f64> {
    let distances = samples.points.iter().map(|p| (p.point.distance_mm(centre), p.radius_mm));
    distances.filter(|(d, _)| *d > radius_mm).map(|(d, r)| (d - r).max(0.0)).min_by(f64::total_cmp)
}
