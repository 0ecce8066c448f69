//! The arteries of one patient: the mean atlas with variants, calibres, tortuosity and deformation.

mod plan;
mod warp;

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use willis_core::Site;

use self::plan::{ArteryPlan, BRANCH_OF, PAIRED, UNPAIRED, WALLS};
pub(crate) use self::warp::{Warp, rotation_rows};
use crate::random::Draw;
use crate::vector::{Vec3, spline, vec3};

/// Distance between centreline points, mm.
const STEP_MM: f64 = 0.6;
/// Limits of every radius, mm.
pub(crate) const RADIUS_LIMITS_MM: [f64; 2] = [0.25, 3.6];

/// An artery of one patient.
#[derive(Debug, Clone)]
pub(crate) struct Artery {
    /// Name in the atlas, or `twig`.
    pub name: &'static str,
    /// Whether it is on the patient's left; false for the right and the midline.
    pub left: bool,
    /// Site; `None` for branches of the external carotid artery.
    pub site: Option<Site>,
    /// Centreline, patient LPS mm.
    pub points: Vec<Vec3>,
    /// Radius at each point, mm.
    pub radii: Vec<f64>,
}

/// A part of an arterial wall from which an aneurysm may grow.
#[derive(Debug, Clone)]
pub(crate) struct Wall {
    /// Site of the aneurysms.
    pub site: Site,
    /// Relative frequency among the walls of this site.
    pub weight: f64,
    /// Index of the artery.
    pub artery: usize,
    /// First and last centreline point where an aneurysm may grow.
    pub range: [usize; 2],
    /// Usual direction of the dome, patient LPS; zero if there is none.
    pub towards: Vec3,
}

/// The arteries of one patient.
#[derive(Debug, Clone)]
pub(crate) struct Atlas {
    /// Map from the mean head to the patient.
    pub warp: Warp,
    /// All arteries.
    pub arteries: Vec<Artery>,
    /// Walls from which aneurysms may grow.
    pub walls: Vec<Wall>,
}

/// Anatomical variants of one patient.
#[derive(Debug, Default)]
struct Variants {
    /// Radius factor by artery name and side (`true` for left); 0 removes the artery.
    calibre: HashMap<(&'static str, bool), f64>,
}

impl Variants {
    /// Draws the variants. Their frequencies approximate published autopsy and MRA series of the
    /// circle of Willis, in which a minority of patients has a complete, symmetric circle.
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let mut calibre = HashMap::new();
        for left in [false, true] {
            let mut set = |name, factor| {
                calibre.insert((name, left), factor);
            };
            match rng.weighted(&[0.55, 0.16, 0.17, 0.12]) {
                0 => set("pcom", rng.uniform(0.7, 1.35)),
                1 => set("pcom", rng.uniform(0.4, 0.7)),
                2 => set("pcom", 0.0),
                _ => {
                    // Fetal origin: the carotid artery supplies the posterior cerebral artery.
                    set("pcom", rng.uniform(1.45, 1.9));
                    set("p1", if rng.chance(0.25) { 0.0 } else { rng.uniform(0.35, 0.65) });
                }
            }
            for (name, absent) in
                [("choroidal", 0.35), ("ophthalmic", 0.15), ("sca", 0.05), ("aica", 0.3), ("pica", 0.25)]
            {
                set(name, if rng.chance(absent) { 0.0 } else { rng.log_normal(1.0, 0.15, 0.6, 1.4) });
            }
            // The M2 trunks share the flow of M1 by Murray's law.
            let share = rng.uniform(0.3, 0.7);
            set("m2_superior", (2.0 * share).cbrt());
            set("m2_inferior", (2.0 - 2.0 * share).cbrt());
            set("m2_middle", if rng.chance(0.3) { rng.uniform(0.7, 1.1) } else { 0.0 });
            for (name, absent) in
                [("frontopolar", 0.35), ("callosomarginal", 0.2), ("anterior_temporal", 0.25), ("m3_frontal", 0.15)]
            {
                set(name, if rng.chance(absent) { 0.0 } else { rng.log_normal(1.0, 0.15, 0.6, 1.4) });
            }
        }
        let weak_side = rng.chance(0.5);
        match rng.weighted(&[0.80, 0.14, 0.06]) {
            1 => drop(calibre.insert(("a1", weak_side), rng.uniform(0.35, 0.65))),
            2 => drop(calibre.insert(("a1", weak_side), 0.0)),
            _ => {}
        }
        match rng.weighted(&[0.45, 0.40, 0.15]) {
            1 => drop(calibre.insert(("vertebral", rng.chance(0.4)), rng.uniform(0.5, 0.8))),
            2 => drop(calibre.insert(("vertebral", rng.chance(0.4)), rng.uniform(0.3, 0.5))),
            _ => {}
        }
        calibre.insert(("acom", false), rng.uniform(0.65, 1.35));
        calibre.insert(("acom_second", false), if rng.chance(0.12) { rng.uniform(0.8, 1.3) } else { 0.0 });
        Self { calibre }
    }

