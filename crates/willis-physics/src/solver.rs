//! The loop that solves a problem: draw points, evaluate, step, report; it can be saved and resumed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use crate::block::{Block, Model};
use crate::equation::{EquationError, System};
use crate::net::{Mlp, MlpConfig};
use crate::optimise::{Optimiser, OptimiserConfig, OptimiserKind, ParameterBlock, Position, Saved, Step, save_vector};
use crate::problem::{Field, Problem, Source};
use crate::real::Real;
use crate::sample::{Sampler, SamplerKind, stream};

/// What the optimiser minimises, as a function of the loss L.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    /// L.
    Plain,
    /// √L, which quasi-Newton methods minimise to smaller errors.
    Root,
    /// log L.
    Log,
}

impl Transform {
    /// Value and derivative of the transform.
    fn apply(self, loss: f64) -> (f64, f64) {
        // The loss of an exact solution is 0, where root and logarithm have no derivative.
        let loss = loss.max(1e-300);
        match self {
            Self::Plain => (loss, 1.0),
            Self::Root => (loss.sqrt(), 0.5 / loss.sqrt()),
            Self::Log => (loss.ln(), 1.0 / loss),
        }
    }
}

/// How a problem is solved.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SolverConfig {
    /// The net.
    pub net: MlpConfig,
    /// Points of the residual.
    pub points: usize,
    /// How they are drawn.
    pub sampler: SamplerKind,
    /// Steps between two redraws.
    pub redraw_every: usize,
    /// First steps, by Adam.
    pub warm_up_steps: usize,
    /// Further steps, by `optimiser`.
    pub steps: usize,
    /// Optimiser after the warm-up.
    pub optimiser: OptimiserKind,
    /// What it minimises.
    pub transform: Transform,
    /// Settings of the optimisers.
    pub settings: OptimiserConfig,
    /// Steps between two rows of the history.
    pub report_every: usize,
}

impl Default for SolverConfig {
    fn default() -> Self {
        Self {
            net: MlpConfig::default(),
            points: 2000,
            sampler: SamplerKind::ResidualDensity,
            redraw_every: 250,
            warm_up_steps: 500,
            steps: 2000,
            optimiser: OptimiserKind::Ssbroyden,
            transform: Transform::Root,
            settings: OptimiserConfig::default(),
            report_every: 50,
        }
    }
}

impl SolverConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let counts = [
            ("net.width", self.net.width, 4096),
            ("net.depth", self.net.depth, 64),
            ("points", self.points, 10_000_000),
            ("redraw_every", self.redraw_every, usize::MAX),
            ("report_every", self.report_every, usize::MAX),
        ];
        for (field, value, most) in counts {
            if !(1..=most).contains(&value) {
                return Err(InvalidValue::new(field, value, format!("must be between 1 and {most}")));
            }
        }
        if !(self.net.first_scale > 0.0 && self.net.first_scale.is_finite()) {
            return Err(InvalidValue::new(
                "net.first_scale",
                self.net.first_scale,
                "must be finite and greater than 0",
            ));
        }
        self.settings.validate().map_err(|error| error.within("settings"))
    }
}

/// Why a solver could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SolverError {
    /// An equation cannot be compiled.
    #[error(transparent)]
    Equation(#[from] EquationError),
    /// A setting is invalid.
    #[error("invalid setting: {0}")]
    Invalid(#[from] InvalidValue),
    /// The saved state is of another run.
    #[error("the saved state does not belong to this problem; remove it or choose another folder")]
    State,
}

/// A row of the history.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Steps done.
    pub step: usize,
    /// Weighted loss per term.
    pub losses: Vec<f64>,
    /// Error per score, then per unknown with a known truth.
    pub errors: Vec<f64>,
}

/// An error with its limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reached {
    /// Name of the score.
    pub name: String,
    /// Error; `None` if the reference is zero everywhere.
    pub error: Option<f64>,
    /// Largest error of a solved problem.
    pub limit: f64,
}

impl Reached {
    /// Whether the error is within its limit.
    pub fn is_met(&self) -> bool {
        self.error.is_some_and(|error| error <= self.limit)
    }
}

/// Why [`Solver::run`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every step was done.
    Finished,
    /// The optimiser can make no further progress; the reason.
    Stopped(&'static str),
    /// The time is up.
    OutOfTime,
}

/// A problem being solved.
pub struct Solver<F: Real> {
    problem: Problem,
    config: SolverConfig,
    seed: u64,
    model: Model,
    terms: Vec<TermState<F>>,
    sampler: Option<Sampler>,
    magnitudes: Vec<f64>,
    optimiser: Optimiser<F>,
    at: Position<F>,
    is_evaluated: bool,
    step: usize,
    stops: usize,
    history: Vec<Row>,
}

