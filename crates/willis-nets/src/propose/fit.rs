//! Training of the node scorer.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use willis_core::{InvalidValue, Switch};

use super::data::GraphCase;
use super::net::{ProposeNet, ProposeNetConfig};
use crate::layers::Init;
use crate::layers::graph_attention::GraphTensors;
use crate::loss::asl::AsymmetricLoss;
use crate::rules::{at_least_one, non_negative};
use crate::train::{Loss, StepReport, TrainConfig, TrainError, Trained, train};

/// Configuration of the training of the node scorer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProposeTraining {
    /// The net; its numbers of features are taken from the cases.
    pub net: ProposeNetConfig,
    /// Training loop.
    pub train: TrainConfig,
    /// Graphs per batch; every second one contains a lesion.
    pub graphs_per_step: usize,
    /// Loss of a node. The mean over the positive nodes and the mean over the negative nodes are
    /// added.
    pub loss: AsymmetricLoss,
    /// Standard deviation of the noise on standardised node features.
    pub feature_noise: f32,
}

impl Default for ProposeTraining {
    fn default() -> Self {
        Self {
            net: ProposeNetConfig::default(),
            train: TrainConfig { steps: 1500, learning_rate: 3e-3, ..TrainConfig::default() },
            graphs_per_step: 4,
            loss: AsymmetricLoss { focus_positive: 0.0, focus_negative: 1.0, shift: 0.0, weight_gradient: Switch::Off },
            feature_noise: 0.05,
        }
    }
}

impl ProposeTraining {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        self.net.validate().map_err(|error| error.within("net"))?;
        self.train.validate().map_err(|error| error.within("train"))?;
        self.loss.validate().map_err(|error| error.within("loss"))?;
        at_least_one("graphs_per_step", self.graphs_per_step)?;
        non_negative("feature_noise", self.feature_noise)
    }
}

