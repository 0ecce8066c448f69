//! `willis physics`: solves partial differential equations by physics-informed nets.

mod chart;
mod outputs;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::json;
use willis_core::files::{atomic::write_atomically, npy};
use willis_physics::cases::Setup;
use willis_physics::optimise::OptimiserKind;
use willis_physics::real::Real;
use willis_physics::sample::SamplerKind;
use willis_physics::solver::{Ended, Reached, Solver};

use super::{Outcome, destination};
use crate::cli::{Format, PhysicsCommand, PrecisionName, SolveArgs};
use crate::progress::Progress;

/// What identifies a run, in its folder.
const RECORD: &str = "setup.json";
/// State from which a run resumes, in its folder.
const CHECKPOINT: &str = "checkpoint.npy";
/// Results, in the folder of the run.
const SUMMARY: &str = "summary.json";

/// Runs the command.
pub fn run(command: &PhysicsCommand, progress: &Progress) -> anyhow::Result<Outcome> {
    let PhysicsCommand::Solve(args) = command;
    let mut setup = Setup::new(args.case.into());
    if args.parameters.iter().any(|parameter| parameter == "list") {
        for (name, value) in setup.parameters() {
            println!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_string));
        }
        return Ok(Outcome::Done);
    }
    if let Some(optimiser) = args.optimiser {
        setup.solver.optimiser = optimiser.into();
        // R3 changes its points at every step of Adam; a quasi-Newton method needs them to stay.
        if setup.solver.optimiser == OptimiserKind::Lbfgs {
            setup.solver.sampler = SamplerKind::Fixed;
        }
    }
    if let Some(sampler) = args.sampler {
        setup.solver.sampler = sampler.into();
        let first_order = matches!(setup.solver.optimiser, OptimiserKind::Adam | OptimiserKind::Soap);
        if first_order && matches!(setup.solver.sampler, SamplerKind::R3 | SamplerKind::CausalR3) {
            setup.solver.redraw_every = 1;
        }
    }
    for parameter in &args.parameters {
        setup.set(parameter)?;
    }
    match args.precision {
        PrecisionName::F64 => solve::<f64>(args, &setup, progress),
        PrecisionName::F32 => solve::<f32>(args, &setup, progress),
    }
}

fn solve<F: Real>(args: &SolveArgs, setup: &Setup, progress: &Progress) -> anyhow::Result<Outcome> {
    destination::folder(&args.output)?;
    let problem = setup.problem()?;
    let at = args.at.as_deref().map(|path| read_points(path, problem.inputs.len())).transpose()?;
    let mut solver = Solver::<F>::new(problem, setup.solver, args.seed)?;
    std::fs::create_dir_all(&args.output).with_context(|| format!("cannot create {}", args.output.display()))?;
    let precision = if args.precision == PrecisionName::F64 { "f64" } else { "f32" };
    let record = json!({ "setup": setup, "precision": precision, "seed": args.seed });
    let mut seconds = resume(&args.output, &record, &mut solver)?;

    let bar = progress.bar("solve", solver.total_steps() as u64);
    bar.set_position(solver.step() as u64);
    let checkpoint = args.output.join(CHECKPOINT);
    let mut failed = None;
    let start = Instant::now();
    let names: Vec<&str> = solver.problem().terms.iter().map(|term| term.name).collect();
    let ended = solver.run(
        args.seconds.map(Duration::from_secs),
        |solver, loss| {
            bar.set_position(solver.step() as u64);
            let row = solver.history().last();
            let terms = names.iter().zip(row.map(|row| row.losses.as_slice()).unwrap_or_default());
            let terms: Vec<String> = terms.map(|(name, loss)| format!("{name} {loss:.1e}")).collect();
            bar.set_message(format!("loss {loss:.2e} ({})", terms.join(", ")));
        },
        |solver| failed = failed.take().or(save(&checkpoint, solver).err()),
    )?;
    bar.finish_and_clear();
    if let Some(error) = failed {
        return Err(error);
    }
    save(&checkpoint, &solver)?;
    seconds += start.elapsed().as_secs_f64();

    let scores = solver.scores()?;
    let summary = summary(&solver, &scores, ended, seconds, &record);
    let text = serde_json::to_string_pretty(&summary)? + "\n";
    outputs::write(&args.output, &solver, &scores)?;
    if let Some(points) = at {
        let values = solver.evaluate(&solver.problem().outputs, &points)?;
        let shape = [points.len() / solver.problem().inputs.len(), solver.problem().outputs.len()];
        npy::write_f64(&args.output.join("values.npy"), &shape, &values)?;
    }
    write_atomically(&args.output.join(SUMMARY), |file| file.write_all(text.as_bytes()))?;
    match args.format {
        Format::Json => print!("{text}"),
        Format::Text => print_table(&solver, &scores, seconds),
    }
    Ok(verdict(&scores, ended, solver.step()))
}

