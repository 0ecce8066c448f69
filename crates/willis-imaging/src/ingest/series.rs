//! From files to a volume: headers are read in parallel, and slices are decoded in parallel
//! directly into the voxels of the volume. Of files with uncompressed pixels the header is read
//! first and the pixels alone afterwards, so no byte is read twice.

use std::path::Path;

use rayon::prelude::*;
use willis_core::{Finding, Image, SeriesMeta, Volume};

use super::config::IngestConfig;
use super::error::IngestError;
use super::geometry::{StackGeometry, stack};
use super::group::{SeriesSlice, choose_series, members};
use super::header::{Hints, Instance};
use super::hounsfield::HuSurvey;
use super::input::InputFile;
use super::modality::{Basis, modality};
use super::notes;
use super::pixel_format::Colour;
use super::place::volume_of;
use super::planes::{self, Decoded};
use super::slices::Slice;
use super::structure::DicomStructure;
use super::volumes::choose_volume;

/// Bytes that are read for the header at first, and then when that was not enough: headers of CT
/// have a few kilobytes, those of MR up to some hundred.
const HEADER_BYTES: [u64; 2] = [1 << 14, 1 << 18];
/// Slopes and intercepts up to this make no infinite value of an integer.
const FINITE_RESCALE: f64 = 1e12;

