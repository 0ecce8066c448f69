//! Activation checkpointing: outputs of cheap kernels are recomputed in the backward pass instead
//! of being saved for it.
//!
//! A training step saves what its backward pass reads. Much of that is the output of a norm, an
//! activation or a transpose, whose input is saved as well. Such a kernel registers a
//! [`Recomputation`] for its node of the autodiff graph, and every operation that would save its
//! output saves the recomputation instead. Kernels are deterministic, so the gradients are
//! bit-identical to those from saved outputs.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use burn::backend::Flex;
use burn::backend::autodiff::NodeId;
use burn::backend::tensor::FloatTensor;

/// The recomputation of each node's output. Each lives as long as a backward step needs it.
static RECOMPUTATIONS: LazyLock<Mutex<HashMap<NodeId, Weak<Recomputation>>>> = LazyLock::new(Mutex::default);

/// A tensor saved for backward.
#[derive(Debug, Clone)]
pub(super) enum SavedTensor {
    Stored(FloatTensor<Flex>),
    Recomputed(Arc<Recomputation>),
}

impl SavedTensor {
    /// Saves the output `tensor` of a node: as a recomputation if the node has one.
    pub fn new(node: NodeId, tensor: &FloatTensor<Flex>) -> Self {
        let recomputation = lock(&RECOMPUTATIONS).get(&node).and_then(Weak::upgrade);
        match recomputation {
            Some(recomputation) => {
                lock(&recomputation.output).pending_reads += 1;
                Self::Recomputed(recomputation)
            }
            None => Self::Stored(tensor.clone()),
        }
    }

    pub fn is_recomputed(&self) -> bool {
        matches!(self, Self::Recomputed(_))
    }

    /// Returns the tensor. To be called once per saved tensor.
    pub fn read(&self) -> FloatTensor<Flex> {
        match self {
            Self::Stored(tensor) => tensor.clone(),
            Self::Recomputed(recomputation) => recomputation.read(),
        }
    }
}

/// Recomputes a tensor on its first read and frees it after its last.
pub(super) struct Recomputation {
    compute: Box<dyn Fn() -> FloatTensor<Flex> + Send + Sync>,
    output: Mutex<RecomputedOutput>,
    node: OnceLock<NodeId>,
}

/// A tensor that exists between its first and its last read.
#[derive(Default)]
struct RecomputedOutput {
    pending_reads: usize,
    tensor: Option<FloatTensor<Flex>>,
}

impl Recomputation {
    pub fn new(compute: impl Fn() -> FloatTensor<Flex> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { compute: Box::new(compute), output: Mutex::default(), node: OnceLock::new() })
    }

    /// Makes the recomputation available to [`SavedTensor::new`] under this node.
    pub fn register(self: &Arc<Self>, node: NodeId) {
        if self.node.set(node).is_ok() {
            lock(&RECOMPUTATIONS).insert(node, Arc::downgrade(self));
        }
    }

    fn read(&self) -> FloatTensor<Flex> {
        let mut output = lock(&self.output);
        output.pending_reads = output.pending_reads.saturating_sub(1);
        let tensor = output.tensor.take().unwrap_or_else(|| (self.compute)());
        if output.pending_reads > 0 {
            output.tensor = Some(tensor.clone());
        }
        tensor
    }
}

impl Drop for Recomputation {
    fn drop(&mut self) {
        if let Some(node) = self.node.get() {
            lock(&RECOMPUTATIONS).remove(node);
        }
    }
}

impl fmt::Debug for Recomputation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recomputation of {:?}", self.node.get())
    }
}

/// Locks a mutex; a panic of another holder leaves these maps and counts in a valid state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;
    use crate::golden;
    use crate::ops::{channels_first, channels_last, gelu, layer_norm, linear};

    #[test]
    fn a_tensor_is_recomputed_once_for_all_its_reads() {
        let tensor = || FloatTensor::<Flex>::from_data(TensorData::from([1.0f32]));
        let (node, count) = (NodeId::new(), Arc::new(AtomicUsize::new(0)));
        let counted = count.clone();
        let recomputation = Recomputation::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            FloatTensor::<Flex>::from_data(TensorData::from([2.0f32]))
        });
        assert!(!SavedTensor::new(node, &tensor()).is_recomputed());
        recomputation.register(node);
        let saved = [SavedTensor::new(node, &tensor()), SavedTensor::new(node, &tensor())];
        drop(recomputation);
        for saved in &saved {
            assert_eq!(saved.read().as_slice::<f32>(), Some(&[2.0f32][..]));
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
        drop(saved);
        assert!(!SavedTensor::new(node, &tensor()).is_recomputed());
    }

    /// Gradients of a small net. Nothing is recomputed if `step` hides the nodes of its inputs.
    fn gradients(step: fn(Tensor<3>) -> Tensor<3>) -> Vec<TensorData> {
        let device = Device::flex().autodiff();
        let x = golden::input([2, 24, 6], &device).require_grad();
        let weight = golden::input([6, 6], &device).require_grad();
        let gain = golden::input([6], &device).require_grad();
        let normed = step(layer_norm(x.clone(), gain.clone(), gain.clone(), 1e-5));
        let active = step(gelu(channels_last(channels_first(normed.clone(), [2, 3, 4]), [2, 24, 6])));
        let y = linear(active, weight.clone(), None) + linear(normed, weight.clone(), None);
        let grads = y.square().sum().backward();
        [
            x.grad(&grads).map(|g| g.into_data()),
            weight.grad(&grads).map(|g| g.into_data()),
            gain.grad(&grads).map(|g| g.into_data()),
        ]
        .map(Option::unwrap)
        .into()
    }

    #[test]
    fn gradients_equal_those_from_saved_outputs() {
        let saved = gradients(|x| {
            let [batch, rows, channels] = x.dims();
            x.reshape([batch * rows, channels]).reshape([batch, rows, channels])
        });
        assert_eq!(gradients(|x| x), saved);
    }
}
