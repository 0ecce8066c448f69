//! The thirteen arterial sites. This is the only list of their names in the program.
//!
//! Source: RSNA Intracranial Aneurysm Detection 2025, columns of `train.csv` and values of the
//! vessel masks. The two orders differ: [`Site`] is in column order, [`Site::mask_value`] returns
//! the mask value.

use serde::{Deserialize, Serialize};

/// Number of arterial sites.
pub const SITE_COUNT: usize = 13;

/// Name of the fourteenth column, an aneurysm anywhere.
pub const ANEURYSM_PRESENT: &str = "Aneurysm Present";

/// An arterial site, in the challenge's column order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// Left infraclinoid internal carotid artery.
    LeftInfraclinoidIca,
    /// Right infraclinoid internal carotid artery.
    RightInfraclinoidIca,
    /// Left supraclinoid internal carotid artery.
    LeftSupraclinoidIca,
    /// Right supraclinoid internal carotid artery.
    RightSupraclinoidIca,
    /// Left middle cerebral artery.
    LeftMca,
    /// Right middle cerebral artery.
    RightMca,
    /// Anterior communicating artery.
    Acom,
    /// Left anterior cerebral artery.
    LeftAca,
    /// Right anterior cerebral artery.
    RightAca,
    /// Left posterior communicating artery.
    LeftPcom,
    /// Right posterior communicating artery.
    RightPcom,
    /// Basilar tip.
    BasilarTip,
    /// Other posterior circulation.
    OtherPosterior,
}

impl Site {
    /// Every site, in column order.
    pub const ALL: [Site; SITE_COUNT] = [
        Site::LeftInfraclinoidIca,
        Site::RightInfraclinoidIca,
        Site::LeftSupraclinoidIca,
        Site::RightSupraclinoidIca,
        Site::LeftMca,
        Site::RightMca,
        Site::Acom,
        Site::LeftAca,
        Site::RightAca,
        Site::LeftPcom,
        Site::RightPcom,
        Site::BasilarTip,
        Site::OtherPosterior,
    ];

    /// Position in the challenge's column order, 0 to 12.
    pub const fn column(self) -> usize {
        self as usize
    }

    /// The challenge's column name.
    pub const fn name(self) -> &'static str {
        [
            "Left Infraclinoid Internal Carotid Artery",
            "Right Infraclinoid Internal Carotid Artery",
            "Left Supraclinoid Internal Carotid Artery",
            "Right Supraclinoid Internal Carotid Artery",
            "Left Middle Cerebral Artery",
            "Right Middle Cerebral Artery",
            "Anterior Communicating Artery",
            "Left Anterior Cerebral Artery",
            "Right Anterior Cerebral Artery",
            "Left Posterior Communicating Artery",
            "Right Posterior Communicating Artery",
            "Basilar Tip",
            "Other Posterior Circulation",
        ][self as usize]
    }

    /// Value of this site in the challenge's vessel masks, 1 to 13; 0 is background.
    pub const fn mask_value(self) -> u8 {
        [6, 5, 8, 7, 10, 9, 13, 12, 11, 4, 3, 2, 1][self as usize]
    }

    /// The same vessel on the other side; a midline site is its own mirror image.
    pub const fn mirror(self) -> Site {
        Self::ALL[[1, 0, 3, 2, 5, 4, 6, 8, 7, 10, 9, 11, 12][self as usize]]
    }

    /// Site at a column position.
    pub fn from_column(column: usize) -> Option<Site> {
        Self::ALL.get(column).copied()
    }

    /// Site with a column name.
    pub fn from_name(name: &str) -> Option<Site> {
        Self::ALL.into_iter().find(|site| site.name() == name)
    }

    /// Site with a mask value; `None` for background and other values.
    pub fn from_mask_value(value: u8) -> Option<Site> {
        Self::ALL.into_iter().find(|site| site.mask_value() == value)
    }
}

/// The fourteen column names of a submission, in order.
pub fn column_names() -> impl Iterator<Item = &'static str> {
    Site::ALL.into_iter().map(Site::name).chain([ANEURYSM_PRESENT])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_values_match_the_published_table() {
        // Mask value 1..=13 to 1-based column, from the challenge's table.
        let columns = [13, 12, 11, 10, 2, 1, 4, 3, 6, 5, 9, 8, 7];
        for (value, column) in (1u8..).zip(columns) {
            assert_eq!(Site::from_mask_value(value).unwrap().column() + 1, column);
        }
        assert_eq!(Site::from_mask_value(0), None);
        assert_eq!(Site::from_mask_value(14), None);
    }

    #[test]
    fn mirror_swaps_sides_and_is_its_own_inverse() {
        for site in Site::ALL {
            assert_eq!(site.mirror().mirror(), site);
            let swapped = site.name().replace("Left", "?").replace("Right", "Left").replace('?', "Right");
            assert_eq!(site.mirror().name(), swapped);
            assert_eq!(Site::from_column(site.column()), Some(site));
            assert_eq!(Site::from_name(site.name()), Some(site));
        }
    }
}
