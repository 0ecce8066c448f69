//! Self-supervised pre-training of backbones by reconstruction of masked cells: SparK, MiM or both.
//!
//! SegFormer3D and WaveFormer are pre-trained with a light decoder behind their encoder, the
//! residual-encoder U-Net with its own decoder (S3D).

mod config;
mod crops;
mod mim;
mod net;
mod probe;
#[cfg(test)]
mod published_mim;
mod regions;
pub mod spark;

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use willis_core::Image;
use willis_core::files::FileError;

use crate::backbones;
use crate::layers::Init;
use crate::layers::standardise;
use crate::layers::visible::VisibleCells;
use crate::train::{Loss, StepReport, try_train};
use crate::weights::Weights;
pub use config::{Method, MimConfig, PretrainConfig, PretrainError, SparkConfig};
use crops::Level;
use net::PretrainNet;
use probe::Probe;

/// Report after each epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Epoch {
    /// Number of completed steps.
    pub step: usize,
    /// Mean loss since the last report.
    pub loss: f64,
    /// Explained variance (R²) of a linear map from the bottleneck's features to the cube's place
    /// in the head, fitted on half of the probe's cubes and measured on the other half. At most 1,
    /// and about 0 for uninformative features.
    pub probe: f64,
    /// Mean standard deviation of the bottleneck's channels over the probe's cubes.
    pub spread: f64,
    /// The middle slice of a cube.
    pub panel: Panel,
}

impl Epoch {
    /// Whether the encoder has collapsed: it maps all cubes to nearly the same features.
    pub fn collapsed(&self) -> bool {
        self.spread < 1e-3
    }
}

/// Slices of `side x side` voxels, in the same standardised units.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Voxels along each side.
    pub side: usize,
    /// The cube.
    pub image: Vec<f32>,
    /// The cube with zeros in masked cells.
    pub masked: Vec<f32>,
    /// The reconstruction.
    pub reconstruction: Vec<f32>,
}

/// A pre-trained backbone.
#[derive(Debug)]
pub struct Pretrained {
    /// Averaged weights of the residual-encoder U-Net or of the other backbones' encoder, with the
    /// [`BackboneConfig`](backbones::BackboneConfig) and the revision in the metadata.
    pub weights: Weights,
    /// Number of completed steps.
    pub step: usize,
    /// Whether all steps are completed.
    pub finished: bool,
}

/// Pre-trains on `count` volumes, which `volume` reads by number, or resumes the run in `run_dir`.
///
/// A volume that cannot be read is skipped while another one can.
///
/// # Errors
/// an invalid configuration, no readable volume, or an error of the training loop
pub fn fit(
    count: usize,
    volume: impl Fn(usize) -> Result<Image<f32>, FileError> + Sync,
    config: &PretrainConfig,
    run_dir: &Path,
    device: &Device,
    on_step: impl FnMut(&StepReport<'_>),
    mut on_epoch: impl FnMut(&Epoch) + Send,
) -> Result<Pretrained, PretrainError> {
    config.validate()?;
    let probe = Probe::draw(count, &volume, config)?;
    let sample = |step: usize, rng: &mut ChaCha8Rng| {
        Ok((step, crops::draw(|rng| crops::draw_volume(count, &volume, rng), config, rng)?))
    };
    let (mut sum, mut steps) = (0.0, 0);
    let loss = |net: &PretrainNet, (step, levels): (usize, Vec<Level>)| {
        let (loss, panel) = step_loss(net, levels, config);
        (sum, steps) = (sum + loss.value, steps + 1);
        if (step + 1).is_multiple_of(config.epoch_steps) {
            let (probe, spread) = probe.score(net, config.patch);
            on_epoch(&Epoch { step: step + 1, loss: sum / f64::from(steps), probe, spread, panel: panel() });
            (sum, steps) = (0.0, 0);
        }
        loss
    };
    let net = config.init(&mut Init::new(config.train.seed, device));
    let trained = try_train(net, &config.train, run_dir, sample, loss, on_step)?;
    let weights = trained.net.backbone_weights().described(&config.backbone, backbones::REVISION);
    Ok(Pretrained { weights, step: trained.step, finished: trained.finished })
}

/// Loss of a step, summed over its levels, and a function that makes the panel of the first cube at
/// the volume's own resolution.
fn step_loss<'a>(
    net: &'a PretrainNet,
    levels: Vec<Level>,
    config: &PretrainConfig,
) -> (Loss, impl FnOnce() -> Panel + use<'a>) {
    // Column names of the log.
    const PAINT: [&str; 3] = ["paint_1", "paint_2", "paint_3"];
    const ALIGN: [&str; 3] = ["", "align_2", "align_3"];
    const COUNT: [&str; 3] = ["count_1", "count_2", "count_3"];
    const POSITION: [&str; 3] = ["position_1", "position_2", "position_3"];
    let (patch, cell) = (config.patch, config.cell);
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
        let visible = VisibleCells::new(&level.visible, items, [grid; 3], &x.device().inner());
        let intensity = x.clone().narrow(1, 0, 1);
        let output = net.forward(x, &visible);
        add(PAINT[number], net.error(output.reconstruction.clone(), intensity.clone(), &visible, cell), 1.0);
        if let (Method::Mim(mim) | Method::SparkMim(mim), Some(net)) = (&config.method, net.mim()) {
            if let Some(errors) = output.coarsest.and_then(|x| net.region_errors(x, &level.visible, grid)) {
                add(COUNT[number], errors.count, mim.count_weight);
                add(POSITION[number], errors.position, mim.position_weight);
            }
            let both = output.cells.clone().zip(outer.take()).filter(|_| mim.align_weight > 0.0);
            if let Some((children, parents)) = both {
                let term = net.alignment(number, children, parents, &level.parents, mim.temperature);
                add(ALIGN[number], term, mim.align_weight);
            }
            outer = output.cells;
        }
        if number == native {
            shown = Some((intensity, visible, output.reconstruction));
        }
    }
    let total: Tensor<1> = total.expect("there is at least one level");
    let (intensity, visible, reconstruction) = shown.expect("one level has the volume's own resolution");
    let panel =
        move || Panel::of(&intensity, &visible, &net.in_units_of(reconstruction, intensity.clone(), cell), patch);
    (Loss { terms, ..Loss::of(total) }, panel)
}

