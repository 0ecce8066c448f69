//! Vessel maps of training cases, predicted once by a given vessel net and kept beside the cases
//! with 16 bits a value.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use willis_core::files::hash::sha256_hex;
use willis_core::files::{case, tensors};
use willis_core::{Affine, Grid, HarmonisedVolume, Image, Point, Shape, Spacing, TrainingCase, VesselMap, Volume};
use willis_nets::segment::{SegmentConfig, SegmentNet, segment};

use super::PreparedCase;

/// A vessel net with the folder name of its maps.
pub struct MapMaker<'a> {
    /// The net.
    pub net: &'a SegmentNet,
    /// SHA-256 of its weights.
    pub sha256: &'a str,
    /// How it is run.
    pub config: &'a SegmentConfig,
}

impl MapMaker<'_> {
    /// The case with its vessel map, from the cache or predicted and cached.
    pub fn map(&self, prepared: &PreparedCase) -> anyhow::Result<(TrainingCase, VesselMap)> {
        let case = case::load(&prepared.folder)?;
        let source = harmonised(&case);
        let path = self.path(&prepared.folder);
        if let Some(map) = read(&path, &source) {
            return Ok((case, map));
        }
        write(&path, &segment(self.net, &source, self.config)).with_context(|| path.display().to_string())?;
        // Read back, so that the first run and a later one work on the same rounded values.
        let map = read(&path, &source).with_context(|| format!("cannot read {} back", path.display()))?;
        Ok((case, map))
    }

    /// A file for each net and way of running it.
    fn path(&self, case: &Path) -> PathBuf {
        let config = serde_json::to_string(self.config).expect("plain structs of numbers and names always serialise");
        let key = sha256_hex(format!("{} {config}", self.sha256).as_bytes());
        case.join(format!("map-{}.safetensors", &key[..12]))
    }
}

/// The harmonised volume a case was made of; the scanner's own voxels are gone, its series is not.
pub fn harmonised(case: &TrainingCase) -> Arc<HarmonisedVolume> {
    let nowhere =
        Grid::new(Shape::new(1, 1, 1), Affine::axis_aligned(Spacing::isotropic(1.0), Point::new(0.0, 0.0, 0.0)));
    let source = Volume { image: Image::filled(nowhere, 0.0), meta: case.meta.clone(), findings: Vec::new() };
    let (image, meta) = (case.image.clone(), case.meta.clone());
    Arc::new(HarmonisedVolume { image, meta, source: Arc::new(source), findings: Vec::new() })
}

fn write(path: &Path, map: &VesselMap) -> anyhow::Result<()> {
    let shape = map.vessel.grid.shape.zyx().to_vec();
    let tensor = |data: Vec<f32>| tensors::Tensor { shape: shape.clone(), data };
    let mut content = tensors::Tensors::default();
    content.tensors.insert("vessel".into(), tensor(map.vessel.voxels.clone()));
    content.tensors.insert("aneurysm".into(), tensor(map.aneurysm.voxels.clone()));
    content.tensors.insert("site".into(), tensor(map.site.voxels.iter().map(|&v| f32::from(v)).collect()));
    tensors::write(path, &content, tensors::Precision::F16)?;
    Ok(())
}

fn read(path: &Path, source: &Arc<HarmonisedVolume>) -> Option<VesselMap> {
    let grid = source.image.grid;
    let mut content = tensors::read(path).ok()?.tensors;
    let mut take = |name: &str| {
        let tensor = content.remove(name)?;
        (tensor.data.len() == grid.shape.len()).then(|| Image::new(grid, tensor.data))
    };
    Some(VesselMap {
        vessel: take("vessel")?,
        aneurysm: take("aneurysm")?,
        site: take("site")?.map(|&v| v as u8),
        source: source.clone(),
    })
}
