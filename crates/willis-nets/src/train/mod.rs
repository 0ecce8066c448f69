//! The one training loop of all nets: AdamW with warm-up and cosine decay, clipping by global norm,
//! moving average of the weights, checkpoints that resume exactly.
//!
//! Everything random in a step comes from a generator made of the seed and the step's number, so
//! that a checkpoint needs no generator state and an interrupted run ends in the same bytes as an
//! unbroken one.

mod checkpoint;
mod optimiser;
mod schedule;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::weights::{Precision, Weights, WeightsError};
use checkpoint::State;
use optimiser::gradients;
pub use schedule::learning_rate;
use willis_kernels::runtime::keep_threads_awake;

/// How a net is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Optimiser steps in all.
    pub steps: usize,
    /// Stop (with a checkpoint) after this many seconds of this run, finished or not.
    pub max_seconds: Option<f64>,
    /// Seed of everything random.
    pub seed: u64,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Learning rate at the end, as a fraction of the highest.
    pub final_fraction: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
    /// Decoupled weight decay of parameters of rank two and more.
    pub weight_decay: f64,
    /// Largest global norm of a gradient.
    pub clip_norm: f64,
    /// Decay of the moving average of the weights; it starts lower and rises to this.
    pub ema_decay: f64,
    /// Batches whose gradients are averaged for one step.
    pub accumulate: usize,
    /// Seconds between checkpoints.
    pub checkpoint_seconds: f64,
    /// Learning rates of parameters whose path starts so, as fractions of the full one, which the
    /// others have; 0 freezes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rates: BTreeMap<String, f64>,
}

impl TrainConfig {
    /// Fraction of the learning rate for a parameter: that of the longest path in `rates` it starts
    /// with.
    fn rate_of(&self, name: &str) -> f64 {
        let fitting = self.rates.iter().filter(|(path, _)| name.starts_with(path.as_str()));
        fitting.max_by_key(|(path, _)| path.len()).map_or(1.0, |(_, &rate)| rate)
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 1000,
            max_seconds: None,
            seed: 0,
            learning_rate: 1e-3,
            final_fraction: 0.01,
            warmup_steps: 30,
            weight_decay: 0.01,
            clip_norm: 1.0,
            ema_decay: 0.99,
            accumulate: 1,
            checkpoint_seconds: 60.0,
            rates: BTreeMap::new(),
        }
    }
}

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A checkpoint could not be read or written, or belongs to another net.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The file system refused.
    #[error("cannot write {}; check the path and free space", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The checkpoint is of a run with another configuration.
    #[error("{} was written with another configuration; train into a new folder or restore that configuration", path.display())]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The loss is no longer a number.
    #[error("the loss is not finite at step {step}; lower the learning rate")]
    Diverged {
        /// Number of the step.
        step: usize,
    },
}

/// What a batch gave.
#[derive(Debug)]
pub struct Loss {
    /// The tensor to go backward from; its value is not looked at.
    pub tensor: Tensor<1>,
    /// The loss's value.
    pub value: f64,
    /// Parts by name, for the log.
    pub terms: Vec<(&'static str, f64)>,
}

impl Loss {
    /// A loss that is its tensor's value.
    pub fn of(tensor: Tensor<1>) -> Self {
        let value = f64::from(tensor.clone().into_scalar::<f32>());
        Self { tensor, value, terms: Vec::new() }
    }
}

/// What is told after each step.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress<'a> {
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Loss of the step.
    pub loss: f64,
    /// Its parts.
    pub terms: &'a [(&'static str, f64)],
    /// Seconds until the last step at the present pace.
    pub remaining_seconds: f64,
}

/// The outcome of a run.
#[derive(Debug)]
pub struct Trained<M> {
    /// The net with averaged weights, on its device without autodiff.
    pub net: M,
    /// Steps done.
    pub step: usize,
    /// Whether all steps are done; `false` when the time ran out (run again to go on).
    pub finished: bool,
}

/// Name of the checkpoint in a run's folder.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// Name of the log in a run's folder.
pub const LOG: &str = "log.csv";

