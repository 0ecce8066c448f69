//! A head as one acquisition shows it: brightness of every position before blur and noise.

use std::sync::Arc;

use willis_core::{Grid, Modality};

use super::acquire::{Acquisition, Streak};
use super::contrast::{Flow, TissueContrast};
use super::{AppearanceModel, ScannerConfig, blood, metal, random, textured};
use crate::anatomy::{AnatomyLibrary, Head, HeadSample};
use crate::atlas::Atlas;
use crate::head::Tissue;
use crate::mix::LookAlikes;
use crate::noise::NoiseField;
use crate::random::{Draw, stream};
use crate::render::Capsule;

/// Excitation slabs of MRA.
#[derive(Debug, Clone, Copy)]
struct Slabs {
    thickness_mm: f32,
    /// Fraction of the blood's signal that is lost across a slab.
    loss: f32,
    /// Fraction of all signal that is lost between two slabs.
    blind: f32,
    phase: f32,
}

/// What remains of the head in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Everything,
    /// As after brain extraction.
    Cranium,
}

/// The parts of a scan.
pub(crate) struct ScanInput<'a> {
    /// The model.
    pub model: &'a AppearanceModel,
    /// Modality.
    pub modality: Modality,
    /// How often look-alikes occur.
    pub look_alikes: LookAlikes,
    /// Heads of real people.
    pub library: Option<&'a Arc<AnatomyLibrary>>,
    /// Arteries of the patient.
    pub atlas: &'a Atlas,
    /// The scanner's grid.
    pub grid: Grid,
    /// Seed of everything that is drawn here.
    pub seed: u64,
}

/// A head in one acquisition.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    modality: Modality,
    head: Head,
    contrast: TissueContrast,
    /// Feature size in mm and amplitude relative to the brightness of each layer of texture.
    texture: [(f32, f32); 4],
    /// Signal that pulsating fluid loses, 0 to 1.
    pulsation: f32,
    /// Signal that is lost beside the sphenoid sinus, 0 to 1.
    susceptibility: f32,
    slabs: Option<Slabs>,
    /// Bands of beam hardening behind the skull base, HU.
    hardening: f32,
    kept: Kept,
    arteries: Vec<Capsule>,
    metal: Vec<Capsule>,
    /// What happens to the whole volume.
    pub acquisition: Acquisition,
    field: NoiseField,
}

impl Scan {
    /// Draws the acquisition of a patient.
    pub fn draw(input: &ScanInput<'_>) -> Self {
        let (seed, modality) = (input.seed, input.modality);
        let mut rng = stream(seed, "scan");
        let usual = ScannerConfig::default();
        let contrast = match input.model {
            AppearanceModel::Plain | AppearanceModel::Scanner(_) => TissueContrast::draw(modality, &mut rng),
            AppearanceModel::Random(config) => random::draw(modality, config, &mut rng),
            AppearanceModel::Textured(_) => textured::draw(modality, &mut rng),
        };
        let artefacts = match input.model {
            AppearanceModel::Scanner(config) => config.artefacts,
            _ => usual.artefacts,
        };
        let mr = modality != Modality::Cta;
        let texture = texture(input.model, modality, &mut rng);
        let spin = contrast.flow == Flow::Void;
        let pulsation = if spin && rng.chance(artefacts) { rng.uniform(0.2, 0.8) } else { 0.0 };
        let susceptibility = if mr && !spin && rng.chance(artefacts) { rng.uniform(0.2, 0.8) } else { 0.0 };
        let slabs = (modality == Modality::Mra && contrast.flow == Flow::Inflow).then(|| Slabs {
            thickness_mm: rng.uniform(18.0, 45.0) as f32,
            loss: rng.uniform(0.0, 0.35) as f32,
            blind: if rng.chance(artefacts) { rng.uniform(0.05, 0.3) as f32 } else { 0.0 },
            phase: rng.uniform(0.0, 1.0) as f32,
        });
        let hardening = if mr { 0.0 } else { rng.uniform(0.0, 18.0) as f32 };
        let kept = if mr && rng.chance(0.04) { Kept::Cranium } else { Kept::Everything };
        let head = Head::drawn(input.look_alikes, &mut stream(seed, "head"));
        let head = head.or_real(input.library, modality, &mut stream(seed, "head source"));

        let pieces = metal::draw(input.atlas, input.model.pathology(), &mut stream(seed, "metal"));
        let (brightness, grown) = if mr { (contrast.tissue[Tissue::Air as usize], 2.2) } else { (3000.0, 1.0) };
        let streak = |piece: &metal::Metal| {
            let place = input.grid.affine.to_voxel(piece.a.into())?;
            Some(Streak { middle: [place.z, place.y, place.x].map(|v| v as f32), strength: piece.streaks })
        };
        let mut acquisition = Acquisition::draw(input.model, modality, &contrast, artefacts, &input.grid, &mut rng);
        if !mr {
            acquisition.streaks = pieces.iter().filter_map(streak).collect();
        }
        Self {
            modality,
            arteries: blood::capsules(input.atlas, &contrast, artefacts, seed),
            metal: pieces.iter().map(|piece| piece.capsule(brightness, grown)).collect(),
            head,
            contrast,
            texture,
            pulsation: pulsation as f32,
            susceptibility: susceptibility as f32,
            slabs,
            hardening,
            kept,
            acquisition,
            field: NoiseField::new(&mut rng),
        }
    }

