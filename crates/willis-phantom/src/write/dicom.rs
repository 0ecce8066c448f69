//! Writing slices as DICOM instances: CT or MR Image Storage, explicit VR little endian,
//! uncompressed.
//!
//! A full header holds the attributes that the challenge keeps in its hidden test set, the empty
//! ones that DICOM requires, and age and sex. A bare one holds the first of these only; that of a
//! multi-frame file lacks the geometry as well, which enhanced files keep in sequences that the
//! challenge removes.

use std::path::Path;

use dicom_core::{DataElement, PrimitiveValue, Tag, VR, dicom_value};
use dicom_dictionary_std::{tags, uids as dicom_uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use rayon::prelude::*;
use willis_core::cohort::HeaderContent;
use willis_core::{Affine, Modality, SeriesMeta, Sex, VoxelPoint};

use super::SeriesUids;
use super::error::{WriteCohortError, at};
use crate::synthesis::Phantom;

/// Writes the slices of a series into a folder, one file each, named by SOP instance UID. The
/// folder is created if necessary.
///
/// # Errors
/// `SkewedPlane` and `SliceSize` if DICOM cannot store the series, before anything is written;
/// `Io` and `Dicom` for a folder or file that cannot be written.
pub fn write_instances(folder: &Path, phantom: &Phantom, uids: &SeriesUids) -> Result<(), WriteCohortError> {
    InstanceWriter::new(phantom, uids, HeaderContent::Full)?.write(folder)
}

/// A series that DICOM can store.
pub(super) struct InstanceWriter<'a> {
    phantom: &'a Phantom,
    uids: &'a SeriesUids,
    plane: ImagePlane,
    rows: u16,
    columns: u16,
    header: HeaderContent,
}

impl<'a> InstanceWriter<'a> {
    /// Checks that DICOM can store the series.
    ///
    /// # Errors
    /// `SkewedPlane` and `SliceSize` if it cannot.
    pub fn new(phantom: &'a Phantom, uids: &'a SeriesUids, header: HeaderContent) -> Result<Self, WriteCohortError> {
        let grid = &phantom.volume.grid;
        let (rows, columns) = (grid.shape.y, grid.shape.x);
        let plane = ImagePlane::of(&grid.affine).ok_or_else(|| WriteCohortError::SkewedPlane { uid: uids.series() })?;
        match (u16::try_from(rows), u16::try_from(columns)) {
            (Ok(rows @ 1..), Ok(columns @ 1..)) => Ok(Self { phantom, uids, plane, rows, columns, header }),
            _ => Err(WriteCohortError::SliceSize { rows, columns }),
        }
    }

