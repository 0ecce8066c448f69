//! Kuramoto oscillators inside the classifier, and what their state says of a candidate.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::net::{MID_SIDE, SIDE};
use crate::layers::kuramoto::{Frequency, Kuramoto, KuramotoConfig, order_parameter, seeded_state};
use crate::layers::{Conv3d, Conv3dConfig, Init};

/// Seed of the oscillators' first state: the same input gives the same output.
const START_SEED: u64 = 0x6b75_7261;

/// Sizes of [`Oscillators`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OscillatorsConfig {
    /// Channels of the state, a multiple of the oscillator's dimension.
    pub channels: usize,
    /// Dimension of an oscillator, even.
    pub oscillator_dim: usize,
    /// Steps.
    pub n_steps: usize,
    /// Natural frequency.
    pub frequency: Frequency,
}

impl Default for OscillatorsConfig {
    fn default() -> Self {
        Self { channels: 24, oscillator_dim: 4, n_steps: 3, frequency: Frequency::Rotation { initial: 0.5 } }
    }
}

/// `x + leave(readout(Kuramoto(enter(x))))`; the readout is the length of learned projections of
/// the last state.
#[derive(Module, Debug)]
pub struct Oscillators {
    enter: Conv3d,
    kuramoto: Kuramoto,
    readout: Conv3d,
    readout_bias: Param<Tensor<1>>,
    leave: Conv3d,
    oscillator_dim: usize,
}

impl OscillatorsConfig {
    /// Oscillators on features of `features` channels.
    pub(super) fn init(&self, features: usize, init: &mut Init) -> Oscillators {
        let pointwise = |inputs, outputs, init: &mut Init| Conv3dConfig::pointwise(inputs, outputs).init(init);
        let kuramoto = KuramotoConfig {
            channels: self.channels,
            oscillator_dim: self.oscillator_dim,
            n_steps: self.n_steps,
            step_size: 1.0,
            frequency: self.frequency,
            kernel: 3,
        };
        Oscillators {
            enter: pointwise(features, self.channels, init),
            kuramoto: kuramoto.init(init),
            readout: pointwise(self.channels, self.channels * self.oscillator_dim, init),
            readout_bias: init.constant([self.channels], 0.0),
            leave: pointwise(self.channels, features, init),
            oscillator_dim: self.oscillator_dim,
        }
    }
}

impl Oscillators {
    /// x `[B, M, D, H, W]` -> the same shape, with stimulus and last state `[B, C, D, H, W]`.
    pub fn forward(&self, x: Tensor<5>) -> (Tensor<5>, [Tensor<5>; 2]) {
        let stimulus = self.enter.forward(x.clone());
        let [b, c, d, h, w] = stimulus.dims();
        let start = seeded_state([c, d, h, w], START_SEED, &stimulus.device()).expand([b, c, d, h, w]);
        let state = self.kuramoto.forward(stimulus.clone(), start);
        let projected = self.readout.forward(state.clone()).reshape([b, c, self.oscillator_dim, d, h, w]);
        let length: Tensor<6> = (projected.square().sum_dim(2) + 1e-12).sqrt();
        let answer = length.reshape([b, c, d, h, w]) + self.readout_bias.val().reshape([1, c, 1, 1, 1]);
        (x + self.leave.forward(answer), [stimulus, state])
    }

    /// What the last state says of candidates of these radii (in voxels of the patch) in the middle
    /// of their patches.
    ///
    /// # Shapes
    /// stimulus and state `[B, C, 12, 12, 12]`, B radii -> B readings
    pub fn readings(&self, [stimulus, state]: [Tensor<5>; 2], radii_vox: &[f64]) -> Vec<Reading> {
        let device = state.device();
        let order = |inner: fn(f64) -> f64, outer: fn(f64) -> f64| {
            let masks: Vec<f32> = radii_vox.iter().flat_map(|&r| shell(inner(r), outer(r))).collect();
            let masks = TensorData::new(masks, [radii_vox.len(), 1, MID_SIDE, MID_SIDE, MID_SIDE]);
            values(order_parameter(state.clone(), Tensor::from_data(masks, &device), self.oscillator_dim))
        };
        // A ball holds at least the eight cells around the middle.
        let inside = order(|_| -1.0, |r| r.max(4.0));
        let shell = order(|r| r.max(4.0), |r| 2.0 * r.max(4.0));
        let energy = values(self.kuramoto.energy_per_oscillator(state.clone(), stimulus));
        let both = inside.into_iter().zip(shell).zip(energy);
        both.map(|((order_inside, order_shell), energy)| Reading { order_inside, order_shell, energy }).collect()
    }
}

/// What the oscillators say of a candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Order parameter inside, 0 to 1.
    pub order_inside: f32,
    /// Order parameter in the shell up to twice the radius, 0 to 1.
    pub order_shell: f32,
    /// Energy of the last state per oscillator.
    pub energy: f32,
}

fn values(tensor: Tensor<1>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_to_vec().expect("data was just converted to f32")
}

/// 1 in the cells whose distance from the patch's middle voxel lies in `(inner, outer]`, voxels.
fn shell(inner: f64, outer: f64) -> Vec<f32> {
    let step = (SIDE / MID_SIDE) as f64;
    let along = |cell: usize| cell as f64 * step + (step - 1.0) / 2.0 - (SIDE / 2) as f64;
    let distance = |i: usize| {
        let place = [i / MID_SIDE / MID_SIDE, i / MID_SIDE % MID_SIDE, i % MID_SIDE].map(along);
        place.iter().map(|v| v * v).sum::<f64>().sqrt()
    };
    (0..MID_SIDE.pow(3)).map(|i| f32::from(distance(i) > inner && distance(i) <= outer)).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn balls_and_shells_do_not_overlap() {
        let (ball, ring) = (shell(-1.0, 6.0), shell(6.0, 12.0));
        assert!(ball.iter().zip(&ring).all(|(a, b)| a * b == 0.0));
        assert!(shell(-1.0, 4.0).iter().sum::<f32>() >= 4.0);
        assert!(ring.iter().sum::<f32>() > ball.iter().sum::<f32>());
    }

    #[test]
    fn agreement_inside_is_seen_inside_only() {
        let device = Device::flex();
        let config = OscillatorsConfig { channels: 2, oscillator_dim: 2, n_steps: 1, frequency: Frequency::None };
        let layer = config.init(3, &mut Init::new(1, &device));
        let ball = shell(-1.0, 6.0);
        // Along the first axis inside, alternating outside.
        let first: Vec<f32> =
            ball.iter().enumerate().map(|(i, &b)| if b > 0.0 || i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let data = [first, vec![0.0; ball.len()]].concat();
        let state = Tensor::from_data(TensorData::new(data, [1, 2, MID_SIDE, MID_SIDE, MID_SIDE]), &device);
        let reading = layer.readings([state.zeros_like(), state], &[6.0])[0];
        assert!((reading.order_inside - 1.0).abs() < 1e-5, "{reading:?}");
        assert!(reading.order_shell < 0.3 && reading.energy.is_finite(), "{reading:?}");
    }
}
