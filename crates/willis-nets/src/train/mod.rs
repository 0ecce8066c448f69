//! The training loop of every net: an optimiser with warm-up and cosine decay of the learning rate, a
//! moving average of the weights, and checkpoints from which a run resumes exactly.
//!
//! Everything random in a step comes from a generator seeded by the run's seed and the number of
//! the batch. A checkpoint therefore holds no generator state, and an interrupted run ends in the
//! same bytes as an uninterrupted one.

mod checkpoint;
mod config;
mod log;
mod optimiser;
mod schedule;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use willis_core::InvalidValue;
use willis_kernels::runtime::keep_threads_awake;

use crate::weights::{Weights, WeightsError};
use checkpoint::TrainState;
pub use config::TrainConfig;
pub use log::LOG;
use log::TrainLog;
use optimiser::gradients;
pub use optimiser::{AdamWConfig, LossPhase, NetOptimiser, PdscaConfig, PesgConfig, SaddleConfig};
pub use schedule::learning_rate;

/// Error of a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A configuration value breaks a rule.
    #[error(transparent)]
    Config(#[from] InvalidValue),
    /// A checkpoint cannot be read or written, or belongs to another net.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A file or folder of the run cannot be written.
    #[error("cannot write {}; check the path and free space", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The checkpoint in the run's folder was written with another configuration.
    #[error("{} was written with another configuration; train into a new folder or restore that configuration", path.display())]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
    },
    /// A batch cannot be made.
    #[error(transparent)]
    Batch(BatchError),
    /// The loss is infinite or not a number.
    #[error("the loss is not finite at step {step}; lower the learning rate")]
    Diverged {
        /// Number of the step, from 0.
        step: usize,
    },
}

/// Why a batch cannot be made.
pub type BatchError = Box<dyn std::error::Error + Send + Sync>;

/// Loss of a batch.
#[derive(Debug)]
pub struct Loss {
    /// Tensor to start the backward pass from. Only its gradient is used, not its value.
    pub tensor: Tensor<1>,
    /// Value of the loss.
    pub value: f64,
    /// Terms of the loss by name, for the log.
    pub terms: Vec<(&'static str, f64)>,
}

impl Loss {
    /// A loss without terms whose value is that of its tensor.
    pub fn of(tensor: Tensor<1>) -> Self {
        let value = f64::from(tensor.clone().into_scalar::<f32>());
        Self { tensor, value, terms: Vec::new() }
    }
}

/// Report of an optimiser step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport<'a> {
    /// Steps done, this one included.
    pub step: usize,
    /// Steps of the whole run.
    pub steps: usize,
    /// Loss, averaged over the batches of the step.
    pub loss: f64,
    /// Terms of the loss by name, averaged over the batches of the step.
    pub terms: &'a [(&'static str, f64)],
}

/// Outcome of a training run.
#[derive(Debug)]
pub struct Trained<M> {
    /// The net with averaged weights, on its device without autodiff.
    pub net: M,
    /// Steps done.
    pub step: usize,
    /// Whether all steps are done. If not, the time limit was reached and another call resumes the
    /// run.
    pub finished: bool,
}

/// Name of the checkpoint in a run's folder.
pub const CHECKPOINT: &str = "checkpoint.safetensors";