    /// Writes every slice, or the one file of all frames, into a folder.
    ///
    /// # Errors
    /// `Io` and `Dicom` for a folder or file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), WriteCohortError> {
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        let file = |slice: usize| folder.join(format!("{}.dcm", self.uids.instance(slice)));
        match self.header {
            HeaderContent::BareFrames => write_file(&file(0), self.frames()),
            HeaderContent::Full | HeaderContent::BareSlices => (0..self.phantom.volume.grid.shape.z)
                .into_par_iter()
                .try_for_each(|slice| write_file(&file(slice), self.slice(slice))),
        }
    }

    /// The data set of one slice.
    fn slice(&self, slice: usize) -> InMemDicomObject {
        let mut data = self.data_set(slice);
        if self.header == HeaderContent::BareSlices {
            strip(&mut data);
        }
        data
    }

    /// The data set of one file with all frames, without geometry and number of frames.
    fn frames(&self) -> InMemDicomObject {
        let mut data = self.data_set(0);
        strip(&mut data);
        for tag in GEOMETRY {
            data.remove_element(tag);
        }
        let is_ct = matches!(self.phantom.meta.modality, Some(Modality::Cta));
        let class = if is_ct { dicom_uids::ENHANCED_CT_IMAGE_STORAGE } else { dicom_uids::ENHANCED_MR_IMAGE_STORAGE };
        data.put(DataElement::new(tags::SOP_CLASS_UID, VR::UI, PrimitiveValue::from(class)));
        let words: Vec<u16> = self.phantom.volume.voxels.iter().map(|v| *v as u16).collect();
        data.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(words.into())));
        data
    }

    fn data_set(&self, slice: usize) -> InMemDicomObject {
        let Self { phantom, uids, plane, .. } = self;
        let grid = &phantom.volume.grid;
        let position = grid.affine.to_world(VoxelPoint::new(slice as f64, 0.0, 0.0)).xyz();
        let pixels_per_slice = grid.shape.y * grid.shape.x;
        let pixels = &phantom.volume.voxels[slice * pixels_per_slice..][..pixels_per_slice];
        let is_ct = matches!(phantom.meta.modality, Some(Modality::Cta));
        let number = slice + 1;

        let text = |tag: Tag, vr: VR, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
        let decimals = |tag: Tag, values: &[f64]| {
            let texts: Vec<String> = values.iter().map(|v| decimal_string(*v)).collect();
            DataElement::new(tag, VR::DS, PrimitiveValue::Strs(texts.into()))
        };
        let count = |tag: Tag, value: u16| DataElement::new(tag, VR::US, dicom_value!(U16, [value]));

        let mut data = InMemDicomObject::new_empty();
        for (tag, vr) in EMPTY {
            data.put(DataElement::empty(tag, vr));
        }
        let class = if is_ct { dicom_uids::CT_IMAGE_STORAGE } else { dicom_uids::MR_IMAGE_STORAGE };
        data.put(text(tags::SOP_CLASS_UID, VR::UI, class));
        data.put(text(tags::SOP_INSTANCE_UID, VR::UI, &uids.instance(slice)));
        data.put(text(tags::STUDY_INSTANCE_UID, VR::UI, &uids.study()));
        data.put(text(tags::SERIES_INSTANCE_UID, VR::UI, &uids.series()));
        data.put(text(tags::FRAME_OF_REFERENCE_UID, VR::UI, &uids.frame_of_reference()));
        data.put(text(tags::PATIENT_ID, VR::LO, &uids.patient()));
        data.put(text(tags::PATIENT_AGE, VR::AS, &age_string(&phantom.meta)));
        data.put(text(tags::PATIENT_SEX, VR::CS, sex_code(&phantom.meta)));
        data.put(text(tags::MODALITY, VR::CS, if is_ct { "CT" } else { "MR" }));
        data.put(text(tags::SERIES_NUMBER, VR::IS, "1"));
        data.put(text(tags::INSTANCE_NUMBER, VR::IS, &number.to_string()));
        data.put(decimals(tags::IMAGE_POSITION_PATIENT, &position));
        data.put(decimals(tags::IMAGE_ORIENTATION_PATIENT, plane.orientation.as_flattened()));
        data.put(decimals(tags::PIXEL_SPACING, &plane.pixel_spacing_mm));
        data.put(decimals(tags::SLICE_THICKNESS, &[plane.slice_distance_mm]));
        data.put(decimals(tags::SPACING_BETWEEN_SLICES, &[plane.slice_distance_mm]));
        data.put(decimals(tags::RESCALE_SLOPE, &[phantom.rescale.0]));
        data.put(decimals(tags::RESCALE_INTERCEPT, &[phantom.rescale.1]));
        data.put(text(tags::RESCALE_TYPE, VR::LO, if is_ct { "HU" } else { "US" }));
        data.put(DataElement::new(tags::IMAGE_TYPE, VR::CS, dicom_value!(Strs, ["ORIGINAL", "PRIMARY", "AXIAL"])));
        if !is_ct {
            data.put(text(tags::SCANNING_SEQUENCE, VR::CS, scanning_sequence(&phantom.meta)));
            data.put(text(tags::SEQUENCE_VARIANT, VR::CS, "NONE"));
        }
        data.put(text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"));
        data.put(count(tags::SAMPLES_PER_PIXEL, 1));
        data.put(count(tags::ROWS, self.rows));
        data.put(count(tags::COLUMNS, self.columns));
        data.put(count(tags::BITS_ALLOCATED, 16));
        data.put(count(tags::BITS_STORED, 16));
        data.put(count(tags::HIGH_BIT, 15));
        data.put(count(tags::PIXEL_REPRESENTATION, 1));
        let words: Vec<u16> = pixels.iter().map(|v| *v as u16).collect();
        data.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(words.into())));
        data
    }
}

fn write_file(path: &Path, data: InMemDicomObject) -> Result<(), WriteCohortError> {
    let failed = |reason: String| WriteCohortError::Dicom { path: path.to_path_buf(), reason };
    let meta = FileMetaTableBuilder::new().transfer_syntax(dicom_uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let file = data.with_meta(meta).map_err(|e| failed(e.to_string()))?;
    file.write_to_file(path).map_err(|e| failed(e.to_string()))
}

/// Removes what is not on the challenge's allow-list.
fn strip(data: &mut InMemDicomObject) {
    for tag in EMPTY.into_iter().map(|(tag, _)| tag).chain(NOT_ALLOWED) {
        data.remove_element(tag);
    }
}

/// Image plane of a series, the same for every slice.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ImagePlane {
    /// Unit vectors along a row (towards larger x) and along a column (towards larger y), LPS.
    orientation: [[f64; 3]; 2],
    /// Distance between the centres of neighbouring rows, then of neighbouring columns, mm.
    pixel_spacing_mm: [f64; 2],
    /// Distance between slice planes, along their normal, mm.
    slice_distance_mm: f64,
}

impl ImagePlane {
    /// Plane of an affine. The normal of the slices may differ from their stacking direction, as
    /// under gantry tilt.
    ///
    /// `None` if rows and columns are not at right angles, or the affine is singular.
    fn of(affine: &Affine) -> Option<Self> {
        affine.inverse()?;
        let column = |j: usize| [affine.0[0][j], affine.0[1][j], affine.0[2][j]];
        let spacing = affine.spacing();
        let along_row = column(0).map(|v| v / spacing.x);
        let along_column = column(1).map(|v| v / spacing.y);
        let normal = cross(along_row, along_column);
        let right_angled = dot(along_row, along_column).abs() < 1e-4;
        right_angled.then(|| Self {
            orientation: [along_row, along_column],
            pixel_spacing_mm: [spacing.y, spacing.x],
            slice_distance_mm: dot(normal, column(2)).abs(),
        })
    }
}

