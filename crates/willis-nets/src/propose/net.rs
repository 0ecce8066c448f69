//! The node scorer: graph attention layers over the centreline graph.
//!
//! Letters: N nodes, F node features, G edge features, C width.

use burn::module::{Module, Param};
use burn::tensor::activation::elu;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use willis_core::{InvalidValue, NodeTable};

use crate::layers::graph_attention::{AttentionRule, GraphAttention, GraphAttentionConfig, GraphTensors};
use crate::layers::{Init, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use crate::rules::at_least_one;
use crate::weights::{Weights, WeightsError};

/// Sizes of a [`ProposeNet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProposeNetConfig {
    /// Node features, F.
    pub node_features: usize,
    /// Edge features, G.
    pub edge_features: usize,
    /// Attention heads of each layer.
    pub heads: usize,
    /// Width of a head; C is `heads * head_width`.
    pub head_width: usize,
    /// Number of graph attention layers.
    pub layers: usize,
}

impl Default for ProposeNetConfig {
    fn default() -> Self {
        Self { node_features: 0, edge_features: 0, heads: 4, head_width: 12, layers: 3 }
    }
}

/// Scores every node of a centreline graph by how much it looks like part of an aneurysm.
///
/// Features are standardised, mapped to width C, passed through residual GATv2 layers
/// `h <- h + ELU(LayerNorm(GATv2(h)))`, and mapped to one logit.
#[derive(Module, Debug)]
pub struct ProposeNet {
    node_scale: Standardise,
    /// `None` without edge features.
    edge_scale: Option<Standardise>,
    input: Linear,
    layers: Vec<ProposeLayer>,
    head: Linear,
}

/// `(x - mean) / deviation` of each feature, measured on the training set and not learned.
#[derive(Module, Debug)]
struct Standardise {
    mean: Param<Tensor<1>>,
    deviation: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct ProposeLayer {
    attention: GraphAttention,
    norm: LayerNorm,
}

impl ProposeNetConfig {
    /// Checks every value. The numbers of features follow from the data and may be 0.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        at_least_one("heads", self.heads)?;
        at_least_one("head_width", self.head_width)?;
        at_least_one("layers", self.layers)
    }

    /// A net of default size for the features of this table.
    pub fn for_table(table: &NodeTable) -> Self {
        Self {
            node_features: table.feature_names.len(),
            edge_features: table.edge_feature_names.len(),
            ..Self::default()
        }
    }

    /// A net with initial parameters; equal seeds give equal nets.
    pub fn init(&self, init: &mut Init) -> ProposeNet {
        let width = self.heads * self.head_width;
        let mut input = LinearConfig::new(self.node_features, width).init(init);
        input.weight = init.normal([width, self.node_features], (1.0 / self.node_features.max(1) as f64).sqrt());
        let layer = GraphAttentionConfig {
            input: width,
            heads: self.heads,
            head_width: self.head_width,
            edge_features: self.edge_features,
            rule: AttentionRule::Dynamic,
        };
        let layers = (0..self.layers)
            .map(|_| ProposeLayer { attention: layer.init(init), norm: LayerNormConfig::new(width).init(init) });
        let layers = layers.collect();
        ProposeNet {
            node_scale: Standardise::identity(self.node_features, init),
            edge_scale: (self.edge_features > 0).then(|| Standardise::identity(self.edge_features, init)),
            input,
            layers,
            head: LinearConfig::new(width, 1).init(init),
        }
    }
}

impl ProposeNet {
    /// Revision of what the net computes from its parameters, which weights files name. It is
    /// counted up when the computation changes and the parameters do not.
    pub const REVISION: &str = "1";

    /// The net of a weights file, on the CPU.
    ///
    /// # Errors
    /// [`WeightsError`] when the bytes are not a safetensors file, its metadata lacks the
    /// configuration or has another revision, or the weights do not fit the configuration.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WeightsError> {
        let weights = Weights::from_bytes(bytes)?;
        weights.check_revision(Self::REVISION)?;
        let config: ProposeNetConfig = weights.config()?;
        weights.apply(config.init(&mut Init::new(0, &Device::flex())))
    }

    /// Configuration of this net.
    pub fn config(&self) -> ProposeNetConfig {
        let (node_features, edge_features) = self.widths();
        let [heads, head_width] = self.layers.first().map_or([0; 2], |layer| layer.attention.attention.dims());
        ProposeNetConfig { node_features, edge_features, heads, head_width, layers: self.layers.len() }
    }

    /// The net with the given statistics `(mean, deviation)` of node and edge features. A deviation
    /// of 0 is replaced by 1.
    pub fn standardised(mut self, nodes: (&[f32], &[f32]), edges: (&[f32], &[f32])) -> Self {
        let device = self.device();
        self.node_scale = Standardise::new(nodes.0, nodes.1, &device);
        self.edge_scale = self.edge_scale.map(|_| Standardise::new(edges.0, edges.1, &device));
        self
    }

    /// Node features F and edge features G of this net.
    pub fn widths(&self) -> (usize, usize) {
        (self.node_scale.mean.val().dims()[0], self.edge_scale.as_ref().map_or(0, |scale| scale.mean.val().dims()[0]))
    }

    /// Device of the parameters.
    pub fn device(&self) -> Device {
        self.head.weight.val().device()
    }

    /// Computes the logit of every node.
    ///
    /// # Shapes
    /// x `[N, F]`, edge features `[E, G]` -> `[N]`
    pub fn forward(&self, x: Tensor<2>, graph: &GraphTensors) -> Tensor<1> {
        let [nodes, _] = x.dims();
        let mut graph = graph.clone();
        if let Some(scale) = &self.edge_scale {
            graph.edge_attr = scale.forward(graph.edge_attr);
        }
        let mut h = elu(self.input.forward(self.node_scale.forward(x)), 1.0);
        for layer in &self.layers {
            h = h.clone() + elu(layer.norm.forward(layer.attention.forward(h, &graph)), 1.0);
        }
        self.head.forward(h).reshape([nodes])
    }

    /// Score of every node of a table, 0 to 1. `None` when the table has no node or other features
    /// than the net was trained on.
    pub fn scores(&self, table: &NodeTable) -> Option<Vec<f32>> {
        let (nodes, features) = (table.points.len(), table.feature_names.len());
        if nodes == 0 || features == 0 || self.widths() != (features, table.edge_feature_names.len()) {
            return None;
        }
        let device = self.device();
        let x = Tensor::from_data(TensorData::new(table.features.clone(), [nodes, features]), &device);
        let width = table.edge_feature_names.len();
        let graph = GraphTensors::new(nodes, &table.edges, &table.edge_features, width, &device);
        let scores = burn::tensor::activation::sigmoid(self.forward(x, &graph));
        scores.into_data().convert::<f32>().try_to_vec().ok()
    }
}

