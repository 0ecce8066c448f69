//! The files of a solved problem, besides its summary.

use std::fmt::Write as _;
use std::path::Path;

use willis_core::files::atomic::write_atomically;
use willis_physics::files::vti::{self, ImageGrid, PointArray};
use willis_physics::real::Real;
use willis_physics::solver::{Reached, Solver};

use super::chart::{ChartLine, svg};

/// Writes `history.csv`, `history.svg` and `field.vti`.
pub(super) fn write<F: Real>(folder: &Path, solver: &Solver<F>, scores: &[Reached]) -> anyhow::Result<()> {
    let terms: Vec<String> = solver.problem().terms.iter().map(|term| format!("loss {}", term.name)).collect();
    let errors: Vec<String> = scores.iter().map(|score| format!("error {}", score.name)).collect();
    let mut table = format!("step,{},{}\n", terms.join(","), errors.join(","));
    for row in solver.history() {
        let numbers: Vec<String> = row.losses.iter().chain(&row.errors).map(|v| format!("{v:.6e}")).collect();
        let _ = writeln!(table, "{},{}", row.step, numbers.join(","));
    }
    write_atomically(&folder.join("history.csv"), |file| file.write_all(table.as_bytes()))?;
    let curve = |name: &String, value: &dyn Fn(usize) -> f64| ChartLine {
        name: name.clone(),
        points: solver.history().iter().enumerate().map(|(i, row)| (row.step as f64, value(i))).collect(),
    };
    let mut curves = Vec::new();
    for (k, name) in terms.iter().enumerate() {
        curves.push(curve(name, &|i| solver.history()[i].losses[k]));
    }
    for (k, name) in errors.iter().enumerate() {
        curves.push(curve(name, &|i| solver.history()[i].errors[k]));
    }
    let picture = svg("step", &curves);
    write_atomically(&folder.join("history.svg"), |file| file.write_all(picture.as_bytes()))?;
    field(folder, solver)
}

/// The solution on the raster of the problem, with its error where the exact solution is known.
fn field<F: Real>(folder: &Path, solver: &Solver<F>) -> anyhow::Result<()> {
    let problem = solver.problem();
    let points = problem.raster.points(&problem.inputs);
    let values = solver.evaluate(&problem.outputs, &points)?;
    let width = problem.outputs.len();
    let column = |values: &[f64], k: usize| values.iter().skip(k).step_by(width).copied().collect::<Vec<f64>>();
    let mut arrays: Vec<PointArray> = problem
        .outputs
        .iter()
        .enumerate()
        .map(|(k, name)| PointArray { name: name.clone(), components: 1, values: column(&values, k) })
        .collect();
    let place = |name: &str| problem.outputs.iter().position(|output| output == name);
    if let (Some(u), Some(v)) = (place("u"), place("v")) {
        let velocity = values.chunks(width).flat_map(|row| [row[u], row[v], place("w").map_or(0.0, |w| row[w])]);
        arrays.push(PointArray { name: "velocity".into(), components: 3, values: velocity.collect() });
    }
    if let Some(exact) = &problem.exact {
        let exact: Vec<f64> = points.chunks(problem.inputs.len()).flat_map(|point| exact(point)).collect();
        let error: Vec<f64> = values.iter().zip(&exact).map(|(value, exact)| value - exact).collect();
        for (k, name) in problem.outputs.iter().enumerate() {
            arrays.push(PointArray { name: format!("{name}_error"), components: 1, values: column(&error, k) });
        }
    }
    let mut grid = ImageGrid { counts: [1; 3], origin: [0.0; 3], spacing: [1.0; 3] };
    for (i, &(axis, count)) in problem.raster.axes.iter().enumerate() {
        let input = &problem.inputs[axis];
        grid.counts[i] = count;
        grid.origin[i] = input.low;
        grid.spacing[i] = (input.high - input.low) / (count.max(2) - 1) as f64;
    }
    vti::write(&folder.join("field.vti"), &grid, &arrays)?;
    Ok(())
}
