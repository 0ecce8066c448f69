//! The tissue at each position of the mean head, without vessels.
//!
//! Anatomy is built from ellipsoids, planes and noise; distances are approximately millimetres.
//! Coordinates are those of the mean head, LPS mm from the centre of the circle of Willis.

use rand_chacha::ChaCha8Rng;

use crate::mix::LookAlikes;
use crate::noise::NoiseField;
use crate::random::Draw;

/// A tissue; the scanner assigns its brightness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tissue {
    Air,
    Skin,
    Fat,
    Muscle,
    Bone,
    Marrow,
    Csf,
    Grey,
    White,
    Dura,
    /// Pituitary, choroid plexus, mucosa and tumours, which enhance after contrast agent.
    Enhancing,
}

/// Number of tissues.
pub(crate) const TISSUE_COUNT: usize = Tissue::Enhancing as usize + 1;

/// An enhancing tumour, an irregular ellipsoid.
#[derive(Debug, Clone, Copy)]
struct Tumour {
    centre: [f32; 3],
    /// Semi-axes, mm.
    half: [f32; 3],
}

impl Tumour {
    /// Draws a meningioma or schwannoma at the skull base, where aneurysms also occur, or a
    /// metastasis anywhere in the brain.
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let radius = rng.log_normal(5.5, 0.5, 2.0, 14.0);
        let half = [0; 3].map(|_| (radius * rng.uniform(0.65, 1.3)) as f32);
        let centre = if rng.chance(0.6) {
            let [x, y] = [rng.uniform(-38.0, 38.0), rng.uniform(-14.0, 38.0)].map(|v| v as f32);
            [x, y, base_height(x.abs(), y) + 0.7 * half[2]]
        } else {
            [rng.uniform(-50.0, 50.0), rng.uniform(-40.0, 70.0), rng.uniform(-28.0, 45.0)].map(|v| v as f32)
        };
        Self { centre, half }
    }
}

/// The head of one patient.
#[derive(Debug, Clone)]
pub(crate) struct HeadAnatomy {
    noise: NoiseField,
    scalp_mm: f32,
    skull_mm: f32,
    /// Size of the sphenoid sinus relative to the mean.
    sinus_air: f32,
    /// Brain atrophy, 0 to 1.
    atrophy: f32,
    tumours: Vec<Tumour>,
}

/// Approximate distance to an ellipsoid's surface, mm; negative inside.
fn ellipsoid(p: [f32; 3], centre: [f32; 3], half: [f32; 3]) -> f32 {
    let q: [f32; 3] = std::array::from_fn(|i| (p[i] - centre[i]) / half[i]);
    let r = (q[0] * q[0] + q[1] * q[1] + q[2] * q[2]).sqrt();
    (r - 1.0) * half[0].min(half[1]).min(half[2])
}

