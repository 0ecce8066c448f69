//! Modality of a series: from the header, or else guessed from the brightness of the voxels.

use willis_core::{Finding, Modality};

use super::header::Hints;

/// What a modality was determined from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Basis {
    /// The configuration, or an unambiguous header.
    Stated,
    /// A feature that makes it likely.
    Sign(&'static str),
    /// The brightness of the voxels.
    Brightness,
}

impl Basis {
    /// The finding that the modality is a guess, if it is one.
    pub fn finding(self, modality: Modality) -> Option<Finding> {
        let basis = match self {
            Self::Stated => return None,
            Self::Sign(basis) => basis,
            Self::Brightness => "the brightness of the voxels, which is unreliable; set it with --modality",
        };
        Some(Finding::warning("modality-guessed", format!("taken for {} from {basis}", modality.name())))
    }
}

/// Modality, and what it was determined from.
pub(super) fn modality(hints: Option<&Hints>, voxels: &[f32]) -> (Modality, Basis) {
    hints.and_then(from_header).unwrap_or_else(|| from_voxels(voxels))
}

/// Modality from the header: CT is CTA; MR is classified by the words of its description, then by
/// contrast agent, then by echo and repetition time. `None` when these are missing.
fn from_header(hints: &Hints) -> Option<(Modality, Basis)> {
    let stated = |modality| Some((modality, Basis::Stated));
    if hints.modality == "CT" {
        return stated(Modality::Cta);
    }
    if hints.modality != "MR" {
        return None;
    }
    let words: Vec<&str> = hints.text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let has = |list: &[&str]| words.iter().any(|w| list.iter().any(|l| w.starts_with(l)));
    if hints.angio || has(&["tof", "mra", "angio", "3dtof"]) {
        return stated(Modality::Mra);
    }
    if has(&["t2", "flair", "ciss", "fiesta", "space2"]) && !has(&["t1"]) {
        return stated(Modality::T2);
    }
    let t1 = has(&["t1", "mprage", "bravo", "spgr", "tfl", "vibe", "fspgr"]);
    let after_contrast = has(&["post", "gad", "contrast"]) || words.iter().any(|w| ["c", "ce", "gd", "km"].contains(w));
    if t1 && (hints.contrast || after_contrast) {
        return stated(Modality::T1Post);
    }
    if t1 || hints.contrast {
        return Some((Modality::T1Post, Basis::Sign("its description or contrast agent")));
    }
    let (echo, repetition) = (hints.echo_time_ms?, hints.repetition_time_ms?);
    let gradient_echo = hints.scanning_sequence.contains("GR");
    let times = Basis::Sign("its echo and repetition time");
    Some(if echo >= 60.0 {
        (Modality::T2, Basis::Sign("its echo time"))
    } else if gradient_echo && hints.inversion_time_ms.is_none() && (15.0..=50.0).contains(&repetition) && echo <= 8.0 {
        (Modality::Mra, times)
    } else if repetition <= 1200.0 || hints.inversion_time_ms.is_some() {
        (Modality::T1Post, times)
    } else {
        (Modality::T2, times)
    })
}

/// Modality guessed from the histogram.
///
/// CT has air near -1000. If nearly all voxels have the lowest value, the background was removed
/// from an angiogram. In a time-of-flight angiogram a few voxels (arteries) are far brighter than
/// all others. In T2 many voxels (fluid, about 5 %) are brighter, but none far brighter. In T1
/// after contrast the bright tail is short. The limits were set on synthetic series and two real
/// angiograms.
fn from_voxels(voxels: &[f32]) -> (Modality, Basis) {
    let stride = (voxels.len() / 200_000).max(1);
    let mut sample: Vec<f32> = voxels.iter().copied().step_by(stride).collect();
    sample.sort_unstable_by(f32::total_cmp);
    let quantile =
        |values: &[f32], q: f64| values.get(((values.len() as f64 - 1.0) * q) as usize).copied().unwrap_or(0.0);
    let air = sample.partition_point(|&v| v < -500.0);
    if air > sample.len() / 50 {
        return (Modality::Cta, Basis::Brightness);
    }
    let (lowest, highest) = (quantile(&sample, 0.0), quantile(&sample, 1.0));
    let empty = sample.partition_point(|&v| v <= lowest);
    if highest > lowest && empty > sample.len() / 10 * 9 {
        return (Modality::Mra, Basis::Sign("its background, which was removed"));
    }
    let mean = sample.iter().map(|&v| f64::from(v)).sum::<f64>() / sample.len().max(1) as f64;
    let head = &sample[sample.partition_point(|&v| f64::from(v) <= mean)..];
    let tissue = quantile(head, 0.5).max(f32::MIN_POSITIVE);
    let (broad, peak) = (quantile(head, 0.95) / tissue, quantile(head, 0.9995) / tissue);
    let modality = if peak > 2.5 && peak > 1.5 * broad {
        Modality::Mra
    } else if broad > 1.6 {
        Modality::T2
    } else {
        Modality::T1Post
    };
    (modality, Basis::Brightness)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_header_decide() {
        let mr = |text: &str| Hints { modality: "MR".into(), text: text.into(), ..Hints::default() };
        for (hints, expected) in [
            (Hints { modality: "CT".into(), ..Hints::default() }, Some(Modality::Cta)),
            (mr("3d tof multi-slab"), Some(Modality::Mra)),
            (mr("ax t2 frfse"), Some(Modality::T2)),
            (mr("t1_mprage_sag post gd"), Some(Modality::T1Post)),
            (mr("t1 cor"), Some(Modality::T1Post)),
            (mr(""), None),
        ] {
            assert_eq!(from_header(&hints).map(|m| m.0), expected, "{}", hints.text);
        }
        let times = Hints { echo_time_ms: Some(90.0), repetition_time_ms: Some(4000.0), ..mr("axial") };
        assert_eq!(from_header(&times), Some((Modality::T2, Basis::Sign("its echo time"))));
    }

    #[test]
    fn voxels_decide_without_a_header() {
        let guess = |voxels: &[f32]| from_voxels(voxels).0;
        let air = |n: usize, low: f32| vec![low; n];
        let ct = [air(500, -1000.0), vec![40.0; 500]].concat();
        assert_eq!(guess(&ct), Modality::Cta);
        let tof = [air(5000, 0.0), vec![100.0; 4980], vec![400.0; 20]].concat();
        assert_eq!(guess(&tof), Modality::Mra);
        let t2 = [air(5000, 0.0), vec![100.0; 4500], vec![300.0; 500]].concat();
        assert_eq!(guess(&t2), Modality::T2);
        // In a crop around the circle of Willis the brightest 5 % are arteries.
        let tissue = (0..9750).map(|i| 60.0 + 0.009 * i as f32);
        let crop: Vec<f32> = tissue.chain((0..250).map(|i| 200.0 + 2.6 * i as f32)).collect();
        assert_eq!(guess(&crop), Modality::Mra);
        let background_removed = [air(9900, 0.0), (0..100).map(|i| 90.0 + i as f32).collect()].concat();
        assert_eq!(guess(&background_removed), Modality::Mra);
        assert_eq!(guess(&[]), Modality::T1Post);
    }
}
