//! The mean arterial atlas: control points, calibres and the walls from which aneurysms grow.
//!
//! Coordinates are `[lateral, posterior, superior]` in mm from the centre of the circle of Willis.
//! Lateral is positive on the vessel's own side, so one table serves both sides. Nothing here is
//! random.

use willis_core::Site;

/// Site of an artery without its side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Territory {
    InfraIca,
    SupraIca,
    Mca,
    Acom,
    Aca,
    Pcom,
    BasilarTip,
    Posterior,
    /// Arteries without a site: branches of the external carotid artery.
    Unnamed,
}

impl Territory {
    /// Site on one side; `None` for [`Self::Unnamed`].
    pub fn site(self, left: bool) -> Option<Site> {
        let right = match self {
            Territory::InfraIca => Site::RightInfraclinoidIca,
            Territory::SupraIca => Site::RightSupraclinoidIca,
            Territory::Mca => Site::RightMca,
            Territory::Acom => Site::Acom,
            Territory::Aca => Site::RightAca,
            Territory::Pcom => Site::RightPcom,
            Territory::BasilarTip => Site::BasilarTip,
            Territory::Posterior => Site::OtherPosterior,
            Territory::Unnamed => return None,
        };
        Some(if left { right.mirror() } else { right })
    }
}

/// An artery of the mean atlas.
pub(crate) struct ArteryPlan {
    /// Unique name.
    pub name: &'static str,
    /// Site without the side.
    pub territory: Territory,
    /// Radius at the start and the end, mm.
    pub radius_mm: [f64; 2],
    /// Amplitude of the tortuosity relative to the length.
    pub wander: f64,
    /// Control points, mm.
    pub path: &'static [[f64; 3]],
}

const fn artery(
    name: &'static str,
    territory: Territory,
    radius_mm: [f64; 2],
    wander: f64,
    path: &'static [[f64; 3]],
) -> ArteryPlan {
    ArteryPlan { name, territory, radius_mm, wander, path }
}

