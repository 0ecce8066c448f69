//! The standard scale: how it is fitted, and the map of one image onto it.

use super::NyulError;
use super::curve::PiecewiseLinear;
use super::landmarks;

/// Percentiles of the landmarks of a new scale.
const PERCENTILES: [f64; 11] = [1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0];

/// A standard scale: the intensities to which the percentiles of every series are mapped.
#[derive(Debug, Clone, PartialEq)]
pub struct Standard {
    /// Intensity on the standard scale at each percentile; never falls.
    pub(super) scale: Vec<f64>,
    /// The percentiles; strictly rising.
    pub(super) percentiles: Vec<f64>,
}

/// How a scale is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FitOptions {
    /// How the landmarks of one image are made comparable.
    pub anchor: Anchor,
    /// How the landmarks of several images become one.
    pub average: Average,
}

/// How the landmarks of one image are made comparable with those of the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Anchor {
    /// The first landmark becomes `low` and the last `high`, as in the paper.
    Ends {
        /// Intensity of the first landmark.
        low: f64,
        /// Intensity of the last landmark.
        high: f64,
    },
    /// They are comparable already.
    AsIs,
}

impl Default for Anchor {
    /// 1 and 100, as in the package.
    fn default() -> Self {
        Self::Ends { low: 1.0, high: 100.0 }
    }
}

/// How the landmarks of several images become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Average {
    /// Mean, as in the package.
    #[default]
    Mean,
    /// Median: robust against pathology. A lesion, an implant or an odd crop in less than half of
    /// the images moves a landmark no further than the spread of the others.
    Median,
}

impl Average {
    fn of(self, values: &mut [f64]) -> f64 {
        match self {
            Self::Mean => values.iter().sum::<f64>() / values.len() as f64,
            Self::Median => {
                values.sort_unstable_by(f64::total_cmp);
                let middle = values.len() / 2;
                if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
            }
        }
    }
}

/// The standard scale of training images.
///
/// Each item holds the voxels inside the mask of one image ([`super::foreground`]).
///
/// # Errors
/// [`NyulError::NoImages`] without images, [`NyulError::EmptyMask`] or [`NyulError::Constant`] for
/// an unusable one.
pub fn fit(
    images: impl IntoIterator<Item = Result<Vec<f32>, NyulError>>,
    options: FitOptions,
) -> Result<Standard, NyulError> {
    let mut marks: [Vec<f64>; PERCENTILES.len()] = Default::default();
    for (image, voxels) in (1..).zip(images) {
        let voxels = voxels.map_err(|error| error.for_image(image))?;
        let found = landmarks::percentiles(&voxels, &PERCENTILES).ok_or(NyulError::EmptyMask { image })?;
        let (first, last) = (found[0], found[PERCENTILES.len() - 1]);
        if last <= first {
            return Err(NyulError::Constant { image, value: first });
        }
        let comparable = |mark: f64| match options.anchor {
            Anchor::Ends { low, high } => low + (high - low) * (mark - first) / (last - first),
            Anchor::AsIs => mark,
        };
        marks.iter_mut().zip(found).for_each(|(marks, mark)| marks.push(comparable(mark)));
    }
    if marks[0].is_empty() {
        return Err(NyulError::NoImages);
    }
    let scale = marks.iter_mut().map(|marks| options.average.of(marks)).collect();
    Ok(Standard { scale, percentiles: PERCENTILES.to_vec() })
}

impl Standard {
    /// The map of one image's intensities onto this scale, from the voxels inside its mask.
    ///
    /// # Errors
    /// [`NyulError::EmptyMask`] or [`NyulError::Constant`], with image 1.
    pub fn map(&self, masked: &[f32]) -> Result<PiecewiseLinear, NyulError> {
        let marks = landmarks::percentiles(masked, &self.percentiles).ok_or(NyulError::EmptyMask { image: 1 })?;
        PiecewiseLinear::through(&marks, &self.scale).ok_or(NyulError::Constant { image: 1, value: marks[0] })
    }

    /// Intensity on this scale at a percentile, interpolated between the landmarks.
    pub fn at(&self, percentile: f64) -> f64 {
        let line = PiecewiseLinear::through(&self.percentiles, &self.scale);
        line.map_or(self.scale[0], |line| line.apply(percentile))
    }

    /// Intensities on this scale, one per percentile.
    pub fn scale(&self) -> &[f64] {
        &self.scale
    }
}