/// Trains a net, or resumes the run in `run_dir`.
///
/// `sample(number, rng)` makes batch `number` on a thread of its own, one batch ahead of the
/// training. `loss(net, batch)` is the loss of a batch. The checkpoint and the log are written to
/// `run_dir`.
///
/// # Errors
/// [`TrainError`] when the configuration is invalid, the checkpoint belongs to another run, a file
/// cannot be written, or the loss is not finite.
pub fn train<M: Module + Sync, B: Send>(
    net: M,
    config: &TrainConfig,
    run_dir: &Path,
    sample: impl Fn(usize, &mut ChaCha8Rng) -> B + Sync,
    loss: impl FnMut(&M, B) -> Loss + Send,
    on_step: impl FnMut(&StepReport<'_>),
) -> Result<Trained<M>, TrainError> {
    try_train(net, config, run_dir, |number, rng| Ok(sample(number, rng)), loss, on_step)
}

/// [`train`] with batches that can fail; a failure ends the run.
///
/// # Errors
/// those of [`train`], and [`TrainError::Batch`]
pub fn try_train<M: Module + Sync, B: Send>(
    net: M,
    config: &TrainConfig,
    run_dir: &Path,
    sample: impl Fn(usize, &mut ChaCha8Rng) -> Result<B, BatchError> + Sync,
    mut loss: impl FnMut(&M, B) -> Loss + Send,
    mut on_step: impl FnMut(&StepReport<'_>),
) -> Result<Trained<M>, TrainError> {
    config.validate()?;
    fs::create_dir_all(run_dir).map_err(|source| TrainError::Io { path: run_dir.to_path_buf(), source })?;
    let path = run_dir.join(CHECKPOINT);
    let mut net = net.train();
    let mut state = TrainState::load_or_new(&path, &net, config)?;
    net = state.net.clone().apply(net)?;
    let mut log = TrainLog::open(&run_dir.join(LOG), state.step)?;
    let start = Instant::now();
    let accumulate = config.accumulate;
    let batches = state.step * accumulate..config.steps * accumulate;
    let net = std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(1);
        let sample = &sample;
        scope.spawn(move || {
            for number in batches {
                // The receiver is gone once training has stopped.
                if sender.send(sample(number, &mut batch_rng(config.seed, number))).is_err() {
                    break;
                }
            }
        });
        // Moved into this closure, so that it is dropped, and the sampling thread ends, when
        // training stops early.
        let receiver = receiver;
        let mut saved = Instant::now();
        while state.step < config.steps {
            let mut gradient_sum = Weights::default();
            let mut mean = MeanLoss::default();
            for _ in 0..accumulate {
                // Received outside the pool: a pool of one thread must stay free to make the batch.
                let batch = receiver.recv().expect("the sampling thread makes a batch for every step or panics");
                let batch = batch.map_err(TrainError::Batch)?;
                let (value, terms, gradient) = keep_threads_awake(|| {
                    let Loss { tensor, value, terms } = loss(&net, batch);
                    (value, terms, gradients(&net, &mut tensor.backward()))
                });
                if !value.is_finite() {
                    return Err(TrainError::Diverged { step: state.step });
                }
                mean.add(value / accumulate as f64, terms);
                gradient_sum.add_scaled(&gradient, 1.0 / accumulate as f32);
            }
            let (value, terms) = mean.into_parts();
            state.update(&gradient_sum, learning_rate(config, state.step), config);
            net = state.net.clone().apply(net)?;
            log.write(state.step, value, &terms)?;
            on_step(&StepReport { step: state.step, steps: config.steps, loss: value, terms: &terms });
            let out_of_time = config.max_seconds.is_some_and(|limit| start.elapsed().as_secs_f64() >= limit);
            let done = state.step == config.steps || out_of_time;
            if done || saved.elapsed() >= Duration::from_secs_f64(config.checkpoint_seconds) {
                state.save(&path, config)?;
                saved = Instant::now();
            }
            if done {
                break;
            }
        }
        Ok::<M, TrainError>(net)
    })?;
    let finished = state.step >= config.steps;
    Ok(Trained { net: state.average.apply(net.valid())?, step: state.step, finished })
}

/// Loss of an optimiser step and its terms, averaged over the batches of the step.
#[derive(Default)]
struct MeanLoss {
    value: f64,
    /// Sum of each term and number of batches that have it, in order of first appearance.
    terms: Vec<(&'static str, f64, usize)>,
}

impl MeanLoss {
    /// Adds a batch: its share of the mean loss, and its terms.
    fn add(&mut self, share: f64, terms: Vec<(&'static str, f64)>) {
        self.value += share;
        for (name, value) in terms {
            match self.terms.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, sum, count)) => (*sum, *count) = (*sum + value, *count + 1),
                None => self.terms.push((name, value, 1)),
            }
        }
    }

    fn into_parts(self) -> (f64, Vec<(&'static str, f64)>) {
        let mean = |(name, sum, count)| (name, sum / count as f64);
        (self.value, self.terms.into_iter().map(mean).collect())
    }
}

