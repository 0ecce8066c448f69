//! Vessel map to vessel graph: centrelines, radii, junctions.
//!
//! The vessel probability is thresholded with hysteresis, small components are discarded and
//! cavities filled. The mask is thinned (Lee), the multigraph is read off the skeleton, radii are
//! measured by the distance transform, and spurs are pruned. Lengths are in mm; rings and parallel
//! branches are kept.

mod ball;
mod branches;
mod config;
mod foreground;
pub mod nodes;
mod prune;
pub(crate) mod samples;

use rayon::prelude::*;
use willis_core::{CentrelinePoint, GraphEdge, GraphNode, Grid, Image, Index, NodeKind, Site, VesselGraph, VesselMap};
use willis_kernels::distance::squared_distance_mm2;
use willis_kernels::thinning::skeletonize;

use ball::Ball;
use branches::{Branches, branches};
pub use config::TraceConfig;
use foreground::{Foreground, Hysteresis, voxels_in};
use prune::{SpurRule, prune};
use samples::median;

/// The vessel graph of a vessel map, with the site of every node for which the map has one.
///
/// A map without vessels gives an empty graph.
///
/// # Panics
/// if the images of the map differ in shape (programmer error)
pub fn trace(map: &VesselMap, config: &TraceConfig) -> VesselGraph {
    let grid = map.vessel.grid;
    assert_eq!(map.site.grid.shape, grid.shape, "site image does not match the vessel image");
    assert_eq!(map.aneurysm.grid.shape, grid.shape, "aneurysm image does not match the vessel image");
    let classes: Vec<Hysteresis> = map
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
    let mut graph = graph_of(&classes, &grid, config, is_candidate);
    let ball = Ball::new(&grid);
    for node in &mut graph.nodes {
        node.site = ball.as_ref().and_then(|b| majority_site(&map.site, b, node.at, config.site_radius_mm));
    }
    graph
}

/// The vessel graph of a mask (every non-zero voxel is vessel), without sites.
pub fn graph_from_mask(mask: &Image<u8>, config: &TraceConfig) -> VesselGraph {
    let classes: Vec<Hysteresis> =
        mask.voxels.par_iter().map(|&m| if m == 0 { Hysteresis::Background } else { Hysteresis::Strong }).collect();
    graph_of(&classes, &mask.grid, config, |_| false)
}

/// The pruned graph of classified voxels; dead ends with an `is_candidate` voxel at their tip are
/// kept.
fn graph_of(
    classes: &[Hysteresis],
    grid: &Grid,
    config: &TraceConfig,
    is_candidate: impl Fn(Index) -> bool,
) -> VesselGraph {
    let min_voxels = voxels_in(grid, config.min_component_mm3);
    let Some(foreground) = Foreground::new(classes, grid.shape.zyx(), min_voxels) else {
        return VesselGraph::default();
    };
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
    let raw = unpruned(&parts, &foreground, &squared, grid);
    let voxel_mm = grid.spacing().voxel_volume_mm3().cbrt();
    let rule = SpurRule { radius_factor: config.spur_radii, extra_mm: config.spur_voxels * voxel_mm };
    let mut graph = prune(raw, &keep, rule);
    graph.edges.par_iter_mut().for_each(|edge| smooth_radii(&mut edge.points, config.radius_window));
    graph
}

/// The multigraph in mm, with positions, radii and lengths, before pruning.
///
/// The distance transform measures to the centre of a background voxel; subtracting half the finest
/// spacing gives the distance to the wall.
fn unpruned(parts: &Branches, foreground: &Foreground, squared: &[f32], grid: &Grid) -> VesselGraph {
    let half_voxel = grid.spacing().min() / 2.0;
    let at = |voxels: &[usize]| {
        let largest = voxels.iter().map(|&v| squared[v]).fold(0.0, f32::max);
        let point = grid.affine.to_world(foreground.mean_position(voxels));
        CentrelinePoint { point, radius_mm: f64::from(largest).sqrt() - half_voxel }
    };
    // Pruning sets the kinds; it only needs to know which nodes are isolated.
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

/// Length of the polyline through the points, mm.
fn length_mm(points: &[CentrelinePoint]) -> f64 {
    points.windows(2).map(|pair| pair[0].point.distance_mm(pair[1].point)).sum()
}

/// Smooths radii by a running median. The window shrinks towards the ends, which keep their radii.
fn smooth_radii(points: &mut [CentrelinePoint], window: usize) {
    let radii: Vec<f64> = points.iter().map(|p| p.radius_mm).collect();
    let last = points.len().saturating_sub(1);
    for i in 1..last {
        let reach = (window / 2).min(i).min(last - i);
        points[i].radius_mm = median(&mut radii[i - reach..=i + reach].to_vec()).unwrap_or(radii[i]);
    }
}

/// The most frequent site within a ball around a node; the smaller mask value on ties.
fn majority_site(sites: &Image<u8>, ball: &Ball, node: CentrelinePoint, at_least_mm: f64) -> Option<Site> {
    let mut counts = [0usize; 256];
    ball.visit(node.point, node.radius_mm.max(at_least_mm), |offset, _| counts[usize::from(sites.voxels[offset])] += 1);
    let best = (1..=255u8).rev().max_by_key(|&v| counts[usize::from(v)])?;
    Site::from_mask_value(best).filter(|_| counts[usize::from(best)] > 0)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
