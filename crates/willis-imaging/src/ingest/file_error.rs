//! Why one file of a series cannot be used.

use dicom_core::Tag;

/// Why a file has no valid structure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum StructureError {
    /// Neither a DICOM preamble nor a data set without one.
    #[error("not a DICOM file")]
    NotDicom,
    /// An element declares more bytes than the file holds.
    #[error(
        "the file is truncated: element {tag} at byte {offset} needs {declared} bytes, {available} are left; copy it again"
    )]
    Truncated {
        /// The element.
        tag: Tag,
        /// Its offset in the data set.
        offset: usize,
        /// Bytes it declares.
        declared: usize,
        /// Bytes left.
        available: usize,
    },
    /// Bytes that are not an element.
    #[error("no valid element at byte {offset}; the file is damaged")]
    Damaged {
        /// Offset in the data set.
        offset: usize,
    },
    /// More elements than any scanner writes.
    #[error("the header has more than {limit} elements; the file is damaged or hostile")]
    TooManyElements {
        /// Maximum number of elements.
        limit: usize,
    },
    /// More fragments of pixel data than any scanner writes.
    #[error("the pixel data has more than {limit} fragments; the file is damaged or hostile")]
    TooManyFragments {
        /// Maximum number of fragments.
        limit: usize,
    },
    /// Sequences nested too deeply.
    #[error("sequences are nested deeper than {limit} levels; the file is damaged or hostile")]
    TooDeep {
        /// Maximum depth.
        limit: usize,
    },
    /// A deflated data set that does not inflate, or inflates beyond the limit.
    #[error("the deflated data set is damaged or inflates beyond {limit} bytes")]
    Deflate {
        /// Maximum size, bytes.
        limit: u64,
    },
}

/// Why a file has no usable image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("it has no pixel data")]
    NoPixels,
    #[error("its transfer syntax {name} is not supported; convert the series to explicit little endian (dcmconv +te)")]
    Syntax { name: String },
    #[error("its header lacks {name} or has an invalid value of it")]
    Attribute { name: &'static str },
    #[error("its colour palette is not supported ({reason}); export the series as greyscale")]
    Palette { reason: &'static str },
    #[error(
        "it holds {available} bytes of pixel data where {expected} are declared; the file is truncated, copy it again"
    )]
    Short { expected: u64, available: u64 },
    #[error("its frame is a mosaic of slices, which cannot be taken apart without {name}; export it as single slices")]
    Mosaic { name: &'static str },
    #[error("it holds {held} of {declared} declared frames; the file is truncated, copy it again")]
    MissingFrames { declared: u64, held: u64 },
    #[error("it declares {declared} frames, more than its size allows; the file is damaged or hostile")]
    TooManyFrames { declared: usize },
}

/// Why a frame cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    #[error(
        "its transfer syntax {name} cannot be decoded; convert the series to uncompressed (dcmdjpeg, gdcmconv --raw)"
    )]
    UnsupportedSyntax { name: String },
    #[error("its pixels ({what}) are not supported; export the series as greyscale of 8, 16 or 32 bits")]
    UnsupportedPixels { what: String },
    #[error("its pixel data cannot be decoded ({reason}); export the file again, uncompressed")]
    Damaged { reason: String },
    #[error("frame {frame} holds {got} bytes where {expected} are needed; the file is truncated, copy it again")]
    Short { frame: usize, expected: u64, got: u64 },
}
