//! Graph attention layers: GAT and GATv2 with edge features.
//!
//! Letters: N nodes, E edges (self loops included), F node features, G edge features, H heads, D
//! width per head.
//!
//! Source: Veličković et al., ICLR 2018, arXiv:1710.10903 (GAT); Brody et al., ICLR 2022,
//! arXiv:2105.14491 (GATv2); behaviour of PyTorch Geometric's `GATConv` and `GATv2Conv`.

use burn::module::{Module, Param};
use burn::tensor::activation::leaky_relu;
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};

use super::{Bias, Init, Linear};

/// A directed graph with one self loop per node.
#[derive(Debug, Clone)]
pub struct GraphTensors {
    /// Number of nodes, N.
    pub nodes: usize,
    /// Source node of each edge, `[E]`.
    pub source: Tensor<1, Int>,
    /// Target node of each edge, `[E]`.
    pub target: Tensor<1, Int>,
    /// Edge features `[E, G]`; a self loop has the mean of its node's incoming edges.
    pub edge_attr: Tensor<2>,
}

impl GraphTensors {
    /// Creates a graph from directed edges `[source, target]` and their row-major features.
    ///
    /// Self loops among the edges are removed. One self loop per node is appended, with the mean of
    /// the features of the node's incoming edges (0 if there are none).
    ///
    /// # Shapes
    /// edges E', features `[E', width]`
    ///
    /// # Panics
    /// if an edge refers to a node that does not exist, or the number of features does not fit
    /// (programmer error)
    pub fn new(nodes: usize, edges: &[[u32; 2]], edge_features: &[f32], width: usize, device: &Device) -> Self {
        assert_eq!(edge_features.len(), edges.len() * width, "{} edges with {width} features each", edges.len());
        let (mut source, mut target, mut features) = (Vec::new(), Vec::new(), Vec::new());
        let mut sums = vec![0.0f32; nodes * width];
        let mut incoming = vec![0usize; nodes];
        for (e, &[from, to]) in edges.iter().enumerate() {
            assert!(
                (from as usize) < nodes && (to as usize) < nodes,
                "edge from {from} to {to} in a graph of {nodes} nodes"
            );
            if from == to {
                continue;
            }
            let row = &edge_features[e * width..(e + 1) * width];
            source.push(from as i32);
            target.push(to as i32);
            features.extend_from_slice(row);
            incoming[to as usize] += 1;
            let sum = &mut sums[to as usize * width..(to as usize + 1) * width];
            sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
        }
        for node in 0..nodes {
            source.push(node as i32);
            target.push(node as i32);
            let count = incoming[node].max(1) as f32;
            features.extend(sums[node * width..(node + 1) * width].iter().map(|s| s / count));
        }
        let n_edges = source.len();
        Self {
            nodes,
            source: Tensor::from_data(TensorData::new(source, [n_edges]), device),
            target: Tensor::from_data(TensorData::new(target, [n_edges]), device),
            edge_attr: Tensor::from_data(TensorData::new(features, [n_edges, width]), device),
        }
    }

    /// Softmax over the edges with the same target.
    ///
    /// # Shapes
    /// logits `[E, H]` -> the same
    fn softmax_incoming(&self, logits: Tensor<2>) -> Tensor<2> {
        let [_, heads] = logits.dims();
        let device = logits.device();
        let highest = Tensor::full([self.nodes, heads], f32::MIN, &device)
            .select_assign(0, self.target.clone(), logits.clone().detach(), IndexingUpdateOp::Max)
            .select(0, self.target.clone());
        let weights = (logits - highest).exp();
        let sums = self.sum_incoming(weights.clone()).select(0, self.target.clone());
        weights / (sums + 1e-16)
    }

    /// Sums the values of the edges with the same target.
    ///
    /// # Shapes
    /// values `[E, C]` -> `[N, C]`
    fn sum_incoming(&self, values: Tensor<2>) -> Tensor<2> {
        let [_, width] = values.dims();
        let device = values.device();
        Tensor::zeros([self.nodes, width], &device).select_assign(0, self.target.clone(), values, IndexingUpdateOp::Add)
    }
}

/// The attention rule of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionRule {
    /// GAT: `LeakyReLU(⟨a_src, g_j⟩ + ⟨a_dst, g_i⟩ + ⟨a_edge, W_e z_ij⟩)`, one projection without
    /// bias.
    Static,
    /// GATv2: `⟨a, LeakyReLU(l_j + r_i + W_e z_ij)⟩`, two projections with bias.
    Dynamic,
}

