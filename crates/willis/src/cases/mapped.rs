//! Training cases with the artifacts of the line: vessel map, graph and candidates.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use willis_core::files::hash::sha256_hex;
use willis_core::files::{case, tensors};
use willis_core::{Candidates, HarmonisedVolume, Image, TrainingCase, VesselGraph, VesselMap};
use willis_imaging::trace::trace;
use willis_nets::propose::ProposeNet;
use willis_nets::segment::{SegmentNet, segment};

use super::PreparedCase;
use crate::config::Config;
use crate::line::candidates;

/// A training case with the artifacts that the stages after segment train on.
pub struct MappedCase {
    /// Series and ground truth.
    pub case: TrainingCase,
    /// Vessel map of the case.
    pub map: VesselMap,
    /// Vessel graph of the map.
    pub graph: VesselGraph,
}

impl MappedCase {
    /// A case with its map; traces the graph.
    pub fn new(case: TrainingCase, map: VesselMap, config: &Config) -> Self {
        let graph = trace(&map, &config.trace);
        Self { case, map, graph }
    }

    /// Candidates as the line proposes them.
    pub fn candidates(&self, net: &ProposeNet, config: &Config) -> Candidates {
        candidates(net, &self.map, &self.graph, config)
    }
}

/// Makes mapped cases with a given segmentation net. A map is predicted once and kept beside its
/// case, in 16 bits per value.
pub struct CaseMapper<'a> {
    net: SegmentNet,
    config: &'a Config,
    /// File name of the maps: one per net and way of running it.
    file_name: String,
}

impl<'a> CaseMapper<'a> {
    /// A mapper with a segmentation net and the hash of its weights.
    pub fn new(net: SegmentNet, sha256: &str, config: &'a Config) -> Self {
        let segment = serde_json::to_string(&config.segment);
        let segment = segment.expect("plain structs of numbers and names always serialise");
        let key = sha256_hex(format!("{sha256} {segment}").as_bytes());
        Self { net, config, file_name: format!("map-{}.safetensors", &key[..12]) }
    }

    /// The case with its artifacts; reads the map, or predicts and writes it.
    ///
    /// # Errors
    /// when the case cannot be read or the map cannot be written
    pub fn load(&self, prepared: &PreparedCase) -> anyhow::Result<MappedCase> {
        let case = case::load(&prepared.folder)?;
        let source = Arc::new(case.harmonised());
        let path = prepared.folder.join(&self.file_name);
        if let Some(map) = read(&path, &source) {
            return Ok(MappedCase::new(case, map, self.config));
        }
        write(&path, &segment(&self.net, &source, &self.config.segment)).with_context(|| path.display().to_string())?;
        // Read back, so that the first run and later ones train on the same rounded values.
        let map = read(&path, &source).with_context(|| format!("cannot read {} back", path.display()))?;
        Ok(MappedCase::new(case, map, self.config))
    }
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
