//! Parts of the series and of the lesions that get figures of their own.

use willis_core::cohort::{Appearance, HeaderContent, ScanPlane, ScanTruth};
use willis_core::{Lesion, Modality, Site};

use super::figures::slug;
use super::series::EvaluatedSeries;

/// Whether a series belongs to a stratum.
type HasSeries = dyn Fn(&EvaluatedSeries) -> bool + Sync;
/// Whether a lesion of a series belongs to a stratum.
type HasLesion = dyn Fn(&EvaluatedSeries, &Lesion) -> bool + Sync;

/// What belongs to a stratum.
pub enum Member {
    /// Whole series.
    Series(Box<HasSeries>),
    /// Single lesions.
    Lesion(Box<HasLesion>),
}

/// A part of the series or the lesions.
pub struct Stratum {
    /// Identifier, a part of those of its figures.
    pub id: String,
    /// Words for people.
    pub name: String,
    /// What belongs to it.
    pub member: Member,
}

impl Stratum {
    fn of_series(name: impl Into<String>, is: impl Fn(&EvaluatedSeries) -> bool + Sync + 'static) -> Self {
        let name = name.into();
        Self { id: slug(&name), name, member: Member::Series(Box::new(is)) }
    }

    fn of_scans(name: impl Into<String>, is: impl Fn(&ScanTruth) -> bool + Sync + 'static) -> Self {
        Self::of_series(name, move |series| series.scan.as_ref().is_some_and(&is))
    }

    fn of_lesions(name: &str, is: impl Fn(&EvaluatedSeries, &Lesion) -> bool + Sync + 'static) -> Self {
        Self { id: slug(name), name: name.into(), member: Member::Lesion(Box::new(is)) }
    }

    /// Whether a series belongs to it; always, for a stratum of lesions.
    pub fn has(&self, series: &EvaluatedSeries) -> bool {
        match &self.member {
            Member::Series(is) => is(series),
            Member::Lesion(_) => true,
        }
    }

    /// Whether a lesion belongs to it.
    pub fn has_lesion(&self, series: &EvaluatedSeries, lesion: &Lesion) -> bool {
        match &self.member {
            Member::Series(is) => is(series),
            Member::Lesion(is) => is(series, lesion),
        }
    }
}

/// Bands of lesion diameter: name, least and upper diameter in mm.
const DIAMETERS_MM: [(&str, f64, f64); 3] =
    [("below 3 mm", 0.0, 3.0), ("3 to 7 mm", 3.0, 7.0), ("above 7 mm", 7.0, f64::INFINITY)];
/// Bands of slice distance: name, least and upper distance in mm.
const SLICES_MM: [(&str, f64, f64); 3] =
    [("slices up to 1 mm", 0.0, 1.0), ("slices of 1 to 2.5 mm", 1.0, 2.5), ("slices above 2.5 mm", 2.5, f64::INFINITY)];
/// Bands of pixel size: name, least and upper size in mm.
const PIXELS_MM: [(&str, f64, f64); 2] =
    [("pixels up to 0.5 mm", 0.0, 0.5), ("pixels above 0.5 mm", 0.5, f64::INFINITY)];

/// Names of groups of sites, and their sites.
const SITE_GROUPS: [(&str, &[Site]); 4] = [
    ("infraclinoid carotid", &[Site::LeftInfraclinoidIca, Site::RightInfraclinoidIca]),
    ("anterior circulation", &[Site::Acom, Site::LeftAca, Site::RightAca, Site::LeftMca, Site::RightMca]),
    ("posterior communicating", &[Site::LeftPcom, Site::RightPcom]),
    ("posterior circulation", &[Site::BasilarTip, Site::OtherPosterior]),
];

/// The strata that every data set has.
pub fn always() -> Vec<Stratum> {
    let sizes = DIAMETERS_MM.map(|(name, low, high)| {
        Stratum::of_lesions(name, move |_, lesion| lesion.diameter_mm.is_some_and(|d| d >= low && d < high))
    });
    let sites =
        Site::ALL.map(|site| Stratum::of_lesions(site.name(), move |series, lesion| series.is_at(lesion, site)));
    let modalities = Modality::ALL
        .map(|modality| Stratum::of_series(modality.name(), move |series| series.modality == Some(modality)));
    sizes.into_iter().chain(sites).chain(modalities).collect()
}

/// The strata that tell series of a synthetic data set apart, as far as these differ in them.
pub fn of_scans(all: &[EvaluatedSeries]) -> Vec<Stratum> {
    let groups = SITE_GROUPS.map(|(name, sites)| {
        Stratum::of_lesions(name, move |series, lesion| sites.iter().any(|site| series.is_at(lesion, *site)))
    });
    let planes = [ScanPlane::Axial, ScanPlane::Coronal, ScanPlane::Sagittal]
        .map(|plane| Stratum::of_scans(plane.name(), move |scan| scan.plane() == plane));
    let slices = SLICES_MM
        .map(|(name, low, high)| Stratum::of_scans(name, move |scan| (low..high).contains(&scan.grid.spacing().z)));
    let pixels = PIXELS_MM
        .map(|(name, low, high)| Stratum::of_scans(name, move |scan| (low..high).contains(&scan.grid.spacing().x)));
    let appearances = [Appearance::Realistic, Appearance::Wide, Appearance::Unseen].map(|appearance| {
        Stratum::of_scans(format!("{} appearance", appearance.name()), move |scan| scan.appearance == appearance)
    });
    let headers = [
        ("full header", HeaderContent::Full),
        ("bare slices", HeaderContent::BareSlices),
        ("bare frames", HeaderContent::BareFrames),
    ]
    .map(|(name, header)| Stratum::of_scans(name, move |scan| scan.header == header));
    let counts = [
        Stratum::of_lesions("a single lesion", |series, _| series.lesions.len() == 1),
        Stratum::of_lesions("several lesions", |series, _| series.lesions.len() > 1),
    ];
    let mut names: Vec<&String> = all.iter().filter_map(|series| series.scan.as_ref()?.part.as_ref()).collect();
    names.sort_unstable();
    names.dedup();
    let part = |name: &String| {
        let wanted = name.clone();
        Stratum::of_scans(format!("part {name}"), move |scan| scan.part.as_ref() == Some(&wanted))
    };
    let facets: [Vec<Stratum>; 8] = [
        groups.into(),
        planes.into(),
        slices.into(),
        pixels.into(),
        appearances.into(),
        headers.into(),
        counts.into(),
        names.into_iter().map(part).collect(),
    ];
    facets.into_iter().flat_map(|facet| told_apart(facet, all)).collect()
}

/// The strata of a facet that are not empty, if there is more than one.
fn told_apart(facet: Vec<Stratum>, all: &[EvaluatedSeries]) -> Vec<Stratum> {
    let is_used = |stratum: &Stratum| {
        all.iter().any(|series| match &stratum.member {
            Member::Series(is) => is(series),
            Member::Lesion(is) => series.lesions.iter().any(|lesion| is(series, lesion)),
        })
    };
    let used: Vec<Stratum> = facet.into_iter().filter(is_used).collect();
    if used.len() > 1 { used } else { Vec::new() }
}
