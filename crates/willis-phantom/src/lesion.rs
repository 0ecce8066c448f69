//! Saccular aneurysms: location, size, shape and truth.

use rand_chacha::ChaCha8Rng;
use willis_core::{Lesion, Site};

use crate::appearance::THROMBUS;
use crate::atlas::{Artery, Atlas, Wall};
use crate::mix::LesionChoice;
use crate::random::Draw;
use crate::vector::Vec3;

/// Number of aneurysms per site in the training set of the RSNA 2025 challenge, in the order of
/// [`Site::ALL`].
pub(crate) const SITE_COUNTS: [f64; 13] =
    [81.0, 101.0, 343.0, 287.0, 225.0, 304.0, 376.0, 47.0, 58.0, 89.0, 105.0, 114.0, 117.0];

/// Smallest and largest diameter drawn, mm.
pub(crate) const DIAMETER_LIMITS_MM: [f64; 2] = [2.0, 25.0];

/// The shape of one aneurysm: an ellipsoid with blebs, blended into its parent artery.
#[derive(Debug, Clone)]
pub(crate) struct SacShape {
    /// Truth about this aneurysm.
    pub truth: Lesion,
    /// Centre of the ellipsoid, LPS mm.
    centre: Vec3,
    /// Dome direction and two perpendicular directions, unit vectors.
    axes: [Vec3; 3],
    /// Semi-axes along `axes`, mm.
    half: [f64; 3],
    /// Centre and radius of each bleb, mm.
    blebs: Vec<(Vec3, f64)>,
    /// Undulation of the wall: amplitude in mm, wave vector in rad/mm, phase in rad.
    undulation: (f64, Vec3, f64),
    /// Width of the fillet between sac and artery, mm.
    pub fillet_mm: f64,
    /// Signal of the slow flow in the sac relative to the parent artery, 0 to 1.
    flow: f32,
    /// Flow that differs within the sac.
    inner: Option<SacFlow>,
}

/// Flow in a sac.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SacFlow {
    /// Signal relative to the parent artery.
    pub signal: f32,
    /// Part of the signal that is lost towards the dome.
    pub lost_at_dome: f32,
    /// Clot on the side of a direction, from this fraction of the sac's radius outwards.
    pub clot: Option<(Vec3, f64)>,
}

impl SacShape {
    /// Signed distance from `p` (LPS mm) to the surface, mm; negative inside. The distance to the
    /// ellipsoid is a first-order approximation.
    pub fn distance(&self, p: Vec3) -> f64 {
        let d = p - self.centre;
        let [a, b, c] = [0, 1, 2].map(|i| d.dot(self.axes[i]) / self.half[i]);
        let scaled = (a * a + b * b + c * c).sqrt();
        let slope = ((a / self.half[0]).powi(2) + (b / self.half[1]).powi(2) + (c / self.half[2]).powi(2)).sqrt();
        let body = if slope > 1e-9 { scaled * (scaled - 1.0) / slope } else { -self.half[1].min(self.half[2]) };
        let (amplitude, wave, phase) = self.undulation;
        let body = body + amplitude * (d.dot(wave) + phase).sin();
        self.blebs
            .iter()
            .fold(body, |near, (centre, radius)| smooth_min(near, (p - *centre).length() - radius, 0.35 * radius))
    }

    /// Signal at `p` (LPS mm) relative to the parent artery; [`THROMBUS`] in a clot.
    pub fn signal_at(&self, p: Vec3) -> f32 {
        let Some(inner) = &self.inner else { return self.flow };
        let d = p - self.centre;
        let radius = self.half.iter().fold(0.0f64, |m, h| m.max(*h));
        if inner.clot.is_some_and(|(side, from)| d.dot(side) > from * radius) {
            return THROMBUS;
        }
        let height = ((d.dot(self.axes[0]) / self.half[0] + 1.0) / 2.0).clamp(0.0, 1.0) as f32;
        inner.signal * (1.0 - inner.lost_at_dome * height)
    }

    /// Replaces the flow, which otherwise falls with the diameter.
    pub fn set_flow(&mut self, flow: SacFlow) {
        self.inner = Some(flow);
    }

    /// Adds a lobe as large as `size` times the sac on the side of a direction.
    pub fn add_lobe(&mut self, side: Vec3, size: f64) {
        let out = (side + self.axes[0] * 0.8).unit();
        let width = self.half[1].min(self.half[2]);
        self.blebs.push((self.centre + out * width, size * width));
    }

