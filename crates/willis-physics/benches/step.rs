//! Times one evaluation of loss and gradient, for the comparison with PyTorch's nested automatic
//! differentiation (`benches/vs_pytorch/compare_physics.py`).
//!
//! Arguments: case, precision, width, depth, points, repetitions. Prints the loss and the median
//! seconds of an evaluation.

use std::time::Instant;

use willis_physics::cases::{CaseKind, Setup};
use willis_physics::real::Real;
use willis_physics::solver::Solver;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [case, precision, width, depth, points, repetitions] = arguments.as_slice() else {
        // `cargo test` and `cargo bench` without arguments run a smoke test.
        return time::<f64>(CaseKind::Kovasznay, ["width=8", "depth=2", "points=64"], 2);
    };
    let kind = match case.as_str() {
        "beltrami" => CaseKind::Beltrami,
        "burgers" => CaseKind::Burgers,
        "convection" => CaseKind::Convection,
        _ => CaseKind::Kovasznay,
    };
    let settings = [format!("width={width}"), format!("depth={depth}"), format!("points={points}")];
    let settings = settings.each_ref().map(String::as_str);
    let repetitions = repetitions.parse()?;
    if precision == "f32" { time::<f32>(kind, settings, repetitions) } else { time::<f64>(kind, settings, repetitions) }
}

fn time<F: Real>(kind: CaseKind, settings: [&str; 3], repetitions: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut setup = Setup::new(kind);
    for assignment in settings {
        setup.set(assignment)?;
    }
    let mut solver = Solver::<F>::new(setup.problem()?, setup.solver, 1)?;
    let mut seconds = Vec::new();
    let mut loss = 0.0;
    for _ in 0..repetitions.max(1) {
        let start = Instant::now();
        loss = solver.loss_and_gradient().0;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    println!("{loss:.9e} {:.6e}", seconds[seconds.len() / 2]);
    Ok(())
}
