//! Why a volume cannot be harmonised.

use super::nyul::NyulError;

/// Why a volume cannot be harmonised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HarmoniseError {
    /// No voxels, or none that is finite.
    #[error("the series has no usable voxels")]
    Empty,
    /// The affine is singular.
    #[error("the series has no valid position in space; check its orientation and spacing")]
    SingularPlace,
    /// The result would have more than 2^28 voxels.
    #[error(
        "a volume of {extent_mm:?} mm (x, y, z) is too large at this spacing; check the header, or set harmonise.roi.crop = \"on\""
    )]
    TooLarge {
        /// Extent along x, y, z, mm.
        extent_mm: [f64; 3],
    },
    /// One value everywhere.
    #[error("the series has no contrast inside the head; it cannot be normalised")]
    NoContrast,
    /// The middle of a Nyúl standard scale is not positive, so it cannot become the unit.
    #[error(
        "the standard scale has {middle} at its median; it must be positive, with air near 0; fit it with low = 1 or more"
    )]
    BadStandard {
        /// Intensity at the 50th percentile.
        middle: f64,
    },
    /// The Nyúl standard scale cannot be read or fitted.
    #[error(transparent)]
    Nyul(#[from] NyulError),
}
