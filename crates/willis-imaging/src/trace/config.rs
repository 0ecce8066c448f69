//! Configuration of the stage.

use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

/// How a vessel map becomes a graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceConfig {
    /// High threshold of the hysteresis: every component contains a voxel with at least this vessel
    /// probability.
    pub threshold: f32,
    /// Low threshold of the hysteresis: every voxel of a component has at least this vessel
    /// probability. At most `threshold`.
    pub low_threshold: f32,
    /// Components smaller than this are discarded, mm³. (A ball of 2 mm diameter has 4.2 mm³.)
    pub min_component_mm3: f64,
    /// A dead end is a spur if it is shorter than this many radii of its junction ...
    pub spur_radii: f64,
    /// ... plus this many voxels (cube root of the voxel volume).
    pub spur_voxels: f64,
    /// A dead end whose tip has at least this aneurysm probability is never a spur.
    pub spur_aneurysm_threshold: f32,
    /// Number of centreline points, odd, in the running median that smooths radii.
    pub radius_window: usize,
    /// A node takes the most frequent site within its radius, or within this distance if that is
    /// larger, mm.
    pub site_radius_mm: f64,
    /// Distance between neighbouring rows of the node table along a branch, mm.
    pub node_step_mm: f64,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self {
            threshold: 0.5,
            low_threshold: 0.3,
            min_component_mm3: 4.0,
            spur_radii: 1.0,
            spur_voxels: 1.0,
            spur_aneurysm_threshold: 0.5,
            radius_window: 5,
            site_radius_mm: 1.5,
            node_step_mm: 1.5,
        }
    }
}

impl TraceConfig {
    /// Checks every value once, when the configuration is loaded.
    ///
    /// # Errors
    /// [`InvalidValue`] for the first value outside its range.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let (low, high) = (self.low_threshold, self.threshold);
        if !(0.0..=1.0).contains(&high) {
            return Err(InvalidValue::new("threshold", high, "must lie between 0 and 1"));
        }
        if !(0.0..=high).contains(&low) {
            return Err(InvalidValue::new("low_threshold", low, format!("must lie between 0 and threshold = {high}")));
        }
        for (field, value) in [
            ("min_component_mm3", self.min_component_mm3),
            ("spur_radii", self.spur_radii),
            ("spur_voxels", self.spur_voxels),
            ("spur_aneurysm_threshold", self.spur_aneurysm_threshold.into()),
            ("site_radius_mm", self.site_radius_mm),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(InvalidValue::new(field, value, "must be finite and at least 0"));
            }
        }
        if self.radius_window.is_multiple_of(2) {
            return Err(InvalidValue::new("radius_window", self.radius_window, "must be odd"));
        }
        if !(self.node_step_mm.is_finite() && self.node_step_mm > 0.0) {
            return Err(InvalidValue::new("node_step_mm", self.node_step_mm, "must be finite and greater than 0"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_values_are_named() {
        assert_eq!(TraceConfig::default().validate(), Ok(()));
        let default = TraceConfig::default;
        for (config, message) in [
            (TraceConfig { threshold: f32::NAN, ..default() }, "threshold = NaN must lie between 0 and 1"),
            (
                TraceConfig { low_threshold: 0.6, ..default() },
                "low_threshold = 0.6 must lie between 0 and threshold = 0.5",
            ),
            (TraceConfig { spur_radii: -1.0, ..default() }, "spur_radii = -1 must be finite and at least 0"),
            (TraceConfig { radius_window: 4, ..default() }, "radius_window = 4 must be odd"),
            (TraceConfig { node_step_mm: 0.0, ..default() }, "node_step_mm = 0 must be finite and greater than 0"),
        ] {
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
    }
}
