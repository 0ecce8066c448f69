//! Nyúl–Udupa histogram standardisation: one intensity scale for MR series of one sequence.
//!
//! # Source
//! Nyúl, Udupa & Zhang, IEEE TMI 19(2), 2000, as in the Python package `intensity-normalization`
//! 3.0 and 4.0. We differ: tied landmarks are merged instead of dividing by zero, and the
//! arithmetic is `f64`.

use rayon::prelude::*;
use willis_core::files::FileError;

mod curve;
mod file;
mod landmarks;
mod shipped;
mod standard;

pub use curve::PiecewiseLinear;
pub(super) use landmarks::order_statistics;
pub use shipped::shipped;
pub use standard::{Anchor, Average, FitOptions, Standard, fit};

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
        /// Number of the image among those given, from 1.
        image: usize,
    },
    /// First and last landmark are equal.
    #[error(
        "image {image} is constant inside its mask (its lowest and highest landmark are both {value}); check the mask"
    )]
    Constant {
        /// Number of the image among those given, from 1.
        image: usize,
        /// Its only value.
        value: f64,
    },
    /// An image without a mask has negative values, so its foreground is unknown.
    #[error("image {image} has negative values, so its foreground cannot be taken as the voxels above 0; give a mask")]
    NegativeWithoutMask {
        /// Number of the image among those given, from 1.
        image: usize,
    },
    /// The file of the standard scale cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The voxels of an image that the landmarks are measured on: those inside the mask, or those
/// above zero when there is none.
///
/// # Errors
/// [`NyulError::NegativeWithoutMask`], with image 1.
///
/// # Panics
/// if the mask has another number of voxels than the image (programmer error)
pub fn foreground(voxels: &[f32], mask: Option<&[f32]>) -> Result<Vec<f32>, NyulError> {
    let Some(mask) = mask else {
        let negative = voxels.par_iter().any(|&v| v < 0.0);
        return if negative {
            Err(NyulError::NegativeWithoutMask { image: 1 })
        } else {
            Ok(landmarks::finite(voxels, |_, v| v > 0.0))
        };
    };
    assert_eq!(voxels.len(), mask.len(), "image and mask have different sizes");
    Ok(landmarks::finite(voxels, |i, _| mask[i] > 0.0))
}

impl NyulError {
    /// The same error for the image of another number.
    #[must_use]
    pub fn for_image(self, image: usize) -> Self {
        match self {
            Self::EmptyMask { .. } => Self::EmptyMask { image },
            Self::Constant { value, .. } => Self::Constant { image, value },
            Self::NegativeWithoutMask { .. } => Self::NegativeWithoutMask { image },
            Self::NoImages | Self::File(_) => self,
        }
    }
}

#[cfg(test)]
mod tests;
