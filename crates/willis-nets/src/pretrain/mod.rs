//! Self-supervised pre-training by painting masked cells, on volumes without labels: SparK, MiM or
//! both with a light decoder behind the encoder of SegFormer3D or WaveFormer; S3D around the
//! residual-encoder U-Net.

mod config;
pub mod mim;
mod painter;
mod probe;
mod regions;
pub mod spark;
mod views;

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use willis_core::Image;

use crate::backbones::published::Backbone;
use crate::layers::standardise;
use crate::layers::visible::VisibleCells;
use crate::train::{Loss, StepReport, train};
use crate::weights::Weights;
use config::check;
pub use config::{Method, NestedConfig, PretrainConfig, PretrainError};
use painter::Painter;
use probe::Probe;
use views::Level;

/// What is reported after each epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Epoch {
    /// Steps done.
    pub step: usize,
    /// Mean loss since the last report.
    pub loss: f64,
    /// Explained variance (R²) with which a linear map of the bottleneck tells where in the head a
    /// cube of the other half of the probe lies; at most 1, about 0 for features that know nothing.
    pub probe: f64,
    /// Mean deviation of the bottleneck's channels over the probe's cubes; near 0 the encoder has
    /// collapsed.
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
    /// Averaged weights of the residual-encoder U-Net or of the other backbones' encoder, with
    /// `backbone` and `config` in the metadata.
    pub weights: Weights,
    /// Steps done.
    pub step: usize,
    /// Whether all steps are done.
    pub finished: bool,
}

/// Pre-trains on `count` volumes, which `volume` reads one at a time, or goes on with the run in
/// `run_dir`.
///
/// # Errors
/// [`PretrainError`]
pub fn fit(
    count: usize,
    volume: impl Fn(usize) -> Option<Image<f32>> + Sync,
    config: &PretrainConfig,
    run_dir: &Path,
    device: &Device,
    progress: impl FnMut(&StepReport<'_>),
    mut on_epoch: impl FnMut(&Epoch) + Send,
) -> Result<Pretrained, PretrainError> {
    check(config)?;
    let probe = Probe::draw(count, &volume, config).ok_or(PretrainError::NoVolumes)?;
    // A volume that cannot be read any more is passed over; the probe has shown that there are
    // readable ones.
    let any_volume = |rng: &mut ChaCha8Rng| loop {
        if let Some(image) = volume(rng.random_range(0..count)) {
            return image;
        }
    };
    let sample = |step: usize, rng: &mut ChaCha8Rng| (step, views::draw(any_volume, config, rng));
    let (mut sum, mut steps) = (0.0, 0);
    let loss = |net: &Painter, (step, levels): (usize, Vec<Level>)| {
        let (loss, panel) = step_loss(net, levels, config);
        (sum, steps) = (sum + loss.value, steps + 1);
        if (step + 1).is_multiple_of(config.epoch_steps.max(1)) {
            let (probe, spread) = probe.score(net, config.patch);
            on_epoch(&Epoch { step: step + 1, loss: sum / f64::from(steps), probe, spread, panel: panel() });
            (sum, steps) = (0.0, 0);
        }
        loss
    };
    let trained = train(Painter::new(config, device), &config.train, run_dir, sample, loss, progress)?;
    let mut weights = trained.net.into_weights();
    let sizes = match config.backbone {
        Backbone::Segformer3d => serde_json::to_string(&config.segformer3d),
        Backbone::Waveformer => serde_json::to_string(&config.waveformer),
        Backbone::Resenc => serde_json::to_string(&config.resenc),
    };
    weights.metadata.insert("backbone".into(), config.backbone.name().into());
    weights.metadata.insert("config".into(), sizes.expect("a struct of numbers is valid JSON"));
    Ok(Pretrained { weights, step: trained.step, finished: trained.finished })
}

/// Loss of a step, summed over its levels, and how to make the panel of its first cube at the
/// volume's own resolution.
fn step_loss<'a>(
    net: &'a Painter,
    levels: Vec<Level>,
    config: &PretrainConfig,
) -> (Loss, impl FnOnce() -> Panel + use<'a>) {
    const PAINT: [&str; 3] = ["paint_1", "paint_2", "paint_3"];
    const ALIGN: [&str; 3] = ["", "align_2", "align_3"];
    const COUNT: [&str; 3] = ["count_1", "count_2", "count_3"];
    const POSITION: [&str; 3] = ["position_1", "position_2", "position_3"];
    let (patch, cell, nested) = (config.patch, config.cell, &config.nested);
    let grid = patch / cell;
    let native = levels.len().min(2) - 1;
    let (mut total, mut terms, mut shown, mut outer) = (None, Vec::new(), None, None);
    let mut add = |name: &'static str, term: Tensor<1>, weight: f64| {
        terms.push((name, f64::from(term.clone().into_scalar::<f32>())));
        let term = term * weight;
        total = Some(match total.take() {
            Some(total) => total + term,
            None => term,
        });
    };
    for (number, level) in levels.into_iter().enumerate() {
        let items = level.cubes.len();
        let x = tensor(level.cubes, patch, &net.device());
        let visible = VisibleCells::new(&level.seen, items, [grid; 3], &x.device().inner());
        let intensity = x.clone().narrow(1, 0, 1);
        let painting = net.paint(x, &visible);
        add(PAINT[number], net.error(painting.image.clone(), intensity.clone(), &visible, cell), 1.0);
        if let (Some(net), Some(coarsest)) = (net.nested(), painting.coarsest)
            && let Some(errors) = net.region_errors(coarsest, &level.seen, grid)
        {
            add(COUNT[number], errors.count, nested.count_weight);
            add(POSITION[number], errors.position, nested.position_weight);
        }
        let both = painting.cells.clone().zip(outer.take()).filter(|_| nested.align_weight > 0.0);
        if let (Some((children, parents)), Some(net)) = (both, net.nested()) {
            let term = net.alignment(number, children, parents, &level.parents, nested.temperature);
            add(ALIGN[number], term, nested.align_weight);
        }
        outer = painting.cells;
        if number == native {
            shown = Some((intensity, visible, painting.image));
        }
    }
    let total: Tensor<1> = total.expect("there is at least one level");
    let (intensity, visible, painted) = shown.expect("one level is native");
    let panel = move || Panel::of(&intensity, &visible, &net.in_units_of(painted, intensity.clone(), cell), patch);
    (Loss { terms, ..Loss::of(total) }, panel)
}

