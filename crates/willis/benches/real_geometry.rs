//! Measures lesion recall on real arterial trees. The voxelised trees of 22 patients (IntrA) are
//! given intensities like those of a TOF-MRA and taken down the line; two detectors without
//! learning get the same volumes.
//!
//! ```text
//! cargo bench -p willis --bench real_geometry -- TREES -o OUT [--models DIR]
//! ```
//! TREES holds `ground_truth.csv` and `<case>_vesselmask_0.4mm.nii.gz`. The table goes to stdout,
//! the volumes and predictions to OUT.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use willis::config::Config;
use willis::line::predict_path;
use willis::models::Nets;
use willis::outputs::{self, OutputContent, OutputFormat};
use willis_core::files::nifti;
use willis_core::{Candidate, Image, Modality, Point};
use willis_imaging::detect::blob::{self, BlobConfig};
use willis_imaging::detect::excess::{self, ExcessConfig};

#[derive(Parser)]
struct Args {
    /// Folder with `ground_truth.csv` and the masks.
    trees: PathBuf,
    /// Folder for volumes and predictions.
    #[arg(short, long)]
    output: PathBuf,
    /// Folder with weights instead of the embedded ones.
    #[arg(long)]
    models: Option<PathBuf>,
    /// Passed by `cargo bench`; has no effect.
    #[arg(long, hide = true)]
    bench: bool,
}

/// An aneurysm of the ground truth.
struct TrueSac {
    name: String,
    centre: Point,
    diameter_mm: f64,
}

/// Whether a candidate counts as a detection: its centre is inside the sac or within 3 mm of the
/// centre of the sac.
fn is_hit(candidate: &Candidate, sac: &TrueSac) -> bool {
    candidate.centre.distance_mm(sac.centre) <= (sac.diameter_mm / 2.0).max(3.0)
}

