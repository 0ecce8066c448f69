//! Forward and backward pass of a net over one tile of points.

use super::{Mlp, activation};
use crate::matrix::{Matrix, Store, product, product_transposed};
use crate::real::Real;
use crate::streams::Streams;

/// The input of a net: the features of some points with their derivatives.
#[derive(Debug, Clone)]
pub struct PointTile<F> {
    /// P, number of points.
    pub points: usize,
    /// `[S, P, I]`.
    pub features: Vec<F>,
}

/// Memory of the passes, reused from tile to tile.
#[derive(Debug, Default)]
pub struct Workspace<F> {
    /// Per hidden layer, before and after the activation, `[S, P, O]`.
    before: Vec<Vec<F>>,
    after: Vec<Vec<F>>,
    /// Output `[O, S, P]`.
    pub output: Vec<F>,
    /// Adjoint of the output `[O, S, P]`; input of the backward pass.
    pub output_bar: Vec<F>,
    bar: Vec<F>,
    bar_below: Vec<F>,
}

impl Mlp {
    /// Computes the output of a tile with its derivatives into `workspace.output`.
    ///
    /// # Shapes
    /// features `[S, P, I]` -> output `[O, S, P]`
    ///
    /// # Panics
    /// if the tile has other sizes than the net and the streams
    pub fn forward<F: Real>(
        &self,
        parameters: &[F],
        streams: &Streams,
        tile: &PointTile<F>,
        workspace: &mut Workspace<F>,
    ) {
        let n = tile.points * streams.count();
        assert_eq!(tile.features.len(), n * self.inputs(), "features of {} points", tile.points);
        let (last, hidden) = self.layers().split_last().expect("a net has a layer");
        workspace.before.resize_with(hidden.len(), Vec::new);
        workspace.after.resize_with(hidden.len(), Vec::new);
        for (i, layer) in hidden.iter().enumerate() {
            let (below, above) = workspace.after.split_at_mut(i);
            let input = below.last().unwrap_or(&tile.features);
            let z = &mut workspace.before[i];
            z.resize(n * layer.outputs, F::default());
            let weights = Matrix::of_rows(&parameters[layer.weights.clone()], layer.inputs);
            product(Matrix::of_rows(input, layer.inputs), weights.transposed(), Store::Replace, z);
            let biases = &parameters[layer.biases.clone()];
            for row in z[..tile.points * layer.outputs].chunks_exact_mut(layer.outputs) {
                for (z, bias) in row.iter_mut().zip(biases) {
                    *z += *bias;
                }
            }
            above[0].resize(z.len(), F::default());
            activation::forward(self.activation, streams, z, &mut above[0]);
        }
        let input = workspace.after.last().unwrap_or(&tile.features);
        let weights = Matrix::of_rows(&parameters[last.weights.clone()], last.inputs);
        workspace.output.resize(n * last.outputs, F::default());
        product_transposed(Matrix::of_rows(input, last.inputs), weights.transposed(), &mut workspace.output);
        for (output, bias) in workspace.output.chunks_exact_mut(n).zip(&parameters[last.biases.clone()]) {
            for value in &mut output[..tile.points] {
                *value += *bias;
            }
        }
    }

    /// Adds the gradient with respect to the parameters, given the adjoint of the output in
    /// `workspace.output_bar`. [`Mlp::forward`] must have run on the same tile.
    ///
    /// # Shapes
    /// output adjoint `[O, S, P]` -> gradient like the parameters
    pub fn backward<F: Real>(
        &self,
        parameters: &[F],
        streams: &Streams,
        tile: &PointTile<F>,
        workspace: &mut Workspace<F>,
        gradient: &mut [F],
    ) {
        let n = tile.points * streams.count();
        let Workspace { before, after, output_bar, bar, bar_below, .. } = workspace;
        for (i, layer) in self.layers().iter().enumerate().rev() {
            let is_last = i + 1 == self.layers().len();
            // The adjoint of z, transposed: `[O, N]`.
            let z_bar =
                if is_last { Matrix::of_rows(output_bar, n) } else { Matrix::of_rows(bar, layer.outputs).transposed() };
            let input = if i == 0 { &tile.features } else { &after[i - 1] };
            product(z_bar, Matrix::of_rows(input, layer.inputs), Store::Add, &mut gradient[layer.weights.clone()]);
            let to = &mut gradient[layer.biases.clone()];
            if is_last {
                for (to, bar) in to.iter_mut().zip(output_bar.chunks_exact(n)) {
                    for value in &bar[..tile.points] {
                        *to += *value;
                    }
                }
            } else {
                for row in bar[..tile.points * layer.outputs].chunks_exact(layer.outputs) {
                    for (to, value) in to.iter_mut().zip(row) {
                        *to += *value;
                    }
                }
            }
            if i == 0 {
                return;
            }
            bar_below.resize(n * layer.inputs, F::default());
            let weights = Matrix::of_rows(&parameters[layer.weights.clone()], layer.inputs);
            product(z_bar.transposed(), weights, Store::Replace, bar_below);
            activation::backward(self.activation, streams, &before[i - 1], bar_below);
            std::mem::swap(bar, bar_below);
        }
    }
}
