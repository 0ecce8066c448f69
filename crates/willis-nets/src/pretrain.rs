//! Self-supervised pre-training by painting masked cells, on volumes without labels: S3D around the residual-encoder U-Net, or SparK
//! with a light decoder behind SegFormer3D's encoder, which is the vessel net's.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use nalgebra::DMatrix;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use willis_core::{Image, Index, Shape, VoxelPoint};

use crate::layers::Init;
use crate::resenc::ResEncConfig;
use crate::segment::{COORDINATE_MM, IN_CHANNELS};
use crate::spark::{InputMask, Light, LightConfig, S3d, masked_cell_error, masked_error, repainted};
use crate::sparse::{Active, plain_standardise};
use crate::train::{Loss, Progress, TrainConfig, TrainError, train};
use crate::weights::Weights;

/// What is pre-trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PretrainBackbone {
    /// SegFormer3D's encoder, fed as in the vessel net: intensity and world coordinates.
    Segformer3d,
    /// Residual-encoder U-Net, fed with standardised intensity.
    Resenc,
}

/// How a backbone is pre-trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PretrainConfig {
    /// What is pre-trained.
    pub backbone: PretrainBackbone,
    /// Sizes around SegFormer3D: four channels in.
    pub segformer3d: LightConfig,
    /// Sizes of the residual-encoder U-Net: one channel in, one out.
    pub resenc: ResEncConfig,
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
            backbone: PretrainBackbone::Segformer3d,
            segformer3d: LightConfig::default(),
            resenc: small,
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
        "patch {patch} and cell {cell} do not fit the backbone: the patch must be a multiple of the cell and of {coarsest}, the cell of {voxel}"
    )]
    Sizes {
        /// Side of a cube.
        patch: usize,
        /// Side of a cell.
        cell: usize,
        /// Side of a voxel of the coarsest stage.
        coarsest: usize,
        /// Side of a voxel of the coarsest stage that a mask must fit.
        voxel: usize,
    },
    /// Sizes that make no such net.
    #[error("the backbone needs {needed}; change the configuration")]
    Net {
        /// What it needs.
        needed: &'static str,
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
    /// Averaged weights of the residual-encoder U-Net or of SegFormer3D's encoder, with `backbone` and `config` in the metadata.
    pub weights: Weights,
    /// Steps done.
    pub step: usize,
    /// Whether all steps are done.
    pub finished: bool,
}

/// A batch: cubes, which of their cells are seen, and the step it is for.
struct Batch {
    step: usize,
    cubes: Vec<Vec<f32>>,
    seen: Vec<bool>,
}

/// The net around what is pre-trained.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a run has one net; a box would only cost a name in the weights")]
enum Painter {
    Segformer3d(Light),
    Resenc(S3d),
}

impl Painter {
    fn new(config: &PretrainConfig, device: &Device) -> Self {
        let init = &mut Init::new(config.train.seed, device);
        match config.backbone {
            PretrainBackbone::Segformer3d => Self::Segformer3d(config.segformer3d.init(init)),
            PretrainBackbone::Resenc => Self::Resenc(S3d::new(&config.resenc, init)),
        }
    }

    /// x `[B, in, D, H, W]` -> `[B, 1, D, H, W]`.
    fn paint(&self, x: Tensor<5>, active: &Active) -> Tensor<5> {
        match self {
            Self::Segformer3d(net) => net.forward(x, active),
            Self::Resenc(net) => net.forward(x, active, InputMask::On),
        }
    }

    /// How far a painting is from the intensities, where they were masked.
    fn error(&self, painted: Tensor<5>, intensity: Tensor<5>, active: &Active, cell: usize) -> Tensor<1> {
        match self {
            Self::Segformer3d(_) => masked_cell_error(painted, intensity, active, cell),
            Self::Resenc(_) => masked_error(painted, intensity, active),
        }
    }

    /// A painting in units of the standardised intensities.
    fn in_units_of(&self, painted: Tensor<5>, intensity: Tensor<5>, cell: usize) -> Tensor<5> {
        match self {
            Self::Segformer3d(_) => repainted(painted, plain_standardise(intensity), cell),
            Self::Resenc(_) => painted,
        }
    }

    /// Coarsest features of everything.
    fn bottleneck(&self, x: Tensor<5>) -> Tensor<5> {
        let stages = match self {
            Self::Segformer3d(net) => net.encode(x, None),
            Self::Resenc(net) => net.backbone().encode(x, None),
        };
        stages.into_iter().next_back().expect("every backbone has stages")
    }

    fn device(&self) -> Device {
        match self {
            Self::Segformer3d(net) => net.device(),
            Self::Resenc(net) => net.device(),
        }
    }

    fn into_weights(self) -> Weights {
        match self {
            Self::Segformer3d(net) => Weights::of(&net.into_encoder()),
            Self::Resenc(net) => Weights::of(&net.into_backbone()),
        }
    }
}

