//! Equations as text, compiled to sums of products of derivatives.
//!
//! `u_t + u*u_x - 0.01*u_xx` is an equation whose residual shall vanish. A name is an output of the
//! net, optionally with derivatives (`u_t`, `psi_xxy`; `u_L` is the Laplacian over every input but
//! `t`), an unknown parameter, or a column of data given per point. The streams that the net must
//! propagate follow from the names.

use std::collections::BTreeMap;

use crate::real::Real;
use crate::streams::Streams;

/// Names that equations may use.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// One letter per input.
    pub inputs: &'a [char],
    /// Outputs of the net.
    pub outputs: &'a [String],
    /// Unknown parameters.
    pub unknowns: &'a [String],
    /// Columns of data.
    pub data: &'a [String],
}

/// An equation that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("equation `{equation}`: {reason}")]
pub struct EquationError {
    /// The text.
    pub equation: String,
    /// What is wrong with it.
    pub reason: String,
}

/// One factor: a number per point.
#[derive(Debug, Clone, PartialEq)]
enum Quantity {
    /// Weighted sum of streams of an output: (weight, output, stream).
    Derivative(Vec<(f64, usize, usize)>),
    Unknown(usize),
    Data(usize),
}

/// A product of quantities.
#[derive(Debug, Clone, PartialEq)]
struct Product {
    coefficient: f64,
    factors: Vec<usize>,
}

/// Compiled equations and the streams that they need.
#[derive(Debug, Clone, PartialEq)]
pub struct System {
    streams: Streams,
    quantities: Vec<Quantity>,
    equations: Vec<Vec<Product>>,
}

/// A direction as rates of change, doubled so that it is ordered and exact.
type Vector = Vec<i8>;

/// Derivatives that some equation needs, before streams have numbers.
#[derive(Default)]
struct Needs {
    orders: BTreeMap<Vector, usize>,
    laplacian: bool,
}

impl Needs {
    fn add(&mut self, vector: Vector, order: usize) {
        let known = self.orders.entry(vector).or_default();
        *known = order.max(*known);
    }
}

/// A derivative as a combination of derivatives along directions: (weight, direction, order).
fn polarised(suffix: &str, inputs: &[char]) -> Option<Vec<(f64, Vector, usize)>> {
    let axes: Vec<usize> =
        suffix.chars().map(|letter| inputs.iter().position(|&input| input == letter)).collect::<Option<_>>()?;
    let unit = |axis: usize| -> Vector { (0..inputs.len()).map(|i| i8::from(i == axis)).collect() };
    let diagonal = |a: usize, b: usize, sign: i8| -> Vector {
        (0..inputs.len()).map(|i| i8::from(i == a) + sign * i8::from(i == b)).collect()
    };
    let count = |axis: usize| axes.iter().filter(|&&each| each == axis).count();
    let first = *axes.iter().min()?;
    let second = axes.iter().copied().filter(|&axis| axis != first).min();
    Some(match (axes.len(), second) {
        (1..=3, None) => vec![(1.0, unit(first), axes.len())],
        (2, Some(b)) => {
            vec![(0.5, diagonal(first, b, 1), 2), (-0.5, unit(first), 2), (-0.5, unit(b), 2)]
        }
        (3, Some(b)) if count(first) + count(b) == 3 => {
            // D±³ = aaa ± 3 aab + 3 abb ± bbb
            let (sign, other) = if count(first) == 2 { (-1.0, b) } else { (1.0, first) };
            vec![
                (1.0 / 6.0, diagonal(first, b, 1), 3),
                (sign / 6.0, diagonal(first, b, -1), 3),
                (-2.0 / 6.0, unit(other), 3),
            ]
        }
        _ => return None,
    })
}