    fn factor(&self, name: &'static str, left: bool) -> f64 {
        self.calibre.get(&(name, left)).copied().unwrap_or(1.0)
    }
}

impl Atlas {
    /// Draws the arteries of one patient.
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        let warp = Warp::draw(rng);
        let variants = Variants::draw(rng);
        let build = rng.log_normal(1.0, 0.08, 0.82, 1.22);
        let tortuosity = rng.log_normal(1.0, 0.5, 0.3, 3.0);
        let mut arteries = Vec::new();
        let sides = PAIRED.iter().flat_map(|p| [(p, true), (p, false)]);
        for (plan, left) in sides.chain(UNPAIRED.iter().map(|p| (p, false))) {
            let factor = variants.factor(plan.name, left);
            // Absent arteries are drawn too, so that a variant does not change the arteries after
            // it.
            let artery = grow(plan, left, factor * build, tortuosity, &warp, rng);
            if factor > 0.0 {
                arteries.push(artery);
            }
        }
        attach_branches(&mut arteries);
        add_twigs(&mut arteries, rng);
        let walls = walls(&arteries, &warp);
        Self { warp, arteries, walls }
    }

    /// Position, radius, and unit tangent of a centreline point.
    pub fn at(&self, artery: usize, point: usize) -> (Vec3, f64, Vec3) {
        let a = &self.arteries[artery];
        let last = a.points.len() - 1;
        let (before, after) = (point.saturating_sub(2), (point + 2).min(last));
        (a.points[point], a.radii[point], (a.points[after] - a.points[before]).unit())
    }

    #[cfg(test)]
    pub fn artery(&self, name: &str, left: bool) -> Option<&Artery> {
        self.arteries.iter().find(|a| a.name == name && a.left == left)
    }
}

/// Grows one artery: a spline plus waves that vanish at both ends, deformed by the warp, with
/// tapering radii.
fn grow(plan: &ArteryPlan, left: bool, factor: f64, tortuosity: f64, warp: &Warp, rng: &mut ChaCha8Rng) -> Artery {
    let side = if left { 1.0 } else { -1.0 };
    let control = bend(plan, side, tortuosity, rng);
    let curve = spline(&control, STEP_MM);
    let length: f64 = curve.windows(2).map(|w| (w[1] - w[0]).length()).sum();
    let waves: Vec<(Vec3, f64, f64)> = (0..3)
        .map(|k| {
            let cycles = length / rng.uniform(9.0, 28.0) / f64::from(k + 1);
            let amplitude = (plan.wander * tortuosity * length / f64::from(k + 1)).min(2.5);
            (rng.normal3() * amplitude * 0.5, cycles, rng.uniform(0.0, std::f64::consts::TAU))
        })
        .collect();
    let last = (curve.len() - 1).max(1) as f64;
    let points = curve.iter().enumerate().map(|(i, p)| {
        let t = i as f64 / last;
        let envelope = (std::f64::consts::PI * t).sin();
        let wander = waves.iter().fold(Vec3::default(), |sum, (direction, cycles, phase)| {
            sum + *direction * (envelope * (std::f64::consts::TAU * cycles * t + phase).sin())
        });
        warp.deform(*p + wander)
    });
    let calibre = factor * rng.log_normal(1.0, 0.08, 0.8, 1.25);
    let (ripple, phase) = (rng.uniform(0.01, 0.06), rng.uniform(0.0, 6.0));
    let radius = |i: usize| {
        let t = i as f64 / last;
        let taper = plan.radius_mm[0] + (plan.radius_mm[1] - plan.radius_mm[0]) * t;
        let uneven = 1.0 + ripple * (i as f64 * STEP_MM * 0.9 + phase).sin();
        (taper * calibre * uneven).clamp(RADIUS_LIMITS_MM[0], RADIUS_LIMITS_MM[1])
    };
    let (points, radii) = (points.collect::<Vec<_>>(), (0..curve.len()).map(radius).collect());
    Artery { name: plan.name, left, site: plan.territory.site(left), points, radii }
}

