//! The backbones: encoders with decoders that take a volume to logits of the same size.

pub mod published;
pub mod resenc;
pub mod segformer3d;
pub mod waveformer;
