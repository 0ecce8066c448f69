//! DICOM identifiers that depend only on the seed.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Type of an identifier; each type has its own random stream.
#[derive(Debug, Clone, Copy)]
enum UidKind {
    Study,
    Series,
    FrameOfReference,
    Instance,
    Patient,
}

/// The identifiers of one series, all derived from `(seed, index)`.
///
/// UIDs have the form `2.25.<decimal>` of a version 4 UUID (DICOM PS3.5 B.2). As in real exports,
/// their order is not the order of the slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeriesUids {
    seed: u64,
    index: u64,
}

impl SeriesUids {
    /// Identifiers of series `index` (from 0) of a data set with this seed.
    pub const fn new(seed: u64, index: u64) -> Self {
        Self { seed, index }
    }

    /// Study instance UID.
    pub fn study(&self) -> String {
        self.uid(UidKind::Study, 0)
    }

    /// Series instance UID.
    pub fn series(&self) -> String {
        self.uid(UidKind::Series, 0)
    }

    /// Frame of reference UID.
    pub fn frame_of_reference(&self) -> String {
        self.uid(UidKind::FrameOfReference, 0)
    }

    /// SOP instance UID of a slice.
    pub fn instance(&self, slice: usize) -> String {
        self.uid(UidKind::Instance, slice as u64)
    }

    /// Patient ID. Every series has its own patient.
    pub fn patient(&self) -> String {
        format!("PHANTOM-{:016X}", self.draw(UidKind::Patient, 0) as u64)
    }

    fn uid(&self, kind: UidKind, part: u64) -> String {
        const VERSION_4: u128 = 0x4 << 76;
        const VARIANT_1: u128 = 0b10 << 62;
        let random = self.draw(kind, part) & !(0xf << 76) & !(0b11 << 62);
        format!("2.25.{}", random | VERSION_4 | VARIANT_1)
    }

    /// Draws 128 bits from a stream that is keyed with seed, series, type and part.
    fn draw(&self, kind: UidKind, part: u64) -> u128 {
        let mut key = [0; 32];
        let words = [self.seed, self.index, kind as u64, part];
        for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let mut rng = ChaCha8Rng::from_seed(key);
        u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn uids_are_valid_distinct_and_repeatable() {
        let mut seen = BTreeSet::new();
        for (seed, index) in [(1, 0), (0, 1), (1, 1)] {
            let uids = SeriesUids::new(seed, index);
            let slices = (0..50).map(|slice| uids.instance(slice));
            for uid in slices.chain([uids.study(), uids.series(), uids.frame_of_reference()]) {
                let number: u128 = uid.strip_prefix("2.25.").unwrap().parse().unwrap();
                assert!(uid.len() <= 64);
                assert_eq!(number >> 76 & 0xf, 4, "UUID version");
                assert_eq!(number >> 62 & 0b11, 0b10, "UUID variant");
                assert!(seen.insert(uid));
            }
            assert_eq!(uids.series(), SeriesUids::new(seed, index).series());
        }
    }
}