/// Displaces the inner control points of an artery, and those of the internal carotid artery most.
fn bend(plan: &ArteryPlan, side: f64, tortuosity: f64, rng: &mut ChaCha8Rng) -> Vec<Vec3> {
    let path: Vec<Vec3> = plan.path.iter().map(|p| vec3(p[0] * side, p[1], p[2])).collect();
    let siphon = plan.name.starts_with("ica");
    let moved = (0..path.len()).map(|i| {
        let shift = rng.normal3();
        if i == 0 || i + 1 == path.len() {
            return path[i];
        }
        let room = (path[i] - path[i - 1]).length().min((path[i + 1] - path[i]).length());
        let amount = if siphon { 0.24 } else { 0.12 } * tortuosity.clamp(0.6, 1.6);
        path[i] + shift * (amount * room).min(2.2)
    });
    moved.collect()
}

/// Moves the first millimetres of each branch, so that it starts on the centreline of its parent.
fn attach_branches(arteries: &mut [Artery]) {
    // Length over which the displacement decreases to zero, mm.
    const FADE_MM: f64 = 9.0;
    let midline = |name: &str| UNPAIRED.iter().any(|p| p.name == name);
    for (branch, parent) in BRANCH_OF {
        for left in [false, true] {
            let child = arteries.iter().position(|a| a.name == *branch && a.left == left);
            let parent = arteries.iter().position(|a| a.name == *parent && (a.left == left || midline(parent)));
            let (Some(child), Some(parent)) = (child, parent) else { continue };
            let start = arteries[child].points[0];
            let distance = |p: &Vec3| (*p - start).length();
            let nearest = arteries[parent].points.iter().copied().min_by(|a, b| distance(a).total_cmp(&distance(b)));
            let offset = nearest.unwrap_or(start) - start;
            let (mut run, mut before) = (0.0, start);
            for point in &mut arteries[child].points {
                run += (*point - before).length();
                before = *point;
                *point = *point + offset * (1.0 - run / FADE_MM).max(0.0).powi(2);
            }
        }
    }
}

/// Adds short, random distal branches. Their radii follow Murray's law: the cubes of the radii of
/// the children add up to the cube of the parent's radius.
fn add_twigs(arteries: &mut Vec<Artery>, rng: &mut ChaCha8Rng) {
    const PARENTS: [&str; 8] =
        ["m3_superior", "m3_inferior", "m3_frontal", "m3_temporal", "pericallosal", "p3", "m2_superior", "m2_inferior"];
    let mut twigs = Vec::new();
    for artery in arteries.iter().filter(|a| PARENTS.contains(&a.name)) {
        for _ in 0..rng.weighted(&[0.2, 0.3, 0.3, 0.2]) {
            let n = artery.points.len();
            let start = (n as f64 * rng.uniform(0.25, 0.9)) as usize;
            let share = rng.uniform(0.25, 0.6);
            let radius = (artery.radii[start] * f64::powf(share, 1.0 / 3.0)).max(RADIUS_LIMITS_MM[0]);
            let along = (artery.points[(start + 2).min(n - 1)] - artery.points[start.saturating_sub(2)]).unit();
            let mut heading = (along + rng.normal3().reject(along).unit() * rng.uniform(0.5, 1.2)).unit();
            let mut at = artery.points[start];
            let mut control = vec![at];
            for _ in 0..5 {
                at = at + heading * rng.uniform(3.0, 6.5);
                control.push(at);
                heading = (heading + rng.normal3() * 0.35).unit();
            }
            let points = spline(&control, STEP_MM);
            let last = (points.len() - 1) as f64;
            let radii =
                (0..points.len()).map(|i| (radius * (1.0 - 0.45 * i as f64 / last)).max(RADIUS_LIMITS_MM[0])).collect();
            twigs.push(Artery { name: "twig", left: artery.left, site: artery.site, points, radii });
        }
    }
    arteries.extend(twigs);
}