/// Loads the state of the folder into the solver; returns the seconds spent before.
fn resume<F: Real>(folder: &Path, record: &serde_json::Value, solver: &mut Solver<F>) -> anyhow::Result<f64> {
    let (path, checkpoint) = (folder.join(RECORD), folder.join(CHECKPOINT));
    let text = serde_json::to_string_pretty(record)? + "\n";
    if let Ok(old) = std::fs::read_to_string(&path) {
        ensure!(
            old == text,
            "{} holds a run with other settings (see {RECORD}); choose another folder or remove it",
            folder.display()
        );
        if let Ok(content) = std::fs::read(&checkpoint) {
            let (_, state) = npy::parse_f64(&content).with_context(|| checkpoint.display().to_string())?;
            solver.load(&state).with_context(|| checkpoint.display().to_string())?;
        }
    } else {
        write_atomically(&path, |file| file.write_all(text.as_bytes()))?;
    }
    let summary = std::fs::read_to_string(folder.join(SUMMARY)).unwrap_or_default();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap_or_default();
    Ok(summary["seconds"].as_f64().unwrap_or_default())
}

fn save<F: Real>(path: &Path, solver: &Solver<F>) -> anyhow::Result<()> {
    let state = solver.save();
    Ok(npy::write_f64(path, &[state.len()], &state)?)
}

fn read_points(path: &Path, inputs: usize) -> anyhow::Result<Vec<f64>> {
    let content = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (shape, points) = npy::parse_f64(&content).with_context(|| path.display().to_string())?;
    if shape.len() != 2 || shape[1] != inputs {
        bail!("{}: expected an array [N, {inputs}], found {shape:?}", path.display());
    }
    ensure!(points.iter().all(|x| x.is_finite()), "{}: it contains values that are not finite", path.display());
    Ok(points)
}

fn summary<F: Real>(
    solver: &Solver<F>,
    scores: &[Reached],
    ended: Ended,
    seconds: f64,
    record: &serde_json::Value,
) -> serde_json::Value {
    let unknowns: serde_json::Map<String, serde_json::Value> = solver
        .problem()
        .unknowns
        .iter()
        .zip(solver.unknowns())
        .map(|(unknown, value)| (unknown.name.clone(), value.into()))
        .collect();
    let errors: serde_json::Map<String, serde_json::Value> =
        scores.iter().map(|score| (score.name.clone(), score.error.into())).collect();
    let limits: serde_json::Map<String, serde_json::Value> =
        scores.iter().map(|score| (score.name.clone(), score.limit.into())).collect();
    let ended = match ended {
        Ended::Finished => "every step was done",
        Ended::Stopped(reason) => reason,
        Ended::OutOfTime => "out of time",
    };
    json!({
        "schema": 1,
        "solved": scores.iter().all(Reached::is_met),
        "errors": errors,
        "limits": limits,
        "unknowns": unknowns,
        "steps": solver.step(),
        "ended": ended,
        "parameters": solver.parameters().len(),
        "seconds": seconds,
        "run": record,
    })
}

fn print_table<F: Real>(solver: &Solver<F>, scores: &[Reached], seconds: f64) {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(["", "relative error", "limit"]);
    for score in scores {
        let error = score.error.map_or_else(|| "n/a".to_string(), |error| format!("{error:.2e}"));
        table.add_row([score.name.clone(), error, format!("{:.1e}", score.limit)]);
    }
    println!("{table}");
    for (unknown, value) in solver.problem().unknowns.iter().zip(solver.unknowns()) {
        println!("{} = {value:.6}", unknown.name);
    }
    println!("{} steps, {seconds:.0} s", solver.step());
}

/// Says on stderr why a problem was not solved.
fn verdict(scores: &[Reached], ended: Ended, steps: usize) -> Outcome {
    let missed: Vec<String> = scores
        .iter()
        .filter(|score| !score.is_met())
        .map(|score| {
            let error = score.error.map_or_else(|| "undefined".to_string(), |error| format!("{error:.2e}"));
            format!("the error of {} is {error}, above its limit of {:.1e}", score.name, score.limit)
        })
        .collect();
    if missed.is_empty() {
        return Outcome::Done;
    }
    let cause = match ended {
        Ended::Finished => "allow more steps with --param steps=N".to_string(),
        Ended::Stopped(reason) => format!("the optimiser stopped at step {steps}: {reason}"),
        Ended::OutOfTime => "the time was up; the same command continues".to_string(),
    };
    eprintln!("not solved: {}; {cause}", missed.join("; "));
    Outcome::SomeFailed
}
