//! Training data of the expert classifier: patches around labelled candidates, and their files.

use std::collections::BTreeMap;
use std::path::Path;

use half::f16;
use willis_core::files::tensors::{self, Precision, Tensor, Tensors};
use willis_core::files::{FileError, Malformed};
use willis_core::{Candidate, Lesion, Point, SeriesMeta, Site, VesselMap, VoxelPoint};

use super::condition::{CONDITIONS, condition};
use super::patch::{SIDE, STORED_CHANNELS, patch};

/// Side of a stored patch, voxels: that of the net and a margin for random shifts.
pub const STORED_SIDE: usize = SIDE + 8;

/// How far beyond a hit a candidate is still assigned to a lesion, mm. It is about the radius of a
/// parent artery, because candidates of the graph are on the artery's centreline.
pub const NEAR_MM: f64 = 2.5;

/// Diameter assumed for a lesion that is annotated only as a point, mm.
const UNKNOWN_DIAMETER_MM: f64 = 4.0;

/// Labels of a candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CandidateTruth {
    /// Site of the lesion the candidate is assigned to; `None` if there is none.
    pub site: Option<Site>,
    /// Offset of the lesion's centre from the central voxel of the patch, voxels along z, y, x; 0
    /// without a lesion.
    pub offset_vox: [f32; 3],
    /// Natural logarithm of the lesion's diameter in mm; 0 without a lesion.
    pub log_diameter: f32,
    /// Whether the candidate is near enough to the lesion to count as a hit. A candidate that is
    /// not trains class, centre and size, but not the site, since it may be on another artery.
    pub hit: bool,
}

/// Whether a candidate at this distance from a lesion's centre counts as a hit.
fn is_hit(distance_mm: f64, diameter_mm: f64) -> bool {
    distance_mm <= (diameter_mm / 2.0).max(3.0)
}

/// A labelled candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Intensity, vessel and aneurysm probability, `[3, 56, 56, 56]`.
    pub values: Vec<f16>,
    /// See [`condition()`].
    pub condition: [f32; CONDITIONS],
    /// Voxel size z, y, x, mm.
    pub spacing_mm: [f32; 3],
    /// Labels.
    pub truth: CandidateTruth,
}

/// The labelled candidates of one series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExamineCase {
    /// The candidates.
    pub examples: Vec<Example>,
}

impl ExamineCase {
    /// Labels the candidates of a series, and adds one at the centre of each lesion.
    ///
    /// A candidate counts as a hit up to the lesion's radius, but at least 3 mm, from its centre.
    /// It is assigned to the nearest lesion up to [`NEAR_MM`] beyond that.
    pub fn new(map: &VesselMap, candidates: &[Candidate], lesions: &[Lesion], meta: &SeriesMeta) -> Self {
        let proposed = candidates.iter().map(|c| (c.centre, c.site));
        let at_lesions = lesions.iter().map(|lesion| (lesion.centre, Some(lesion.site)));
        let examples =
            proposed.chain(at_lesions).filter_map(|(centre, site)| example(map, centre, site, lesions, meta));
        Self { examples: examples.collect() }
    }
}

fn example(
    map: &VesselMap,
    centre: Point,
    site: Option<Site>,
    lesions: &[Lesion],
    meta: &SeriesMeta,
) -> Option<Example> {
    let grid = map.vessel.grid;
    let patch = patch(map, centre, STORED_SIDE)?;
    let nearest = lesions.iter().min_by(|a, b| a.centre.distance_mm(centre).total_cmp(&b.centre.distance_mm(centre)));
    let diameter_mm = |lesion: &Lesion| lesion.diameter_mm.unwrap_or(UNKNOWN_DIAMETER_MM);
    let near = nearest.filter(|l| is_hit(l.centre.distance_mm(centre) - NEAR_MM, diameter_mm(l)));
    let truth = match near {
        Some(lesion) => CandidateTruth {
            site: Some(lesion.site),
            offset_vox: offset(grid.affine.to_voxel(lesion.centre)?, patch.middle),
            log_diameter: diameter_mm(lesion).max(0.5).ln() as f32,
            hit: is_hit(lesion.centre.distance_mm(centre), diameter_mm(lesion)),
        },
        None => CandidateTruth { site: None, offset_vox: [0.0; 3], log_diameter: 0.0, hit: false },
    };
    let spacing_mm = grid.spacing().zyx().map(|mm| mm as f32);
    Some(Example { values: patch.values, condition: condition(meta, site, &grid, centre), spacing_mm, truth })
}

fn offset(place: VoxelPoint, middle: VoxelPoint) -> [f32; 3] {
    [place.z - middle.z, place.y - middle.y, place.x - middle.x].map(|v| v as f32)
}

