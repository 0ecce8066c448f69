//! Polarity: arteries are dark in T2 and bright in every other modality, and the nets expect them
//! bright.

use std::iter::once;

use willis_core::{Finding, HarmonisedVolume, Modality, Switch};
use willis_nets::segment::{SegmentNet, arteries_by_polarity};

use crate::config::Config;

/// The volume with bright arteries and the modality that follows from them.
///
/// If the modality was guessed from brightness alone, the vessel net runs on the image and on its
/// negative, and the polarity that shows more arteries is kept. Otherwise the volume is returned as
/// it is.
pub fn correct_polarity(volume: HarmonisedVolume, net: &SegmentNet, config: &Config) -> HarmonisedVolume {
    let Some(opposite) = opposite_of_guess(&volume, config) else { return volume };
    let voxels = arteries_by_polarity(net, &volume, &config.segment);
    if !voxels.favours_inversion() {
        return volume;
    }
    let finding = Finding::warning(
        "modality-corrected",
        format!(
            "corrected to {}: with inverted intensities {} voxels show arteries instead of {}",
            opposite.name(),
            voxels.inverted,
            voxels.as_is
        ),
    );
    let mut meta = volume.meta;
    meta.modality = Some(opposite);
    HarmonisedVolume {
        image: volume.image.map(|v| -v),
        meta,
        source: volume.source,
        // This finding corrects one of ingest, so it comes before those of harmonise.
        findings: once(finding).chain(volume.findings).collect(),
    }
}

/// Modality of the other polarity, if the modality is a guess that [`correct_polarity`] may change.
fn opposite_of_guess(volume: &HarmonisedVolume, config: &Config) -> Option<Modality> {
    if !volume.meta.modality_from_voxels || config.harmonise.invert_t2 == Switch::Off {
        return None;
    }
    match volume.meta.modality? {
        Modality::T2 => Some(Modality::Mra),
        Modality::Mra | Modality::T1Post => Some(Modality::T2),
        Modality::Cta => None,
    }
}