/// Error of the training of the node scorer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeFitError {
    /// A configuration value breaks a rule.
    #[error(transparent)]
    Config(#[from] InvalidValue),
    /// No graph has a node.
    #[error("there is no centreline graph to train on; trace the training series first")]
    NoCases,
    /// No node is positive.
    #[error("no node of the training graphs lies in an aneurysm; add series with lesions")]
    NoPositives,
    /// The graphs have different features.
    #[error("graph {case} has {got} features per node, expected {expected}; trace all series with one version")]
    Features {
        /// Number of the graph.
        case: usize,
        /// Features of the first graph.
        expected: usize,
        /// Features of this graph.
        got: usize,
    },
    /// The training loop failed.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// Trains a node scorer, or resumes the run in `run_dir`. Equal cases, configuration and seed give
/// equal nets.
///
/// # Errors
/// [`ProposeFitError`] when the configuration is invalid, the cases cannot be trained on, or the
/// training loop fails.
pub fn fit(
    cases: &[GraphCase],
    training: &ProposeTraining,
    run_dir: &Path,
    device: &Device,
    on_step: impl FnMut(&StepReport<'_>),
) -> Result<Trained<ProposeNet>, ProposeFitError> {
    training.validate()?;
    let cases: Vec<&GraphCase> = cases.iter().filter(|case| case.nodes() > 0).collect();
    let first = *cases.first().ok_or(ProposeFitError::NoCases)?;
    let expected = first.node_features;
    let same = |case: &GraphCase| case.node_features == expected && case.edge_feature_count == first.edge_feature_count;
    if let Some(case) = cases.iter().position(|case| !same(case)) {
        return Err(ProposeFitError::Features { case, expected, got: cases[case].node_features });
    }
    let positive: Vec<&GraphCase> = cases.iter().copied().filter(|case| case.labels.contains(&1.0)).collect();
    if positive.is_empty() {
        return Err(ProposeFitError::NoPositives);
    }

    let nodes = statistics(cases.iter().map(|c| c.features.as_slice()), expected);
    let edges = statistics(cases.iter().map(|c| c.edge_features.as_slice()), first.edge_feature_count);
    let config =
        ProposeNetConfig { node_features: expected, edge_features: first.edge_feature_count, ..training.net.clone() };
    let net = config
        .init(&mut Init::new(training.train.seed, device))
        .standardised((&nodes.0, &nodes.1), (&edges.0, &edges.1));

    let noise: Vec<f32> = nodes.1.iter().map(|deviation| deviation * training.feature_noise).collect();
    let sample = |_: usize, rng: &mut ChaCha8Rng| {
        let pick = |i: usize, rng: &mut ChaCha8Rng| {
            let pool = if i.is_multiple_of(2) { &positive } else { &cases };
            pool[rng.random_range(0..pool.len())]
        };
        let picked: Vec<&GraphCase> = (0..training.graphs_per_step).map(|i| pick(i, rng)).collect();
        let mut batch = GraphCase::joined(&picked);
        for (i, value) in batch.features.iter_mut().enumerate() {
            // The sum of three uniform numbers is close to normal, with standard deviation 1/2.
            let normal: f32 = (0..3).map(|_| rng.random::<f32>() - 0.5).sum::<f32>() * 2.0;
            *value += normal * noise[i % expected];
        }
        batch
    };
    let loss = |net: &ProposeNet, batch: GraphCase| Loss::of(node_loss(net, &batch, training.loss));
    Ok(train(net, &training.train, run_dir, sample, loss, on_step)?)
}

/// Mean loss of the positive nodes plus mean loss of the negative nodes.
fn node_loss(net: &ProposeNet, case: &GraphCase, loss: AsymmetricLoss) -> Tensor<1> {
    let device = net.device();
    let nodes = case.nodes();
    let x = Tensor::from_data(TensorData::new(case.features.clone(), [nodes, case.node_features]), &device);
    let targets = Tensor::<1>::from_data(TensorData::new(case.labels.clone(), [nodes]), &device);
    let graph = GraphTensors::new(nodes, &case.edges, &case.edge_features, case.edge_feature_count, &device);
    let positives = case.labels.iter().sum::<f32>();
    let (per_positive, per_negative) = (1.0 / positives.max(1.0), 1.0 / (nodes as f32 - positives).max(1.0));
    let weights = targets.clone() * (per_positive - per_negative) + per_negative;
    (loss.forward(net.forward(x, &graph), targets) * weights).sum()
}

/// Mean and standard deviation of each column.
fn statistics<'a>(rows: impl Iterator<Item = &'a [f32]> + Clone, width: usize) -> (Vec<f32>, Vec<f32>) {
    let values =
        |column: usize| rows.clone().flat_map(move |r| r.chunks_exact(width.max(1)).map(move |c| f64::from(c[column])));
    (0..width)
        .map(|column| {
            let count = values(column).count().max(1) as f64;
            let mean = values(column).sum::<f64>() / count;
            let variance = values(column).map(|v| (v - mean).powi(2)).sum::<f64>() / count;
            (mean as f32, variance.sqrt() as f32)
        })
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path of nodes; the first feature of the positive ones is high.
    fn case(nodes: usize, at: usize) -> GraphCase {
        let near = |i: usize| f32::from(i.abs_diff(at) < 2);
        GraphCase {
            features: (0..nodes)
                .flat_map(|i| [3.0 * near(i) + (i as f32).sin() * 0.3 + 7.0, (i as f32 * 1.7).cos()])
                .collect(),
            node_features: 2,
            edges: (1..nodes as u32).flat_map(|i| [[i - 1, i], [i, i - 1]]).collect(),
            edge_features: vec![0.5; 2 * (nodes - 1)],
            edge_feature_count: 1,
            labels: (0..nodes).map(near).collect(),
        }
    }

    fn training(steps: usize) -> ProposeTraining {
        ProposeTraining {
            train: TrainConfig { steps, learning_rate: 0.01, ..TrainConfig::default() },
            ..Default::default()
        }
    }

    #[test]
    fn a_feature_of_positive_nodes_is_learned() {
        let cases: Vec<GraphCase> = (0..6).map(|i| case(30, 4 + 4 * i)).collect();
        let folder = tempfile::tempdir().unwrap();
        let mut losses = Vec::new();
        let device = Device::flex();
        let trained = fit(&cases, &training(60), folder.path(), &device, |report| losses.push(report.loss)).unwrap();
        assert!(losses[59] < 0.3 * losses[0], "{} {}", losses[0], losses[59]);
        let test = case(40, 33);
        let value = node_loss(&trained.net, &test, AsymmetricLoss::default()).into_scalar::<f32>();
        assert!(value < 0.3, "{value}");
    }

    #[test]
    fn unusable_training_sets_are_refused() {
        let run = |cases: &[GraphCase]| {
            let folder = tempfile::tempdir().unwrap();
            fit(cases, &training(1), folder.path(), &Device::flex(), |_| ()).unwrap_err()
        };
        assert!(matches!(run(&[]), ProposeFitError::NoCases));
        assert!(matches!(run(&[case(5, 99)]), ProposeFitError::NoPositives));
        let wide = GraphCase { node_features: 1, features: vec![0.0; 5], ..case(5, 2) };
        assert!(matches!(run(&[case(5, 2), wide]), ProposeFitError::Features { case: 1, expected: 2, got: 1 }));
    }
}
