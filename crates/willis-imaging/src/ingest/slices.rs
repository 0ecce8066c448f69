//! Position, rescaling and time of single frames, from the functional groups of an enhanced file or
//! the top level of a classic one.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::attributes::{DataSet, integer, item, number, numbers, text};
use super::notes::{Note, Notes};
use super::pixel_format::PixelFormat;

/// Position, rescaling and time of one frame.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Slice {
    /// Index of the frame in its file, from 0.
    pub frame: usize,
    pub rows: usize,
    pub columns: usize,
    /// Centre of the first voxel, LPS mm.
    pub position: Option<[f64; 3]>,
    /// Unit vector along a row, then along a column.
    pub orientation: Option<[f64; 6]>,
    /// How far the direction cosines in the file were from orthogonal unit vectors: the largest
    /// deviation of a length from 1 or of their product from 0.
    pub direction_error: f64,
    /// Distance between rows, then between columns, mm.
    pub pixel_spacing: Option<[f64; 2]>,
    pub slice_location: Option<f64>,
    pub slice_step_mm: Option<f64>,
    pub thickness_mm: Option<f64>,
    /// Row and column of the first pixel in its frame, when the frame is a mosaic of slices.
    pub tile: Option<[usize; 2]>,
    pub slope: f64,
    pub intercept: f64,
    pub instance_number: Option<i64>,
    pub time: TimeKeys,
}

/// Attributes that distinguish the volumes of one series.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimeKeys {
    pub image_type: String,
    /// Hundredths of a millisecond.
    pub echo_time: Option<i64>,
    pub echo_number: Option<i64>,
    /// s/mm².
    pub b_value: Option<i64>,
    /// Tube voltage, tenths of a kilovolt.
    pub kvp: Option<i64>,
    /// Whether a contrast agent is named.
    pub contrast: bool,
    pub series_number: Option<i64>,
    pub temporal_position: Option<i64>,
    /// Hundredths of a millisecond.
    pub trigger_time: Option<i64>,
    pub stack: String,
    pub acquisition: Option<i64>,
    /// Thousandths of `HHMMSS`, read as one number.
    pub acquisition_time: Option<i64>,
    /// Hundredths of a millisecond.
    pub repetition_time: Option<i64>,
    /// Hundredths of a millisecond.
    pub inversion_time: Option<i64>,
    /// Hundredths of a degree.
    pub flip_angle: Option<i64>,
    /// Of the reconstruction.
    pub kernel: String,
}

/// The three data sets in which an attribute of a frame may be, most specific first.
pub(super) struct FunctionalGroups<'a> {
    pub own: Option<DataSet<'a>>,
    pub shared: Option<DataSet<'a>>,
    pub top: DataSet<'a>,
}

impl FunctionalGroups<'_> {
    /// The attribute from the functional group, or else from the top level.
    fn find<T>(&self, group: Tag, get: impl Fn(&DataSet) -> Option<T>) -> Option<T> {
        let inside = |set: Option<DataSet>| set.and_then(|s| item(&s, group)).and_then(|s| get(&s));
        inside(self.own).or_else(|| inside(self.shared)).or_else(|| get(&self.top))
    }
}

