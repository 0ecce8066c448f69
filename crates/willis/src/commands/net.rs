//! `willis net`: lists, describes and runs the published backbones.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value, json};
use willis_core::files::npy;
use willis_nets::backbones::published::state_dict;
use willis_nets::backbones::published::{Backbone, NetConfig};
use willis_nets::ops::{count_macs, cpu};

use super::Outcome;
use crate::cli::{BackboneName, Format, NetCommand};
use crate::run::measure;

/// Runs one of the net commands.
pub fn run(command: &NetCommand) -> anyhow::Result<Outcome> {
    match command {
        NetCommand::List => {
            for backbone in Backbone::ALL {
                println!("{:<12} {}", backbone.name(), backbone.about());
            }
        }
        NetCommand::Describe { net, size, config, format } => describe(*net, *size, config.as_deref(), *format)?,
        NetCommand::Run { net, weights, input, output, config } => {
            infer(*net, weights, input, output, config.as_deref())?;
        }
    }
    Ok(Outcome::Done)
}

/// The published configuration with what a JSON file says differently, and whether the file gives
/// the size.
fn configured(backbone: Backbone, file: Option<&Path>) -> anyhow::Result<(NetConfig, bool)> {
    let Some(path) = file else { return Ok((backbone.published(), false)) };
    let named = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(named)?;
    let changes: Map<String, Value> = serde_json::from_str(&text).with_context(named)?;
    let Value::Object(mut all) = serde_json::to_value(backbone.published())? else { bail!("no configuration") };
    let sized = changes.contains_key("size");
    all.extend(changes);
    Ok((serde_json::from_value(Value::Object(all)).with_context(named)?, sized))
}

fn infer(net: BackboneName, weights: &Path, input: &Path, output: &Path, config: Option<&Path>) -> anyhow::Result<()> {
    let backbone = Backbone::from(net);
    let (mut config, sized) = configured(backbone, config)?;
    let (shape, values) = npy::read_f32(input)?;
    let shape: [usize; 5] = match shape.as_slice() {
        &[c, d, h, w] => [1, c, d, h, w],
        &[b, c, d, h, w] => [b, c, d, h, w],
        other => bail!("{} has shape {other:?}, expected [C, D, H, W] or [B, C, D, H, W]", input.display()),
    };
    let [batch, channels, depth, height, width] = shape;
    ensure!(batch > 0, "{} holds no volume", input.display());
    ensure!(
        depth == height && height == width,
        "{} is {depth} x {height} x {width}; the published nets take cubes",
        input.display()
    );
    if !sized {
        config.size = depth;
    }
    ensure!(config.size == depth, "{} has a side of {depth}, the configuration says {}", input.display(), config.size);
    ensure!(
        channels == config.in_channels,
        "{} has {channels} channels, the configuration says {}; set in_channels",
        input.display(),
        config.in_channels
    );
    let net = backbone.build(&config, 0, &cpu())?.with_weights(state_dict::read(weights)?);
    let (shape, logits) = net.with_context(|| weights.display().to_string())?.logits(shape, values);
    npy::write_f32(output, &shape, &logits)?;
    println!("{} {shape:?}", output.display());
    Ok(())
}

fn describe(net: BackboneName, size: Option<usize>, config: Option<&Path>, format: Format) -> anyhow::Result<()> {
    let backbone = Backbone::from(net);
    let (mut config, _) = configured(backbone, config)?;
    config.size = size.unwrap_or(config.size);
    let net = backbone.build(&config, 0, &cpu())?;
    let weights = net.weights();
    let layers: Vec<(&str, &[usize])> = weights.shapes().collect();
    // Stored statistics are no parameters.
    let is_parameter = |name: &str| !name.ends_with("running_mean") && !name.ends_with("running_var");
    let count = |shape: &[usize]| shape.iter().product::<usize>();
    let parameters: usize = layers.iter().filter(|(name, _)| is_parameter(name)).map(|(_, shape)| count(shape)).sum();

    let shape = [1, config.in_channels, config.size, config.size, config.size];
    let ((_, work), forward) = measure(|| count_macs(|| net.logits(shape, vec![0.5; count(&shape)])));
    if format == Format::Json {
        let layers: Vec<Value> = layers.iter().map(|(name, shape)| json!({ "name": name, "shape": shape })).collect();
        let description = json!({
            "net": backbone.name(), "config": config, "parameters": parameters, "multiply_accumulates": work,
            "seconds": forward.seconds, "peak_mib": forward.peak_mib, "layers": layers,
        });
        println!("{}", serde_json::to_string_pretty(&description)?);
        return Ok(());
    }
    println!("{}: {}", backbone.name(), backbone.about());
    println!("configuration          {}", serde_json::to_string(&config)?);
    for (name, shape) in &layers {
        println!("{:>10}  {:<24} {name}", count(shape), format!("{shape:?}"));
    }
    println!("parameters             {parameters}");
    println!("multiply-accumulates   {:.2} G of convolutions, linear layers and attention", work as f64 / 1e9);
    println!("forward pass           {:.2} s on {} threads", forward.seconds, rayon::current_num_threads());
    println!("peak memory            {} MiB", forward.peak_mib.map_or("n/a".into(), |mib| mib.to_string()));
    Ok(())
}
