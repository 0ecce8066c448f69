//! WaveFormer: windowed attention on Haar low-pass scales, with the detail sub-bands kept for a decoder.
//!
//! Letters: B batch, C channels, D H W axes, T tokens of a window. Tokens are channels last, `[B, D, H, W, C]`.
//!
//! Source: Al Hasan et al., MICCAI 2025, arXiv 2503.23764, and the behaviour of the authors' code; its three slips can be
//! matched or mended ([`Quirks`]). We differ: side lengths may differ per axis, drop path is left out.

mod attention;
mod block;
mod encoder;
pub mod haar;

pub use encoder::{StageOutput, WaveformerConfig, WaveformerEncoder};

use serde::{Deserialize, Serialize};

/// Whether the slips of the published code are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quirks {
    /// How attended windows are put back.
    pub window_reverse: WindowReverse,
    /// How a displacement becomes a row of the bias table.
    pub relative_index: RelativeIndex,
    /// Which sub-grids are merged.
    pub merge: MergeOffsets,
}

impl Quirks {
    /// As the published code does, for its checkpoints.
    pub const OFFICIAL: Self = Self {
        window_reverse: WindowReverse::Flat,
        relative_index: RelativeIndex::Colliding,
        merge: MergeOffsets::Repeated,
    };
    /// As meant; for new training.
    pub const FIXED: Self = Self {
        window_reverse: WindowReverse::Permuted,
        relative_index: RelativeIndex::Distinct,
        merge: MergeOffsets::Product,
    };
}

/// How attended windows are put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WindowReverse {
    /// Read on as one flat array: space is scrambled when there is more than one window.
    Flat,
    /// To where they were cut.
    Permuted,
}

/// How a displacement becomes a row of the bias table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelativeIndex {
    /// Depth stride `3w - 1`: displacements collide.
    Colliding,
    /// Depth stride `(2w - 1)²`.
    Distinct,
}

/// Which of the eight strided sub-grids are merged, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MergeOffsets {
    /// 000 100 010 001 101 010 001 111: two are read twice, two never.
    Repeated,
    /// 000 001 010 011 100 101 110 111.
    Product,
}