/// Generator of one batch.
fn batch_rng(seed: u64, number: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number as u64 + 1);
    rng
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use rand::RngExt;

    use super::*;
    use crate::layers::{Init, Linear, LinearConfig};

    /// Fits `y = 2 a - 3 b + 1` from random points.
    fn run(config: &TrainConfig, run_dir: &Path, seen: &mut Vec<f64>) -> Trained<Linear> {
        let device = Device::flex();
        let net = LinearConfig::new(2, 1).init(&mut Init::new(5, &device));
        let sample = |_: usize, rng: &mut ChaCha8Rng| -> Vec<[f32; 2]> {
            (0..16).map(|_| [rng.random::<f32>() - 0.5, rng.random::<f32>() - 0.5]).collect()
        };
        let loss = |net: &Linear, batch: Vec<[f32; 2]>| {
            let truth: Vec<f32> = batch.iter().map(|[a, b]| 2.0 * a - 3.0 * b + 1.0).collect();
            let device = net.weight.val().device();
            let x = Tensor::<1>::from_floats(batch.as_flattened(), &device).reshape([16, 2]);
            let y = Tensor::<1>::from_floats(truth.as_slice(), &device).reshape([16, 1]);
            Loss::of((net.forward(x) - y).square().mean())
        };
        train(net, config, run_dir, sample, loss, |report| seen.push(report.loss)).unwrap()
    }

    fn config() -> TrainConfig {
        let optimiser = NetOptimiser::AdamW(AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() });
        TrainConfig { steps: 300, learning_rate: 0.05, optimiser, ema_decay: 0.9, ..TrainConfig::default() }
    }

    #[test]
    fn a_line_is_fitted() {
        let folder = tempfile::tempdir().unwrap();
        let trained = run(&config(), folder.path(), &mut Vec::new());
        assert!(trained.finished && trained.step == 300);
        let weights = Weights::of(&trained.net);
        for (got, expected) in weights.get("weight").unwrap().iter().zip([2.0, -3.0]) {
            assert!((got - expected).abs() < 0.05, "{got}, expected {expected}");
        }
        assert!((weights.get("bias").unwrap()[0] - 1.0).abs() < 0.02);
        let log = fs::read_to_string(folder.path().join(LOG)).unwrap();
        assert_eq!(log.lines().next(), Some("step,loss"));
        assert_eq!(log.lines().count(), 301);
    }

    #[test]
    fn a_rate_of_0_freezes_a_parameter() {
        let folder = tempfile::tempdir().unwrap();
        let frozen = TrainConfig { steps: 5, rates: [("weight".to_string(), 0.0)].into(), ..config() };
        let trained = Weights::of(&run(&frozen, folder.path(), &mut Vec::new()).net);
        let fresh = Weights::of(&LinearConfig::new(2, 1).init(&mut Init::new(5, &Device::flex())));
        let moved = |name: &str| {
            let pairs = trained.get(name).unwrap().iter().zip(fresh.get(name).unwrap());
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        // The moving average of a constant is that constant up to rounding.
        assert!(moved("weight") < 1e-6 && moved("bias") > 1e-3);
    }

    #[test]
    fn an_interrupted_run_ends_in_the_same_bytes() {
        let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = TrainConfig { steps: 12, accumulate: 2, checkpoint_seconds: 0.0, ..config() };
        run(&config, whole.path(), &mut Vec::new());
        let mut runs = 0;
        // A time limit of 0 stops every run after one step.
        while !run(&TrainConfig { max_seconds: Some(0.0), ..config.clone() }, broken.path(), &mut Vec::new()).finished {
            runs += 1;
        }
        assert_eq!(runs, 11);
        for name in [CHECKPOINT, LOG] {
            let bytes = |folder: &Path| fs::read(folder.join(name)).unwrap();
            assert!(bytes(whole.path()) == bytes(broken.path()), "{name} differs");
        }
    }

    #[test]
    fn the_terms_of_a_step_are_means_over_its_batches() {
        let folder = tempfile::tempdir().unwrap();
        let net = LinearConfig::new(2, 1).init(&mut Init::new(5, &Device::flex()));
        let config = TrainConfig { steps: 2, accumulate: 2, ..config() };
        // Batch k has the loss k; a term is recorded as the loss itself, another by odd batches
        // only.
        let loss = |net: &Linear, number: usize| {
            let value = number as f64;
            let odd = (number % 2 == 1).then_some(("odd", value));
            Loss { tensor: net.weight.val().sum(), value, terms: [("all", value)].into_iter().chain(odd).collect() }
        };
        let mut seen = Vec::new();
        let on_step = |report: &StepReport<'_>| seen.push((report.loss, report.terms.to_vec()));
        train(net, &config, folder.path(), |number, _| number, loss, on_step).unwrap();
        assert_eq!(seen[0], (0.5, vec![("all", 0.5), ("odd", 1.0)]));
        assert_eq!(seen[1], (2.5, vec![("all", 2.5), ("odd", 3.0)]));
        let log = fs::read_to_string(folder.path().join(LOG)).unwrap();
        assert_eq!(log, "step,loss,all,odd\n1,0.5,0.5,1\n2,2.5,2.5,3\n");
    }

    #[test]
    fn an_invalid_configuration_is_refused_before_the_run_starts() {
        let folder = tempfile::tempdir().unwrap();
        let net = LinearConfig::new(2, 1).init(&mut Init::new(5, &Device::flex()));
        let loss = |net: &Linear, ()| Loss::of(net.weight.val().sum());
        let config = TrainConfig { accumulate: 0, ..config() };
        let error = train(net, &config, &folder.path().join("run"), |_, _| (), loss, |_| ()).unwrap_err();
        assert_eq!(error.to_string(), "accumulate = 0 must be at least 1");
        assert!(!folder.path().join("run").exists());
    }

    #[test]
    fn another_configuration_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let config = TrainConfig { steps: 2, ..config() };
        run(&config, folder.path(), &mut Vec::new());
        let net = LinearConfig::new(2, 1).init(&mut Init::new(5, &Device::flex()));
        let other = TrainConfig { learning_rate: 0.1, ..config };
        let loss = |net: &Linear, ()| Loss::of(net.weight.val().sum());
        let error = train(net, &other, folder.path(), |_, _| (), loss, |_| ()).unwrap_err();
        assert!(matches!(error, TrainError::OtherRun { .. }));
    }
}
