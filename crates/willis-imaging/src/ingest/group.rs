//! Selection of the slices that form one volume: series, then geometry within the series, then time
//! point within the geometry.

use std::collections::BTreeMap;

use willis_core::Finding;

use super::error::IngestError;
use super::geometry::{dot, normal_of};
use super::header::{Instance, Slice};

/// A slice and the file it is from.
#[derive(Debug, Clone)]
pub(super) struct SeriesSlice {
    /// Index of the instance.
    pub instance: usize,
    pub slice: Slice,
}

/// Instances of each series, by series UID.
pub(super) fn by_series(instances: &[Instance]) -> BTreeMap<&str, Vec<usize>> {
    let mut series: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, instance) in instances.iter().enumerate() {
        series.entry(&instance.series_uid).or_default().push(index);
    }
    // A canonical order, so that nothing depends on the order of files.
    for members in series.values_mut() {
        members.sort_by(|&a, &b| canonical_order(&instances[a], &instances[b]));
        members.dedup_by(|b, a| is_copy(&instances[*a], &instances[*b]));
    }
    series
}

/// Whether two files are copies of one instance.
fn is_copy(a: &Instance, b: &Instance) -> bool {
    !a.sop_uid.is_empty() && a.sop_uid == b.sop_uid && a.slices == b.slices
}

/// Order by instance number, then SOP instance UID, then position.
fn canonical_order(a: &Instance, b: &Instance) -> std::cmp::Ordering {
    let number = |i: &Instance| i.slices.first().and_then(|s| s.instance_number);
    number(a).cmp(&number(b)).then_with(|| a.sop_uid.cmp(&b.sop_uid)).then_with(|| {
        let position_sum = |i: &Instance| i.slices.first().and_then(|s| s.position).map_or(0.0, |p| p[0] + p[1] + p[2]);
        position_sum(a).total_cmp(&position_sum(b))
    })
}

/// Instances of the requested series, or else of the one with the most slices; CT and MR come
/// before other modalities.
pub(super) fn choose_series(
    instances: &[Instance],
    wanted: Option<&str>,
    findings: &mut Vec<Finding>,
) -> Result<Vec<usize>, IngestError> {
    let mut series = by_series(instances);
    if let Some(uid) = wanted {
        let found = series.len();
        return series.remove(uid).ok_or_else(|| IngestError::NoSuchSeries { uid: uid.to_owned(), found });
    }
    let rank = |members: &[usize]| {
        let scanner = members.iter().any(|&i| matches!(instances[i].hints.modality.as_str(), "CT" | "MR"));
        (scanner, members.iter().map(|&i| instances[i].slices.len()).sum::<usize>())
    };
    let others = series.len().saturating_sub(1);
    // Among equals the strict comparison keeps the first UID in the order of the map.
    let chosen = series
        .into_values()
        .reduce(|best, next| if rank(&next) > rank(&best) { next } else { best })
        .unwrap_or_default();
    if others > 0 {
        let message = format!(
            "the input holds {others} other series; the one with the most slices was read, select another by its UID"
        );
        findings.push(Finding::warning("several-series", message));
    }
    Ok(chosen)
}

/// All slices of the given instances.
pub(super) fn members(instances: &[Instance], chosen: &[usize]) -> Vec<SeriesSlice> {
    let slices = |&instance: &usize| {
        instances[instance].slices.iter().map(move |slice| SeriesSlice { instance, slice: slice.clone() })
    };
    chosen.iter().flat_map(slices).collect()
}

/// The slices of the most frequent geometry: size, spacing and orientation.
pub(super) fn majority(members: Vec<SeriesSlice>, findings: &mut Vec<Finding>) -> Vec<SeriesSlice> {
    let total = members.len();
    let mut groups: Vec<Vec<SeriesSlice>> = Vec::new();
    for member in members {
        match groups.iter_mut().find(|g| same_geometry(&g[0].slice, &member.slice)) {
            Some(group) => group.push(member),
            None => groups.push(vec![member]),
        }
    }
    // The first of equals, in canonical order.
    let largest = groups.into_iter().rev().max_by_key(Vec::len).unwrap_or_default();
    if largest.len() < total {
        let message = format!(
            "{} of {total} slices differ in size, spacing or orientation (scouts or reformats) and were left out",
            total - largest.len()
        );
        findings.push(Finding::warning("mixed-configuration", message));
    }
    largest
}

fn same_geometry(a: &Slice, b: &Slice) -> bool {
    let close = |x: Option<&[f64]>, y: Option<&[f64]>, tolerance: f64| match (x, y) {
        (Some(x), Some(y)) => x.iter().zip(y).all(|(p, q)| (p - q).abs() <= tolerance),
        (None, None) => true,
        _ => false,
    };
    let spacing = |s: &Slice| s.pixel_spacing;
    let orientation = |s: &Slice| s.orientation;
    (a.rows, a.columns) == (b.rows, b.columns)
        && a.position.is_some() == b.position.is_some()
        && close(spacing(a).as_ref().map(|v| &v[..]), spacing(b).as_ref().map(|v| &v[..]), 1e-3)
        && close(orientation(a).as_ref().map(|v| &v[..]), orientation(b).as_ref().map(|v| &v[..]), 5e-3)
}

