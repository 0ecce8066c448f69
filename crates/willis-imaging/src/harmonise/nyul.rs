//! Nyúl–Udupa histogram standardisation: one intensity scale for MR series of one sequence.
//!
//! # Source
//! Nyúl, Udupa & Zhang, IEEE TMI 19(2), 2000, as in `intensity-normalization` 3.x. We differ: equal
//! landmarks are merged instead of dividing by zero, and the arithmetic is `f64`.

use std::path::Path;

use willis_core::files::{FileError, Malformed, npy};

/// Percentiles of the landmarks.
const PERCENTILES: [f64; 11] = [1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0];

/// Why an image cannot be fitted or standardised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NyulError {
    /// No images were given.
    #[error("the standard scale needs at least one image")]
    NoImages,
    /// No finite voxel inside the mask.
    #[error("image {image} has no voxel inside its mask; check the mask")]
    EmptyMask {
        /// Index of the image among those given.
        image: usize,
    },
    /// First and last landmark are equal.
    #[error("image {image} is constant inside its mask (percentiles 1 and 99 are both {value})")]
    Constant {
        /// Index of the image among those given.
        image: usize,
        /// Its only value.
        value: f64,
    },
    /// The file of the standard scale cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A standard scale: the intensities to which the percentiles of every series are mapped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standard {
    /// Intensity on the standard scale at each percentile, 1 to 100.
    pub scale: [f64; 11],
    /// The percentiles.
    pub percentiles: [f64; 11],
}

/// Intensities at the given rising percentiles of the finite values; `None` when no value is
/// finite.
///
/// Percentile `q` of `n` sorted values is at position `q/100·(n−1)`, interpolated linearly between
/// neighbours.
fn landmarks(values: impl IntoIterator<Item = f32>, percentiles: &[f64; 11]) -> Option<[f64; 11]> {
    let mut values: Vec<f32> = values.into_iter().filter(|v| v.is_finite()).collect();
    let last = values.len().checked_sub(1)?;
    let positions = percentiles.map(|q| (q / 100.0 * last as f64).clamp(0.0, last as f64));
    let low = |position: f64| position.floor() as usize;
    let ranks: Vec<usize> = positions.iter().flat_map(|&p| [low(p), (low(p) + 1).min(last)]).collect();
    let found = order_statistics(&mut values, &ranks);
    Some(std::array::from_fn(|i| {
        let [a, b] = [f64::from(found[2 * i]), f64::from(found[2 * i + 1])];
        a + (b - a) * (positions[i] - low(positions[i]) as f64)
    }))
}

/// Values at the given ranks (from 0, in any order) of the sorted values. Ranks beyond the end are
/// left out; `values` is reordered.
pub(super) fn order_statistics(values: &mut [f32], ranks: &[usize]) -> Vec<f32> {
    let mut rising: Vec<usize> = ranks.iter().copied().filter(|&rank| rank < values.len()).collect();
    rising.sort_unstable();
    rising.dedup();
    // No value before `start` belongs after it, so each search covers only the rest.
    let mut start = 0;
    for rank in rising {
        values[start..].select_nth_unstable_by(rank - start, f32::total_cmp);
        start = rank + 1;
    }
    ranks.iter().filter_map(|&rank| values.get(rank).copied()).collect()
}

/// The standard scale of training images: the mean of their landmarks after each image's p1 is
/// mapped to 1 and its p99 to 100.
///
/// Each item yields the voxels inside the mask of one image (those above 0 when there is no mask).
///
/// # Errors
/// [`NyulError::NoImages`] without images, [`NyulError::EmptyMask`] or [`NyulError::Constant`] for
/// an unusable one.
pub fn fit<I: IntoIterator<Item = f32>>(images: impl IntoIterator<Item = I>) -> Result<Standard, NyulError> {
    let mut sum = [0.0; 11];
    let mut count = 0;
    for (image, voxels) in images.into_iter().enumerate() {
        let marks = landmarks(voxels, &PERCENTILES).ok_or(NyulError::EmptyMask { image })?;
        let (low, high) = (marks[0], marks[10]);
        if high <= low {
            return Err(NyulError::Constant { image, value: low });
        }
        sum.iter_mut().zip(marks).for_each(|(s, m)| *s += 1.0 + 99.0 * (m - low) / (high - low));
        count += 1;
    }
    if count == 0 {
        return Err(NyulError::NoImages);
    }
    Ok(Standard { scale: sum.map(|s| s / f64::from(count)), percentiles: PERCENTILES })
}

