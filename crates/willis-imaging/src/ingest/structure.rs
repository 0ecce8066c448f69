//! Structure of a DICOM file: a walk over its elements that locates the header and the pixel data,
//! and trusts no length.
//!
//! The parser of dicom-rs allocates whatever length a file declares and recurses as deep as its
//! sequences are nested, so every file is walked here first. Only lengths are interpreted; the
//! pixel data is located, not decoded.

use std::borrow::Cow;
use std::io::Read;
use std::ops::Range;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, uids};

/// Maximum nesting depth of sequences; enhanced files use four levels.
const MAX_DEPTH: usize = 24;
/// Explicit VR big endian: a retired transfer syntax that archives still contain.
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
/// Length field of an element of undefined length.
const UNDEFINED: u32 = u32::MAX;

/// Why a file has no valid structure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StructureError {
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
    /// Sequences nested too deeply.
    #[error("sequences are nested deeper than {MAX_DEPTH} levels; the file is damaged or hostile")]
    TooDeep,
    /// A deflated data set that does not inflate, or inflates beyond the limit.
    #[error("the deflated data set is damaged or inflates beyond {limit} bytes")]
    Deflate {
        /// Maximum size, bytes.
        limit: u64,
    },
}

/// Encoding of the elements of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DataSetEncoding {
    /// Whether elements carry their value representation (VR).
    pub explicit: bool,
    pub big_endian: bool,
}

/// Location of the pixel data, as byte ranges of [`DicomStructure::dataset`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pixels {
    Absent,
    /// Integers of the declared bit depth, in the byte order of the data set. `words` is whether
    /// they were written as 16-bit units (OW).
    Native {
        range: Range<usize>,
        words: bool,
    },
    /// 32-bit (`7FE0,0008`) or 64-bit (`7FE0,0009`) floating point values.
    Float {
        range: Range<usize>,
        bytes: usize,
    },
    /// Fragments of a compressed stream, and the basic offset table.
    Encapsulated {
        offsets: Vec<u32>,
        fragments: Vec<Range<usize>>,
    },
}

/// The parts of one file.
#[derive(Debug)]
pub(super) struct DicomStructure<'a> {
    /// Transfer syntax UID; empty when the file has no meta group.
    pub syntax: String,
    pub encoding: DataSetEncoding,
    /// The data set without the meta group, after inflation.
    pub dataset: Cow<'a, [u8]>,
    /// Size of the data set before the pixel data, bytes.
    pub header_len: usize,
    pub pixels: Pixels,
}

impl<'a> DicomStructure<'a> {
    /// Walks a file. `inflate_limit` is the maximum size of an inflated data set, bytes.
    ///
    /// # Errors
    /// [`StructureError`] when the file is not DICOM, truncated or damaged.
    pub fn of(file: &'a [u8], inflate_limit: u64) -> Result<Self, StructureError> {
        let start = meta_start(file).ok_or(StructureError::NotDicom)?;
        let (syntax, dataset_start) = meta_group(file, start)?;
        let body = &file[dataset_start..];
        let dataset = if syntax == uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN {
            Cow::Owned(inflate(body, inflate_limit)?)
        } else {
            Cow::Borrowed(body)
        };
        let declared = DataSetEncoding {
            explicit: if syntax.is_empty() {
                looks_explicit(&dataset)
            } else {
                syntax != uids::IMPLICIT_VR_LITTLE_ENDIAN
            },
            big_endian: syntax == BIG_ENDIAN,
        };
        // Some writers declare explicit VR and write implicit, or the reverse: try both.
        let other = DataSetEncoding { explicit: !declared.explicit, big_endian: false };
        let (encoding, (header_len, pixels)) = match find_pixels(&dataset, declared) {
            Ok(found) => (declared, found),
            Err(error) => match find_pixels(&dataset, other) {
                Ok(found) if looks_explicit(&dataset) == other.explicit => (other, found),
                _ => return Err(error),
            },
        };
        Ok(Self { syntax, encoding, dataset, header_len, pixels })
    }

    /// The data set before its pixel data.
    pub fn header(&self) -> &[u8] {
        &self.dataset[..self.header_len]
    }
}

/// Whether the first bytes of a file are those of a DICOM file, with or without a preamble.
pub(super) fn looks_like_dicom(head: &[u8]) -> bool {
    meta_start(head).is_some()
}

/// Offset of the first element: after the preamble, or zero when the file starts with an element of
/// group 2 or group 8. `None` for other files.
fn meta_start(file: &[u8]) -> Option<usize> {
    if file.get(128..132) == Some(b"DICM") {
        return Some(132);
    }
    let group = u16::from_le_bytes([*file.first()?, *file.get(1)?]);
    let element = u16::from_le_bytes([*file.get(2)?, *file.get(3)?]);
    let plausible = file.len() >= 8 && ((group == 2 && element <= 2) || (group == 8 && element <= 0x18));
    (plausible && (looks_explicit(file) || u32::from_le_bytes([file[4], file[5], file[6], file[7]]) < 256)).then_some(0)
}