/// Whether the sizes fit together.
fn check(config: &PretrainConfig) -> Result<(), PretrainError> {
    let (patch, cell) = (config.patch, config.cell);
    let (coarsest, voxel) = match config.backbone {
        PretrainBackbone::Segformer3d => {
            let LightConfig { backbone, decoder_width } = &config.segformer3d;
            if !backbone.is_sound() || backbone.in_channels != IN_CHANNELS {
                return Err(PretrainError::Net { needed: "four channels in, and heads that divide its channels" });
            }
            if *decoder_width == 0 || !decoder_width.is_multiple_of(32) {
                return Err(PretrainError::Net { needed: "a decoder_width that is a multiple of 32" });
            }
            // Its keys lie on a grid of 16 voxels; the fourth stage, of 32, counts as seen where cells are smaller.
            (32, 16)
        }
        PretrainBackbone::Resenc => {
            let ResEncConfig { in_channels, num_classes, features, blocks } = &config.resenc;
            if [*in_channels, *num_classes] != [1, 1] || features.len() < 2 || features.len() != blocks.len() {
                return Err(PretrainError::Net {
                    needed: "one channel in and out, two or more stages, blocks for each",
                });
            }
            let voxel = 1usize << (features.len() - 1).min(16);
            (voxel, voxel)
        }
    };
    let fits = |side: usize, unit: usize| side > 0 && side.is_multiple_of(unit);
    match fits(cell, voxel) && fits(patch, cell) && fits(patch, coarsest) {
        true => Ok(()),
        false => Err(PretrainError::Sizes { patch, cell, coarsest, voxel }),
    }
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
    check(config)?;
    let (patch, cell) = (config.patch, config.cell);
    let probe = Probe::draw(count, &volume, config).ok_or(PretrainError::NoVolumes)?;
    let cells = (patch / cell).pow(3);
    let sample = |step: usize, rng: &mut ChaCha8Rng| {
        // A volume that cannot be read any more is passed over; the probe has shown that there are readable ones.
        let mut cube = || loop {
            if let Some(image) = volume(rng.random_range(0..count)) {
                return cut(&image, config, rng).0;
            }
        };
        let cubes = (0..config.batch.max(1)).map(|_| cube()).collect();
        let seen = (0..config.batch.max(1)).flat_map(|_| draw_seen(cells, config.masked_share, rng)).collect();
        Batch { step, cubes, seen }
    };
    let (mut sum, mut steps) = (0.0, 0);
    let loss = |net: &Painter, batch: Batch| {
        let items = batch.seen.len() / cells;
        let x = tensor(batch.cubes, patch, &net.device());
        let active = Active::new(&batch.seen, items, [patch / cell; 3], &x.device().inner());
        let intensity = x.clone().narrow(1, 0, 1);
        let painted = net.paint(x, &active);
        let loss = Loss::of(net.error(painted.clone(), intensity.clone(), &active, cell));
        (sum, steps) = (sum + loss.value, steps + 1);
        if (batch.step + 1).is_multiple_of(config.epoch_steps.max(1)) {
            let (probe, spread) = probe.score(net, patch);
            let panel = Panel::of(&intensity, &active, &net.in_units_of(painted, intensity.clone(), cell), patch);
            on_epoch(&Epoch { step: batch.step + 1, loss: sum / f64::from(steps), probe, spread, panel });
            (sum, steps) = (0.0, 0);
        }
        loss
    };
    let trained = train(Painter::new(config, device), &config.train, run_dir, sample, loss, progress)?;
    let mut weights = trained.net.into_weights();
    let (name, sizes) = match config.backbone {
        PretrainBackbone::Segformer3d => ("segformer3d", serde_json::to_string(&config.segformer3d.backbone)),
        PretrainBackbone::Resenc => ("resenc", serde_json::to_string(&config.resenc)),
    };
    weights.metadata.insert("backbone".into(), name.into());
    weights.metadata.insert("config".into(), sizes.expect("a struct of numbers is valid JSON"));
    Ok(Pretrained { weights, step: trained.step, finished: trained.finished })
}

/// Cubes of `side³` voxels as `[B, C, side, side, side]`; C follows from the length of one.
fn tensor(cubes: Vec<Vec<f32>>, side: usize, device: &Device) -> Tensor<5> {
    let (items, channels) = (cubes.len(), cubes[0].len() / side.pow(3));
    Tensor::from_data(TensorData::new(cubes.concat(), [items, channels, side, side, side]), device)
}

