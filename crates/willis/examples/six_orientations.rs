//! Writes one phantom with an aneurysm as six DICOM series, to check outputs with other programs.
//!
//! ```text
//! cargo run --release --example six_orientations -- OUT
//! ```
//! OUT gets a folder per orientation: axial, coronal, sagittal, oblique, flipped (rows and columns
//! run to the right and to the front) and tilted (sheared by a gantry tilt). `truth.json` has the
//! centre of the aneurysm, LPS mm.

use std::path::PathBuf;

use anyhow::Context;
use willis_core::{Grid, Image, Modality, Shape, Spacing, VoxelPoint};
use willis_phantom::{LesionPlan, Phantom, PhantomSpec, SeriesUids, SlicePlane, synthesise, write_instances};

const SEED: u64 = 3;

fn main() -> anyhow::Result<()> {
    let output: PathBuf = std::env::args_os().nth(1).context("usage: six_orientations OUT")?.into();
    let axial = PhantomSpec {
        lesions: LesionPlan::Exact(1),
        shape: Shape::new(128, 176, 160),
        spacing: Spacing::new(0.8, 0.6, 0.65),
        ..PhantomSpec::low_resolution(Modality::Mra)
    };
    let series = [
        ("axial", axial.clone()),
        ("coronal", PhantomSpec { plane: SlicePlane::Coronal, ..axial.clone() }),
        ("sagittal", PhantomSpec { plane: SlicePlane::Sagittal, ..axial.clone() }),
        ("oblique", PhantomSpec { oblique_rad: [0.3, -0.2, 0.25], ..axial.clone() }),
        ("flipped", axial.clone()),
        ("tilted", PhantomSpec { tilt_rad: 0.25, ..axial }),
    ];
    for (index, (name, spec)) in (0..).zip(series) {
        let mut phantom = synthesise(&spec, SEED);
        if name == "flipped" {
            phantom = flipped(phantom);
        }
        let folder = output.join(name);
        write_instances(&folder.join("dicom"), &phantom, &SeriesUids::new(SEED, index))?;
        let centres: Vec<[f64; 3]> = phantom.lesions.iter().map(|lesion| lesion.centre.xyz()).collect();
        std::fs::write(folder.join("truth.json"), serde_json::to_string(&centres)?)?;
        println!("{}", folder.display());
    }
    Ok(())
}

/// The same phantom, stored with rows and columns in the opposite direction.
fn flipped(phantom: Phantom) -> Phantom {
    let Image { grid, voxels } = phantom.volume;
    let (rows, columns) = (grid.shape.y, grid.shape.x);
    let last = VoxelPoint::new(0.0, rows as f64 - 1.0, columns as f64 - 1.0);
    let affine = grid.affine.sub_grid(last, VoxelPoint::new(1.0, -1.0, -1.0));
    let voxels = voxels.chunks_exact(rows * columns).flat_map(|slice| slice.iter().rev().copied()).collect();
    Phantom { volume: Image::new(Grid::new(grid.shape, affine), voxels), ..phantom }
}