/// Configuration of a [`GraphAttention`] layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphAttentionConfig {
    /// Input features of a node, F.
    pub input: usize,
    /// Heads, H.
    pub heads: usize,
    /// Width of a head, D; the output has H·D features.
    pub head_width: usize,
    /// Features of an edge, G; may be 0.
    pub edge_features: usize,
    /// GAT or GATv2.
    pub rule: AttentionRule,
}

/// A graph attention layer; heads are concatenated.
///
/// GATv2: `l_j = W_l x_j + b_l`, `r_i = W_r x_i + b_r`,
/// `e_ij = ⟨a, LeakyReLU_0.2(l_j + r_i + W_e z_ij)⟩`, `out_i = Σ_j softmax_j(e_ij) l_j + b`.
///
/// # Shapes
/// x `[N, F]`, edge features `[E, G]` -> `[N, H·D]`
#[derive(Module, Debug)]
pub struct GraphAttention {
    /// Projection of the source node.
    pub left: Linear,
    /// Projection of the target node; only in GATv2.
    pub right: Option<Linear>,
    /// Projection of the edge features, without bias; `None` without edge features.
    pub edge: Option<Linear>,
    /// Attention vector of the source node (GAT) or of the sum (GATv2), `[H, D]`.
    pub attention: Param<Tensor<2>>,
    /// Attention vector of the target node, `[H, D]`; only in GAT.
    pub attention_target: Option<Param<Tensor<2>>>,
    /// Attention vector of the edge features, `[H, D]`; only in GAT with edge features.
    pub attention_edge: Option<Param<Tensor<2>>>,
    /// Output bias `[H·D]`.
    pub bias: Param<Tensor<1>>,
}

impl GraphAttentionConfig {
    /// Creates the layer: weights with the standard deviation of Glorot and Bengio, biases 0.
    pub fn init(&self, init: &mut Init) -> GraphAttention {
        let width = self.heads * self.head_width;
        let dynamic = self.rule == AttentionRule::Dynamic;
        let with_edges = self.edge_features > 0;
        let glorot = |a: usize, b: usize| (2.0 / (a + b) as f64).sqrt();
        let linear = |inputs: usize, bias: Bias, init: &mut Init| Linear {
            weight: init.normal([width, inputs], glorot(inputs, width)),
            bias: (bias == Bias::Yes).then(|| init.constant([width], 0.0)),
        };
        let left_bias = if dynamic { Bias::Yes } else { Bias::No };
        let vector = |init: &mut Init| init.normal([self.heads, self.head_width], glorot(self.heads, self.head_width));
        GraphAttention {
            left: linear(self.input, left_bias, init),
            right: dynamic.then(|| linear(self.input, Bias::Yes, init)),
            edge: with_edges.then(|| linear(self.edge_features, Bias::No, init)),
            attention: vector(init),
            attention_target: (!dynamic).then(|| vector(init)),
            attention_edge: (!dynamic && with_edges).then(|| vector(init)),
            bias: init.constant([width], 0.0),
        }
    }
}

impl GraphAttention {
    /// Computes the new features of every node.
    ///
    /// # Shapes
    /// x `[N, F]` -> `[N, H·D]`
    pub fn forward(&self, x: Tensor<2>, graph: &GraphTensors) -> Tensor<2> {
        let [heads, head_width] = self.attention.dims();
        let width = heads * head_width;
        let left = self.left.forward(x.clone());
        let message = left.clone().select(0, graph.source.clone());
        let edge = self.edge.as_ref().map(|map| map.forward(graph.edge_attr.clone()));

        let logits = match &self.right {
            Some(right) => {
                let mut sum = message.clone() + right.forward(x).select(0, graph.target.clone());
                if let Some(edge) = edge {
                    sum = sum + edge;
                }
                score(leaky_relu(sum, 0.2), &self.attention)
            }
            None => {
                let mut sum = score(left.clone(), &self.attention).select(0, graph.source.clone());
                if let Some(vector) = &self.attention_target {
                    sum = sum + score(left, vector).select(0, graph.target.clone());
                }
                if let (Some(edge), Some(vector)) = (edge, &self.attention_edge) {
                    sum = sum + score(edge, vector);
                }
                leaky_relu(sum, 0.2)
            }
        };
        let weights = graph.softmax_incoming(logits);

        let [n_edges, _] = message.dims();
        let weighted = message.reshape([n_edges, heads, head_width]) * weights.reshape([n_edges, heads, 1]);
        graph.sum_incoming(weighted.reshape([n_edges, width])) + self.bias.val().reshape([1, width])
    }
}