/// The map of one image's intensities onto a standard scale, from the voxels inside its mask.
///
/// # Errors
/// [`NyulError::EmptyMask`] or [`NyulError::Constant`], with image 0.
pub fn map_to(standard: &Standard, masked: impl IntoIterator<Item = f32>) -> Result<PiecewiseLinear, NyulError> {
    let marks = landmarks(masked, &standard.percentiles).ok_or(NyulError::EmptyMask { image: 0 })?;
    PiecewiseLinear::through(&marks, &standard.scale).ok_or(NyulError::Constant { image: 0, value: marks[0] })
}

impl Standard {
    /// Reads a standard scale: a `.npy` file of shape (2, 11), the scale followed by the
    /// percentiles.
    ///
    /// # Errors
    /// [`NyulError::File`] when the file is missing, damaged or of another shape, or its values do
    /// not rise.
    pub fn load(path: &Path) -> Result<Self, NyulError> {
        let (shape, values) = npy::read_f64(path)?;
        let halves =
            (values.get(..11).and_then(|v| v.try_into().ok()), values.get(11..).and_then(|v| v.try_into().ok()));
        let malformed = |reason: String| {
            let source = Malformed::new("standard scale", reason);
            NyulError::File(FileError::Malformed { path: path.to_path_buf(), source })
        };
        let (Some(scale), Some(percentiles)): (Option<[f64; 11]>, Option<[f64; 11]>) = halves else {
            return Err(malformed(format!("its shape is {shape:?}, expected [2, 11]; fit it again")));
        };
        let rising = |v: &[f64; 11]| v.iter().all(|v| v.is_finite()) && v.windows(2).all(|w| w[0] <= w[1]);
        if !rising(&scale) || !rising(&percentiles) || percentiles[0] < 0.0 || percentiles[10] > 100.0 {
            return Err(malformed("its values do not rise; fit it again".into()));
        }
        Ok(Self { scale, percentiles })
    }

    /// Writes a standard scale in the format that [`Standard::load`] reads.
    ///
    /// # Errors
    /// [`NyulError::File`] when the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), NyulError> {
        Ok(npy::write_f64(path, &[2, 11], &[self.scale, self.percentiles].concat())?)
    }

    /// Intensity on the standard scale at a percentile, interpolated between the landmarks.
    pub fn at(&self, percentile: f64) -> f64 {
        let line = PiecewiseLinear::through(&self.percentiles, &self.scale);
        line.map_or(self.scale[0], |line| line.apply(percentile))
    }
}

/// A piecewise linear function through knots, extrapolated at both ends with the slope of the last
/// segment.
#[derive(Debug, Clone, PartialEq)]
pub struct PiecewiseLinear {
    /// At least two knots `(from, to)`, with `from` strictly rising.
    knots: Vec<(f64, f64)>,
}

impl PiecewiseLinear {
    /// The function through pairs whose `from` never falls. Pairs of equal `from` become one knot
    /// at the mean of their `to`; `None` when fewer than two knots are left.
    fn through(from: &[f64], to: &[f64]) -> Option<Self> {
        let pairs: Vec<(f64, f64)> = from.iter().copied().zip(to.iter().copied()).collect();
        let mean = |tied: &[(f64, f64)]| tied.iter().map(|p| p.1).sum::<f64>() / tied.len() as f64;
        let knots: Vec<_> = pairs.chunk_by(|a, b| a.0 == b.0).map(|tied| (tied[0].0, mean(tied))).collect();
        (knots.len() > 1).then_some(Self { knots })
    }

