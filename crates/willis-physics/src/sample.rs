//! Where the residual is evaluated: regions and the rules by which their points are drawn.
//!
//! R3 keeps the points whose residual exceeds the mean and replaces the others; its causal form opens
//! a gate in time as the residual behind it falls. The residual density draws points in proportion
//! to `|r| / mean |r| + 1`.
//!
//! Sources: Daw et al., ICML 2023, arXiv:2207.02338; Urbán et al., JCP 523:113656.

use std::sync::Arc;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The generator for one use of a seed, with a counter.
pub fn stream(seed: u64, purpose: &str, counter: usize) -> ChaCha8Rng {
    // FNV-1a of the name.
    let name = purpose.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ name);
    rng.set_stream(counter as u64);
    rng
}

/// Maps a point of the unit cube to a point of a region, uniformly.
type CubeMap = Arc<dyn Fn(&[f64], &mut Vec<f64>) + Send + Sync>;

/// A region of which points are drawn.
#[derive(Clone)]
pub struct SampleRegion {
    cube_axes: usize,
    map: CubeMap,
}

impl SampleRegion {
    /// The image of the unit cube with this number of axes; the map appends the coordinates of one
    /// point.
    pub fn image(cube_axes: usize, map: impl Fn(&[f64], &mut Vec<f64>) + Send + Sync + 'static) -> Self {
        Self { cube_axes, map: Arc::new(map) }
    }

    /// The box between two corners. An axis whose corners agree is constant.
    pub fn cuboid(low: &[f64], high: &[f64]) -> Self {
        let bounds: Vec<(f64, f64)> = low.iter().copied().zip(high.iter().copied()).collect();
        let axes = bounds.iter().filter(|(low, high)| low < high).count();
        Self::image(axes, move |unit, point| {
            let mut unit = unit.iter();
            point.extend(bounds.iter().map(|&(low, high)| {
                if low < high { low + (high - low) * unit.next().copied().unwrap_or_default() } else { low }
            }));
        })
    }

    /// Independent uniform points.
    pub fn uniform(&self, count: usize, rng: &mut impl Rng) -> Vec<f64> {
        let mut points = Vec::new();
        let mut unit = vec![0.0; self.cube_axes];
        for _ in 0..count {
            unit.iter_mut().for_each(|u| *u = rng.random());
            (self.map)(&unit, &mut points);
        }
        points
    }

    /// A Latin hypercube: every axis of the unit cube has one point in each of `count` intervals.
    pub fn latin_hypercube(&self, count: usize, rng: &mut impl Rng) -> Vec<f64> {
        let columns: Vec<Vec<f64>> = (0..self.cube_axes)
            .map(|_| {
                let mut cells: Vec<usize> = (0..count).collect();
                for i in (1..count).rev() {
                    cells.swap(i, (rng.random::<f64>() * (i + 1) as f64) as usize);
                }
                cells.into_iter().map(|cell| (cell as f64 + rng.random::<f64>()) / count as f64).collect()
            })
            .collect();
        let mut points = Vec::new();
        for i in 0..count {
            let unit: Vec<f64> = columns.iter().map(|column| column[i]).collect();
            (self.map)(&unit, &mut points);
        }
        points
    }
}

/// How points are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// Once.
    Fixed,
    /// Anew at every redraw, uniformly.
    Redrawn,
    /// Anew at every redraw, as a Latin hypercube.
    LatinHypercube,
    /// Retain, resample, release.
    R3,
    /// R3 with a gate in time.
    CausalR3,
    /// In proportion to the residual at every redraw.
    ResidualDensity,
}

/// α, steepness of the causal gate.
const GATE_STEEPNESS: f64 = 5.0;
/// First position of the causal gate.
const GATE_START: f64 = -0.5;
/// η, rate of the causal gate.
const GATE_RATE: f64 = 1e-3;
/// ε, tolerance of the causal gate.
const GATE_TOLERANCE: f64 = 20.0;
/// Candidates per point of the residual density.
const CANDIDATES: usize = 4;

/// Draws the points of the residual.
#[derive(Clone)]
pub struct Sampler {
    kind: SamplerKind,
    region: SampleRegion,
    count: usize,
    axes: usize,
    /// Axis of time with its interval.
    time: Option<(usize, f64, f64)>,
    gate: f64,
}

