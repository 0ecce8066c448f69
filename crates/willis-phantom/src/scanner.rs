//! The scanner: turns tissue and blood into stored values with contrast, blur, bias field, ghosts
//! and noise.

use rand_chacha::ChaCha8Rng;
use willis_core::Modality;

use crate::head::{TISSUE_COUNT, Tissue};
use crate::noise::NoiseField;
use crate::random::{Draw, counter_normal, splitmix64};
use crate::spec::Randomisation;

/// Tissue that is shown around the vessels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Background {
    /// The whole head.
    Head,
    /// Zero outside the cranial cavity, as after brain extraction.
    Stripped,
    /// Zero everywhere, as after thresholding.
    Zeroed,
    /// A smooth, uniform grey, as in a rendered vessel mask.
    Plain,
}

/// A scanner with the parameters of one acquisition.
#[derive(Debug, Clone)]
pub(crate) struct Scanner {
    modality: Modality,
    /// Tissue around the vessels.
    pub background: Background,
    /// Whether only vessels are rendered.
    pub only_vessels: bool,
    /// Brightness of each tissue, in the order of [`Tissue`].
    tissue: [f32; TISSUE_COUNT],
    /// Amplitude of the texture of tissue, relative to its brightness.
    texture: f32,
    /// Brightness of arterial blood.
    artery: f32,
    /// Brightness of venous blood.
    vein: f32,
    /// Fraction of the signal that is lost by slow flow in small arteries, 0 to 1.
    pub slow_flow_loss: f32,
    /// Excitation slabs of MRA: thickness in mm, fraction of the signal lost across a slab, phase.
    slab: [f32; 3],
    /// Weight of each neighbour in the blur along z, y, x.
    blur: [f32; 3],
    /// Standard deviation of the noise.
    noise_sd: f32,
    /// Weight of each neighbour in the blur of the noise, as in interpolated reconstructions.
    noise_blur: f32,
    /// Amplitude of the bias field.
    bias: f32,
    /// Brightness of the ghost relative to the image.
    ghost: f32,
    /// Brightness that becomes zero in an inverted image; `None` if it is not inverted.
    inverted_about: Option<f32>,
    /// Values below are stored as zero.
    threshold: f32,
    field: NoiseField,
    seed: u64,
}

/// Mean brightness of each tissue in the order of [`Tissue`]. CTA is in HU; MR is in arbitrary
/// units in which white matter in T1 has 300.
fn typical_tissue(modality: Modality) -> [f64; TISSUE_COUNT] {
    // air, skin, fat, muscle, bone, marrow, csf, grey, white, dura, enhancing
    match modality {
        Modality::Cta => [-1000.0, 40.0, -90.0, 58.0, 1050.0, 420.0, 6.0, 40.0, 31.0, 75.0, 85.0],
        Modality::Mra => [6.0, 130.0, 165.0, 95.0, 22.0, 60.0, 45.0, 122.0, 115.0, 95.0, 130.0],
        Modality::T1Post => [5.0, 260.0, 480.0, 190.0, 35.0, 260.0, 85.0, 245.0, 300.0, 330.0, 480.0],
        Modality::T2 => [4.0, 200.0, 360.0, 90.0, 25.0, 160.0, 640.0, 310.0, 220.0, 120.0, 430.0],
    }
}

