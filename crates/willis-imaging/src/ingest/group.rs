//! Selection of the series, and its slices.

use std::collections::BTreeMap;

use willis_core::Finding;

use super::error::IngestError;
use super::header::Instance;
use super::slices::Slice;

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