    /// Centre and radius of a ball that contains the sac and its fillet.
    pub fn bound(&self) -> (Vec3, f64) {
        let body = self.half.iter().fold(0.0f64, |m, h| m.max(*h));
        let far = self.blebs.iter().fold(body, |m, (c, r)| m.max((*c - self.centre).length() + r));
        (self.centre, far + 2.0 * self.fillet_mm)
    }
}

/// Polynomial smooth minimum with blending width `k`.
pub(crate) fn smooth_min(a: f64, b: f64, k: f64) -> f64 {
    let h = (k - (a - b).abs()).max(0.0) / k.max(1e-9);
    a.min(b) - 0.25 * h * h * k
}

/// Grows `count` aneurysms where `visible` returns true, or fewer if there is no room. The site is
/// drawn with the frequencies of [`SITE_COUNTS`] unless `choice` has others.
pub(crate) fn grow(
    atlas: &Atlas,
    count: usize,
    choice: &LesionChoice,
    visible: impl Fn(Vec3) -> bool,
    rng: &mut ChaCha8Rng,
) -> Vec<SacShape> {
    let site_weights = choice.sites.unwrap_or(SITE_COUNTS);
    let mut sacs: Vec<SacShape> = Vec::new();
    for _ in 0..count * 60 {
        if sacs.len() == count {
            break;
        }
        let site = Site::ALL[rng.weighted(&site_weights)];
        let seen = |w: &&Wall| w.site == site && visible(atlas.at(w.artery, w.range[1]).0);
        let walls: Vec<&Wall> = atlas.walls.iter().filter(seen).collect();
        if walls.is_empty() {
            continue;
        }
        let wall = walls[rng.weighted(&walls.iter().map(|w| w.weight).collect::<Vec<_>>())];
        let sac = grow_one(atlas, wall, choice, rng);
        let clear =
            sacs.iter().all(|other| (other.centre - sac.centre).length() > other.bound().1 + sac.bound().1 + 2.0);
        if visible(sac.truth.centre.into()) && clear {
            sacs.push(sac);
        }
    }
    sacs
}

/// Grows one aneurysm on one wall.
fn grow_one(atlas: &Atlas, wall: &Wall, choice: &LesionChoice, rng: &mut ChaCha8Rng) -> SacShape {
    let span = (wall.range[1] - wall.range[0]) as f64;
    let point = wall.range[0] + (span * rng.uniform(0.0, 1.0)).round() as usize;
    let (base, _, tangent) = atlas.at(wall.artery, point);
    let typical = wall.towards.length() > 0.1;
    let spread = if typical { 0.4 } else { 1.0 };
    let mut dome = (wall.towards + rng.normal3() * spread).unit();
    // On a side wall the dome is nearly perpendicular to the artery. At the end of an artery it may
    // point forward.
    let last = atlas.arteries[wall.artery].points.len() - 1;
    if point > 2 && point + 2 < last {
        dome = (dome.reject(tangent) + dome * 0.25).unit();
    }
    let surface = exit_distance(&atlas.arteries, base, dome);

    let parent = 2.0 * surface;
    let diameter = match choice.diameter_mm {
        None => rng.log_normal(5.2, 0.48, DIAMETER_LIMITS_MM[0], DIAMETER_LIMITS_MM[1]),
        Some([low, high]) => rng.uniform(low, high),
    };
    let diameter = diameter.min(8.0 * parent.max(1.0));
    // Ratios of height and of neck to the width.
    let aspect = rng.log_normal(1.05, 0.2, 0.65, 1.9);
    let neck_share = rng.uniform(0.42, 0.97);
    let (height, width) = if aspect > 1.0 { (diameter, diameter / aspect) } else { (diameter * aspect, diameter) };
    let neck_width = (neck_share * width).min(2.2 * parent.max(1.2)).max(0.9);
    // The wall cuts the ellipsoid where its cross-section is as wide as the neck.
    let cut = (1.0 - (neck_width / width).min(0.95).powi(2)).sqrt();
    let half_along = height / (1.0 + cut);
    let side = rng.uniform(0.82, 1.0);
    let (u, v) = dome.frame();
    let turn = rng.uniform(0.0, std::f64::consts::PI);
    let across = u * turn.cos() + v * turn.sin();
    let sunk = surface * 0.9;
    let centre = base + dome * (sunk + half_along * cut);
    let half = [half_along, width / 2.0, width / 2.0 * side];
    let axes = [dome, across, dome.cross(across)];
    let blebs = (0..rng.weighted(&[0.55, 0.28, 0.17]))
        .map(|_| {
            let out = (dome * 0.7 + rng.normal3()).unit();
            let reach = 1.0 / [0, 1, 2].map(|i| (out.dot(axes[i]) / half[i]).powi(2)).iter().sum::<f64>().sqrt();
            (centre + out * reach * 0.85, rng.uniform(0.22, 0.42) * width)
        })
        .collect();
    let neck = base + dome * surface;
    let undulation =
        (width * rng.uniform(0.0, 0.05), rng.normal3() * (3.5 / width), rng.uniform(0.0, std::f64::consts::TAU));
    let truth = Lesion {
        centre: (neck + dome * (height / 2.0)).into(),
        diameter_mm: Some(height.max(width)),
        site: wall.site,
        neck: Some(neck.into()),
        neck_width_mm: Some(neck_width),
    };
    let flow = (1.05 - 0.025 * diameter * rng.uniform(0.2, 1.8)).clamp(0.45, 1.0) as f32;
    SacShape {
        truth,
        centre,
        axes,
        half,
        blebs,
        undulation,
        fillet_mm: (0.12 * width).clamp(0.2, 0.8),
        flow,
        inner: None,
    }
}

