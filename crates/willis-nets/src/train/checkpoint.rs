//! All that a run needs to go on, as one safetensors file.

use std::path::Path;

use burn::module::Module;

use super::{TrainConfig, TrainError};
use crate::weights::{Precision, Weights};

/// Parameters, moments of the optimiser, moving average, steps done.
#[derive(Debug)]
pub(super) struct State {
    pub step: usize,
    pub net: Weights,
    pub first: Weights,
    pub second: Weights,
    pub average: Weights,
}

impl State {
    /// The state in a checkpoint, or the first one of a net when there is none.
    pub fn load_or_new<M: Module>(path: &Path, net: &M, config: &TrainConfig) -> Result<Self, TrainError> {
        if !path.exists() {
            let net = Weights::of(net);
            let zero = net.clone().map(|_, shape| vec![0.0; shape.iter().product()]);
            return Ok(Self { step: 0, average: net.clone(), first: zero.clone(), second: zero, net });
        }
        let file = Weights::load(path)?;
        let other = || TrainError::OtherRun { path: path.to_path_buf() };
        if file.metadata.get("config") != Some(&recipe(config)) {
            return Err(other());
        }
        let step = file.metadata.get("step").and_then(|text| text.parse().ok()).ok_or_else(other)?;
        let [net, first, second, average] = ["net.", "first.", "second.", "average."].map(|part| file.under(part));
        let same = [&first, &second, &average].iter().all(|other| other.shapes().eq(net.shapes()));
        if same { Ok(Self { step, net, first, second, average }) } else { Err(other()) }
    }

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
        file.metadata.insert("config".into(), recipe(config));
        Ok(file.save(path, Precision::F32)?)
    }
}

/// The part of the configuration that decides the result.
fn recipe(config: &TrainConfig) -> String {
    let recipe = TrainConfig { max_seconds: None, checkpoint_seconds: 0.0, ..config.clone() };
    serde_json::to_string(&recipe).expect("a struct of numbers is valid JSON")
}
