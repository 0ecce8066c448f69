//! Notes on single files: what was repaired or assumed while it was read. They become findings of
//! the series, with the number of files that each concerns.

use std::collections::{BTreeMap, BTreeSet};

use willis_core::Finding;

/// Notes on one file or frame.
pub(super) type Notes = BTreeSet<Note>;

/// Something that was repaired or assumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Note {
    /// The elements are not encoded as the transfer syntax says.
    Mislabelled,
    /// Numbers are written with a decimal comma.
    DecimalComma,
    /// The rescale slope or intercept is not a number, or the slope is 0.
    UnreadableRescale,
    /// CT without rescale slope and intercept.
    NoRescale,
    /// MONOCHROME1 in CT, where it concerns the display alone.
    Monochrome1Ct,
    /// The stored bits are not the lowest ones.
    HighBit,
    /// Bits are set outside the stored ones.
    StrayBits,
    /// The compressed stream holds signed values, against the header.
    SignedStream,
    /// The pixel data is not compressed as the transfer syntax says.
    OtherCodec,
    /// The frames were told apart by the starts of their streams.
    NoOffsetTable,
}

impl Note {
    fn finding(self, files: usize) -> Finding {
        let warning = |code: &str, text: &str| Finding::warning(code, format!("{files} files: {text}"));
        let info = |code: &str, text: &str| Finding::info(code, format!("{files} files: {text}"));
        match self {
            Self::Mislabelled => {
                warning("mislabelled-syntax", "the header is not encoded as its transfer syntax says; read as it is")
            }
            Self::DecimalComma => {
                warning("decimal-comma", "numbers are written with a decimal comma; it was read as a point")
            }
            Self::UnreadableRescale => warning(
                "unreadable-rescale",
                "the rescale slope or intercept is not a usable number; slope 1 or intercept 0 was used",
            ),
            Self::NoRescale => {
                warning("no-rescale", "CT without rescale slope and intercept; stored values were taken for HU")
            }
            Self::Monochrome1Ct => {
                info("monochrome1", "MONOCHROME1 concerns the display alone; HU were left as they are")
            }
            Self::HighBit => {
                warning("high-bit", "the stored bits are not the lowest ones; values were shifted as the header says")
            }
            Self::StrayBits => warning(
                "stray-bits",
                "bits outside the stored ones are set (overlays, or a wrong BitsStored); they were cleared",
            ),
            Self::SignedStream => warning(
                "signed-stream",
                "the compressed values are signed though the header says unsigned; they were read as signed",
            ),
            Self::OtherCodec => {
                warning("other-codec", "the pixel data is not compressed as its transfer syntax says; read as it is")
            }
            Self::NoOffsetTable => {
                info("no-offset-table", "frames without an offset table were told apart by the starts of their streams")
            }
        }
    }
}

/// One finding for each kind of note, with the number of files; files are told apart by number.
pub(super) fn findings<'a>(notes: impl Iterator<Item = (usize, &'a Notes)>) -> Vec<Finding> {
    let mut files: BTreeMap<Note, BTreeSet<usize>> = BTreeMap::new();
    for (file, notes) in notes {
        for &note in notes {
            files.entry(note).or_default().insert(file);
        }
    }
    files.into_iter().map(|(note, files)| note.finding(files.len())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_once() {
        let both = Notes::from([Note::DecimalComma, Note::StrayBits]);
        let one = Notes::from([Note::StrayBits]);
        let found = findings([(0, &both), (0, &one), (1, &one)].into_iter());
        let codes: Vec<_> = found.iter().map(|f| (f.code.as_str(), &f.message[..8])).collect();
        assert_eq!(codes, [("decimal-comma", "1 files:"), ("stray-bits", "2 files:")]);
    }
}
