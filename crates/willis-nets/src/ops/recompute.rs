//! Outputs of cheap kernels, made again for the backward pass instead of kept until then.
//!
//! A training step keeps what its backward pass reads. Much of that is the output of a norm, an
//! activation or a change of layout, whose input is kept as well. So such a kernel leaves a
//! [`Recipe`] under its node of the autodiff graph; whoever would keep its output keeps the recipe.
//! Kernels repeat their bytes, so gradients stay the same to the last bit.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use burn::backend::Flex;
use burn::backend::autodiff::NodeId;
use burn::backend::tensor::FloatTensor;

/// Recipes by the node whose output they make. Each lives as long as somebody holds it.
static RECIPES: LazyLock<Mutex<HashMap<NodeId, Weak<Recipe>>>> = LazyLock::new(Mutex::default);

/// What a backward step will read of a tensor.
#[derive(Debug, Clone)]
pub(super) enum Saved {
    Kept(FloatTensor<Flex>),
    Remade(Arc<Recipe>),
}

impl Saved {
    /// The output `tensor` of a node, by its recipe where it has one.
    pub fn of(node: NodeId, tensor: &FloatTensor<Flex>) -> Self {
        let recipe = lock(&RECIPES).get(&node).and_then(Weak::upgrade);
        match recipe {
            Some(recipe) => {
                lock(&recipe.made).readers += 1;
                Self::Remade(recipe)
            }
            None => Self::Kept(tensor.clone()),
        }
    }

    pub fn is_remade(&self) -> bool {
        matches!(self, Self::Remade(_))
    }

    /// The tensor; each holder asks once.
    pub fn read(&self) -> FloatTensor<Flex> {
        match self {
            Self::Kept(tensor) => tensor.clone(),
            Self::Remade(recipe) => recipe.read(),
        }
    }
}

/// How to make a tensor again.
pub(super) struct Recipe {
    make: Box<dyn Fn() -> FloatTensor<Flex> + Send + Sync>,
    made: Mutex<Made>,
    node: OnceLock<NodeId>,
}

/// The tensor between its first and its last reader.
#[derive(Default)]
struct Made {
    readers: usize,
    tensor: Option<FloatTensor<Flex>>,
}

impl Recipe {
    pub fn new(make: impl Fn() -> FloatTensor<Flex> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { make: Box::new(make), made: Mutex::default(), node: OnceLock::new() })
    }

    /// From now on [`Saved::of`] finds the recipe under this node.
    pub fn publish(self: &Arc<Self>, node: NodeId) {
        if self.node.set(node).is_ok() {
            lock(&RECIPES).insert(node, Arc::downgrade(self));
        }
    }

    fn read(&self) -> FloatTensor<Flex> {
        let mut made = lock(&self.made);
        made.readers = made.readers.saturating_sub(1);
        let tensor = made.tensor.take().unwrap_or_else(|| (self.make)());
        if made.readers > 0 {
            made.tensor = Some(tensor.clone());
        }
        tensor
    }
}

impl Drop for Recipe {
    fn drop(&mut self) {
        if let Some(node) = self.node.get() {
            lock(&RECIPES).remove(node);
        }
    }
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipe of {:?}", self.node.get())
    }
}

/// A panic elsewhere leaves these maps and counts whole.
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
    fn a_tensor_is_made_once_for_all_its_readers() {
        let tensor = || FloatTensor::<Flex>::from_data(TensorData::from([1.0f32]));
        let (node, count) = (NodeId::new(), Arc::new(AtomicUsize::new(0)));
        let counted = count.clone();
        let recipe = Recipe::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            FloatTensor::<Flex>::from_data(TensorData::from([2.0f32]))
        });
        assert!(!Saved::of(node, &tensor()).is_remade());
        recipe.publish(node);
        let readers = [Saved::of(node, &tensor()), Saved::of(node, &tensor())];
        drop(recipe);
        for reader in &readers {
            assert_eq!(reader.read().as_slice::<f32>(), Some(&[2.0f32][..]));
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
        drop(readers);
        assert!(!Saved::of(node, &tensor()).is_remade());
    }

    /// Through `step` nothing is made again when it hides the node.
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
    fn gradients_are_those_of_what_is_kept() {
        let kept = gradients(|x| {
            let [batch, rows, channels] = x.dims();
            x.reshape([batch * rows, channels]).reshape([batch, rows, channels])
        });
        assert_eq!(gradients(|x| x), kept);
    }
}
