//! Transfer syntaxes: which are supported, and their names.

use dicom_dictionary_std::uids;
use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::structure::{BIG_ENDIAN, DicomStructure, Pixels};

/// How the pixel data of a file is encoded, given its transfer syntax and its structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PixelEncoding {
    Native,
    /// Uncompressed, though the transfer syntax is one of compressed pixels. Its length says how
    /// many frames there are, so it cannot be mistaken.
    NativeDespiteSyntax,
    /// Fragments of compressed streams; the streams say how they are compressed.
    Encapsulated,
}

impl PixelEncoding {
    /// The encoding of a file.
    ///
    /// # Errors
    /// The name of the transfer syntax when it is unknown: its pixels could be anything.
    pub fn of(structure: &DicomStructure) -> Result<Self, String> {
        let syntax = structure.syntax.as_str();
        if !is_compressed(syntax) && !is_native(syntax) {
            return Err(syntax_name(syntax));
        }
        Ok(if matches!(structure.pixels, Pixels::Encapsulated { .. }) {
            Self::Encapsulated
        } else if is_compressed(syntax) {
            Self::NativeDespiteSyntax
        } else {
            Self::Native
        })
    }
}

/// Whether a transfer syntax has uncompressed pixels; a file without a meta group has none.
pub(super) fn is_native(syntax: &str) -> bool {
    matches!(
        syntax,
        "" | uids::IMPLICIT_VR_LITTLE_ENDIAN
            | uids::EXPLICIT_VR_LITTLE_ENDIAN
            | BIG_ENDIAN
            | uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
            | uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN
    )
}

/// Whether a transfer syntax is one of JPEG, JPEG-LS, JPEG 2000 and the like, or RLE.
fn is_compressed(syntax: &str) -> bool {
    syntax == uids::RLE_LOSSLESS || syntax.starts_with("1.2.840.10008.1.2.4.")
}

/// Name and UID of a transfer syntax.
pub(super) fn syntax_name(uid: &str) -> String {
    let printable: String = uid.chars().filter(|c| c.is_ascii_digit() || *c == '.').take(64).collect();
    TransferSyntaxRegistry.get(uid).map_or(printable.clone(), |syntax| format!("{} ({printable})", syntax.name()))
}
