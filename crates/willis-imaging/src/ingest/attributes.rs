//! Values of attributes: text and numbers from the bytes of elements.
//!
//! The VR decides how bytes are read: that of the element, or else that of the dictionary, so a
//! number in text that was written with VR UN is still read as text.

use std::borrow::Cow;

use dicom_core::{Tag, VR};

use super::elements::{Element, ElementValue};

/// A data set, or an item of a sequence: its elements, and the bytes they refer to.
#[derive(Debug, Clone, Copy)]
pub(super) struct DataSet<'a> {
    pub bytes: &'a [u8],
    pub elements: &'a [Element],
}

impl<'a> DataSet<'a> {
    /// The last element with the given tag; broken files repeat tags.
    fn get(&self, tag: Tag) -> Option<&'a Element> {
        self.elements.iter().rfind(|e| e.tag == tag)
    }

    /// Whether the attribute has a value that is not empty.
    pub fn has_value(&self, tag: Tag) -> bool {
        bytes(self, tag).is_some_and(|value| value.iter().any(|b| !matches!(b, 0 | b' ')))
    }

    /// Number of items of a sequence.
    pub fn item_count(&self, tag: Tag) -> usize {
        self.items(tag).map_or(0, <[_]>::len)
    }

    /// An item of a sequence.
    pub fn item(&self, tag: Tag, index: usize) -> Option<DataSet<'a>> {
        let elements = self.items(tag)?.get(index)?;
        Some(DataSet { bytes: self.bytes, elements })
    }

    fn items(&self, tag: Tag) -> Option<&'a [Vec<Element>]> {
        match &self.get(tag)?.value {
            ElementValue::Items(items) => Some(items),
            ElementValue::Bytes(_) => None,
        }
    }

    /// Whether a decimal string, here or in an item, has a decimal comma.
    pub fn has_decimal_comma(&self) -> bool {
        self.elements.iter().any(|element| match &element.value {
            ElementValue::Bytes(range) => {
                element.vr == VR::DS && decimals(&self.bytes[range.clone()]).any(|text| with_point(text).is_some())
            }
            ElementValue::Items(items) => {
                items.iter().any(|elements| DataSet { bytes: self.bytes, elements }.has_decimal_comma())
            }
        })
    }
}

/// First item of a sequence.
pub(super) fn item<'a>(set: &DataSet<'a>, tag: Tag) -> Option<DataSet<'a>> {
    set.item(tag, 0)
}

/// Bytes of an attribute that is not a sequence.
pub(super) fn bytes<'a>(set: &DataSet<'a>, tag: Tag) -> Option<&'a [u8]> {
    match &set.get(tag)?.value {
        ElementValue::Bytes(range) => Some(&set.bytes[range.clone()]),
        ElementValue::Items(_) => None,
    }
}

/// Text, with all its values, without padding. Bytes that are not UTF-8 are read as Latin-1: text
/// serves only to be compared and searched for ASCII words.
pub(super) fn text(set: &DataSet, tag: Tag) -> Option<String> {
    let value = bytes(set, tag)?;
    let text = match std::str::from_utf8(value) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(value.iter().map(|&b| char::from(b)).collect()),
    };
    Some(text.trim_matches(['\0', ' ']).to_owned())
}

/// The first value, as an integer.
pub(super) fn integer(set: &DataSet, tag: Tag) -> Option<i64> {
    number(set, tag).map(|v| v as i64)
}

/// The first value. A decimal comma counts as a point; `DataSet::has_decimal_comma` tells.
pub(super) fn number(set: &DataSet, tag: Tag) -> Option<f64> {
    values(set, tag)?.first().copied().filter(|v| v.is_finite())
}

/// A private attribute of VR US, which implicit VR does not say.
pub(super) fn private_short(set: &DataSet, tag: Tag) -> Option<u16> {
    words(set, tag)?.first().copied()
}

/// A private attribute of VR DS or IS, which implicit VR does not say.
pub(super) fn private_decimal(set: &DataSet, tag: Tag) -> Option<f64> {
    decimals(bytes(set, tag)?).next().and_then(decimal)
}

/// Exactly `N` values.
pub(super) fn numbers<const N: usize>(set: &DataSet, tag: Tag) -> Option<[f64; N]> {
    <[f64; N]>::try_from(values(set, tag)?).ok().filter(|v| v.iter().all(|x| x.is_finite()))
}

/// The words of a binary attribute, two bytes each.
pub(super) fn words(set: &DataSet, tag: Tag) -> Option<Vec<u16>> {
    let element = set.get(tag)?;
    let (pairs, _) = bytes(set, tag)?.as_chunks::<2>();
    let word = |&b: &[u8; 2]| if element.big_endian { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) };
    Some(pairs.iter().map(word).collect())
}

