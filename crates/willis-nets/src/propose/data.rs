//! Training data of the node scorer: labelled centreline graphs and their files.

use std::collections::BTreeMap;
use std::path::Path;

use willis_core::files::tensors::{self, Precision, Tensors};
use willis_core::files::{FileError, Malformed};
use willis_core::{Lesion, NodeTable};

/// Diameter assumed for a lesion that is annotated only as a point, mm.
const UNKNOWN_DIAMETER_MM: f64 = 4.0;

/// A centreline graph with a label per node.
///
/// Letters: N nodes, F node features, E directed edges, G edge features.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GraphCase {
    /// Node features `[N, F]`, row-major.
    pub features: Vec<f32>,
    /// Number of node features, F.
    pub node_features: usize,
    /// Directed edges `[source, target]`.
    pub edges: Vec<[u32; 2]>,
    /// Edge features `[E, G]`, row-major.
    pub edge_features: Vec<f32>,
    /// Number of edge features, G.
    pub edge_feature_count: usize,
    /// 1 for nodes in or next to a true aneurysm, else 0, `[N]`.
    pub labels: Vec<f32>,
}

impl GraphCase {
    /// Labels the nodes of a table: a node is positive if its distance to a lesion's centre is at
    /// most the lesion's radius plus `margin_mm`.
    pub fn new(table: &NodeTable, lesions: &[Lesion], margin_mm: f64) -> Self {
        let near = |lesion: &Lesion, node: &willis_core::CentrelinePoint| {
            let radius_mm = lesion.diameter_mm.unwrap_or(UNKNOWN_DIAMETER_MM) / 2.0;
            node.point.distance_mm(lesion.centre) <= radius_mm + margin_mm
        };
        let label = |node| f32::from(lesions.iter().any(|lesion| near(lesion, node)));
        Self {
            features: table.features.clone(),
            node_features: table.feature_names.len(),
            edges: table.edges.clone(),
            edge_features: table.edge_features.clone(),
            edge_feature_count: table.edge_feature_names.len(),
            labels: table.points.iter().map(label).collect(),
        }
    }

    /// Several graphs as one disconnected graph. All have the same numbers of features.
    pub fn joined(cases: &[&GraphCase]) -> Self {
        let mut all = Self::default();
        for case in cases {
            let start = all.nodes() as u32;
            all.features.extend_from_slice(&case.features);
            all.edges.extend(case.edges.iter().map(|edge| edge.map(|node| node + start)));
            all.edge_features.extend_from_slice(&case.edge_features);
            all.labels.extend_from_slice(&case.labels);
            (all.node_features, all.edge_feature_count) = (case.node_features, case.edge_feature_count);
        }
        all
    }

    /// Number of nodes, N.
    pub fn nodes(&self) -> usize {
        self.labels.len()
    }
}

/// Writes cases to one safetensors file.
///
/// # Errors
/// [`FileError::Write`] when the file cannot be written.
pub fn save(path: &Path, cases: &[GraphCase]) -> Result<(), FileError> {
    let mut content = Tensors::default();
    for (i, case) in cases.iter().enumerate() {
        let edges = case.edges.as_flattened().iter().map(|&node| node as f32).collect();
        let mut put = |name: &str, shape: Vec<usize>, data: Vec<f32>| {
            content.tensors.insert(format!("{i:06}.{name}"), tensors::Tensor { shape, data });
        };
        put("features", vec![case.nodes(), case.node_features], case.features.clone());
        put("edges", vec![case.edges.len(), 2], edges);
        put("edge_features", vec![case.edges.len(), case.edge_feature_count], case.edge_features.clone());
        put("labels", vec![case.nodes()], case.labels.clone());
    }
    tensors::write(path, &content, Precision::F32)
}

/// Reads the cases of a file.
///
/// # Errors
/// [`FileError`] when the file cannot be read or a graph in it is inconsistent.
pub fn load(path: &Path) -> Result<Vec<GraphCase>, FileError> {
    let mut tensors = tensors::read(path)?.tensors;
    let numbers: Vec<String> =
        tensors.keys().filter_map(|name| name.strip_suffix(".labels").map(String::from)).collect();
    numbers.iter().map(|number| case(&mut tensors, number).ok_or_else(|| damaged(path, number))).collect()
}

fn damaged(path: &Path, number: &str) -> FileError {
    let reason = format!("graph {number} is inconsistent; prepare the training data again");
    FileError::Malformed { path: path.to_path_buf(), source: Malformed { format: "graph case", reason } }
}

fn case(tensors: &mut BTreeMap<String, tensors::Tensor>, number: &str) -> Option<GraphCase> {
    let mut take = |name: &str| tensors.remove(&format!("{number}.{name}"));
    let (features, edges) = (take("features")?, take("edges")?);
    let (edge_features, labels) = (take("edge_features")?, take("labels")?);
    let nodes = labels.data.len();
    let (&[rows, node_features], &[edge_rows, edge_feature_count]) =
        (features.shape.as_slice(), edge_features.shape.as_slice())
    else {
        return None;
    };
    let node = |&value: &f32| (value >= 0.0 && (value as usize) < nodes).then_some(value as u32);
    let ends = edges.data.iter().map(node).collect::<Option<Vec<u32>>>()?;
    let finite = features.data.iter().chain(&edge_features.data).all(|v| v.is_finite());
    let fits = rows == nodes && edges.shape == [edge_rows, 2] && finite;
    fits.then(|| GraphCase {
        features: features.data,
        node_features,
        edges: ends.as_chunks().0.to_vec(),
        edge_features: edge_features.data,
        edge_feature_count,
        labels: labels.data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use willis_core::{CentrelinePoint, Point, Site};

    fn table() -> NodeTable {
        let point = |x| CentrelinePoint { point: Point::new(x, 0.0, 0.0), radius_mm: 1.0 };
        NodeTable {
            points: vec![point(0.0), point(2.9), point(3.1)],
            feature_names: vec!["a"],
            features: vec![1.0, 2.0, 3.0],
            edges: vec![[0, 1], [1, 0]],
            edge_feature_names: vec!["b"],
            edge_features: vec![4.0, 5.0],
        }
    }

    fn lesion() -> Lesion {
        let centre = Point::new(0.0, 0.0, 0.0);
        Lesion { centre, diameter_mm: Some(4.0), site: Site::Acom, neck: None, neck_width_mm: None }
    }

    #[test]
    fn nodes_within_the_margin_of_the_sac_are_positive() {
        assert_eq!(GraphCase::new(&table(), &[lesion()], 1.0).labels, [1.0, 1.0, 0.0]);
        assert_eq!(GraphCase::new(&table(), &[], 1.0).labels, [0.0; 3]);
    }

    #[test]
    fn joined_graphs_keep_their_own_edges() {
        let case = GraphCase::new(&table(), &[lesion()], 1.0);
        let two = GraphCase::joined(&[&case, &case]);
        assert_eq!(two.edges, [[0, 1], [1, 0], [3, 4], [4, 3]]);
        assert_eq!((two.nodes(), two.features.len(), two.edge_features.len()), (6, 6, 4));
    }

    #[test]
    fn files_round_trip_and_damaged_ones_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("graphs.safetensors");
        let mut cases = vec![GraphCase::new(&table(), &[lesion()], 1.0), GraphCase::default()];
        save(&path, &cases).unwrap();
        assert_eq!(load(&path).unwrap(), cases);
        cases[0].edges[1] = [9, 0];
        save(&path, &cases).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("prepare the training data again"));
    }
}