fn rank_of_hit(candidates: &[Candidate], sac: &TrueSac) -> Option<usize> {
    candidates.iter().position(|c| is_hit(c, sac)).map(|i| i + 1)
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let nets = Nets::load(args.models.as_deref())?;
    let mut config = Config::default();
    config.ingest.modality = Some(Modality::Mra);
    let cases = read_truth(&args.trees.join("ground_truth.csv"))?;
    std::fs::create_dir_all(&args.output)?;
    println!(
        "| case | sac | diameter mm | rank | distance mm | candidates | blob rank | radius-excess rank | seconds |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut ranks: [Vec<Option<usize>>; 3] = Default::default();
    for (case, sacs) in &cases {
        let volume = args.output.join(format!("{case}.nii.gz"));
        if !volume.exists() {
            let mask = nifti::read_labels(&args.trees.join(format!("{case}_vesselmask_0.4mm.nii.gz")))?;
            nifti::write(&volume, &render(&mask, case))?;
        }
        let (result, run) = predict_path(&volume, &nets, &config, &|_| ())?;
        let content = OutputContent { result: &result, run: &run, source: None };
        outputs::write(&args.output.join(case), &content, &OutputFormat::DEFAULT)?;
        let blobs = blob::candidates(&result.map.source.image, None, &BlobConfig::default());
        let excesses = excess::candidates(&result.graph, &ExcessConfig::default());
        for sac in sacs {
            let nearest =
                result.candidates.iter().map(|c| c.centre.distance_mm(sac.centre)).fold(f64::INFINITY, f64::min);
            let found = [&result.candidates[..], &blobs[..], &excesses[..]].map(|list| rank_of_hit(list, sac));
            ranks.iter_mut().zip(found).for_each(|(all, rank)| all.push(rank));
            let shown = found.map(|r| r.map_or("-".into(), |r| r.to_string()));
            println!(
                "| {case} | {} | {:.1} | {} | {nearest:.1} | {} | {} | {} | {:.1} |",
                sac.name,
                sac.diameter_mm,
                shown[0],
                result.candidates.len(),
                shown[1],
                shown[2],
                run.seconds
            );
        }
    }
    println!("\n| detector | recall at 1 | at 5 | at 15 |\n|---|---|---|---|");
    for (name, ranks) in ["willis", "blob detector", "radius excess"].into_iter().zip(&ranks) {
        let recall = |k: usize| ranks.iter().filter(|r| r.is_some_and(|r| r <= k)).count() as f64 / ranks.len() as f64;
        println!("| {name} | {:.2} | {:.2} | {:.2} |", recall(1), recall(5), recall(15));
    }
    Ok(())
}

fn read_truth(path: &Path) -> anyhow::Result<BTreeMap<String, Vec<TrueSac>>> {
    let mut cases: BTreeMap<String, Vec<TrueSac>> = BTreeMap::new();
    for row in csv::Reader::from_path(path)?.deserialize() {
        let row: BTreeMap<String, String> = row?;
        let field = |name: &str| row.get(name).with_context(|| format!("{} has no column {name}", path.display()));
        let xyz: Vec<f64> = field("centre_lps_mm")?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [x, y, z] = xyz[..] else { anyhow::bail!("centre_lps_mm needs three numbers") };
        cases.entry(field("case")?.clone()).or_default().push(TrueSac {
            name: field("aneurysm")?.clone(),
            centre: Point::new(x, y, z),
            diameter_mm: field("max_diam_mm")?.parse()?,
        });
    }
    Ok(cases)
}

/// Renders a mask as a TOF-MRA: a bright lumen with blurred edges and a slowly varying flow signal,
/// brain-like texture around it, a bias field and Rician noise.
fn render(mask: &Image<u8>, case: &str) -> Image<f32> {
    const TISSUE: f32 = 110.0;
    const LUMEN: f32 = 300.0;
    const NOISE: f32 = 11.0;
    let shape = mask.grid.shape.zyx();
    let seed = case.bytes().fold(17u64, |h, b| h.wrapping_mul(1_099_511_628_211) ^ u64::from(b));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut lumen: Vec<f32> = mask.voxels.iter().map(|&v| f32::from(u8::from(v > 0))).collect();
    for axis in 0..3 {
        blur(&mut lumen, shape, axis, 1.3);
    }
    let phase: Vec<f32> = (0..12).map(|_| rng.random::<f32>() * std::f32::consts::TAU).collect();
    let wave = |i: usize, p: [f32; 3], mm: f32| (0..3).map(|a| (p[a] / mm + phase[3 * i + a]).sin()).product::<f32>();
    let spacing = mask.grid.spacing().zyx().map(|s| s as f32);
    let voxels = lumen
        .iter()
        .enumerate()
        .map(|(offset, &inside)| {
            let index = mask.grid.shape.index(offset);
            let p = [index.z as f32 * spacing[0], index.y as f32 * spacing[1], index.x as f32 * spacing[2]];
            let tissue = TISSUE * (1.0 + 0.12 * wave(0, p, 7.0) + 0.08 * wave(1, p, 17.0));
            let flow = LUMEN * (1.0 + 0.15 * wave(2, p, 11.0));
            let signal = (tissue + inside * (flow - tissue)) * (1.0 + 0.1 * wave(3, p, 40.0));
            let (a, b) = gaussian_pair(&mut rng);
            ((signal + NOISE * a).powi(2) + (NOISE * b).powi(2)).sqrt().round()
        })
        .collect();
    Image::new(mask.grid, voxels)
}

/// Two independent samples of the standard normal distribution (Box–Muller).
fn gaussian_pair(rng: &mut impl Rng) -> (f32, f32) {
    let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
    let angle = std::f32::consts::TAU * rng.random::<f32>();
    (radius * angle.cos(), radius * angle.sin())
}

/// Gaussian blur along one axis, sigma in voxels.
fn blur(values: &mut [f32], shape: [usize; 3], axis: usize, sigma: f32) {
    let reach = (3.0 * sigma).ceil() as i64;
    let weights: Vec<f32> = (-reach..=reach).map(|i| (-0.5 * (i as f32 / sigma).powi(2)).exp()).collect();
    let total: f32 = weights.iter().sum();
    let stride: usize = shape[axis + 1..].iter().product();
    let length = shape[axis];
    let mut line = vec![0.0f32; length];
    for start in (0..values.len()).filter(|i| (i / stride).is_multiple_of(length)) {
        for (i, v) in line.iter_mut().enumerate() {
            *v = values[start + i * stride];
        }
        for i in 0..length as i64 {
            let sum: f32 = (-reach..=reach)
                .zip(&weights)
                .map(|(d, w)| w * line[(i + d).clamp(0, length as i64 - 1) as usize])
                .sum();
            values[start + i as usize * stride] = sum / total;
        }
    }
}
