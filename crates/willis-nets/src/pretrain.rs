//! Self-supervised pre-training: S3D around the residual-encoder U-Net, on volumes without labels.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use nalgebra::DMatrix;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use willis_core::{Image, Index, Shape};

use crate::layers::Init;
use crate::resenc::{ResEnc, ResEncConfig};
use crate::spark::{InputMask, S3d, masked_error};
use crate::sparse::Active;
use crate::train::{Loss, Progress, TrainConfig, TrainError, train};

/// How a backbone is pre-trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PretrainConfig {
    /// Sizes of the backbone: one channel in, one out.
    pub net: ResEncConfig,
    /// Optimiser, steps, seed.
    pub train: TrainConfig,
    /// Side of the cubes that are cut from volumes, voxels; a multiple of the cell.
    pub patch: usize,
    /// Side of the cells that are masked or not, voxels; a multiple of the coarsest stage's voxel.
    pub cell: usize,
    /// Cubes of a step.
    pub batch: usize,
    /// Share of the cells that is masked.
    pub masked_share: f64,
    /// Steps from one report to the next.
    pub epoch_steps: usize,
    /// Cubes of the linear probe.
    pub probe_cubes: usize,
}

impl Default for PretrainConfig {
    fn default() -> Self {
        let small =
            ResEncConfig { features: vec![16, 32, 64, 128], blocks: vec![1, 2, 2, 2], ..ResEncConfig::published(1, 1) };
        Self {
            net: small,
            train: TrainConfig { steps: 5000, learning_rate: 1e-3, clip_norm: 5.0, ..TrainConfig::default() },
            patch: 64,
            cell: 16,
            batch: 2,
            masked_share: 0.75,
            epoch_steps: 250,
            probe_cubes: 48,
        }
    }
}

/// Why pre-training stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PretrainError {
    /// Sizes that do not fit together.
    #[error(
        "patch {patch}, cell {cell} and {stages} stages do not fit: the patch must be a multiple of the cell, the cell of {voxel}"
    )]
    Sizes {
        /// Side of a cube.
        patch: usize,
        /// Side of a cell.
        cell: usize,
        /// Stages of the backbone.
        stages: usize,
        /// Side of a voxel of the coarsest stage.
        voxel: usize,
    },
    /// Nothing to learn from.
    #[error("there is no volume to pre-train on")]
    NoVolumes,
    /// The loop stopped.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// What is reported after each epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Epoch {
    /// Steps done.
    pub step: usize,
    /// Mean loss since the last report.
    pub loss: f64,
    /// Explained variance (R²) with which a linear map of the bottleneck tells where in the head a cube of the other half of the
    /// probe lies; at most 1, about 0 for features that know nothing.
    pub probe: f64,
    /// Mean deviation of the bottleneck's channels over the probe's cubes; near 0 the encoder has collapsed.
    pub spread: f64,
    /// The middle slice of a cube.
    pub panel: Panel,
}

impl Epoch {
    /// Whether all cubes look the same to the encoder.
    pub fn collapsed(&self) -> bool {
        self.spread < 1e-3
    }
}

/// Slices of `side x side` voxels in the same standardised units.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Voxels along each side.
    pub side: usize,
    /// The cube as it is.
    pub image: Vec<f32>,
    /// What the encoder saw.
    pub masked: Vec<f32>,
    /// What the net painted.
    pub painted: Vec<f32>,
}

/// A pre-trained backbone.
#[derive(Debug)]
pub struct Pretrained {
    /// The backbone, with averaged weights.
    pub net: ResEnc,
    /// Steps done.
    pub step: usize,
    /// Whether all steps are done.
    pub finished: bool,
}

/// A batch: cubes, which of their cells are seen, and the step it is for.
struct Batch {
    step: usize,
    cubes: Vec<f32>,
    seen: Vec<bool>,
}

