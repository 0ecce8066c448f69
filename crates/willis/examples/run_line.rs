//! Takes a series down the whole line with the embedded weights.
//!
//! ```text
//! cargo run --release --example run_line -- scan/ out
//! ```
//! Prints the candidates and writes the same files as `willis predict scan/ -o out`.

use std::path::PathBuf;

use anyhow::Context;
use willis::config::Config;
use willis::line::predict_path;
use willis::models::Nets;
use willis::outputs::{self, OutputContent, OutputFormat};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (input, output) = arguments.next().zip(arguments.next()).context("usage: run_line INPUT OUTPUT")?;

    // `None` takes the embedded weights and the default configuration.
    let nets = Nets::load(None)?;
    let config = Config::load(None)?;
    let (result, run) = predict_path(&input, &nets, &config, &|stage| eprintln!("{}", stage.name()))?;

    // Earlier artifacts are reached through later ones: the vessel map knows its volume.
    println!("read from {}", result.volume().meta.uid);
    println!("{:.0} mm of arteries", result.graph.length_mm());
    for candidate in result.candidates.iter().take(5) {
        println!(
            "{}. p = {:.3}, {:.1} mm across, centre {:?} mm (LPS)",
            candidate.rank,
            candidate.probability,
            candidate.diameter_mm,
            candidate.centre.xyz()
        );
    }
    println!("probability of an aneurysm: {:.3}", result.prediction.present().unwrap_or(f64::NAN));

    let content = OutputContent { result: &result, run: &run, source: None };
    outputs::write(&output, &content, &OutputFormat::DEFAULT)
}