/// Whether the first element of a data set carries a value representation.
fn looks_explicit(dataset: &[u8]) -> bool {
    dataset.get(4..6).is_some_and(|vr| vr.iter().all(u8::is_ascii_uppercase))
}

/// Transfer syntax from the meta group (always explicit little endian), and the offset of the data
/// set after it.
fn meta_group(file: &[u8], start: usize) -> Result<(String, usize), StructureError> {
    let encoding = DataSetEncoding { explicit: true, big_endian: false };
    let (mut at, mut syntax) = (start, String::new());
    while let Some(group) = file.get(at..at + 2) {
        if group != [2, 0] {
            break;
        }
        let element = ElementHeader::read(file, at, file.len(), encoding)?;
        let end = element.end(file.len())?;
        if element.tag == Tag(0x0002, 0x0010) {
            let text = String::from_utf8_lossy(&file[element.value..end]);
            syntax = text.trim_matches(['\0', ' ']).to_owned();
        }
        at = end;
    }
    Ok((syntax, at))
}

/// Inflates a deflated data set up to `limit` bytes.
fn inflate(body: &[u8], limit: u64) -> Result<Vec<u8>, StructureError> {
    let mut dataset = Vec::new();
    let read = flate2::read::DeflateDecoder::new(body).take(limit + 1).read_to_end(&mut dataset);
    match read {
        Ok(n) if n as u64 <= limit => Ok(dataset),
        _ => Err(StructureError::Deflate { limit }),
    }
}

/// Walks the top level up to the pixel data; returns the size of the header and the pixel data.
fn find_pixels(data: &[u8], encoding: DataSetEncoding) -> Result<(usize, Pixels), StructureError> {
    let mut at = 0;
    while at + 8 <= data.len() {
        let element = ElementHeader::read(data, at, data.len(), encoding)?;
        let pixels = match element.tag {
            Tag(0x7FE0, 0x0008) => Pixels::Float { range: element.value..element.end(data.len())?, bytes: 4 },
            Tag(0x7FE0, 0x0009) => Pixels::Float { range: element.value..element.end(data.len())?, bytes: 8 },
            Tag(0x7FE0, 0x0010) if element.length == UNDEFINED => fragments(data, element.value, encoding)?,
            Tag(0x7FE0, 0x0010) => {
                Pixels::Native { range: element.value..element.end(data.len())?, words: element.vr != Some(*b"OB") }
            }
            // Trailing zero padding.
            Tag(0, 0) if data[at..].iter().all(|&b| b == 0) => break,
            _ => {
                at = skip(data, &element, data.len(), encoding, 0)?;
                continue;
            }
        };
        return Ok((at, pixels));
    }
    Ok((at.min(data.len()), Pixels::Absent))
}

/// Basic offset table and fragments of an encapsulated stream that starts at `at`.
fn fragments(data: &[u8], at: usize, encoding: DataSetEncoding) -> Result<Pixels, StructureError> {
    let (mut at, mut items) = (at, Vec::new());
    while at + 8 <= data.len() {
        let item = ElementHeader::read(data, at, data.len(), encoding)?;
        if item.tag != Tag(0xFFFE, 0xE000) {
            break;
        }
        at = item.end(data.len())?;
        items.push(item.value..at);
    }
    if items.is_empty() {
        return Ok(Pixels::Absent);
    }
    let table = items.remove(0);
    let offsets = data[table].chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok(Pixels::Encapsulated { offsets, fragments: items })
}

/// Tag, value representation and length of an element, and where its value starts.
struct ElementHeader {
    tag: Tag,
    vr: Option<[u8; 2]>,
    length: u32,
    offset: usize,
    value: usize,
}

impl ElementHeader {
    fn read(data: &[u8], at: usize, end: usize, encoding: DataSetEncoding) -> Result<Self, StructureError> {
        let bytes = |from: usize, n: usize| {
            data[..end].get(from..from.saturating_add(n)).ok_or(StructureError::Damaged { offset: at })
        };
        let short = |from: usize| {
            let b = bytes(from, 2)?;
            Ok(if encoding.big_endian { u16::from_be_bytes([b[0], b[1]]) } else { u16::from_le_bytes([b[0], b[1]]) })
        };
        let long = |from: usize| {
            let b = bytes(from, 4)?;
            let b = [b[0], b[1], b[2], b[3]];
            Ok(if encoding.big_endian { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) })
        };
        let tag = Tag(short(at)?, short(at + 2)?);
        if !encoding.explicit || tag.group() == 0xFFFE {
            return Ok(Self { tag, vr: None, length: long(at + 4)?, offset: at, value: at + 8 });
        }
        let vr = bytes(at + 4, 2)?;
        let vr = [vr[0], vr[1]];
        let (length, value) = match &vr {
            b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN" | b"UR" | b"UT" | b"UV" => {
                (long(at + 8)?, at + 12)
            }
            _ if VR::from_binary(vr).is_some() => (u32::from(short(at + 6)?), at + 8),
            _ => return Err(StructureError::Damaged { offset: at }),
        };
        Ok(Self { tag, vr: Some(vr), length, offset: at, value })
    }

    /// End of a value of defined length, checked against `limit`.
    fn end(&self, limit: usize) -> Result<usize, StructureError> {
        let available = limit.saturating_sub(self.value);
        if self.length as usize > available {
            let declared = self.length as usize;
            return Err(StructureError::Truncated { tag: self.tag, offset: self.offset, declared, available });
        }
        Ok(self.value + self.length as usize)
    }

    fn is_sequence(&self) -> bool {
        match self.vr {
            Some(vr) => &vr == b"SQ",
            None => StandardDataDictionary.by_tag(self.tag).is_some_and(|entry| entry.vr() == VirtualVr::Exact(VR::SQ)),
        }
    }
}