/// Cubes of `side³` voxels as `[B, C, side, side, side]`; C follows from the length of one.
fn tensor(cubes: Vec<Vec<f32>>, side: usize, device: &Device) -> Tensor<5> {
    let (items, channels) = (cubes.len(), cubes[0].len() / side.pow(3));
    Tensor::from_data(TensorData::new(cubes.concat(), [items, channels, side, side, side]), device)
}

impl Panel {
    fn of(x: &Tensor<5>, visible: &VisibleCells, reconstruction: &Tensor<5>, side: usize) -> Self {
        let slice = |t: Tensor<5>| -> Vec<f32> {
            let values: Vec<f32> = t.into_data().convert::<f32>().try_to_vec().expect("data was just converted to f32");
            values[side / 2 * side * side..][..side * side].to_vec()
        };
        let x = standardise(x.clone());
        let masked = slice(visible.mask(x.clone()));
        Self { side, image: slice(x), masked, reconstruction: slice(reconstruction.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::backbones::BackboneConfig;
    use crate::backbones::resenc::ResEncConfig;
    use crate::pretrain::spark::tests::{tiny_segformer, tiny_waveformer};
    use crate::train::TrainConfig;
    use willis_core::files::case;
    use willis_core::{Affine, Grid, Point, SeriesMeta, Shape, Spacing, TrainingCase};

    /// A volume whose spatial frequency rises towards one side.
    fn image(i: usize) -> Image<f32> {
        let grid =
            Grid::new(Shape::new(24, 20, 28), Affine::axis_aligned(Spacing::isotropic(1.0), Point::new(0.0, 0.0, 0.0)));
        let value = |offset: usize| {
            let at = grid.shape.index(offset);
            ((at.x as f32 * (0.3 + 0.02 * at.z as f32)).sin() + at.y as f32 * 0.05) * (1.0 + i as f32 * 0.1)
        };
        Image::new(grid, (0..grid.shape.len()).map(value).collect())
    }

    fn volume(i: usize) -> Result<Image<f32>, FileError> {
        Ok(image(i))
    }

    fn config(steps: usize) -> PretrainConfig {
        let resenc = ResEncConfig { features: vec![4, 8], blocks: vec![1, 1], ..ResEncConfig::published(1, 1) };
        PretrainConfig {
            backbone: BackboneConfig::ResEnc(resenc),
            train: TrainConfig { steps, learning_rate: 0.01, warmup_steps: 2, ..TrainConfig::default() },
            patch: 16,
            cell: 4,
            epoch_steps: 20,
            probe_cubes: 12,
            ..PretrainConfig::default()
        }
    }

    /// The recipe around an encoder that takes intensity and coordinates.
    fn with_encoder(backbone: BackboneConfig, steps: usize) -> PretrainConfig {
        PretrainConfig { backbone, decoder_width: 32, patch: 32, cell: 16, ..config(steps) }
    }

    fn mean(losses: &[f64]) -> f64 {
        losses.iter().sum::<f64>() / losses.len() as f64
    }

    #[test]
    fn the_u_net_learns_to_reconstruct_masked_cells() {
        let folder = tempfile::tempdir().unwrap();
        let (mut losses, mut epochs) = (Vec::new(), Vec::new());
        let device = Device::flex();
        let step = |p: &StepReport<'_>| losses.push(p.loss);
        let done = fit(3, volume, &config(60), folder.path(), &device, step, |e| epochs.push(e.clone())).unwrap();
        assert!(done.finished && done.step == 60);
        assert_eq!(epochs.iter().map(|e| e.step).collect::<Vec<_>>(), [20, 40, 60]);
        assert!(mean(&losses[50..]) < 0.8 * mean(&losses[..5]), "{losses:?}");
        let last = &epochs[2];
        assert!(!last.collapsed() && last.probe <= 1.0 && last.panel.reconstruction.len() == 256);
        assert!(last.panel.masked.iter().filter(|v| **v == 0.0).count() > 100);
    }

    #[test]
    fn an_encoder_learns_to_reconstruct_masked_cells() {
        let folder = tempfile::tempdir().unwrap();
        let spark = Method::Spark(SparkConfig { masked_share: 0.5 });
        let config = PretrainConfig { method: spark, ..with_encoder(tiny_segformer(4).encoder, 40) };
        let (mut losses, mut epochs) = (Vec::new(), Vec::new());
        let step = |p: &StepReport<'_>| losses.push(p.loss);
        let device = Device::flex();
        // A cube holds the whole volume, and norms remove its contrast, so volumes must differ in
        // their pattern.
        let patterns = |i: usize| {
            let mut image = image(i);
            image.voxels.iter_mut().for_each(|v| *v = (*v * (1 + i) as f32).sin());
            Ok(image)
        };
        let done = fit(3, patterns, &config, folder.path(), &device, step, |e| epochs.push(e.clone())).unwrap();
        assert!(mean(&losses[30..]) < 0.9 * mean(&losses[..5]), "{losses:?}");
        assert!(epochs.len() == 2 && !epochs[1].collapsed(), "{} epochs, spread {}", epochs.len(), epochs[1].spread);
        assert_eq!(done.weights.config::<BackboneConfig>().unwrap(), config.backbone);
        let BackboneConfig::SegFormer3d(sizes) = config.backbone else { panic!("SegFormer3D was configured") };
        done.weights.apply(sizes.init_encoder(&mut Init::new(9, &device))).unwrap();
    }

    #[test]
    fn mim_learns_on_every_level() {
        let folder = tempfile::tempdir().unwrap();
        for (number, method, backbone) in [
            (0, Method::Mim(MimConfig::default()), tiny_segformer(4).encoder),
            (1, Method::SparkMim(MimConfig::default()), tiny_segformer(4).encoder),
            (2, Method::SparkMim(MimConfig::default()), tiny_waveformer(4).encoder),
        ] {
            let config = PretrainConfig { method, batch: 1, ..with_encoder(backbone, 20) };
            let mut steps = Vec::new();
            let step = |p: &StepReport<'_>| steps.push(p.terms.to_vec());
            let run = folder.path().join(number.to_string());
            let done = fit(2, volume, &config, &run, &Device::flex(), step, |_| ()).unwrap();
            assert!(done.finished);
            let names: Vec<&str> = steps[0].iter().map(|(name, _)| *name).collect();
            assert_eq!(names, ["paint_1", "paint_2", "align_2", "paint_3", "align_3"]);
            let mean = |from: usize, term: usize| steps[from..from + 5].iter().map(|s| s[term].1).sum::<f64>() / 5.0;
            assert!(mean(15, 0) < mean(0, 0) && mean(15, 1) < mean(0, 1), "{steps:?}");
        }
    }

    #[test]
    fn the_region_losses_are_learned() {
        let folder = tempfile::tempdir().unwrap();
        let mim = MimConfig { count_weight: 0.1, position_weight: 0.1, ..MimConfig::default() };
        let config = PretrainConfig { method: Method::Mim(mim), ..with_encoder(tiny_segformer(4).encoder, 30) };
        let mut steps = Vec::new();
        let step = |p: &StepReport<'_>| steps.push(p.terms.to_vec());
        fit(2, volume, &config, folder.path(), &Device::flex(), step, |_| ()).unwrap();
        let names: Vec<&str> = steps[0].iter().map(|(name, _)| *name).collect();
        let expected = ["paint_1", "count_1", "position_1", "paint_2", "count_2", "position_2", "align_2"];
        assert_eq!(names[..7], expected);
        // With one region per cube the count is always the same, so it is learned fast.
        assert!((1..=4).step_by(3).all(|count| steps[29][count].1 < 0.2 * steps[0][count].1), "{steps:?}");
    }

    #[test]
    fn a_stopped_run_resumes_to_the_same_bytes() {
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
    fn a_run_ends_when_every_volume_becomes_unreadable() {
        let folder = tempfile::tempdir().unwrap();
        let volumes: Vec<_> = (0..3).map(|i| folder.path().join(i.to_string())).collect();
        for (i, volume) in volumes.iter().enumerate() {
            let unlabelled = Image::filled(image(i).grid, 0u8);
            let case = TrainingCase {
                image: image(i),
                sites: unlabelled.clone(),
                aneurysm: unlabelled,
                lesions: Vec::new(),
                meta: SeriesMeta::default(),
            };
            case::save(volume, &case).unwrap();
        }
        let run = folder.path().join("run");
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let read = |i: usize| case::load(&volumes[i]).map(|case| case.image);
            // After the second step one volume is deleted and the others are cut off.
            let damage = |p: &StepReport<'_>| {
                if p.step == 2 {
                    std::fs::remove_dir_all(&volumes[0]).unwrap();
                    volumes[1..].iter().for_each(|v| std::fs::write(v.join(case::FILE_NAME), b"cut off").unwrap());
                }
            };
            // Nobody listens when the test has already timed out.
            let _ = sender.send(fit(3, read, &config(1_000_000), &run, &Device::flex(), damage, |_| ()));
        });
        let error = receiver.recv_timeout(Duration::from_secs(60)).expect("the run ends").unwrap_err();
        assert!(matches!(error, PretrainError::Unreadable { count: 3, .. }), "{error}");
        assert!(error.to_string().starts_with("none of 3 volumes can be read; the last error was: "), "{error}");
    }

    #[test]
    fn configurations_that_do_not_fit_together_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let segformer = || with_encoder(tiny_segformer(4).encoder, 1);
        let mim = |config: MimConfig| Method::Mim(config);
        let told = MimConfig { count_weight: 0.1, ..MimConfig::default() };
        for (config, message) in [
            (PretrainConfig { patch: 18, ..config(1) }, "patch = 18 must be a multiple of 4, the side of a cell"),
            (
                PretrainConfig { cell: 5, ..config(1) },
                "cell = 5 must be a multiple of 2, to which the backbone resolves masks",
            ),
            (PretrainConfig { patch: 0, ..config(1) }, "patch = 0 must be at least 1"),
            (PretrainConfig { batch: 0, ..config(1) }, "batch = 0 must be at least 1"),
            (
                PretrainConfig { method: mim(MimConfig::default()), ..config(1) },
                "method.kind = mim is not available for the U-Net; use spark",
            ),
            (
                PretrainConfig { method: mim(MimConfig { middle: 0, ..MimConfig::default() }), ..segformer() },
                "method.middle = 0 must be at least 1",
            ),
            (
                PretrainConfig { method: Method::SparkMim(told), ..segformer() },
                "method.count_weight = 0.1 must be 0 for spark_mim, whose encoder is given the mask",
            ),
            (
                PretrainConfig { backbone: tiny_segformer(1).encoder, ..segformer() },
                "backbone.in_channels = 1 must be 4",
            ),
            (
                PretrainConfig { patch: 64, ..with_encoder(tiny_waveformer(4).encoder, 1) },
                "backbone.size = [32, 32, 32] must be [64, 64, 64], the sides of the patches",
            ),
        ] {
            let error = fit(1, volume, &config, folder.path(), &Device::flex(), |_| (), |_| ()).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        let none = fit(0, volume, &config(1), folder.path(), &Device::flex(), |_| (), |_| ());
        assert!(matches!(none, Err(PretrainError::NoVolumes)));
        assert_eq!(PretrainConfig::default().validate(), Ok(()));
    }
}