struct TermState<F> {
    system: Arc<System>,
    block: Block<F>,
    data: Option<Field>,
    is_sampled: bool,
    loss: f64,
}

impl<F: Real> Solver<F> {
    /// Draws the first parameters and points.
    ///
    /// # Errors
    /// when a setting is invalid or an equation cannot be compiled
    pub fn new(problem: Problem, config: SolverConfig, seed: u64) -> Result<Self, SolverError> {
        config.validate()?;
        let features = problem.inputs.iter().map(|input| input.feature.count()).sum();
        let model = Model {
            net: Mlp::of(&config.net, features, problem.outputs.len()),
            inputs: problem.inputs.iter().map(|input| input.letter).collect(),
            features: problem.inputs.iter().map(|input| input.feature).collect(),
            outputs: problem.outputs.clone(),
            ansatz: problem.ansatz.clone(),
            unknowns: problem.unknowns.iter().map(|unknown| unknown.name.clone()).collect(),
        };
        let count = model.parameter_count();
        let most = config.settings.ssbroyden.max_parameters;
        if config.optimiser == OptimiserKind::Ssbroyden && count > most {
            let rule = format!("gives {count} parameters; ssbroyden is limited to {most}");
            return Err(InvalidValue::new("net.width", config.net.width, rule).into());
        }
        let mut parameters: Vec<F> = model.net.init(config.net.first_scale, &mut stream(seed, "parameters", 0));
        parameters.extend(problem.unknowns.iter().map(|unknown| F::of(unknown.start)));
        let (mut terms, mut sampler) = (Vec::new(), None);
        let time = problem.inputs.iter().position(|input| input.letter == 't');
        let time = time.map(|axis| (axis, problem.inputs[axis].low, problem.inputs[axis].high));
        for (number, term) in problem.terms.iter().enumerate() {
            let system = model.compile(&term.equations, &term.columns)?;
            let rng = &mut stream(seed, "points", number);
            let (points, is_sampled, mut gate) = match &term.source {
                Source::Given { points, .. } => (points.clone(), false, Vec::new()),
                Source::Drawn(region, count) => (region.latin_hypercube(*count, rng), false, Vec::new()),
                Source::Sampled(region) => {
                    let new = Sampler::new(config.sampler, region.clone(), config.points, problem.inputs.len(), time);
                    let points = new.first(rng);
                    let gate = new.gate(&points);
                    sampler = Some(new);
                    (points, true, gate)
                }
            };
            let data = match &term.source {
                Source::Given { data, .. } => data.clone(),
                _ => data_at(term.data.as_ref(), &points, problem.inputs.len()),
            };
            let mut block = Block::new(Arc::clone(&system), term.weight);
            block.set_points(&model, points, &data, &std::mem::take(&mut gate));
            terms.push(TermState { system, block, data: term.data.clone(), is_sampled, loss: 0.0 });
        }
        let kind = if config.warm_up_steps > 0 { OptimiserKind::Adam } else { config.optimiser };
        let optimiser = Optimiser::new(kind, &config.settings, &parts(&model));
        Ok(Self {
            problem,
            config,
            seed,
            model,
            terms,
            sampler,
            magnitudes: Vec::new(),
            optimiser,
            at: Position { parameters, ..Position::default() },
            is_evaluated: false,
            step: 0,
            stops: 0,
            history: Vec::new(),
        })
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> usize {
        self.config.warm_up_steps + self.config.steps
    }

    /// Steps done.
    pub fn step(&self) -> usize {
        self.step
    }

    /// The net with its input map.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The problem.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Parameters of the net, then the unknowns.
    pub fn parameters(&self) -> &[F] {
        &self.at.parameters
    }

    /// The history.
    pub fn history(&self) -> &[Row] {
        &self.history
    }

    /// Values of the unknown parameters.
    pub fn unknowns(&self) -> Vec<f64> {
        self.at.parameters[self.model.net.parameter_count()..].iter().map(|v| v.as_f64()).collect()
    }

    /// Values of expressions at points `[N, inputs]`, as `[N, expressions]`.
    ///
    /// # Errors
    /// when an expression has an unknown name
    pub fn evaluate(&self, expressions: &[String], points: &[f64]) -> Result<Vec<f64>, EquationError> {
        self.model.evaluate(&self.at.parameters, expressions, points)
    }

    /// The errors at the present parameters.
    ///
    /// # Errors
    /// when the expression of a score has an unknown name
    pub fn scores(&self) -> Result<Vec<Reached>, EquationError> {
        let mut scores = Vec::new();
        for score in &self.problem.scores {
            let values = self.evaluate(std::slice::from_ref(&score.expression), &score.points)?;
            let error = score.measure.difference(&values, &score.reference);
            scores.push(Reached { name: score.name.clone(), error, limit: score.limit });
        }
        for (unknown, value) in self.problem.unknowns.iter().zip(self.unknowns()) {
            if let Some((truth, limit)) = unknown.truth {
                scores.push(Reached { name: unknown.name.clone(), error: Some((value / truth - 1.0).abs()), limit });
            }
        }
        Ok(scores)
    }

    /// Makes steps until the run ends or the time is up. `each` sees every new row of the history;
    /// `checkpoint` is called now and then with the solver.
    ///
    /// # Errors
    /// when the expression of a score has an unknown name
    pub fn run(
        &mut self,
        time: Option<Duration>,
        mut each: impl FnMut(&Self, f64),
        mut checkpoint: impl FnMut(&Self),
    ) -> Result<Ended, EquationError> {
        const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
        let start = Instant::now();
        let mut saved = Instant::now();
        while self.step < self.total_steps() {
            if time.is_some_and(|time| start.elapsed() >= time) {
                return Ok(Ended::OutOfTime);
            }
            if self.step == self.config.warm_up_steps && self.step > 0 {
                self.optimiser = Optimiser::new(self.config.optimiser, &self.config.settings, &parts(&self.model));
            }
            if self.step > 0 && self.step.is_multiple_of(self.config.redraw_every) {
                self.redraw();
            }
            if !self.is_evaluated {
                self.evaluate_here();
            }
            let step = self.one_step();
            self.step += 1;
            let mut ended = None;
            if let Step::Stopped(reason) = step {
                self.stops += 1;
                let redraws = self.sampler.as_ref().is_some_and(Sampler::redraws);
                let is_warm_up = self.step <= self.config.warm_up_steps;
                // New points may allow progress again, but not twice in vain.
                if redraws && self.stops < 3 || is_warm_up {
                    self.step = self.step.next_multiple_of(self.config.redraw_every).min(self.total_steps());
                } else {
                    ended = Some(Ended::Stopped(reason));
                }
            } else if self.step % self.config.redraw_every > 10 {
                self.stops = 0;
            }
            if self.step.is_multiple_of(self.config.report_every) || self.step == self.total_steps() || ended.is_some()
            {
                let loss: f64 = self.terms.iter().map(|term| term.loss).sum();
                let errors = self.scores()?.iter().map(|score| score.error.unwrap_or(f64::NAN)).collect();
                let losses = self.terms.iter().map(|term| term.loss).collect();
                self.history.push(Row { step: self.step, losses, errors });
                each(self, loss);
            }
            if let Some(ended) = ended {
                return Ok(ended);
            }
            if saved.elapsed() > CHECKPOINT_EVERY {
                checkpoint(self);
                saved = Instant::now();
            }
        }
        Ok(Ended::Finished)
    }

    /// The loss and its gradient at the present parameters and points.
    pub fn loss_and_gradient(&mut self) -> (f64, &[F]) {
        let Self { model, terms, at, .. } = self;
        evaluate(model, terms, Transform::Plain, &at.parameters, &mut at.gradient);
        self.is_evaluated = false;
        (self.terms.iter().map(|term| term.loss).sum(), &self.at.gradient)
    }

    fn one_step(&mut self) -> Step {
        let Self { model, terms, optimiser, at, config, .. } = self;
        let transform = config.transform;
        let step =
            optimiser.step(at, &mut |parameters, gradient| evaluate(model, terms, transform, parameters, gradient));
        self.is_evaluated = step == Step::Evaluated;
        step
    }

    fn evaluate_here(&mut self) {
        let Self { model, terms, at, config, .. } = self;
        at.value = evaluate(model, terms, config.transform, &at.parameters, &mut at.gradient);
        if self.sampler.as_ref().is_some_and(Sampler::needs_magnitudes) {
            self.magnitudes =
                self.terms.iter().find(|term| term.is_sampled).map(|term| term.block.magnitudes()).unwrap_or_default();
        }
        self.is_evaluated = true;
    }

    /// Draws new points for the sampled term.
    fn redraw(&mut self) {
        let Some(sampler) = self.sampler.as_mut().filter(|sampler| sampler.redraws()) else { return };
        let Some(term) = self.terms.iter_mut().find(|term| term.is_sampled) else { return };
        let rng = &mut stream(self.seed, "redraw", self.step);
        let (model, parameters, inputs) = (&self.model, &self.at.parameters, self.problem.inputs.len());
        let points = sampler.next(term.block.points(), &self.magnitudes, rng, |points| {
            let data = data_at(term.data.as_ref(), points, inputs);
            model.magnitudes(&term.system, parameters, points, &data)
        });
        let gate = sampler.gate(&points);
        let data = data_at(term.data.as_ref(), &points, inputs);
        term.block.set_points(model, points, &data, &gate);
        self.optimiser.objective_changed();
        self.is_evaluated = false;
    }

    /// The state as numbers, from which [`Solver::load`] continues to the same bytes.
    pub fn save(&self) -> Vec<f64> {
        let mut to = vec![self.step as f64, self.stops as f64];
        save_vector(&self.at.parameters, &mut to);
        save_vector(&self.magnitudes, &mut to);
        let term = self.terms.iter().find(|term| term.is_sampled);
        save_vector(term.map_or(&[][..], |term| term.block.points()), &mut to);
        save_vector(term.map_or(&[][..], |term| term.block.gate()), &mut to);
        to.push(self.sampler.as_ref().map_or(0.0, Sampler::gate_position));
        to.push(self.history.len() as f64);
        for row in &self.history {
            to.push(row.step as f64);
            save_vector(&row.losses, &mut to);
            save_vector(&row.errors, &mut to);
        }
        self.optimiser.save(&mut to);
        to
    }

    /// Restores a saved state.
    ///
    /// # Errors
    /// [`SolverError::State`] if it belongs to another problem
    pub fn load(&mut self, state: &[f64]) -> Result<(), SolverError> {
        self.restore(&mut Saved(state)).ok_or(SolverError::State)
    }

    fn restore(&mut self, from: &mut Saved<'_>) -> Option<()> {
        (self.step, self.stops) = (from.number()? as usize, from.number()? as usize);
        let parameters: Vec<F> = from.vector()?;
        if parameters.len() != self.at.parameters.len() {
            return None;
        }
        self.at.parameters = parameters;
        self.magnitudes = from.vector()?;
        let (points, gate): (Vec<f64>, Vec<f64>) = (from.vector()?, from.vector()?);
        let position = from.number()?;
        if let Some(term) = self.terms.iter_mut().find(|term| term.is_sampled) {
            let data = data_at(term.data.as_ref(), &points, self.problem.inputs.len());
            term.block.set_points(&self.model, points, &data, &gate);
        }
        if let Some(sampler) = &mut self.sampler {
            sampler.set_gate_position(position);
        }
        let rows = from.number()? as usize;
        let row = |from: &mut Saved<'_>| {
            Some(Row { step: from.number()? as usize, losses: from.vector()?, errors: from.vector()? })
        };
        self.history = (0..rows).map(|_| row(from)).collect::<Option<_>>()?;
        let kind = if self.step > self.config.warm_up_steps || self.config.warm_up_steps == 0 {
            self.config.optimiser
        } else {
            OptimiserKind::Adam
        };
        self.optimiser = Optimiser::new(kind, &self.config.settings, &parts(&self.model));
        self.optimiser.load(from)?;
        let magnitudes = std::mem::take(&mut self.magnitudes);
        self.evaluate_here();
        self.magnitudes = magnitudes;
        Some(())
    }
}

