//! Which of the four kinds of series it is: from the header, else from the brightness of the voxels.

use willis_core::{Finding, Modality};

use super::header::Hints;

/// Kind of series and, when it is a guess, the finding that says so.
pub(super) fn modality(hints: Option<&Hints>, voxels: &[f32]) -> (Modality, Option<Finding>) {
    match hints.and_then(from_header) {
        Some((modality, None)) => (modality, None),
        Some((modality, Some(basis))) => (modality, Some(guessed(modality, basis))),
        None => {
            let modality = from_voxels(voxels);
            (modality, Some(guessed(modality, "the brightness of the voxels, which is unreliable; state it")))
        }
    }
}

fn guessed(modality: Modality, basis: &str) -> Finding {
    Finding::warning("modality-guessed", format!("taken for {} from {basis}", modality.name()))
}

/// Kind by header: CT is CTA; MR by its words, then by contrast agent, then by echo and repetition time.
/// The second value tells what a guess rests on.
fn from_header(hints: &Hints) -> Option<(Modality, Option<&'static str>)> {
    if hints.modality == "CT" {
        return Some((Modality::Cta, None));
    }
    if hints.modality != "MR" {
        return None;
    }
    let words: Vec<&str> = hints.text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let has = |list: &[&str]| words.iter().any(|w| list.iter().any(|l| w.starts_with(l)));
    if hints.angio || has(&["tof", "mra", "angio", "3dtof"]) {
        return Some((Modality::Mra, None));
    }
    if has(&["t2", "flair", "ciss", "fiesta", "space2"]) && !has(&["t1"]) {
        return Some((Modality::T2, None));
    }
    let t1 = has(&["t1", "mprage", "bravo", "spgr", "tfl", "vibe", "fspgr"]);
    let after_contrast = has(&["post", "gad", "contrast"]) || words.iter().any(|w| ["c", "ce", "gd", "km"].contains(w));
    if t1 && (hints.contrast || after_contrast) {
        return Some((Modality::T1Post, None));
    }
    if t1 || hints.contrast {
        return Some((Modality::T1Post, Some("its description or contrast agent")));
    }
    let (echo, repetition) = (hints.echo_time_ms?, hints.repetition_time_ms?);
    let gradient_echo = hints.scanning_sequence.contains("GR");
    Some(if echo >= 60.0 {
        (Modality::T2, Some("its echo time"))
    } else if gradient_echo && hints.inversion_time_ms.is_none() && (15.0..=50.0).contains(&repetition) && echo <= 8.0 {
        (Modality::Mra, Some("its echo and repetition time"))
    } else if repetition <= 1200.0 || hints.inversion_time_ms.is_some() {
        (Modality::T1Post, Some("its echo and repetition time"))
    } else {
        (Modality::T2, Some("its echo and repetition time"))
    })
}

/// Kind by brightness. CT has air near -1000. In a time-of-flight angiogram few voxels (arteries) are far brighter than
/// tissue; in T2 many (fluid, about 5 %) are; after contrast in T1 the bright tail is short. The limits are ours, set
/// on synthetic series; they separate clear cases only.
fn from_voxels(voxels: &[f32]) -> Modality {
    let stride = (voxels.len() / 200_000).max(1);
    let mut sample: Vec<f32> = voxels.iter().copied().step_by(stride).collect();
    sample.sort_unstable_by(f32::total_cmp);
    let quantile =
        |values: &[f32], q: f64| values.get(((values.len() as f64 - 1.0) * q) as usize).copied().unwrap_or(0.0);
    let air = sample.partition_point(|&v| v < -500.0);
    if air > sample.len() / 50 {
        return Modality::Cta;
    }
    let mean = sample.iter().map(|&v| f64::from(v)).sum::<f64>() / sample.len().max(1) as f64;
    let head = &sample[sample.partition_point(|&v| f64::from(v) <= mean)..];
    let tissue = quantile(head, 0.5).max(f32::MIN_POSITIVE);
    let (broad, peak) = (quantile(head, 0.95) / tissue, quantile(head, 0.9995) / tissue);
    if peak > 2.5 && broad < 1.6 {
        Modality::Mra
    } else if broad > 1.6 {
        Modality::T2
    } else {
        Modality::T1Post
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_words_decide() {
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
        assert_eq!(from_header(&times), Some((Modality::T2, Some("its echo time"))));
    }

    #[test]
    fn voxels_decide_when_the_header_is_silent() {
        let air = |n: usize, low: f32| vec![low; n];
        let ct = [air(500, -1000.0), vec![40.0; 500]].concat();
        assert_eq!(from_voxels(&ct), Modality::Cta);
        let tof = [air(5000, 0.0), vec![100.0; 4980], vec![400.0; 20]].concat();
        assert_eq!(from_voxels(&tof), Modality::Mra);
        let t2 = [air(5000, 0.0), vec![100.0; 4500], vec![300.0; 500]].concat();
        assert_eq!(from_voxels(&t2), Modality::T2);
        assert_eq!(from_voxels(&[]), Modality::T1Post);
    }
}
