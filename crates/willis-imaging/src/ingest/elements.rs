//! Elements of a DICOM data set: a walk that trusts no length, and the tree it yields.
//!
//! This is the only parser of DICOM structure. Every length is compared with the bytes there are
//! before it is used, nothing is allocated but one [`Element`] for each element, and sequences of
//! undefined length in elements of unknown VR are read as the standard says. Values are not
//! interpreted here (see `attributes`), and pixel data is located in `structure`.

use std::ops::Range;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

use super::file_error::StructureError;

/// Maximum nesting depth of sequences; enhanced files use four levels.
pub(super) const MAX_DEPTH: usize = 24;
/// Maximum number of elements and items of a data set that are kept. Enhanced files have about a
/// hundred for each frame. An element takes 40 bytes of memory.
pub(super) const MAX_ELEMENTS: usize = 1 << 20;
/// Length field of an element of undefined length.
pub(super) const UNDEFINED: u32 = u32::MAX;

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_DELIMITER: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_DELIMITER: Tag = Tag(0xFFFE, 0xE0DD);
const PIXEL_DATA: Tag = Tag(0x7FE0, 0x0010);

/// Encoding of the elements of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DataSetEncoding {
    /// Whether elements carry their value representation (VR).
    pub explicit: bool,
    pub big_endian: bool,
}

impl DataSetEncoding {
    /// Encoding inside elements of VR UN, whatever the transfer syntax is (PS3.5 section 6.2.2).
    pub const IMPLICIT: Self = Self { explicit: false, big_endian: false };
    /// Encoding of the meta group.
    pub const EXPLICIT: Self = Self { explicit: true, big_endian: false };
}

/// One element. Its value is a range of the bytes that were walked.
#[derive(Debug, Clone)]
pub(super) struct Element {
    pub tag: Tag,
    /// The VR as written; for implicit VR and UN that of the dictionary, which is UN for private
    /// elements.
    pub vr: VR,
    pub big_endian: bool,
    pub value: ElementValue,
}

/// Value of an element.
#[derive(Debug, Clone)]
pub(super) enum ElementValue {
    Bytes(Range<usize>),
    /// Items of a sequence.
    Items(Vec<Vec<Element>>),
}

/// Tag, VR and length of an element, and where its value starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct ElementHeader {
    pub tag: Tag,
    /// As written; `None` for implicit VR.
    pub vr: Option<[u8; 2]>,
    pub length: u32,
    pub offset: usize,
    pub value: usize,
}

impl ElementHeader {
    /// Reads the header at `at` of the elements that end at `end`.
    ///
    /// An element without a VR in a data set of explicit VR is read as implicit, as other readers
    /// do. An unknown VR has a length of 32 bits if its reserved field is zero (PS3.5 section 6.2).
    pub fn read(data: &[u8], at: usize, end: usize, encoding: DataSetEncoding) -> Result<Self, StructureError> {
        let bytes = data[..end].get(at..).filter(|b| b.len() >= 8).ok_or(StructureError::Damaged { offset: at })?;
        let short = |from: usize| {
            let b = [bytes[from], bytes[from + 1]];
            if encoding.big_endian { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) }
        };
        let long = |b: &[u8]| {
            let b = [b[0], b[1], b[2], b[3]];
            if encoding.big_endian { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) }
        };
        let tag = Tag(short(0), short(2));
        let vr = [bytes[4], bytes[5]];
        if !encoding.explicit || tag.group() == 0xFFFE || !vr.iter().all(u8::is_ascii_uppercase) {
            return Ok(Self { tag, vr: None, length: long(&bytes[4..]), offset: at, value: at + 8 });
        }
        let is_long = match VR::from_binary(vr) {
            Some(vr) => has_long_length(vr),
            None => bytes[6..8] == [0, 0],
        };
        let (length, value) = if is_long {
            (long(bytes.get(8..12).ok_or(StructureError::Damaged { offset: at })?), at + 12)
        } else {
            (u32::from(short(6)), at + 8)
        };
        Ok(Self { tag, vr: Some(vr), length, offset: at, value })
    }

    /// End of a value of defined length, checked against `limit`.
    pub fn end(&self, limit: usize) -> Result<usize, StructureError> {
        let available = limit.saturating_sub(self.value);
        if self.length as usize > available {
            let declared = self.length as usize;
            return Err(StructureError::Truncated { tag: self.tag, offset: self.offset, declared, available });
        }
        Ok(self.value + self.length as usize)
    }

    /// Whether the element was written with VR UN.
    fn is_unknown(&self) -> bool {
        self.vr == Some(*b"UN")
    }

    /// The VR as written, or else that of the dictionary.
    fn vr(&self) -> VR {
        let written = self.vr.and_then(VR::from_binary).filter(|&vr| vr != VR::UN);
        written.unwrap_or_else(|| StandardDataDictionary.by_tag(self.tag).map_or(VR::UN, |entry| entry.vr().relaxed()))
    }
}

