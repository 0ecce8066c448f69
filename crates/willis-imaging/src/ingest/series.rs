//! From files to a volume: headers are read in parallel, and slices are decoded in parallel
//! directly into the voxels of the volume.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::iter::Either;
use rayon::prelude::*;
use willis_core::{Finding, Image, SeriesMeta, Volume};

use super::config::IngestConfig;
use super::decode::decode_frame;
use super::error::IngestError;
use super::file_error::DecodeError;
use super::geometry::{StackGeometry, stack};
use super::group::{SeriesSlice, choose_series, members};
use super::header::{Hints, Instance};
use super::hounsfield::repair_already_hu;
use super::modality::{Basis, modality};
use super::mosaic;
use super::notes::{self, Notes};
use super::pixel_format::{Colour, PixelFormat};
use super::place::volume_of;
use super::slices::Slice;
use super::source::InputFile;
use super::structure::DicomStructure;
use super::volumes::choose_volume;

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
    let bytes = input.read(config.max_file_bytes).map_err(|e| format!("it cannot be read ({e})"))?;
    let structure = DicomStructure::of(&bytes, config.max_file_bytes).map_err(|e| e.to_string())?;
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
    let (mut image, geometry) = loop {
        config.check_slices(slices.len())?;
        let slices_only: Vec<_> = slices.iter().map(|m| m.slice.clone()).collect();
        let geometry = stack(&slices_only)?;
        config.check_slices(geometry.order.len())?;
        check_size(&slices[0], &geometry, config)?;
        let ordered: Vec<&SeriesSlice> = geometry.order.iter().map(|&i| &slices[i]).collect();
        let mut voxels = vec![0f32; ordered.len() * ordered[0].slice.rows * ordered[0].slice.columns];
        let (frame_notes, failures) = decode(inputs, instances, &ordered, config, &mut voxels);
        let Some((_, first)) = failures.iter().next() else {
            let header_notes = slices.iter().map(|m| (m.instance, &instances[m.instance].notes));
            findings.extend(notes::findings(header_notes.chain(frame_notes.iter().map(|(&i, notes)| (i, notes)))));
            let Slice { rows, columns, .. } = slices[0].slice;
            break (volume_of(rows, columns, &geometry, voxels), geometry);
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
    repair_already_hu(&mut image.voxels, instance, &slices, &mut findings);
    report_colour(instance, &mut findings);
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

/// Decodes slices into consecutive planes of `voxels`; returns the notes on each instance, and the
/// first failure of each that failed.
fn decode(
    inputs: &[InputFile],
    instances: &[Instance],
    ordered: &[&SeriesSlice],
    config: &IngestConfig,
    voxels: &mut [f32],
) -> (BTreeMap<usize, Notes>, BTreeMap<usize, String>) {
    let plane = voxels.len() / ordered.len();
    let mut by_file: BTreeMap<usize, Vec<(&SeriesSlice, &mut [f32])>> = BTreeMap::new();
    for (member, target) in ordered.iter().zip(voxels.chunks_exact_mut(plane)) {
        by_file.entry(member.instance).or_default().push((member, target));
    }
    let by_file: Vec<_> = by_file.into_iter().collect();
    by_file.into_par_iter().partition_map(|(index, targets)| {
        match decode_file(&inputs[index], &instances[index], targets, config) {
            Ok(notes) => Either::Left((index, notes)),
            Err(failure) => Either::Right((index, format!("{}: {failure}", inputs[index].name()))),
        }
    })
}

/// Decodes slices of one file.
fn decode_file(
    input: &InputFile,
    instance: &Instance,
    targets: Vec<(&SeriesSlice, &mut [f32])>,
    config: &IngestConfig,
) -> Result<Notes, String> {
    let bytes = input.read(config.max_file_bytes).map_err(|e| format!("it cannot be read ({e})"))?;
    let structure = DicomStructure::of(&bytes, config.max_file_bytes).map_err(|e| e.to_string())?;
    let frames = instance.slices.last().map_or(0, |last| last.frame + 1);
    let mut by_frame: BTreeMap<usize, Vec<(&SeriesSlice, &mut [f32])>> = BTreeMap::new();
    for (member, target) in targets {
        by_frame.entry(member.slice.frame).or_default().push((member, target));
    }
    let by_frame: Vec<_> = by_frame.into_values().collect();
    by_frame
        .into_par_iter()
        .map(|targets| decode_targets(&structure, &instance.pixels, frames, targets).map_err(|e| e.to_string()))
        .collect::<Result<Vec<Notes>, String>>()
        .map(|notes| notes.into_iter().flatten().collect())
}

/// Decodes one frame into its only slice, or into the slices of its tiles.
fn decode_targets(
    structure: &DicomStructure,
    format: &PixelFormat,
    frames: usize,
    targets: Vec<(&SeriesSlice, &mut [f32])>,
) -> Result<Notes, DecodeError> {
    let (mut whole, mut notes) = (Vec::new(), Notes::new());
    for (member, target) in targets {
        match member.slice.tile {
            None => notes.extend(decode_frame(structure, format, &member.slice, frames, target)?),
            Some(tile) => {
                if whole.is_empty() {
                    whole = vec![0f32; format.rows * format.columns];
                    notes.extend(decode_frame(structure, format, &member.slice, frames, &mut whole)?);
                }
                mosaic::cut(&whole, format.columns, tile, member.slice.columns, target);
            }
        }
    }
    Ok(notes)
}

/// Repairs values and adds the metadata: from the configuration, or else from the header, or else
/// (for the modality) a guess.
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

/// Replaces NaN and infinite voxels by the lowest finite value.
fn repair_not_finite(voxels: &mut [f32], findings: &mut Vec<Finding>) {
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