/// Cubes of `side³` voxels as `[B, C, side, side, side]`; C follows from the length of one.
fn tensor(cubes: Vec<Vec<f32>>, side: usize, device: &Device) -> Tensor<5> {
    let (items, channels) = (cubes.len(), cubes[0].len() / side.pow(3));
    Tensor::from_data(TensorData::new(cubes.concat(), [items, channels, side, side, side]), device)
}

impl Panel {
    fn of(x: &Tensor<5>, visible: &VisibleCells, painted: &Tensor<5>, side: usize) -> Self {
        let slice = |t: Tensor<5>| -> Vec<f32> {
            let values: Vec<f32> = t.into_data().convert::<f32>().try_to_vec().expect("data was just converted to f32");
            values[side / 2 * side * side..][..side * side].to_vec()
        };
        let x = standardise(x.clone());
        Self { side, image: slice(x.clone()), masked: slice(visible.mask(x)), painted: slice(painted.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbones::resenc::ResEncConfig;
    use crate::backbones::segformer3d::SegFormer3dConfig;
    use crate::backbones::waveformer::WaveformerConfig;
    use crate::layers::Init;
    use crate::pretrain::spark::EncoderConfig;
    use crate::pretrain::spark::tests::{tiny, tiny_waveformer};
    use crate::train::TrainConfig;
    use willis_core::{Affine, Grid, Point, Shape, Spacing};

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
            backbone: Backbone::Resenc,
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
        let step = |p: &StepReport<'_>| losses.push(p.loss);
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
            backbone: Backbone::Segformer3d,
            segformer3d: backbone.clone(),
            decoder_width: 32,
            patch: 32,
            cell: 16,
            masked_share: 0.5,
            ..config(40)
        };
        let (mut losses, mut epochs) = (Vec::new(), Vec::new());
        let step = |p: &StepReport<'_>| losses.push(p.loss);
        let device = Device::flex();
        // Cubes hold the whole volume, and norms take its contrast away: only its pattern tells it
        // from others.
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
        done.weights.apply(crate::backbones::segformer3d::Encoder::new(&backbone, &mut Init::new(9, &device))).unwrap();
    }

    #[test]
    fn nested_masks_are_learned_on_every_level() {
        let folder = tempfile::tempdir().unwrap();
        let (EncoderConfig::Segformer3d(segformer3d), EncoderConfig::Waveformer(waveformer)) =
            (tiny().encoder, tiny_waveformer().encoder)
        else {
            panic!("one of each")
        };
        for (method, backbone) in [
            (Method::Mim, Backbone::Segformer3d),
            (Method::SparkMim, Backbone::Segformer3d),
            (Method::SparkMim, Backbone::Waveformer),
        ] {
            let config = PretrainConfig {
                method,
                backbone,
                segformer3d: SegFormer3dConfig { in_channels: 4, ..segformer3d.clone() },
                waveformer: WaveformerConfig { in_channels: 4, ..waveformer.clone() },
                decoder_width: 32,
                patch: 32,
                cell: 16,
                batch: 1,
                ..config(20)
            };
            let mut steps = Vec::new();
            let step = |p: &StepReport<'_>| steps.push(p.terms.to_vec());
            let run = folder.path().join(format!("{method:?}{backbone:?}"));
            let done = fit(2, volume, &config, &run, &Device::flex(), step, |_| ()).unwrap();
            assert!(done.finished);
            let names: Vec<&str> = steps[0].iter().map(|(name, _)| *name).collect();
            assert_eq!(names, ["paint_1", "paint_2", "align_2", "paint_3", "align_3"]);
            let mean = |from: usize, term: usize| steps[from..from + 5].iter().map(|s| s[term].1).sum::<f64>() / 5.0;
            assert!(mean(15, 0) < mean(0, 0) && mean(15, 1) < mean(0, 1), "{steps:?}");
        }
        let hybrid = PretrainConfig {
            method: Method::Mim,
            backbone: Backbone::Segformer3d,
            segformer3d: SegFormer3dConfig { in_channels: 4, ..segformer3d },
            decoder_width: 32,
            patch: 32,
            cell: 16,
            nested: NestedConfig { count_weight: 0.1, position_weight: 0.1, ..NestedConfig::default() },
            ..config(30)
        };
        let mut steps = Vec::new();
        let run = folder.path().join("hybrid");
        let step = |p: &StepReport<'_>| steps.push(p.terms.to_vec());
        fit(2, volume, &hybrid, &run, &Device::flex(), step, |_| ()).unwrap();
        let names: Vec<&str> = steps[0].iter().map(|(name, _)| *name).collect();
        let painted_and_asked = ["paint_1", "count_1", "position_1", "paint_2", "count_2", "position_2", "align_2"];
        assert_eq!(names[..7], painted_and_asked);
        // With one region to a cube the count is always the same, so it is learned at once.
        assert!((1..=4).step_by(3).all(|count| steps[29][count].1 < 0.2 * steps[0][count].1), "{steps:?}");
        let told = PretrainConfig { method: Method::SparkMim, ..hybrid };
        let refused = fit(2, volume, &told, folder.path(), &Device::flex(), |_| (), |_| ());
        assert!(matches!(refused, Err(PretrainError::Net { .. })));
        let childless = PretrainConfig {
            method: Method::Mim,
            backbone: Backbone::Segformer3d,
            patch: 32,
            cell: 16,
            nested: NestedConfig { middle: 0, ..NestedConfig::default() },
            ..PretrainConfig::default()
        };
        let refused = fit(2, volume, &childless, folder.path(), &Device::flex(), |_| (), |_| ());
        assert!(matches!(refused, Err(PretrainError::Net { .. })));
        let resenc = PretrainConfig { method: Method::Mim, ..config(1) };
        let refused = fit(2, volume, &resenc, folder.path(), &Device::flex(), |_| (), |_| ());
        assert!(matches!(refused, Err(PretrainError::Net { .. })));
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
}
