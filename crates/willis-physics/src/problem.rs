//! A problem: what a net shall fulfil, and how the result is scored.

use std::sync::Arc;

use crate::hard::Ansatz;
use crate::net::features::Feature;
use crate::sample::SampleRegion;

/// Values per point: exact solutions and data.
pub type Field = Arc<dyn Fn(&[f64]) -> Vec<f64> + Send + Sync>;

/// A coordinate.
#[derive(Debug, Clone, PartialEq)]
pub struct InputAxis {
    /// Its letter in equations: x, y, z or t.
    pub letter: char,
    /// Lower end of the domain.
    pub low: f64,
    /// Upper end of the domain.
    pub high: f64,
    /// How it enters the net.
    pub feature: Feature,
}

impl InputAxis {
    /// A coordinate that is scaled to [-1, 1].
    pub fn scaled(letter: char, low: f64, high: f64) -> Self {
        Self { letter, low, high, feature: Feature::Scaled { low, high } }
    }

    /// A coordinate whose domain is one period.
    pub fn periodic(letter: char, low: f64, high: f64, harmonics: usize) -> Self {
        Self { letter, low, high, feature: Feature::Periodic { period: high - low, harmonics } }
    }
}

/// A parameter of the equations that is found together with the solution.
#[derive(Debug, Clone, PartialEq)]
pub struct Unknown {
    /// Its name in equations.
    pub name: String,
    /// First value.
    pub start: f64,
    /// True value with the largest relative error, if it is known.
    pub truth: Option<(f64, f64)>,
}

/// Where a term of the loss is evaluated.
#[derive(Clone)]
pub enum Source {
    /// Points `[N, inputs]` with data `[N, columns]`.
    Given {
        /// Points.
        points: Vec<f64>,
        /// Data.
        data: Vec<f64>,
    },
    /// Points that the configured sampler draws from a region.
    Sampled(SampleRegion),
    /// A Latin hypercube that is drawn once.
    Drawn(SampleRegion, usize),
}

/// A term of the loss: the weighted mean square of residuals.
#[derive(Clone)]
pub struct Term {
    /// Name in tables.
    pub name: &'static str,
    /// Weight.
    pub weight: f64,
    /// Equations whose residuals shall vanish.
    pub equations: Vec<String>,
    /// Points.
    pub source: Source,
    /// Names of the columns of data.
    pub columns: Vec<String>,
    /// Data at drawn points; not used for given ones.
    pub data: Option<Field>,
}

impl Term {
    /// Equations without data.
    pub fn new(name: &'static str, weight: f64, equations: &[&str], source: Source) -> Self {
        let equations = equations.iter().map(ToString::to_string).collect();
        Self { name, weight, equations, source, columns: Vec::new(), data: None }
    }

    /// Adds columns of data that a function gives at drawn points.
    pub fn with_data(self, columns: &[&str], data: Field) -> Self {
        Self { columns: columns.iter().map(ToString::to_string).collect(), data: Some(data), ..self }
    }
}

/// How a difference is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// `‖u - û‖ / ‖û‖`
    Relative,
    /// The same after the mean of both is removed, for pressures.
    RelativeCentred,
}

impl Measure {
    /// The difference of values from their reference; `None` if the reference is zero.
    pub fn difference(self, values: &[f64], reference: &[f64]) -> Option<f64> {
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
        let (a, b) = match self {
            Self::Relative => (0.0, 0.0),
            Self::RelativeCentred => (mean(values), mean(reference)),
        };
        let norm: f64 = reference.iter().map(|r| (r - b) * (r - b)).sum();
        let error: f64 = values.iter().zip(reference).map(|(v, r)| (v - a - r + b).powi(2)).sum();
        (norm > 0.0).then(|| (error / norm).sqrt())
    }
}

/// An error that decides whether the problem was solved.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Name in tables.
    pub name: String,
    /// What is compared: an output or a derivative of one.
    pub expression: String,
    /// Points, `[N, inputs]`.
    pub points: Vec<f64>,
    /// Reference values, `[N]`.
    pub reference: Vec<f64>,
    /// Norm.
    pub measure: Measure,
    /// Largest error of a solved problem.
    pub limit: f64,
}

/// A rectangular grid over at most three of the coordinates, for the picture of the solution.
#[derive(Debug, Clone, PartialEq)]
pub struct Raster {
    /// Coordinates that vary, fastest first, with their number of points.
    pub axes: Vec<(usize, usize)>,
    /// Value of each coordinate that does not vary; the others are ignored.
    pub fixed: Vec<f64>,
}

/// Everything that defines a problem.
#[derive(Clone)]
pub struct Problem {
    /// Coordinates.
    pub inputs: Vec<InputAxis>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
    /// Hard conditions.
    pub ansatz: Option<Ansatz>,
    /// Unknown parameters.
    pub unknowns: Vec<Unknown>,
    /// Terms of the loss.
    pub terms: Vec<Term>,
    /// Errors to reach.
    pub scores: Vec<Score>,
    /// The exact solution, per output.
    pub exact: Option<Field>,
    /// Grid of the picture.
    pub raster: Raster,
}

impl Problem {
    /// The box of the coordinates as a region.
    pub fn domain(inputs: &[InputAxis]) -> SampleRegion {
        let low: Vec<f64> = inputs.iter().map(|input| input.low).collect();
        let high: Vec<f64> = inputs.iter().map(|input| input.high).collect();
        SampleRegion::cuboid(&low, &high)
    }

    /// Scores of outputs against an exact solution at points: (output, measure, limit).
    pub fn exact_scores(
        outputs: &[String],
        exact: &Field,
        points: &[f64],
        inputs: usize,
        wanted: &[(&str, Measure, f64)],
    ) -> Vec<Score> {
        let values: Vec<Vec<f64>> = points.chunks_exact(inputs).map(|point| exact(point)).collect();
        wanted
            .iter()
            .filter_map(|&(name, measure, limit)| {
                let column = outputs.iter().position(|output| output == name)?;
                Some(Score {
                    name: name.to_string(),
                    expression: name.to_string(),
                    points: points.to_vec(),
                    reference: values.iter().map(|row| row[column]).collect(),
                    measure,
                    limit,
                })
            })
            .collect()
    }
}

impl Raster {
    /// The points of the grid, the first axis fastest.
    pub fn points(&self, inputs: &[InputAxis]) -> Vec<f64> {
        let total: usize = self.axes.iter().map(|&(_, count)| count).product();
        let mut points = Vec::with_capacity(total * inputs.len());
        for i in 0..total {
            let mut point = self.fixed.clone();
            let mut rest = i;
            for &(axis, count) in &self.axes {
                let input = &inputs[axis];
                let fraction = if count > 1 { (rest % count) as f64 / (count - 1) as f64 } else { 0.5 };
                point[axis] = input.low + (input.high - input.low) * fraction;
                rest /= count;
            }
            points.extend(point);
        }
        points
    }
}
