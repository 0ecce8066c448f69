//! AKOrN: artificial Kuramoto oscillators on a 3D grid.
//!
//! The state consists of unit vectors. Each step turns every oscillator towards the drive `y` of
//! its neighbours and the stimulus: `y = J(x) + c`, `x <- normalize(x + γ (Ωx + y - <x, y> x))`.
//!
//! Letters: B batch, C = G·N channels (oscillator g owns channels gN to gN + N - 1), D H W axes, T
//! steps.
//!
//! Source: Miyato et al., ICLR 2025, arXiv:2410.13821; behaviour of the authors' code (energy
//! without the factor ½, with the bias of J, of the state before the step). The extension to three
//! dimensions and the order parameter are ours.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::Init;
use crate::ops::{ConvOptions, conv3d};

/// Ω: the rotation of an oscillator without neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Frequency {
    /// Learned rotation in pairs of consecutive channels, one frequency per layer.
    Rotation {
        /// Initial frequency, radians per unit step.
        initial: f64,
    },
    /// `Ωx = x`, as in the published object-discovery models without rotation.
    Identity,
    /// No such term, as in the paper.
    None,
}

/// Configuration of a [`Kuramoto`] layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KuramotoConfig {
    /// Channels of state and stimulus, C.
    pub channels: usize,
    /// Length of an oscillator's vector, N; even, and a divisor of C.
    pub oscillator_dim: usize,
    /// Steps, T.
    pub n_steps: usize,
    /// γ.
    pub step_size: f64,
    /// Ω.
    pub frequency: Frequency,
    /// Side of the coupling kernel; odd.
    pub kernel: usize,
}

/// A layer of oscillators with convolutional coupling.
#[derive(Module, Debug)]
pub struct Kuramoto {
    /// J, `[C, C, k, k, k]`.
    pub coupling: Param<Tensor<5>>,
    /// Bias of J, `[C]`.
    pub coupling_bias: Param<Tensor<1>>,
    /// Vector of length 2 whose norm is the frequency ω; only for [`Frequency::Rotation`].
    pub rotation: Option<Param<Tensor<1>>>,
    identity: bool,
    oscillator_dim: usize,
    n_steps: usize,
    step_size: f64,
}

/// Last state and energies of one run.
#[derive(Debug, Clone)]
pub struct KuramotoTrace {
    /// State after the last step, `[B, C, D, H, W]`.
    pub last: Tensor<5>,
    /// `energies[0]` is 0; `energies[t]` is that of the state before step t, `[B]` each.
    pub energies: Vec<Tensor<1>>,
}

impl KuramotoConfig {
    /// Creates a layer: coupling weights uniform within `1/sqrt(C k³)`, bias 0.
    ///
    /// The weights start at the first random number of the seed, so the layer does not change the
    /// numbers that later layers draw.
    ///
    /// # Panics
    /// if `oscillator_dim` is odd or does not divide `channels` (programmer error)
    pub fn init(&self, init: &mut Init) -> Kuramoto {
        let &Self { channels, oscillator_dim, n_steps, step_size, frequency, kernel } = self;
        assert!(oscillator_dim.is_multiple_of(2), "oscillator_dim = {oscillator_dim} is odd");
        assert!(
            channels.is_multiple_of(oscillator_dim),
            "oscillator_dim = {oscillator_dim} does not divide channels = {channels}"
        );
        let bound = 1.0 / ((channels * kernel.pow(3)) as f32).sqrt();
        let rotation = match frequency {
            Frequency::Rotation { initial } => Some(init.constant([2], (initial / std::f64::consts::SQRT_2) as f32)),
            Frequency::Identity | Frequency::None => None,
        };
        Kuramoto {
            coupling: init.restarted().uniform([channels, channels, kernel, kernel, kernel], bound),
            coupling_bias: init.constant([channels], 0.0),
            rotation,
            identity: frequency == Frequency::Identity,
            oscillator_dim,
            n_steps,
            step_size,
        }
    }
}