/// Pre-trains on `count` volumes, which `volume` reads one at a time, or goes on with the run in `run_dir`.
///
/// # Errors    [`PretrainError`]
pub fn fit(
    count: usize,
    volume: impl Fn(usize) -> Option<Image<f32>> + Sync,
    config: &PretrainConfig,
    run_dir: &Path,
    device: &Device,
    progress: impl FnMut(&Progress<'_>),
    mut on_epoch: impl FnMut(&Epoch),
) -> Result<Pretrained, PretrainError> {
    let (patch, cell, stages) = (config.patch, config.cell, config.net.features.len());
    let voxel = 1usize << stages.saturating_sub(1).min(16);
    let fits = patch > 0 && cell > 0 && patch.is_multiple_of(cell) && cell.is_multiple_of(voxel);
    if !fits || stages < 2 {
        return Err(PretrainError::Sizes { patch, cell, stages, voxel });
    }
    let probe = Probe::draw(count, &volume, config).ok_or(PretrainError::NoVolumes)?;
    let cells = (patch / cell).pow(3);
    let sample = |step: usize, rng: &mut ChaCha8Rng| {
        // A volume that cannot be read any more is passed over; the probe has shown that there are readable ones.
        let mut cube = || loop {
            if let Some(image) = volume(rng.random_range(0..count)) {
                return cut(&image, patch, rng).0;
            }
        };
        let cubes = (0..config.batch.max(1)).flat_map(|_| cube()).collect();
        let seen = (0..config.batch.max(1)).flat_map(|_| draw_seen(cells, config.masked_share, rng)).collect();
        Batch { step, cubes, seen }
    };
    let (mut sum, mut steps) = (0.0, 0);
    let loss = |net: &S3d, batch: Batch| {
        let items = batch.seen.len() / cells;
        let x = Tensor::<5>::from_data(TensorData::new(batch.cubes, [items, 1, patch, patch, patch]), &net.device());
        let active = Active::new(&batch.seen, items, [patch / cell; 3], &x.device().inner());
        let painted = net.forward(x.clone(), &active, InputMask::On);
        let loss = Loss::of(masked_error(painted.clone(), x.clone(), &active));
        (sum, steps) = (sum + loss.value, steps + 1);
        if (batch.step + 1).is_multiple_of(config.epoch_steps.max(1)) {
            let (probe, spread) = probe.score(net, patch);
            let panel = Panel::of(&x, &active, &painted, patch);
            on_epoch(&Epoch { step: batch.step + 1, loss: sum / f64::from(steps), probe, spread, panel });
            (sum, steps) = (0.0, 0);
        }
        loss
    };
    let net = S3d::new(&config.net, &mut Init::new(config.train.seed, device));
    let trained = train(net, &config.train, run_dir, sample, loss, progress)?;
    Ok(Pretrained { net: trained.net.into_backbone(), step: trained.step, finished: trained.finished })
}

/// A random cube, standardised, and where its middle lies in the volume, each axis from -1 to 1. Where the volume is smaller than
/// the cube its border goes on.
fn cut(image: &Image<f32>, side: usize, rng: &mut impl Rng) -> (Vec<f32>, [f64; 3]) {
    let shape = image.grid.shape;
    let start = shape.zyx().map(|extent| rng.random_range(0..extent.saturating_sub(side) + 1));
    let mut cube = Vec::with_capacity(side.pow(3));
    for z in 0..side {
        for y in 0..side {
            for x in 0..side {
                cube.push(*image.at(inside(shape, [start[0] + z, start[1] + y, start[2] + x])));
            }
        }
    }
    let mean = cube.iter().map(|&v| f64::from(v)).sum::<f64>() / cube.len() as f64;
    let variance = cube.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / cube.len() as f64;
    let scale = 1.0 / (variance + 1e-5).sqrt();
    cube.iter_mut().for_each(|v| *v = ((f64::from(*v) - mean) * scale) as f32);
    let middle = |axis: usize| {
        let extent = shape.zyx()[axis].max(1) as f64;
        2.0 * (start[axis] as f64 + side as f64 / 2.0) / extent - 1.0
    };
    (cube, [middle(0), middle(1), middle(2)])
}

fn inside(shape: Shape, [z, y, x]: [usize; 3]) -> Index {
    Index::new(z.min(shape.z - 1), y.min(shape.y - 1), x.min(shape.x - 1))
}

/// Flags of the seen cells: the share that is masked is rounded down.
fn draw_seen(cells: usize, masked_share: f64, rng: &mut impl Rng) -> Vec<bool> {
    let masked = ((masked_share.clamp(0.0, 1.0) * cells as f64) as usize).min(cells - 1);
    let mut order: Vec<(u64, usize)> = (0..cells).map(|cell| (rng.random::<u64>(), cell)).collect();
    order.sort_unstable();
    let mut seen = vec![true; cells];
    order[..masked].iter().for_each(|&(_, cell)| seen[cell] = false);
    seen
}

impl Panel {
    fn of(x: &Tensor<5>, active: &Active, painted: &Tensor<5>, side: usize) -> Self {
        let slice = |t: Tensor<5>| -> Vec<f32> {
            let values: Vec<f32> = t.into_data().convert::<f32>().try_to_vec().expect("data was just converted to f32");
            values[side / 2 * side * side..][..side * side].to_vec()
        };
        Self { side, image: slice(x.clone()), masked: slice(active.keep(x.clone())), painted: slice(painted.clone()) }
    }
}

/// Cubes at known places, the same through a run.
struct Probe {
    cubes: Vec<Vec<f32>>,
    places: Vec<[f64; 3]>,
}

impl Probe {
    fn draw(count: usize, volume: impl Fn(usize) -> Option<Image<f32>>, config: &PretrainConfig) -> Option<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(config.train.seed ^ 0x70_72_6f_62_65);
        let (mut cubes, mut places) = (Vec::new(), Vec::new());
        for i in 0..config.probe_cubes.max(8) {
            if count > 0
                && let Some(image) = volume(i % count)
            {
                let (cube, place) = cut(&image, config.patch, &mut rng);
                cubes.push(cube);
                places.push(place);
            }
        }
        (!cubes.is_empty()).then_some(Self { cubes, places })
    }

    /// R² of the linear probe and mean deviation of the bottleneck's channels.
    fn score(&self, net: &S3d, side: usize) -> (f64, f64) {
        let device = net.device();
        let pooled = |cube: &Vec<f32>| -> Vec<f64> {
            let x = Tensor::<5>::from_data(TensorData::new(cube.clone(), [1, 1, side, side, side]), &device);
            let bottleneck = net.backbone().encode(x, None).pop().expect("at least two stages");
            let [_, channels, d, h, w] = bottleneck.dims();
            let means = bottleneck.reshape([channels, d * h * w]).mean_dim(1);
            let means: Vec<f32> =
                means.into_data().convert::<f32>().try_to_vec().expect("data was just converted to f32");
            means.into_iter().map(f64::from).collect()
        };
        let features: Vec<Vec<f64>> = self.cubes.iter().map(pooled).collect();
        let n = features.len() as f64;
        let deviation = |channel: usize| {
            let mean = features.iter().map(|f| f[channel]).sum::<f64>() / n;
            (features.iter().map(|f| (f[channel] - mean).powi(2)).sum::<f64>() / n).sqrt()
        };
        let channels = features[0].len();
        let spread = (0..channels).map(deviation).sum::<f64>() / channels as f64;
        (explained(&features, &self.places), spread)
    }
}