    /// Value of the function.
    pub fn apply(&self, value: f64) -> f64 {
        // The segment whose right knot is the first at or above the value.
        let right = self.knots.partition_point(|k| k.0 < value).clamp(1, self.knots.len() - 1);
        let ((x0, y0), (x1, y1)) = (self.knots[right - 1], self.knots[right]);
        y0 + (y1 - y0) * (value - x0) / (x1 - x0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Image `k` of the reference: `50(k+1)(1+sin(.37 i + k)) + 3k·(i mod 7)`, 6x5x4.
    fn fixture(k: usize) -> Vec<f32> {
        let value = |i: usize| {
            let wave = 1.0 + (0.37 * i as f64 + k as f64).sin();
            (50.0 * (k as f64 + 1.0) * wave + 3.0 * (k * (i % 7)) as f64) as f32
        };
        (0..120).map(value).collect()
    }

    fn positive(values: &[f32]) -> impl Iterator<Item = f32> + '_ {
        values.iter().copied().filter(|&v| v > 0.0)
    }

    fn check(got: f64, expected: f64) {
        assert!((got - expected).abs() < 2e-5 * expected.abs().max(1.0), "{got} instead of {expected}");
    }

    #[test]
    fn fit_and_map_match_the_reference() {
        let images = [fixture(0), fixture(1)];
        let standard = fit(images.iter().map(|v| positive(v))).unwrap();
        let expected = [
            1.0, 4.3977118, 11.608921, 24.185980, 33.997443, 50.370787, 66.436810, 77.483832, 88.614509, 95.585417,
            100.0,
        ];
        standard.scale.iter().zip(expected).for_each(|(&got, expected)| check(got, expected));
        let map = map_to(&standard, positive(&images[1])).unwrap();
        let mapped: Vec<f64> = images[1].iter().map(|&v| map.apply(v.into())).collect();
        // Voxels [0, 0, :] of the reference.
        mapped.iter().zip([85.62787, 95.29964, 96.563675, 91.74443]).for_each(|(&got, expected)| check(got, expected));
        check(mapped.iter().copied().fold(f64::INFINITY, f64::min), -0.0521959);
        check(mapped.iter().copied().fold(f64::NEG_INFINITY, f64::max), 100.34617);
    }

    #[test]
    fn tied_landmarks_merge_and_constant_images_are_refused() {
        let line = PiecewiseLinear::through(&[0.0, 1.0, 1.0, 3.0], &[0.0, 2.0, 4.0, 7.0]).unwrap();
        assert_eq!([-1.0, 0.5, 1.0, 2.0, 4.0].map(|v| line.apply(v)), [-3.0, 1.5, 3.0, 5.0, 9.0]);
        assert!(matches!(fit([vec![5.0; 9]]), Err(NyulError::Constant { image: 0, value: 5.0 })));
        assert!(matches!(fit([vec![1.0, 2.0], vec![f32::NAN]]), Err(NyulError::EmptyMask { image: 1 })));
        assert!(matches!(fit(Vec::<Vec<f32>>::new()), Err(NyulError::NoImages)));
    }

    #[test]
    fn standards_round_trip_and_malformed_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("standard.npy");
        let standard = fit([fixture(0)]).unwrap();
        standard.save(&path).unwrap();
        assert_eq!(Standard::load(&path).unwrap(), standard);
        npy::write_f64(&path, &[2], &[1.0, 2.0]).unwrap();
        assert!(Standard::load(&path).unwrap_err().to_string().contains("expected [2, 11]"));
        npy::write_f64(&path, &[2, 11], &[f64::NAN; 22]).unwrap();
        assert!(Standard::load(&path).unwrap_err().to_string().contains("rise"));
    }
}