/// Smoothstep: 0 below `low`, 1 above `high`.
fn ramp(v: f32, low: f32, high: f32) -> f32 {
    let t = ((v - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Height of the skull base, mm; `lateral` is the distance from the midline.
fn base_height(lateral: f32, y: f32) -> f32 {
    let anterior = -7.0 + 9.0 * ramp(lateral, 6.0, 22.0);
    let sella = -10.5 + 5.0 * ramp(y, 4.0, 7.5);
    let ridge = y - 12.0 - 0.4 * lateral;
    let middle = sella + (-24.0 - sella) * ramp(lateral, 7.5, 11.5);
    let middle = middle.max(-11.0 - 1.1 * (ridge.abs() - 2.0).max(0.0) - 4.0 * ramp(lateral, 40.0, 60.0));
    let front = middle + (anterior - middle) * ramp(-y, 9.0, 16.0);
    let steep = if lateral < 14.0 { 1.8 } else { 2.4 };
    let behind = (front.min(-7.0) - steep * ridge.max(0.0)).max(-56.0);
    if ridge > 0.0 { behind } else { front }
}

impl HeadAnatomy {
    /// Draws the head of one patient.
    pub fn draw(look_alikes: LookAlikes, rng: &mut ChaCha8Rng) -> Self {
        let affected = match look_alikes {
            LookAlikes::Usual => 0.25,
            LookAlikes::Many => 0.7,
        };
        let tumours = if rng.chance(affected) { 1 + usize::from(rng.chance(0.2)) } else { 0 };
        let tumours = (0..tumours).map(|_| Tumour::draw(rng)).collect();
        Self {
            noise: NoiseField::new(rng),
            scalp_mm: rng.uniform(4.0, 8.0) as f32,
            skull_mm: rng.uniform(4.5, 8.0) as f32,
            sinus_air: rng.uniform(0.6, 1.15) as f32,
            atrophy: rng.uniform(0.0, 1.0) as f32,
            tumours,
        }
    }

    /// Width of the fluid around an artery at a position, mm: uneven, and zero where the artery lies
    /// on brain.
    pub fn cistern_width(&self, p: [f32; 3]) -> f32 {
        (0.9 + 1.9 * self.noise.scaled(p, 9.0)).max(0.0)
    }

    /// Tissue at a position `near_artery_mm` from the nearest arterial wall, and whether the
    /// position is inside the cranial cavity.
    pub fn tissue(&self, p: [f32; 3], near_artery_mm: f32) -> (Tissue, bool) {
        let wave = self.noise.scaled(p, 24.0);
        let other = self.noise.scaled([p[1] + 300.0, p[2], p[0]], 24.0);
        let [x, y, z] = [p[0] + 2.5 * wave, p[1] + 3.0 * other, p[2] - 2.0 * wave + 1.5 * other];
        let p = [x, y, z];
        let lateral = x.abs();
        let cranium = ellipsoid(p, [0.0, 20.0, 10.0], [78.0, 99.0, 94.0]);
        let face = ellipsoid(p, [0.0, -18.0, -52.0], [60.0, 72.0, 84.0]);
        let neck =
            if z < -20.0 { ((x / 60.0).powi(2) + ((y - 32.0) / 62.0).powi(2)).sqrt() * 60.0 - 60.0 } else { 99.0 };
        let outer = cranium.min(face).min(neck) + 1.5 * wave;
        if outer > 0.0 {
            return (Tissue::Air, false);
        }
        let base = base_height(lateral, y) + 1.2 * wave;
        let inner = cranium + 1.5 * wave + self.scalp_mm + self.skull_mm;
        let depth = (-inner).min((z - base) * 0.9);
        if depth > 0.0 {
            return (self.brain(p, depth, near_artery_mm), true);
        }
        let fine = self.noise.scaled(p, 5.0);
        if cranium + 1.5 * wave + self.scalp_mm > 0.0 && z > base - 4.0 || outer > -2.0 {
            return (self.scalp(-outer, fine), false);
        }
        if z > base {
            // The cranial vault: two tables of bone with marrow between them.
            let within = inner / self.skull_mm;
            let marrow = (0.3..0.68).contains(&within) && fine > -0.3;
            return (if marrow { Tissue::Marrow } else { Tissue::Bone }, false);
        }
        (self.below_base(p, base - z, -outer, fine), false)
    }

    fn scalp(&self, depth: f32, fine: f32) -> Tissue {
        match depth {
            d if d < 1.8 => Tissue::Skin,
            d if d + fine < self.scalp_mm * 0.75 => Tissue::Fat,
            _ => Tissue::Muscle,
        }
    }

    /// Skull base, orbits, air cavities, face and neck, `under` mm below the upper surface of the
    /// skull base.
    fn below_base(&self, p: [f32; 3], under: f32, outer_depth: f32, fine: f32) -> Tissue {
        let [x, y, z] = p;
        let lateral = x.abs();
        let mirrored = [lateral, y, z];
        let air = self.sinus_air;
        let sphenoid = ellipsoid(p, [0.0, -11.0, -22.0], [13.0 * air, 13.0 * air, 8.5 * air]) + 1.5 * fine;
        if sphenoid < 0.0 && lateral > 0.7 {
            return if sphenoid > -1.0 { Tissue::Enhancing } else { Tissue::Air };
        }
        let maxillary = ellipsoid(mirrored, [27.0, -44.0, -42.0], [12.0, 15.0, 16.0]) + 1.5 * fine;
        let nasal = ellipsoid(mirrored, [6.0, -48.0, -38.0], [7.0, 34.0, 22.0]) + 4.0 * fine;
        let ethmoid = ellipsoid(mirrored, [7.0, -42.0, -14.0], [9.0, 20.0, 9.0]) + 4.0 * fine;
        let pharynx = ellipsoid(p, [0.0, -2.0, -58.0], [13.0, 9.0, 26.0]);
        let cavity = maxillary.min(nasal).min(ethmoid).min(pharynx);
        if cavity < -1.2 {
            return Tissue::Air;
        }
        if cavity < 0.4 {
            return Tissue::Enhancing;
        }
        let mastoid = ellipsoid(mirrored, [50.0, 40.0, -32.0], [12.0, 15.0, 17.0]);
        if mastoid < 0.0 {
            return if fine > 0.05 { Tissue::Air } else { Tissue::Bone };
        }
        let orbit = ellipsoid(mirrored, [30.0, -44.0, -9.0], [17.0, 26.0, 16.0]);
        if orbit < 0.0 {
            let globe = ellipsoid(mirrored, [31.0, -58.0, -9.0], [12.0, 12.0, 12.0]);
            let cone = (((lateral - 24.0 + 0.3 * (y + 44.0)).powi(2) + (z + 9.0).powi(2)).sqrt() - 8.0).abs();
            return if globe < 0.0 {
                Tissue::Csf
            } else if cone < 1.6 {
                Tissue::Muscle
            } else {
                Tissue::Fat
            };
        }
        if orbit < 2.0 {
            return Tissue::Bone;
        }
        let petrous = y > 4.0 && y - 12.0 - 0.4 * lateral < 12.0 && lateral < 62.0;
        let thickness = if lateral < 13.0 && y > -4.0 {
            14.0
        } else if petrous {
            15.0
        } else {
            3.5 + 2.0 * fine
        };
        if under < thickness {
            let spongy = under > 1.5 && under < thickness - 1.5 && lateral < 16.0;
            return if spongy { Tissue::Marrow } else { Tissue::Bone };
        }
        let canal = ((x / 10.0).powi(2) + ((y - 33.0) / 10.0).powi(2)).sqrt();
        if canal < 1.0 {
            return if canal < 0.62 { Tissue::White } else { Tissue::Csf };
        }
        if canal < 1.5 + 0.3 * fine || ellipsoid(p, [0.0, 16.0, -80.0], [12.0, 8.0, 30.0]) < 0.0 {
            return if canal < 1.3 { Tissue::Bone } else { Tissue::Marrow };
        }
        let streak = self.noise.scaled([x, y, z * 0.5], 9.0) + 0.35 * fine;
        if outer_depth < 4.0 + 3.0 * fine || streak > 0.42 {
            Tissue::Fat
        } else if streak < -0.62 && y < 0.0 {
            Tissue::Bone
        } else if streak < -0.55 {
            Tissue::Enhancing
        } else {
            Tissue::Muscle
        }
    }

    /// Tissue inside the cranial cavity, `depth` mm from its inner surface.
    fn brain(&self, p: [f32; 3], depth: f32, near_artery_mm: f32) -> Tissue {
        let [x, y, z] = p;
        let lateral = x.abs();
        let mirrored = [lateral, y, z];
        if depth < 0.8 {
            return Tissue::Dura;
        }
        let fold = 0.75 * self.noise.scaled(p, 9.0) + 0.3 * self.noise.scaled([z, x, y], 4.5);
        let uneven = 1.0 + 0.25 * fold;
        let in_tumour = |t: &Tumour| ellipsoid(p, t.centre, t.half.map(|h| h * uneven)) < 0.0;
        if self.tumours.iter().any(in_tumour) {
            return Tissue::Enhancing;
        }
        // Anterior clinoid process; then the pituitary in the sella.
        if ellipsoid(mirrored, [13.5, -12.0, -4.5], [3.0, 5.0, 2.2]) < 0.0 {
            return Tissue::Bone;
        }
        if ellipsoid(p, [0.0, -2.0, -8.5], [7.0, 4.5, 3.0]) < 0.0 {
            return Tissue::Enhancing;
        }
        if ellipsoid(mirrored, [12.0, -4.0, -16.0], [5.0, 12.0, 6.0]) < 0.0 {
            // The cavernous sinus, venous tissue around the carotid artery.
            return Tissue::Dura;
        }
        let cistern = ellipsoid(p, [0.0, 0.0, -1.0], [15.0, 13.0, 8.0]);
        let prepontine = lateral < 14.0 && y < 17.0 + 0.3 * (-z).max(0.0) && z < 0.0 && y > 2.0;
        if depth < 2.0 + 1.2 * self.atrophy
            || near_artery_mm < 1.6 + 1.5 * (fold + 0.4)
            || cistern + 2.5 * fold < 0.0
            || prepontine
        {
            return Tissue::Csf;
        }
        let posterior = y > 16.0 && z < 2.0 + 0.28 * (y - 30.0).max(0.0) && z < 20.0;
        if posterior {
            return self.posterior_fossa(p, fold);
        }
        if lateral < 0.9 && depth < 34.0 {
            return Tissue::Dura;
        }
        if lateral < 2.2 && (z > 42.0 || !(-24.0..=48.0).contains(&y)) {
            return Tissue::Csf;
        }
        if let Some(tissue) = self.deep(p, mirrored) {
            return tissue;
        }
        let sheet = fold.abs() - 0.05 * self.atrophy;
        let fine = self.noise.scaled(p, 4.0);
        match depth {
            d if d < 17.0 && sheet < 0.09 - 0.003 * d => Tissue::Csf,
            d if d < 5.5 + fine || d < 24.0 && sheet + 0.08 * fine < 0.34 => Tissue::Grey,
            _ => Tissue::White,
        }
    }

    /// Ventricles, deep grey nuclei and pineal gland; `None` elsewhere.
    fn deep(&self, p: [f32; 3], mirrored: [f32; 3]) -> Option<Tissue> {
        let [lateral, y, z] = mirrored;
        let roomy = 1.0 + 0.6 * self.atrophy;
        let arch = z - (27.0 - 0.006 * (y - 6.0).powi(2));
        let ventricle = ((lateral - 8.0 - 0.0022 * (y - 2.0).powi(2)).powi(2) + arch * arch).sqrt() - 4.0 * roomy;
        if ventricle < 0.0 && (-24.0..46.0).contains(&y) {
            let plexus = y > 18.0 && ventricle > -2.2 * roomy && arch < -0.5;
            return Some(if plexus { Tissue::Enhancing } else { Tissue::Csf });
        }
        if lateral < 1.6 * roomy && (2.0..26.0).contains(&y) && (2.0..21.0).contains(&z) {
            return Some(Tissue::Csf);
        }
        let thalamus = ellipsoid(mirrored, [11.0, 16.0, 14.0], [9.0, 13.0, 9.0]);
        let lentiform = ellipsoid(mirrored, [23.0, 0.0, 12.0], [7.0, 17.0, 10.0]);
        let caudate = ellipsoid(mirrored, [12.0, -10.0, 18.0], [5.0, 12.0, 8.0]);
        if thalamus.min(lentiform).min(caudate) < 0.0 {
            return Some(Tissue::Grey);
        }
        let pineal = ellipsoid(p, [0.0, 33.0, 12.0], [3.0, 4.0, 3.0]);
        (pineal < 0.0).then_some(Tissue::Enhancing)
    }

    /// Brain stem, fourth ventricle and cerebellum.
    fn posterior_fossa(&self, p: [f32; 3], fold: f32) -> Tissue {
        let [x, y, z] = p;
        let slope = y - 27.0 + 0.12 * z;
        let stem = ((x / 15.0).powi(2) + (slope / 11.5).powi(2)).sqrt() + 0.05 * fold;
        if stem < 1.0 {
            return Tissue::White;
        }
        if stem < 1.22 && (slope < 6.0 || z > -14.0) {
            return Tissue::Csf;
        }
        if ellipsoid(p, [0.0, 42.0, -24.0], [7.0, 5.0, 10.0]) < 0.0 {
            return Tissue::Csf;
        }
        // The folia of the cerebellum are nearly parallel sheets.
        let folia = self.noise.scaled([x * 0.3 + 90.0, y * 0.7 - 0.8 * z, z + 0.5 * y], 3.6);
        match folia {
            f if f < -0.55 => Tissue::Csf,
            f if f < 0.25 => Tissue::Grey,
            _ => Tissue::White,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    #[test]
    fn landmarks_have_the_expected_tissue() {
        for seed in 0..5 {
            let head =
                HeadAnatomy { tumours: Vec::new(), ..HeadAnatomy::draw(LookAlikes::Usual, &mut stream(seed, "head")) };
            let at = |x, y, z| head.tissue([x, y, z], 50.0);
            assert_eq!(at(0.0, 20.0, 140.0), (Tissue::Air, false));
            assert_eq!(at(0.0, 27.0, -20.0), (Tissue::White, true));
            assert_eq!(at(3.0, -11.0, -22.0).0, Tissue::Air, "sphenoid sinus");
            assert!(at(30.0, 30.0, 40.0).1, "hemisphere");
            assert!(!at(0.0, 20.0, -110.0).1, "neck");
        }
    }
}
