//! Kuramoto oscillators inside the classifier, and the evidence read from their state.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::encoder::MID_SIDE;
use super::patch::SIDE;
use crate::layers::kuramoto::{Frequency, Kuramoto, KuramotoConfig, order_parameter, seeded_state};
use crate::layers::{Conv3d, Conv3dConfig, Init};
use crate::rules::{at_least_one, require};

/// Seed of the initial state, which is the same in every run so that equal inputs give equal
/// outputs.
const START_SEED: u64 = 0x6b75_7261;

/// Smallest radius of the ball in which synchrony is measured, voxels of the patch. The ball then
/// contains at least seven of the eight cells around the patch's centre; the eighth is 4.3 voxels
/// from the central voxel.
const MIN_RADIUS_VOX: f64 = 4.0;

/// Sizes of [`Oscillators`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OscillatorsConfig {
    /// Channels of the state, a multiple of `oscillator_dim`.
    pub channels: usize,
    /// Dimension of an oscillator; even.
    pub oscillator_dim: usize,
    /// Number of steps.
    pub n_steps: usize,
    /// Rotation of an oscillator without neighbours.
    pub frequency: Frequency,
}

impl Default for OscillatorsConfig {
    fn default() -> Self {
        Self { channels: 24, oscillator_dim: 4, n_steps: 3, frequency: Frequency::Rotation { initial: 0.5 } }
    }
}

/// Residual block of oscillators: `x + leave(readout(Kuramoto(enter(x))))`, where the readout is
/// the length of learned projections of the last state.
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
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        at_least_one("n_steps", self.n_steps)?;
        let dim = self.oscillator_dim;
        require("oscillator_dim", dim, dim > 0 && dim.is_multiple_of(2), "must be positive and even")?;
        let whole = self.channels > 0 && self.channels.is_multiple_of(dim);
        require("channels", self.channels, whole, &format!("must be a positive multiple of oscillator_dim = {dim}"))
    }

    /// A block on features of `features` channels.
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
    /// Output of the block, with stimulus and last state of the oscillators.
    ///
    /// # Shapes
    /// x `[B, M, D, H, W]` -> `[B, M, D, H, W]`, stimulus and state `[B, C, D, H, W]`
    pub fn forward(&self, x: Tensor<5>) -> (Tensor<5>, [Tensor<5>; 2]) {
        let stimulus = self.enter.forward(x.clone());
        let [b, c, d, h, w] = stimulus.dims();
        let start = seeded_state([c, d, h, w], START_SEED, &stimulus.device()).expand([b, c, d, h, w]);
        let state = self.kuramoto.forward(stimulus.clone(), start);
        let projected = self.readout.forward(state.clone()).reshape([b, c, self.oscillator_dim, d, h, w]);
        let length: Tensor<6> = (projected.square().sum_dim(2) + 1e-12).sqrt();
        let readout = length.reshape([b, c, d, h, w]) + self.readout_bias.val().reshape([1, c, 1, 1, 1]);
        (x + self.leave.forward(readout), [stimulus, state])
    }

    /// Synchrony of the last state around candidates in the centre of their patches, whose radii
    /// are given in voxels of the patch.
    ///
    /// # Shapes
    /// stimulus and state `[B, C, 12, 12, 12]`, B radii -> B values
    pub fn synchrony(&self, [stimulus, state]: [Tensor<5>; 2], radii_vox: &[f64]) -> Vec<Synchrony> {
        let device = state.device();
        let order = |inner: fn(f64) -> f64, outer: fn(f64) -> f64| {
            let radii = radii_vox.iter().map(|radius| radius.max(MIN_RADIUS_VOX));
            let masks: Vec<f32> = radii.flat_map(|radius| shell(inner(radius), outer(radius))).collect();
            let masks = TensorData::new(masks, [radii_vox.len(), 1, MID_SIDE, MID_SIDE, MID_SIDE]);
            values(order_parameter(state.clone(), Tensor::from_data(masks, &device), self.oscillator_dim))
        };
        let inside = order(|_| -1.0, |radius| radius);
        let outside = order(|radius| radius, |radius| 2.0 * radius);
        let energy = values(self.kuramoto.energy_per_oscillator(state.clone(), stimulus));
        let all = inside.into_iter().zip(outside).zip(energy);
        all.map(|((order_inside, order_shell), energy)| Synchrony { order_inside, order_shell, energy }).collect()
    }
}

/// Synchrony of the oscillators around a candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Synchrony {
    /// Order parameter in the ball of the candidate's radius, 0 to 1.
    pub order_inside: f32,
    /// Order parameter in the shell from there to twice the radius, 0 to 1.
    pub order_shell: f32,
    /// Energy of the last state per oscillator.
    pub energy: f32,
}

fn values(tensor: Tensor<1>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_to_vec().expect("data was just converted to f32")
}

/// Mask of the cells whose distance from the central voxel of the patch is in `(inner, outer]`,
/// voxels.
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
    fn balls_and_shells_contain_the_cells_within_their_radii() {
        let (ball, ring) = (shell(-1.0, 6.0), shell(6.0, 12.0));
        assert!(ball.iter().zip(&ring).all(|(a, b)| a * b == 0.0));
        let count = |inner, outer| shell(inner, outer).iter().sum::<f32>();
        // The cells around the centre are 1.5 or 2.5 voxels from it along each axis; only the
        // corner (-2.5, -2.5, -2.5), at 4.33 voxels, is outside the smallest ball.
        assert_eq!(count(-1.0, MIN_RADIUS_VOX), 7.0);
        assert_eq!(count(MIN_RADIUS_VOX, 4.4), 1.0);
        assert_eq!(count(-1.0, 100.0), MID_SIDE.pow(3) as f32);
    }

    #[test]
    fn invalid_values_are_named() {
        OscillatorsConfig::default().validate().unwrap();
        let config = OscillatorsConfig { oscillator_dim: 5, ..OscillatorsConfig::default() };
        assert_eq!(config.validate().unwrap_err().to_string(), "oscillator_dim = 5 must be positive and even");
        let config = OscillatorsConfig { channels: 10, ..OscillatorsConfig::default() };
        let message = "channels = 10 must be a positive multiple of oscillator_dim = 4";
        assert_eq!(config.validate().unwrap_err().to_string(), message);
    }

    #[test]
    fn synchrony_inside_a_ball_is_measured_inside_only() {
        let device = Device::flex();
        let config = OscillatorsConfig { channels: 2, oscillator_dim: 2, n_steps: 1, frequency: Frequency::None };
        let layer = config.init(3, &mut Init::new(1, &device));
        let ball = shell(-1.0, 6.0);
        // Aligned inside the ball, in alternating directions outside.
        let first: Vec<f32> =
            ball.iter().enumerate().map(|(i, &b)| if b > 0.0 || i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let data = [first, vec![0.0; ball.len()]].concat();
        let state = Tensor::from_data(TensorData::new(data, [1, 2, MID_SIDE, MID_SIDE, MID_SIDE]), &device);
        let synchrony = layer.synchrony([state.zeros_like(), state], &[6.0])[0];
        assert!((synchrony.order_inside - 1.0).abs() < 1e-5, "{synchrony:?}");
        assert!(synchrony.order_shell < 0.3 && synchrony.energy.is_finite(), "{synchrony:?}");
    }
}
