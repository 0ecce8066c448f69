//! Memory of outputs, used again: a net asks for the same sizes in every window and every step, and
//! fresh memory costs more than many a kernel, because it is zeroed and its pages are mapped in
//! first.

use std::collections::VecDeque;
use std::mem::{self, MaybeUninit};
use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, TensorData};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};

/// Shorter buffers are left to the allocator.
const MIN_FLOATS: usize = 16 * 1024;
/// Floats kept at most (32 MiB): more makes nets hardly faster and takes memory. The buffers that
/// were given back first go first.
const MAX_FLOATS: usize = 8 << 20;

static FREE: Mutex<Free> = Mutex::new(Free { buffers: VecDeque::new(), floats: 0 });

/// Buffers nobody uses, the one given back last at the end.
#[derive(Default)]
struct Free {
    buffers: VecDeque<Vec<f32>>,
    floats: usize,
}

impl Free {
    /// The latest buffer of this length, which caches may still hold.
    fn take(&mut self, length: usize) -> Option<Vec<f32>> {
        let place = self.buffers.iter().rposition(|buffer| buffer.len() == length)?;
        self.floats -= length;
        self.buffers.remove(place)
    }

    fn give(&mut self, buffer: Vec<f32>) {
        self.floats += buffer.len();
        self.buffers.push_back(buffer);
        while self.floats > MAX_FLOATS {
            let oldest = self.buffers.pop_front().expect("there are floats, so there is a buffer");
            self.floats -= oldest.len();
        }
    }
}

fn with_free<R>(work: impl FnOnce(&mut Free) -> R) -> R {
    // A panic elsewhere leaves the list whole.
    work(&mut FREE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A buffer whose old contents mean nothing.
pub(crate) fn take(length: usize) -> Vec<f32> {
    if length > MAX_FLOATS {
        // The peak of a net's memory: what lies free would only add to it.
        drop(with_free(mem::take));
    }
    let used = (length >= MIN_FLOATS).then(|| with_free(|free| free.take(length))).flatten();
    used.unwrap_or_else(|| vec![0.0; length])
}

/// The values as tensor data that gives its memory back when it is dropped.
///
/// # Panics
/// if the values do not fill the shape (programmer error)
pub(crate) fn data(values: Vec<f32>, shape: Vec<usize>) -> TensorData {
    if values.len() < MIN_FLOATS {
        return TensorData::new(values, shape);
    }
    let bytes = mem::size_of_val(values.as_slice());
    // SAFETY: the controller's memory is the vector's elements, which are `bytes` initialised
    // bytes.
    let bytes = unsafe { Bytes::from_controller(Box::new(Reused(values)), bytes) };
    TensorData::from_bytes(bytes, shape, DType::F32)
}

/// Memory of a tensor.
struct Reused(Vec<f32>);

impl Drop for Reused {
    fn drop(&mut self) {
        let buffer = mem::take(&mut self.0);
        with_free(|free| free.give(buffer));
    }
}

impl AllocationController for Reused {
    fn alloc_align(&self) -> usize {
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self, _: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let floats = self.0.as_mut_slice();
        // SAFETY: f32 has no padding and takes any bits, and the caller promises to write
        // initialised bytes only.
        Ok(unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), mem::size_of_val(floats)) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let floats = self.0.as_slice();
        // SAFETY: f32 has no padding, so its bytes are initialised.
        Ok(unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), mem::size_of_val(floats)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tensor};

    /// Other tests use the list too, but not this length.
    const LENGTH: usize = MIN_FLOATS + 77;

    #[test]
    fn memory_comes_back_and_values_do_not_change() {
        let mut buffer = take(LENGTH);
        let place = buffer.as_ptr();
        buffer.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
        let x = Tensor::<1>::from_data(data(buffer, vec![LENGTH]), &Device::flex());
        let shared = x.clone();
        // In place where a tensor is alone, on a copy where it is not.
        let y = x * 2.0;
        let expected: Vec<f32> = (0..LENGTH).map(|i| i as f32).collect();
        assert_eq!(shared.clone().into_data().as_slice::<f32>().unwrap(), expected);
        let doubled = y.into_data();
        assert_eq!(doubled.as_slice::<f32>().unwrap()[LENGTH - 1], 2.0 * (LENGTH - 1) as f32);
        assert_eq!(shared.clone().into_data().try_to_vec::<f32>().unwrap(), expected);
        drop((shared, doubled));
        let again = [take(LENGTH), take(LENGTH), take(LENGTH)];
        assert!(again.iter().any(|buffer| buffer.as_ptr() == place));
    }

    #[test]
    fn no_more_is_kept_than_allowed() {
        let mut free = Free { buffers: VecDeque::new(), floats: 0 };
        (0..5).for_each(|_| free.give(vec![0.0; MAX_FLOATS / 3]));
        assert_eq!((free.buffers.len(), free.floats), (3, MAX_FLOATS / 3 * 3));
        assert!(free.take(MAX_FLOATS).is_none() && free.take(MAX_FLOATS / 3).is_some());
        assert_eq!(free.floats, MAX_FLOATS / 3 * 2);
        free.give(vec![0.0; MAX_FLOATS + 1]);
        assert_eq!((free.buffers.len(), free.floats), (0, 0));
    }
}
