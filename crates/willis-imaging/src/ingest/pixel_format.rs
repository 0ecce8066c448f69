//! How the pixel values of a file are stored.

use std::sync::Arc;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::attributes::{DataSet, integer, text, words};
use super::file_error::HeaderError;
use super::lookup::{LookupTable, Palette};
use super::notes::{Note, Notes};
use super::structure::Pixels;

/// How pixel values are stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PixelFormat {
    pub rows: usize,
    pub columns: usize,
    pub samples: usize,
    pub bits_allocated: usize,
    pub bits_stored: usize,
    /// Most significant of the stored bits, from 0.
    pub high_bit: usize,
    pub signed: bool,
    pub planar: bool,
    /// Whether two neighbouring pixels share their colour: Y Y Cb Cr (uncompressed 4:2:2).
    pub subsampled: bool,
    pub colour: Colour,
    /// Stored value of pixels outside the image.
    pub padding: Option<i64>,
    pub palette: Option<Arc<Palette>>,
    /// Replaces slope and intercept.
    pub modality_lut: Option<Arc<LookupTable>>,
}

/// Photometric interpretation, reduced to the cases that differ in conversion to grey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Monochrome1,
    Monochrome2,
    Rgb,
    Ybr,
    Palette,
}

impl PixelFormat {
    /// Pixel format from the header; floating-point pixel data determines its own depth.
    ///
    /// # Errors
    /// [`HeaderError`] when an attribute is absent or invalid.
    pub fn of(set: &DataSet, pixels: &Pixels, notes: &mut Notes) -> Result<Self, HeaderError> {
        if *pixels == Pixels::Absent {
            return Err(HeaderError::NoPixels);
        }
        let count = |tag: Tag, name: &'static str, most: i64| {
            integer(set, tag).filter(|&n| n > 0 && n <= most).map(|n| n as usize).ok_or(HeaderError::Attribute { name })
        };
        let samples = match integer(set, tags::SAMPLES_PER_PIXEL).unwrap_or(1) {
            samples @ (1 | 3) => samples as usize,
            _ => return Err(HeaderError::Attribute { name: "SamplesPerPixel (1 or 3)" }),
        };
        let bits_allocated = match pixels {
            Pixels::Float { bytes, .. } => bytes * 8,
            _ => count(tags::BITS_ALLOCATED, "BitsAllocated", 64)?,
        };
        let bits_stored = integer(set, tags::BITS_STORED).filter(|n| (1..=bits_allocated as i64).contains(n));
        let bits_stored = bits_stored.map_or(bits_allocated, |n| n as usize);
        let high_bit =
            integer(set, tags::HIGH_BIT).filter(|n| (bits_stored as i64 - 1..bits_allocated as i64).contains(n));
        let high_bit = high_bit.map_or(bits_stored - 1, |n| n as usize);
        let colour = match text(set, tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_default().as_str() {
            "MONOCHROME1" => Colour::Monochrome1,
            "RGB" | "YBR_RCT" | "YBR_ICT" => Colour::Rgb,
            name if name.starts_with("YBR") => Colour::Ybr,
            "PALETTE COLOR" => Colour::Palette,
            _ if samples == 3 => Colour::Rgb,
            _ => Colour::Monochrome2,
        };
        let signed = integer(set, tags::PIXEL_REPRESENTATION) == Some(1);
        let padding = words(set, tags::PIXEL_PADDING_VALUE).and_then(|words| words.first().copied());
        let padding = padding.map(|word| if signed { i64::from(word as i16) } else { i64::from(word) });
        if high_bit != bits_stored - 1 {
            notes.insert(Note::HighBit);
        }
        let palette = match colour {
            Colour::Palette => Some(Palette::of(set, signed).map_err(|reason| HeaderError::Palette { reason })?),
            _ => None,
        };
        let modality_lut = LookupTable::modality(set, signed).map_err(|name| HeaderError::Attribute { name })?;
        let (rows, columns) = (count(tags::ROWS, "Rows", 65_535)?, count(tags::COLUMNS, "Columns", 65_535)?);
        // Some writers keep the name after they expanded the pixels.
        let frames = integer(set, tags::NUMBER_OF_FRAMES).map_or(1, |n| n.max(1)) as u128;
        let whole = (rows * columns * samples) as u128 * frames;
        let is_short = matches!(pixels, Pixels::Native { range, .. } if (range.len() as u128) < whole);
        let name = text(set, tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_default();
        let subsampled = name.ends_with("_422") && samples == 3 && bits_allocated == 8 && is_short;
        Ok(Self {
            rows,
            columns,
            subsampled,
            samples,
            bits_allocated,
            bits_stored,
            high_bit,
            signed,
            planar: integer(set, tags::PLANAR_CONFIGURATION) == Some(1),
            colour,
            padding,
            palette: palette.map(Arc::new),
            modality_lut: modality_lut.map(Arc::new),
        })
    }

    /// Size of an uncompressed frame, bits.
    pub fn frame_bits(&self) -> u64 {
        let samples =
            if self.subsampled { self.rows * self.columns.next_multiple_of(2) * 2 } else { self.samples_per_frame() };
        samples as u64 * self.bits_allocated as u64
    }

    /// Size of an uncompressed frame, bytes; the last bits of a frame of single bits may be in a
    /// byte that the next one begins in.
    pub fn frame_bytes(&self) -> u64 {
        self.frame_bits().div_ceil(8)
    }

    /// Number of samples of a frame.
    pub fn samples_per_frame(&self) -> usize {
        self.rows * self.columns * self.samples
    }
}
