//! From located files to a volume: headers in parallel, slices decoded in parallel straight into
//! their place.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use willis_core::{Finding, Grid, Image, SeriesMeta, Shape, Volume};

use super::config::IngestConfig;
use super::decode::decode_frame;
use super::error::IngestError;
use super::geometry::{StackGeometry, place};
use super::group::{SeriesSlice, choose_series, majority, members, one_time_point};
use super::header::{Colour, Hints, Instance};
use super::modality::{Basis, modality};
use super::source::InputFile;
use super::structure::DicomStructure;

/// Reads all headers; sources that hold no image are dropped, with a finding. Sources and instances
/// correspond.
pub(super) fn read_headers(
    path: &Path,
    sources: Vec<InputFile>,
    config: &IngestConfig,
    findings: &mut Vec<Finding>,
) -> Result<(Vec<InputFile>, Vec<Instance>), IngestError> {
    let files = sources.len();
    let read: Vec<(InputFile, Result<Instance, String>)> = sources
        .into_par_iter()
        .map(|source| {
            let instance = read_header(&source, config);
            (source, instance)
        })
        .collect();
    let mut first_failure = None;
    let mut usable = (Vec::new(), Vec::new());
    for (source, result) in read {
        match result {
            Ok(instance) => {
                usable.0.push(source);
                usable.1.push(instance);
            }
            Err(reason) => {
                first_failure.get_or_insert((source.name(), reason));
            }
        }
    }
    let skipped = files - usable.0.len();
    let Some((first, reason)) = first_failure else { return Ok(usable) };
    if usable.0.is_empty() {
        return Err(IngestError::NoImages { path: path.into(), files, first, reason });
    }
    findings.push(Finding::warning(
        "skipped-files",
        format!("{skipped} of {files} files were skipped; the first, {first}: {reason}"),
    ));
    Ok(usable)
}

fn read_header(source: &InputFile, config: &IngestConfig) -> Result<Instance, String> {
    let bytes = source.read(config.max_file_bytes).map_err(|e| format!("it cannot be read ({e})"))?;
    let structure = DicomStructure::of(&bytes, config.max_file_bytes).map_err(|e| e.to_string())?;
    Instance::of(&structure).map_err(|e| e.to_string())
}

/// Picks a series, places its slices and decodes them.
pub(super) fn read_volume(
    sources: &[InputFile],
    instances: &[Instance],
    config: &IngestConfig,
    mut findings: Vec<Finding>,
) -> Result<Volume, IngestError> {
    let chosen = choose_series(instances, config.series_uid.as_deref(), &mut findings)?;
    let mut slices = majority(members(instances, &chosen), &mut findings);
    slices = one_time_point(slices, &mut findings);
    let (mut image, placement) = loop {
        if slices.len() < 2 {
            return Err(IngestError::TooFewSlices { usable: slices.len() });
        }
        let geometry: Vec<_> = slices.iter().map(|m| m.slice.clone()).collect();
        let placement = place(&geometry);
        if placement.order.len() < 2 {
            return Err(IngestError::TooFewSlices { usable: placement.order.len() });
        }
        check_size(&slices[0], &placement, config)?;
        let ordered: Vec<&SeriesSlice> = placement.order.iter().map(|&i| &slices[i]).collect();
        let mut voxels = vec![0f32; ordered.len() * ordered[0].slice.rows * ordered[0].slice.columns];
        let failures = decode(sources, instances, &ordered, config, &mut voxels);
        let Some((_, first)) = failures.iter().next() else {
            break (volume_of(&slices[0], &placement, voxels), placement);
        };
        // A file that does not decode is a missing slice: place the others anew.
        let message = format!("{} files could not be decoded and were left out; the first, {first}", failures.len());
        findings.push(Finding::warning("undecodable-files", message));
        let remaining: Vec<SeriesSlice> =
            slices.iter().filter(|m| !failures.contains_key(&m.instance)).cloned().collect();
        if remaining.len() < 2 {
            let (instance, reason) = failures.into_iter().next().expect("there is a failure");
            return Err(all_failed(sources, instance, reason, slices.len()));
        }
        slices = remaining;
    };
    findings.extend(placement.findings);
    let instance = &instances[slices[0].instance];
    repair_already_hu(&mut image.voxels, instance, &slices, &mut findings);
    report_colour(instance, &mut findings);
    Ok(finish(image, instance.series_uid.clone(), Some(&instance.hints), config, findings))
}

