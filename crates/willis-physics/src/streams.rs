//! Which derivatives are propagated through a net: the streams of a jet.
//!
//! Stream 0 is the value. Each direction adds its first to third derivatives, each Laplacian one
//! stream for a weighted sum of second derivatives. Mixed derivatives are combinations of
//! derivatives along diagonal directions (polarisation).

/// A direction in the space of inputs, with the highest derivative along it.
#[derive(Debug, Clone, PartialEq)]
pub struct Direction {
    /// Rate of change of each input.
    pub vector: Vec<f64>,
    /// Highest order, 1 to 3.
    pub order: usize,
    /// Stream of the first derivative; higher ones follow.
    first: usize,
}

/// A weighted sum of second derivatives along directions.
#[derive(Debug, Clone, PartialEq)]
pub struct Laplacian {
    /// Direction number and weight.
    pub terms: Vec<(usize, f64)>,
    /// The stream.
    pub stream: usize,
}

/// The streams of a jet.
#[derive(Debug, Clone, PartialEq)]
pub struct Streams {
    inputs: usize,
    directions: Vec<Direction>,
    laplacians: Vec<Laplacian>,
    count: usize,
}

impl Streams {
    /// Only the value of a function with this number of inputs.
    pub fn value_only(inputs: usize) -> Self {
        Self { inputs, directions: Vec::new(), laplacians: Vec::new(), count: 1 }
    }

    /// Derivatives along directions (vector, highest order) and Laplacians over them (direction
    /// number, weight).
    ///
    /// # Panics
    /// if an order is not 1, 2 or 3, or a vector has another length than `inputs`
    pub fn new(inputs: usize, directions: &[(Vec<f64>, usize)], laplacians: &[Vec<(usize, f64)>]) -> Self {
        let mut streams = Self::value_only(inputs);
        for (vector, order) in directions {
            assert!((1..=3).contains(order) && vector.len() == inputs, "direction {vector:?} of order {order}");
            streams.directions.push(Direction { vector: vector.clone(), order: *order, first: streams.count });
            streams.count += order;
        }
        for terms in laplacians {
            assert!(terms.iter().all(|(direction, _)| *direction < directions.len()), "unknown direction in {terms:?}");
            streams.laplacians.push(Laplacian { terms: terms.clone(), stream: streams.count });
            streams.count += 1;
        }
        streams
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of streams.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The directions.
    pub fn directions(&self) -> &[Direction] {
        &self.directions
    }

    /// The Laplacians.
    pub fn laplacians(&self) -> &[Laplacian] {
        &self.laplacians
    }
}

impl Direction {
    /// Stream of the derivative of an order from 1 to `self.order`.
    pub fn stream(&self, order: usize) -> usize {
        debug_assert!((1..=self.order).contains(&order));
        self.first + order - 1
    }
}
