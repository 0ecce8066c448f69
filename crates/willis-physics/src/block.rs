//! A term of the loss: the mean square of the residuals of some equations over some points.
//!
//! Points are split into tiles of fixed size, tiles into a fixed number of groups, which run in
//! parallel. Gradients are summed in the order of the groups, so results do not depend on the number
//! of threads.

use std::sync::Arc;

use rayon::prelude::*;

use crate::equation::{EquationError, Names, Planes, System};
use crate::hard::{Ansatz, HardTile, hard_tiles};
use crate::net::features::{Feature, tile_features};
use crate::net::{Mlp, PointTile, Workspace};
use crate::real::Real;

/// Points per tile: the streams of a layer stay in the second-level cache.
const TILE: usize = 128;
/// Groups of tiles.
const GROUPS: usize = 8;

/// A net with its input map and hard conditions: a function from coordinates to outputs.
#[derive(Clone)]
pub struct Model {
    /// The net.
    pub net: Mlp,
    /// One letter per coordinate.
    pub inputs: Vec<char>,
    /// Input map, per coordinate.
    pub features: Vec<Feature>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
    /// Hard conditions.
    pub ansatz: Option<Ansatz>,
    /// Names of the unknown parameters, which follow those of the net in the vector of parameters.
    pub unknowns: Vec<String>,
}

/// A term of the loss at its present points.
pub struct Block<F> {
    system: Arc<System>,
    weight: f64,
    points: Vec<f64>,
    gate: Vec<f64>,
    groups: Vec<Group<F>>,
}

struct Group<F> {
    tiles: Vec<BlockTile<F>>,
    buffers: Buffers<F>,
    gradient: Vec<F>,
}

/// What evaluating a tile needs, kept from tile to tile.
struct Buffers<F> {
    workspace: Workspace<F>,
    planes: Planes<F>,
}

impl<F: Real> Default for Buffers<F> {
    fn default() -> Self {
        Self { workspace: Workspace::default(), planes: Planes::default() }
    }
}

struct BlockTile<F> {
    tile: PointTile<F>,
    hard: Vec<Option<HardTile<F>>>,
    /// `[columns, P]`
    data: Vec<F>,
    /// Weight of each point's residual; 1 without a gate.
    gate: Vec<F>,
    /// `√Σ r²` over the equations at the last evaluation.
    magnitude: Vec<F>,
}

impl Model {
    /// Number of parameters, unknowns included.
    pub fn parameter_count(&self) -> usize {
        self.net.parameter_count() + self.unknowns.len()
    }

    /// Compiles equations over the outputs, the unknowns and columns of data.
    ///
    /// # Errors
    /// when an equation has an unknown name or a derivative that is not supported
    pub fn compile(&self, equations: &[String], data: &[String]) -> Result<Arc<System>, EquationError> {
        let names = Names { inputs: &self.inputs, outputs: &self.outputs, unknowns: &self.unknowns, data };
        System::compile(names, equations).map(Arc::new)
    }

    /// Values of expressions (such as `u` or `u_y + v_x`) at points.
    ///
    /// # Shapes
    /// points `[N, inputs]` -> `[N, expressions]`
    ///
    /// # Errors
    /// when an expression has an unknown name or a derivative that is not supported
    pub fn evaluate<F: Real>(
        &self,
        parameters: &[F],
        expressions: &[String],
        points: &[f64],
    ) -> Result<Vec<f64>, EquationError> {
        let system = self.compile(expressions, &[])?;
        let width = self.inputs.len();
        let parts: Vec<Vec<f64>> = points
            .par_chunks(TILE * width)
            .map(|points| {
                let mut tile = self.tile::<F>(&system, points, &[], &[]);
                let mut buffers = Buffers::default();
                tile.residuals(self, &system, parameters, &mut buffers);
                let count = tile.tile.points;
                (0..count * system.count())
                    .map(|i| buffers.planes.residuals[i % system.count() * count + i / system.count()].as_f64())
                    .collect()
            })
            .collect();
        Ok(parts.concat())
    }

    /// Magnitude of the residual, `√Σ r²` over the equations, at points `[N, inputs]` with data `[N,
    /// columns]`.
    pub fn magnitudes<F: Real>(&self, system: &System, parameters: &[F], points: &[f64], data: &[f64]) -> Vec<f64> {
        let width = self.inputs.len();
        let columns = data.len() / (points.len() / width).max(1);
        let starts: Vec<usize> = (0..points.len() / width).step_by(TILE).collect();
        let parts: Vec<Vec<f64>> = starts
            .into_par_iter()
            .map(|start| {
                let end = (start + TILE).min(points.len() / width);
                let data = &data[start * columns..end * columns];
                let mut tile = self.tile::<F>(system, &points[start * width..end * width], data, &[]);
                let mut buffers = Buffers::default();
                tile.residuals(self, system, parameters, &mut buffers);
                let square = |p: usize| -> f64 {
                    buffers.planes.residuals.iter().skip(p).step_by(end - start).map(|r| r.as_f64().powi(2)).sum()
                };
                (0..end - start).map(|p| square(p).sqrt()).collect()
            })
            .collect();
        parts.concat()
    }

    fn tile<F: Real>(&self, system: &System, points: &[f64], data: &[f64], gate: &[f64]) -> BlockTile<F> {
        let count = points.len() / self.inputs.len();
        let columns = data.len() / count;
        let features = tile_features(&self.features, system.streams(), points);
        let hard = match &self.ansatz {
            Some(ansatz) => hard_tiles(ansatz, system.streams(), self.outputs.len(), points),
            None => Vec::new(),
        };
        let data = (0..columns * count).map(|i| F::of(data[i % count * columns + i / count])).collect();
        let gate =
            if gate.is_empty() { vec![F::of(1.0); count] } else { gate.iter().map(|&weight| F::of(weight)).collect() };
        BlockTile {
            tile: PointTile { points: count, features },
            hard,
            data,
            gate,
            magnitude: vec![F::default(); count],
        }
    }
}

