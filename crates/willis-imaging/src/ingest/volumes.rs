//! The volumes that share one series UID: scouts, echoes, diffusion weightings, tube voltages, time
//! points and passes. They are separated before positions are compared, so that slices of two
//! volumes never mix.

use std::collections::BTreeMap;

use willis_core::Finding;

use super::config::IngestConfig;
use super::error::IngestError;
use super::geometry::normal_of;
use super::geometry::vector::dot;
use super::group::SeriesSlice;
use super::slices::Slice;

/// Heights within this distance are one place, mm.
const ONE_PLACE_MM: f64 = 0.015;
/// Deviation of a gap from the median gap in an evenly spaced volume, as a fraction of it.
const EVEN_GAP_TOLERANCE: f64 = 0.05;
/// Slices closer than this fraction of the distance to the next ones are of different volumes.
const CLOSE: f64 = 0.4;
/// Missing slices of an evenly spaced volume, at most one for this many.
const SLICES_PER_MISSING: usize = 4;
/// Slices that a volume of its own has at least, when only its spacing tells it from the others.
const MIN_SLICES: usize = 3;
/// Volumes that a message lists at most.
const LISTED: usize = 8;

mod keys;

use keys::{KEYS, KeyStrength, VolumeKey, is_secondary_component};

/// Slices of one volume, and what tells it from the other volumes of its series.
#[derive(Debug, Clone)]
struct SeriesVolume {
    slices: Vec<SeriesSlice>,
    /// Size, spacing and orientation: the number of its group, in canonical order.
    shape: usize,
    labels: Vec<String>,
    /// A phase, real or imaginary image, a map or a projection.
    secondary: bool,
}

impl SeriesVolume {
    /// Number of places, or of slices when they have no positions.
    fn size(&self) -> usize {
        match distinct_places(&self.slices) {
            0 => self.slices.len(),
            places => places,
        }
    }
}

/// The slices of the volume with the most positions, or of the one that the user chose; volumes
/// are numbered from 1 in falling order of size.
///
/// # Errors
/// `NoSuchVolume` when there are fewer volumes; `OnePlace` when the series has several slices at
/// one position and no others.
pub(super) fn choose_volume(
    members: Vec<SeriesSlice>,
    config: &IngestConfig,
    findings: &mut Vec<Finding>,
) -> Result<Vec<SeriesSlice>, IngestError> {
    let total = members.len();
    let mut volumes = separate(members);
    // A stable sort: the first of equals, in canonical order.
    volumes.sort_by_key(|volume| (volume.secondary, std::cmp::Reverse(volume.size())));
    let number = config.volume.unwrap_or(1);
    if number == 0 || number > volumes.len() {
        return Err(IngestError::NoSuchVolume { number, found: volumes.len() });
    }
    let chosen = &volumes[number - 1];
    let repeated: usize = volumes.iter().filter(|v| v.shape == chosen.shape).map(|v| v.slices.len()).sum();
    if chosen.size() == 1 && repeated > 1 && config.min_slices > 1 {
        return Err(IngestError::OnePlace { slices: repeated });
    }
    report(&volumes, number - 1, total, findings);
    Ok(volumes.swap_remove(number - 1).slices)
}