/// The first 16 values of an attribute; `None` if it has none, or one that is not a number.
fn values(set: &DataSet, tag: Tag) -> Option<Vec<f64>> {
    let (element, value) = (set.get(tag)?, bytes(set, tag)?);
    macro_rules! binary {
        ($kind:ty) => {{
            let (chunks, _) = value.as_chunks::<{ size_of::<$kind>() }>();
            let read = |&b: &[u8; size_of::<$kind>()]| {
                (if element.big_endian { <$kind>::from_be_bytes(b) } else { <$kind>::from_le_bytes(b) }) as f64
            };
            chunks.iter().take(16).map(read).collect()
        }};
    }
    let values: Vec<f64> = match element.vr {
        VR::US => binary!(u16),
        VR::SS => binary!(i16),
        VR::UL => binary!(u32),
        VR::SL => binary!(i32),
        VR::UV => binary!(u64),
        VR::SV => binary!(i64),
        VR::FL => binary!(f32),
        VR::FD => binary!(f64),
        VR::OB | VR::OW | VR::OF | VR::OD | VR::OL | VR::OV | VR::UN | VR::AT | VR::SQ => return None,
        _ => decimals(value).take(16).map(decimal).collect::<Option<_>>()?,
    };
    Some(values).filter(|v| !v.is_empty())
}

/// The values of a decimal string; a trailing empty one is dropped.
fn decimals(value: &[u8]) -> impl Iterator<Item = &str> {
    let text = std::str::from_utf8(value).unwrap_or("").trim_matches(['\0', ' ', '\\']);
    text.split('\\').map(|part| part.trim_matches(['\0', ' ', '\t']))
}

fn decimal(text: &str) -> Option<f64> {
    text.parse().ok().or_else(|| with_point(text)?.parse().ok())
}

/// A number with a decimal comma, written with a point; `None` for anything else.
fn with_point(text: &str) -> Option<String> {
    let (whole, fraction) = text.split_once(',')?;
    let pointed = format!("{whole}.{fraction}");
    pointed.parse::<f64>().is_ok().then_some(pointed)
}

#[cfg(test)]
mod tests {
    use dicom_dictionary_std::tags;

    use super::*;

    fn set(value: &[u8], vr: VR, read: impl Fn(&DataSet) -> Option<f64>) -> Option<f64> {
        let elements = [Element { tag: tags::ROWS, vr, big_endian: false, value: ElementValue::Bytes(0..value.len()) }];
        read(&DataSet { bytes: value, elements: &elements })
    }

    #[test]
    fn numbers_of_each_kind() {
        for (vr, value, expected) in [
            (VR::US, &[0xff, 0xff, 1, 0][..], Some(65535.0)),
            (VR::SS, &[0xff, 0xff], Some(-1.0)),
            (VR::UL, &[1, 0, 1, 0], Some(65537.0)),
            (VR::FD, &1.5f64.to_le_bytes(), Some(1.5)),
            (VR::DS, b"1 ", Some(1.0)),
            (VR::DS, b" +1.5E+01\0", Some(15.0)),
            (VR::DS, b"3,25\\4", Some(3.25)),
            (VR::DS, b"-0,5", Some(-0.5)),
            (VR::DS, b"1,000.5", None),
            (VR::DS, b"1,0,0", None),
            (VR::DS, b"", None),
            (VR::DS, b"nan", None),
            (VR::IS, b"12\\", Some(12.0)),
            (VR::UN, b"12", None),
            (VR::US, b"1", None),
        ] {
            assert_eq!(set(value, vr, |s| number(s, tags::ROWS)), expected, "{vr:?} {value:?}");
        }
    }

    #[test]
    fn decimal_commas_are_noticed() {
        for (value, comma) in [(&b"3,0\\3,0"[..], true), (b"3.0\\3.0", false), (b"a,b", false), (b"1\\2,5", true)] {
            let noticed = set(value, VR::DS, |s| Some(f64::from(u8::from(s.has_decimal_comma()))));
            assert_eq!(noticed, Some(f64::from(u8::from(comma))), "{value:?}");
        }
    }

    #[test]
    fn the_number_of_values_must_match() {
        let read = |value: &[u8]| set(value, VR::DS, |s| numbers::<2>(s, tags::ROWS).map(|v| v[1]));
        assert_eq!(read(b"1\\2"), Some(2.0));
        assert_eq!(read(b"1\\2\\3"), None);
        assert_eq!(read(b"1\\x"), None);
    }
}
