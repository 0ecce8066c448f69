//! StripModel of SynthStrip in `willis net`.

use std::path::Path;

use anyhow::{Context, ensure};
use willis_core::files::npy;
use willis_nets::backbones::published::state_dict;
use willis_nets::brain::{BrainNet, BrainNetConfig, StripModelConfig};

use super::{Described, read_volumes};
use crate::cli::Format;

/// What users type.
pub const NAME: &str = "synthstrip";
/// One line about the net.
pub const ABOUT: &str = "U-Net from an image to distances from the brain's surface (Hoopes et al., NeuroImage 2022)";
/// Side of the cube that is described by default, voxels.
const SIDE: usize = 192;

/// The published configuration, or that of a JSON file.
fn configured(file: Option<&Path>) -> anyhow::Result<BrainNetConfig> {
    let Some(path) = file else { return Ok(BrainNetConfig::default()) };
    let named = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(named)?;
    let model: StripModelConfig = serde_json::from_str(&text).with_context(named)?;
    model.validate().with_context(named)?;
    Ok(BrainNetConfig { model, ..BrainNetConfig::default() })
}

/// Describes the net on a cube.
pub fn describe(size: Option<usize>, config: Option<&Path>, format: Format) -> anyhow::Result<()> {
    let config = configured(config)?;
    let (side, multiple) = (size.unwrap_or(SIDE), config.model.multiple());
    ensure!(
        side > 0 && side <= 512 && side.is_multiple_of(multiple),
        "size = {side} must be a multiple of {multiple} up to 512"
    );
    let net = BrainNet::untrained(config);
    let described = Described {
        name: NAME,
        about: ABOUT,
        config: serde_json::to_value(&net.config().model)?,
        weights: net.weights(),
        input: [1, 1, side, side, side],
    };
    described.print(format, |[_, _, d, h, w], values| net.distances_mm(values, [d, h, w]))
}

/// Runs the net on an array.
pub fn infer(weights: &Path, input: &Path, output: &Path, config: Option<&Path>) -> anyhow::Result<()> {
    let config = configured(config)?;
    let multiple = config.model.multiple();
    let (shape, values) = read_volumes(input)?;
    let [batch, channels, sides @ ..] = shape;
    ensure!(channels == 1, "{} has {channels} channels, the net takes 1", input.display());
    ensure!(
        sides.iter().all(|side| side.is_multiple_of(multiple)),
        "{} has sides {sides:?}; they must be multiples of {multiple}",
        input.display()
    );
    let net = BrainNet::untrained(config);
    let net = net.with_weights(state_dict::read(weights)?).with_context(|| weights.display().to_string())?;
    let volume: usize = sides.iter().product();
    let images = values.chunks(volume).map(|image| net.distances_mm(image.to_vec(), sides));
    let distances: Vec<f32> = images.flatten().collect();
    npy::write_f32(output, &[batch, 1, sides[0], sides[1], sides[2]], &distances)?;
    println!("{} {shape:?}", output.display());
    Ok(())
}