/// The layers as matrices and vectors, then the unknowns.
fn parts(model: &Model) -> Vec<ParameterBlock> {
    let mut parts = Vec::new();
    for layer in model.net.layers() {
        parts.push(ParameterBlock { range: layer.weights.clone(), columns: Some(layer.inputs) });
        parts.push(ParameterBlock { range: layer.biases.clone(), columns: None });
    }
    if !model.unknowns.is_empty() {
        parts.push(ParameterBlock { range: model.net.parameter_count()..model.parameter_count(), columns: None });
    }
    parts
}

fn data_at(data: Option<&Field>, points: &[f64], inputs: usize) -> Vec<f64> {
    data.map(|data| points.chunks_exact(inputs).flat_map(|point| data(point)).collect()).unwrap_or_default()
}

/// The transformed loss and its gradient; records the loss of each term.
fn evaluate<F: Real>(
    model: &Model,
    terms: &mut [TermState<F>],
    transform: Transform,
    parameters: &[F],
    gradient: &mut Vec<F>,
) -> F {
    gradient.clear();
    gradient.resize(parameters.len(), F::default());
    for term in terms.iter_mut() {
        term.loss = term.block.evaluate(model, parameters, gradient);
    }
    let (value, factor) = transform.apply(terms.iter().map(|term| term.loss).sum());
    let factor = F::of(factor);
    gradient.iter_mut().for_each(|g| *g *= factor);
    F::of(value)
}