/// Trains a net, or goes on with the run in `run_dir`.
///
/// `sample(step, rng)` makes a batch, one ahead on a thread of its own; `loss(net, batch)` gives
/// its loss. The folder gets `checkpoint.safetensors` and `log.csv`.
///
/// # Errors
/// files, another configuration's checkpoint, a loss that is not finite
pub fn train<M: Module + Sync, B: Send>(
    net: M,
    config: &TrainConfig,
    run_dir: &Path,
    sample: impl Fn(usize, &mut ChaCha8Rng) -> B + Sync,
    mut loss: impl FnMut(&M, B) -> Loss + Send,
    mut progress: impl FnMut(&Progress<'_>),
) -> Result<Trained<M>, TrainError> {
    fs::create_dir_all(run_dir).map_err(|source| TrainError::Io { path: run_dir.to_path_buf(), source })?;
    let path = run_dir.join(CHECKPOINT);
    let mut net = net.train();
    let mut state = State::load_or_new(&path, &net, config)?;
    net = state.net.clone().apply(net)?;
    let mut log = Log::open(&run_dir.join(LOG), state.step)?;
    let (start, first_step) = (Instant::now(), state.step);
    let accumulate = config.accumulate.max(1);
    let batches = first_step * accumulate..config.steps * accumulate;
    let net = std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(1);
        let sample = &sample;
        scope.spawn(move || {
            for number in batches {
                // Refused when training has stopped: nobody waits for more.
                if sender.send(sample(number, &mut step_rng(config.seed, number))).is_err() {
                    break;
                }
            }
        });
        let receiver = receiver;
        let mut saved = Instant::now();
        while state.step < config.steps {
            let mut sum = Weights::default();
            let (mut value, mut terms) = (0.0, Vec::new());
            for _ in 0..accumulate {
                // Received here, not on the pool: a pool of one thread must stay free to make the
                // batch.
                let batch = receiver.recv().expect("the sampling thread makes a batch for every step or panics");
                let (part, gradient);
                (part, terms, gradient) = keep_threads_awake(|| {
                    let Loss { tensor, value, terms } = loss(&net, batch);
                    (value, terms, gradients(&net, &mut tensor.backward()))
                });
                if !part.is_finite() {
                    return Err(TrainError::Diverged { step: state.step });
                }
                value += part / accumulate as f64;
                sum.add_scaled(&gradient, 1.0 / accumulate as f32);
            }
            state.update(sum, learning_rate(config, state.step), config);
            net = state.net.clone().apply(net)?;
            log.write(state.step, value, &terms)?;
            let elapsed = start.elapsed();
            let pace = elapsed.as_secs_f64() / (state.step - first_step) as f64;
            let remaining_seconds = pace * (config.steps - state.step) as f64;
            progress(&Progress {
                step: state.step,
                steps: config.steps,
                loss: value,
                terms: &terms,
                remaining_seconds,
            });
            let out_of_time = config.max_seconds.is_some_and(|limit| elapsed.as_secs_f64() >= limit);
            let done = state.step == config.steps || out_of_time;
            if done || saved.elapsed() >= Duration::from_secs_f64(config.checkpoint_seconds.max(0.0)) {
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

/// Writes a net's weights as they are shipped: 16 bit, with a line for each key.
///
/// # Errors
/// the file cannot be written
pub fn export<M: Module>(net: &M, path: &Path, metadata: &[(&str, &str)]) -> Result<(), WeightsError> {
    let mut weights = Weights::of(net);
    weights.metadata = metadata.iter().map(|&(k, v)| (k.to_string(), v.to_string())).collect();
    weights.save(path, Precision::F16)
}

/// The generator of one batch.
fn step_rng(seed: u64, number: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number as u64 + 1);
    rng
}

/// `step,loss,term...` rows; rows after the checkpoint that a run goes on from are dropped.
struct Log {
    path: PathBuf,
    file: fs::File,
    has_header: bool,
}

impl Log {
    fn open(path: &Path, step: usize) -> Result<Self, TrainError> {
        let fail = |source| TrainError::Io { path: path.to_path_buf(), source };
        let old = if step > 0 { fs::read_to_string(path).unwrap_or_default() } else { String::new() };
        let kept: Vec<&str> = old.lines().take(step + 1).collect();
        let mut file = fs::File::create(path).map_err(fail)?;
        kept.iter().try_for_each(|line| writeln!(file, "{line}")).map_err(fail)?;
        Ok(Self { path: path.to_path_buf(), file, has_header: !kept.is_empty() })
    }

    fn write(&mut self, step: usize, loss: f64, terms: &[(&'static str, f64)]) -> Result<(), TrainError> {
        let row = |first: String, rest: Vec<String>| [vec![first], rest].concat().join(",");
        let header = row("step,loss".into(), terms.iter().map(|(name, _)| name.to_string()).collect());
        let values = row(format!("{step},{loss}"), terms.iter().map(|(_, value)| value.to_string()).collect());
        let header = (!std::mem::replace(&mut self.has_header, true)).then_some(header);
        let mut lines = header.into_iter().chain([values]);
        lines
            .try_for_each(|line| writeln!(self.file, "{line}"))
            .map_err(|source| TrainError::Io { path: self.path.clone(), source })
    }
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
        train(net, config, run_dir, sample, loss, |p| seen.push(p.loss)).unwrap()
    }

    fn config() -> TrainConfig {
        TrainConfig { steps: 300, learning_rate: 0.05, weight_decay: 0.0, ema_decay: 0.9, ..TrainConfig::default() }
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
    fn the_longest_path_sets_the_rate() {
        let rates = [("weight", 0.5), ("we", 0.1)].map(|(path, rate)| (path.to_string(), rate));
        let rated = TrainConfig { rates: rates.into(), ..config() };
        assert_eq!([rated.rate_of("weight"), rated.rate_of("web"), rated.rate_of("bias")], [0.5, 0.1, 1.0]);
        let folder = tempfile::tempdir().unwrap();
        let frozen = TrainConfig { steps: 5, rates: [("weight".to_string(), 0.0)].into(), ..config() };
        let trained = Weights::of(&run(&frozen, folder.path(), &mut Vec::new()).net);
        let fresh = Weights::of(&LinearConfig::new(2, 1).init(&mut Init::new(5, &Device::flex())));
        let moved = |name: &str| {
            let pairs = trained.get(name).unwrap().iter().zip(fresh.get(name).unwrap());
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        // The moving average of an unchanged value is that value but for rounding.
        assert!(moved("weight") < 1e-6 && moved("bias") > 1e-3);
    }

    #[test]
    fn an_interrupted_run_ends_in_the_same_bytes() {
        let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = TrainConfig { steps: 12, accumulate: 2, checkpoint_seconds: 0.0, ..config() };
        run(&config, whole.path(), &mut Vec::new());
        let mut runs = 0;
        // A limit of no time stops every run after one step.
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