/// Distance along a direction from a point inside the arteries to their common surface, mm; at most
/// 6 mm.
fn exit_distance(arteries: &[Artery], from: Vec3, direction: Vec3) -> f64 {
    let near: Vec<(Vec3, f64)> = arteries
        .iter()
        .flat_map(|a| a.points.iter().copied().zip(a.radii.iter().copied()))
        .filter(|(p, _)| (*p - from).length() < 9.0)
        .collect();
    let step = 0.1;
    (0..60)
        .map(|i| f64::from(i) * step)
        .find(|t| {
            let p = from + direction * *t;
            near.iter().all(|(centre, radius)| (p - *centre).length() > *radius)
        })
        .unwrap_or(6.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    fn sacs() -> Vec<SacShape> {
        (0..60)
            .flat_map(|seed| {
                let atlas = Atlas::draw(&mut stream(seed, "atlas"));
                grow(&atlas, 3, &LesionChoice::default(), |_| true, &mut stream(seed, "lesion"))
            })
            .collect()
    }

    #[test]
    fn smooth_min_blends_equal_values_and_keeps_distant_ones() {
        assert_eq!(smooth_min(1.0, 3.0, 0.5), 1.0);
        assert!((smooth_min(1.0, 1.0, 0.4) - 0.9).abs() < 1e-12);
    }

    #[test]
    fn sacs_contain_the_centre_of_their_lesion() {
        let sacs = sacs();
        assert!(sacs.len() > 150);
        for sac in &sacs {
            let d = sac.truth.diameter_mm.expect("every phantom lesion has a diameter");
            assert!((1.0..=25.0).contains(&d), "{d}");
            let centre = sac.truth.centre.into();
            assert!(sac.distance(centre) < 0.0);
            let (ball, radius) = sac.bound();
            assert!((ball - centre).length() < radius);
        }
        let mut sizes: Vec<f64> = sacs.iter().filter_map(|s| s.truth.diameter_mm).collect();
        sizes.sort_by(f64::total_cmp);
        assert!((3.5..6.0).contains(&sizes[sizes.len() / 2]), "median {}", sizes[sizes.len() / 2]);
    }

    #[test]
    fn chosen_sites_and_sizes_are_kept() {
        let tip = Site::ALL.map(|site| f64::from(u8::from(site == Site::BasilarTip || site == Site::LeftPcom)));
        let choice = LesionChoice { sites: Some(tip), diameter_mm: Some([1.5, 3.0]) };
        for seed in 0..20 {
            let atlas = Atlas::draw(&mut stream(seed, "atlas"));
            for sac in grow(&atlas, 2, &choice, |_| true, &mut stream(seed, "lesion")) {
                assert!([Site::BasilarTip, Site::LeftPcom].contains(&sac.truth.site));
                let diameter = sac.truth.diameter_mm.expect("every phantom lesion has a diameter");
                assert!((1.5..=3.0).contains(&diameter), "{diameter}");
            }
        }
    }

    #[test]
    fn every_site_occurs() {
        let sacs = sacs();
        let seen = Site::ALL.iter().filter(|s| sacs.iter().any(|sac| sac.truth.site == **s)).count();
        assert!(seen >= 12, "{seen} of 13");
    }
}