/// Whether the length field of a VR has 32 bits.
fn has_long_length(vr: VR) -> bool {
    use VR::{OB, OD, OF, OL, OV, OW, SQ, SV, UC, UN, UR, UT, UV};
    matches!(vr, OB | OD | OF | OL | OV | OW | SQ | SV | UC | UN | UR | UT | UV)
}

/// Elements of a data set up to its pixel data.
pub(super) struct Header {
    pub elements: Vec<Element>,
    /// The element of the pixel data, where there is one.
    pub pixels: Option<ElementHeader>,
}

/// What a walk does with items that cannot be read in the encoding of their data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Tries the other encoding.
    Retry,
    /// Fails: the bytes may be only the start of a data set.
    Fail,
}

/// Walks a data set up to its pixel data.
///
/// # Errors
/// [`StructureError`] when a length does not fit, or a limit is exceeded.
pub(super) fn walk(data: &[u8], encoding: DataSetEncoding, doubt: Doubt) -> Result<Header, StructureError> {
    // Trailing zero padding is not an element.
    let content = data.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    // Where an encoding is uncertain elements are read twice, so a chain of such places inside
    // each other could take for ever.
    let steps = data.len() / 4 + 1024;
    let mut walk = Walk { data, kept: 0, steps, doubt };
    let (mut at, mut elements) = (0, Vec::new());
    while at + 8 <= data.len() && at < content {
        let element = walk.element(at, data.len(), encoding)?;
        if element.tag.group() == 0x7FE0 && matches!(element.tag.element(), 0x08..=0x10) {
            return Ok(Header { elements, pixels: Some(element) });
        }
        at = walk.visit(&element, data.len(), encoding, 0, Some(&mut elements))?;
    }
    Ok(Header { elements, pixels: None })
}

/// A walk over the elements of a data set.
struct Walk<'a> {
    data: &'a [u8],
    /// Number of elements and items kept.
    kept: usize,
    /// Number of elements that may still be read.
    steps: usize,
    doubt: Doubt,
}

