//! Branches resampled at even steps, and distances along them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use willis_core::{CentrelinePoint, NodeKind, Point, VesselGraph};

/// A branch parametrised by arc length.
pub(crate) struct Curve<'a> {
    points: &'a [CentrelinePoint],
    /// Arc length at each point, mm.
    at: Vec<f64>,
    is_loop: bool,
}

impl<'a> Curve<'a> {
    fn new(points: &'a [CentrelinePoint], is_loop: bool) -> Self {
        let mut at = vec![0.0];
        for pair in points.windows(2) {
            at.push(at[at.len() - 1] + pair[0].point.distance_mm(pair[1].point));
        }
        Self { points, at, is_loop }
    }

    /// Arc length of the whole branch, mm.
    pub fn length_mm(&self) -> f64 {
        self.at[self.at.len() - 1]
    }

    /// Arc length over chord length, minus 1: 0 for a straight branch, infinite for a loop.
    pub fn tortuosity(&self) -> f64 {
        let chord = self.points[0].point.distance_mm(self.points[self.points.len() - 1].point);
        if chord > 0.0 { (self.length_mm() / chord - 1.0).max(0.0) } else { f64::INFINITY }
    }

    /// Position and radius at an arc length, interpolated linearly; constant beyond the ends.
    pub fn sample(&self, s: f64) -> CentrelinePoint {
        let k = self.at.partition_point(|&a| a <= s).clamp(1, self.points.len() - 1);
        let step = self.at[k] - self.at[k - 1];
        let t = if step > 0.0 { ((s - self.at[k - 1]) / step).clamp(0.0, 1.0) } else { 0.0 };
        let (a, b) = (self.points[k - 1], self.points[k]);
        let mix = |u: f64, v: f64| u + t * (v - u);
        CentrelinePoint {
            point: Point::new(mix(a.point.x, b.point.x), mix(a.point.y, b.point.y), mix(a.point.z, b.point.z)),
            radius_mm: mix(a.radius_mm, b.radius_mm),
        }
    }

    /// Curvature (turn in rad per mm) at an arc length, from the chords over the `reach_mm` before
    /// and after it; 0 where the branch is too short for chords of half that reach.
    pub fn curvature_per_mm(&self, s: f64, reach_mm: f64) -> f64 {
        let length = self.length_mm();
        let reach = reach_mm.min(length / 2.0);
        if reach < reach_mm / 2.0 {
            return 0.0;
        }
        let s = s.clamp(reach, length - reach);
        let (a, b, c) = (self.sample(s - reach).point, self.sample(s).point, self.sample(s + reach).point);
        match (direction(a, b), direction(b, c)) {
            (Some(u), Some(v)) => (u[0] * v[0] + u[1] * v[1] + u[2] * v[2]).clamp(-1.0, 1.0).acos() / reach,
            _ => 0.0,
        }
    }

    /// Median radius of the points farther than `beyond_mm` from an arc length; `None` with fewer
    /// than three of them.
    pub fn median_radius_beyond(&self, s: f64, beyond_mm: f64) -> Option<f64> {
        let length = self.length_mm();
        let distance = |a: f64| if self.is_loop { (a - s).abs().min(length - (a - s).abs()) } else { (a - s).abs() };
        let far = self.points.iter().zip(&self.at).filter(|(_, a)| distance(**a) > beyond_mm);
        let mut radii: Vec<f64> = far.map(|(p, _)| p.radius_mm).collect();
        if radii.len() < 3 { None } else { median(&mut radii) }
    }
}

/// Unit vector from one point to another; `None` when they coincide.
pub(crate) fn direction(a: Point, b: Point) -> Option<[f64; 3]> {
    let d = a.distance_mm(b);
    (d > 0.0).then(|| [(b.x - a.x) / d, (b.y - a.y) / d, (b.z - a.z) / d])
}

/// Location of a sample in the graph.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SampleLocation {
    /// Kind of the graph node at the sample; `None` for an inner sample of a branch.
    pub kind: Option<NodeKind>,
    /// Branch and arc length on it, mm. A node takes its longest branch; `None` for an isolated
    /// node.
    pub branch: Option<(usize, f64)>,
}

/// Samples of all centrelines: first the nodes of the graph in order, then the inner samples branch
/// by branch.
pub(crate) struct CentrelineSamples<'a> {
    pub curves: Vec<Curve<'a>>,
    pub points: Vec<CentrelinePoint>,
    pub locations: Vec<SampleLocation>,
    /// Pairs of neighbouring samples along a branch with the arc length between them, mm. The
    /// samples form a simple graph: no pair occurs twice, and none joins a sample to itself.
    pub links: Vec<(usize, usize, f64)>,
    neighbours: Vec<Vec<(usize, f64)>>,
}

