//! Radius excess: places where a vessel is wider than its surroundings.
//!
//! This is the simplest sign of an aneurysm on a centreline, and the baseline that learned scorers
//! must beat.

use willis_core::{Candidate, Candidates, Evidence, Point, Site, VesselGraph};

use crate::trace::samples::CentrelineSamples;

/// How radius excess becomes candidates.
#[derive(Debug, Clone, PartialEq)]
pub struct ExcessConfig {
    /// Distance between scored samples along a branch, mm.
    pub step_mm: f64,
    /// Reach of the surroundings along the branches, mm.
    pub window_mm: f64,
    /// Minimum distance between two candidates, mm; the radius of the better one when that is
    /// larger.
    pub separation_mm: f64,
    /// Maximum number of candidates.
    pub max_candidates: usize,
}

impl Default for ExcessConfig {
    fn default() -> Self {
        Self { step_mm: 1.0, window_mm: 20.0, separation_mm: 3.0, max_candidates: 15 }
    }
}

/// Centreline samples ranked by their radius over the median radius of their surroundings, best
/// first.
///
/// The surroundings of a sample are the samples from three radii to `window_mm` away along any
/// branch. Without surroundings a sample is compared with its own branch, and its excess is 1 when
/// that is too short as well. The probability is `e / (1 + e)` for an excess `e`; it ranks
/// candidates and is not calibrated.
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

/// Site of the nearest node with a site.
fn nearest_site(graph: &VesselGraph, point: Point) -> Option<Site> {
    let named = graph.nodes.iter().filter(|node| node.site.is_some());
    named.min_by(|a, b| a.at.point.distance_mm(point).total_cmp(&b.at.point.distance_mm(point)))?.site
}

/// Distance to the wall of the nearest vessel whose centreline is outside the ball of the
/// candidate, mm.
fn distance_outside(samples: &CentrelineSamples, centre: Point, radius_mm: f64) -> Option<f64> {
    let distances = samples.points.iter().map(|p| (p.point.distance_mm(centre), p.radius_mm));
    distances.filter(|(d, _)| *d > radius_mm).map(|(d, r)| (d - r).max(0.0)).min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use willis_core::NodeKind;

    use super::*;
    use crate::trace::testing::bulge;
    use crate::trace::{TraceConfig, graph_from_mask, trace};

    #[test]
    fn the_bulge_is_the_first_candidate() {
        let (image, map) = bulge();
        let graph = trace(&map, &TraceConfig::default());
        assert_eq!(graph.nodes.iter().filter(|n| n.kind == NodeKind::Junction).count(), 1);
        let found = candidates(&graph, &ExcessConfig::default());
        assert!(found[0].centre.distance_mm(Point::new(45.0, 16.0, 10.0)) < 2.5, "{:?}", found[0]);
        assert!((5.5..9.5).contains(&found[0].diameter_mm));
        assert_eq!(found[0].site, Site::from_mask_value(3));
        assert!(found.windows(2).all(|w| w[0].probability >= w[1].probability && w[0].rank + 1 == w[1].rank));
        assert!(found.iter().all(|c| (0.0..=1.0).contains(&c.probability)));
        assert!(candidates(&VesselGraph::default(), &ExcessConfig::default()).is_empty());
        let without_map = candidates(&graph_from_mask(&image, &TraceConfig::default()), &ExcessConfig::default());
        assert_eq!(without_map.len(), found.len());
    }
}