impl Standardise {
    fn identity(width: usize, init: &mut Init) -> Self {
        let fixed = |value, init: &mut Init| init.constant([width], value).set_require_grad(false);
        Self { mean: fixed(0.0, init), deviation: fixed(1.0, init) }
    }

    fn new(mean: &[f32], deviation: &[f32], device: &Device) -> Self {
        let deviation: Vec<f32> = deviation.iter().map(|&d| if d > 1e-6 { d } else { 1.0 }).collect();
        let fixed = |values: &[f32]| {
            Param::from_data(TensorData::new(values.to_vec(), [values.len()]), device).set_require_grad(false)
        };
        Self { mean: fixed(mean), deviation: fixed(&deviation) }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        (x - self.mean.val().unsqueeze()) / self.deviation.val().unsqueeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Precision;
    use willis_core::{CentrelinePoint, Point};

    fn table(order: &[usize]) -> NodeTable {
        let nodes = order.len();
        let place = |node: usize| order.iter().position(|&n| n == node).unwrap() as u32;
        let point = CentrelinePoint { point: Point::new(0.0, 0.0, 0.0), radius_mm: 1.0 };
        let features = order.iter().flat_map(|&n| [(n as f32).sin(), (n as f32 * 0.7).cos()]).collect();
        let pairs: Vec<[usize; 2]> = (1..nodes).map(|n| [n, n / 2]).collect();
        let edges = pairs.iter().flat_map(|&[a, b]| [[place(a), place(b)], [place(b), place(a)]]).collect();
        let edge_features = pairs.iter().flat_map(|&[a, b]| [(a + b) as f32, (a * b) as f32]).collect();
        NodeTable {
            points: vec![point; nodes],
            feature_names: vec!["s", "c"],
            features,
            edges,
            edge_feature_names: vec!["e"],
            edge_features,
        }
    }

    #[test]
    fn scores_follow_the_nodes_when_they_are_renumbered() {
        let order = [4, 2, 0, 6, 1, 5, 3];
        let plain = table(&[0, 1, 2, 3, 4, 5, 6]);
        let net = ProposeNetConfig::for_table(&plain).init(&mut Init::new(3, &Device::flex()));
        let (a, b) = (net.scores(&plain).unwrap(), net.scores(&table(&order)).unwrap());
        for (place, &node) in order.iter().enumerate() {
            assert!((a[node] - b[place]).abs() < 1e-5, "node {node}: {} {}", a[node], b[place]);
        }
        assert!(a.iter().any(|&s| (s - a[0]).abs() > 1e-4), "scores do not depend on the features");
    }

    #[test]
    fn other_features_give_no_scores() {
        let table = table(&[0, 1, 2]);
        let config = ProposeNetConfig { node_features: 5, ..ProposeNetConfig::for_table(&table) };
        assert_eq!(config.init(&mut Init::new(0, &Device::flex())).scores(&table), None);
        assert_eq!(
            ProposeNetConfig::for_table(&table).init(&mut Init::new(0, &Device::flex())).scores(&NodeTable::default()),
            None
        );
    }

    #[test]
    fn a_weights_file_restores_its_net_and_others_are_refused() {
        let table = table(&[0, 1, 2]);
        let config = ProposeNetConfig { heads: 2, layers: 2, ..ProposeNetConfig::for_table(&table) };
        let net = config.init(&mut Init::new(5, &Device::flex()));
        assert_eq!(net.config(), config);
        let mut weights = Weights::of(&net);
        let read = |weights: &Weights| ProposeNet::from_bytes(&weights.to_bytes(Precision::F32));
        assert!(matches!(read(&weights), Err(WeightsError::Revision { got: None, .. })));
        weights.metadata.insert("revision".into(), ProposeNet::REVISION.into());
        assert!(matches!(read(&weights), Err(WeightsError::Configuration { .. })));
        weights.metadata.insert("config".into(), serde_json::to_string(&config).unwrap());
        assert_eq!(read(&weights).unwrap().scores(&table), net.scores(&table));
        let other = ProposeNetConfig { heads: 3, ..config };
        weights.metadata.insert("config".into(), serde_json::to_string(&other).unwrap());
        assert!(matches!(read(&weights), Err(WeightsError::Mismatch { .. })));
    }

    #[test]
    fn invalid_values_are_named() {
        ProposeNetConfig::default().validate().unwrap();
        let config = ProposeNetConfig { layers: 0, ..ProposeNetConfig::default() };
        assert_eq!(config.validate().unwrap_err().to_string(), "layers = 0 must be at least 1");
    }
}