/// Terms of a text: coefficient and names.
fn terms(text: &str) -> Result<Vec<(f64, Vec<String>)>, String> {
    let mut terms = Vec::new();
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let bytes = compact.as_bytes();
    let mut start = 0;
    for end in 1..=bytes.len() {
        // A sign ends a term, unless it belongs to an exponent such as 1e-4.
        let is_end = end == bytes.len()
            || (matches!(bytes[end], b'+' | b'-')
                && !(matches!(bytes[end - 1], b'e' | b'E') && end >= 2 && bytes[end - 2].is_ascii_digit()));
        if !is_end {
            continue;
        }
        let term = &compact[start..end];
        start = end;
        let (mut coefficient, body) = match term.as_bytes().first() {
            Some(b'-') => (-1.0, &term[1..]),
            Some(b'+') => (1.0, &term[1..]),
            _ => (1.0, term),
        };
        let mut names = Vec::new();
        for factor in body.split('*') {
            let (name, power) = match factor.split_once('^') {
                Some((name, power)) => (name, power.parse::<usize>().map_err(|_| format!("{power} is no power"))?),
                None => (factor, 1),
            };
            if let Ok(number) = name.parse::<f64>() {
                coefficient *= number.powi(power as i32);
            } else if name.is_empty() {
                return Err("a factor is missing".into());
            } else {
                names.extend(std::iter::repeat_n(name.to_string(), power));
            }
        }
        terms.push((coefficient, names));
    }
    if terms.is_empty() { Err("it is empty".into()) } else { Ok(terms) }
}

impl System {
    /// Compiles equations.
    ///
    /// # Errors
    /// when an equation has an unknown name or a derivative that is not supported
    pub fn compile(names: Names<'_>, equations: &[String]) -> Result<Self, EquationError> {
        let mut needs = Needs::default();
        let mut parsed = Vec::new();
        for text in equations {
            let error = |reason: String| EquationError { equation: text.clone(), reason };
            let terms = terms(text).map_err(error)?;
            for name in terms.iter().flat_map(|(_, names)| names) {
                names.need(name, &mut needs).map_err(error)?;
            }
            parsed.push(terms);
        }
        let space: Vec<usize> = (0..names.inputs.len()).filter(|&i| names.inputs[i] != 't').collect();
        if needs.laplacian {
            for &axis in &space {
                needs.add((0..names.inputs.len()).map(|i| i8::from(i == axis)).collect(), 1);
            }
        }
        let directions: Vec<(Vector, usize)> = needs.orders.into_iter().collect();
        let number = |vector: &Vector| directions.iter().position(|(each, _)| each == vector);
        let laplacians = needs.laplacian.then(|| {
            let unit = |axis: usize| (0..names.inputs.len()).map(|i| i8::from(i == axis)).collect::<Vector>();
            space.iter().filter_map(|&axis| Some((number(&unit(axis))?, 1.0))).collect::<Vec<_>>()
        });
        let vectors: Vec<(Vec<f64>, usize)> =
            directions.iter().map(|(vector, order)| (vector.iter().map(|&r| f64::from(r)).collect(), *order)).collect();
        let streams = Streams::new(names.inputs.len(), &vectors, &laplacians.into_iter().collect::<Vec<_>>());
        let mut system = Self { streams, quantities: Vec::new(), equations: Vec::new() };
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for terms in parsed {
            let mut products = Vec::new();
            for (coefficient, factors) in terms {
                let factors = factors.into_iter().map(|name| {
                    *known.entry(name.clone()).or_insert_with(|| {
                        system.quantities.push(names.quantity(&name, &system.streams, &number));
                        system.quantities.len() - 1
                    })
                });
                products.push(Product { coefficient, factors: factors.collect() });
            }
            system.equations.push(products);
        }
        Ok(system)
    }

    /// The streams that the net propagates.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Number of equations.
    pub fn count(&self) -> usize {
        self.equations.len()
    }
}