impl Scanner {
    /// Draws the parameters from `rng`; `seed` determines the voxel noise.
    pub fn draw(modality: Modality, randomise: Randomisation, seed: u64, rng: &mut ChaCha8Rng) -> Self {
        let wide = randomise == Randomisation::Wide;
        let spread = if wide { 0.22 } else { 0.08 };
        let mut tissue = typical_tissue(modality).map(|v| (v * rng.log_normal(1.0, spread, 0.4, 2.2)) as f32);
        if modality == Modality::Cta {
            tissue[Tissue::Air as usize] = -1000.0;
        }
        let (artery, vein) = match modality {
            Modality::Cta => {
                let artery = rng.uniform(230.0, 520.0);
                (artery, 50.0 + (artery - 50.0) * rng.uniform(0.1, 0.9))
            }
            Modality::Mra => {
                let artery = rng.log_normal(480.0, 0.35, 240.0, 1000.0);
                (artery, rng.uniform(70.0, 190.0))
            }
            Modality::T1Post if rng.chance(0.3) => (rng.uniform(60.0, 220.0), rng.uniform(380.0, 560.0)),
            Modality::T1Post => (rng.uniform(430.0, 800.0), rng.uniform(400.0, 620.0)),
            Modality::T2 => (rng.uniform(25.0, 90.0), rng.uniform(40.0, 160.0)),
        };
        let contrast = (artery - f64::from(tissue[Tissue::White as usize])).abs();
        let noise = match modality {
            Modality::Cta => rng.uniform(6.0, 24.0),
            _ => f64::from(tissue[Tissue::White as usize]) * rng.uniform(0.02, 0.08),
        };
        let slab = match modality {
            Modality::Mra => [rng.uniform(18.0, 45.0), rng.uniform(0.05, 0.35), rng.uniform(0.0, 1.0)],
            _ => [1000.0, 0.0, 0.0],
        };
        let background = match rng.weighted(if wide { &[0.5, 0.14, 0.12, 0.24] } else { &[0.93, 0.05, 0.02, 0.0] }) {
            1 if modality != Modality::Cta => Background::Stripped,
            2 if modality == Modality::Mra => Background::Zeroed,
            3 => Background::Plain,
            _ => Background::Head,
        };
        let zeroed = background == Background::Zeroed;
        let plain = background == Background::Plain;
        let blur = [0, 1, 2].map(|_| rng.uniform(0.02, if wide { 0.28 } else { 0.17 }) as f32);
        let noise_factor = if wide { rng.uniform(0.2, 2.0) } else { 1.0 };
        let mr = modality != Modality::Cta;
        Self {
            modality,
            background,
            tissue,
            texture: rng.uniform(0.02, 0.08) as f32,
            artery: artery as f32,
            vein: if plain { tissue_of(&tissue, Tissue::Grey) } else { vein as f32 },
            slow_flow_loss: if modality == Modality::Mra {
                rng.uniform(0.05, 0.55) as f32
            } else {
                rng.uniform(0.0, 0.12) as f32
            },
            slab: slab.map(|v| v as f32),
            blur,
            noise_sd: (noise * noise_factor).min(contrast * 0.25) as f32,
            noise_blur: rng.uniform(0.0, 0.2) as f32,
            bias: if mr { rng.uniform(0.05, if wide { 0.4 } else { 0.25 }) as f32 } else { 0.0 },
            ghost: if mr && rng.chance(0.15) { rng.uniform(0.01, 0.05) as f32 } else { 0.0 },
            inverted_about: (wide && mr && rng.chance(0.06)).then_some(artery as f32),
            threshold: match background {
                Background::Zeroed => tissue_of(&tissue, Tissue::Grey) * rng.uniform(1.2, 2.0) as f32,
                Background::Stripped => 1.0,
                _ => f32::MIN,
            },
            only_vessels: plain || zeroed && rng.chance(0.5),
            field: NoiseField::new(rng),
            seed: splitmix64(seed),
        }
    }

    /// Slope and intercept that convert stored values to brightness (HU for CTA).
    pub fn rescale(&self) -> (f64, f64) {
        if self.modality == Modality::Cta { (1.0, -1024.0) } else { (1.0, 0.0) }
    }

    /// Whether calcified plaques are visible.
    pub fn shows_plaque(&self) -> bool {
        self.background == Background::Head && matches!(self.modality, Modality::Cta)
    }

    /// Brightness of tissue at `local`, mm from the centre of the grid.
    pub fn tissue(&self, tissue: Tissue, inside_skull: bool, local: [f32; 3]) -> f32 {
        match self.background {
            Background::Zeroed if self.only_vessels => 0.0,
            Background::Stripped if !inside_skull => 0.0,
            Background::Plain => {
                tissue_of(&self.tissue, Tissue::Grey) * (1.0 + 2.0 * self.texture * self.field.scaled(local, 30.0))
            }
            _ => {
                let base = tissue_of(&self.tissue, tissue);
                let grain = self.field.scaled(local, 3.1) + 0.6 * self.field.scaled(local, 11.0);
                let scale = if self.modality == Modality::Cta { base.abs().min(300.0) } else { base };
                base + scale * self.texture * grain
            }
        }
    }

    /// Brightness of arterial blood with a relative signal.
    pub fn artery(&self, signal: f32, local: [f32; 3]) -> f32 {
        let [thick, loss, phase] = self.slab;
        let depth = (local[2] / thick + phase).rem_euclid(1.0);
        let flow = signal * (1.0 - loss * depth);
        let uneven = 1.0 + 0.05 * self.field.scaled(local, 6.0);
        match self.modality {
            Modality::T2 => self.artery * (2.0 - flow) * uneven,
            _ => self.artery * flow * uneven,
        }
    }

    /// Brightness of a vein with a relative filling.
    pub fn vein(&self, filling: f32) -> f32 {
        match self.background {
            Background::Plain => self.vein,
            _ => self.vein * filling,
        }
    }