/// Writes a case to a safetensors file with 16-bit reals.
///
/// # Errors
/// [`FileError::Write`] when the file cannot be written.
pub fn save(path: &Path, case: &ExamineCase) -> Result<(), FileError> {
    let count = case.examples.len();
    let column = |name: &str, shape: &[usize], f: &dyn Fn(&Example) -> Vec<f32>| {
        let shape = [&[count], shape].concat();
        (name.to_string(), Tensor { shape, data: case.examples.iter().flat_map(f).collect() })
    };
    let site = |e: &Example| e.truth.site.map_or(-1.0, |site| site.column() as f32);
    let patches = [STORED_CHANNELS, STORED_SIDE, STORED_SIDE, STORED_SIDE];
    let tensors = [
        column("patches", &patches, &|e| e.values.iter().map(|v| v.to_f32()).collect()),
        column("condition", &[CONDITIONS], &|e| e.condition.to_vec()),
        column("spacing_mm", &[3], &|e| e.spacing_mm.to_vec()),
        column("site", &[], &|e| vec![site(e)]),
        column("offset_vox", &[3], &|e| e.truth.offset_vox.to_vec()),
        column("log_diameter", &[], &|e| vec![e.truth.log_diameter]),
        column("hit", &[], &|e| vec![f32::from(e.truth.hit)]),
    ];
    tensors::write(path, &Tensors { tensors: tensors.into(), ..Tensors::default() }, Precision::F16)
}

/// Reads a case.
///
/// # Errors
/// [`FileError`] when the file cannot be read or is not a case of this version.
pub fn load(path: &Path) -> Result<ExamineCase, FileError> {
    let damaged = || {
        let reason = "the patches do not fit this version; prepare the training data again".to_string();
        FileError::Malformed { path: path.to_path_buf(), source: Malformed { format: "examine case", reason } }
    };
    case(tensors::read(path)?.tensors).ok_or_else(damaged)
}

fn case(mut tensors: BTreeMap<String, Tensor>) -> Option<ExamineCase> {
    let count = *tensors.get("patches")?.shape.first()?;
    let mut take = |name: &str, shape: &[usize]| {
        let tensor = tensors.remove(name)?;
        (tensor.shape == [&[count], shape].concat() && tensor.data.iter().all(|v| v.is_finite())).then_some(tensor.data)
    };
    let patches = take("patches", &[STORED_CHANNELS, STORED_SIDE, STORED_SIDE, STORED_SIDE])?;
    let (conditions, spacings) = (take("condition", &[CONDITIONS])?, take("spacing_mm", &[3])?);
    let (sites, offsets, diameters) = (take("site", &[])?, take("offset_vox", &[3])?, take("log_diameter", &[])?);
    let hits = take("hit", &[])?;
    let voxels = STORED_CHANNELS * STORED_SIDE.pow(3);
    let examples = (0..count).map(|k| Example {
        values: patches[k * voxels..(k + 1) * voxels].iter().map(|&v| f16::from_f32(v)).collect(),
        condition: std::array::from_fn(|i| conditions[k * CONDITIONS + i]),
        spacing_mm: std::array::from_fn(|i| spacings[3 * k + i].max(1e-3)),
        truth: CandidateTruth {
            site: (sites[k] >= 0.0).then(|| Site::from_column(sites[k] as usize)).flatten(),
            offset_vox: std::array::from_fn(|i| offsets[3 * k + i]),
            log_diameter: diameters[k],
            hit: hits[k] > 0.5,
        },
    });
    Some(ExamineCase { examples: examples.collect() })
}

#[cfg(test)]
mod tests {
    use super::super::patch::tests::map;
    use super::*;
    use willis_core::Evidence;

    #[test]
    fn candidates_are_labelled_and_files_round_trip() {
        let centre = Point::new(24.0, 24.0, 24.0);
        let lesion = Lesion { centre, diameter_mm: Some(4.0), site: Site::LeftMca, neck: None, neck_width_mm: None };
        let candidate = |x| Candidate {
            rank: 1,
            centre: Point::new(x, 24.0, 24.0),
            diameter_mm: 3.0,
            probability: 0.5,
            site: None,
            distance_to_vessel_mm: None,
            evidence: Evidence::default(),
        };
        let case = ExamineCase::new(
            &map(&[(centre, 2.0)]),
            &[candidate(25.6), candidate(29.6), candidate(28.0)],
            &[lesion],
            &SeriesMeta::default(),
        );
        let truths: Vec<CandidateTruth> = case.examples.iter().map(|e| e.truth).collect();
        assert_eq!(truths.len(), 4);
        assert_eq!(truths[0].site, Some(Site::LeftMca));
        assert!((truths[0].offset_vox[2] + 2.0).abs() < 1e-4 && truths[0].offset_vox[0].abs() < 1e-4);
        assert!((truths[0].log_diameter - 4f32.ln()).abs() < 1e-6);
        assert_eq!(truths[1].site, None);
        assert_eq!((truths[2].site, truths[2].hit), (Some(Site::LeftMca), false));
        assert!(truths[0].hit && truths[3].hit);
        assert_eq!(truths[3].offset_vox.map(|v| v.abs() < 1e-4), [true; 3]);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("case.safetensors");
        save(&path, &case).unwrap();
        let loaded = load(&path).unwrap();
        assert_eq!(loaded.examples.len(), 4);
        assert_eq!(loaded.examples[0].values, case.examples[0].values);
        assert_eq!(loaded.examples[1].truth, case.examples[1].truth);
        tensors::write(&path, &Tensors::default(), Precision::F32).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("prepare the training data again"));
    }
}
