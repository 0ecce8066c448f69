//! The state of a run, kept in one safetensors file from which the run resumes.

use std::path::Path;

use burn::module::Module;

use super::{TrainConfig, TrainError};
use crate::weights::{Precision, Weights};

/// Parameters, moments of the optimiser, moving average and number of steps done.
#[derive(Debug)]
pub(super) struct TrainState {
    pub step: usize,
    pub net: Weights,
    /// First moment of the gradients.
    pub first: Weights,
    /// Second moment of the gradients.
    pub second: Weights,
    /// Moving average of the parameters.
    pub average: Weights,
}

impl TrainState {
    /// The state in a checkpoint, or the initial state of `net` if there is no checkpoint.
    pub fn load_or_new<M: Module>(path: &Path, net: &M, config: &TrainConfig) -> Result<Self, TrainError> {
        if !path.exists() {
            let net = Weights::of(net);
            let zero = net.clone().map(|_, shape| vec![0.0; shape.iter().product()]);
            return Ok(Self { step: 0, average: net.clone(), first: zero.clone(), second: zero, net });
        }
        let file = Weights::load(path)?;
        let other_run = || TrainError::OtherRun { path: path.to_path_buf() };
        if file.metadata.get("config") != Some(&identity(config)) {
            return Err(other_run());
        }
        let step = file.metadata.get("step").and_then(|text| text.parse().ok()).ok_or_else(other_run)?;
        let [net, first, second, average] = ["net.", "first.", "second.", "average."].map(|part| file.under(part));
        let fits = [&first, &second, &average].iter().all(|other| other.shapes().eq(net.shapes()));
        if fits { Ok(Self { step, net, first, second, average }) } else { Err(other_run()) }
    }

    /// Writes a checkpoint.
    pub fn save(&self, path: &Path, config: &TrainConfig) -> Result<(), TrainError> {
        let mut file = Weights::default();
        let parts =
            [("net.", &self.net), ("first.", &self.first), ("second.", &self.second), ("average.", &self.average)];
        for (prefix, part) in parts {
            for (name, shape, values) in part.iter() {
                file.insert(format!("{prefix}{name}"), shape.to_vec(), values.to_vec());
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
