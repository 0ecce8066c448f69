//! The commands, one module each.

mod benchmark;
mod cohort;
mod demo;
mod destination;
mod evaluate;
mod net;
mod physics;
mod predict;
mod pretrain;
mod train;
mod volume;

use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::progress::Progress;

/// How a command ended that could run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every input was processed.
    Done,
    /// Some inputs failed and were named on stderr; the others were processed.
    SomeFailed,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => ExitCode::SUCCESS,
            Outcome::SomeFailed => ExitCode::from(1),
        }
    }
}

/// Runs one command.
///
/// # Errors
/// when the command could not run, or every input failed
pub fn run(cli: Cli) -> anyhow::Result<Outcome> {
    start_logging(cli.verbose);
    rayon::ThreadPoolBuilder::new().num_threads(cli.threads).build_global()?;
    let progress = Progress::new(cli.quiet);
    match cli.command {
        Command::Demo(args) => demo::run(&args, &progress),
        Command::Predict(args) => predict::run(&args, &progress),
        Command::Cohort(command) => cohort::run(&command, &progress),
        Command::Pretrain(args) => pretrain::run(&args, &progress),
        Command::Train(command) => train::run(&command, &progress),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Benchmark(args) => benchmark::run(&args, &progress),
        Command::Net(command) => net::run(&command),
        Command::Physics(command) => physics::run(&command, &progress),
        Command::Volume(command) => volume::run(&command),
        Command::Config(args) => {
            let config = Config::load(args.config.as_deref())?;
            println!("{}", if args.resolved { config.resolved() } else { config.sha256() });
            Ok(Outcome::Done)
        }
    }
}

fn start_logging(verbose: u8) {
    let level = ["warn", "info", "debug"][usize::from(verbose.min(2))];
    let filter =
        tracing_subscriber::EnvFilter::new(format!("error,willis={level},willis_imaging={level},willis_nets={level}"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
}
