//! On or off, for parts that an ablation removes.

use serde::{Deserialize, Serialize};

/// Whether a part is used; `"on"` or `"off"` in a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}