/// The channels of a random cube as the backbone takes them, and where its middle lies in the volume, each axis from -1 to 1. Where
/// the volume is smaller than the cube its border goes on.
fn cut(image: &Image<f32>, config: &PretrainConfig, rng: &mut impl Rng) -> (Vec<f32>, [f64; 3]) {
    let (side, shape) = (config.patch, image.grid.shape);
    let start = shape.zyx().map(|extent| rng.random_range(0..extent.saturating_sub(side) + 1));
    let place = |i: usize| [start[0] + i / side / side, start[1] + i / side % side, start[2] + i % side];
    let voxels = 0..side.pow(3);
    let mut cube: Vec<f32> = voxels.clone().map(|i| *image.at(inside(shape, place(i)))).collect();
    match config.backbone {
        PretrainBackbone::Resenc => standardise(&mut cube),
        PretrainBackbone::Segformer3d => {
            let centre = image.grid.centre();
            let world = |i: usize| {
                let [z, y, x] = place(i).map(|v| v as f64);
                let p = image.grid.affine.to_world(VoxelPoint::new(z, y, x));
                [p.x - centre.x, p.y - centre.y, p.z - centre.z].map(|mm| (mm / COORDINATE_MM) as f32)
            };
            let places: Vec<[f32; 3]> = voxels.map(world).collect();
            (0..3).for_each(|axis| cube.extend(places.iter().map(|place| place[axis])));
        }
    }
    let middle = |axis: usize| {
        let extent = shape.zyx()[axis].max(1) as f64;
        2.0 * (start[axis] as f64 + side as f64 / 2.0) / extent - 1.0
    };
    (cube, [middle(0), middle(1), middle(2)])
}

fn standardise(cube: &mut [f32]) {
    let mean = cube.iter().map(|&v| f64::from(v)).sum::<f64>() / cube.len() as f64;
    let variance = cube.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / cube.len() as f64;
    let scale = 1.0 / (variance + 1e-5).sqrt();
    cube.iter_mut().for_each(|v| *v = ((f64::from(*v) - mean) * scale) as f32);
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
        let x = plain_standardise(x.clone());
        Self { side, image: slice(x.clone()), masked: slice(active.keep(x)), painted: slice(painted.clone()) }
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
                let (cube, place) = cut(&image, config, &mut rng);
                cubes.push(cube);
                places.push(place);
            }
        }
        (!cubes.is_empty()).then_some(Self { cubes, places })
    }

    /// R² of the linear probe and mean deviation of the bottleneck's channels.
    ///
    /// Coordinates are left out: they would tell where a cube lies.
    fn score(&self, net: &Painter, side: usize) -> (f64, f64) {
        let device = net.device();
        let pooled = |cube: &Vec<f32>| -> Vec<f64> {
            let mut cube = cube.clone();
            cube[side.pow(3)..].fill(0.0);
            let bottleneck = net.bottleneck(tensor(vec![cube], side, &device));
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
    use crate::segformer3d::SegFormer3dConfig;
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
            backbone: PretrainBackbone::Resenc,
            resenc: ResEncConfig { features: vec![4, 8], blocks: vec![1, 1], ..ResEncConfig::published(1, 1) },
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
    fn the_vessel_net_s_encoder_learns_too() {
        let folder = tempfile::tempdir().unwrap();
        let backbone = SegFormer3dConfig {
            embed_dims: [8, 8, 16, 16],
            heads: [1, 1, 2, 2],
            depths: [1; 4],
            ..SegFormer3dConfig::willis()
        };
        let config = PretrainConfig {
            backbone: PretrainBackbone::Segformer3d,
            segformer3d: LightConfig { backbone: backbone.clone(), decoder_width: 32 },
            patch: 32,
            cell: 16,
            masked_share: 0.5,
            ..config(40)
        };
        let (mut losses, mut epochs) = (Vec::new(), Vec::new());
        let step = |p: &Progress<'_>| losses.push(p.loss);
        let device = Device::flex();
        // Cubes hold the whole volume, and norms take its contrast away: only its pattern tells it from others.
        let other_patterns = |i: usize| {
            let mut image = volume(i)?;
            image.voxels.iter_mut().for_each(|v| *v = (*v * (1 + i) as f32).sin());
            Some(image)
        };
        let done = fit(3, other_patterns, &config, folder.path(), &device, step, |e| epochs.push(e.clone())).unwrap();
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        assert!(mean(&losses[30..]) < 0.9 * mean(&losses[..5]), "{losses:?}");
        assert!(epochs.len() == 2 && !epochs[1].collapsed(), "{} epochs, spread {}", epochs.len(), epochs[1].spread);
        assert_eq!(done.weights.config::<SegFormer3dConfig>().unwrap(), backbone);
        done.weights.apply(crate::segformer3d::Encoder::new(&backbone, &mut Init::new(9, &device))).unwrap();
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
        let expected = run(whole.path(), None).weights;
        let mut done = run(parts.path(), Some(0.0));
        while !done.finished {
            done = run(parts.path(), Some(0.0));
        }
        assert_eq!(done.weights, expected);
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