impl Sampler {
    /// A sampler of `count` points with `axes` coordinates; time is an axis with its interval.
    pub fn new(
        kind: SamplerKind,
        region: SampleRegion,
        count: usize,
        axes: usize,
        time: Option<(usize, f64, f64)>,
    ) -> Self {
        Self { kind, region, count, axes, time, gate: GATE_START }
    }

    /// Whether points change from redraw to redraw.
    pub fn redraws(&self) -> bool {
        self.kind != SamplerKind::Fixed
    }

    /// Whether [`Sampler::next`] needs the residuals of the last evaluation.
    pub fn needs_magnitudes(&self) -> bool {
        matches!(self.kind, SamplerKind::R3 | SamplerKind::CausalR3)
    }

    /// Position of the causal gate, for saving.
    pub fn gate_position(&self) -> f64 {
        self.gate
    }

    /// Restores the position of the causal gate.
    pub fn set_gate_position(&mut self, position: f64) {
        self.gate = position;
    }

    /// The first points.
    pub fn first(&self, rng: &mut impl Rng) -> Vec<f64> {
        match self.kind {
            SamplerKind::LatinHypercube => self.region.latin_hypercube(self.count, rng),
            _ => self.region.uniform(self.count, rng),
        }
    }

    /// The next points, given the old ones with the magnitudes of their residuals. `residual` gives
    /// the magnitudes at other points.
    pub fn next(
        &mut self,
        old: &[f64],
        magnitudes: &[f64],
        rng: &mut impl Rng,
        residual: impl FnOnce(&[f64]) -> Vec<f64>,
    ) -> Vec<f64> {
        match self.kind {
            SamplerKind::Fixed => old.to_vec(),
            SamplerKind::Redrawn => self.region.uniform(self.count, rng),
            SamplerKind::LatinHypercube => self.region.latin_hypercube(self.count, rng),
            SamplerKind::R3 => self.retain(old, magnitudes, rng),
            SamplerKind::CausalR3 => {
                let fitness: Vec<f64> = self.gate(old).iter().zip(magnitudes).map(|(g, r)| g * r).collect();
                let points = self.retain(old, &fitness, rng);
                let mean = fitness.iter().map(|f| f * f).sum::<f64>() / fitness.len().max(1) as f64;
                self.gate += GATE_RATE * (-GATE_TOLERANCE * mean).exp().min(0.1);
                points
            }
            SamplerKind::ResidualDensity => {
                let candidates = self.region.uniform(self.count * CANDIDATES, rng);
                let magnitudes = residual(&candidates);
                self.choose(&candidates, &magnitudes, rng)
            }
        }
    }

    /// Weight of the residual per point; empty without a causal gate.
    pub fn gate(&self, points: &[f64]) -> Vec<f64> {
        let (SamplerKind::CausalR3, Some((axis, low, high))) = (self.kind, self.time) else { return Vec::new() };
        let weight = |point: &[f64]| {
            let time = (point[axis] - low) / (high - low);
            0.5 * (1.0 - (GATE_STEEPNESS * (time - self.gate)).tanh())
        };
        points.chunks_exact(self.axes).map(weight).collect()
    }

    /// Keeps the points strictly above the mean fitness, in order, and fills up with fresh ones.
    fn retain(&self, old: &[f64], fitness: &[f64], rng: &mut impl Rng) -> Vec<f64> {
        let mean = fitness.iter().sum::<f64>() / fitness.len().max(1) as f64;
        let mut points = Vec::with_capacity(old.len());
        for (point, fitness) in old.chunks_exact(self.axes).zip(fitness) {
            if *fitness > mean {
                points.extend_from_slice(point);
            }
        }
        let kept = points.len() / self.axes;
        points.extend(self.region.uniform(self.count - kept, rng));
        points
    }