impl<F: Real> BlockTile<F> {
    /// Residuals into `buffers.planes.residuals`.
    fn residuals(&mut self, model: &Model, system: &System, parameters: &[F], buffers: &mut Buffers<F>) {
        let Buffers { workspace, planes } = buffers;
        let (net, unknowns) = parameters.split_at(model.net.parameter_count());
        let (streams, points) = (system.streams(), self.tile.points);
        model.net.forward(net, streams, &self.tile, workspace);
        for (output, hard) in workspace.output.chunks_exact_mut(streams.count() * points).zip(&self.hard) {
            if let Some(hard) = hard {
                hard.apply(streams, points, output);
            }
        }
        system.residuals(&workspace.output, &self.data, unknowns, points, planes);
    }

    /// Sum of the squares of the residuals; adds its gradient times `factor` to `gradient`.
    fn evaluate(
        &mut self,
        model: &Model,
        system: &System,
        parameters: &[F],
        factor: F,
        buffers: &mut Buffers<F>,
        gradient: &mut [F],
    ) -> f64 {
        self.residuals(model, system, parameters, buffers);
        let Buffers { workspace, planes } = buffers;
        let points = self.tile.points;
        self.magnitude.fill(F::default());
        let mut sum = F::default();
        for residual in planes.residuals.chunks_exact_mut(points) {
            for ((residual, &gate), magnitude) in residual.iter_mut().zip(&self.gate).zip(&mut self.magnitude) {
                let weighted = *residual * gate;
                *magnitude += *residual * *residual;
                sum += weighted * weighted;
                *residual = F::of(2.0) * factor * weighted * gate;
            }
        }
        self.magnitude.iter_mut().for_each(|m| *m = m.sqrt());
        let (streams, split) = (system.streams(), model.net.parameter_count());
        let (to_net, to_unknowns) = gradient.split_at_mut(split);
        workspace.output_bar.clear();
        workspace.output_bar.resize(workspace.output.len(), F::default());
        system.adjoint(points, planes, &mut workspace.output_bar, to_unknowns);
        for (bar, hard) in workspace.output_bar.chunks_exact_mut(streams.count() * points).zip(&self.hard) {
            if let Some(hard) = hard {
                hard.adjoint(streams, points, bar);
            }
        }
        model.net.backward(&parameters[..split], streams, &self.tile, workspace, to_net);
        sum.as_f64()
    }
}

impl<F: Real> Block<F> {
    /// A term with this weight, without points.
    pub fn new(system: Arc<System>, weight: f64) -> Self {
        Self { system, weight, points: Vec::new(), gate: Vec::new(), groups: Vec::new() }
    }

    /// Replaces the points `[N, inputs]` and their data `[N, columns]`. The gate weighs the residual
    /// of each point; an empty one weighs all alike.
    pub fn set_points(&mut self, model: &Model, points: Vec<f64>, data: &[f64], gate: &[f64]) {
        let width = model.inputs.len();
        let count = points.len() / width;
        let columns = data.len().checked_div(count).unwrap_or(0);
        let starts: Vec<usize> = (0..count).step_by(TILE).collect();
        let system = Arc::clone(&self.system);
        let mut tiles: Vec<BlockTile<F>> = starts
            .into_par_iter()
            .map(|start| {
                let end = (start + TILE).min(count);
                let gate = if gate.is_empty() { gate } else { &gate[start..end] };
                model.tile(&system, &points[start * width..end * width], &data[start * columns..end * columns], gate)
            })
            .collect();
        self.gate = gate.to_vec();
        self.points = points;
        let size = tiles.len().div_ceil(GROUPS).max(1);
        self.groups.truncate(tiles.len().div_ceil(size));
        for i in 0..tiles.len().div_ceil(size) {
            let part: Vec<_> = tiles.drain(..size.min(tiles.len())).collect();
            match self.groups.get_mut(i) {
                Some(group) => group.tiles = part,
                None => self.groups.push(Group { tiles: part, buffers: Buffers::default(), gradient: Vec::new() }),
            }
        }
    }

    /// The points, `[N, inputs]`.
    pub fn points(&self) -> &[f64] {
        &self.points
    }

    /// The gate; empty if every point has weight 1.
    pub fn gate(&self) -> &[f64] {
        &self.gate
    }

    /// Magnitude of the residual at each point at the last evaluation.
    pub fn magnitudes(&self) -> Vec<f64> {
        self.groups.iter().flat_map(|group| &group.tiles).flat_map(|t| &t.magnitude).map(|m| m.as_f64()).collect()
    }

    /// The weighted mean square of the residuals; adds its gradient.
    pub fn evaluate(&mut self, model: &Model, parameters: &[F], gradient: &mut [F]) -> f64 {
        let count = self.points.len() / model.inputs.len();
        if count == 0 {
            return 0.0;
        }
        let factor = self.weight / count as f64;
        let system = &self.system;
        let sums: Vec<f64> = self
            .groups
            .par_iter_mut()
            .map(|Group { tiles, buffers, gradient }| {
                gradient.clear();
                gradient.resize(parameters.len(), F::default());
                let each = |tile: &mut BlockTile<F>| {
                    tile.evaluate(model, system, parameters, F::of(factor), buffers, gradient)
                };
                tiles.iter_mut().map(each).sum()
            })
            .collect();
        for group in &self.groups {
            for (to, from) in gradient.iter_mut().zip(&group.gradient) {
                *to += *from;
            }
        }
        factor * sums.iter().sum::<f64>()
    }
}
