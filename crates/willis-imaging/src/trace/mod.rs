//! Vessel map to vessel graph: centrelines, radii, junctions.
//!
//! Threshold with hysteresis, drop specks, fill cavities, thin (Lee), read the multigraph off the
//! skeleton, measure radii by the distance transform, drop spurs. Lengths are physical, rings are
//! kept, parallel branches are kept.

pub mod nodes;

mod ball;
mod branches;
mod foreground;
mod prune;
pub(crate) mod samples;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::{CentrelinePoint, GraphEdge, GraphNode, Grid, Image, Index, NodeKind, Site, VesselGraph, VesselMap};
use willis_kernels::distance::squared_distance_mm2;
use willis_kernels::thinning::skeletonize;

use ball::Ball;
use branches::{Branches, branches};
use foreground::{Foreground, Hysteresis, voxels_in};
use prune::{SpurRule, prune};

/// How a vessel map becomes a graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceConfig {
    /// A component needs one voxel with at least this vessel probability.
    pub threshold: f32,
    /// Voxels with at least this vessel probability belong to the component; not above `threshold`.
    pub low_threshold: f32,
    /// Components smaller than this are dropped, mm³. A ball of 2 mm diameter has 4.2 mm³.
    pub min_component_mm3: f64,
    /// A dead end is a spur when shorter than this many radii of its junction ...
    pub spur_radii: f64,
    /// ... plus this many voxels (cube root of the voxel volume).
    pub spur_voxels: f64,
    /// A dead end whose tip has at least this aneurysm probability is no spur.
    pub spur_aneurysm_threshold: f32,
    /// Radii are smoothed by a running median of this many centreline points.
    pub radius_window: usize,
    /// A node takes the site of most voxels within its radius, and at least within this distance,
    /// mm.
    pub site_radius_mm: f64,
    /// Distance between neighbouring rows of the node table along a branch, mm.
    pub node_step_mm: f64,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self {
            threshold: 0.5,
            low_threshold: 0.3,
            min_component_mm3: 4.0,
            spur_radii: 1.0,
            spur_voxels: 1.0,
            spur_aneurysm_threshold: 0.5,
            radius_window: 5,
            site_radius_mm: 1.5,
            node_step_mm: 1.5,
        }
    }
}

/// A trace configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// A value outside its range.
    #[error("trace.{field} is {got}; give {expected}")]
    BadConfig {
        /// Name of the key.
        field: &'static str,
        /// Its value.
        got: f64,
        /// What it may be.
        expected: &'static str,
    },
}

impl TraceConfig {
    /// Checks every value once, when the configuration is loaded.
    ///
    /// # Errors
    /// `BadConfig` for the first value outside its range
    pub fn validate(&self) -> Result<(), TraceError> {
        let probability = |v: f32| (0.0..=1.0).contains(&v);
        let length = |v: f64| v.is_finite() && v >= 0.0;
        let (low, high) = (f64::from(self.low_threshold), f64::from(self.threshold));
        let checks = [
            ("threshold", high, probability(self.threshold), "a probability"),
            ("low_threshold", low, probability(self.low_threshold) && low <= high, "a probability up to the threshold"),
            ("min_component_mm3", self.min_component_mm3, length(self.min_component_mm3), "a volume, 0 or more"),
            ("spur_radii", self.spur_radii, length(self.spur_radii), "a number, 0 or more"),
            ("spur_voxels", self.spur_voxels, length(self.spur_voxels), "a number, 0 or more"),
            ("radius_window", self.radius_window as f64, self.radius_window % 2 == 1, "an odd number of points"),
            ("site_radius_mm", self.site_radius_mm, length(self.site_radius_mm), "a distance, 0 or more"),
            (
                "node_step_mm",
                self.node_step_mm,
                length(self.node_step_mm) && self.node_step_mm > 0.0,
                "a distance above 0",
            ),
        ];
        match checks.into_iter().find(|(_, _, good, _)| !good) {
            Some((field, got, _, expected)) => Err(TraceError::BadConfig { field, got, expected }),
            None => Ok(()),
        }
    }
}

/// The vessel graph of a vessel map, with a site at every node where the map names one.
///
/// A map without any vessel gives an empty graph.
///
/// # Panics
/// if the map's images differ in shape (programmer error)
pub fn trace(map: &VesselMap, config: &TraceConfig) -> VesselGraph {
    let grid = map.vessel.grid;
    assert_eq!(map.site.grid.shape, grid.shape, "site image does not match the vessel image");
    assert_eq!(map.aneurysm.grid.shape, grid.shape, "aneurysm image does not match the vessel image");
    let levels: Vec<Hysteresis> = map
        .vessel
        .voxels
        .par_iter()
        .map(|&p| match p {
            p if p >= config.threshold => Hysteresis::Strong,
            p if p >= config.low_threshold => Hysteresis::Weak,
            _ => Hysteresis::Background,
        })
        .collect();
    let is_candidate = |index: Index| *map.aneurysm.at(index) >= config.spur_aneurysm_threshold;
    let mut graph = graph_of(&levels, &grid, config, is_candidate);
    let ball = Ball::new(&grid);
    for node in &mut graph.nodes {
        node.site = ball.as_ref().and_then(|b| majority_site(&map.site, b, node.at, config.site_radius_mm));
    }
    graph
}