/// Position, rescaling and time of one frame.
pub(super) fn slice(
    groups: &FunctionalGroups,
    frame: usize,
    frames: usize,
    pixels: &PixelFormat,
    notes: &mut Notes,
) -> Slice {
    let content = |tag| groups.find(tags::FRAME_CONTENT_SEQUENCE, |s| integer(s, tag));
    let measures = |tag| groups.find(tags::PIXEL_MEASURES_SEQUENCE, |s| number(s, tag));
    let positive = |v: &f64| *v > 0.0 && *v < 1e4;
    let spacing = groups
        .find(tags::PIXEL_MEASURES_SEQUENCE, |s| numbers::<2>(s, tags::PIXEL_SPACING))
        .or_else(|| numbers::<2>(&groups.top, tags::IMAGER_PIXEL_SPACING));
    let echo = groups
        .find(tags::MR_ECHO_SEQUENCE, |s| number(s, tags::EFFECTIVE_ECHO_TIME))
        .or_else(|| number(&groups.top, tags::ECHO_TIME));
    let image_type = groups
        .find(tags::MR_IMAGE_FRAME_TYPE_SEQUENCE, |s| {
            let frame_type = text(s, tags::FRAME_TYPE)?;
            Some(frame_type + "\\" + &text(s, tags::COMPLEX_IMAGE_COMPONENT).unwrap_or_default())
        })
        .or_else(|| text(&groups.top, tags::IMAGE_TYPE));
    // A multi-frame file without functional groups has one position, that of its first frame.
    let position = match (&groups.own, frames) {
        (None, 2..) => None,
        _ => groups.find(tags::PLANE_POSITION_SEQUENCE, |s| numbers::<3>(s, tags::IMAGE_POSITION_PATIENT)),
    };
    let trigger = groups
        .find(tags::CARDIAC_SYNCHRONIZATION_SEQUENCE, |s| number(s, tags::NOMINAL_CARDIAC_TRIGGER_DELAY_TIME))
        .or_else(|| number(&groups.top, tags::TRIGGER_TIME));
    let b_value = groups.find(tags::MR_DIFFUSION_SEQUENCE, |s| number(s, tags::DIFFUSION_B_VALUE));
    let cosines = groups.find(tags::PLANE_ORIENTATION_SEQUENCE, |s| numbers::<6>(s, tags::IMAGE_ORIENTATION_PATIENT));
    let hundredths = |ms: f64| (ms * 100.0).round() as i64;
    let timing = |tag| groups.find(tags::MR_TIMING_AND_RELATED_PARAMETERS_SEQUENCE, |s| number(s, tag)).map(hundredths);
    let (slope, intercept) = rescale(groups, pixels, notes);
    Slice {
        frame,
        rows: pixels.rows,
        columns: pixels.columns,
        position,
        orientation: cosines.and_then(orthonormal),
        direction_error: cosines.map_or(0.0, direction_error),
        pixel_spacing: spacing.filter(|s| s.iter().all(positive)),
        slice_location: if frames == 1 { number(&groups.top, tags::SLICE_LOCATION) } else { None },
        slice_step_mm: measures(tags::SPACING_BETWEEN_SLICES)
            .map(f64::abs)
            .filter(positive)
            .or_else(|| measures(tags::SLICE_THICKNESS).filter(positive)),
        thickness_mm: measures(tags::SLICE_THICKNESS).filter(positive),
        tile: None,
        slope,
        intercept,
        instance_number: integer(&groups.top, tags::INSTANCE_NUMBER),
        time: TimeKeys {
            image_type: image_type.unwrap_or_default(),
            echo_time: echo.map(hundredths),
            echo_number: integer(&groups.top, tags::ECHO_NUMBERS),
            b_value: b_value.map(|b| b.round() as i64),
            kvp: number(&groups.top, tags::KVP).map(|kv| (kv * 10.0).round() as i64),
            contrast: text(&groups.top, tags::CONTRAST_BOLUS_AGENT).is_some_and(|agent| !agent.is_empty()),
            series_number: integer(&groups.top, tags::SERIES_NUMBER),
            trigger_time: trigger.map(hundredths),
            temporal_position: content(tags::TEMPORAL_POSITION_INDEX)
                .or_else(|| integer(&groups.top, tags::TEMPORAL_POSITION_IDENTIFIER)),
            stack: groups.find(tags::FRAME_CONTENT_SEQUENCE, |s| text(s, tags::STACK_ID)).unwrap_or_default(),
            acquisition: content(tags::FRAME_ACQUISITION_NUMBER)
                .or_else(|| integer(&groups.top, tags::ACQUISITION_NUMBER)),
            acquisition_time: number(&groups.top, tags::ACQUISITION_TIME).map(|time| (time * 1000.0).round() as i64),
            repetition_time: timing(tags::REPETITION_TIME),
            inversion_time: number(&groups.top, tags::INVERSION_TIME).map(hundredths),
            flip_angle: timing(tags::FLIP_ANGLE),
            kernel: groups
                .find(tags::CT_RECONSTRUCTION_SEQUENCE, |s| text(s, tags::CONVOLUTION_KERNEL))
                .unwrap_or_default(),
        },
    }
}

/// Rescale slope and intercept.
///
/// For Philips these give display values. The precise values of its private scale slope (2005,100E)
/// are not used: they differ from the display values by one factor where both slopes are constant,
/// and a private element should not decide the scale of a series.
fn rescale(groups: &FunctionalGroups, pixels: &PixelFormat, notes: &mut Notes) -> (f64, f64) {
    let transformation =
        |tag| groups.find(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, |s| s.has_value(tag).then(|| number(s, tag)));
    let (slope, intercept) = (transformation(tags::RESCALE_SLOPE), transformation(tags::RESCALE_INTERCEPT));
    if matches!(slope, Some(None | Some(0.0))) || intercept == Some(None) {
        notes.insert(Note::UnreadableRescale);
    }
    let is_ct = text(&groups.top, tags::MODALITY).as_deref() == Some("CT");
    if is_ct && slope.is_none() && intercept.is_none() && pixels.modality_lut.is_none() {
        notes.insert(Note::NoRescale);
    }
    (slope.flatten().filter(|&s| s != 0.0).unwrap_or(1.0), intercept.flatten().unwrap_or(0.0))
}

/// The largest deviation of two vectors from orthogonal unit vectors.
fn direction_error(v: [f64; 6]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (row, column) = v.split_at(3);
    let off_unit = |a: &[f64]| (dot(a, a).sqrt() - 1.0).abs();
    off_unit(row).max(off_unit(column)).max(dot(row, column).abs())
}

/// The two vectors normalised, or `None` unless they have a length and are nearly orthogonal.
fn orthonormal(v: [f64; 6]) -> Option<[f64; 6]> {
    let unit = |a: [f64; 3]| {
        let length = a.iter().map(|x| x * x).sum::<f64>().sqrt();
        (1e-3..1e3).contains(&length).then(|| a.map(|x| x / length))
    };
    let row = unit([v[0], v[1], v[2]])?;
    let column = unit([v[3], v[4], v[5]])?;
    let cosine: f64 = row.iter().zip(column).map(|(a, b)| a * b).sum();
    // Beyond rounding, the row is kept and the column made orthogonal to it.
    let column = if cosine.abs() > 1e-4 { unit(std::array::from_fn(|i| column[i] - cosine * row[i]))? } else { column };
    (cosine.abs() < 0.05).then(|| [row[0], row[1], row[2], column[0], column[1], column[2]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orientation_must_be_two_orthogonal_unit_vectors() {
        assert!(orthonormal([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]).is_some());
        assert!(orthonormal([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]).is_none());
        assert!(orthonormal([0.0; 6]).is_none());
    }
}
