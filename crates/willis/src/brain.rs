//! The brain of a series: distances from its surface by the embedded net, or by SynthStrip's
//! published weights.

use std::path::Path;

use anyhow::Context;
use willis_core::{Image, Volume};
use willis_imaging::strip::{StripError, StripGrid, StripSampling, StripUnits, conform, extend, restore};
use willis_nets::backbones::published::state_dict;
use willis_nets::brain::{BrainNet, BrainNetConfig, normalise};
use willis_nets::weights::Weights;

use crate::embedded::{BRAIN, embedded};

/// Finds the brain of a series.
pub struct BrainFinder {
    net: BrainNet,
    grid: StripGrid,
}

impl BrainFinder {
    /// The embedded net.
    ///
    /// # Errors
    /// when the embedded weights are of another revision (a fault of the build)
    pub fn embedded() -> anyhow::Result<Self> {
        Self::from_bytes(embedded(BRAIN))
    }

    /// The net of the weights of `willis train brain`.
    ///
    /// # Errors
    /// when the weights belong to another net
    pub fn from_bytes(bytes: &[u8]) -> anyhow::Result<Self> {
        Ok(Self::averaged(BrainNet::from_bytes(bytes).context(BRAIN)?))
    }

    /// The net of a file: weights of `willis train brain`, or a checkpoint with FreeSurfer's names.
    ///
    /// # Errors
    /// when the file cannot be read or belongs to another net
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let named = || format!("cannot use weights {}", path.display());
        let is_safetensors = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"));
        let own = is_safetensors && Weights::load(path)?.metadata.contains_key("config");
        if own {
            let bytes = std::fs::read(path).with_context(named)?;
            return Ok(Self::averaged(BrainNet::from_bytes(&bytes).with_context(named)?));
        }
        let net = BrainNet::untrained(BrainNetConfig::default());
        let net = net.with_weights(state_dict::read(path)?).with_context(named)?;
        Ok(Self { net, grid: StripGrid::PUBLISHED })
    }

    fn averaged(net: BrainNet) -> Self {
        let grid = StripGrid::averaged(net.config().spacing_mm, net.config().model.multiple());
        Self { net, grid }
    }

    /// Signed distance of every voxel of a series from the surface of its brain, mm, negative
    /// inside; valid at least as far as `border_mm`.
    ///
    /// # Errors
    /// [`StripError`] when the series has no usable voxels or place
    pub fn distances(&self, volume: &Volume, border_mm: f64) -> Result<Image<f32>, StripError> {
        Ok(restore(&extend(&self.on_own_grid(volume)?, border_mm), &volume.image.grid))
    }

    /// As [`Self::distances`], on the net's grid and in the band that the net knows.
    ///
    /// # Errors
    /// As [`Self::distances`].
    pub fn on_own_grid(&self, volume: &Volume) -> Result<Image<f32>, StripError> {
        let finite = volume.image.voxels.iter().copied().filter(|v| v.is_finite());
        let units = StripUnits::of(volume.meta.modality, finite.fold(f32::INFINITY, f32::min));
        let Image { grid, mut voxels } = conform(&volume.image, units, &self.grid)?;
        normalise(&mut voxels);
        let shape = grid.shape.zyx();
        let distances = match self.grid.sampling {
            StripSampling::Published => self.net.distances_mm(voxels, shape),
            StripSampling::Averaged => self.net.symmetric_distances_mm(voxels, shape),
        };
        Ok(Image::new(grid, distances))
    }
}

#[cfg(test)]
mod tests {
    use willis_core::{Affine, Grid, Modality, Point, SeriesMeta, Shape, Spacing, VoxelPoint};
    use willis_imaging::resample;
    use willis_imaging::strip::mask;
    use willis_phantom::head_labels;

    use super::*;

    /// Brightness of a label's tissue in T1 and in CT, HU.
    fn brightness(number: u16) -> [f32; 2] {
        match number {
            0 => [2.0, -1000.0],
            2 => [800.0, 28.0],
            3 => [600.0, 36.0],
            24 => [250.0, 8.0],
            30 => [700.0, 300.0],
            99 => [550.0, 45.0],
            125 => [950.0, -90.0],
            129 => [80.0, 900.0],
            130 => [10.0, -950.0],
            134 => [300.0, 10.0],
            516 => [700.0, 350.0],
            _ => [550.0, 50.0],
        }
    }

