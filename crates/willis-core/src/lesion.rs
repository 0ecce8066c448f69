//! Ground truth of a lesion, from a phantom or an annotated series.

use serde::{Deserialize, Serialize};

use crate::anatomy::Site;
use crate::space::Point;

/// A true aneurysm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lesion {
    /// Centre of the sac, LPS mm.
    pub centre: Point,
    /// Largest diameter of the sac, mm; `None` if the annotation is only a point.
    pub diameter_mm: Option<f64>,
    /// Site.
    pub site: Site,
    /// Middle of the neck, LPS mm.
    pub neck: Option<Point>,
    /// Width of the neck, mm.
    pub neck_width_mm: Option<f64>,
}