/// The walls of the arteries that this patient has.
fn walls(arteries: &[Artery], warp: &Warp) -> Vec<Wall> {
    let find = |name: &str, left: bool| arteries.iter().position(|a| a.name == name && a.left == left);
    let midline = |name: &str| UNPAIRED.iter().any(|p| p.name == name);
    let mut out = Vec::new();
    for plan in WALLS {
        for left in [false, true] {
            let Some(artery) = find(plan.artery, left && !midline(plan.artery)) else { continue };
            let Some(site) = plan.territory.site(left) else { continue };
            let last = (arteries[artery].points.len() - 1) as f64;
            let side = if left { 1.0 } else { -1.0 };
            out.push(Wall {
                site,
                weight: plan.weight,
                artery,
                range: plan.along.map(|t| (t * last).round() as usize),
                towards: warp.turn(vec3(plan.towards[0] * side, plan.towards[1], plan.towards[2])),
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    fn patients() -> impl Iterator<Item = Atlas> {
        (0..20).map(|seed| Atlas::draw(&mut stream(seed, "atlas")))
    }

    #[test]
    fn radii_are_within_their_limits() {
        for atlas in patients() {
            for artery in &atlas.arteries {
                assert_eq!(artery.points.len(), artery.radii.len());
                assert!(artery.radii.iter().all(|r| (RADIUS_LIMITS_MM[0]..=RADIUS_LIMITS_MM[1]).contains(r)));
            }
            let ica = atlas.artery("ica_infra", true).expect("always present");
            assert!((1.4..3.6).contains(&ica.radii[ica.radii.len() / 2]));
        }
    }

    #[test]
    fn arteries_are_connected_and_have_the_site_of_their_side() {
        for atlas in patients() {
            for left in [false, true] {
                let end =
                    |name: &str| *atlas.artery(name, left).expect("always present").points.last().expect("not empty");
                let m1 = atlas.artery("m1", left).expect("always present");
                assert!((end("ica_supra") - m1.points[0]).length() < 1e-9);
                for (branch, parent) in BRANCH_OF {
                    let Some(start) = atlas.artery(branch, left).map(|a| a.points[0]) else { continue };
                    let parent = atlas.artery(parent, left).or(atlas.artery(parent, false)).expect("always present");
                    assert!(parent.points.iter().any(|p| (*p - start).length() < 1e-6), "{branch}");
                }
                assert!(
                    (end("ica_infra") - atlas.artery("ica_supra", left).expect("present").points[0]).length() < 1e-9
                );
                let site = m1.site.expect("named");
                assert_eq!(site, if left { Site::LeftMca } else { Site::RightMca });
            }
            let x = |left| atlas.artery("m1", left).expect("always present").points[10].x;
            assert!(x(true) > x(false), "x increases to the left");
        }
    }

    #[test]
    fn every_site_has_an_artery_and_a_wall() {
        let all: Vec<Atlas> = patients().collect();
        for site in Site::ALL {
            assert!(all.iter().any(|a| a.arteries.iter().any(|v| v.site == Some(site))), "{site:?}");
            assert!(all.iter().any(|a| a.walls.iter().any(|w| w.site == site)), "{site:?}");
        }
    }
}