impl Names<'_> {
    fn split<'n>(&self, name: &'n str) -> (Option<usize>, &'n str) {
        let (base, suffix) = name.split_once('_').unwrap_or((name, ""));
        (self.outputs.iter().position(|output| output == base), suffix)
    }

    fn is_plain(&self, name: &str) -> bool {
        self.unknowns.iter().chain(self.data).any(|each| each == name)
    }

    fn need(&self, name: &str, needs: &mut Needs) -> Result<(), String> {
        let (output, suffix) = self.split(name);
        if self.is_plain(name) || (output.is_some() && suffix.is_empty() && !name.contains('_')) {
            return Ok(());
        }
        if output.is_none() {
            return Err(format!("the name {name} is unknown"));
        }
        if suffix == "L" {
            needs.laplacian = true;
            return Ok(());
        }
        let parts = polarised(suffix, self.inputs).ok_or(format!("the derivative {name} is not supported"))?;
        parts.into_iter().for_each(|(_, vector, order)| needs.add(vector, order));
        Ok(())
    }

    fn quantity(&self, name: &str, streams: &Streams, number: &dyn Fn(&Vector) -> Option<usize>) -> Quantity {
        let position = |of: &[String]| of.iter().position(|each| each == name);
        if let Some(unknown) = position(self.unknowns) {
            return Quantity::Unknown(unknown);
        }
        if let Some(column) = position(self.data) {
            return Quantity::Data(column);
        }
        let (output, suffix) = self.split(name);
        let output = output.expect("names were checked");
        Quantity::Derivative(match suffix {
            "" => vec![(1.0, output, 0)],
            "L" => streams.laplacians().iter().map(|laplacian| (1.0, output, laplacian.stream)).collect(),
            _ => {
                let parts = polarised(suffix, self.inputs).expect("derivatives were checked");
                let stream = |vector: &Vector, order: usize| {
                    streams.directions()[number(vector).expect("needed directions are propagated")].stream(order)
                };
                parts.iter().map(|(weight, vector, order)| (*weight, output, stream(vector, *order))).collect()
            }
        })
    }
}

/// Memory of an evaluation, reused from tile to tile.
#[derive(Debug, Default)]
pub(crate) struct Planes<F> {
    quantities: Vec<F>,
    quantities_bar: Vec<F>,
    /// Residuals `[E, P]`, or their adjoints.
    pub residuals: Vec<F>,
    product: Vec<F>,
}

impl System {
    /// Computes the residuals of a tile.
    ///
    /// # Shapes
    /// outputs `[O, S, P]`, data `[columns, P]` -> `planes.residuals` `[E, P]`
    pub(crate) fn residuals<F: Real>(
        &self,
        outputs: &[F],
        data: &[F],
        unknowns: &[F],
        points: usize,
        planes: &mut Planes<F>,
    ) {
        let count = self.streams.count();
        planes.quantities.clear();
        planes.quantities.resize(self.quantities.len() * points, F::default());
        for (quantity, to) in self.quantities.iter().zip(planes.quantities.chunks_exact_mut(points)) {
            match quantity {
                Quantity::Derivative(parts) => {
                    for &(weight, output, stream) in parts {
                        let from = &outputs[(output * count + stream) * points..][..points];
                        let weight = F::of(weight);
                        to.iter_mut().zip(from).for_each(|(to, from)| *to += weight * *from);
                    }
                }
                Quantity::Unknown(number) => to.fill(unknowns[*number]),
                Quantity::Data(column) => to.copy_from_slice(&data[column * points..][..points]),
            }
        }
        planes.residuals.clear();
        planes.residuals.resize(self.equations.len() * points, F::default());
        planes.product.resize(points, F::default());
        for (products, to) in self.equations.iter().zip(planes.residuals.chunks_exact_mut(points)) {
            for product in products {
                let value = &mut planes.product[..points];
                value.fill(F::of(product.coefficient));
                for &factor in &product.factors {
                    let from = &planes.quantities[factor * points..][..points];
                    value.iter_mut().zip(from).for_each(|(value, from)| *value *= *from);
                }
                to.iter_mut().zip(&*value).for_each(|(to, value)| *to += *value);
            }
        }
    }

