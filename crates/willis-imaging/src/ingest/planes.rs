//! Decodes slices into the planes of the volume, in parallel.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::config::IngestConfig;
use super::decode::{decode_frame, decode_native};
use super::file_error::DecodeError;
use super::group::SeriesSlice;
use super::header::{FramePlace, Instance};
use super::hounsfield::{HuCounts, HuSurvey};
use super::input::InputFile;
use super::mosaic;
use super::notes::Notes;
use super::pixel_format::PixelFormat;
use super::structure::DicomStructure;

/// A slice, and the plane it is decoded into.
struct Target<'a> {
    slice: &'a SeriesSlice,
    plane: &'a mut [f32],
    /// Index of the first voxel of the plane in the volume.
    start: usize,
}

/// What was learned while slices were decoded.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    /// What was repaired, by instance.
    pub notes: BTreeMap<usize, Notes>,
    /// Why instances could not be decoded.
    pub failures: BTreeMap<usize, String>,
    pub counts: HuCounts,
}

/// Decodes slices into consecutive planes of `voxels`. `survey` counts their values while they are
/// in the processor's caches.
pub(super) fn decode(
    inputs: &[InputFile],
    instances: &[Instance],
    ordered: &[&SeriesSlice],
    config: &IngestConfig,
    survey: Option<HuSurvey>,
    voxels: &mut [f32],
) -> Decoded {
    let size = voxels.len() / ordered.len();
    let mut by_file: BTreeMap<usize, Vec<Target>> = BTreeMap::new();
    for (k, (slice, plane)) in ordered.iter().zip(voxels.chunks_exact_mut(size)).enumerate() {
        by_file.entry(slice.instance).or_default().push(Target { slice, plane, start: k * size });
    }
    let by_file: Vec<_> = by_file.into_iter().collect();
    let decoded: Vec<_> = by_file
        .into_par_iter()
        .map_init(Vec::new, |buffer, (index, targets)| {
            (index, decode_file(&inputs[index], &instances[index], targets, config, survey, buffer))
        })
        .collect();
    let mut all = Decoded::default();
    for (index, result) in decoded {
        match result {
            Ok((notes, counts)) => {
                all.notes.insert(index, notes);
                all.counts = all.counts.plus(counts);
            }
            Err(failure) => {
                all.failures.insert(index, format!("{}: {failure}", inputs[index].name()));
            }
        }
    }
    all
}

/// Decodes slices of one file.
fn decode_file(
    input: &InputFile,
    instance: &Instance,
    targets: Vec<Target>,
    config: &IngestConfig,
    survey: Option<HuSurvey>,
    buffer: &mut Vec<u8>,
) -> Result<(Notes, HuCounts), String> {
    let mut by_frame: BTreeMap<usize, Vec<Target>> = BTreeMap::new();
    for target in targets {
        by_frame.entry(target.slice.slice.frame).or_default().push(target);
    }
    let mut by_frame: Vec<_> = by_frame.into_values().collect();
    let unreadable = |e| format!("it cannot be read ({e})");
    let format = &instance.pixels;
    let decode = |targets: Vec<Target>, source: &FrameSource| {
        decode_targets(source, format, targets, survey).map_err(|e| e.to_string())
    };
    if let Some(place) = instance.place {
        let read = |buffer: &mut Vec<u8>, targets: Vec<Target>| {
            let frame = targets.first().map_or(0, |target| target.slice.slice.frame) as u64;
            buffer.resize(format.frame_bytes() as usize, 0);
            let offset = place.start + frame * format.frame_bytes();
            input.read_at(offset, place.file_bytes, buffer).map_err(unreadable)?;
            decode(targets, &FrameSource::Native(buffer, place))
        };
        return match by_frame.len() {
            1 => read(buffer, by_frame.remove(0)),
            _ => joined(by_frame.into_par_iter().map_init(Vec::new, read).collect()),
        };
    }
    let bytes = input.read(config.max_file_bytes).map_err(unreadable)?;
    let structure = DicomStructure::of(&bytes, config.max_file_bytes).map_err(|e| e.to_string())?;
    let frames = instance.slices.last().map_or(0, |last| last.frame + 1);
    let source = FrameSource::File(&structure, frames);
    joined(by_frame.into_par_iter().map(|targets| decode(targets, &source)).collect())
}

/// Notes and counts of all frames, or the first failure.
fn joined(frames: Vec<Result<(Notes, HuCounts), String>>) -> Result<(Notes, HuCounts), String> {
    let mut all = (Notes::new(), HuCounts::default());
    for frame in frames {
        let (notes, counts) = frame?;
        all = (all.0.into_iter().chain(notes).collect(), all.1.plus(counts));
    }
    Ok(all)
}

/// Where the samples of a frame are.
enum FrameSource<'a> {
    /// In a file of so many frames.
    File(&'a DicomStructure<'a>, usize),
    /// The bytes of the frame.
    Native(&'a [u8], FramePlace),
}

/// Decodes one frame into its only slice, or into the slices of its tiles.
fn decode_targets(
    source: &FrameSource,
    format: &PixelFormat,
    targets: Vec<Target>,
    survey: Option<HuSurvey>,
) -> Result<(Notes, HuCounts), DecodeError> {
    let (mut whole, mut notes, mut counts) = (Vec::new(), Notes::new(), HuCounts::default());
    for Target { slice: SeriesSlice { slice, .. }, plane, start } in targets {
        let decode = |out: &mut [f32]| match source {
            FrameSource::File(structure, frames) => decode_frame(structure, format, slice, *frames, out),
            FrameSource::Native(bytes, place) => decode_native(bytes, place.big_endian, format, slice, out),
        };
        match slice.tile {
            None => notes.extend(decode(plane)?),
            Some(tile) => {
                if whole.is_empty() {
                    whole = vec![0f32; format.rows * format.columns];
                    notes.extend(decode(&mut whole)?);
                }
                mosaic::cut(&whole, format.columns, tile, slice.columns, plane);
            }
        }
        counts = counts.plus(survey.map_or_else(HuCounts::default, |survey| survey.count(plane, start)));
    }
    Ok((notes, counts))
}