    /// How the acquisition shows moving blood.
    pub fn flow(&self) -> Flow {
        self.contrast.flow
    }

    /// The arteries with the signal of their flow.
    pub fn arteries(&self) -> Vec<Capsule> {
        self.arteries.clone()
    }

    /// Metal, with its brightness.
    pub fn metal(&self) -> &[Capsule] {
        &self.metal
    }

    /// Whether calcified plaques are visible.
    pub fn shows_plaque(&self) -> bool {
        self.modality == Modality::Cta
    }

    /// The head itself at a position of the mean head.
    pub fn sample(&self, mean: [f32; 3], near_artery_mm: f32) -> HeadSample {
        self.head.sample(mean, near_artery_mm, &self.contrast.tissue)
    }

    /// Brightness of tissue at a position of the mean head, `local` mm from the centre of the grid.
    pub fn tissue(&self, mean: [f32; 3], local: [f32; 3], near_artery_mm: f32) -> f32 {
        let sample = self.sample(mean, near_artery_mm);
        if self.kept == Kept::Cranium && !sample.inside {
            return 0.0;
        }
        let mut value = sample.value;
        if sample.air < 0.9 {
            let grain: f32 = self.texture.iter().map(|(size, part)| part * self.field.scaled(local, *size)).sum();
            let scale = if self.modality == Modality::Cta { value.abs().clamp(15.0, 300.0) } else { value };
            value += scale * grain;
        }
        if self.pulsation > 0.0 && sample.fluid > 0.0 {
            let basal = f32::from(u8::from(mean[0].abs() < 26.0 && (-14.0..34.0).contains(&mean[1]) && mean[2] < 10.0));
            let jet = ((self.field.scaled(local, 9.0) + 0.15) * 2.5).clamp(0.0, 1.0);
            value *= 1.0 - sample.fluid * self.pulsation * basal * jet;
        }
        if self.hardening > 0.0 && mean[2] < 2.0 {
            let band = self.field.scaled([local[0] * 0.12, local[1], local[2]], 7.0);
            value += self.hardening * band * (1.0 - sample.air);
        }
        value * self.shading(mean, local)
    }

    /// Brightness of arterial blood with a relative signal.
    pub fn artery(&self, signal: f32, mean: [f32; 3], local: [f32; 3]) -> f32 {
        let depth = self.slabs.map_or(0.0, |s| s.loss * (local[2] / s.thickness_mm + s.phase).rem_euclid(1.0));
        let flow = if signal > 0.0 { signal * (1.0 - depth) } else { signal };
        let uneven = 1.0 + 0.03 * self.field.scaled(local, 6.0);
        blood::brightness(&self.contrast, flow) * uneven * self.shading(mean, local)
    }

    /// Brightness of a vein with a relative filling.
    pub fn vein(&self, filling: f32, mean: [f32; 3], local: [f32; 3]) -> f32 {
        let empty = self.contrast.tissue[Tissue::Muscle as usize];
        (empty + (self.contrast.vein - empty) * filling) * self.shading(mean, local)
    }

    /// Loss of all signal between slabs and beside the sphenoid sinus.
    fn shading(&self, mean: [f32; 3], local: [f32; 3]) -> f32 {
        let mut left = 1.0;
        if let Some(s) = self.slabs.filter(|s| s.blind > 0.0) {
            let depth = (local[2] / s.thickness_mm + s.phase).rem_euclid(1.0);
            let edge = depth.min(1.0 - depth) * s.thickness_mm;
            left *= 1.0 - s.blind * (-0.5 * (edge / 1.6).powi(2)).exp();
        }
        if self.susceptibility > 0.0 {
            let (x, y, z) = (mean[0], mean[1] + 13.0, mean[2] + 13.0);
            let far = (x * x / 1.6 + y * y + z * z) / (2.0 * 7.5 * 7.5);
            left *= 1.0 - self.susceptibility * (-far).exp();
        }
        left
    }
}

/// Texture of tissue: layers of 2, 4, 8 and 16 mm.
fn texture(model: &AppearanceModel, modality: Modality, rng: &mut rand_chacha::ChaCha8Rng) -> [(f32, f32); 4] {
    const SIZES: [f32; 4] = [2.0, 4.0, 8.0, 16.0];
    // The standard deviation of the noise field is about a third of its range.
    const TO_RANGE: f64 = 3.0;
    let amplitudes = match model {
        AppearanceModel::Textured(config) => {
            let bands = textured::statistics(modality).bands;
            [1, 2, 3, 4].map(|i| bands[i] * config.strength * TO_RANGE * 0.5)
        }
        AppearanceModel::Random(_) => {
            let total = rng.uniform(0.0, 0.16);
            [0; 4].map(|_| total * rng.uniform(0.0, 1.0))
        }
        AppearanceModel::Plain | AppearanceModel::Scanner(_) => {
            let total = rng.uniform(0.02, 0.07);
            [0.5, 0.8, 1.0, 0.8].map(|k| k * total)
        }
    };
    std::array::from_fn(|i| (SIZES[i], amplitudes[i] as f32))
}