    /// Blurs a block of `[z, y, x]` voxels in place with three-point kernels, along z only if
    /// `across_slices`.
    pub fn blur(&self, block: &mut [f32], shape: [usize; 3], across_slices: bool) {
        smooth_rows(block, shape, self.blur[2]);
        smooth_columns(block, shape, self.blur[1]);
        if across_slices {
            smooth_slices(block, shape, self.blur[0]);
        }
    }

    /// Converts the brightness of slice `z` to stored values: ghost, bias field, inversion, noise,
    /// rounding.
    ///
    /// `row_position(y)` returns the first voxel of a row relative to the centre of the grid and
    /// the step along the row, mm.
    pub fn store(
        &self,
        slice: &[f32],
        z: usize,
        [rows, columns]: [usize; 2],
        row_position: impl Fn(usize) -> ([f32; 3], [f32; 3]),
    ) -> Vec<i16> {
        let offset = -self.rescale().1 as f32;
        let first = (z * rows * columns) as u64;
        let mut noise: Vec<f32> = (0..slice.len() as u64).map(|i| counter_normal(self.seed, first + i)).collect();
        smooth_rows(&mut noise, [1, rows, columns], self.noise_blur);
        let second = splitmix64(self.seed ^ 0x5a5a);
        let mut out = Vec::with_capacity(slice.len());
        for y in 0..rows {
            let (start, step) = row_position(y);
            for x in 0..columns {
                let i = y * columns + x;
                let mut value = slice[i];
                if self.ghost > 0.0 {
                    value += self.ghost * slice[(y + rows / 3) % rows * columns + x];
                }
                if self.bias > 0.0 {
                    let k = x as f32;
                    let at = [start[0] + step[0] * k, start[1] + step[1] * k, start[2] + step[2] * k];
                    value *= 1.0 + self.bias * self.field.scaled(at, 70.0);
                }
                if let Some(white) = self.inverted_about {
                    value = (white - value).max(0.0);
                }
                let empty = value < self.threshold;
                value = match self.modality {
                    _ if empty => 0.0,
                    Modality::Cta => value + self.noise_sd * noise[i],
                    // Rician noise: the magnitude of a complex signal.
                    _ => {
                        let quadrature = self.noise_sd * counter_normal(second, first + i as u64);
                        ((value + self.noise_sd * noise[i]).powi(2) + quadrature * quadrature).sqrt()
                    }
                };
                out.push((value + offset).round().clamp(0.0, 4095.0) as i16);
            }
        }
        out
    }
}

fn tissue_of(table: &[f32; TISSUE_COUNT], tissue: Tissue) -> f32 {
    table[tissue as usize]
}

/// Convolves with `[w, 1 - 2w, w]` along x in place; edge voxels are repeated.
fn smooth_rows(block: &mut [f32], shape: [usize; 3], w: f32) {
    for row in block.chunks_exact_mut(shape[2]) {
        let mut before = row[0];
        for x in 0..row.len() {
            let here = row[x];
            let after = row[(x + 1).min(row.len() - 1)];
            row[x] = here + w * (before - 2.0 * here + after);
            before = here;
        }
    }
}

/// Convolves with `[w, 1 - 2w, w]` along y in place.
fn smooth_columns(block: &mut [f32], [_, rows, columns]: [usize; 3], w: f32) {
    let mut before = vec![0.0; columns];
    for slice in block.chunks_exact_mut(rows * columns) {
        before.copy_from_slice(&slice[..columns]);
        for y in 0..rows {
            let next = (y + 1).min(rows - 1);
            for x in 0..columns {
                let here = slice[y * columns + x];
                let after = slice[next * columns + x];
                slice[y * columns + x] = here + w * (before[x] - 2.0 * here + after);
                before[x] = here;
            }
        }
    }
}

/// Convolves with `[w, 1 - 2w, w]` along z in place.
fn smooth_slices(block: &mut [f32], [slices, rows, columns]: [usize; 3], w: f32) {
    let plane = rows * columns;
    let mut before = block[..plane].to_vec();
    for z in 0..slices {
        let next = (z + 1).min(slices - 1) * plane;
        for i in 0..plane {
            let here = block[z * plane + i];
            let after = block[next + i];
            block[z * plane + i] = here + w * (before[i] - 2.0 * here + after);
            before[i] = here;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_preserves_the_sum_and_spreads_a_point() {
        let mut block = vec![0.0; 125];
        block[62] = 1.0;
        smooth_rows(&mut block, [5; 3], 0.2);
        smooth_columns(&mut block, [5; 3], 0.2);
        smooth_slices(&mut block, [5; 3], 0.2);
        assert!((block.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert!((block[62] - 0.216).abs() < 1e-6 && (block[61] - 0.2 * 0.36).abs() < 1e-6);
    }
}