    fn dice(volume: &Volume, truth: &Image<u16>) -> f64 {
        let found = mask(&BrainFinder::embedded().unwrap().distances(volume, 1.0).unwrap(), 0.0);
        let brain = |number: &u16| [2, 3, 24, 30, 99].contains(number);
        let both = truth.voxels.iter().zip(&found.voxels).filter(|(number, inside)| brain(number) && **inside == 1);
        let sum = truth.voxels.iter().filter(|number| brain(number)).count()
            + found.voxels.iter().filter(|inside| **inside == 1).count();
        2.0 * both.count() as f64 / sum as f64
    }

    #[test]
    fn the_embedded_net_finds_the_brain_in_mr_and_ct() {
        let truth = head_labels(77);
        for (modality, column) in [(Modality::T1Post, 0), (Modality::Cta, 1)] {
            let volume = Volume {
                image: truth.map(|&number| brightness(number)[column]),
                meta: SeriesMeta { modality: Some(modality), ..SeriesMeta::default() },
                findings: Vec::new(),
            };
            let dice = dice(&volume, &truth);
            assert!(dice > 0.9, "{modality:?}: {dice}");
        }
    }

    /// The same head as scanners and other programs store it: turned, in thick slices, with an offset,
    /// scaled to a mean of 0, with padding.
    #[test]
    fn the_brain_is_found_however_the_series_is_stored() {
        let truth = head_labels(77);
        let image = truth.map(|&number| brightness(number)[0]);
        let middle = {
            let Shape { z, y, x } = truth.grid.shape;
            truth.grid.affine.to_world(VoxelPoint::new(z as f64 / 2.0, y as f64 / 2.0, x as f64 / 2.0))
        };
        let sampled = |spacing: Spacing, degrees: f64| {
            let grid = turned(middle, spacing, degrees);
            (resample::area(&image, &grid, 0.0), on_grid(&truth, &grid))
        };
        let cases = [
            ("oblique", sampled(Spacing::isotropic(1.5), 25.0)),
            ("thick slices", sampled(Spacing::new(6.0, 1.0, 1.0), 0.0)),
            ("thick oblique slices", sampled(Spacing::new(5.0, 1.0, 1.0), 20.0)),
            ("offset", (image.map(|v| v + 1000.0), truth.clone())),
            ("mean of 0", (image.map(|v| (v - 300.0) / 250.0), truth.clone())),
            ("padding", (image.map(|&v| if v <= 2.0 { -2048.0 } else { v }), truth.clone())),
        ];
        for (name, (image, truth)) in cases {
            let meta = SeriesMeta { modality: Some(Modality::T1Post), ..SeriesMeta::default() };
            let dice = dice(&Volume { image, meta, findings: Vec::new() }, &truth);
            assert!(dice > 0.88, "{name}: {dice}");
        }
    }

    /// A grid of 240 mm about a point, turned about the x and z axes.
    fn turned(middle: Point, spacing: Spacing, degrees: f64) -> Grid {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let axes = [[cos, -sin * cos, sin * sin], [sin, cos * cos, -sin * cos], [0.0, sin, cos]];
        let [z, y, x] = spacing.zyx().map(|step| (240.0 / step) as usize);
        let steps = [spacing.x, spacing.y, spacing.z];
        let half = [x, y, z].map(|side| side as f64 / 2.0);
        let middle = middle.xyz();
        let affine = std::array::from_fn(|row| {
            let column = |c: usize| axes[row][c] * steps[c];
            [column(0), column(1), column(2), middle[row] - (0..3).map(|c| column(c) * half[c]).sum::<f64>()]
        });
        Grid::new(Shape::new(z, y, x), Affine(affine))
    }

    /// Labels at the voxels of another grid; 0 beyond them.
    fn on_grid(labels: &Image<u16>, grid: &Grid) -> Image<u16> {
        let at = |offset: usize| {
            let place = labels.grid.affine.to_voxel(grid.affine.to_world(grid.shape.index(offset).into())).unwrap();
            if labels.grid.shape.contains(place) { *labels.at(labels.grid.shape.nearest(place)) } else { 0 }
        };
        Image::new(*grid, (0..grid.shape.len()).map(at).collect())
    }

    #[test]
    fn a_series_of_air_is_an_error() {
        let air = head_labels(77).map(|_| 0.0f32);
        let volume = Volume { image: air, meta: SeriesMeta::default(), findings: Vec::new() };
        assert_eq!(BrainFinder::embedded().unwrap().distances(&volume, 1.0).unwrap_err(), StripError::Empty);
    }
}
