//! Graph attention layers: GAT and GATv2 with edge features.
//!
//! Letters: N nodes, E edges (self loops included), F node features, G edge features, H heads, D
//! width per head.
//!
//! Source: Veličković et al. 2018, arXiv 1710.10903; Brody et al. 2022, arXiv 2105.14491; behaviour
//! of PyTorch Geometric's `GATConv` and `GATv2Conv`.

use burn::module::{Module, Param};
use burn::tensor::activation::leaky_relu;
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};

use crate::layers::{Init, Linear};

/// A directed graph on a device, each node with one self loop.
#[derive(Debug, Clone)]
pub struct GraphTensors {
    /// Number of nodes N.
    pub nodes: usize,
    /// Node each edge leaves, `[E]`.
    pub source: Tensor<1, Int>,
    /// Node each edge enters, `[E]`.
    pub target: Tensor<1, Int>,
    /// Edge features `[E, G]`; a self loop carries the mean of its node's incoming edges.
    pub edge_attr: Tensor<2>,
}

impl GraphTensors {
    /// A graph from directed edges `[source, target]` and their features `[E, width]` (row-major);
    /// self loops among them are dropped, and one per node is appended with the mean of the node's
    /// incoming features (0 without any).
    ///
    /// # Panics
    /// if an edge names a node that is not there or the features do not fit (programmer error).
    pub fn new(nodes: usize, edges: &[[u32; 2]], edge_features: &[f32], width: usize, device: &Device) -> Self {
        assert_eq!(edge_features.len(), edges.len() * width, "edge features do not fit {} edges", edges.len());
        let (mut source, mut target, mut features) = (Vec::new(), Vec::new(), Vec::new());
        let mut sums = vec![0.0f32; nodes * width];
        let mut incoming = vec![0usize; nodes];
        for (e, &[from, to]) in edges.iter().enumerate() {
            assert!(
                (from as usize) < nodes && (to as usize) < nodes,
                "edge {from} to {to} in a graph of {nodes} nodes"
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

    /// Softmax of edge logits `[E, H]` over the edges that enter the same node.
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

    /// Sum of edge values `[E, C]` at the node each edge enters, `[N, C]`.
    fn sum_incoming(&self, values: Tensor<2>) -> Tensor<2> {
        let [_, width] = values.dims();
        let device = values.device();
        Tensor::zeros([self.nodes, width], &device).select_assign(0, self.target.clone(), values, IndexingUpdateOp::Add)
    }
}

/// Which of the two attention rules a layer uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionRule {
    /// `⟨a_src, g_j⟩ + ⟨a_dst, g_i⟩ + ⟨a_edge, W_e z⟩` before the LeakyReLU; one projection without
    /// bias.
    Static,
    /// `⟨a, LeakyReLU(l_j + r_i + W_e z)⟩`; two projections with bias.
    Dynamic,
}

/// Sizes of a [`GraphAttention`] layer.
#[derive(Debug, Clone)]
pub struct GraphAttentionConfig {
    /// Node features in, F.
    pub input: usize,
    /// Heads, H.
    pub heads: usize,
    /// Width of a head, D; the output has H·D features.
    pub head_width: usize,
    /// Edge features, G; 0 for none.
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
    /// Map of the node an edge leaves.
    pub left: Linear,
    /// Map of the node an edge enters; only in GATv2.
    pub right: Option<Linear>,
    /// Map of the edge features, without bias.
    pub edge: Option<Linear>,
    /// Attention vector of the leaving node (GAT) or of the sum (GATv2), `[H, D]`.
    pub attention: Param<Tensor<2>>,
    /// Attention vector of the entered node, `[H, D]`; only in GAT.
    pub attention_target: Option<Param<Tensor<2>>>,
    /// Attention vector of the edge features, `[H, D]`; only in GAT with edge features.
    pub attention_edge: Option<Param<Tensor<2>>>,
    /// Output bias `[H·D]`.
    pub bias: Param<Tensor<1>>,
}

impl GraphAttentionConfig {
    /// A layer with weights of Glorot's deviation and zero biases.
    pub fn init(&self, init: &mut Init) -> GraphAttention {
        let width = self.heads * self.head_width;
        let dynamic = self.rule == AttentionRule::Dynamic;
        let with_edges = self.edge_features > 0;
        let glorot = |a: usize, b: usize| (2.0 / (a + b) as f64).sqrt();
        let linear = |inputs: usize, biased: bool, init: &mut Init| Linear {
            weight: init.normal([width, inputs], glorot(inputs, width)),
            bias: biased.then(|| init.constant([width], 0.0)),
        };
        let vector = |init: &mut Init| init.normal([self.heads, self.head_width], glorot(self.heads, self.head_width));
        GraphAttention {
            left: linear(self.input, dynamic, init),
            right: dynamic.then(|| linear(self.input, true, init)),
            edge: with_edges.then(|| linear(self.edge_features, false, init)),
            attention: vector(init),
            attention_target: (!dynamic).then(|| vector(init)),
            attention_edge: (!dynamic && with_edges).then(|| vector(init)),
            bias: init.constant([width], 0.0),
        }
    }
}

impl GraphAttention {
    /// New features of every node.
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

/// Inner product of each head's part of `[M, H·D]` with its attention vector, `[M, H]`.
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
    fn published_rules_on_a_small_graph() {
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
    fn self_loops_carry_the_mean_of_incoming_edges() {
        let device = Device::flex();
        let graph = GraphTensors::new(3, &[[0, 1], [2, 1], [2, 2]], &[1.0, 3.0, 9.0], 1, &device);
        assert_eq!(graph.edge_attr.into_data().try_to_vec::<f32>().unwrap(), [1.0, 3.0, 0.0, 2.0, 0.0]);
        assert_eq!(graph.source.into_data().convert::<i32>().try_to_vec::<i32>().unwrap(), [0, 2, 0, 1, 2]);
    }
}
