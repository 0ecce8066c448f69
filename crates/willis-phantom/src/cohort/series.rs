//! One series of a cohort, written so that an interrupted run leaves it whole or absent.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::files::{json, nifti};
use willis_core::{Image, Lesion, SeriesMeta, Site};

use super::dicom::write_slice;
use super::uid::SeriesUids;
use super::{CohortError, at};

/// What is written of a series, borrowed from whatever made it.
#[derive(Debug, Clone, Copy)]
pub struct SeriesToWrite<'a> {
    /// Stored values.
    pub volume: &'a Image<i16>,
    /// Slope and intercept from stored values to units (HU for CT).
    pub rescale: (f64, f64),
    /// Site of each arterial voxel as mask value, 0 for background.
    pub sites: &'a Image<u8>,
    /// 1 inside an aneurysm sac, else 0.
    pub aneurysm: &'a Image<u8>,
    /// True lesions.
    pub lesions: &'a [Lesion],
    /// Age, sex and modality; its `uid` is replaced by the cohort's.
    pub meta: &'a SeriesMeta,
}

/// A lesion as the challenge marks it: a pixel of a slice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Localizer {
    /// SOP instance UID of the slice's file.
    pub instance_uid: String,
    /// Column, pixels from the centre of the first.
    pub x: f64,
    /// Row, pixels from the centre of the first.
    pub y: f64,
    /// Frame of a multi-frame file, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<usize>,
    /// Site.
    pub site: Site,
}

/// Everything known of a series: the content of `truth/<uid>.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesTruth {
    /// Version of this layout.
    pub schema: u32,
    /// The series.
    pub series: SeriesMeta,
    /// Lesions, LPS mm.
    pub lesions: Vec<Lesion>,
    /// The lesions as pixels, in the same order.
    pub localizers: Vec<Localizer>,
}

impl SeriesTruth {
    /// Version of the layout that this code writes.
    pub const SCHEMA: u32 = 1;
}

/// Folder of a series' DICOM instances.
pub fn series_folder(root: &Path, uid: &str) -> PathBuf {
    root.join("series").join(uid)
}

/// Label map of a series; `kind` is `cowseg` or `aneurysm`.
pub fn labels_path(root: &Path, uid: &str, kind: &str) -> PathBuf {
    root.join("segmentations").join(format!("{uid}_{kind}.nii.gz"))
}

/// Truth of a series. It is written last: where it is, the series is whole.
pub fn truth_path(root: &Path, uid: &str) -> PathBuf {
    root.join("truth").join(format!("{uid}.json"))
}

/// Writes slices, label maps and truth of one series into a cohort's folder; the tables are not
/// touched.
///
/// # Errors
/// `SkewedPlane`, `SliceSize` and `LesionOutside` before anything is written; else the file that
/// failed.
pub fn write_series(root: &Path, series: &SeriesToWrite, uids: &SeriesUids) -> Result<SeriesTruth, CohortError> {
    let uid = uids.series();
    let truth = SeriesTruth {
        schema: SeriesTruth::SCHEMA,
        series: SeriesMeta { uid: uid.clone(), ..series.meta.clone() },
        lesions: series.lesions.to_vec(),
        localizers: localizers(series, uids)?,
    };
    for folder in ["series", "segmentations", "truth", PARTIAL] {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder).map_err(at(&folder))?;
    }
    let partial = root.join(PARTIAL).join(&uid);
    let folder = series_folder(root, &uid);
    remove(&partial)?;
    write_instances(&partial, series, uids)?;
    remove(&folder)?;
    std::fs::rename(&partial, &folder).map_err(at(&folder))?;
    // Fails while another series is on its way, which is fine.
    let _ = std::fs::remove_dir(root.join(PARTIAL));

    nifti::write_labels(&labels_path(root, &uid, "cowseg"), series.sites)?;
    nifti::write_labels(&labels_path(root, &uid, "aneurysm"), series.aneurysm)?;
    json::write(&truth_path(root, &uid), &truth)?;
    Ok(truth)
}

/// Writes the slices of a series into a new folder, one file each, named by SOP instance UID.
///
/// # Errors
/// `SkewedPlane` and `SliceSize` when DICOM cannot hold the series; else the file that failed.
pub fn write_instances(folder: &Path, series: &SeriesToWrite, uids: &SeriesUids) -> Result<(), CohortError> {
    std::fs::create_dir_all(folder).map_err(at(folder))?;
    (0..series.volume.grid.shape.z).into_par_iter().try_for_each(|slice| {
        let path = folder.join(format!("{}.dcm", uids.instance(slice)));
        write_slice(&path, series, uids, slice)
    })
}