/// Attributes that must be present but may be empty (type 2 of the CT and MR image modules).
const EMPTY: [(Tag, VR); 16] = [
    (tags::STUDY_DATE, VR::DA),
    (tags::STUDY_TIME, VR::TM),
    (tags::ACCESSION_NUMBER, VR::SH),
    (tags::MANUFACTURER, VR::LO),
    (tags::REFERRING_PHYSICIAN_NAME, VR::PN),
    (tags::PATIENT_NAME, VR::PN),
    (tags::PATIENT_BIRTH_DATE, VR::DA),
    (tags::STUDY_ID, VR::SH),
    (tags::ACQUISITION_NUMBER, VR::IS),
    (tags::PATIENT_POSITION, VR::CS),
    (tags::POSITION_REFERENCE_INDICATOR, VR::LO),
    (tags::KVP, VR::DS),
    (tags::SCAN_OPTIONS, VR::CS),
    (tags::MR_ACQUISITION_TYPE, VR::CS),
    (tags::ECHO_TIME, VR::DS),
    (tags::ECHO_TRAIN_LENGTH, VR::IS),
];

/// Further attributes of a full header that are not on the challenge's allow-list.
const NOT_ALLOWED: [Tag; 6] = [
    tags::PATIENT_AGE,
    tags::PATIENT_SEX,
    tags::SERIES_NUMBER,
    tags::IMAGE_TYPE,
    tags::SCANNING_SEQUENCE,
    tags::SEQUENCE_VARIANT,
];

/// Attributes that say where a slice is.
const GEOMETRY: [Tag; 5] = [
    tags::IMAGE_POSITION_PATIENT,
    tags::IMAGE_ORIENTATION_PATIENT,
    tags::PIXEL_SPACING,
    tags::SLICE_THICKNESS,
    tags::SPACING_BETWEEN_SLICES,
];

fn scanning_sequence(meta: &SeriesMeta) -> &'static str {
    if meta.modality == Some(Modality::T2) { "SE" } else { "GR" }
}

/// Age as a DICOM age string (`065Y`); empty if unknown.
fn age_string(meta: &SeriesMeta) -> String {
    meta.age_years.map_or_else(String::new, |years| format!("{:03.0}Y", years.clamp(0.0, 999.0)))
}

fn sex_code(meta: &SeriesMeta) -> &'static str {
    match meta.sex {
        Some(Sex::Female) => "F",
        Some(Sex::Male) => "M",
        None => "",
    }
}

/// The most precise DICOM decimal string, which has at most 16 characters.
fn decimal_string(value: f64) -> String {
    let trim = |text: String| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
    };
    let fixed = (0..=12).rev().map(|digits| trim(format!("{value:.digits$}"))).find(|text| text.len() <= 16);
    match fixed {
        Some(text) if text == "-0" => "0".to_string(),
        Some(text) => text,
        None => format!("{value:.8e}"),
    }
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_strings_fit_sixteen_characters() {
        for (value, expected) in [
            (0.5, "0.5"),
            (-0.0, "0"),
            (-1e-14, "0"),
            (1.0, "1"),
            (1.0 / 3.0, "0.333333333333"),
            (-1234.567890123, "-1234.567890123"),
            (-123.45678901234567, "-123.45678901235"),
            (1e20, "1.00000000e20"),
        ] {
            assert_eq!(decimal_string(value), expected);
            assert!(decimal_string(value).len() <= 16);
        }
    }

    #[test]
    fn planes_of_axial_coronal_and_tilted_series() {
        let axial = Affine([[0.4, 0.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]]);
        let plane = ImagePlane::of(&axial).unwrap();
        assert_eq!(plane.orientation, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
        assert_eq!(plane.pixel_spacing_mm, [0.5, 0.4]);

        // Coronal: rows run to the left, columns to the feet, slices to the back.
        let coronal = Affine([[0.4, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0], [0.0, -0.4, 0.0, 0.0]]);
        let plane = ImagePlane::of(&coronal).unwrap();
        assert_eq!(plane.orientation, [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0]]);
        assert_eq!(plane.slice_distance_mm, 3.0);

        // Gantry tilt: the stack shifts by 1 mm in y for every 2 mm between planes.
        let tilted = Affine([[0.4, 0.0, 0.0, 0.0], [0.0, 0.4, 1.0, 0.0], [0.0, 0.0, 2.0, 0.0]]);
        assert_eq!(ImagePlane::of(&tilted).unwrap().slice_distance_mm, 2.0);

        let skewed = Affine([[0.4, 0.2, 0.0, 0.0], [0.0, 0.4, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]]);
        assert_eq!(ImagePlane::of(&skewed), None);
    }
}
