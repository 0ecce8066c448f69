//! Gradients of a net, by the path of the parameter.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};

use crate::weights::Weights;

/// Gradients of a net's parameters, by path; parameters without one are absent.
pub(in crate::train) fn gradients<M: Module>(net: &M, grads: &mut Gradients) -> Weights {
    let mut reader = GradientReader { path: Vec::new(), grads, found: Weights::default() };
    net.visit(&mut reader);
    reader.found
}

struct GradientReader<'a> {
    path: Vec<String>,
    grads: &'a mut Gradients,
    found: Weights,
}

impl ModuleVisitor for GradientReader<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = param.val().grad_remove(self.grads) else { return };
        let shape = gradient.dims().to_vec();
        let values = gradient.into_data().convert::<f32>().try_to_vec::<f32>().expect("data was just converted to f32");
        self.found.insert(self.path.join("."), shape, values);
    }
}
