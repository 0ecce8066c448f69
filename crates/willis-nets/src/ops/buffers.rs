//! A pool of output buffers.
//!
//! A net needs the same buffer sizes in every window and every step. New memory is zeroed and its
//! pages are mapped first, which takes longer than many a kernel.

use std::collections::VecDeque;
use std::mem::{self, MaybeUninit};
use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, TensorData};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};

/// Shorter buffers are not pooled; the allocator serves them fast enough.
const MIN_FLOATS: usize = 16 * 1024;
/// The free list holds at most this many floats (32 MiB). Larger lists take memory and make nets
/// hardly faster. The buffers that were released first are freed first.
const MAX_FLOATS: usize = 8 << 20;

static POOL: BufferPool = BufferPool::new();

/// Buffers that dropped tensors release and later outputs take over.
struct BufferPool {
    free: Mutex<FreeList>,
}

/// The free buffers of a pool, the one released last at the end.
struct FreeList {
    buffers: VecDeque<Vec<f32>>,
    floats: usize,
}

impl FreeList {
    const fn new() -> Self {
        Self { buffers: VecDeque::new(), floats: 0 }
    }

    /// Removes the buffer of this length that was released last: caches may still hold it.
    fn take(&mut self, length: usize) -> Option<Vec<f32>> {
        let found = self.buffers.iter().rposition(|buffer| buffer.len() == length)?;
        self.floats -= length;
        self.buffers.remove(found)
    }

    fn release(&mut self, buffer: Vec<f32>) {
        self.floats += buffer.len();
        self.buffers.push_back(buffer);
        while self.floats > MAX_FLOATS {
            let oldest = self.buffers.pop_front().expect("there are floats, so there is a buffer");
            self.floats -= oldest.len();
        }
    }
}

impl BufferPool {
    const fn new() -> Self {
        Self { free: Mutex::new(FreeList::new()) }
    }

    fn with_free<R>(&self, work: impl FnOnce(&mut FreeList) -> R) -> R {
        // A panic elsewhere leaves the list in a valid state.
        work(&mut self.free.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, length: usize) -> Vec<f32> {
        if length > MAX_FLOATS {
            // Such a buffer marks the peak of a net's memory, which free buffers would raise.
            drop(self.with_free(|free| mem::replace(free, FreeList::new())));
        }
        let pooled = (length >= MIN_FLOATS).then(|| self.with_free(|free| free.take(length))).flatten();
        pooled.unwrap_or_else(|| vec![0.0; length])
    }

    fn data(&'static self, values: Vec<f32>, shape: Vec<usize>) -> TensorData {
        if values.len() < MIN_FLOATS {
            return TensorData::new(values, shape);
        }
        let bytes = mem::size_of_val(values.as_slice());
        let buffer = PooledBuffer { values, pool: self };
        // SAFETY: the controller's memory is the elements of the vector, which it owns and never
        // resizes: `bytes` bytes, all initialised.
        let bytes = unsafe { Bytes::from_controller(Box::new(buffer), bytes) };
        TensorData::from_bytes(bytes, shape, DType::F32)
    }
}

/// Returns a buffer with arbitrary contents, from the pool if it has one of this length.
pub(crate) fn take(length: usize) -> Vec<f32> {
    POOL.take(length)
}

/// Wraps the values as tensor data that releases its memory to the pool when it is dropped.
///
/// # Panics
/// if the values do not fill the shape (programmer error)
pub(crate) fn data(values: Vec<f32>, shape: Vec<usize>) -> TensorData {
    POOL.data(values, shape)
}

/// The memory of a tensor; released to its pool on drop.
struct PooledBuffer {
    values: Vec<f32>,
    pool: &'static BufferPool,
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let buffer = mem::take(&mut self.values);
        self.pool.with_free(|free| free.release(buffer));
    }
}

impl AllocationController for PooledBuffer {
    fn alloc_align(&self) -> usize {
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self, _: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let floats = self.values.as_mut_slice();
        // SAFETY: the bytes are those of the exclusively borrowed slice. f32 accepts any bits, and
        // the trait obliges the caller to write only initialised bytes.
        Ok(unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), mem::size_of_val(floats)) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let floats = self.values.as_slice();
        // SAFETY: the bytes are those of the borrowed slice, and f32 has no padding, so all of them
        // are initialised.
        Ok(unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), mem::size_of_val(floats)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tensor};

    /// A pool that no other test uses.
    fn pool() -> &'static BufferPool {
        Box::leak(Box::new(BufferPool::new()))
    }

    #[test]
    fn dropped_tensors_release_their_memory_to_the_pool() {
        let (pool, length) = (pool(), MIN_FLOATS);
        let mut buffer = pool.take(length);
        let address = buffer.as_ptr();
        buffer.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
        let x = Tensor::<1>::from_data(pool.data(buffer, vec![length]), &Device::flex());
        let shared = x.clone();
        // The tensor is shared, so the operation must write to other memory.
        let doubled = (x * 2.0).into_data();
        let expected: Vec<f32> = (0..length).map(|i| i as f32).collect();
        assert_eq!(shared.clone().into_data().as_slice::<f32>().unwrap(), expected);
        assert_eq!(doubled.as_slice::<f32>().unwrap()[length - 1], 2.0 * (length - 1) as f32);
        assert!(pool.with_free(|free| free.buffers.is_empty()));
        drop(shared);
        let again = pool.take(length);
        assert_eq!(again.as_ptr(), address);
    }

    #[test]
    fn short_buffers_are_not_pooled() {
        let pool = pool();
        drop(pool.data(pool.take(MIN_FLOATS - 1), vec![MIN_FLOATS - 1]));
        assert!(pool.with_free(|free| free.buffers.is_empty()));
    }

    #[test]
    fn the_free_list_holds_at_most_its_limit() {
        let mut free = FreeList::new();
        (0..5).for_each(|_| free.release(vec![0.0; MAX_FLOATS / 3]));
        assert_eq!((free.buffers.len(), free.floats), (3, MAX_FLOATS / 3 * 3));
        assert!(free.take(MAX_FLOATS).is_none() && free.take(MAX_FLOATS / 3).is_some());
        assert_eq!(free.floats, MAX_FLOATS / 3 * 2);
        free.release(vec![0.0; MAX_FLOATS + 1]);
        assert_eq!((free.buffers.len(), free.floats), (0, 0));
    }
}
