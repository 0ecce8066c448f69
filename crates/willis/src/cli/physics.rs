//! Arguments of `willis physics`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use willis_physics::cases::CaseKind;
use willis_physics::optimise::OptimiserKind;
use willis_physics::sample::SamplerKind;

use super::Format;

/// `willis physics ...`
#[derive(Debug, Subcommand)]
pub enum PhysicsCommand {
    /// Solve one of the built-in problems and compare it with its exact or reference solution.
    #[command(after_help = "\
Examples:
  willis physics solve poiseuille -o channel
  willis physics solve beltrami -o beltrami --at points.npy
  willis physics solve convection -o fast --param beta=50 --precision f64
  willis physics solve burgers -o r3 --optimiser adam --sampler r3 --param steps=20000
  willis physics solve burgers -o burgers --param list     # print every parameter

DIR gets summary.json (errors and settings), history.csv with a plot of it (history.svg), field.vti \
for ParaView, and values.npy with --at. A run that was killed resumes from its checkpoint and ends \
in the same files. The exit code is 1 if an error exceeds the limit stated for the case.")]
    Solve(SolveArgs),
}

/// `willis physics solve`
#[derive(Debug, Args)]
pub struct SolveArgs {
    /// Problem.
    #[arg(value_enum)]
    pub case: CaseName,
    /// Folder for the results.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Set a parameter of the problem or of the solver; repeat for more. `list` prints them.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// Number type of the net.
    #[arg(long, value_enum, default_value = "f64")]
    pub precision: PrecisionName,
    /// Optimiser after the warm-up by Adam.
    #[arg(long, value_enum)]
    pub optimiser: Option<OptimiserName>,
    /// How the points of the residual are drawn.
    #[arg(long, value_enum)]
    pub sampler: Option<SamplerName>,
    /// Stop after this time; the same command without it continues.
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<u64>,
    /// Seed of the parameters and the points.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// .npy array `[N, inputs]` of points at which to write the solution: x, y, z, t as far as the
    /// problem has them.
    #[arg(long, value_name = "POINTS.npy")]
    pub at: Option<PathBuf>,
    /// Format of stdout.
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// Name of a [`CaseKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CaseName {
    /// Exact unsteady flow in a cube, 3D (Ethier and Steinman).
    Beltrami,
    /// Flow in a plane channel.
    Poiseuille,
    /// Pulsating flow in a pipe.
    Womersley,
    /// Burgers' equation with a shock.
    Burgers,
    /// Allen-Cahn equation.
    AllenCahn,
    /// Convection at constant speed; `beta` is the speed.
    Convection,
    /// Steady flow behind a grid, 2D.
    Kovasznay,
}

impl From<CaseName> for CaseKind {
    fn from(name: CaseName) -> Self {
        match name {
            CaseName::Beltrami => Self::Beltrami,
            CaseName::Poiseuille => Self::Poiseuille,
            CaseName::Womersley => Self::Womersley,
            CaseName::Burgers => Self::Burgers,
            CaseName::AllenCahn => Self::AllenCahn,
            CaseName::Convection => Self::Convection,
            CaseName::Kovasznay => Self::Kovasznay,
        }
    }
}

/// Number type of a net.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionName {
    /// Double precision.
    F64,
    /// Single precision.
    F32,
}

/// Name of an [`OptimiserKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OptimiserName {
    /// Adam.
    Adam,
    /// L-BFGS with a strong Wolfe line search.
    Lbfgs,
    /// Self-scaled Broyden with a dense inverse Hessian.
    Ssbroyden,
    /// SOAP.
    Soap,
}

impl From<OptimiserName> for OptimiserKind {
    fn from(name: OptimiserName) -> Self {
        match name {
            OptimiserName::Adam => Self::Adam,
            OptimiserName::Lbfgs => Self::Lbfgs,
            OptimiserName::Ssbroyden => Self::Ssbroyden,
            OptimiserName::Soap => Self::Soap,
        }
    }
}

/// Name of a [`SamplerKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SamplerName {
    /// Once.
    Fixed,
    /// Uniformly at every redraw.
    Redrawn,
    /// As a Latin hypercube at every redraw.
    LatinHypercube,
    /// Retain, resample, release.
    R3,
    /// R3 with a gate in time.
    CausalR3,
    /// In proportion to the residual at every redraw.
    ResidualDensity,
}

impl From<SamplerName> for SamplerKind {
    fn from(name: SamplerName) -> Self {
        match name {
            SamplerName::Fixed => Self::Fixed,
            SamplerName::Redrawn => Self::Redrawn,
            SamplerName::LatinHypercube => Self::LatinHypercube,
            SamplerName::R3 => Self::R3,
            SamplerName::CausalR3 => Self::CausalR3,
            SamplerName::ResidualDensity => Self::ResidualDensity,
        }
    }
}
