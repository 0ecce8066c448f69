//! Times work on whole volumes: Nyúl's method against the Python package
//! (`benches/vs_intensity_normalization/compare.py` starts this program) and the preprocessing of a
//! large CTA (`cargo bench -p willis-imaging --bench volumes -- harmonise`).
//!
//! Reads one request per line from stdin and answers each with one line that starts with the
//! seconds taken, without reading and writing files:
//!
//! - `fit A.npy B.npy ..`: the scale of the images, which the answer gives;
//! - `apply IMAGE.npy OUT.npy`: the image on that scale.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use willis_core::files::npy;
use willis_core::{Affine, Grid, Image, Modality, Point, SeriesMeta, Shape, Spacing, Volume, VoxelPoint};
use willis_imaging::harmonise::nyul::{self, FitOptions, Standard};
use willis_imaging::harmonise::{HarmoniseConfig, harmonise};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().any(|argument| argument == "harmonise") {
        return time_harmonise();
    }
    let mut standard: Option<Standard> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match &words[..] {
            ["fit", paths @ ..] => {
                let images = paths.iter().map(|path| npy::read_f32(Path::new(path))).collect::<Result<Vec<_>, _>>()?;
                let start = Instant::now();
                let voxels = images.iter().map(|(_, voxels)| nyul::foreground(voxels, None));
                let fitted = nyul::fit(voxels, FitOptions::default())?;
                let scale: Vec<String> = fitted.scale().iter().map(f64::to_string).collect();
                println!("{} {}", start.elapsed().as_secs_f64(), scale.join(" "));
                standard = Some(fitted);
            }
            ["apply", image, output] => {
                let standard = standard.as_ref().ok_or("fit first")?;
                let (shape, voxels) = npy::read_f32(Path::new(image))?;
                let start = Instant::now();
                let mapped = standard.map(&nyul::foreground(&voxels, None)?)?.apply_all(&voxels);
                println!("{}", start.elapsed().as_secs_f64());
                npy::write_f32(Path::new(output), &shape, &mapped)?;
            }
            _ => return Err(format!("unknown request: {line}").into()),
        }
    }
    Ok(())
}

/// Harmonises a head of 512 x 512 x 300 voxels of 0.45 x 0.45 x 0.6 mm five times.
fn time_harmonise() -> Result<(), Box<dyn std::error::Error>> {
    let affine = Affine::axis_aligned(Spacing::new(0.6, 0.45, 0.45), Point::new(-115.0, -115.0, -90.0));
    let grid = Grid::new(Shape::new(300, 512, 512), affine);
    let value = |i: usize| {
        let p = affine.to_world(VoxelPoint::from(grid.shape.index(i)));
        let depth = (p.x / 75.0).powi(2) + (p.y / 90.0).powi(2) + (p.z / 85.0).powi(2);
        let noise = (i.wrapping_mul(2_654_435_761) >> 8 & 63) as f32 - 32.0;
        let vessel = (p.x - 20.0 * (p.z / 15.0).sin()).hypot(p.y) < 2.0;
        match depth {
            d if d > 1.0 => -1000.0,
            d if d > 0.88 => 900.0 + noise,
            _ if vessel => 350.0 + noise,
            _ => 40.0 + noise,
        }
    };
    let image = Image::new(grid, (0..grid.shape.len()).map(value).collect());
    let meta = SeriesMeta { modality: Some(Modality::Cta), ..SeriesMeta::default() };
    let volume = Arc::new(Volume { image, meta, findings: Vec::new() });
    for _ in 0..5 {
        let start = Instant::now();
        let result = harmonise(&volume, &HarmoniseConfig::default())?;
        println!("{:.3} s for {:?}", start.elapsed().as_secs_f64(), result.image.grid.shape);
    }
    Ok(())
}
