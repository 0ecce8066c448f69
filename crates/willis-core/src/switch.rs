//! On or off, for parts that can be ablated.

use serde::{Deserialize, Serialize};

/// Whether a part is enabled: `"on"` or `"off"` in a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// Enabled.
    On,
    /// Disabled.
    Off,
}
