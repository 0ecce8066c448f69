//! Small DICOM files for tests.

use std::path::{Path, PathBuf};

use dicom_core::{DataElement, PrimitiveValue, Tag, VR, dicom_value};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

/// Attributes of a single-frame CT slice of 3 rows and 4 columns.
#[derive(Debug, Clone)]
pub struct TestSlice {
    pub series: String,
    pub number: i32,
    pub rows: u16,
    pub columns: u16,
    pub position: Option<[f64; 3]>,
    pub orientation: Option<[f64; 6]>,
    pub spacing: Option<[f64; 2]>,
    pub modality: &'static str,
    pub intercept: f64,
    pub values: Vec<i16>,
}

impl TestSlice {
    /// An axial slice at height `z` whose voxels are `10 * number + column`.
    pub fn axial(number: i32, z: f64) -> Self {
        let values = (0..12).map(|i| (10 * number + i % 4) as i16).collect();
        Self {
            series: "1.2.3".into(),
            number,
            rows: 3,
            columns: 4,
            position: Some([-1.0, -2.0, z]),
            orientation: Some([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
            spacing: Some([0.5, 0.25]),
            modality: "CT",
            intercept: 0.0,
            values,
        }
    }

    /// The data set, with signed 16-bit pixels.
    pub fn object(&self) -> InMemDicomObject {
        let mut obj = InMemDicomObject::new_empty();
        put_text(&mut obj, tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE);
        put_text(&mut obj, tags::SOP_INSTANCE_UID, VR::UI, &format!("1.9.{}.{}", self.number, self.series.len()));
        put_text(&mut obj, tags::SERIES_INSTANCE_UID, VR::UI, &self.series);
        put_text(&mut obj, tags::MODALITY, VR::CS, self.modality);
        put_text(&mut obj, tags::PATIENT_NAME, VR::PN, "Secret^Person");
        put_text(&mut obj, tags::PATIENT_AGE, VR::AS, "045Y");
        put_text(&mut obj, tags::PATIENT_SEX, VR::CS, "F");
        put_text(&mut obj, tags::INSTANCE_NUMBER, VR::IS, &self.number.to_string());
        put_text(&mut obj, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
        put_decimals(&mut obj, tags::IMAGE_POSITION_PATIENT, self.position.as_ref().map(|v| &v[..]));
        put_decimals(&mut obj, tags::IMAGE_ORIENTATION_PATIENT, self.orientation.as_ref().map(|v| &v[..]));
        put_decimals(&mut obj, tags::PIXEL_SPACING, self.spacing.as_ref().map(|v| &v[..]));
        put_decimals(&mut obj, tags::RESCALE_SLOPE, Some(&[1.0]));
        put_decimals(&mut obj, tags::RESCALE_INTERCEPT, Some(&[self.intercept]));
        let shorts = [
            (tags::ROWS, self.rows),
            (tags::COLUMNS, self.columns),
            (tags::SAMPLES_PER_PIXEL, 1),
            (tags::BITS_ALLOCATED, 16),
            (tags::BITS_STORED, 16),
            (tags::HIGH_BIT, 15),
            (tags::PIXEL_REPRESENTATION, 1),
        ];
        for (tag, value) in shorts {
            put_short(&mut obj, tag, value);
        }
        let words: Vec<u16> = self.values.iter().map(|&v| v as u16).collect();
        obj.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(words.into())));
        obj
    }

    /// Writes the slice into a folder.
    pub fn write(&self, folder: &Path, name: &str) -> PathBuf {
        write_object(self.object(), &folder.join(name))
    }
}

/// Adds a text attribute.
pub fn put_text(obj: &mut InMemDicomObject, tag: Tag, vr: VR, text: &str) {
    obj.put(DataElement::new(tag, vr, PrimitiveValue::from(text)));
}

/// Adds an unsigned short.
pub fn put_short(obj: &mut InMemDicomObject, tag: Tag, value: u16) {
    obj.put(DataElement::new(tag, VR::US, dicom_value!(U16, [value])));
}

/// Adds decimals, if there are any.
pub fn put_decimals(obj: &mut InMemDicomObject, tag: Tag, values: Option<&[f64]>) {
    if let Some(values) = values {
        let text: Vec<String> = values.iter().map(f64::to_string).collect();
        put_text(obj, tag, VR::DS, &text.join("\\"));
    }
}

/// Writes a data set as an explicit little endian file.
pub fn write_object(obj: InMemDicomObject, path: &Path) -> PathBuf {
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .media_storage_sop_class_uid(uids::CT_IMAGE_STORAGE)
        .media_storage_sop_instance_uid("1.9");
    obj.with_meta(meta).expect("meta is complete").write_to_file(path).expect("folder is writable");
    path.to_path_buf()
}

/// A folder of `n` axial slices 2 mm apart, with file names in reverse order.
pub fn axial_series(n: i32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    for k in 0..n {
        TestSlice::axial(k, f64::from(k) * 2.0).write(folder.path(), &format!("{:03}", 999 - k));
    }
    folder
}