/// Where series lie while they are written.
const PARTIAL: &str = ".partial";

fn remove(folder: &Path) -> Result<(), CohortError> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(at(folder)(e)),
        _ => Ok(()),
    }
}

fn localizers(series: &SeriesToWrite, uids: &SeriesUids) -> Result<Vec<Localizer>, CohortError> {
    let grid = &series.volume.grid;
    let to_voxel = grid.affine.inverse().ok_or_else(|| CohortError::SkewedPlane { uid: uids.series() })?;
    let localizer = |(lesion, truth): (usize, &Lesion)| {
        let p = to_voxel.apply(truth.centre);
        if !grid.shape.contains(p) {
            return Err(CohortError::LesionOutside { uid: uids.series(), lesion });
        }
        let slice = grid.shape.nearest(p).z;
        Ok(Localizer { instance_uid: uids.instance(slice), x: p.x, y: p.y, frame: None, site: truth.site })
    };
    series.lesions.iter().enumerate().map(localizer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_dictionary_std::tags;
    use dicom_object::{DefaultDicomObject, open_file};
    use willis_core::{Affine, Grid, Modality, Point, Sex, Shape, VoxelPoint};

    use crate::cohort::{read, tables};

    /// A small series on an oblique, tilted grid, with one lesion.
    struct Head {
        volume: Image<i16>,
        labels: Image<u8>,
        lesions: Vec<Lesion>,
        meta: SeriesMeta,
    }

    impl Head {
        fn new() -> Self {
            let (s, c) = (0.3f64.sin(), 0.3f64.cos());
            let affine =
                Affine([[0.5 * c, -0.4 * s, 0.0, -12.5], [0.5 * s, 0.4 * c, 0.3, 33.25], [0.0, 0.0, 2.0, -7.125]]);
            let grid = Grid::new(Shape::new(3, 4, 5), affine);
            let voxels = (0..60).map(|v| if v == 7 { i16::MIN } else { v - 20 }).collect();
            let lesion = Lesion {
                centre: affine.to_world(VoxelPoint::new(1.2, 2.0, 3.5)),
                diameter_mm: Some(1.5),
                site: Site::LeftMca,
                neck: Some(Point::new(1.0, 2.0, 3.0)),
                neck_width_mm: Some(0.75),
            };
            let mut labels = Image::filled(grid, 0u8);
            labels.voxels[33] = Site::LeftMca.mask_value();
            let meta = SeriesMeta {
                uid: "replaced".into(),
                modality: Some(Modality::Mra),
                modality_from_voxels: false,
                age_years: Some(61.0),
                sex: Some(Sex::Female),
            };
            Self { volume: Image::new(grid, voxels), labels, lesions: vec![lesion], meta }
        }

        fn view(&self) -> SeriesToWrite<'_> {
            SeriesToWrite {
                volume: &self.volume,
                rescale: (2.0, -10.0),
                sites: &self.labels,
                aneurysm: &self.labels,
                lesions: &self.lesions,
                meta: &self.meta,
            }
        }
    }

    fn numbers<const N: usize>(file: &DefaultDicomObject, tag: dicom_core::Tag) -> [f64; N] {
        file.element(tag).unwrap().to_multi_float64().unwrap().try_into().unwrap()
    }

    #[test]
    fn slices_carry_pixels_and_place() {
        let (folder, head, uids) = (tempfile::tempdir().unwrap(), Head::new(), SeriesUids::new(5, 0));
        write_series(folder.path(), &head.view(), &uids).unwrap();
        let text = |file: &DefaultDicomObject, tag| file.element(tag).unwrap().to_str().unwrap().trim().to_string();
        for slice in 0..3 {
            let path = series_folder(folder.path(), &uids.series()).join(format!("{}.dcm", uids.instance(slice)));
            let file = open_file(path).unwrap();
            assert_eq!(file.meta().transfer_syntax(), "1.2.840.10008.1.2.1");
            assert_eq!(text(&file, tags::SERIES_INSTANCE_UID), uids.series());
            assert_eq!(text(&file, tags::INSTANCE_NUMBER), (slice + 1).to_string());
            assert_eq!((text(&file, tags::PATIENT_AGE), text(&file, tags::PATIENT_SEX)), ("061Y".into(), "F".into()));
            assert_eq!(numbers::<1>(&file, tags::RESCALE_INTERCEPT), [-10.0]);

            let bytes = file.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap();
            let pixels: Vec<i16> = bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
            assert_eq!(pixels, head.volume.voxels[slice * 20..][..20]);

            // PS3.3 C.7.6.2.1.1: place of column 3, row 2 from the tags, against the affine.
            let position = numbers::<3>(&file, tags::IMAGE_POSITION_PATIENT);
            let direction = numbers::<6>(&file, tags::IMAGE_ORIENTATION_PATIENT);
            let [between_rows, between_columns] = numbers::<2>(&file, tags::PIXEL_SPACING);
            let place = [0, 1, 2]
                .map(|i| position[i] + direction[i] * between_columns * 3.0 + direction[i + 3] * between_rows * 2.0);
            let expected = head.volume.grid.affine.to_world(VoxelPoint::new(slice as f64, 2.0, 3.0));
            assert!(Point::new(place[0], place[1], place[2]).distance_mm(expected) < 1e-9);
            assert_eq!(numbers::<1>(&file, tags::SLICE_THICKNESS), [2.0]);
        }
    }

    #[test]
    fn a_written_cohort_reads_back() {
        let (folder, head, uids) = (tempfile::tempdir().unwrap(), Head::new(), SeriesUids::new(5, 0));
        let root = folder.path();
        let truth = write_series(root, &head.view(), &uids).unwrap();
        let healthy = Head { lesions: vec![], meta: SeriesMeta::default(), ..Head::new() };
        let other = write_series(root, &healthy.view(), &SeriesUids::new(5, 1)).unwrap();
        tables::write_tables(root, &[truth.clone(), other.clone()]).unwrap();

        let cohort = read(root).unwrap();
        assert!(cohort.series.is_sorted_by_key(|s| &s.meta.uid));
        let [series] = cohort.series.iter().filter(|s| s.present).collect::<Vec<_>>()[..] else { panic!() };
        assert_eq!(series.meta, truth.series);
        assert_eq!(series.sites, Site::ALL.map(|site| site == Site::LeftMca));
        let [mark] = &series.localizers[..] else { panic!() };
        assert_eq!((mark.x, mark.y, mark.site), (3.5, 2.0, Site::LeftMca));
        assert_eq!(mark.instance_uid, uids.instance(1));
        assert_eq!(series.truth.as_ref().unwrap().lesions[0].site, Site::LeftMca);
        assert!(series.folder.is_dir() && series.aneurysm_file.is_some());
        let labels = series.sites_file.as_ref().unwrap();
        assert_eq!(nifti::read_labels(labels).unwrap().voxels, head.labels.voxels);
        let healthy = cohort.series.iter().find(|s| !s.present).unwrap();
        assert_eq!((&healthy.meta, healthy.sites), (&other.series, [false; 13]));
        assert!(!root.join(PARTIAL).exists());

        let header = std::fs::read_to_string(root.join(tables::SERIES_TABLE)).unwrap();
        assert!(header.starts_with("SeriesInstanceUID,PatientAge,PatientSex,Modality,Left Infraclinoid Internal"));
        assert!(header.lines().next().unwrap().ends_with("Other Posterior Circulation,Aneurysm Present"));
        let localizers = std::fs::read_to_string(root.join(tables::LOCALIZER_TABLE)).unwrap();
        assert!(localizers.contains(r#","{'x': 3.50, 'y': 2.00}",Left Middle Cerebral Artery"#), "{localizers}");
    }

    #[test]
    fn what_dicom_cannot_hold_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut head = Head::new();
        head.lesions[0].centre = Point::new(500.0, 0.0, 0.0);
        let refused = write_series(folder.path(), &head.view(), &SeriesUids::new(1, 1));
        assert!(matches!(refused, Err(CohortError::LesionOutside { lesion: 0, .. })));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_table_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let (root, head) = (folder.path(), Head::new());
        let truth = write_series(root, &head.view(), &SeriesUids::new(5, 0)).unwrap();
        tables::write_tables(root, &[truth]).unwrap();
        let path = root.join(tables::SERIES_TABLE);
        let good = std::fs::read_to_string(&path).unwrap();
        for (find, put) in
            [("2.25.", "../"), (",61,", ",old,"), ("MRA", "PET"), (",Female,", ",2,"), ("Modality", "Kind")]
        {
            std::fs::write(&path, good.replacen(find, put, 1)).unwrap();
            let refused = read(root);
            assert!(matches!(refused, Err(CohortError::BadValue { .. } | CohortError::MissingColumn { .. })), "{put}");
        }
        std::fs::write(&path, format!("{good}{}", good.lines().nth(1).unwrap())).unwrap();
        assert!(matches!(read(root), Err(CohortError::BadValue { row: 2, .. })), "a series twice");
    }
}