    /// Adds the adjoint of the outputs and of the unknowns, given the adjoint of the residuals in
    /// `planes.residuals`. [`System::residuals`] must have run on the same tile.
    pub(crate) fn adjoint<F: Real>(
        &self,
        points: usize,
        planes: &mut Planes<F>,
        outputs_bar: &mut [F],
        unknowns_bar: &mut [F],
    ) {
        let count = self.streams.count();
        planes.quantities_bar.clear();
        planes.quantities_bar.resize(self.quantities.len() * points, F::default());
        for (products, bar) in self.equations.iter().zip(planes.residuals.chunks_exact(points)) {
            for product in products {
                for (i, &factor) in product.factors.iter().enumerate() {
                    let value = &mut planes.product[..points];
                    let coefficient = F::of(product.coefficient);
                    value.iter_mut().zip(bar).for_each(|(value, bar)| *value = coefficient * *bar);
                    for (_, &other) in product.factors.iter().enumerate().filter(|(j, _)| *j != i) {
                        let from = &planes.quantities[other * points..][..points];
                        value.iter_mut().zip(from).for_each(|(value, from)| *value *= *from);
                    }
                    let to = &mut planes.quantities_bar[factor * points..][..points];
                    to.iter_mut().zip(&*value).for_each(|(to, value)| *to += *value);
                }
            }
        }
        for (quantity, bar) in self.quantities.iter().zip(planes.quantities_bar.chunks_exact(points)) {
            match quantity {
                Quantity::Derivative(parts) => {
                    for &(weight, output, stream) in parts {
                        let to = &mut outputs_bar[(output * count + stream) * points..][..points];
                        let weight = F::of(weight);
                        to.iter_mut().zip(bar).for_each(|(to, bar)| *to += weight * *bar);
                    }
                }
                Quantity::Unknown(number) => bar.iter().for_each(|bar| unknowns_bar[*number] += *bar),
                Quantity::Data(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn compile(equation: &str) -> Result<System, EquationError> {
        let (outputs, unknowns, data) = (strings(&["u", "psi"]), strings(&["nu"]), strings(&["g"]));
        let names = Names { inputs: &['x', 'y', 't'], outputs: &outputs, unknowns: &unknowns, data: &data };
        System::compile(names, &[equation.to_string()])
    }

    #[test]
    fn streams_follow_from_the_names() {
        let streams = |equation: &str| compile(equation).unwrap().streams().count();
        assert_eq!(streams("u - g"), 1);
        assert_eq!(streams("u_t + u*u_x - nu*u_xx"), 1 + 1 + 2);
        assert_eq!(streams("u_t - 1e-4*u_L"), 1 + 3 + 1);
        // x, y, x + y and x - y to third order.
        assert_eq!(streams("psi_xxy + psi_yyx"), 1 + 4 * 3);
        assert_eq!(compile("u - g").unwrap().count(), 1);
    }

    #[test]
    fn mistakes_are_named() {
        for (equation, reason) in [
            ("u_x + w", "w is unknown"),
            ("u_xyt", "u_xyt is not supported"),
            ("u_xxxx", "u_xxxx is not supported"),
            ("u_q", "u_q is not supported"),
            ("u * ", "missing"),
            ("", "empty"),
            ("u^x", "power"),
        ] {
            let error = compile(equation).unwrap_err().to_string();
            assert!(error.contains(reason), "{equation}: {error}");
        }
    }

    /// Values and adjoint of `2 u² psi_x nu - g + 3` by hand.
    #[test]
    fn values_and_adjoints() {
        let system = compile("2*u^2*psi_x*nu - g + 3").unwrap();
        // Outputs u and psi, streams value and x.
        let outputs = [3.0, 0.0, 0.0, 5.0];
        let mut planes = Planes::default();
        system.residuals(&outputs, &[7.0], &[0.5], 1, &mut planes);
        assert_eq!(planes.residuals, [2.0 * 9.0 * 5.0 * 0.5 - 7.0 + 3.0]);
        planes.residuals[0] = 10.0;
        let (mut bar, mut unknowns) = ([0.0; 4], [0.0]);
        system.adjoint(1, &mut planes, &mut bar, &mut unknowns);
        assert_eq!(bar, [10.0 * 4.0 * 3.0 * 5.0 * 0.5, 0.0, 0.0, 10.0 * 2.0 * 9.0 * 0.5]);
        assert_eq!(unknowns, [10.0 * 2.0 * 9.0 * 5.0]);
    }
}