/// Reports which volume was read and which were not.
fn report(volumes: &[SeriesVolume], chosen: usize, total: usize, findings: &mut Vec<Finding>) {
    if volumes.len() < 2 {
        return;
    }
    let list: Vec<String> = volumes
        .iter()
        .take(LISTED)
        .enumerate()
        .map(|(k, volume)| {
            let slice = &volume.slices[0].slice;
            let size = format!("{}: {} slices of {}x{}", k + 1, volume.slices.len(), slice.rows, slice.columns);
            [vec![size], volume.labels.clone()].concat().join(", ")
        })
        .collect();
    let more = volumes.len().saturating_sub(LISTED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let listed = format!("volume {} was read, select another with --volume ({}{more})", chosen + 1, list.join("; "));
    let read = &volumes[chosen];
    let other_shape: usize = volumes.iter().filter(|v| v.shape != read.shape).map(|v| v.slices.len()).sum();
    let same_shape: usize = total - other_shape;
    if other_shape > 0 {
        let message = format!(
            "{other_shape} of {total} slices differ in size, spacing or orientation (scouts or reformats) and were left out; {listed}"
        );
        findings.push(Finding::warning("mixed-configuration", message));
    }
    if same_shape > read.slices.len() {
        let message = format!(
            "the series holds {same_shape} slices of several volumes (time points, echoes or components), {} of which were read; {listed}",
            read.slices.len()
        );
        findings.push(Finding::warning("time-points", message));
    }
}

/// All volumes of a series, in canonical order.
fn separate(members: Vec<SeriesSlice>) -> Vec<SeriesVolume> {
    let mut groups: Vec<Vec<SeriesSlice>> = Vec::new();
    for member in members {
        match groups.iter_mut().find(|g| same_shape(&g[0].slice, &member.slice)) {
            Some(group) => group.push(member),
            None => groups.push(vec![member]),
        }
    }
    let mut volumes = Vec::new();
    for (shape, slices) in groups.into_iter().enumerate() {
        let parts = if by_location(&slices) { vec![(slices, Vec::new())] } else { split(slices, &KEYS) };
        for (slices, labels) in parts {
            let secondary = is_secondary_component(&slices[0].slice.time.image_type);
            volumes.push(SeriesVolume { slices, shape, labels, secondary });
        }
    }
    volumes
}

/// Whether all positions are equal, but slice locations differ. Then the positions are wrong.
fn by_location(slices: &[SeriesSlice]) -> bool {
    let mut locations: Vec<f64> = slices.iter().filter_map(|m| m.slice.slice_location).collect();
    locations.sort_by(f64::total_cmp);
    locations.dedup_by(|b, a| *b - *a <= ONE_PLACE_MM);
    distinct_places(slices) == 1 && slices.len() > 1 && locations.len() == slices.len()
}

fn same_shape(a: &Slice, b: &Slice) -> bool {
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

/// Slices of one volume, and what tells it from the others.
type LabelledSlices = (Vec<SeriesSlice>, Vec<String>);

/// Divides slices of one shape by the first attribute that divides them into volumes, and each part
/// by the attributes after it. What no attribute divides is divided by the number of times that a
/// place occurs, or by the order in which slices were numbered.
fn split(slices: Vec<SeriesSlice>, keys: &[VolumeKey]) -> Vec<LabelledSlices> {
    for (k, key) in keys.iter().enumerate() {
        let mut parts: BTreeMap<String, Vec<SeriesSlice>> = BTreeMap::new();
        for slice in &slices {
            parts.entry((key.value)(&slice.slice)).or_default().push(slice.clone());
        }
        let parts: Vec<Vec<SeriesSlice>> = parts.into_values().collect();
        if !are_volumes(&slices, &parts, key.strength) {
            continue;
        }
        let labelled = |part: Vec<SeriesSlice>| {
            let label = (key.label)(&part[0].slice);
            split(part, &keys[k + 1..])
                .into_iter()
                .map(move |(slices, labels)| (slices, [vec![label.clone()], labels].concat()))
        };
        return parts.into_iter().flat_map(labelled).collect();
    }
    by_repetition(slices)
}

/// Whether the parts are volumes of their own.
///
/// They are when several slices are at one place in the whole, but fewer in the parts, or when
/// slices are uneven in the whole, but even in parts that overlap. Slices of parts that fill each
/// other's gaps evenly are volumes only by a strong attribute.
fn are_volumes(whole: &[SeriesSlice], parts: &[Vec<SeriesSlice>], strength: KeyStrength) -> bool {
    if parts.len() < 2 {
        return false;
    }
    let places = distinct_places(whole);
    let largest = parts.iter().map(|part| distinct_places(part)).max().unwrap_or(0);
    let repeated = |slices: &[SeriesSlice]| slices.len() - distinct_places(slices);
    let repeated_in_parts: usize = parts.iter().map(|part| repeated(part)).sum();
    if places < 2 {
        return places == 1 && repeated_in_parts < repeated(whole);
    }
    // Duplicates that one attribute tells apart.
    if repeated(whole) * 20 >= places && repeated_in_parts * 2 <= repeated(whole) {
        return largest * 2 >= places;
    }
    let overlap = |a: &[SeriesSlice], b: &[SeriesSlice]| match (extent(a), extent(b)) {
        (Some(a), Some(b)) => a.1.min(b.1) - a.0.max(b.0) > ONE_PLACE_MM,
        _ => false,
    };
    let counted: Vec<&Vec<SeriesSlice>> = parts.iter().filter(|part| distinct_places(part) >= MIN_SLICES).collect();
    let overlapping = counted.iter().enumerate().any(|(i, a)| counted[i + 1..].iter().any(|b| overlap(a, b)));
    let even_parts = counted.iter().all(|part| is_even(part)) && counted.len() == parts.len();
    let even_whole = repeated(whole) == 0 && is_even(whole);
    match strength {
        KeyStrength::Strong => overlapping && (even_parts || !even_whole),
        KeyStrength::Weak => overlapping && even_parts && !even_whole,
    }
}

/// Divides slices that no attribute divides.
///
/// When there are at least 1.5 slices per place, the first slices of all places are one volume, the
/// second ones another. Otherwise, slices that are numbered in several passes over the same extent
/// are divided into these, if each pass is even and the whole is not.
fn by_repetition(slices: Vec<SeriesSlice>) -> Vec<LabelledSlices> {
    let places = distinct_places(&slices);
    if places >= 1 && slices.len() >= places * 2 - places / 2 && slices.len() > 1 {
        return by_rank(slices);
    }
    let passes = passes(&slices);
    let even_passes = passes.iter().all(|pass| pass.len() >= MIN_SLICES && is_even(pass));
    let same_extent = passes.windows(2).all(|w| match (extent(&w[0]), extent(&w[1])) {
        (Some(a), Some(b)) => a.1.min(b.1) - a.0.max(b.0) > 0.5 * (a.1 - a.0).min(b.1 - b.0),
        _ => false,
    });
    if passes.len() > 1 && even_passes && same_extent && !is_even(&slices) {
        let labelled = |(k, pass)| (pass, vec![format!("pass {}", k + 1)]);
        return passes.into_iter().enumerate().map(labelled).collect();
    }
    match by_closeness(&slices) {
        Some(volumes) => repetitions(volumes),
        None => vec![(slices, Vec::new())],
    }
}

/// Volumes that lie a hair apart: the lowest slices of all groups of close ones, the second ones,
/// and so on. `None` unless all groups have the same size and the volumes are even.
fn by_closeness(slices: &[SeriesSlice]) -> Option<Vec<Vec<SeriesSlice>>> {
    let mut sorted: Vec<(f64, &SeriesSlice)> =
        slices.iter().map(|s| height(&s.slice).map(|height| (height, s))).collect::<Option<_>>()?;
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let largest = sorted.windows(2).map(|w| w[1].0 - w[0].0).fold(0.0, f64::max);
    let groups: Vec<_> = sorted.chunk_by(|a, b| b.0 - a.0 <= CLOSE * largest).collect();
    let size = groups.first()?.len();
    if size < 2 || groups.len() < MIN_SLICES || groups.iter().any(|group| group.len() != size) {
        return None;
    }
    let volume = |rank: usize| groups.iter().map(|group| group[rank].1.clone()).collect::<Vec<_>>();
    let volumes: Vec<_> = (0..size).map(volume).collect();
    (!is_even(slices) && volumes.iter().all(|volume| is_even(volume))).then_some(volumes)
}

/// The first slices of all places in order of instance number, the second ones, and so on.
fn by_rank(mut slices: Vec<SeriesSlice>) -> Vec<LabelledSlices> {
    let at = |s: &SeriesSlice| height(&s.slice).unwrap_or(0.0);
    slices.sort_by(|a, b| at(a).total_cmp(&at(b)));
    let mut ranks: Vec<Vec<SeriesSlice>> = Vec::new();
    for place in slices.chunk_by_mut(|a, b| at(b) - at(a) <= ONE_PLACE_MM) {
        place.sort_by_key(|s| (s.slice.instance_number, s.slice.frame, s.slice.time.acquisition_time));
        for (rank, slice) in place.iter().enumerate() {
            match ranks.get_mut(rank) {
                Some(volume) => volume.push(slice.clone()),
                None => ranks.push(vec![slice.clone()]),
            }
        }
    }
    repetitions(ranks)
}

/// Volumes that nothing but their order tells apart.
fn repetitions(volumes: Vec<Vec<SeriesSlice>>) -> Vec<LabelledSlices> {
    let labelled = |(k, volume)| (volume, vec![format!("repetition {}", k + 1)]);
    volumes.into_iter().enumerate().map(labelled).collect()
}

/// Slices in order of their instance numbers, cut wherever the direction of travel turns back.
fn passes(slices: &[SeriesSlice]) -> Vec<Vec<SeriesSlice>> {
    let mut numbered: Vec<&SeriesSlice> =
        slices.iter().filter(|s| s.slice.instance_number.is_some() && s.slice.position.is_some()).collect();
    if numbered.len() < slices.len() {
        return Vec::new();
    }
    numbered.sort_by_key(|s| (s.slice.instance_number, s.slice.frame));
    let at = |s: &SeriesSlice| height(&s.slice).unwrap_or(0.0);
    let mut passes: Vec<Vec<SeriesSlice>> = Vec::new();
    for slice in numbered {
        let turns = |pass: &Vec<SeriesSlice>| match &pass[..] {
            [.., before, last] => (at(last) - at(before)) * (at(slice) - at(last)) <= 0.0,
            _ => false,
        };
        match passes.last_mut().filter(|pass| !turns(pass)) {
            Some(pass) => pass.push(slice.clone()),
            None => passes.push(vec![slice.clone()]),
        }
    }
    passes
}

/// Position along the normal, mm; `None` without a position.
fn height(slice: &Slice) -> Option<f64> {
    slice.position.map(|p| dot(p, normal_of(slice)))
}

/// Sorted heights of slices at different places; empty when positions are missing.
fn places(slices: &[SeriesSlice]) -> Vec<f64> {
    let mut heights: Vec<f64> = slices.iter().filter_map(|m| height(&m.slice)).collect();
    heights.sort_by(f64::total_cmp);
    heights.dedup_by(|b, a| *b - *a <= ONE_PLACE_MM);
    heights
}

fn distinct_places(slices: &[SeriesSlice]) -> usize {
    places(slices).len()
}

fn extent(slices: &[SeriesSlice]) -> Option<(f64, f64)> {
    let places = places(slices);
    Some((*places.first()?, *places.last()?))
}

/// Whether neighbouring places are equally far apart; a few missing slices count as even.
fn is_even(slices: &[SeriesSlice]) -> bool {
    let places = places(slices);
    let gaps: Vec<f64> = places.windows(2).map(|w| w[1] - w[0]).collect();
    let mut sorted = gaps.clone();
    sorted.sort_by(f64::total_cmp);
    let Some(&median) = sorted.get(sorted.len() / 2) else { return true };
    let times = |gap: f64| (gap / median).round().max(1.0);
    let are_multiples =
        gaps.iter().all(|&gap| (gap - times(gap) * median).abs() <= (EVEN_GAP_TOLERANCE * median).max(0.022));
    // Two volumes a hair apart have multiples of a hair between them.
    let wide = gaps.iter().filter(|&&gap| times(gap) > 1.0).count();
    are_multiples && (wide * SLICES_PER_MISSING <= gaps.len() || wide == 1)
}

#[cfg(test)]
mod tests;
