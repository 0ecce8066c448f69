//! Multilayer perceptron over jets: value and derivatives with respect to the inputs in one forward
//! pass, the gradient with respect to the parameters in one backward pass.
//!
//! For a layer `z = W a + b`, the linear map applies to every stream and the bias to the value only.
//! The streams of all points of a tile are stacked, so a layer is one matrix product. The formulas
//! of the activation are in [`activation`].
//!
//! Letters: S streams, P points of a tile, N points times streams, I inputs and O outputs of a
//! layer.

pub mod activation;
pub mod features;
mod pass;

use std::ops::Range;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::real::Real;
pub use activation::NetActivation;
pub use pass::{PointTile, Workspace};

/// Size of a net.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MlpConfig {
    /// Neurons per hidden layer.
    pub width: usize,
    /// Number of hidden layers.
    pub depth: usize,
    /// Activation of the hidden layers.
    pub activation: NetActivation,
    /// Factor on the initial weights of the first layer; higher values start with a net that
    /// oscillates faster.
    pub first_scale: f64,
}

impl Default for MlpConfig {
    fn default() -> Self {
        Self { width: 20, depth: 3, activation: NetActivation::Tanh, first_scale: 1.0 }
    }
}

/// A net without its parameters, which are one flat vector: per layer the weights `[O, I]`, then the
/// biases `[O]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    layers: Vec<Layer>,
    activation: NetActivation,
}

/// Place of one layer in the parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// I, inputs.
    pub inputs: usize,
    /// O, outputs.
    pub outputs: usize,
    /// Weights, rows of I.
    pub weights: Range<usize>,
    /// Biases.
    pub biases: Range<usize>,
}

impl Mlp {
    /// A net with these layer sizes, from inputs to outputs.
    ///
    /// # Panics
    /// if there are fewer than two sizes
    pub fn new(sizes: &[usize], activation: NetActivation) -> Self {
        assert!(sizes.len() >= 2, "a net has inputs and outputs");
        let mut start = 0;
        let layers = sizes.windows(2).map(|pair| {
            let (inputs, outputs) = (pair[0], pair[1]);
            let weights = start..start + inputs * outputs;
            let biases = weights.end..weights.end + outputs;
            start = biases.end;
            Layer { inputs, outputs, weights, biases }
        });
        Self { layers: layers.collect(), activation }
    }

    /// A net of a configured size.
    pub fn of(config: &MlpConfig, features: usize, outputs: usize) -> Self {
        let mut sizes = vec![features];
        sizes.extend(std::iter::repeat_n(config.width, config.depth));
        sizes.push(outputs);
        Self::new(&sizes, config.activation)
    }

    /// The layers, first to last.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Number of parameters.
    pub fn parameter_count(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.biases.end)
    }

    /// Number of features.
    pub fn inputs(&self) -> usize {
        self.layers[0].inputs
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.layers[self.layers.len() - 1].outputs
    }

    /// Xavier normal weights, the first layer's times `first_scale`; zero biases.
    pub fn init<F: Real>(&self, first_scale: f64, rng: &mut impl Rng) -> Vec<F> {
        let mut parameters = vec![F::default(); self.parameter_count()];
        for (i, layer) in self.layers.iter().enumerate() {
            let scale = if i == 0 { first_scale } else { 1.0 };
            let deviation = scale * (2.0 / (layer.inputs + layer.outputs) as f64).sqrt();
            for weight in &mut parameters[layer.weights.clone()] {
                *weight = F::of(deviation * normal(rng));
            }
        }
        parameters
    }
}

/// Standard normal number (Box-Muller).
pub(crate) fn normal(rng: &mut impl Rng) -> f64 {
    let u: f64 = 1.0 - rng.random::<f64>();
    let v: f64 = rng.random();
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests;