impl Kuramoto {
    /// Returns the state after the last step.
    ///
    /// # Shapes
    /// stimulus c and start x `[B, C, D, H, W]` -> the same
    pub fn forward(&self, stimulus: Tensor<5>, start: Tensor<5>) -> Tensor<5> {
        self.run(stimulus, start, |_, _| ())
    }

    /// Like [`Self::forward`], but also returns the energies, which cost a pass over the state per
    /// step.
    ///
    /// # Shapes
    /// stimulus c and start x `[B, C, D, H, W]` -> state of that shape, energies `[B]`
    pub fn forward_with_energies(&self, stimulus: Tensor<5>, start: Tensor<5>) -> KuramotoTrace {
        let [batch, ..] = stimulus.dims();
        let mut energies = vec![Tensor::zeros([batch], &start.device())];
        let last = self.run(stimulus, start, |x, drive| energies.push(energy(x, drive)));
        KuramotoTrace { last, energies }
    }

    /// Runs all steps; `observe` gets the state before each step and the drive on it.
    fn run(&self, stimulus: Tensor<5>, start: Tensor<5>, mut observe: impl FnMut(&Tensor<5>, &Tensor<5>)) -> Tensor<5> {
        let mut x = normalize(start, self.oscillator_dim);
        for _ in 0..self.n_steps {
            let y = self.drive(&x, &stimulus);
            observe(&x, &y);
            let radial = grouped_dot(&x, &y, self.oscillator_dim);
            let tangent = y - repeat_over_channels(radial, self.oscillator_dim) * x.clone();
            let step = match self.natural_rotation(&x) {
                Some(rotation) => rotation + tangent,
                None => tangent,
            };
            x = normalize(x + step * self.step_size, self.oscillator_dim);
        }
        x
    }

    /// Returns the energy of a state divided by the number of oscillators, which makes grids of
    /// different sizes comparable. Not part of the published method.
    ///
    /// # Shapes
    /// state of unit vectors and stimulus `[B, C, D, H, W]` -> `[B]`
    pub fn energy_per_oscillator(&self, state: Tensor<5>, stimulus: Tensor<5>) -> Tensor<1> {
        let [_, channels, d, h, w] = state.dims();
        let oscillators = (channels / self.oscillator_dim * d * h * w) as f64;
        energy(&state, &self.drive(&state, &stimulus)) / oscillators
    }

    /// `J(x) + c`.
    fn drive(&self, x: &Tensor<5>, stimulus: &Tensor<5>) -> Tensor<5> {
        let [_, _, k, ..] = self.coupling.dims();
        let options = ConvOptions::cubic(1, k / 2);
        let coupled = conv3d(x.clone(), self.coupling.val(), Some(self.coupling_bias.val()), options);
        coupled + stimulus.clone()
    }

    /// `Ωx`; `None` for [`Frequency::None`].
    fn natural_rotation(&self, x: &Tensor<5>) -> Option<Tensor<5>> {
        let Some(rotation) = &self.rotation else { return self.identity.then(|| x.clone()) };
        let [b, c, d, h, w] = x.dims();
        let speed = (rotation.val().square().sum() + 1e-24).sqrt().reshape([1, 1, 1, 1, 1, 1]);
        let pairs = x.clone().reshape([b, c / 2, 2, d, h, w]);
        let (first, second) = (pairs.clone().narrow(2, 0, 1), pairs.narrow(2, 1, 1));
        let turned = Tensor::<6>::cat(vec![second, first.neg()], 2) * speed;
        Some(turned.reshape([b, c, d, h, w]))
    }
}

/// Scales every vector of N consecutive channels to unit length.
///
/// # Shapes
/// x `[B, C, D, H, W]` -> the same
pub fn normalize(x: Tensor<5>, oscillator_dim: usize) -> Tensor<5> {
    let length = (grouped_dot(&x, &x, oscillator_dim) + 1e-24).sqrt();
    x / repeat_over_channels(length, oscillator_dim)
}