    /// Chooses `count` candidates without replacement, with weights `|r| / mean |r| + 1`.
    fn choose(&self, candidates: &[f64], magnitudes: &[f64], rng: &mut impl Rng) -> Vec<f64> {
        let mean = magnitudes.iter().sum::<f64>() / magnitudes.len().max(1) as f64;
        // Efraimidis and Spirakis: the largest of u^(1/w).
        let mut keys: Vec<(f64, usize)> = magnitudes
            .iter()
            .enumerate()
            .map(|(i, m)| {
                let weight = if mean > 0.0 { m / mean + 1.0 } else { 1.0 };
                ((1.0 - rng.random::<f64>()).ln() / weight, i)
            })
            .collect();
        keys.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        keys.truncate(self.count);
        keys.iter().flat_map(|&(_, i)| candidates[i * self.axes..(i + 1) * self.axes].iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(kind: SamplerKind) -> Sampler {
        Sampler::new(kind, SampleRegion::cuboid(&[0.0, 2.0], &[1.0, 4.0]), 10, 2, Some((1, 2.0, 4.0)))
    }

    #[test]
    fn regions_contain_their_points() {
        let rng = &mut stream(1, "test", 0);
        let face = SampleRegion::cuboid(&[0.0, 3.0, -1.0], &[2.0, 3.0, 1.0]).uniform(50, rng);
        for point in face.chunks(3) {
            assert!((0.0..2.0).contains(&point[0]) && point[1] == 3.0 && (-1.0..1.0).contains(&point[2]));
        }
        let cube = SampleRegion::cuboid(&[0.0, 0.0], &[1.0, 1.0]).latin_hypercube(8, rng);
        for axis in 0..2 {
            let mut cells: Vec<usize> = cube.chunks(2).map(|point| (point[axis] * 8.0) as usize).collect();
            cells.sort_unstable();
            assert_eq!(cells, [0, 1, 2, 3, 4, 5, 6, 7]);
        }
    }

    #[test]
    fn r3_keeps_points_above_the_mean_in_order() {
        let mut sampler = sampler(SamplerKind::R3);
        let old = sampler.first(&mut stream(2, "test", 0));
        let magnitudes = [9.0, 0.0, 0.0, 7.0, 0.0, 0.0, 0.0, 0.0, 0.0, 8.0];
        let new = sampler.next(&old, &magnitudes, &mut stream(2, "test", 1), |_| Vec::new());
        assert_eq!(new.len(), old.len());
        let kept: Vec<f64> = [0, 3, 9].into_iter().flat_map(|i| old[2 * i..2 * i + 2].to_vec()).collect();
        assert_eq!(new[..6], kept);
        assert!(new[6..].chunks(2).all(|point| !old.chunks(2).any(|each| each == point)));
        // Equal fitness: nothing is strictly above the mean.
        let new = sampler.next(&old, &[1.0; 10], &mut stream(2, "test", 1), |_| Vec::new());
        assert!(new.chunks(2).all(|point| !old.chunks(2).any(|each| each == point)));
    }

    #[test]
    fn the_causal_gate_opens_in_time() {
        let mut sampler = sampler(SamplerKind::CausalR3);
        let points = [0.5, 2.0, 0.5, 3.0, 0.5, 4.0];
        let before = sampler.gate(&points);
        assert!(before[0] > before[1] && before[1] > before[2], "{before:?}");
        assert!((before[0] - 0.5 * (1.0 - 2.5f64.tanh())).abs() < 1e-12);
        sampler.next(&points, &[0.0; 3], &mut stream(3, "test", 0), |_| Vec::new());
        assert_eq!(sampler.gate_position(), GATE_START + 1e-4);
        assert!(sampler.gate(&points)[2] > before[2]);
    }

    #[test]
    fn the_residual_density_prefers_large_residuals() {
        let mut sampler = sampler(SamplerKind::ResidualDensity);
        sampler.count = 500;
        // Residual 3 on the left half, none on the right: weights 1 + 2 against 1.
        let residual = |points: &[f64]| points.chunks(2).map(|p| if p[0] < 0.5 { 3.0 } else { 0.0 }).collect();
        let points = sampler.next(&[], &[], &mut stream(4, "test", 0), residual);
        let left = points.chunks(2).filter(|point| point[0] < 0.5).count();
        assert!((300..420).contains(&left) && points.len() == 1000, "{left}");
    }
}