/// Reads all headers. Files without an image are left out, with a finding; the returned files and
/// instances correspond.
///
/// # Errors
/// `NoImages` when no file has an image.
pub(super) fn read_headers(
    path: &Path,
    inputs: Vec<InputFile>,
    config: &IngestConfig,
    findings: &mut Vec<Finding>,
) -> Result<(Vec<InputFile>, Vec<Instance>), IngestError> {
    let files = inputs.len();
    let read: Vec<(InputFile, Result<Instance, String>)> = inputs
        .into_par_iter()
        .map(|input| {
            let instance = read_header(&input, config);
            (input, instance)
        })
        .collect();
    let mut first_failure = None;
    let mut usable = (Vec::new(), Vec::new());
    for (input, result) in read {
        match result {
            Ok(instance) => {
                usable.0.push(input);
                usable.1.push(instance);
            }
            Err(reason) => {
                first_failure.get_or_insert((input.name(), reason));
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

fn read_header(input: &InputFile, config: &IngestConfig) -> Result<Instance, String> {
    let unreadable = |e| format!("it cannot be read ({e})");
    for most in HEADER_BYTES {
        let start = input.start(most, config.max_file_bytes).map_err(unreadable)?;
        if start.is_whole() {
            return whole_header(&start.bytes, config);
        }
        if let Some(structure) = DicomStructure::of_start(&start.bytes, start.total) {
            return Instance::of(&structure).map_err(|e| e.to_string());
        }
    }
    whole_header(&input.read(config.max_file_bytes).map_err(unreadable)?, config)
}

fn whole_header(bytes: &[u8], config: &IngestConfig) -> Result<Instance, String> {
    let structure = DicomStructure::of(bytes, config.max_file_bytes).map_err(|e| e.to_string())?;
    Instance::of(&structure).map_err(|e| e.to_string())
}

/// Selects a series, stacks its slices and decodes them.
///
/// # Errors
/// when fewer than two slices remain, or the volume exceeds a limit.
pub(super) fn read_volume(
    inputs: &[InputFile],
    instances: &[Instance],
    config: &IngestConfig,
    mut findings: Vec<Finding>,
) -> Result<Volume, IngestError> {
    let chosen = choose_series(instances, config.series_uid.as_deref(), &mut findings)?;
    let mut slices = choose_volume(members(instances, &chosen), config, &mut findings)?;
    let (mut image, geometry, survey) = loop {
        config.check_slices(slices.len())?;
        let slices_only: Vec<_> = slices.iter().map(|m| m.slice.clone()).collect();
        let geometry = stack(&slices_only)?;
        config.check_slices(geometry.order.len())?;
        check_size(&slices[0], &geometry, config)?;
        let ordered: Vec<&SeriesSlice> = geometry.order.iter().map(|&i| &slices[i]).collect();
        let mut voxels = vec![0f32; ordered.len() * ordered[0].slice.rows * ordered[0].slice.columns];
        let survey = HuSurvey::of(&instances[slices[0].instance], &slices);
        let Decoded { notes, failures, counts } =
            planes::decode(inputs, instances, &ordered, config, survey, &mut voxels);
        let Some((_, first)) = failures.iter().next() else {
            let header_notes = slices.iter().map(|m| (m.instance, &instances[m.instance].notes));
            findings.extend(notes::findings(header_notes.chain(notes.iter().map(|(&i, notes)| (i, notes)))));
            let Slice { rows, columns, .. } = slices[0].slice;
            let is_moved = geometry.shifts.is_some() || geometry.resample.is_some();
            let image = volume_of(rows, columns, &geometry, voxels);
            let counts = survey.filter(|_| is_moved).map_or(counts, |survey| survey.count_all(&image.voxels));
            break (image, geometry, survey.map(|survey| (survey, counts)));
        };
        // A file that cannot be decoded is a missing slice: stack the others again.
        let message = format!("{} files could not be decoded and were left out; the first, {first}", failures.len());
        findings.push(Finding::warning("undecodable-files", message));
        let remaining: Vec<SeriesSlice> =
            slices.iter().filter(|m| !failures.contains_key(&m.instance)).cloned().collect();
        if config.check_slices(remaining.len()).is_err() {
            let (instance, reason) = failures.into_iter().next().expect("there is a failure");
            return Err(all_failed(inputs, instance, reason, slices.len()));
        }
        slices = remaining;
    };
    findings.extend(geometry.findings);
    let instance = &instances[slices[0].instance];
    if let Some((survey, counts)) = survey {
        survey.repair(counts, &mut image.voxels, &mut findings);
    }
    report_colour(instance, &mut findings);
    if !slices.iter().all(|m| is_finite(m, &instances[m.instance])) {
        repair_not_finite(&mut image.voxels, &mut findings);
    }
    Ok(finish(image, instance.series_uid.clone(), Some(&instance.hints), config, findings))
}

/// The error when no slice could be decoded.
fn all_failed(inputs: &[InputFile], instance: usize, reason: String, files: usize) -> IngestError {
    let path = match &inputs[instance] {
        InputFile::OnDisk(path) => path.parent().map_or_else(Default::default, Path::to_path_buf),
        InputFile::Unpacked { .. } => "the archive".into(),
    };
    let (first, reason) = match reason.split_once(": ") {
        Some((name, reason)) => (name.to_owned(), reason.to_owned()),
        None => (String::new(), reason),
    };
    IngestError::NoImages { path, files, first, reason }
}

/// Checks the size of the volume before it is allocated.
fn check_size(member: &SeriesSlice, geometry: &StackGeometry, config: &IngestConfig) -> Result<(), IngestError> {
    let depth = geometry.resample.as_ref().map_or(0, Vec::len).max(geometry.order.len()) as u64;
    let voxels = (member.slice.rows as u64 * member.slice.columns as u64).saturating_mul(depth);
    if voxels > config.max_voxels {
        return Err(IngestError::TooManyVoxels { voxels, limit: config.max_voxels });
    }
    Ok(())
}

/// Whether all values of a slice are finite, whatever its pixels are.
fn is_finite(member: &SeriesSlice, instance: &Instance) -> bool {
    let slice = &member.slice;
    let is_small = |v: f64| v.abs() <= FINITE_RESCALE;
    !instance.is_float && is_small(slice.slope) && is_small(slice.intercept)
}

/// Adds the metadata: from the configuration, or else from the header, or else
/// (for the modality) a guess.
pub(super) fn finish(
    image: Image<f32>,
    uid: String,
    hints: Option<&Hints>,
    config: &IngestConfig,
    mut findings: Vec<Finding>,
) -> Volume {
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

/// Replaces NaN and infinite voxels by the lowest finite value.
pub(super) fn repair_not_finite(voxels: &mut [f32], findings: &mut Vec<Finding>) {
    let bad: usize = voxels.par_chunks(1 << 16).map(|part| part.iter().filter(|v| !v.is_finite()).count()).sum();
    if bad == 0 {
        return;
    }
    let least = voxels.iter().copied().filter(|v| v.is_finite()).reduce(f32::min).unwrap_or(0.0);
    voxels.iter_mut().filter(|v| !v.is_finite()).for_each(|v| *v = least);
    findings.push(Finding::warning(
        "not-finite",
        format!("{bad} voxels were NaN or infinite and were set to the minimum {least}"),
    ));
}

/// Reports the conversion of colour and inverted slices.
fn report_colour(instance: &Instance, findings: &mut Vec<Finding>) {
    match instance.pixels.colour {
        Colour::Rgb | Colour::Ybr | Colour::Palette => {
            findings.push(Finding::warning("colour", "slices are in colour and were reduced to luminance"));
        }
        Colour::Monochrome1 => {
            findings.push(Finding::info("inverted", "slices are stored inverted (MONOCHROME1) and were inverted back"))
        }
        Colour::Monochrome2 => {}
    }
}