/// Arteries present on both sides.
pub(crate) const PAIRED: &[ArteryPlan] = &[
    artery(
        "ica_infra",
        Territory::InfraIca,
        [2.5, 2.1],
        0.006,
        &[
            [27.0, 24.0, -92.0],
            [26.0, 21.0, -74.0],
            [25.0, 20.0, -56.0],
            [25.0, 19.0, -44.0],
            [24.0, 17.0, -36.0],
            [19.5, 11.0, -32.0],
            [14.0, 6.0, -30.5],
            [11.5, 3.5, -27.0],
            [11.0, 2.0, -21.5],
            [11.2, -1.0, -17.0],
            [11.8, -7.0, -16.0],
            [12.2, -12.5, -13.5],
            [11.6, -13.5, -9.5],
            [11.0, -11.5, -6.5],
        ],
    ),
    artery(
        "ica_supra",
        Territory::SupraIca,
        [2.0, 1.75],
        0.01,
        &[[11.0, -11.5, -6.5], [10.9, -8.0, -4.8], [11.4, -5.0, -2.0], [12.5, -3.0, 1.0], [14.0, -2.0, 4.0]],
    ),
    artery(
        "m1",
        Territory::Mca,
        [1.5, 1.35],
        0.05,
        &[[14.0, -2.0, 4.0], [19.0, -3.5, 4.6], [24.5, -4.5, 3.6], [29.0, -4.0, 3.2], [32.5, -3.0, 4.2]],
    ),
    artery(
        "m2_superior",
        Territory::Mca,
        [1.07, 0.85],
        0.07,
        &[[32.5, -3.0, 4.2], [35.5, -3.0, 8.0], [36.5, 0.0, 14.0], [38.0, 5.0, 21.0], [39.0, 9.0, 28.0]],
    ),
    artery(
        "m3_superior",
        Territory::Mca,
        [0.8, 0.5],
        0.09,
        &[[39.0, 9.0, 28.0], [44.0, 10.0, 30.0], [51.0, 9.0, 27.0], [57.0, 11.0, 30.0], [60.0, 14.0, 40.0]],
    ),
    artery(
        "m3_frontal",
        Territory::Mca,
        [0.8, 0.45],
        0.09,
        &[[36.5, 0.0, 14.0], [38.0, -8.0, 18.0], [43.0, -15.0, 20.0], [50.0, -17.0, 21.0], [52.0, -18.0, 30.0]],
    ),
    artery(
        "m2_inferior",
        Territory::Mca,
        [1.07, 0.85],
        0.07,
        &[[32.5, -3.0, 4.2], [36.0, 0.0, 3.5], [38.0, 6.0, 6.0], [39.5, 14.0, 11.0], [41.0, 23.0, 16.0]],
    ),
    artery(
        "m2_middle",
        Territory::Mca,
        [0.9, 0.5],
        0.07,
        &[
            [32.5, -3.0, 4.2],
            [36.5, -1.5, 7.0],
            [38.5, 6.0, 11.0],
            [41.0, 13.0, 18.0],
            [48.0, 19.0, 25.0],
            [57.0, 22.0, 32.0],
        ],
    ),
    artery(
        "m3_inferior",
        Territory::Mca,
        [0.8, 0.5],
        0.09,
        &[[41.0, 23.0, 16.0], [45.0, 29.0, 19.0], [51.0, 33.0, 18.0], [56.0, 41.0, 21.0], [56.0, 50.0, 28.0]],
    ),
    artery(
        "m3_temporal",
        Territory::Mca,
        [0.75, 0.45],
        0.09,
        &[[38.0, 6.0, 6.0], [43.0, 10.0, 5.0], [50.0, 12.0, 2.0], [56.0, 18.0, 0.0], [57.0, 28.0, 2.0]],
    ),
    artery(
        "anterior_temporal",
        Territory::Mca,
        [0.65, 0.45],
        0.06,
        &[[24.5, -4.5, 3.6], [27.0, -9.0, 0.0], [31.0, -15.0, -4.0], [37.0, -19.0, -8.0], [44.0, -17.0, -12.0]],
    ),
    artery(
        "a1",
        Territory::Aca,
        [1.15, 1.05],
        0.07,
        &[[14.0, -2.0, 4.0], [10.0, -5.5, 5.8], [6.0, -9.5, 6.2], [1.9, -13.0, 7.2]],
    ),
    artery(
        "a2",
        Territory::Aca,
        [1.1, 0.95],
        0.06,
        &[[1.9, -13.0, 7.2], [1.7, -17.5, 10.0], [1.5, -22.0, 16.0], [1.6, -27.0, 24.0], [1.6, -26.0, 31.0]],
    ),
    artery(
        "pericallosal",
        Territory::Aca,
        [0.85, 0.5],
        0.05,
        &[
            [1.6, -26.0, 31.0],
            [1.6, -20.0, 37.5],
            [1.7, -9.0, 42.0],
            [1.8, 6.0, 45.0],
            [2.0, 22.0, 44.0],
            [2.0, 38.0, 44.0],
        ],
    ),
    artery(
        "callosomarginal",
        Territory::Aca,
        [0.75, 0.45],
        0.07,
        &[[1.6, -27.0, 24.0], [2.6, -35.0, 32.0], [3.0, -36.0, 44.0], [3.2, -28.0, 54.0], [3.5, -14.0, 60.0]],
    ),
    artery(
        "frontopolar",
        Territory::Aca,
        [0.55, 0.4],
        0.06,
        &[[1.6, -20.0, 13.0], [2.2, -29.0, 12.0], [3.0, -40.0, 14.0], [3.5, -50.0, 20.0]],
    ),
    artery(
        "pcom",
        Territory::Pcom,
        [0.7, 0.62],
        0.06,
        &[[11.9, -4.2, -0.6], [11.5, 0.5, -1.8], [10.0, 6.5, -1.6], [7.2, 13.0, 0.2]],
    ),
    artery(
        "choroidal",
        Territory::SupraIca,
        [0.45, 0.35],
        0.06,
        &[[12.9, -2.6, 2.0], [14.2, 2.0, 1.0], [15.5, 8.0, 2.0], [18.0, 15.0, 4.5]],
    ),
    artery(
        "ophthalmic",
        Territory::SupraIca,
        [0.6, 0.45],
        0.05,
        &[[10.95, -9.5, -5.6], [12.0, -15.0, -5.2], [16.0, -23.0, -5.5], [20.0, -31.0, -4.5], [16.0, -40.0, -2.0]],
    ),
    artery("p1", Territory::Posterior, [1.15, 1.1], 0.05, &[[0.0, 12.5, -1.5], [3.6, 12.0, -0.3], [7.2, 13.0, 0.2]]),
    artery(
        "p2",
        Territory::Posterior,
        [1.1, 0.9],
        0.04,
        &[[7.2, 13.0, 0.2], [12.0, 17.0, 0.5], [16.0, 24.0, 1.5], [17.0, 32.0, 3.0], [15.0, 40.0, 4.0]],
    ),
    artery(
        "p3",
        Territory::Posterior,
        [0.85, 0.5],
        0.07,
        &[[15.0, 40.0, 4.0], [11.0, 49.0, 5.0], [11.0, 59.0, 8.0], [12.0, 70.0, 9.0], [9.0, 82.0, 10.0]],
    ),
    artery(
        "p2_temporal",
        Territory::Posterior,
        [0.7, 0.45],
        0.06,
        &[[16.0, 24.0, 1.5], [22.0, 31.0, -1.5], [29.0, 41.0, -3.0], [36.0, 52.0, -2.0]],
    ),
    artery(
        "sca",
        Territory::Posterior,
        [0.75, 0.5],
        0.06,
        &[
            [0.0, 12.9, -4.2],
            [5.0, 13.5, -4.6],
            [11.0, 19.0, -5.5],
            [14.0, 28.0, -5.0],
            [11.0, 37.0, -1.0],
            [8.0, 48.0, 3.0],
        ],
    ),
    artery(
        "aica",
        Territory::Posterior,
        [0.55, 0.4],
        0.08,
        &[[0.0, 16.0, -27.0], [6.0, 17.0, -29.5], [14.0, 21.0, -31.0], [21.0, 27.0, -32.0], [25.0, 36.0, -36.0]],
    ),
    artery(
        "vertebral",
        Territory::Posterior,
        [1.75, 1.45],
        0.02,
        &[
            [17.0, 22.0, -100.0],
            [20.0, 24.0, -88.0],
            [25.0, 30.0, -80.0],
            [20.0, 38.0, -74.0],
            [13.0, 34.0, -66.0],
            [9.0, 28.0, -57.0],
            [5.0, 22.5, -48.0],
            [0.0, 19.5, -40.0],
        ],
    ),
    artery(
        "pica",
        Territory::Posterior,
        [0.65, 0.45],
        0.06,
        &[
            [9.6, 29.0, -58.6],
            [14.0, 34.0, -60.0],
            [14.0, 41.0, -63.0],
            [8.0, 46.0, -58.0],
            [6.0, 50.0, -48.0],
            [9.0, 58.0, -42.0],
        ],
    ),
    artery(
        "external_temporal",
        Territory::Unnamed,
        [1.1, 0.7],
        0.06,
        &[
            [38.0, 12.0, -92.0],
            [48.0, 14.0, -60.0],
            [66.0, 14.0, -34.0],
            [73.0, 10.0, -10.0],
            [74.0, 4.0, 20.0],
            [68.0, 2.0, 46.0],
        ],
    ),
    artery(
        "external_maxillary",
        Territory::Unnamed,
        [1.2, 0.8],
        0.08,
        &[[48.0, 14.0, -56.0], [42.0, 0.0, -48.0], [34.0, -14.0, -44.0], [26.0, -22.0, -40.0]],
    ),
    artery(
        "middle_meningeal",
        Territory::Unnamed,
        [0.6, 0.4],
        0.04,
        &[[40.0, -2.0, -46.0], [36.0, 0.0, -25.0], [46.0, -4.0, -24.0], [58.0, -4.0, -8.0], [63.0, -2.0, 14.0]],
    ),
];

