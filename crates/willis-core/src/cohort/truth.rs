//! The true lesions of a series.

use serde::{Deserialize, Serialize};

use crate::{Grid, Lesion, Point, SeriesMeta, Site};

/// A lesion as the challenge marks it: one pixel of one slice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Localizer {
    /// SOP instance UID of the slice's file.
    pub instance_uid: String,
    /// Column in pixels; 0 is the centre of the first.
    pub x: f64,
    /// Row in pixels; 0 is the centre of the first.
    pub y: f64,
    /// Frame of a multi-frame file, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<usize>,
    /// Site.
    pub site: Site,
}

/// The lesions of a series: the content of `truth/<uid>.json`.
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
    /// How the series was made; data sets of earlier versions lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan: Option<ScanTruth>,
}

/// How a synthetic series was made. Evaluations group their figures by it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScanTruth {
    /// The scanner's grid, whatever the header says.
    pub grid: Grid,
    /// Model that gave the tissues their intensities.
    pub appearance: Appearance,
    /// What the header says.
    #[serde(default)]
    pub header: HeaderContent,
    /// Part of a benchmark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// Series with the same value show the same head in the same scanner, once with a lesion and
    /// once without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<String>,
    /// Whether the sites of the lesions are known. If not, those in [`SeriesTruth::lesions`] are
    /// placeholders.
    #[serde(default)]
    pub sites: SiteKnowledge,
}

impl ScanTruth {
    /// A series of `grid` with a full header that belongs to no benchmark.
    pub fn new(grid: Grid, appearance: Appearance) -> Self {
        let (header, sites) = (HeaderContent::default(), SiteKnowledge::default());
        Self { grid, appearance, header, part: None, pair: None, sites }
    }

    /// Orientation of the slices.
    pub fn plane(&self) -> ScanPlane {
        ScanPlane::of(&self.grid)
    }

    /// The point of the scanner's grid that a reader who took the grid for `assumed` calls `point`.
    /// `None` if `assumed` is singular.
    pub fn from_assumed(&self, assumed: &Grid, point: Point) -> Option<Point> {
        Some(self.grid.affine.to_world(assumed.affine.to_voxel(point)?))
    }
}

/// Model that gives tissues their intensities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Appearance {
    /// The phantoms' scanner within clinical limits.
    Realistic,
    /// The phantoms' scanner, randomised beyond them.
    Wide,
    /// The phantoms' acquisitions of a clinic, with their artefacts.
    Scanner,
    /// Random intensities of every tissue.
    Random,
    /// Intensities and texture as measured in real heads.
    Textured,
    /// A model that no training uses.
    Unseen,
}

/// What the header of a series says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderContent {
    /// Everything that a hospital's header says about the image.
    #[default]
    Full,
    /// The attributes on the challenge's allow-list; no age, no sex.
    BareSlices,
    /// One multi-frame file with the attributes on the challenge's allow-list whose geometry, which
    /// was in the sequences, is lost; no age, no sex.
    BareFrames,
}

/// Whether the sites of lesions are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SiteKnowledge {
    /// They are.
    #[default]
    Known,
    /// They are not.
    Unknown,
}

/// Orientation of slices, by the axis that is nearest to their normal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScanPlane {
    /// Stacked from feet to head.
    Axial,
    /// Stacked from front to back.
    Coronal,
    /// Stacked from left to right.
    Sagittal,
}

impl ScanPlane {
    /// Orientation of the slices of a grid.
    pub fn of(grid: &Grid) -> Self {
        let m = grid.affine.0;
        // Normal of the plane that rows and columns span.
        let [x, y, z]: [f64; 3] = std::array::from_fn(|i| {
            let (j, k) = ((i + 1) % 3, (i + 2) % 3);
            (m[j][0] * m[k][1] - m[k][0] * m[j][1]).abs()
        });
        if z >= x && z >= y {
            Self::Axial
        } else if y >= x {
            Self::Coronal
        } else {
            Self::Sagittal
        }
    }

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Axial => "axial",
            Self::Coronal => "coronal",
            Self::Sagittal => "sagittal",
        }
    }
}

impl Appearance {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Realistic => "realistic",
            Self::Wide => "wide",
            Self::Scanner => "scanner",
            Self::Random => "random",
            Self::Textured => "textured",
            Self::Unseen => "unseen",
        }
    }
}

impl SeriesTruth {
    /// Version of the layout that this code writes.
    pub const SCHEMA: u32 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Affine, Shape, Spacing};

    #[test]
    fn planes_follow_the_normal_of_the_slices() {
        let grid = |rows: [[f64; 4]; 3]| Grid::new(Shape::new(2, 3, 4), Affine(rows));
        let coronal = grid([[0.4, 0.0, 0.0, 0.0], [0.0, 0.1, 3.0, 0.0], [0.0, -0.4, 0.2, 0.0]]);
        let sagittal = grid([[0.0, 0.0, 3.0, 0.0], [0.4, 0.0, 0.0, 0.0], [0.0, -0.4, 0.0, 0.0]]);
        let axial = Grid::new(
            Shape::new(2, 3, 4),
            Affine::axis_aligned(Spacing::new(5.0, 0.4, 0.4), Point::new(0.0, 0.0, 0.0)),
        );
        assert_eq!(
            [axial, coronal, sagittal].map(|g| ScanPlane::of(&g)),
            [ScanPlane::Axial, ScanPlane::Coronal, ScanPlane::Sagittal]
        );
    }

    #[test]
    fn points_of_a_guessed_grid_become_true_points() {
        let at = |mm: f64| Affine::axis_aligned(Spacing::isotropic(mm), Point::new(1.0, 2.0, 3.0));
        let shape = Shape::new(9, 9, 9);
        let scan = ScanTruth::new(Grid::new(shape, at(0.5)), Appearance::Unseen);
        let found = scan.from_assumed(&Grid::new(shape, at(1.0)), Point::new(5.0, 2.0, 3.0)).unwrap();
        assert!(found.distance_mm(Point::new(3.0, 2.0, 3.0)) < 1e-9);
    }

    #[test]
    fn truth_of_earlier_versions_is_read() {
        let text = r#"{"schema":1,"series":{"uid":"1","modality":null,"age_years":null,"sex":null},
            "lesions":[],"localizers":[]}"#;
        assert_eq!(serde_json::from_str::<SeriesTruth>(text).unwrap().scan, None);
    }
}
