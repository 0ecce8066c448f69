//! The node table: the input of the learned node scorer.

use std::ops::Range;

use rayon::prelude::*;
use willis_core::{CentrelinePoint, NodeKind, NodeTable, VesselGraph, VesselMap};

use super::ball::Ball;
use super::config::TraceConfig;
use super::samples::{CentrelineSamples, direction};

/// Names of the node features, in order. All values are finite and of order one.
const NODE_FEATURES: [&str; 20] = [
    "radius_mm",
    "radius_excess_branch",
    "radius_excess_window",
    "log_radius_range_3mm",
    "distance_to_junction_cm",
    "is_tip",
    "is_junction",
    "is_alone",
    "curvature_per_mm",
    "branch_tortuosity",
    "branch_length_cm",
    "vessel_probability",
    "vessel_fraction_2r",
    "aneurysm_max_1_5r",
    "aneurysm_mean_1_5r",
    "aneurysm_max_3mm",
    "aneurysm_mean_3mm",
    "intensity",
    "contrast",
    "is_known_site",
];

/// Names of the edge features, in order. The direction is a unit vector in LPS from source to
/// target; the ratio is target over source.
const EDGE_FEATURES: [&str; 6] =
    ["length_mm", "log_radius_ratio", "direction_x", "direction_y", "direction_z", "vessel_probability"];

/// Reach of the `radius_excess_window` feature along the branches, mm.
const WINDOW_MM: f64 = 20.0;

/// Maximum radius of a ball in which features are measured, mm; it bounds the cost of a wrong
/// radius.
const MAX_BALL_MM: f64 = 10.0;

/// The node table of a graph: centrelines resampled every `config.node_step_mm`, with features
/// measured on the graph and on the map.
///
/// The rows are the nodes of the graph in order, then the inner samples branch by branch. A node
/// takes the branch features of its longest branch.
///
/// # Shapes
/// features `[N, F]`, edge features `[E, G]`; each link gives two consecutive directed edges
///
/// # Panics
/// if the images of the map differ in shape (programmer error)
pub fn node_table(graph: &VesselGraph, map: &VesselMap, config: &TraceConfig) -> NodeTable {
    let samples = CentrelineSamples::new(graph, config.node_step_mm);
    let sampler = MapSampler::new(map, config.low_threshold);
    let to_junction = samples.distance_to_junction_mm();
    let features: Vec<f32> = (0..samples.points.len())
        .into_par_iter()
        .flat_map_iter(|i| {
            let mut row = shape_features(&samples, i, to_junction[i]).to_vec();
            row.extend(sampler.features(samples.points[i]));
            row.push(f64::from(u8::from(sampler.has_site(samples.points[i]))));
            row.into_iter().map(|v| if v.is_finite() { v as f32 } else { 0.0 })
        })
        .collect();
    debug_assert_eq!(features.len(), samples.points.len() * NODE_FEATURES.len());
    let directed: Vec<(usize, usize, f64)> =
        samples.links.iter().flat_map(|&(a, b, length)| [(a, b, length), (b, a, length)]).collect();
    let edge_features =
        directed.iter().flat_map(|&(a, b, length)| edge_row(samples.points[a], samples.points[b], length, &sampler));
    NodeTable {
        edge_features: edge_features.collect(),
        edges: directed.iter().map(|&(a, b, _)| [a as u32, b as u32]).collect(),
        feature_names: NODE_FEATURES.to_vec(),
        features,
        edge_feature_names: EDGE_FEATURES.to_vec(),
        points: samples.points,
    }
}

/// The first eleven features, which depend on the graph alone.
fn shape_features(samples: &CentrelineSamples, i: usize, to_junction_mm: Option<f64>) -> [f64; 11] {
    let (at, location) = (samples.points[i], samples.locations[i]);
    let near = samples.within(i, 3.0);
    let radii = near.iter().map(|&(j, _)| samples.points[j].radius_mm);
    let (low, high) = radii.fold((at.radius_mm, at.radius_mm), |(low, high), r| (low.min(r), high.max(r)));
    let (curvature, tortuosity, length) = location.branch.map_or((0.0, 0.0, 0.0), |(branch, s)| {
        let curve = &samples.curves[branch];
        (curve.curvature_per_mm(s, (2.0 * at.radius_mm).max(2.0)), curve.tortuosity(), curve.length_mm())
    });
    let is = |kind| f64::from(u8::from(location.kind == Some(kind)));
    [
        at.radius_mm,
        samples.branch_excess(i).unwrap_or(1.0).min(5.0),
        samples.window_excess(i, WINDOW_MM).unwrap_or(1.0).min(5.0),
        if low > 0.0 { (high / low).ln() } else { 0.0 },
        to_junction_mm.map_or(3.0, |d| (d / 10.0).min(3.0)),
        is(NodeKind::Tip),
        is(NodeKind::Junction),
        is(NodeKind::Isolated),
        curvature.min(2.0),
        tortuosity.min(3.0),
        (length / 10.0).min(10.0),
    ]
}

