//! `willis net`: lists, describes and runs the published backbones.

mod synthstrip;

use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value, json};
use willis_core::files::npy;
use willis_nets::backbones::published::{PublishedBackbone, for_cubes, state_dict};
use willis_nets::backbones::{BackboneConfig, BackboneKind};
use willis_nets::ops::{count_macs, cpu};
use willis_nets::weights::Weights;

use super::Outcome;
use crate::cli::{Format, NetCommand};
use crate::run::measure;

/// Runs one of the net commands.
pub fn run(command: &NetCommand) -> anyhow::Result<Outcome> {
    match command {
        NetCommand::List => {
            for kind in BackboneKind::ALL {
                println!("{:<12} {}", kind.name(), kind.about());
            }
            println!("{:<12} {}", synthstrip::NAME, synthstrip::ABOUT);
        }
        NetCommand::Describe { net, size, config, format } => match net.backbone() {
            Some(kind) => describe(kind, *size, config.as_deref(), *format)?,
            None => synthstrip::describe(*size, config.as_deref(), *format)?,
        },
        NetCommand::Run { net, weights, input, output, config } => match net.backbone() {
            Some(kind) => infer(kind, weights, input, output, config.as_deref())?,
            None => synthstrip::infer(weights, input, output, config.as_deref())?,
        },
    }
    Ok(Outcome::Done)
}

/// The published configuration with the values of a JSON file laid over it, and whether the file
/// sets the size.
fn configured(kind: BackboneKind, file: Option<&Path>) -> anyhow::Result<(BackboneConfig, bool)> {
    let Some(path) = file else { return Ok((kind.published(), false)) };
    let named = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(named)?;
    let changes: Map<String, Value> = serde_json::from_str(&text).with_context(named)?;
    let Value::Object(mut all) = serde_json::to_value(kind.published())? else { bail!("no configuration") };
    let sized = changes.contains_key("size");
    all.extend(changes);
    let config: BackboneConfig = serde_json::from_value(Value::Object(all)).with_context(named)?;
    ensure!(config.kind() == kind, "{} configures {}, not {}", path.display(), config.kind().name(), kind.name());
    Ok((config, sized))
}

/// Shape and values of an array of volumes.
fn read_volumes(input: &Path) -> anyhow::Result<([usize; 5], Vec<f32>)> {
    let (shape, values) = npy::read_f32(input)?;
    let shape: [usize; 5] = match shape.as_slice() {
        &[c, d, h, w] => [1, c, d, h, w],
        &[b, c, d, h, w] => [b, c, d, h, w],
        other => bail!("{} has shape {other:?}, expected [C, D, H, W] or [B, C, D, H, W]", input.display()),
    };
    ensure!(shape.iter().all(|&side| side > 0), "{} holds no volume", input.display());
    Ok((shape, values))
}

fn infer(kind: BackboneKind, weights: &Path, input: &Path, output: &Path, config: Option<&Path>) -> anyhow::Result<()> {
    let (config, sized) = configured(kind, config)?;
    let (shape, values) = read_volumes(input)?;
    let [_, channels, depth, height, width] = shape;
    ensure!(
        depth == height && height == width,
        "{} is {depth} x {height} x {width}; the published nets take cubes",
        input.display()
    );
    let window = config.window().filter(|_| sized).unwrap_or([depth; 3]);
    ensure!(window == [depth; 3], "{} has a side of {depth}, the configuration says {window:?}", input.display());
    ensure!(
        channels == config.in_channels(),
        "{} has {channels} channels, the configuration says {}; set in_channels",
        input.display(),
        config.in_channels()
    );
    let net = PublishedBackbone::new(for_cubes(config, depth)?, 0, &cpu())?.with_weights(state_dict::read(weights)?);
    let (shape, logits) = net.with_context(|| weights.display().to_string())?.logits(shape, values);
    npy::write_f32(output, &shape, &logits)?;
    println!("{} {shape:?}", output.display());
    Ok(())
}

fn describe(kind: BackboneKind, size: Option<usize>, config: Option<&Path>, format: Format) -> anyhow::Result<()> {
    let (config, _) = configured(kind, config)?;
    let config = match size {
        Some(side) => for_cubes(config, side)?,
        None => config,
    };
    let [depth, height, width] = config.window().unwrap_or([size.unwrap_or(kind.published_side()); 3]);
    let net = PublishedBackbone::new(config.clone(), 0, &cpu())?;
    let described = Described {
        name: kind.name(),
        about: kind.about(),
        config: serde_json::to_value(&config)?,
        weights: net.weights(),
        input: [1, config.in_channels(), depth, height, width],
    };
    described.print(format, |shape, values| net.logits(shape, values))
}

/// A net to describe.
struct Described {
    name: &'static str,
    about: &'static str,
    config: Value,
    /// Parameters and stored statistics under the official names.
    weights: Weights,
    /// Shape of an input.
    input: [usize; 5],
}

impl Described {
    /// Runs the net once and prints its description.
    fn print<T>(&self, format: Format, forward: impl FnOnce([usize; 5], Vec<f32>) -> T) -> anyhow::Result<()> {
        let layers: Vec<(&str, &[usize])> = self.weights.shapes().collect();
        // Stored statistics are not parameters.
        let is_parameter = |name: &str| !name.ends_with("running_mean") && !name.ends_with("running_var");
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        let parameters: usize =
            layers.iter().filter(|(name, _)| is_parameter(name)).map(|(_, shape)| count(shape)).sum();
        let values = vec![0.5; count(&self.input)];
        let ((_, work), forward) = measure(|| count_macs(|| forward(self.input, values)));
        if format == Format::Json {
            let layers: Vec<Value> =
                layers.iter().map(|(name, shape)| json!({ "name": name, "shape": shape })).collect();
            let description = json!({
                "net": self.name, "config": self.config, "size": self.input[2..], "parameters": parameters,
                "multiply_accumulates": work, "seconds": forward.seconds, "peak_mib": forward.peak_mib,
                "layers": layers,
            });
            println!("{}", serde_json::to_string_pretty(&description)?);
            return Ok(());
        }
        println!("{}: {}", self.name, self.about);
        println!("configuration          {}", self.config);
        println!("input                  {:?}", self.input);
        for (name, shape) in &layers {
            println!("{:>10}  {:<24} {name}", count(shape), format!("{shape:?}"));
        }
        println!("parameters             {parameters}");
        println!("multiply-accumulates   {:.2} G of convolutions, linear layers and attention", work as f64 / 1e9);
        println!("forward pass           {:.2} s on {} threads", forward.seconds, rayon::current_num_threads());
        println!("peak memory            {} MiB", forward.peak_mib.map_or("n/a".into(), |mib| mib.to_string()));
        Ok(())
    }
}
