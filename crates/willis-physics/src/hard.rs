//! Hard conditions: the solution is `u = A(x) + B(x) N(x)`, where N is the net, B vanishes where u
//! is given, and A has the given values there. The product rule carries the derivatives over.

use std::sync::Arc;

use crate::real::Real;
use crate::streams::Streams;
use crate::taylor::Taylor;

/// `(A, B)` per output at a point; `None` for an output that is the net's.
pub type Ansatz = Arc<dyn Fn(&[Taylor]) -> Vec<Option<(Taylor, Taylor)>> + Send + Sync>;

/// A and B of one output at the points of a tile, each `[S, P]`.
#[derive(Debug, Clone)]
pub(crate) struct HardTile<F> {
    a: Vec<F>,
    b: Vec<F>,
}

/// Takes A and B of an output, by its index, into its tile.
type StoreOutput<'a, F> = dyn FnMut(usize, Taylor, Taylor, &mut HardTile<F>) + 'a;

/// Evaluates an ansatz with its derivatives at points `[P, inputs]`, per output.
pub(crate) fn hard_tiles<F: Real>(
    ansatz: &Ansatz,
    streams: &Streams,
    outputs: usize,
    points: &[f64],
) -> Vec<Option<HardTile<F>>> {
    let count = points.len() / streams.inputs();
    let zero = || vec![F::default(); streams.count() * count];
    let mut tiles: Vec<Option<HardTile<F>>> = (0..outputs).map(|_| None).collect();
    for (p, point) in points.chunks_exact(streams.inputs()).enumerate() {
        let constant: Vec<Taylor> = point.iter().map(|&x| Taylor::constant(x)).collect();
        let mut seconds: Vec<Vec<[f64; 2]>> = vec![Vec::new(); outputs];
        let mut store = |values: Vec<Option<(Taylor, Taylor)>>, each: &mut StoreOutput<'_, F>| {
            for (output, pair) in values.into_iter().enumerate() {
                if let Some((a, b)) = pair {
                    let tile = tiles[output].get_or_insert_with(|| HardTile { a: zero(), b: zero() });
                    each(output, a, b, tile);
                }
            }
        };
        store(ansatz(&constant), &mut |_, a, b, tile| {
            (tile.a[p], tile.b[p]) = (F::of(a.value()), F::of(b.value()));
        });
        for direction in streams.directions() {
            let along: Vec<Taylor> =
                point.iter().zip(&direction.vector).map(|(&x, &rate)| Taylor::variable(x, rate)).collect();
            store(ansatz(&along), &mut |output, a, b, tile| {
                for order in 1..=direction.order {
                    let at = direction.stream(order) * count + p;
                    (tile.a[at], tile.b[at]) = (F::of(a.derivative(order)), F::of(b.derivative(order)));
                }
                seconds[output].push([a.derivative(2), b.derivative(2)]);
            });
        }
        for laplacian in streams.laplacians() {
            let at = laplacian.stream * count + p;
            for (tile, seconds) in tiles.iter_mut().zip(&seconds) {
                if let Some(tile) = tile {
                    let sum = |k: usize| laplacian.terms.iter().map(|&(d, c)| c * seconds[d][k]).sum();
                    (tile.a[at], tile.b[at]) = (F::of(sum(0)), F::of(sum(1)));
                }
            }
        }
    }
    tiles
}

impl<F: Real> HardTile<F> {
    /// Replaces the streams of the net by those of `A + B N`, in place.
    ///
    /// # Shapes
    /// n `[S, P]`
    pub fn apply(&self, streams: &Streams, points: usize, n: &mut [F]) {
        let (a, b) = (&self.a, &self.b);
        let at = |stream: usize, p: usize| stream * points + p;
        let (two, three) = (F::of(2.0), F::of(3.0));
        for p in 0..points {
            for laplacian in streams.laplacians() {
                let l = at(laplacian.stream, p);
                let mut value = a[l] + b[l] * n[p] + b[p] * n[l];
                for &(direction, weight) in &laplacian.terms {
                    let first = at(streams.directions()[direction].stream(1), p);
                    value += two * F::of(weight) * b[first] * n[first];
                }
                n[l] = value;
            }
            for direction in streams.directions() {
                let i = |order: usize| at(direction.stream(order), p);
                if direction.order == 3 {
                    let (i1, i2, i3) = (i(1), i(2), i(3));
                    n[i3] = a[i3] + b[i3] * n[p] + three * (b[i2] * n[i1] + b[i1] * n[i2]) + b[p] * n[i3];
                }
                if direction.order >= 2 {
                    let (i1, i2) = (i(1), i(2));
                    n[i2] = a[i2] + b[i2] * n[p] + two * b[i1] * n[i1] + b[p] * n[i2];
                }
                let i1 = i(1);
                n[i1] = a[i1] + b[i1] * n[p] + b[p] * n[i1];
            }
            n[p] = a[p] + b[p] * n[p];
        }
    }

    /// Turns the adjoint of the solution into that of the net, in place.
    pub fn adjoint(&self, streams: &Streams, points: usize, bar: &mut [F]) {
        let b = &self.b;
        let at = |stream: usize, p: usize| stream * points + p;
        let (two, three) = (F::of(2.0), F::of(3.0));
        for p in 0..points {
            let mut value = b[p] * bar[p];
            for direction in streams.directions() {
                let i = |order: usize| at(direction.stream(order), p);
                let i1 = i(1);
                value += b[i1] * bar[i1];
                let mut first = b[p] * bar[i1];
                if direction.order >= 2 {
                    let i2 = i(2);
                    value += b[i2] * bar[i2];
                    first += two * b[i1] * bar[i2];
                    let mut second = b[p] * bar[i2];
                    if direction.order == 3 {
                        let i3 = i(3);
                        value += b[i3] * bar[i3];
                        first += three * b[i2] * bar[i3];
                        second += three * b[i1] * bar[i3];
                        bar[i3] *= b[p];
                    }
                    bar[i2] = second;
                }
                bar[i1] = first;
            }
            for laplacian in streams.laplacians() {
                let l = at(laplacian.stream, p);
                value += b[l] * bar[l];
                for &(direction, weight) in &laplacian.terms {
                    let first = at(streams.directions()[direction].stream(1), p);
                    bar[first] += two * F::of(weight) * b[first] * bar[l];
                }
                bar[l] *= b[p];
            }
            bar[p] = value;
        }
    }
}
