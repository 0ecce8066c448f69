//! AKOrN: artificial Kuramoto oscillators on a 3D grid.
//!
//! The state holds unit vectors; each step turns every oscillator towards what its neighbours and
//! the stimulus pull it to: `y = J(x) + c`, `x <- normalize(x + γ (Ωx + y - <x, y> x))`.
//!
//! Letters: B batch, C = G·N channels (oscillator g owns channels gN to gN + N - 1), D H W axes, T
//! steps.
//!
//! Source: Miyato et al. 2025, arXiv 2410.13821; behaviour of the authors' code (energy without the
//! ½, with J's bias, of the state before the step). The lift to three dimensions and the order
//! parameter are ours.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::ops::{ConvOptions, conv3d};

/// What turns an oscillator without any neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Frequency {
    /// Learned rotation in consecutive channel pairs, one frequency for the layer.
    Rotation {
        /// Frequency at the start, rad per unit step.
        initial: f64,
    },
    /// `Ωx = x`: what the published object-discovery models do when rotation is off.
    Identity,
    /// No term at all, as the paper writes it.
    None,
}

/// Sizes of a [`Kuramoto`] layer.
#[derive(Debug, Clone)]
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
    /// Side of the coupling kernel, odd.
    pub kernel: usize,
    /// Seed of the coupling weights.
    pub seed: u64,
}

/// One layer of oscillators with convolutional coupling.
#[derive(Module, Debug)]
pub struct Kuramoto {
    /// J, `[C, C, k, k, k]`.
    pub coupling: Param<Tensor<5>>,
    /// Bias of J, `[C]`.
    pub coupling_bias: Param<Tensor<1>>,
    /// Two-vector whose length is the frequency ω; only for rotation.
    pub rotation: Option<Param<Tensor<1>>>,
    identity: bool,
    oscillator_dim: usize,
    n_steps: usize,
    step_size: f64,
}

/// States and energies of one call.
#[derive(Debug, Clone)]
pub struct KuramotoStates {
    /// State after the last step, `[B, C, D, H, W]`.
    pub last: Tensor<5>,
    /// `energies[0]` is 0; `energies[t]` is that of the state before step t, `[B]` each.
    pub energies: Vec<Tensor<1>>,
}

impl KuramotoConfig {
    /// A layer with uniform coupling weights of bound `1/sqrt(C k³)` and zero bias.
    pub fn init(&self, device: &Device) -> Kuramoto {
        assert!(
            self.oscillator_dim.is_multiple_of(2),
            "oscillators need an even dimension, got {}",
            self.oscillator_dim
        );
        assert!(
            self.channels.is_multiple_of(self.oscillator_dim),
            "{} channels hold no whole oscillators",
            self.channels
        );
        let shape = [self.channels, self.channels, self.kernel, self.kernel, self.kernel];
        let bound = 1.0 / ((self.channels * self.kernel.pow(3)) as f32).sqrt();
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let weights = (0..shape.iter().product()).map(|_| bound * (2.0 * rng.random::<f32>() - 1.0)).collect();
        let rotation = match self.frequency {
            Frequency::Rotation { initial } => {
                let part = (initial / std::f64::consts::SQRT_2) as f32;
                Some(Param::from_tensor(Tensor::from_floats([part, part], device)))
            }
            Frequency::Identity | Frequency::None => None,
        };
        Kuramoto {
            coupling: Param::from_tensor(Tensor::from_data(TensorData::new::<f32, _>(weights, shape), device)),
            coupling_bias: Param::from_tensor(Tensor::zeros([self.channels], device)),
            rotation,
            identity: self.frequency == Frequency::Identity,
            oscillator_dim: self.oscillator_dim,
            n_steps: self.n_steps,
            step_size: self.step_size,
        }
    }
}

impl Kuramoto {
    /// Lets the oscillators run.
    ///
    /// # Shapes
    /// stimulus c and start x `[B, C, D, H, W]` -> states of that shape, energies `[B]`
    pub fn forward(&self, stimulus: Tensor<5>, start: Tensor<5>) -> KuramotoStates {
        let [batch, ..] = stimulus.dims();
        let mut x = normalize(start, self.oscillator_dim);
        let mut energies = vec![Tensor::zeros([batch], &x.device())];
        for _ in 0..self.n_steps {
            let y = self.pull(&x, &stimulus);
            energies.push(energy(&x, &y));
            let radial = grouped_dot(&x, &y, self.oscillator_dim);
            let tangent = y - spread(radial, self.oscillator_dim) * x.clone();
            let step = match self.natural(&x) {
                Some(natural) => natural + tangent,
                None => tangent,
            };
            x = normalize(x + step * self.step_size, self.oscillator_dim);
        }
        KuramotoStates { last: x, energies }
    }

    /// Energy of a state per oscillator, `[B]`: comparable between shapes, and not part of the
    /// published list.
    ///
    /// # Shapes
    /// state of unit vectors and stimulus `[B, C, D, H, W]`
    pub fn energy_per_oscillator(&self, state: Tensor<5>, stimulus: Tensor<5>) -> Tensor<1> {
        let [_, channels, d, h, w] = state.dims();
        let oscillators = (channels / self.oscillator_dim * d * h * w) as f64;
        energy(&state, &self.pull(&state, &stimulus)) / oscillators
    }