impl Walk<'_> {
    fn element(&mut self, at: usize, end: usize, encoding: DataSetEncoding) -> Result<ElementHeader, StructureError> {
        self.steps = self.steps.checked_sub(1).ok_or(StructureError::Damaged { offset: at })?;
        ElementHeader::read(self.data, at, end, encoding)
    }

    /// Reads the value of an element into `kept`, if that is given; returns where the value ends.
    fn visit(
        &mut self,
        element: &ElementHeader,
        end: usize,
        encoding: DataSetEncoding,
        depth: usize,
        kept: Option<&mut Vec<Element>>,
    ) -> Result<usize, StructureError> {
        let vr = element.vr();
        let inner = if element.is_unknown() { DataSetEncoding::IMPLICIT } else { encoding };
        let is_fragments = element.tag == PIXEL_DATA || !(element.is_unknown() || matches!(vr, VR::SQ | VR::UN));
        let (value, next) = match (element.length, vr) {
            // A compressed icon or overlay.
            (UNDEFINED, _) if is_fragments => return self.skip_fragments(element, end, encoding),
            (UNDEFINED, _) => self.sequence(element, end, inner, depth, kept.is_some())?,
            (_, VR::SQ) if kept.is_some() && element.tag.group().is_multiple_of(2) => {
                let limit = element.end(end)?;
                let (items, _) = self.sequence(element, limit, inner, depth, true)?;
                (items, limit)
            }
            _ => {
                let limit = element.end(end)?;
                (ElementValue::Bytes(element.value..limit), limit)
            }
        };
        // Delimiters that close nothing are skipped.
        if let Some(kept) = kept.filter(|_| element.tag.group() != 0xFFFE) {
            self.keep()?;
            kept.push(Element { tag: element.tag, vr, big_endian: inner.big_endian, value });
        }
        Ok(next)
    }

    fn keep(&mut self) -> Result<(), StructureError> {
        self.kept += 1;
        if self.kept > MAX_ELEMENTS { Err(StructureError::TooManyElements { limit: MAX_ELEMENTS }) } else { Ok(()) }
    }

    /// Items of a sequence, and where they end.
    ///
    /// Some writers put items of implicit VR into explicit data sets and the reverse; if the items
    /// cannot be read in the given encoding, the other one is tried.
    fn sequence(
        &mut self,
        element: &ElementHeader,
        end: usize,
        encoding: DataSetEncoding,
        depth: usize,
        keep: bool,
    ) -> Result<(ElementValue, usize), StructureError> {
        if depth >= MAX_DEPTH {
            return Err(StructureError::TooDeep { limit: MAX_DEPTH });
        }
        let kept = self.kept;
        let first = self.items(element, end, encoding, depth, keep);
        let retry = matches!(first, Err(StructureError::Damaged { .. } | StructureError::Truncated { .. }));
        if !retry || self.doubt == Doubt::Fail {
            return first;
        }
        self.kept = kept;
        let other = DataSetEncoding { explicit: !encoding.explicit, ..encoding };
        self.items(element, end, other, depth, keep).or(first)
    }

    fn items(
        &mut self,
        element: &ElementHeader,
        end: usize,
        encoding: DataSetEncoding,
        depth: usize,
        keep: bool,
    ) -> Result<(ElementValue, usize), StructureError> {
        // What is inside private sequences is not needed.
        let keep = keep && element.tag.group().is_multiple_of(2);
        let (mut at, mut items) = (element.value, Vec::new());
        while at + 8 <= end {
            let item = self.element(at, end, encoding)?;
            match item.tag {
                ITEM => {
                    let mut elements = Vec::new();
                    at = self.item(&item, end, encoding, depth + 1, keep.then_some(&mut elements))?;
                    if keep {
                        self.keep()?;
                        items.push(elements);
                    }
                }
                SEQUENCE_DELIMITER => return Ok((ElementValue::Items(items), item.value)),
                _ => return Err(StructureError::Damaged { offset: at }),
            }
        }
        if element.length == UNDEFINED {
            return Err(StructureError::Damaged { offset: element.offset });
        }
        Ok((ElementValue::Items(items), end))
    }

    /// Reads the elements of an item; returns where it ends.
    fn item(
        &mut self,
        item: &ElementHeader,
        end: usize,
        encoding: DataSetEncoding,
        depth: usize,
        mut kept: Option<&mut Vec<Element>>,
    ) -> Result<usize, StructureError> {
        let limit = if item.length == UNDEFINED { end } else { item.end(end)? };
        if item.length != UNDEFINED && kept.is_none() {
            return Ok(limit);
        }
        let mut at = item.value;
        while at + 8 <= limit {
            let element = self.element(at, limit, encoding)?;
            if element.tag == ITEM_DELIMITER {
                return Ok(element.value);
            }
            at = self.visit(&element, limit, encoding, depth, kept.as_deref_mut())?;
        }
        if item.length == UNDEFINED { Err(StructureError::Damaged { offset: item.offset }) } else { Ok(limit) }
    }

    /// Where the fragments of a compressed value end.
    fn skip_fragments(
        &mut self,
        element: &ElementHeader,
        end: usize,
        encoding: DataSetEncoding,
    ) -> Result<usize, StructureError> {
        let mut at = element.value;
        while at + 8 <= end {
            let item = self.element(at, end, encoding)?;
            match item.tag {
                ITEM => at = item.end(end)?,
                SEQUENCE_DELIMITER => return Ok(item.value),
                _ => break,
            }
        }
        Err(StructureError::Damaged { offset: element.offset })
    }
}