/// One volume (time point, echo or image component) of a 4-D series: the most complete one, or the
/// first of equals.
///
/// A series is 4-D when it has at least 1.5 slices per position. Its volumes are distinguished by
/// image type, echo time, temporal position, stack and acquisition number, in this order; a key
/// that would leave more than a tenth of the positions empty is ignored. Magnitude images come
/// before phase, real and imaginary images and field maps. If several slices at a position remain,
/// the first is taken.
pub(super) fn one_time_point(members: Vec<SeriesSlice>, findings: &mut Vec<Finding>) -> Vec<SeriesSlice> {
    let total = members.len();
    let positions = distinct_positions(&members);
    if positions < 2 || total < positions * 2 - positions / 2 {
        return members;
    }
    let keys: [fn(&Slice) -> String; 5] = [
        |s| format!("{}{}", u8::from(is_secondary_component(&s.time.image_type)), s.time.image_type),
        |s| ordered(s.time.echo_time),
        |s| ordered(s.time.temporal_position),
        |s| s.time.stack.clone(),
        |s| ordered(s.time.acquisition),
    ];
    let mut kept = members;
    for key in keys {
        if kept.len() <= positions {
            break;
        }
        let mut groups: BTreeMap<String, Vec<SeriesSlice>> = BTreeMap::new();
        for member in &kept {
            groups.entry(key(&member.slice)).or_default().push(member.clone());
        }
        let complete = |group: &[SeriesSlice]| distinct_positions(group);
        let best =
            groups.into_values().reduce(|best, next| if complete(&next) > complete(&best) { next } else { best });
        if let Some(best) = best.filter(|best| distinct_positions(best) * 10 >= positions * 9) {
            kept = best;
        }
    }
    let kept = first_of_each_position(kept);
    let message = format!(
        "the series holds {total} slices at {positions} positions (time points, echoes or components); one slice of each position was read"
    );
    findings.push(Finding::warning("time-points", message));
    kept
}

/// Whether an image type is that of a phase, real or imaginary image or of a map.
fn is_secondary_component(image_type: &str) -> bool {
    image_type.split('\\').any(|value| {
        matches!(value, "P" | "R" | "I" | "REAL" | "IMAGINARY") || value.contains("PHASE") || value.contains("MAP")
    })
}

/// A string that sorts like the number.
fn ordered(value: Option<i64>) -> String {
    value.map_or_else(String::new, |v| format!("{:020}", v.saturating_add(1 << 40)))
}

/// Position along the normal in hundredths of a millimetre; `None` without a position.
fn position_mm100(slice: &Slice) -> Option<i64> {
    slice.position.map(|p| (dot(p, normal_of(slice)) * 100.0).round() as i64)
}

fn distinct_positions(members: &[SeriesSlice]) -> usize {
    let mut positions: Vec<_> = members.iter().filter_map(|m| position_mm100(&m.slice)).collect();
    positions.sort_unstable();
    // Rounding may put one position on two adjacent hundredths.
    positions.dedup_by(|b, a| *b - *a <= 1);
    positions.len()
}

fn first_of_each_position(mut members: Vec<SeriesSlice>) -> Vec<SeriesSlice> {
    members.sort_by_key(|m| position_mm100(&m.slice));
    members.dedup_by(|b, a| match (position_mm100(&a.slice), position_mm100(&b.slice)) {
        (Some(a), Some(b)) => b - a <= 1,
        _ => false,
    });
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(z: f64, echo: i64) -> SeriesSlice {
        let mut slice = Slice {
            rows: 2,
            columns: 2,
            position: Some([0.0, 0.0, z]),
            orientation: Some([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
            pixel_spacing: Some([1.0, 1.0]),
            ..Slice::default()
        };
        slice.time.echo_time = Some(echo);
        SeriesSlice { instance: 0, slice }
    }

    #[test]
    fn scouts_are_left_out() {
        let mut scout = member(0.0, 1);
        scout.slice.orientation = Some([1.0, 0.0, 0.0, 0.0, 0.0, -1.0]);
        let mut findings = Vec::new();
        let kept = majority(vec![scout, member(1.0, 1), member(2.0, 1)], &mut findings);
        assert_eq!((kept.len(), findings[0].code.as_str()), (2, "mixed-configuration"));
    }

    #[test]
    fn first_of_two_echoes_is_taken() {
        let mut findings = Vec::new();
        let all: Vec<_> = (0..4).flat_map(|z| [member(z as f64, 900), member(z as f64, 250)]).collect();
        let kept = one_time_point(all, &mut findings);
        assert_eq!(kept.len(), 4);
        assert!(kept.iter().all(|m| m.slice.time.echo_time == Some(250)));
        assert_eq!(findings[0].code, "time-points");
    }

    #[test]
    fn magnitude_comes_before_phase() {
        for (image_type, secondary) in [
            ("ORIGINAL\\PRIMARY\\M\\ND", false),
            ("ORIGINAL\\PRIMARY\\P\\ND", true),
            ("ORIGINAL\\PRIMARY\\T1\\FIELD_MAP\\REAL", true),
            ("", false),
        ] {
            assert_eq!(is_secondary_component(image_type), secondary, "{image_type}");
        }
    }

    #[test]
    fn a_single_duplicate_is_not_a_time_series() {
        let mut findings = Vec::new();
        let all: Vec<_> = [0.0, 1.0, 1.0, 2.0, 3.0].map(|z| member(z, 1)).into();
        assert_eq!(one_time_point(all, &mut findings).len(), 5);
        assert!(findings.is_empty());
    }
}