    /// `J(x) + c`.
    fn pull(&self, x: &Tensor<5>, stimulus: &Tensor<5>) -> Tensor<5> {
        let [_, _, k, ..] = self.coupling.dims();
        let options = ConvOptions::cubic(1, k / 2);
        let coupled = conv3d(x.clone(), self.coupling.val(), Some(self.coupling_bias.val()), options);
        coupled + stimulus.clone()
    }

    /// `Ωx`, if there is such a term.
    fn natural(&self, x: &Tensor<5>) -> Option<Tensor<5>> {
        let Some(rotation) = &self.rotation else { return self.identity.then(|| x.clone()) };
        let [b, c, d, h, w] = x.dims();
        let speed = (rotation.val().square().sum() + 1e-24).sqrt().reshape([1, 1, 1, 1, 1, 1]);
        let pairs = x.clone().reshape([b, c / 2, 2, d, h, w]);
        let (first, second) = (pairs.clone().narrow(2, 0, 1), pairs.narrow(2, 1, 1));
        let turned = Tensor::<6>::cat(vec![second, first.neg()], 2) * speed;
        Some(turned.reshape([b, c, d, h, w]))
    }
}

/// Every N-vector of consecutive channels scaled to unit length.
pub fn normalize(x: Tensor<5>, oscillator_dim: usize) -> Tensor<5> {
    let length = (grouped_dot(&x, &x, oscillator_dim) + 1e-24).sqrt();
    x / spread(length, oscillator_dim)
}

/// Length of the mean oscillator over the voxels of a mask, averaged over the oscillators of a
/// voxel: 1 when all agree, about 0 when they point anywhere.
///
/// # Shapes
/// unit-vector state `[B, C, D, H, W]`, mask of weights `[B, 1, D, H, W]` -> `[B]`, 0 where the
/// mask is empty
pub fn order_parameter(x: Tensor<5>, mask: Tensor<5>, oscillator_dim: usize) -> Tensor<1> {
    let [b, c, ..] = x.dims();
    let voxels = mask.clone().sum_dims(&[2, 3, 4]).clamp_min(1e-6);
    let mean = ((x * mask).sum_dims(&[2, 3, 4]) / voxels).reshape([b, c / oscillator_dim, oscillator_dim]);
    let length: Tensor<3> = mean.square().sum_dim(2).sqrt();
    length.mean_dim(1).reshape([b])
}

/// A state to start from, the same for the same seed and shape: normal values `[1, C, D, H, W]`, to
/// be repeated over the batch.
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

/// One value per oscillator repeated over its channels, `[B, G, ...]` -> `[B, C, ...]`.
fn spread(values: Tensor<5>, oscillator_dim: usize) -> Tensor<5> {
    let [b, g, d, h, w] = values.dims();
    values.reshape([b, g, 1, d, h, w]).expand([b, g, oscillator_dim, d, h, w]).reshape([b, g * oscillator_dim, d, h, w])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published 2D case as a volume of one plane.
    fn fixture(frequency: Frequency) -> KuramotoStates {
        let device = Device::flex();
        let config = KuramotoConfig {
            channels: 4,
            oscillator_dim: 2,
            n_steps: 3,
            step_size: 1.0,
            frequency,
            kernel: 1,
            seed: 0,
        };
        let mut layer = config.init(&device);
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
        layer.forward(c, x)
    }

    fn check(states: &KuramotoStates, first_voxel: [f64; 4], energies: [f64; 4]) {
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
        let states = fixture(Frequency::Rotation { initial: 0.5 });
        let x = [0.98879100847, -0.149306200705, 0.873742768329, 0.486388296315];
        check(&states, x, [0.0, 4.809951068535, -2.406264414536, -6.927423342588]);
    }

    #[test]
    fn published_values_with_identity() {
        let states = fixture(Frequency::Identity);
        let x = [0.497337861038, 0.867556944516, -0.206703717378, 0.978403584019];
        check(&states, x, [0.0, 4.809951068535, -0.273753641247, -3.441972254328]);
    }

    #[test]
    fn published_values_without_frequency() {
        let states = fixture(Frequency::None);
        let x = [0.749210477678, 0.662331986346, 0.688157465048, 0.725561371145];
        check(&states, x, [0.0, 4.809951068535, -2.237720465515, -5.322582098559]);
    }

    #[test]
    fn order_is_one_when_all_agree_and_falls_when_they_do_not() {
        let device = Device::flex();
        let agree = Tensor::<1>::from_floats([1.0, 1.0, 0.0, 0.0], &device).reshape([1, 2, 1, 1, 2]);
        let oppose = Tensor::<1>::from_floats([1.0, -1.0, 0.0, 0.0], &device).reshape([1, 2, 1, 1, 2]);
        let mask = Tensor::ones([1, 1, 1, 1, 2], &device);
        assert!((order_parameter(agree, mask.clone(), 2).into_scalar::<f32>() - 1.0).abs() < 1e-6);
        assert!(order_parameter(oppose, mask, 2).into_scalar::<f32>() < 1e-6);
    }

    #[test]
    fn the_start_depends_on_the_seed_alone() {
        let device = Device::flex();
        let state = |seed| seeded_state([2, 2, 2, 2], seed, &device).into_data();
        assert_eq!(state(1), state(1));
        assert_ne!(state(1), state(2));
    }
}