impl<'a> CentrelineSamples<'a> {
    /// Samples about `step_mm` apart; the steps along one branch are equal.
    pub fn new(graph: &'a VesselGraph, step_mm: f64) -> Self {
        let curves: Vec<Curve> = graph.edges.iter().map(|e| Curve::new(&e.points, e.from == e.to)).collect();
        let mut points: Vec<CentrelinePoint> = graph.nodes.iter().map(|n| n.at).collect();
        let mut locations: Vec<SampleLocation> =
            graph.nodes.iter().map(|n| SampleLocation { kind: Some(n.kind), branch: None }).collect();
        let mut links = Vec::new();
        let mut joined = HashSet::new();
        for (branch, (edge, curve)) in graph.edges.iter().zip(&curves).enumerate() {
            let length = curve.length_mm();
            for (node, s) in [(edge.from, 0.0), (edge.to, length)] {
                if locations[node].branch.is_none_or(|(other, _)| curves[other].length_mm() < length) {
                    locations[node].branch = Some((branch, s));
                }
            }
            // For a simple graph a loop needs two inner samples, and a short parallel branch needs
            // one.
            let pair = (edge.from.min(edge.to), edge.from.max(edge.to));
            let mut steps = ((length / step_mm).round() as usize).max(if edge.from == edge.to { 3 } else { 1 });
            if steps == 1 && !joined.insert(pair) {
                steps = 2;
            }
            let mut previous = edge.from;
            for k in 1..=steps {
                let s = length * k as f64 / steps as f64;
                let here = if k == steps { edge.to } else { points.len() };
                if k < steps {
                    points.push(curve.sample(s));
                    locations.push(SampleLocation { kind: None, branch: Some((branch, s)) });
                }
                links.push((previous, here, length / steps as f64));
                previous = here;
            }
        }
        let mut neighbours = vec![Vec::new(); points.len()];
        for &(a, b, length) in &links {
            neighbours[a].push((b, length));
            neighbours[b].push((a, length));
        }
        Self { curves, points, locations, links, neighbours }
    }

    /// Samples within a distance along the branches, including `start`, with their distances;
    /// nearest first.
    pub fn within(&self, start: usize, limit_mm: f64) -> Vec<(usize, f64)> {
        self.reached([start], limit_mm)
    }

    /// Distance of every sample to the nearest junction along the branches, mm; `None` where none
    /// can be reached.
    pub fn distance_to_junction_mm(&self) -> Vec<Option<f64>> {
        let junctions = (0..self.points.len()).filter(|&i| self.locations[i].kind == Some(NodeKind::Junction));
        let mut distances = vec![None; self.points.len()];
        for (i, d) in self.reached(junctions, f64::INFINITY) {
            distances[i] = Some(d);
        }
        distances
    }

    /// Radius of a sample over the median radius of its branch farther than three radii away;
    /// `None` on short branches.
    pub fn branch_excess(&self, i: usize) -> Option<f64> {
        let (branch, s) = self.locations[i].branch?;
        let radius = self.points[i].radius_mm;
        self.curves[branch].median_radius_beyond(s, 3.0 * radius).map(|reference| radius / reference)
    }

    /// Radius of a sample over the median radius of the samples from three radii to `window_mm`
    /// away along any branch; `None` with fewer than three of them.
    pub fn window_excess(&self, i: usize, window_mm: f64) -> Option<f64> {
        let radius = self.points[i].radius_mm;
        let ring = self.within(i, window_mm).into_iter().filter(|(_, d)| *d > 3.0 * radius);
        let mut radii: Vec<f64> = ring.map(|(j, _)| self.points[j].radius_mm).collect();
        if radii.len() < 3 { None } else { median(&mut radii).map(|reference| radius / reference) }
    }

    /// Samples within a distance of any start, nearest first (Dijkstra's algorithm).
    fn reached(&self, starts: impl IntoIterator<Item = usize>, limit_mm: f64) -> Vec<(usize, f64)> {
        // The bit patterns of non-negative floats sort like the floats.
        let mut queue: BinaryHeap<Reverse<(u64, usize)>> = starts.into_iter().map(|i| Reverse((0, i))).collect();
        let mut done = HashSet::new();
        let mut reached = Vec::new();
        while let Some(Reverse((bits, i))) = queue.pop() {
            if !done.insert(i) {
                continue;
            }
            let distance = f64::from_bits(bits);
            reached.push((i, distance));
            for &(j, step) in &self.neighbours[i] {
                if distance + step <= limit_mm {
                    queue.push(Reverse(((distance + step).to_bits(), j)));
                }
            }
        }
        reached
    }
}

/// Median, the lower of the two middle values for an even count; `None` without values.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}
