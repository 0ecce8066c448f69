//! Structure of a DICOM file: the transfer syntax, the elements of the header, and where the pixel
//! data is.
//!
//! The elements are read by `elements`, which trusts no length. The pixel data is located here, not
//! decoded.

use std::borrow::Cow;
use std::io::Read;
use std::ops::Range;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};

use super::attributes::{self, DataSet};
use super::elements::{self, DataSetEncoding, Doubt, Element, ElementHeader, UNDEFINED};
use super::file_error::StructureError;

/// Explicit VR big endian: retired, but archives still contain it.
pub(super) const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// A deflated data set may inflate to this many bytes, ...
const SMALL_DATASET_BYTES: u64 = 32 << 20;
/// ... and by this factor. Images are deflated by 2 to 4, those with much background by 20.
const MAX_INFLATION: u64 = 64;
/// Maximum number of fragments of compressed pixel data.
const MAX_FRAGMENTS: usize = 1 << 20;

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
    /// Fragments of a compressed stream, and the offset of each frame from the basic or the
    /// extended offset table; empty without a table.
    Encapsulated {
        offsets: Vec<u64>,
        fragments: Vec<Range<usize>>,
    },
}

/// The parts of one file.
#[derive(Debug)]
pub(super) struct DicomStructure<'a> {
    /// Transfer syntax UID; empty when the file has no meta group.
    pub syntax: String,
    /// Whether the pixel data is big endian.
    pub big_endian: bool,
    /// Whether the elements are not encoded as the transfer syntax says.
    pub is_mislabelled: bool,
    /// The data set without the meta group, after inflation; of [`Self::of_start`] its start.
    pub dataset: Cow<'a, [u8]>,
    /// Size of the data set, bytes.
    pub dataset_bytes: usize,
    /// Offset of the data set in the file; `None` after inflation.
    pub dataset_start: Option<usize>,
    elements: Vec<Element>,
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
        let start = matches!(dataset, Cow::Borrowed(_)).then_some(dataset_start);
        let encoding = StatedEncoding::of(&dataset, &syntax);
        let total = dataset.len();
        let parse = |encoding| -> Result<_, StructureError> {
            let header = elements::walk(&dataset, encoding, Doubt::Retry)?;
            let pixels = locate_pixels(&dataset, total, encoding, &header)?;
            Ok((header.elements, pixels))
        };
        let mut parsed = parse(encoding.encoding);
        if parsed.is_err() && !encoding.looks_explicit {
            parsed = parse(DataSetEncoding::IMPLICIT).or(parsed);
        }
        let (elements, pixels) = parsed?;
        let is_mislabelled = encoding.is_mislabelled(&dataset);
        let big_endian = encoding.encoding.big_endian;
        let dataset_bytes = dataset.len();
        Ok(Self { syntax, big_endian, is_mislabelled, dataset, dataset_bytes, dataset_start: start, elements, pixels })
    }

    /// The structure of a file of `total` bytes, of which `file` is the start. `None` when that
    /// does not tell: the file must be walked whole, which gives the same structure or an error.
    pub fn of_start(file: &'a [u8], total: u64) -> Option<Self> {
        let start = meta_start(file)?;
        let (syntax, dataset_start) = meta_group(file, start).ok()?;
        if syntax == uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN {
            return None;
        }
        let dataset = &file[dataset_start..];
        let dataset_bytes = usize::try_from(total).ok()?.checked_sub(dataset_start)?;
        let encoding = StatedEncoding::of(dataset, &syntax);
        let header = elements::walk(dataset, encoding.encoding, Doubt::Fail).ok()?;
        if header.pixels.is_none_or(|pixels| pixels.length == UNDEFINED) {
            return None;
        }
        let pixels = locate_pixels(dataset, dataset_bytes, encoding.encoding, &header).ok()?;
        Some(Self {
            big_endian: encoding.encoding.big_endian,
            is_mislabelled: encoding.is_mislabelled(dataset),
            syntax,
            dataset: Cow::Borrowed(dataset),
            dataset_bytes,
            dataset_start: Some(dataset_start),
            elements: header.elements,
            pixels,
        })
    }

    /// The elements before the pixel data.
    pub fn header(&self) -> DataSet<'_> {
        DataSet { bytes: &self.dataset, elements: &self.elements }
    }
}