/// The vessel graph of a mask (any non-zero voxel is vessel), without sites.
pub fn graph_from_mask(mask: &Image<u8>, config: &TraceConfig) -> VesselGraph {
    let levels: Vec<Hysteresis> =
        mask.voxels.par_iter().map(|&m| if m == 0 { Hysteresis::Background } else { Hysteresis::Strong }).collect();
    graph_of(&levels, &mask.grid, config, |_| false)
}

fn graph_of(
    levels: &[Hysteresis],
    grid: &Grid,
    config: &TraceConfig,
    is_candidate: impl Fn(Index) -> bool,
) -> VesselGraph {
    let min_voxels = voxels_in(grid, config.min_component_mm3);
    let Some(foreground) = Foreground::new(levels, grid.shape.zyx(), min_voxels) else { return VesselGraph::default() };
    let squared = squared_distance_mm2(&foreground.mask, foreground.shape, grid.spacing().zyx());
    let mut skeleton = skeletonize(&foreground.mask, foreground.shape);
    foreground.reseed(&mut skeleton, &squared);
    let parts = branches(&skeleton, foreground.shape);
    let keep: Vec<bool> = parts
        .nodes
        .iter()
        .map(|voxels| {
            voxels.iter().any(|&v| {
                let [z, y, x] = foreground.grid_index(v);
                is_candidate(Index::new(z, y, x))
            })
        })
        .collect();
    let raw = place(&parts, &foreground, &squared, grid);
    let voxel_mm = grid.spacing().voxel_volume_mm3().cbrt();
    let rule = SpurRule { radius_factor: config.spur_radii, extra_mm: config.spur_voxels * voxel_mm };
    let mut graph = prune(raw, &keep, rule);
    graph.edges.par_iter_mut().for_each(|edge| smooth_radii(&mut edge.points, config.radius_window));
    graph
}

/// Voxels to millimetres: the multigraph with places, radii and lengths, not pruned.
///
/// The distance transform reaches to the centre of a background voxel; half the finest spacing
/// brings it back to the wall.
fn place(parts: &Branches, foreground: &Foreground, squared: &[f32], grid: &Grid) -> VesselGraph {
    let half_voxel = grid.spacing().min() / 2.0;
    let at = |voxels: &[usize]| {
        let largest = voxels.iter().map(|&v| squared[v]).fold(0.0, f32::max);
        let point = grid.affine.to_world(foreground.mean_place(voxels));
        CentrelinePoint { point, radius_mm: f64::from(largest).sqrt() - half_voxel }
    };
    // Kinds are named once spurs are gone; until then only lone nodes are told apart.
    let mut nodes: Vec<GraphNode> =
        parts.nodes.iter().map(|v| GraphNode { at: at(v), kind: NodeKind::Isolated, site: None }).collect();
    let mut edges = Vec::with_capacity(parts.branches.len());
    for branch in &parts.branches {
        let inner = branch.voxels.iter().map(|&v| at(&[v]));
        let points: Vec<CentrelinePoint> =
            std::iter::once(nodes[branch.from].at).chain(inner).chain([nodes[branch.to].at]).collect();
        edges.push(GraphEdge { from: branch.from, to: branch.to, length_mm: length_mm(&points), points });
        nodes[branch.from].kind = NodeKind::Junction;
        nodes[branch.to].kind = NodeKind::Junction;
    }
    VesselGraph { nodes, edges }
}

/// Sum of the steps between points, mm.
fn length_mm(points: &[CentrelinePoint]) -> f64 {
    points.windows(2).map(|pair| pair[0].point.distance_mm(pair[1].point)).sum()
}

/// Running median of the radii; both ends keep theirs, and windows are cut at the ends.
fn smooth_radii(points: &mut [CentrelinePoint], window: usize) {
    let radii: Vec<f64> = points.iter().map(|p| p.radius_mm).collect();
    let last = points.len().saturating_sub(1);
    for i in 1..last {
        let reach = (window / 2).min(i).min(last - i);
        points[i].radius_mm = median(&mut radii[i - reach..=i + reach].to_vec()).unwrap_or(radii[i]);
    }
}

/// Median; the lower of the two middle values for an even count, `None` for nothing.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// The most frequent site within a node's ball; the smaller mask value on ties.
fn majority_site(sites: &Image<u8>, ball: &Ball, node: CentrelinePoint, at_least_mm: f64) -> Option<Site> {
    let mut counts = [0usize; 256];
    ball.visit(node.point, node.radius_mm.max(at_least_mm), |offset, _| counts[usize::from(sites.voxels[offset])] += 1);
    let best = (1..=255u8).rev().max_by_key(|&v| counts[usize::from(v)])?;
    Site::from_mask_value(best).filter(|_| counts[usize::from(best)] > 0)
}

#[cfg(test)]
mod tests;