/// Inner product of each head's values with its attention vector, `[M, H·D]` -> `[M, H]`.
fn score(values: Tensor<2>, vector: &Param<Tensor<2>>) -> Tensor<2> {
    let [heads, head_width] = vector.dims();
    let [rows, _] = values.dims();
    let products = values.reshape([rows, heads, head_width]) * vector.val().reshape([1, heads, head_width]);
    products.sum_dim(2).reshape([rows, heads])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: usize, columns: usize, value: impl Fn(f32, f32) -> f32, device: &Device) -> Param<Tensor<2>> {
        let data: Vec<f32> = (0..rows * columns).map(|i| value((i / columns) as f32, (i % columns) as f32)).collect();
        Param::from_data(TensorData::new(data, [rows, columns]), device)
    }

    fn vector(value: impl Fn(f32) -> f32, device: &Device) -> Param<Tensor<2>> {
        Param::from_data(TensorData::new((0..4).map(|k| value(k as f32)).collect::<Vec<_>>(), [2, 2]), device)
    }

    #[test]
    fn golden_values_on_a_small_graph() {
        let device = Device::flex();
        let x = Tensor::from_floats([[1.0, 0.0], [0.5, -1.0], [0.2, 0.3]], &device);
        let graph = GraphTensors::new(3, &[[0, 1], [1, 0], [1, 2], [2, 1]], &[], 0, &device);
        let config = |rule| GraphAttentionConfig { input: 2, heads: 2, head_width: 2, edge_features: 0, rule };
        let weight = |k: f32, f: f32| (1.0 + 2.0 * k + f).sin();

        let mut gat = config(AttentionRule::Static).init(&mut Init::new(0, &device));
        gat.left.weight = matrix(4, 2, weight, &device);
        gat.attention = vector(|k| (0.5 * k).cos(), &device);
        gat.attention_target = Some(vector(|k| (0.3 + 0.9 * k).sin(), &device));
        let expected = TensorData::from([
            [0.408_308_5f32, 0.364_614_1, -0.567_468_8, -0.022_807_1],
            [0.416_538_26, 0.223_136_99, -0.467_674_73, 0.131_405_24],
            [-0.016_979_27, 0.306_810_94, -0.237_964_88, -0.114_358_27],
        ]);
        gat.forward(x.clone(), &graph)
            .into_data()
            .assert_approx_eq::<f32>(&expected, burn::tensor::Tolerance::absolute(2e-5));

        let mut v2 = config(AttentionRule::Dynamic).init(&mut Init::new(0, &device));
        v2.left.weight = matrix(4, 2, weight, &device);
        v2.right.as_mut().unwrap().weight = matrix(4, 2, |k, f| (0.7 + 2.0 * k + f).cos(), &device);
        v2.attention = vector(|k| (0.5 * k).cos(), &device);
        let expected = TensorData::from([
            [0.535_863_6f32, 0.298_800_9, -0.581_613_4, 0.001_756_2],
            [0.416_538_26, 0.223_136_99, -0.473_456_47, 0.144_627_95],
            [0.016_793_2, 0.269_531_55, -0.238_276_27, -0.109_870_26],
        ]);
        v2.forward(x, &graph).into_data().assert_approx_eq::<f32>(&expected, burn::tensor::Tolerance::absolute(2e-5));
    }

    #[test]
    fn self_loops_have_the_mean_of_incoming_edges() {
        let device = Device::flex();
        let graph = GraphTensors::new(3, &[[0, 1], [2, 1], [2, 2]], &[1.0, 3.0, 9.0], 1, &device);
        assert_eq!(graph.edge_attr.into_data().try_to_vec::<f32>().unwrap(), [1.0, 3.0, 0.0, 2.0, 0.0]);
        assert_eq!(graph.source.into_data().convert::<i32>().try_to_vec::<i32>().unwrap(), [0, 2, 0, 1, 2]);
    }
}
