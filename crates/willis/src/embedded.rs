//! Names of the weights files, and the files that are part of the binary.

/// Weights of the segmentation net.
pub const SEGMENT: &str = "segment.safetensors";
/// Weights of the graph net.
pub const PROPOSE: &str = "propose.safetensors";
/// Weights of the classifier.
pub const EXAMINE: &str = "examine.safetensors";
/// Weights of the net that finds the brain.
pub const BRAIN: &str = "brain.safetensors";
/// Weights of the stack.
pub const STACK: &str = "stack.json";

/// The embedded file of this name. Callers pass one of the names above.
pub fn embedded(name: &str) -> &'static [u8] {
    match name {
        SEGMENT => include_bytes!("../../../models/segment.safetensors"),
        PROPOSE => include_bytes!("../../../models/propose.safetensors"),
        EXAMINE => include_bytes!("../../../models/examine.safetensors"),
        BRAIN => include_bytes!("../../../models/brain.safetensors"),
        _ => include_bytes!("../../../models/stack.json"),
    }
}
