//! The parameters of burn modules as [`Weights`].

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

use super::{Mismatch, Weights, WeightsError};

/// A counter that PyTorch's batch norms save and our nets do not have.
pub(super) const BATCH_COUNTER: &str = "num_batches_tracked";

impl Weights {
    /// Returns every parameter of a net, by its path.
    pub fn of<M: Module>(net: &M) -> Self {
        let mut collector = Collector::default();
        net.visit(&mut collector);
        collector.weights
    }

    /// Returns the net with these parameters.
    ///
    /// # Errors
    /// [`WeightsError::Mismatch`] if names or shapes are not exactly those of the net; PyTorch's
    /// batch counters are ignored
    pub fn apply<M: Module>(self, net: M) -> Result<M, WeightsError> {
        let mut loader = Loader { path: Vec::new(), weights: self, mismatch: Mismatch::default() };
        let net = net.map(&mut loader);
        let Loader { weights, mut mismatch, .. } = loader;
        let rest = weights.shapes().map(|(name, _)| name.to_string());
        mismatch.unexpected = rest.filter(|name| !name.ends_with(BATCH_COUNTER)).collect();
        if mismatch.is_empty() { Ok(net) } else { Err(mismatch.into()) }
    }
}

/// Copies the parameters of a module.
#[derive(Default)]
struct Collector {
    path: Vec<String>,
    weights: Weights,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let shape = value.dims().to_vec();
        let values = value.into_data().convert::<f32>().try_to_vec::<f32>().expect("data was just converted to f32");
        self.weights.insert(self.path.join("."), shape, values);
    }
}

/// Moves weights into the parameters of a module.
struct Loader {
    path: Vec<String>,
    weights: Weights,
    mismatch: Mismatch,
}

impl ModuleMapper for Loader {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        let (old, expected) = (param.val(), param.val().dims().to_vec());
        match self.weights.remove(&name) {
            Some((shape, values)) if shape == expected => {
                return param.map(|_| {
                    let new = Tensor::from_data(TensorData::new(values, shape), &old.device());
                    new.set_require_grad(old.is_require_grad())
                });
            }
            Some((shape, _)) => self.mismatch.misshapen.push((name, expected, shape)),
            None => self.mismatch.missing.push(name),
        }
        param
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::layers::{Init, Linear, LinearConfig};

    fn net(seed: u64) -> Linear {
        LinearConfig::new(3, 2).init(&mut Init::new(seed, &Device::flex()))
    }

    #[test]
    fn a_net_accepts_exactly_its_own_weights() {
        let weights = Weights::of(&net(1));
        assert_eq!(weights.shapes().collect::<Vec<_>>(), [("bias", &[2][..]), ("weight", &[2, 3][..])]);
        let loaded = weights.clone().apply(net(2)).unwrap();
        assert_eq!(Weights::of(&loaded), weights);

        let mismatch = |weights: Weights| match weights.apply(net(2)) {
            Err(WeightsError::Mismatch { mismatch }) => mismatch,
            other => panic!("{other:?}"),
        };
        let mut extra = weights.clone();
        extra.insert("scale", vec![1], vec![1.0]);
        assert_eq!(mismatch(extra).unexpected, ["scale"]);
        assert_eq!(mismatch(Weights::default()).missing, ["weight", "bias"]);
        let mut reshaped = weights.clone();
        reshaped.insert("bias", vec![1], vec![1.0]);
        assert_eq!(mismatch(reshaped).misshapen, [("bias".to_string(), vec![2], vec![1])]);

        let mut counted = weights;
        counted.insert("norm.num_batches_tracked", vec![1], vec![3.0]);
        assert!(counted.apply(net(2)).is_ok());
    }
}
