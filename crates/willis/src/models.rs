//! Weights of the learned stages: embedded in the binary, or from a folder.

use std::borrow::Cow;
use std::path::Path;

use anyhow::Context;
use willis_core::ModelRef;
use willis_core::files::hash::sha256_hex;
use willis_nets::examine::ExamineNet;
use willis_nets::propose::ProposeNet;
use willis_nets::segment::SegmentNet;
use willis_stats::stack::StackModel;

use crate::brain::BrainFinder;
use crate::embedded::embedded;
pub use crate::embedded::{BRAIN, EXAMINE, PROPOSE, SEGMENT, STACK};

/// The learned stages of the line.
pub struct Nets {
    /// Finds the brain, by which the region of interest can be placed.
    pub brain: BrainFinder,
    /// Makes the vessel map.
    pub segment: SegmentNet,
    /// Scores the nodes of the vessel graph.
    pub propose: ProposeNet,
    /// Gathers evidence on each candidate.
    pub examine: ExamineNet,
    /// Turns the evidence into probabilities.
    pub stack: StackModel,
    /// File names and hashes: segment, propose, examine, stack, brain.
    pub models: Vec<ModelRef>,
}

impl Nets {
    /// Loads all from a folder, or the embedded ones. A folder without a brain net gets the
    /// embedded one.
    ///
    /// # Errors
    /// when a file is missing or belongs to another net
    pub fn load(folder: Option<&Path>) -> anyhow::Result<Self> {
        let (segment, propose, examine, stack) =
            (bytes(folder, SEGMENT)?, bytes(folder, PROPOSE)?, bytes(folder, EXAMINE)?, bytes(folder, STACK)?);
        let brain = bytes(folder.filter(|folder| folder.join(BRAIN).exists()), BRAIN)?;
        let named = [(SEGMENT, &segment), (PROPOSE, &propose), (EXAMINE, &examine), (STACK, &stack), (BRAIN, &brain)];
        Ok(Self {
            brain: BrainFinder::from_bytes(&brain)?,
            segment: SegmentNet::from_bytes(&segment).context(SEGMENT)?,
            propose: propose_net(&propose)?,
            examine: examine_net(&examine)?,
            stack: StackModel::from_json(&stack).context(STACK)?,
            models: named.map(|(name, bytes)| ModelRef { name: name.into(), sha256: sha256_hex(bytes) }).to_vec(),
        })
    }
}

/// Loads the segmentation net of a folder, with the hash of its file.
///
/// # Errors
/// when the file is missing or belongs to another net
pub fn load_segment(folder: &Path) -> anyhow::Result<(SegmentNet, String)> {
    let bytes = bytes(Some(folder), SEGMENT)?;
    Ok((SegmentNet::from_bytes(&bytes).context(SEGMENT)?, sha256_hex(&bytes)))
}

/// Loads the graph net of a folder.
///
/// # Errors
/// when the file is missing or belongs to another net
pub fn load_propose(folder: &Path) -> anyhow::Result<ProposeNet> {
    propose_net(&bytes(Some(folder), PROPOSE)?)
}

/// Loads the classifier of a folder.
///
/// # Errors
/// when the file is missing or belongs to another net
pub fn load_examine(folder: &Path) -> anyhow::Result<ExamineNet> {
    examine_net(&bytes(Some(folder), EXAMINE)?)
}

fn propose_net(bytes: &[u8]) -> anyhow::Result<ProposeNet> {
    ProposeNet::from_bytes(bytes).context(PROPOSE)
}

fn examine_net(bytes: &[u8]) -> anyhow::Result<ExamineNet> {
    ExamineNet::from_bytes(bytes).context(EXAMINE)
}

fn bytes(folder: Option<&Path>, name: &str) -> anyhow::Result<Cow<'static, [u8]>> {
    let Some(folder) = folder else { return Ok(Cow::Borrowed(embedded(name))) };
    let path = folder.join(name);
    let bytes = std::fs::read(&path)
        .with_context(|| format!("cannot read weights {}; `willis train` writes them", path.display()))?;
    Ok(Cow::Owned(bytes))
}