/// R² over all axes of ridge regression from the even cubes to the odd ones, by the kernel form: there are fewer cubes than channels.
fn explained(features: &[Vec<f64>], places: &[[f64; 3]]) -> f64 {
    let rows = |first: usize| (first..features.len()).step_by(2);
    if rows(1).len() == 0 {
        return 0.0;
    }
    let table =
        |first: usize| DMatrix::from_fn(rows(first).len(), features[0].len(), |i, k| features[first + 2 * i][k]);
    let targets = |first: usize| DMatrix::from_fn(rows(first).len(), 3, |i, axis| places[first + 2 * i][axis]);
    let (mut train, mut test) = (table(0), table(1));
    let (mut known, mut wanted) = (targets(0), targets(1));
    for (fitted, other) in [(&mut train, &mut test), (&mut known, &mut wanted)] {
        let means = fitted.row_mean();
        fitted.row_iter_mut().chain(other.row_iter_mut()).for_each(|mut row| row -= &means);
    }
    let mut kernel = &train * train.transpose();
    let ridge = (0.01 * kernel.trace() / kernel.nrows() as f64).max(1e-9);
    (0..kernel.nrows()).for_each(|i| kernel[(i, i)] += ridge);
    let Some(factors) = kernel.cholesky() else { return 0.0 };
    let guess = &test * train.transpose() * factors.solve(&known);
    1.0 - (&wanted - guess).norm_squared() / wanted.norm_squared().max(1e-12)
}

