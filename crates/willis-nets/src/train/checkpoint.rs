//! The state of a run, kept in one safetensors file from which the run resumes.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;

use super::{TrainConfig, TrainError};
use crate::weights::{Precision, Weights};

/// Parameters, buffers of the optimiser, moving average and number of steps done.
#[derive(Debug)]
pub(super) struct TrainState {
    pub step: usize,
    pub net: Weights,
    /// Buffers of the optimiser by name.
    pub buffers: BTreeMap<&'static str, Weights>,
    /// Moving average of the parameters.
    pub average: Weights,
}

impl TrainState {
    /// The state before the first step.
    pub fn new(net: Weights, config: &TrainConfig) -> Self {
        let buffers = config.optimiser.buffers(&net, config.seed);
        Self { step: 0, average: net.clone(), buffers, net }
    }

    /// The state in a checkpoint, or the initial state of `net` if there is no checkpoint.
    pub fn load_or_new<M: Module>(path: &Path, net: &M, config: &TrainConfig) -> Result<Self, TrainError> {
        if !path.exists() {
            return Ok(Self::new(Weights::of(net), config));
        }
        let file = Weights::load(path)?;
        let other_run = || TrainError::OtherRun { path: path.to_path_buf() };
        if file.metadata.get("config") != Some(&identity(config)) {
            return Err(other_run());
        }
        let step = file.metadata.get("step").and_then(|text| text.parse().ok()).ok_or_else(other_run)?;
        let part = |name: &str| file.under(&format!("{name}."));
        let (net, average) = (part("net"), part("average"));
        let names = config.optimiser.buffer_names().iter();
        let buffers: BTreeMap<_, _> = names.map(|&name| (name, part(name))).collect();
        let fits = buffers.values().chain([&average]).all(|other| other.shapes().eq(net.shapes()));
        if fits { Ok(Self { step, net, buffers, average }) } else { Err(other_run()) }
    }

    /// Writes a checkpoint.
    pub fn save(&self, path: &Path, config: &TrainConfig) -> Result<(), TrainError> {
        let mut file = Weights::default();
        let buffers = self.buffers.iter().map(|(&name, buffer)| (name, buffer));
        for (part, weights) in [("net", &self.net), ("average", &self.average)].into_iter().chain(buffers) {
            for (name, shape, values) in weights.iter() {
                file.insert(format!("{part}.{name}"), shape.to_vec(), values.to_vec());
            }
        }
        file.metadata.insert("step".into(), self.step.to_string());
        file.metadata.insert("config".into(), identity(config));
        Ok(file.save(path, Precision::F32)?)
    }
}

/// The part of a configuration that the trained weights depend on, as JSON.
fn identity(config: &TrainConfig) -> String {
    let identity = TrainConfig { max_seconds: None, checkpoint_seconds: 0.0, ..config.clone() };
    serde_json::to_string(&identity).expect("a struct of numbers is valid JSON")
}