fn all_failed(sources: &[InputFile], instance: usize, reason: String, files: usize) -> IngestError {
    let path = match &sources[instance] {
        InputFile::OnDisk(path) => path.parent().map_or_else(Default::default, Path::to_path_buf),
        InputFile::Unpacked { .. } => "the archive".into(),
    };
    let (first, reason) = match reason.split_once(": ") {
        Some((name, reason)) => (name.to_owned(), reason.to_owned()),
        None => (String::new(), reason),
    };
    IngestError::NoImages { path, files, first, reason }
}

fn check_size(member: &SeriesSlice, placement: &StackGeometry, config: &IngestConfig) -> Result<(), IngestError> {
    let depth = placement.resample.as_ref().map_or(0, Vec::len).max(placement.order.len()) as u64;
    let voxels = (member.slice.rows as u64 * member.slice.columns as u64).saturating_mul(depth);
    if voxels > config.max_voxels {
        return Err(IngestError::TooManyVoxels { voxels, limit: config.max_voxels });
    }
    Ok(())
}

/// Decodes slices into consecutive planes of `voxels`; gives the first failure of each failing
/// instance.
fn decode(
    sources: &[InputFile],
    instances: &[Instance],
    ordered: &[&SeriesSlice],
    config: &IngestConfig,
    voxels: &mut [f32],
) -> BTreeMap<usize, String> {
    let plane = voxels.len() / ordered.len();
    let mut by_file: BTreeMap<usize, Vec<(&SeriesSlice, &mut [f32])>> = BTreeMap::new();
    for (member, target) in ordered.iter().zip(voxels.chunks_exact_mut(plane)) {
        by_file.entry(member.instance).or_default().push((member, target));
    }
    let by_file: Vec<_> = by_file.into_iter().collect();
    by_file
        .into_par_iter()
        .filter_map(|(index, targets)| {
            let failure = decode_file(&sources[index], &instances[index], targets, config).err()?;
            Some((index, format!("{}: {failure}", sources[index].name())))
        })
        .collect()
}

fn decode_file(
    source: &InputFile,
    instance: &Instance,
    targets: Vec<(&SeriesSlice, &mut [f32])>,
    config: &IngestConfig,
) -> Result<(), String> {
    let bytes = source.read(config.max_file_bytes).map_err(|e| format!("it cannot be read ({e})"))?;
    let structure = DicomStructure::of(&bytes, config.max_file_bytes).map_err(|e| e.to_string())?;
    let frames = instance.slices.len();
    targets
        .into_par_iter()
        .map(|(member, target)| {
            decode_frame(&structure, &instance.pixels, &member.slice, frames, target).map_err(|e| e.to_string())
        })
        .collect::<Result<Vec<()>, String>>()
        .map(|_| ())
}

/// The image on its grid, with missing slices interpolated.
fn volume_of(member: &SeriesSlice, placement: &StackGeometry, voxels: Vec<f32>) -> Image<f32> {
    let (rows, columns) = (member.slice.rows, member.slice.columns);
    let voxels = match &placement.resample {
        None => voxels,
        Some(places) => interpolate(&voxels, rows * columns, places),
    };
    let shape = Shape::new(voxels.len() / (rows * columns), rows, columns);
    Image::new(Grid::new(shape, placement.affine), voxels)
}