/// Encoding of a data set: some writers declare explicit VR and write implicit, or the reverse.
#[derive(Debug, Clone, Copy)]
struct StatedEncoding {
    encoding: DataSetEncoding,
    looks_explicit: bool,
    declares_explicit: bool,
    has_syntax: bool,
}

impl StatedEncoding {
    fn of(dataset: &[u8], syntax: &str) -> Self {
        let looks_explicit = looks_explicit(dataset);
        let declares_explicit = !matches!(syntax, "" | uids::IMPLICIT_VR_LITTLE_ENDIAN);
        let explicit = looks_explicit || declares_explicit;
        let encoding = DataSetEncoding { explicit, big_endian: syntax == BIG_ENDIAN };
        Self { encoding, looks_explicit, declares_explicit, has_syntax: !syntax.is_empty() }
    }

    fn is_mislabelled(&self, dataset: &[u8]) -> bool {
        self.has_syntax && !dataset.is_empty() && self.looks_explicit != self.declares_explicit
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
    let plausible = file.len() >= 8 && ((group == 2 && element <= 0x10) || (group == 8 && element <= 0x18));
    (plausible && (looks_explicit(file) || u32::from_le_bytes([file[4], file[5], file[6], file[7]]) < 256)).then_some(0)
}

/// Whether the first element of a data set carries a value representation.
fn looks_explicit(dataset: &[u8]) -> bool {
    dataset.get(4..6).is_some_and(|vr| vr.iter().all(u8::is_ascii_uppercase))
}

/// Transfer syntax from the meta group (always explicit little endian), and the offset of the data
/// set after it.
fn meta_group(file: &[u8], start: usize) -> Result<(String, usize), StructureError> {
    let (mut at, mut syntax) = (start, String::new());
    while let Some(group) = file.get(at..at + 2) {
        if group != [2, 0] {
            break;
        }
        let element = ElementHeader::read(file, at, file.len(), DataSetEncoding::EXPLICIT)?;
        let end = element.end(file.len())?;
        if element.tag == Tag(0x0002, 0x0010) {
            let text = String::from_utf8_lossy(&file[element.value..end]);
            syntax = text.trim_matches(['\0', ' ']).to_owned();
        }
        at = end;
    }
    Ok((syntax, at))
}

/// Inflates a deflated data set up to `limit` bytes, and no further than an image would.
fn inflate(body: &[u8], limit: u64) -> Result<Vec<u8>, StructureError> {
    let limit = limit.min(SMALL_DATASET_BYTES + MAX_INFLATION * body.len() as u64);
    let mut dataset = Vec::new();
    let read = flate2::read::DeflateDecoder::new(body).take(limit + 1).read_to_end(&mut dataset);
    match read {
        Ok(n) if n as u64 <= limit => Ok(dataset),
        _ => Err(StructureError::Deflate { limit }),
    }
}

/// Where the pixel data is in a data set of `total` bytes, of which `data` may be the start.
fn locate_pixels(
    data: &[u8],
    total: usize,
    encoding: DataSetEncoding,
    header: &elements::Header,
) -> Result<Pixels, StructureError> {
    let Some(element) = &header.pixels else { return Ok(Pixels::Absent) };
    Ok(match (element.tag, element.length) {
        (tags::FLOAT_PIXEL_DATA, _) => Pixels::Float { range: element.value..element.end(total)?, bytes: 4 },
        (tags::DOUBLE_FLOAT_PIXEL_DATA, _) => Pixels::Float { range: element.value..element.end(total)?, bytes: 8 },
        (_, UNDEFINED) => {
            let set = DataSet { bytes: data, elements: &header.elements };
            fragments(data, element.value, encoding, extended_offsets(&set))?
        }
        (_, 0) => Pixels::Absent,
        _ => Pixels::Native { range: element.value..element.end(total)?, words: element.vr != Some(VR::OB.to_bytes()) },
    })
}

/// The extended offset table: 64-bit offsets of the frames.
fn extended_offsets(set: &DataSet) -> Vec<u64> {
    let (offsets, _) = attributes::bytes(set, tags::EXTENDED_OFFSET_TABLE).unwrap_or_default().as_chunks::<8>();
    offsets.iter().take(MAX_FRAGMENTS).map(|&offset| u64::from_le_bytes(offset)).collect()
}

/// Offset table and fragments of an encapsulated stream that starts at `at`.
fn fragments(data: &[u8], at: usize, encoding: DataSetEncoding, extended: Vec<u64>) -> Result<Pixels, StructureError> {
    let (mut at, mut table, mut fragments) = (at, None, Vec::new());
    while at + 8 <= data.len() {
        let item = ElementHeader::read(data, at, data.len(), encoding)?;
        if item.tag != Tag(0xFFFE, 0xE000) {
            break;
        }
        at = item.end(data.len())?;
        // The first item is the basic offset table.
        let range = item.value..at;
        match table {
            None => table = Some(range),
            Some(_) => fragments.push(range),
        }
        if fragments.len() > MAX_FRAGMENTS {
            return Err(StructureError::TooManyFragments { limit: MAX_FRAGMENTS });
        }
    }
    let Some(table) = table else { return Ok(Pixels::Absent) };
    let (basic, _) = data[table].as_chunks::<4>();
    let basic = basic.iter().take(MAX_FRAGMENTS).map(|&offset| u64::from(u32::from_le_bytes(offset)));
    let offsets = if extended.is_empty() { basic.collect() } else { extended };
    Ok(Pixels::Encapsulated { offsets, fragments })
}

#[cfg(test)]
mod tests {
    use super::super::attributes::{integer, number, numbers, text};
    use super::super::elements::{MAX_DEPTH, MAX_ELEMENTS};
    use super::*;

