//! Veins and dural sinuses, which are often as bright as the arteries beside them.

use rand_chacha::ChaCha8Rng;

use crate::atlas::Warp;
use crate::random::Draw;
use crate::vector::{Vec3, spline, vec3};

/// A vein of one patient.
#[derive(Debug, Clone)]
pub(crate) struct Vein {
    /// Centreline, patient LPS mm.
    pub points: Vec<Vec3>,
    /// Radius along the whole vein, mm.
    pub radius_mm: f64,
    /// Contrast filling relative to the other veins, 0 to 1.
    pub filling: f64,
    /// Whether it is a strand of the cavernous sinus, which fills before or after the others.
    pub cavernous: bool,
}

/// Paired veins: radius in mm and path, in the coordinates of the arterial atlas.
const PAIRED: &[(f64, &[[f64; 3]])] = &[
    // Transverse and sigmoid sinus to the jugular bulb and vein.
    (
        3.6,
        &[
            [3.0, 96.0, -8.0],
            [28.0, 88.0, -10.0],
            [50.0, 66.0, -12.0],
            [57.0, 48.0, -18.0],
            [50.0, 38.0, -32.0],
            [36.0, 32.0, -44.0],
            [28.0, 26.0, -54.0],
            [29.0, 26.0, -75.0],
            [30.0, 26.0, -95.0],
        ],
    ),
    // Cavernous sinus, in two strands around the carotid.
    (2.6, &[[14.5, 3.0, -19.0], [15.0, -3.0, -17.0], [15.5, -9.0, -15.0], [15.0, -13.0, -12.5]]),
    (1.8, &[[8.5, 2.0, -17.0], [8.2, -4.0, -16.5], [8.8, -9.0, -14.5]]),
    // Petrosal sinuses.
    (1.3, &[[13.0, 7.0, -18.0], [26.0, 20.0, -14.0], [42.0, 32.0, -15.0], [52.0, 42.0, -18.0]]),
    (1.4, &[[11.0, 8.0, -20.0], [14.0, 15.0, -30.0], [22.0, 25.0, -42.0], [27.0, 28.0, -48.0]]),
    // Internal cerebral vein, basal vein of Rosenthal.
    (0.9, &[[2.5, -4.0, 19.0], [2.2, 8.0, 20.0], [2.0, 22.0, 20.0], [1.0, 34.0, 18.0]]),
    (
        0.8,
        &[
            [14.0, -1.0, 0.0],
            [16.5, 8.0, 0.5],
            [19.0, 20.0, 4.0],
            [16.0, 31.0, 10.0],
            [6.0, 37.0, 16.0],
            [1.0, 37.0, 18.0],
        ],
    ),
    // Superficial middle cerebral vein and sphenoparietal sinus.
    (
        1.2,
        &[
            [58.0, 18.0, 12.0],
            [54.0, 4.0, 8.0],
            [48.0, -8.0, 2.0],
            [40.0, -15.0, -4.0],
            [28.0, -17.0, -5.0],
            [17.0, -13.0, -11.0],
        ],
    ),
    // Pterygoid plexus and facial veins.
    (1.3, &[[38.0, -2.0, -44.0], [34.0, -10.0, -40.0], [30.0, -6.0, -48.0], [36.0, 6.0, -56.0]]),
    // Superior ophthalmic vein.
    (0.9, &[[15.0, -13.0, -12.0], [20.0, -22.0, -2.0], [24.0, -34.0, 2.0], [18.0, -46.0, 4.0]]),
];

/// Rows of [`PAIRED`] that are the cavernous sinus.
const CAVERNOUS: std::ops::Range<usize> = 1..3;

/// Sinuses of the midline: radius in mm and path.
const UNPAIRED: &[(f64, &[[f64; 3]])] = &[
    (
        3.2,
        &[
            [0.0, -58.0, 22.0],
            [0.0, -54.0, 48.0],
            [0.0, -30.0, 74.0],
            [0.0, 10.0, 90.0],
            [0.0, 55.0, 82.0],
            [0.0, 90.0, 48.0],
            [0.0, 104.0, 15.0],
            [0.0, 97.0, -8.0],
        ],
    ),
    (2.2, &[[0.0, 35.0, 18.0], [0.0, 45.0, 20.0], [0.0, 64.0, 10.0], [0.0, 97.0, -8.0]]),
    (1.0, &[[0.0, -20.0, 40.0], [0.0, 5.0, 56.0], [0.0, 35.0, 48.0], [0.0, 50.0, 24.0]]),
    // Clival plexus and intercavernous sinus.
    (1.2, &[[-9.0, 2.0, -17.0], [0.0, 5.0, -15.0], [9.0, 2.0, -17.0]]),
];

/// Draws the veins of one patient.
pub(crate) fn draw(warp: &Warp, rng: &mut ChaCha8Rng) -> Vec<Vein> {
    let mut veins = Vec::new();
    let dominant = if rng.chance(0.65) { -1.0 } else { 1.0 };
    for side in [-1.0, 1.0] {
        for (i, (radius, path)) in PAIRED.iter().enumerate() {
            let weak = i == 0 && side != dominant;
            let factor = if weak { rng.uniform(0.35, 0.9) } else { 1.0 } * rng.log_normal(1.0, 0.18, 0.6, 1.6);
            let path: Vec<Vec3> = path.iter().map(|p| vec3(p[0] * side, p[1], p[2])).collect();
            veins.push(Vein { cavernous: CAVERNOUS.contains(&i), ..vein(&path, radius * factor, warp, rng) });
        }
        for _ in 0..7 {
            veins.push(cortical(side, warp, rng));
        }
    }
    for (radius, path) in UNPAIRED {
        let path: Vec<Vec3> = path.iter().map(|p| vec3(p[0], p[1], p[2])).collect();
        veins.push(vein(&path, radius * rng.log_normal(1.0, 0.18, 0.6, 1.6), warp, rng));
    }
    veins
}

fn vein(path: &[Vec3], radius_mm: f64, warp: &Warp, rng: &mut ChaCha8Rng) -> Vein {
    let moved: Vec<Vec3> = path.iter().map(|p| *p + rng.normal3() * 1.0).collect();
    let points = spline(&moved, 1.0).into_iter().map(|p| warp.deform(p)).collect();
    Vein { points, radius_mm, filling: rng.uniform(0.6, 1.0), cavernous: false }
}

/// A cortical vein over the convexity that ends in the superior sagittal sinus.
fn cortical(side: f64, warp: &Warp, rng: &mut ChaCha8Rng) -> Vein {
    let turn = rng.uniform(0.5, 2.4);
    let drift = rng.uniform(-0.35, 0.35);
    let path: Vec<Vec3> = (0..7)
        .map(|i| {
            let t = f64::from(i) / 6.0;
            let around = turn + drift * (1.0 - t);
            let up = 0.25 + t * 1.25;
            let wobble = rng.normal3() * 1.5;
            let shell = vec3(
                64.0 * side * up.cos(),
                20.0 - 78.0 * around.cos() * (0.45 + 0.55 * up.cos()),
                14.0 + 70.0 * up.sin(),
            );
            shell + wobble
        })
        .collect();
    let radius = rng.uniform(0.6, 1.3);
    vein(&path, radius, warp, rng)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    #[test]
    fn veins_are_plausible() {
        let warp = Warp::draw(&mut stream(1, "warp"));
        let veins = draw(&warp, &mut stream(1, "veins"));
        assert!(veins.len() > 30);
        assert!(veins.iter().all(|v| v.points.len() > 5 && (0.3..7.0).contains(&v.radius_mm)));
    }
}