/// Planes at fractional places between the given planes.
fn interpolate(voxels: &[f32], plane: usize, places: &[f64]) -> Vec<f32> {
    let mut out = vec![0f32; plane * places.len()];
    out.par_chunks_exact_mut(plane).zip(places).for_each(|(target, &place)| {
        let low = place.floor() as usize;
        let weight = (place - low as f64) as f32;
        let below = &voxels[low * plane..(low + 1) * plane];
        if weight == 0.0 {
            target.copy_from_slice(below);
            return;
        }
        let above = &voxels[(low + 1) * plane..(low + 2) * plane];
        for ((t, &a), &b) in target.iter_mut().zip(below).zip(above) {
            *t = a + (b - a) * weight;
        }
    });
    out
}

/// Repairs values and fills in what is known: the user's word, else the header's, else (for the
/// kind of series) a guess.
pub(super) fn finish(
    mut image: Image<f32>,
    uid: String,
    hints: Option<&Hints>,
    config: &IngestConfig,
    mut findings: Vec<Finding>,
) -> Volume {
    repair_not_finite(&mut image.voxels, &mut findings);
    let (modality, basis) = match config.modality {
        Some(modality) => (modality, Basis::Stated),
        None => modality(hints, &image.voxels),
    };
    findings.extend(basis.finding(modality));
    let meta = SeriesMeta {
        uid,
        modality: Some(modality),
        modality_from_voxels: basis == Basis::Brightness,
        age_years: config.age_years.or(hints.and_then(|h| h.age_years)),
        sex: config.sex.or(hints.and_then(|h| h.sex)),
    };
    Volume { image, meta, findings }
}

/// Replaces NaN and infinite voxels by the smallest finite one.
fn repair_not_finite(voxels: &mut [f32], findings: &mut Vec<Finding>) {
    let bad = voxels.iter().filter(|v| !v.is_finite()).count();
    if bad == 0 {
        return;
    }
    let least = voxels.iter().copied().filter(|v| v.is_finite()).reduce(f32::min).unwrap_or(0.0);
    voxels.iter_mut().filter(|v| !v.is_finite()).for_each(|v| *v = least);
    findings.push(Finding::warning(
        "not-finite",
        format!("{bad} voxels were NaN or infinite and became the minimum {least}"),
    ));
}

/// Takes a wrong rescale intercept back when the stored values are surely HU already.
///
/// Sure means: soft tissue (-100..150) holds at least 5 % of the stored values but less than a
/// fifth of that after the intercept, and at least 5 % of the stored values are those of air.
fn repair_already_hu(voxels: &mut [f32], instance: &Instance, slices: &[SeriesSlice], findings: &mut Vec<Finding>) {
    let intercept = slices[0].slice.intercept;
    let uniform = slices.iter().all(|m| (m.slice.slope, m.slice.intercept) == (1.0, intercept));
    if instance.hints.modality != "CT" || !uniform || intercept > -500.0 {
        return;
    }
    let intercept = intercept as f32;
    let share = |low: f32, high: f32| {
        voxels.iter().step_by(7).filter(|&&v| (low..high).contains(&v)).count() as f64 / voxels.len().div_ceil(7) as f64
    };
    let soft_stored = share(-100.0 + intercept, 150.0 + intercept);
    let soft_rescaled = share(-100.0, 150.0);
    let air_stored = share(-1100.0 + intercept, -850.0 + intercept);
    if soft_stored > 0.05 && soft_rescaled * 5.0 < soft_stored && air_stored > 0.05 {
        voxels.iter_mut().for_each(|v| *v -= intercept);
        let message =
            format!("stored values are HU already; the header's rescale intercept of {intercept} was not applied");
        findings.push(Finding::warning("already-hu", message));
    }
}

fn report_colour(instance: &Instance, findings: &mut Vec<Finding>) {
    match instance.pixels.colour {
        Colour::Rgb | Colour::Ybr => {
            findings.push(Finding::warning("colour", "slices are in colour and were reduced to luminance"));
        }
        Colour::Monochrome1 => {
            findings.push(Finding::info("inverted", "slices are stored inverted (MONOCHROME1) and were turned back"))
        }
        Colour::Monochrome2 | Colour::Unsupported => {}
    }
}