/// Arteries of the midline.
pub(crate) const UNPAIRED: &[ArteryPlan] = &[
    artery(
        "basilar",
        Territory::Posterior,
        [1.7, 1.55],
        0.05,
        &[[0.0, 19.5, -40.0], [0.0, 17.0, -31.0], [0.0, 14.5, -20.0], [0.0, 13.2, -11.0], [0.0, 12.9, -6.5]],
    ),
    artery(
        "basilar_tip",
        Territory::BasilarTip,
        [1.55, 1.5],
        0.0,
        &[[0.0, 12.9, -6.5], [0.0, 12.8, -4.0], [0.0, 12.5, -1.5]],
    ),
    artery(
        "acom_second",
        Territory::Acom,
        [0.5, 0.5],
        0.0,
        &[[1.8, -15.0, 8.4], [0.0, -15.6, 8.8], [-1.8, -15.0, 8.4]],
    ),
    artery("acom", Territory::Acom, [0.75, 0.75], 0.0, &[[1.9, -13.0, 7.2], [0.0, -13.6, 7.4], [-1.9, -13.0, 7.2]]),
];

/// Each branch with the artery that it leaves along its course.
pub(crate) const BRANCH_OF: &[(&str, &str)] = &[
    ("ophthalmic", "ica_supra"),
    ("choroidal", "ica_supra"),
    ("pcom", "ica_supra"),
    ("anterior_temporal", "m1"),
    ("m3_frontal", "m2_superior"),
    ("m3_temporal", "m2_inferior"),
    ("frontopolar", "a2"),
    ("callosomarginal", "a2"),
    ("p2_temporal", "p2"),
    ("sca", "basilar_tip"),
    ("aica", "basilar"),
    ("pica", "vertebral"),
];