    const EXPLICIT: &str = "1.2.840.10008.1.2.1";

    /// A file with the given transfer syntax and data set.
    fn file(syntax: &str, dataset: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 128];
        bytes.extend(b"DICM\x02\x00\x10\x00UI");
        bytes.extend((syntax.len() as u16).to_le_bytes());
        bytes.extend(syntax.as_bytes());
        bytes.extend(dataset);
        bytes
    }

    /// An element of explicit VR.
    fn element(tag: Tag, vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
        let head = [&tag.group().to_le_bytes()[..], &tag.element().to_le_bytes(), vr].concat();
        let length = match vr {
            b"OB" | b"OW" | b"SQ" | b"UN" | b"UT" => [&[0, 0][..], &(value.len() as u32).to_le_bytes()].concat(),
            _ => (value.len() as u16).to_le_bytes().to_vec(),
        };
        [head, length, value.to_vec()].concat()
    }

    /// An element of implicit VR.
    fn implicit(tag: Tag, value: &[u8]) -> Vec<u8> {
        let head = [tag.group().to_le_bytes(), tag.element().to_le_bytes()].concat();
        [head, (value.len() as u32).to_le_bytes().to_vec(), value.to_vec()].concat()
    }

    /// A sequence of one item, both of undefined length.
    fn undefined(tag: Tag, vr: &[u8], content: &[u8]) -> Vec<u8> {
        let head = [&tag.group().to_le_bytes()[..], &tag.element().to_le_bytes(), vr].concat();
        let reserved = if vr.is_empty() { &[][..] } else { &[0, 0] };
        let item = [b"\xfe\xff\x00\xe0\xff\xff\xff\xff", content, b"\xfe\xff\x0d\xe0\0\0\0\0"].concat();
        [&head, reserved, &[0xff; 4], &item, b"\xfe\xff\xdd\xe0\0\0\0\0"].concat()
    }

    fn pixels() -> Vec<u8> {
        element(tags::PIXEL_DATA, b"OW", b"abcd")
    }