/// The features of one directed edge.
fn edge_row(a: CentrelinePoint, b: CentrelinePoint, length_mm: f64, sampler: &MapSampler) -> [f32; 6] {
    let [x, y, z] = direction(a.point, b.point).unwrap_or([0.0; 3]);
    let ratio = if a.radius_mm > 0.0 && b.radius_mm > 0.0 { (b.radius_mm / a.radius_mm).ln() } else { 0.0 };
    let probability = (sampler.vessel_at(a) + sampler.vessel_at(b)) / 2.0;
    [length_mm, ratio, x, y, z, probability].map(|v| if v.is_finite() { v as f32 } else { 0.0 })
}

/// Measures the map around centreline points.
struct MapSampler<'a> {
    map: &'a VesselMap,
    ball: Option<Ball>,
    vessel_threshold: f32,
}

impl<'a> MapSampler<'a> {
    fn new(map: &'a VesselMap, vessel_threshold: f32) -> Self {
        let shape = map.vessel.grid.shape;
        for other in [map.aneurysm.grid.shape, map.site.grid.shape, map.source.image.grid.shape] {
            assert_eq!(other, shape, "an image of the vessel map does not match the vessel image");
        }
        Self { map, ball: Ball::new(&map.vessel.grid), vessel_threshold }
    }

    /// Vessel probability at the nearest voxel.
    fn vessel_at(&self, at: CentrelinePoint) -> f64 {
        self.nearest(at).map_or(0.0, |offset| f64::from(self.map.vessel.voxels[offset]))
    }

    /// Whether the nearest voxel has a site.
    fn has_site(&self, at: CentrelinePoint) -> bool {
        self.nearest(at).is_some_and(|offset| self.map.site.voxels[offset] != 0)
    }

    /// Offset of the nearest voxel; `None` when the grid is singular or empty.
    fn nearest(&self, at: CentrelinePoint) -> Option<usize> {
        let grid = self.map.vessel.grid;
        let voxel = self.ball.as_ref()?.voxel(at.point);
        (!grid.shape.is_empty()).then(|| grid.shape.offset(grid.shape.nearest(voxel)))
    }

    /// The eight features of probability and intensity.
    fn features(&self, at: CentrelinePoint) -> [f64; 8] {
        let (vessel, aneurysm) = (&self.map.vessel.voxels, &self.map.aneurysm.voxels);
        let image = &self.map.source.image.voxels;
        let radius = at.radius_mm;
        let around = self.over(at, 0.0..2.0 * radius, |i| Some(vessel[i]));
        let own = self.over(at, 0.0..1.5 * radius, |i| Some(aneurysm[i]));
        let fixed = self.over(at, 0.0..3.0, |i| Some(aneurysm[i]));
        let inside = self.over(at, 0.0..radius, |i| Some(image[i]));
        let outside = self
            .over(at, 1.5 * radius..2.5 * radius + 1.0, |i| (vessel[i] < self.vessel_threshold).then_some(image[i]));
        let intensity = inside.mean().unwrap_or(0.0);
        let contrast = outside.mean().map_or(0.0, |out| intensity - out);
        [
            self.vessel_at(at),
            around.mean().unwrap_or(0.0),
            own.max,
            own.mean().unwrap_or(0.0),
            fixed.max,
            fixed.mean().unwrap_or(0.0),
            intensity.clamp(-5.0, 5.0),
            contrast.clamp(-5.0, 5.0),
        ]
    }

    /// Accumulates a value over the voxels at distances within a range, mm.
    fn over(&self, at: CentrelinePoint, range_mm: Range<f64>, value: impl Fn(usize) -> Option<f32>) -> Tally {
        let mut tally = Tally::default();
        if let Some(ball) = &self.ball {
            ball.visit(at.point, range_mm.end.min(MAX_BALL_MM), |offset, distance| {
                if let Some(v) = value(offset).filter(|v| distance >= range_mm.start && v.is_finite()) {
                    tally.add(f64::from(v));
                }
            });
        }
        tally
    }
}

/// Count, sum and maximum (at least 0) of some values.
#[derive(Default)]
struct Tally {
    count: usize,
    sum: f64,
    max: f64,
}

impl Tally {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.max = self.max.max(value);
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}