#[cfg(test)]
mod tests {
    use super::*;
    use willis_core::{Affine, Grid, Point, Spacing};

    /// A volume whose brightness waves faster towards one side.
    fn volume(i: usize) -> Option<Image<f32>> {
        let grid =
            Grid::new(Shape::new(24, 20, 28), Affine::axis_aligned(Spacing::isotropic(1.0), Point::new(0.0, 0.0, 0.0)));
        let value = |offset: usize| {
            let at = grid.shape.index(offset);
            ((at.x as f32 * (0.3 + 0.02 * at.z as f32)).sin() + at.y as f32 * 0.05) * (1.0 + i as f32 * 0.1)
        };
        Some(Image::new(grid, (0..grid.shape.len()).map(value).collect()))
    }

    fn config(steps: usize) -> PretrainConfig {
        PretrainConfig {
            net: ResEncConfig { features: vec![4, 8], blocks: vec![1, 1], ..ResEncConfig::published(1, 1) },
            train: TrainConfig { steps, learning_rate: 0.01, warmup_steps: 2, ..TrainConfig::default() },
            patch: 16,
            cell: 4,
            epoch_steps: 20,
            probe_cubes: 12,
            ..PretrainConfig::default()
        }
    }

    #[test]
    fn what_is_masked_is_learned_and_reported() {
        let folder = tempfile::tempdir().unwrap();
        let (mut losses, mut epochs) = (Vec::new(), Vec::new());
        let device = Device::flex();
        let step = |p: &Progress<'_>| losses.push(p.loss);
        let done = fit(3, volume, &config(60), folder.path(), &device, step, |e| epochs.push(e.clone())).unwrap();
        assert!(done.finished && done.step == 60);
        assert_eq!(epochs.iter().map(|e| e.step).collect::<Vec<_>>(), [20, 40, 60]);
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        assert!(mean(&losses[50..]) < 0.8 * mean(&losses[..5]), "{losses:?}");
        let last = &epochs[2];
        assert!(!last.collapsed() && last.probe <= 1.0 && last.panel.painted.len() == 256);
        assert!(last.panel.masked.iter().filter(|v| **v == 0.0).count() > 100);
    }

    #[test]
    fn a_stopped_run_goes_on_to_the_same_bytes() {
        let device = Device::flex();
        let run = |folder: &Path, seconds: Option<f64>| {
            let mut config = config(6);
            config.train.max_seconds = seconds;
            fit(2, volume, &config, folder, &device, |_| (), |_| ()).unwrap()
        };
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let expected = run(whole.path(), None).net;
        let mut done = run(parts.path(), Some(0.0));
        while !done.finished {
            done = run(parts.path(), Some(0.0));
        }
        let weights = |net: &ResEnc| crate::weights::Weights::of(net);
        assert_eq!(weights(&done.net), weights(&expected));
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (patch, cell) in [(16, 5), (18, 4), (0, 4)] {
            let config = PretrainConfig { patch, cell, ..config(1) };
            let got = fit(1, volume, &config, folder.path(), &Device::flex(), |_| (), |_| ());
            assert!(matches!(got, Err(PretrainError::Sizes { .. })));
        }
        let none = fit(0, volume, &config(1), folder.path(), &Device::flex(), |_| (), |_| ());
        assert!(matches!(none, Err(PretrainError::NoVolumes)));
    }

    #[test]
    fn a_linear_map_is_found() {
        let features: Vec<Vec<f64>> = (0..40).map(|i| vec![f64::from(i).sin(), f64::from(i).cos(), 1.0]).collect();
        let places: Vec<[f64; 3]> = features.iter().map(|f| [f[0] - f[1], 2.0 * f[1], 0.5 * f[0]]).collect();
        assert!(explained(&features, &places) > 0.95);
        let hashed = |i: u32, salt: u32| f64::from(((i + salt).wrapping_mul(2_654_435_761) >> 20) % 101);
        let noise: Vec<[f64; 3]> = (0..40).map(|i| [hashed(i, 0), hashed(i, 500), hashed(i, 9000)]).collect();
        assert!(explained(&features, &noise) < 0.4);
    }
}