/// A part of an arterial wall of the mean atlas from which aneurysms grow.
pub(crate) struct WallPlan {
    /// Site without the side.
    pub territory: Territory,
    /// Relative frequency among the walls of its territory.
    pub weight: f64,
    /// Name of the artery.
    pub artery: &'static str,
    /// Start and end as fractions of the artery's length.
    pub along: [f64; 2],
    /// Usual direction of the dome, `[lateral, posterior, superior]`; zero if there is none.
    pub towards: [f64; 3],
}

const fn wall(territory: Territory, weight: f64, artery: &'static str, along: [f64; 2], towards: [f64; 3]) -> WallPlan {
    WallPlan { territory, weight, artery, along, towards }
}

/// Walls of typical aneurysms. The weights approximate published surgical series.
pub(crate) const WALLS: &[WallPlan] = &[
    wall(Territory::InfraIca, 0.75, "ica_infra", [0.76, 0.96], [0.5, -0.3, -0.2]),
    wall(Territory::InfraIca, 0.15, "ica_infra", [0.70, 0.98], [0.0; 3]),
    wall(Territory::InfraIca, 0.10, "ica_infra", [0.45, 0.70], [0.0; 3]),
    wall(Territory::SupraIca, 0.35, "ica_supra", [0.08, 0.25], [-0.2, -0.3, 1.0]),
    wall(Territory::SupraIca, 0.20, "ica_supra", [0.15, 0.40], [-1.0, 0.2, -0.3]),
    wall(Territory::SupraIca, 0.15, "ica_supra", [0.72, 0.88], [0.6, 0.8, 0.0]),
    wall(Territory::SupraIca, 0.22, "ica_supra", [1.0, 1.0], [0.0, 0.1, 1.0]),
    wall(Territory::SupraIca, 0.08, "ica_supra", [0.3, 0.7], [0.0; 3]),
    wall(Territory::Mca, 0.70, "m1", [1.0, 1.0], [1.0, -0.5, -0.2]),
    wall(Territory::Mca, 0.10, "m1", [0.40, 0.65], [0.0, -0.6, -0.8]),
    wall(Territory::Mca, 0.06, "m1", [0.2, 0.6], [0.0, 0.3, 1.0]),
    wall(Territory::Mca, 0.07, "m2_superior", [0.3, 1.0], [0.0; 3]),
    wall(Territory::Mca, 0.07, "m2_inferior", [0.3, 1.0], [0.0; 3]),
    wall(Territory::Acom, 1.0, "acom", [0.05, 0.95], [0.0, -0.8, 0.2]),
    wall(Territory::Aca, 0.60, "a2", [0.65, 1.0], [0.0, -0.8, 0.5]),
    wall(Territory::Aca, 0.30, "a1", [0.1, 0.7], [0.0, 0.5, 0.6]),
    wall(Territory::Aca, 0.10, "pericallosal", [0.1, 0.6], [0.0, 0.0, 1.0]),
    wall(Territory::Pcom, 0.92, "pcom", [0.0, 0.0], [0.5, 0.9, -0.5]),
    wall(Territory::Pcom, 0.08, "pcom", [0.5, 1.0], [0.0; 3]),
    wall(Territory::BasilarTip, 1.0, "basilar_tip", [1.0, 1.0], [0.0, -0.1, 1.0]),
    wall(Territory::Posterior, 0.18, "basilar_tip", [0.15, 0.4], [1.0, -0.2, 0.0]),
    wall(Territory::Posterior, 0.30, "vertebral", [0.70, 0.76], [-0.2, -0.5, 0.8]),
    wall(Territory::Posterior, 0.12, "vertebral", [0.62, 0.97], [0.0; 3]),
    wall(Territory::Posterior, 0.10, "basilar", [0.0, 0.15], [0.0, -1.0, 0.0]),
    wall(Territory::Posterior, 0.10, "basilar", [0.2, 0.9], [0.0; 3]),
    wall(Territory::Posterior, 0.12, "p1", [0.8, 1.0], [0.3, -0.5, 0.7]),
    wall(Territory::Posterior, 0.05, "p2", [0.2, 1.0], [0.0; 3]),
    wall(Territory::Posterior, 0.03, "aica", [0.05, 0.4], [0.0; 3]),
];