/// Order parameter: the length of the mean vector over a mask, averaged over the G oscillators of a
/// voxel. It is 1 if all voxels agree, about 0 for random directions, and 0 for an empty mask.
///
/// # Shapes
/// state of unit vectors `[B, C, D, H, W]`, mask of weights `[B, 1, D, H, W]` -> `[B]`
pub fn order_parameter(x: Tensor<5>, mask: Tensor<5>, oscillator_dim: usize) -> Tensor<1> {
    let [b, c, ..] = x.dims();
    let voxels = mask.clone().sum_dims(&[2, 3, 4]).clamp_min(1e-6);
    let mean = ((x * mask).sum_dims(&[2, 3, 4]) / voxels).reshape([b, c / oscillator_dim, oscillator_dim]);
    let length: Tensor<3> = mean.square().sum_dim(2).sqrt();
    length.mean_dim(1).reshape([b])
}

/// Draws an initial state from the standard normal distribution; equal seeds and shapes give equal
/// states.
///
/// # Shapes
/// shape `[C, D, H, W]` -> `[1, C, D, H, W]`, to be expanded over the batch
pub fn seeded_state(shape: [usize; 4], seed: u64, device: &Device) -> Tensor<5> {
    let [c, d, h, w] = shape;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = || {
        let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
        radius * (std::f32::consts::TAU * rng.random::<f32>()).cos()
    };
    let values: Vec<f32> = (0..c * d * h * w).map(|_| normal()).collect();
    Tensor::from_data(TensorData::new(values, [1, c, d, h, w]), device)
}

/// `-Σ <x, y>` over channels and voxels, `[B]`.
fn energy(x: &Tensor<5>, y: &Tensor<5>) -> Tensor<1> {
    let [batch, ..] = x.dims();
    (x.clone() * y.clone()).reshape([batch as i32, -1]).sum_dim(1).neg().reshape([batch])
}

/// `<x, y>` of each oscillator, `[B, G, D, H, W]`.
fn grouped_dot(x: &Tensor<5>, y: &Tensor<5>, oscillator_dim: usize) -> Tensor<5> {
    let [b, c, d, h, w] = x.dims();
    let grouped = (x.clone() * y.clone()).reshape([b, c / oscillator_dim, oscillator_dim, d, h, w]);
    grouped.sum_dim(2).reshape([b, c / oscillator_dim, d, h, w])
}