/// Offset after an element; sequences in it are walked.
fn skip(
    data: &[u8],
    element: &ElementHeader,
    end: usize,
    encoding: DataSetEncoding,
    depth: usize,
) -> Result<usize, StructureError> {
    if depth > MAX_DEPTH {
        return Err(StructureError::TooDeep);
    }
    if element.length != UNDEFINED && !element.is_sequence() {
        return element.end(end);
    }
    // UN with undefined length is a sequence of implicit elements (PS3.5 6.2.2).
    let encoding = if element.vr == Some(*b"UN") { DataSetEncoding { explicit: false, ..encoding } } else { encoding };
    let limit = if element.length == UNDEFINED { end } else { element.end(end)? };
    let mut at = element.value;
    while at + 8 <= limit {
        let item = ElementHeader::read(data, at, limit, encoding)?;
        at = match item.tag {
            Tag(0xFFFE, 0xE000) => skip_item(data, &item, limit, encoding, depth + 1)?,
            Tag(0xFFFE, 0xE0DD) => return Ok(item.value),
            _ => return Err(StructureError::Damaged { offset: at }),
        };
    }
    if element.length == UNDEFINED { Err(StructureError::Damaged { offset: element.offset }) } else { Ok(limit) }
}

/// Offset after a sequence item.
fn skip_item(
    data: &[u8],
    item: &ElementHeader,
    end: usize,
    encoding: DataSetEncoding,
    depth: usize,
) -> Result<usize, StructureError> {
    let limit = if item.length == UNDEFINED { end } else { item.end(end)? };
    let mut at = item.value;
    while at + 8 <= limit {
        let element = ElementHeader::read(data, at, limit, encoding)?;
        if element.tag == Tag(0xFFFE, 0xE00D) {
            return Ok(element.value);
        }
        at = skip(data, &element, limit, encoding, depth)?;
    }
    if item.length == UNDEFINED { Err(StructureError::Damaged { offset: item.offset }) } else { Ok(limit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with the given transfer syntax and data set.
    fn file(syntax: &str, dataset: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 128];
        bytes.extend(b"DICM\x02\x00\x10\x00UI");
        bytes.extend((syntax.len() as u16).to_le_bytes());
        bytes.extend(syntax.as_bytes());
        bytes.extend(dataset);
        bytes
    }

    #[test]
    fn native_pixels_are_located() {
        let dataset = b"\x28\x00\x10\x00US\x02\x00\x01\x00\xe0\x7f\x10\x00OW\0\0\x04\0\0\0abcd";
        let bytes = file("1.2.840.10008.1.2.1", dataset);
        let structure = DicomStructure::of(&bytes, 100).unwrap();
        assert_eq!(structure.pixels, Pixels::Native { range: 22..26, words: true });
        assert_eq!(structure.header(), &dataset[..10]);
    }

    #[test]
    fn a_length_beyond_the_end_of_the_file_is_truncation() {
        let bytes = file("1.2.840.10008.1.2.1", b"\x10\x00\x10\x00UT\0\0\xff\xff\xff\x7fabc");
        let error = DicomStructure::of(&bytes, 100).unwrap_err();
        assert!(matches!(error, StructureError::Truncated { declared: 0x7fff_ffff, available: 3, .. }), "{error:?}");
    }

    #[test]
    fn deep_nesting_is_refused() {
        let level = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff".repeat(2000);
        assert_eq!(DicomStructure::of(&file("1.2.840.10008.1.2.1", &level), 100).unwrap_err(), StructureError::TooDeep);
    }

    #[test]
    fn text_is_not_dicom() {
        assert_eq!(DicomStructure::of(b"hello, this is a text file", 100).unwrap_err(), StructureError::NotDicom);
    }

    #[test]
    fn inflation_is_bounded() {
        let mut deflater = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut deflater, &vec![0; 100_000]).unwrap();
        let bytes = file("1.2.840.10008.1.2.1.99", &deflater.finish().unwrap());
        assert_eq!(DicomStructure::of(&bytes, 1000).unwrap_err(), StructureError::Deflate { limit: 1000 });
    }
}
