//! Lookup tables of a header: the modality LUT (PS3.3 C.11.1) and colour palettes (PS3.3 C.7.9).

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::attributes::{DataSet, bytes, item, words};

/// A value for each of a range of stored values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LookupTable {
    /// Stored value of the first entry.
    first: i64,
    values: Vec<f32>,
}

impl LookupTable {
    /// The modality LUT, if the header has one. Stored values are `signed` or not.
    ///
    /// # Errors
    /// The name of the attribute when the table is incomplete.
    pub fn modality(set: &DataSet, signed: bool) -> Result<Option<Self>, &'static str> {
        let Some(item) = item(set, tags::MODALITY_LUT_SEQUENCE) else { return Ok(None) };
        Self::read(&item, tags::LUT_DESCRIPTOR, tags::LUT_DATA, signed).map(Some).ok_or("ModalityLUTSequence")
    }

    /// Reads a table; `None` when it is incomplete.
    fn read(set: &DataSet, descriptor: Tag, data: Tag, signed: bool) -> Option<Self> {
        let [entries, first, bits] = words(set, descriptor)?.try_into().ok()?;
        let entries = if entries == 0 { 1 << 16 } else { usize::from(entries) };
        let first = if signed { i64::from(first as i16) } else { i64::from(first) };
        let stored = bytes(set, data)?;
        // Entries of 8 bits may be packed two to a word.
        let values: Vec<f32> = match bits {
            8 if stored.len() < 2 * entries => stored.iter().map(|&v| f32::from(v)).collect(),
            1..=16 => words(set, data)?.into_iter().map(f32::from).collect(),
            _ => return None,
        };
        let values = values.get(..entries)?.to_vec();
        Some(Self { first, values })
    }

    /// The value for a stored one; those outside the table have that of its nearest end.
    pub fn at(&self, stored: i64) -> f32 {
        let last = self.values.len() - 1;
        self.values[(stored.saturating_sub(self.first).max(0) as usize).min(last)]
    }
}

/// Luminance of each entry of a colour palette.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Palette(LookupTable);

impl Palette {
    /// The palette of a header. Stored values are `signed` or not.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn of(set: &DataSet, signed: bool) -> Result<Self, &'static str> {
        if set.has_value(tags::SEGMENTED_RED_PALETTE_COLOR_LOOKUP_TABLE_DATA) {
            return Err("it is segmented");
        }
        let read = |descriptor, data| LookupTable::read(set, descriptor, data, signed).ok_or("it is incomplete");
        let mut red = read(tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA)?;
        let green =
            read(tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA)?;
        let blue = read(tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA)?;
        for (index, value) in red.values.iter_mut().enumerate() {
            let stored = red.first + index as i64;
            *value = luminance([*value, green.at(stored), blue.at(stored)].map(f64::from)) as f32;
        }
        Ok(Self(red))
    }

    /// Luminance of a stored value.
    pub fn at(&self, stored: i64) -> f32 {
        self.0.at(stored)
    }
}

/// Luminance of red, green and blue (ITU-R BT.601).
pub(super) fn luminance([red, green, blue]: [f64; 3]) -> f64 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

#[cfg(test)]
mod tests {
    use dicom_core::VR;

    use super::super::elements::{Element, ElementValue};
    use super::*;

    /// A table of the given descriptor and data.
    fn table(descriptor: [i16; 3], data: &[u8], signed: bool) -> Option<LookupTable> {
        let mut content: Vec<u8> = descriptor.iter().flat_map(|v| v.to_le_bytes()).collect();
        content.extend(data);
        let element = |tag, range| Element { tag, vr: VR::US, big_endian: false, value: ElementValue::Bytes(range) };
        let elements = [element(tags::LUT_DESCRIPTOR, 0..6), element(tags::LUT_DATA, 6..content.len())];
        let set = DataSet { bytes: &content, elements: &elements };
        LookupTable::read(&set, tags::LUT_DESCRIPTOR, tags::LUT_DATA, signed)
    }

    #[test]
    fn entries_are_words_or_packed_bytes() {
        let words = table([3, -1, 16], &[10, 0, 20, 0, 30, 1], true).unwrap();
        assert_eq!([-5, -1, 0, 1, 9].map(|v| words.at(v)), [10.0, 10.0, 20.0, 286.0, 286.0]);
        let packed = table([3, 100, 8], &[10, 20, 30, 0], false).unwrap();
        assert_eq!([99, 101, 102, 103].map(|v| packed.at(v)), [10.0, 20.0, 30.0, 30.0]);
    }

    #[test]
    fn a_short_table_is_refused() {
        assert_eq!(table([4, 0, 16], &[10, 0, 20, 0, 30, 1], false), None);
        assert_eq!(table([0, 0, 16], &[10, 0], false), None);
        assert_eq!(table([1, 0, 32], &[10, 0, 0, 0], false), None);
    }
}
