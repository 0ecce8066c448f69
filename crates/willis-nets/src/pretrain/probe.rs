//! Linear probe: how well a linear map of the features predicts where in the head a cube is.

use nalgebra::DMatrix;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use willis_core::Image;
use willis_core::files::FileError;

use super::crops::Crop;
use super::net::PretrainNet;
use super::{PretrainConfig, PretrainError, tensor};

/// Cubes at known places, the same throughout a run.
pub(super) struct Probe {
    cubes: Vec<Vec<f32>>,
    places: Vec<[f64; 3]>,
}

impl Probe {
    /// Draws cubes from the volumes in turn; volumes that cannot be read are skipped.
    ///
    /// # Errors
    /// `NoVolumes` when `count` is 0, `Unreadable` when none can be read
    pub fn draw(
        count: usize,
        read: impl Fn(usize) -> Result<Image<f32>, FileError>,
        config: &PretrainConfig,
    ) -> Result<Self, PretrainError> {
        let mut rng = ChaCha8Rng::seed_from_u64(config.train.seed ^ 0x70_72_6f_62_65);
        let (mut cubes, mut places) = (Vec::new(), Vec::new());
        let mut error = PretrainError::NoVolumes;
        for i in 0..config.probe_cubes {
            let Some(number) = i.checked_rem(count) else { break };
            match read(number) {
                Ok(image) => {
                    let crop = Crop::random(&image, config.patch, &mut rng);
                    cubes.push(crop.channels(&image, config));
                    places.push(crop.centre(&image, config.patch));
                }
                Err(source) => error = PretrainError::Unreadable { count: count.min(config.probe_cubes), source },
            }
        }
        if cubes.is_empty() { Err(error) } else { Ok(Self { cubes, places }) }
    }

    /// R² of the linear probe, and the mean standard deviation of the bottleneck's channels over
    /// the cubes. The coordinate channels are zeroed, because they would reveal the place.
    pub fn score(&self, net: &PretrainNet, side: usize) -> (f64, f64) {
        let device = net.device();
        let pooled = |cube: &Vec<f32>| -> Vec<f64> {
            let mut cube = cube.clone();
            cube[side.pow(3)..].fill(0.0);
            let bottleneck = net.bottleneck(tensor(vec![cube], side, &device));
            let [_, channels, d, h, w] = bottleneck.dims();
            let means = bottleneck.reshape([channels, d * h * w]).mean_dim(1);
            let means: Vec<f32> =
                means.into_data().convert::<f32>().try_to_vec().expect("data was just converted to f32");
            means.into_iter().map(f64::from).collect()
        };
        let features: Vec<Vec<f64>> = self.cubes.iter().map(pooled).collect();
        let n = features.len() as f64;
        let deviation = |channel: usize| {
            let mean = features.iter().map(|f| f[channel]).sum::<f64>() / n;
            (features.iter().map(|f| (f[channel] - mean).powi(2)).sum::<f64>() / n).sqrt()
        };
        let channels = features[0].len();
        let spread = (0..channels).map(deviation).sum::<f64>() / channels as f64;
        (explained(&features, &self.places), spread)
    }
}

/// R² over all axes of a ridge regression that is fitted on the even cubes and tested on the odd
/// ones. The kernel form is used because there are fewer cubes than channels.
fn explained(features: &[Vec<f64>], places: &[[f64; 3]]) -> f64 {
    let rows = |first: usize| (first..features.len()).step_by(2);
    if rows(1).len() == 0 {
        return 0.0;
    }
    let table =
        |first: usize| DMatrix::from_fn(rows(first).len(), features[0].len(), |i, k| features[first + 2 * i][k]);
    let targets = |first: usize| DMatrix::from_fn(rows(first).len(), 3, |i, axis| places[first + 2 * i][axis]);
    let (mut train, mut test) = (table(0), table(1));
    let (mut known, mut wanted) = (targets(0), targets(1));
    for (fitted, other) in [(&mut train, &mut test), (&mut known, &mut wanted)] {
        let means = fitted.row_mean();
        fitted.row_iter_mut().chain(other.row_iter_mut()).for_each(|mut row| row -= &means);
    }
    let mut kernel = &train * train.transpose();
    let ridge = (0.01 * kernel.trace() / kernel.nrows() as f64).max(1e-9);
    (0..kernel.nrows()).for_each(|i| kernel[(i, i)] += ridge);
    let Some(factors) = kernel.cholesky() else { return 0.0 };
    let guess = &test * train.transpose() * factors.solve(&known);
    1.0 - (&wanted - guess).norm_squared() / wanted.norm_squared().max(1e-12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_map_is_explained_and_noise_is_not() {
        let features: Vec<Vec<f64>> = (0..40).map(|i| vec![f64::from(i).sin(), f64::from(i).cos(), 1.0]).collect();
        let places: Vec<[f64; 3]> = features.iter().map(|f| [f[0] - f[1], 2.0 * f[1], 0.5 * f[0]]).collect();
        assert!(explained(&features, &places) > 0.95);
        let hashed = |i: u32, salt: u32| f64::from(((i + salt).wrapping_mul(2_654_435_761) >> 20) % 101);
        let noise: Vec<[f64; 3]> = (0..40).map(|i| [hashed(i, 0), hashed(i, 500), hashed(i, 9000)]).collect();
        assert!(explained(&features, &noise) < 0.4);
    }
}
