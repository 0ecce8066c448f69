//! AdamW, gradient clipping and the moving average of the weights.
//!
//! They work on named values in host memory, so that the arithmetic is the same on every device and
//! the state can be written to a file as it is.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};

use super::TrainConfig;
use super::checkpoint::TrainState;
use crate::weights::Weights;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;

impl TrainState {
    /// One optimiser step: clips the gradient, applies AdamW and updates the moving average.
    ///
    /// Parameters without a gradient do not change.
    ///
    /// # Source
    /// Loshchilov and Hutter, ICLR 2019, arXiv:1711.05101.
    pub(super) fn update(&mut self, gradient: Weights, learning_rate: f64, config: &TrainConfig) {
        let square: f64 = gradient.iter().flat_map(|(_, _, g)| g).map(|&g| f64::from(g).powi(2)).sum();
        let clip = (config.clip_norm / square.sqrt().max(f64::MIN_POSITIVE)).min(1.0);
        self.step += 1;
        let correct1 = 1.0 - BETA1.powi(self.step as i32);
        let correct2 = 1.0 - BETA2.powi(self.step as i32);
        for (name, shape, gradient) in gradient.iter() {
            let learning_rate = learning_rate * config.rate_of(name);
            let decay = if shape.len() > 1 { learning_rate * config.weight_decay } else { 0.0 };
            let parts = (self.net.get_mut(name), self.first.get_mut(name), self.second.get_mut(name));
            let (Some(values), Some(first), Some(second)) = parts else { continue };
            for (((value, m), v), &g) in values.iter_mut().zip(first).zip(second).zip(gradient) {
                let g = f64::from(g) * clip;
                let new_m = BETA1 * f64::from(*m) + (1.0 - BETA1) * g;
                let new_v = BETA2 * f64::from(*v) + (1.0 - BETA2) * g * g;
                let step = learning_rate * (new_m / correct1) / ((new_v / correct2).sqrt() + EPS);
                *value = (f64::from(*value) * (1.0 - decay) - step) as f32;
                (*m, *v) = (new_m as f32, new_v as f32);
            }
        }
        // The decay is lower in the first steps, so that the initial values are soon forgotten.
        let decay = config.ema_decay.min((1.0 + self.step as f64) / (10.0 + self.step as f64)) as f32;
        self.average.scale(decay);
        self.average.add_scaled(&self.net, 1.0 - decay);
    }
}

/// Gradients of a net's parameters, by path; parameters without one are absent.
pub(super) fn gradients<M: Module>(net: &M, grads: &mut Gradients) -> Weights {
    let mut reader = GradientReader { path: Vec::new(), grads, found: Weights::default() };
    net.visit(&mut reader);
    reader.found
}

struct GradientReader<'a> {
    path: Vec<String>,
    grads: &'a mut Gradients,
    found: Weights,
}

impl ModuleVisitor for GradientReader<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = param.val().grad_remove(self.grads) else { return };
        let shape = gradient.dims().to_vec();
        let values = gradient.into_data().convert::<f32>().try_to_vec::<f32>().expect("data was just converted to f32");
        self.found.insert(self.path.join("."), shape, values);
    }
}