/// Repeats one value per oscillator over its N channels, `[B, G, ...]` -> `[B, C, ...]`.
fn repeat_over_channels(values: Tensor<5>, oscillator_dim: usize) -> Tensor<5> {
    let [b, g, d, h, w] = values.dims();
    values.reshape([b, g, 1, d, h, w]).expand([b, g, oscillator_dim, d, h, w]).reshape([b, g * oscillator_dim, d, h, w])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published 2D case as a volume of one plane: layer, stimulus and start.
    fn fixture(frequency: Frequency) -> (Kuramoto, [Tensor<5>; 2]) {
        let device = Device::flex();
        let config =
            KuramotoConfig { channels: 4, oscillator_dim: 2, n_steps: 3, step_size: 1.0, frequency, kernel: 1 };
        let mut layer = config.init(&mut Init::new(0, &device));
        let weights: Vec<f32> = (0..16).map(|i| (0.5 * (0.7 * f64::from(i) + 0.3).sin()) as f32).collect();
        layer.coupling = Param::from_tensor(Tensor::from_data(TensorData::new(weights, [4, 4, 1, 1, 1]), &device));
        layer.coupling_bias = Param::from_tensor(Tensor::from_floats([0.0, 0.1, 0.2, 0.3], &device));
        let field = |f: fn(f64, f64, f64) -> f64| {
            let mut values = Vec::new();
            for k in 0..4 {
                for h in 0..2 {
                    for w in 0..2 {
                        values.push(f(f64::from(k), f64::from(h), f64::from(w)) as f32);
                    }
                }
            }
            Tensor::<5>::from_data(TensorData::new(values, [1, 4, 1, 2, 2]), &device)
        };
        let x = field(|k, h, w| (1.3 * k + 0.5 * h + 0.9 * w).cos());
        let c = field(|k, h, w| (0.4 * k - 0.8 * h + 0.6 * w).sin());
        (layer, [c, x])
    }

    fn check(frequency: Frequency, first_voxel: [f64; 4], energies: [f64; 4]) {
        let (layer, [stimulus, start]) = fixture(frequency);
        let states = layer.forward_with_energies(stimulus, start);
        let x = states.last.clone().into_data().try_to_vec::<f32>().unwrap();
        for (k, want) in first_voxel.into_iter().enumerate() {
            assert!((f64::from(x[4 * k]) - want).abs() < 2e-5, "channel {k}: {} {want}", x[4 * k]);
        }
        for (t, want) in energies.into_iter().enumerate() {
            let got = f64::from(states.energies[t].clone().into_scalar::<f32>());
            assert!((got - want).abs() < 5e-5, "energy {t}: {got} {want}");
        }
    }

    #[test]
    fn published_values_with_rotation() {
        let x = [0.98879100847, -0.149306200705, 0.873742768329, 0.486388296315];
        check(Frequency::Rotation { initial: 0.5 }, x, [0.0, 4.809951068535, -2.406264414536, -6.927423342588]);
    }

    #[test]
    fn published_values_with_identity() {
        let x = [0.497337861038, 0.867556944516, -0.206703717378, 0.978403584019];
        check(Frequency::Identity, x, [0.0, 4.809951068535, -0.273753641247, -3.441972254328]);
    }

    #[test]
    fn published_values_without_frequency() {
        let x = [0.749210477678, 0.662331986346, 0.688157465048, 0.725561371145];
        check(Frequency::None, x, [0.0, 4.809951068535, -2.237720465515, -5.322582098559]);
    }

    #[test]
    fn coupling_weights_are_the_first_numbers_of_the_seed() {
        let device = Device::flex();
        let frequency = Frequency::Rotation { initial: 0.5 };
        let config =
            KuramotoConfig { channels: 4, oscillator_dim: 2, n_steps: 1, step_size: 1.0, frequency, kernel: 3 };
        let init = &mut Init::new(3, &device);
        let layer = config.init(init);
        let (mut rng, bound) = (ChaCha8Rng::seed_from_u64(3), 1.0 / 108f32.sqrt());
        let expected: Vec<f32> = (0..432).map(|_| bound * (2.0 * rng.random::<f32>() - 1.0)).collect();
        assert_eq!(layer.coupling.val().into_data().try_to_vec::<f32>().unwrap(), expected);
        // Layers that are made later draw the same numbers as without this one.
        let next = |init: &mut Init| init.normal([5], 1.0).val().into_data();
        assert_eq!(next(init), next(&mut Init::new(3, &device)));
    }

    #[test]
    fn the_state_is_the_same_without_energies() {
        let (layer, [stimulus, start]) = fixture(Frequency::Rotation { initial: 0.5 });
        let traced = layer.forward_with_energies(stimulus.clone(), start.clone());
        assert_eq!(traced.energies.len(), 4);
        assert_eq!(layer.forward(stimulus, start).into_data(), traced.last.into_data());
    }

    #[test]
    fn order_is_1_when_all_agree_and_0_when_they_oppose() {
        let device = Device::flex();
        let agree = Tensor::<1>::from_floats([1.0, 1.0, 0.0, 0.0], &device).reshape([1, 2, 1, 1, 2]);
        let oppose = Tensor::<1>::from_floats([1.0, -1.0, 0.0, 0.0], &device).reshape([1, 2, 1, 1, 2]);
        let mask = Tensor::ones([1, 1, 1, 1, 2], &device);
        assert!((order_parameter(agree, mask.clone(), 2).into_scalar::<f32>() - 1.0).abs() < 1e-6);
        assert!(order_parameter(oppose, mask, 2).into_scalar::<f32>() < 1e-6);
    }

    #[test]
    fn the_initial_state_depends_on_the_seed() {
        let device = Device::flex();
        let state = |seed| seeded_state([2, 2, 2, 2], seed, &device).into_data();
        assert_eq!(state(1), state(1));
        assert_ne!(state(1), state(2));
    }
}