    #[test]
    fn native_pixels_are_located() {
        let bytes = file(EXPLICIT, b"\x28\x00\x10\x00US\x02\x00\x01\x00\xe0\x7f\x10\x00OW\0\0\x04\0\0\0abcd");
        let structure = DicomStructure::of(&bytes, 100).unwrap();
        assert_eq!(structure.pixels, Pixels::Native { range: 22..26, words: true });
        assert_eq!(integer(&structure.header(), tags::ROWS), Some(1));
    }

    #[test]
    fn a_length_beyond_the_end_of_the_file_is_truncation() {
        let bytes = file(EXPLICIT, b"\x10\x00\x10\x00UT\0\0\xff\xff\xff\x7fabc");
        let error = DicomStructure::of(&bytes, 100).unwrap_err();
        assert!(matches!(error, StructureError::Truncated { declared: 0x7fff_ffff, available: 3, .. }), "{error:?}");
    }

    #[test]
    fn deep_nesting_is_refused() {
        let level = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff".repeat(2000);
        assert_eq!(
            DicomStructure::of(&file(EXPLICIT, &level), 100).unwrap_err(),
            StructureError::TooDeep { limit: MAX_DEPTH }
        );
    }

    #[test]
    fn more_elements_than_the_limit_are_refused() {
        let many = b"\x10\x00\x10\x00\0\0\0\0".repeat(MAX_ELEMENTS + 1);
        let error = DicomStructure::of(&file("1.2.840.10008.1.2", &many), 100).unwrap_err();
        assert_eq!(error, StructureError::TooManyElements { limit: MAX_ELEMENTS });
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

    /// Elements of VR UN and undefined length hold items of implicit VR (CP-246), and some writers
    /// put explicit ones in them.
    #[test]
    fn unknown_elements_of_undefined_length_are_walked() {
        let private = Tag(0x0029, 0x1010);
        let inner = [implicit(Tag(0x0029, 0x0010), b"NAME"), implicit(private, &[1; 40])].concat();
        let nested = undefined(Tag(0x0029, 0x1020), b"", &inner);
        let explicit = element(Tag(0x0029, 0x1011), b"LO", b"text");
        for content in [&inner, &nested, &explicit, &vec![]] {
            let dataset = [undefined(private, b"UN", content), element(tags::RESCALE_SLOPE, b"DS", b"2 "), pixels()];
            let bytes = file(EXPLICIT, &dataset.concat());
            let structure = DicomStructure::of(&bytes, 100).unwrap();
            assert_eq!(number(&structure.header(), tags::RESCALE_SLOPE), Some(2.0));
            assert_eq!(structure.dataset[structure.dataset.len() - 4..], *b"abcd");
            assert!(matches!(structure.pixels, Pixels::Native { .. }));
        }
    }

    /// Attributes of the standard that were stored as UN have their VR of the dictionary, and are
    /// little endian in every transfer syntax.
    #[test]
    fn unknown_elements_of_the_standard_are_read() {
        let spacing = implicit(tags::PIXEL_SPACING, b"3.0\\2.0 ");
        let measures = [b"\xfe\xff\x00\xe0", &(spacing.len() as u32).to_le_bytes()[..], &spacing].concat();
        let dataset = [
            element(tags::SERIES_DESCRIPTION, b"UN", b"head "),
            element(tags::ROWS, b"UN", &[5, 1]),
            element(tags::RESCALE_SLOPE, b"UN", b"1 "),
            element(tags::PIXEL_MEASURES_SEQUENCE, b"UN", &measures),
            undefined(tags::PLANE_POSITION_SEQUENCE, b"UN", &implicit(tags::IMAGE_POSITION_PATIENT, b"1\\2\\3 ")),
            pixels(),
        ];
        let bytes = file(EXPLICIT, &dataset.concat());
        let structure = DicomStructure::of(&bytes, 100).unwrap();
        let set = structure.header();
        assert_eq!(text(&set, tags::SERIES_DESCRIPTION).as_deref(), Some("head"));
        assert_eq!(integer(&set, tags::ROWS), Some(261));
        assert_eq!(number(&set, tags::RESCALE_SLOPE), Some(1.0));
        let measures = attributes::item(&set, tags::PIXEL_MEASURES_SEQUENCE).unwrap();
        assert_eq!(numbers::<2>(&measures, tags::PIXEL_SPACING), Some([3.0, 2.0]));
        let position = attributes::item(&set, tags::PLANE_POSITION_SEQUENCE).unwrap();
        assert_eq!(numbers::<3>(&position, tags::IMAGE_POSITION_PATIENT), Some([1.0, 2.0, 3.0]));
    }

    /// Icons and overlays may be compressed: their fragments are not elements.
    #[test]
    fn compressed_icons_are_skipped() {
        let fragments = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x06\0\0\0\xff\xd8\xff\xf7ab\xfe\xff\xdd\xe0\0\0\0\0";
        let icon = [b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff", &fragments[..]].concat();
        let private = [b"\x09\x00\x11\x10OB\0\0\xff\xff\xff\xff", &fragments[..]].concat();
        for (vr, icon) in [(b"SQ", &icon), (b"UN", &[&icon[..4], &icon[8..]].concat()), (b"SQ", &private)] {
            let dataset = [
                undefined(tags::ICON_IMAGE_SEQUENCE, vr, icon),
                private.clone(),
                element(tags::RESCALE_SLOPE, b"DS", b"2 "),
                pixels(),
            ];
            let bytes = file(EXPLICIT, &dataset.concat());
            let structure = DicomStructure::of(&bytes, 100).unwrap();
            assert_eq!(number(&structure.header(), tags::RESCALE_SLOPE), Some(2.0));
        }
    }

    #[test]
    fn implicit_items_in_an_explicit_data_set_are_read() {
        let position = implicit(tags::IMAGE_POSITION_PATIENT, b"1\\2\\3 ");
        let dataset = [undefined(tags::PLANE_POSITION_SEQUENCE, b"SQ", &position), pixels()].concat();
        let bytes = file(EXPLICIT, &dataset);
        let structure = DicomStructure::of(&bytes, 100).unwrap();
        let position = attributes::item(&structure.header(), tags::PLANE_POSITION_SEQUENCE).unwrap();
        assert_eq!(numbers::<3>(&position, tags::IMAGE_POSITION_PATIENT), Some([1.0, 2.0, 3.0]));
    }

    #[test]
    fn a_wrong_transfer_syntax_is_noticed() {
        let [rows, pixel] = [(tags::ROWS, &[7, 0][..]), (tags::PIXEL_DATA, b"abcd")];
        let as_implicit = [implicit(rows.0, rows.1), implicit(pixel.0, pixel.1)].concat();
        let as_explicit = [element(rows.0, b"US", rows.1), element(pixel.0, b"OW", pixel.1)].concat();
        for (syntax, dataset, mislabelled) in [
            (EXPLICIT, &as_implicit, true),
            (EXPLICIT, &as_explicit, false),
            ("1.2.840.10008.1.2", &as_explicit, true),
            ("1.2.840.10008.1.2", &as_implicit, false),
        ] {
            let bytes = file(syntax, dataset);
            let structure = DicomStructure::of(&bytes, 100).unwrap();
            assert_eq!(structure.is_mislabelled, mislabelled, "{syntax}");
            assert_eq!(integer(&structure.header(), tags::ROWS), Some(7));
        }
    }

    #[test]
    fn both_offset_tables_are_read() {
        let fragments = b"\xfe\xff\x00\xe0\x04\0\0\0\x07\0\0\0\xfe\xff\x00\xe0\x02\0\0\0ab\xfe\xff\xdd\xe0\0\0\0\0";
        let encapsulated = [b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff", &fragments[..]].concat();
        let extended = implicit(tags::EXTENDED_OFFSET_TABLE, &[&9u64.to_le_bytes()[..]].concat());
        for (before, expected) in [(vec![], [7]), ([&extended[..4], b"OV\0\0", &extended[4..]].concat(), [9])] {
            let bytes = file(EXPLICIT, &[before, encapsulated.clone()].concat());
            let Pixels::Encapsulated { offsets, fragments } = DicomStructure::of(&bytes, 100).unwrap().pixels else {
                panic!("not encapsulated")
            };
            assert_eq!((&offsets[..], fragments.len()), (&expected[..], 1));
        }
    }
}
