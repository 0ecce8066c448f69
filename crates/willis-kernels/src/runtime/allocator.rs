//! A global allocator that caches large blocks, for programs that run nets.
//!
//! A net requests the same large sizes in every pass. An allocator that returns freed blocks to the
//! operating system at once pays for page faults in each pass; one that returns them late holds
//! much more memory than the net needs. [`CachingAllocator`] keeps a bounded number of freed bytes
//! for reuse and backs new blocks with huge pages where the system offers them, which makes them
//! cheap.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// Requests below this size, in bytes, are passed on to the fallback allocator.
const LARGE: usize = 1 << 20;
/// Maximum number of cached blocks.
const MAX_BLOCKS: usize = 64;
/// Default limit of the cache, in bytes. A larger cache costs memory in a forward pass and saves
/// hardly any time.
pub const CACHE_BYTES: usize = 32 << 20;
/// Limit of the cache in training, in bytes. Every training step requests hundreds of mebibytes
/// again; with this limit a step of the segmentation net takes a seventh less time than with
/// [`CACHE_BYTES`].
pub const TRAINING_CACHE_BYTES: usize = 512 << 20;
/// Alignment of new blocks in bytes: the smallest page size.
const PAGE: usize = 4096;

/// An allocator that caches freed large blocks and passes smaller requests on to `A`.
#[derive(Debug)]
pub struct CachingAllocator<A> {
    fallback: A,
    cache: Mutex<BlockCache>,
}

impl<A> CachingAllocator<A> {
    /// An allocator with an empty cache of at most [`CACHE_BYTES`]; `fallback` serves small
    /// requests.
    pub const fn new(fallback: A) -> Self {
        Self {
            fallback,
            cache: Mutex::new(BlockCache {
                blocks: [Mapping { address: 0, size: 0 }; MAX_BLOCKS],
                count: 0,
                bytes: 0,
                max_bytes: CACHE_BYTES,
            }),
        }
    }

    /// Sets the limit of the cache to `bytes`. A lower limit takes effect as blocks are freed.
    pub fn set_cache_bytes(&self, bytes: usize) {
        self.with_cache(|cache| cache.max_bytes = bytes);
    }

    fn with_cache<R>(&self, work: impl FnOnce(&mut BlockCache) -> R) -> R {
        // Operations on the cache never panic, so a poisoned lock holds a consistent cache. Nor do
        // they allocate, which would deadlock.
        work(&mut self.cache.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take_cached(&self, size: usize) -> Option<*mut u8> {
        let block = self.with_cache(|cache| cache.take(size))?;
        Some(ptr::with_exposed_provenance_mut(block.address))
    }

    fn map_new(&self, size: usize) -> *mut u8 {
        while let Some(block) = self.with_cache(|cache| cache.evict_for(size)) {
            system::unmap(block);
        }
        system::map(size)
    }

    fn recycle(&self, block: Mapping) {
        let mut evicted = self.with_cache(|cache| cache.insert(block));
        while let Some(block) = evicted {
            system::unmap(block);
            evicted = self.with_cache(BlockCache::evict_surplus);
        }
    }
}

/// Address and size in bytes of a memory mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mapping {
    address: usize,
    size: usize,
}

/// Free list of large blocks, the most recently freed one last.
#[derive(Debug)]
struct BlockCache {
    blocks: [Mapping; MAX_BLOCKS],
    count: usize,
    bytes: usize,
    max_bytes: usize,
}

impl BlockCache {
    /// Removes the most recently freed block of exactly `size` bytes, parts of which may still be
    /// in the processor's caches.
    fn take(&mut self, size: usize) -> Option<Mapping> {
        let index = self.blocks[..self.count].iter().rposition(|block| block.size == size)?;
        Some(self.remove(index))
    }

    fn remove(&mut self, index: usize) -> Mapping {
        let block = self.blocks[index];
        self.blocks.copy_within(index + 1..self.count, index);
        self.count -= 1;
        self.bytes -= block.size;
        block
    }

    /// Adds a freed block. Returns a block to unmap if the cache is then over a limit.
    fn insert(&mut self, block: Mapping) -> Option<Mapping> {
        let evicted = (self.count == MAX_BLOCKS).then(|| self.remove(0));
        self.blocks[self.count] = block;
        self.count += 1;
        self.bytes += block.size;
        evicted.or_else(|| self.evict_surplus())
    }

    /// Removes the oldest block if a request exceeds the whole cache limit. Such requests come at
    /// the peak of a net's memory, where cached blocks would only add to the peak.
    fn evict_for(&mut self, size: usize) -> Option<Mapping> {
        (size > self.max_bytes && self.count > 0).then(|| self.remove(0))
    }

    /// Removes the oldest block if the cache holds more than `max_bytes`.
    fn evict_surplus(&mut self) -> Option<Mapping> {
        (self.bytes > self.max_bytes).then(|| self.remove(0))
    }
}

/// Size of the block for a request of `size` bytes: at most an eighth larger (or one page), so that
/// similar requests share cached blocks.
fn rounded(size: usize) -> usize {
    size.next_multiple_of((size.next_power_of_two() / 16).max(PAGE))
}

fn is_large(layout: Layout) -> bool {
    cfg!(unix) && layout.size() >= LARGE && layout.align() <= PAGE && layout.size() <= isize::MAX as usize / 2
}

#[cfg(unix)]
mod system {
    use std::ptr;

    use super::Mapping;

    /// Maps `size` bytes of zeroed memory; null if the system has none.
    pub fn map(size: usize) -> *mut u8 {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: without MAP_FIXED the system chooses unused addresses, so the new mapping affects
        // no existing memory.
        let address = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return ptr::null_mut();
        }
        // SAFETY: the range is the mapping just made, and the advice changes no contents. A refusal
        // is harmless: the pages stay small.
        #[cfg(target_os = "linux")]
        unsafe {
            libc::madvise(address, size, libc::MADV_HUGEPAGE)
        };
        address.cast()
    }

    pub fn unmap(block: Mapping) {
        // SAFETY: the block was returned by `map` with this size and has just left the cache, so no
        // pointer to it is in use.
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(block.address), block.size) };
    }
}

/// Other systems have no large blocks ([`is_large`] is false), so this is never called.
#[cfg(not(unix))]
mod system {
    pub fn map(_: usize) -> *mut u8 {
        std::ptr::null_mut()
    }

    pub fn unmap(_: super::Mapping) {}
}

// SAFETY: a large block is a page-aligned mapping of at least the layout's size. It is handed out
// only after it was mapped or removed from the cache, so it has one user at a time. Small blocks
// are the fallback's, which upholds the contract itself. `is_large` and `rounded` depend on the
// layout alone, so `dealloc` reaches the same decision and size as `alloc` did.
unsafe impl<A: GlobalAlloc> GlobalAlloc for CachingAllocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_large(layout) {
            // SAFETY: the caller upholds the contract of `alloc`, which is the fallback's contract.
            return unsafe { self.fallback.alloc(layout) };
        }
        let size = rounded(layout.size());
        self.take_cached(size).unwrap_or_else(|| self.map_new(size))
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_large(layout) {
            // SAFETY: the caller upholds the contract of `alloc_zeroed`, which is the fallback's.
            return unsafe { self.fallback.alloc_zeroed(layout) };
        }
        let size = rounded(layout.size());
        let Some(block) = self.take_cached(size) else { return self.map_new(size) };
        // SAFETY: the block spans `size >= layout.size()` bytes and, removed from the cache,
        // belongs to this call alone.
        unsafe { block.write_bytes(0, layout.size()) };
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !is_large(layout) {
            // SAFETY: a small layout was allocated by the fallback, and the caller gives the block
            // up.
            return unsafe { self.fallback.dealloc(block, layout) };
        }
        self.recycle(Mapping { address: block.expose_provenance(), size: rounded(layout.size()) });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller of `realloc` guarantees that `new_size`, rounded up to the alignment,
        // does not overflow `isize`.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (is_large(layout), is_large(new)) {
            // SAFETY: a small layout was allocated by the fallback, and the caller upholds the
            // contract of `realloc`.
            (false, false) => unsafe { self.fallback.realloc(block, layout, new_size) },
            (true, true) if rounded(layout.size()) == rounded(new_size) => block,
            // SAFETY: `moved` is a new block, so it does not overlap `block`; the copy covers the
            // smaller of the two sizes; the caller gives `block` up.
            _ => unsafe {
                let moved = self.alloc(new);
                if !moved.is_null() {
                    ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size));
                    self.dealloc(block, layout);
                }
                moved
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;

    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 64).unwrap()
    }

    #[test]
    fn sizes_are_rounded_up_by_at_most_an_eighth() {
        for size in [LARGE, LARGE + 1, 3_000_000, (5 << 20) - 1, 5 << 20, 100_000_001] {
            let rounded = rounded(size);
            assert!(rounded >= size && rounded <= size + size / 8 + PAGE && rounded.is_multiple_of(PAGE), "{size}");
            assert_eq!(super::rounded(rounded), rounded);
        }
    }

    #[test]
    fn zeroed_blocks_are_zero_and_reallocated_blocks_keep_their_contents() {
        let allocator = CachingAllocator::new(System);
        let sizes = [100, LARGE - 1, LARGE, LARGE + 5000, 3 << 20, 5 << 20];
        for (from, to) in sizes.into_iter().flat_map(|from| sizes.map(|to| (from, to))) {
            // SAFETY: every block is accessed within its current layout and freed once.
            unsafe {
                let block = allocator.alloc_zeroed(layout(from));
                assert!(block.cast::<[u8; 64]>().is_aligned());
                let bytes = std::slice::from_raw_parts_mut(block, from);
                assert!(bytes.iter().all(|&b| b == 0), "{from}");
                bytes.iter_mut().enumerate().for_each(|(i, b)| *b = i as u8);
                let grown = allocator.realloc(block, layout(from), to);
                let bytes = std::slice::from_raw_parts_mut(grown, to);
                assert!(bytes.iter().take(from).enumerate().all(|(i, &b)| b == i as u8), "{from} {to}");
                bytes.fill(255);
                allocator.dealloc(grown, layout(to));
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_cache_stays_within_its_limits() {
        let allocator = CachingAllocator::new(System);
        let cached = |allocator: &CachingAllocator<System>| allocator.with_cache(|cache| (cache.count, cache.bytes));
        let sizes: Vec<usize> = (0..2 * MAX_BLOCKS).map(|i| LARGE + i * PAGE).collect();
        // SAFETY: every block is freed once, with the layout it was allocated with, and never
        // accessed.
        unsafe {
            let blocks: Vec<*mut u8> = sizes.iter().map(|&size| allocator.alloc(layout(size))).collect();
            assert_eq!(cached(&allocator), (0, 0));
            blocks.iter().zip(&sizes).for_each(|(&block, &size)| allocator.dealloc(block, layout(size)));
            let (count, bytes) = cached(&allocator);
            assert!(count <= MAX_BLOCKS && bytes <= CACHE_BYTES && bytes > CACHE_BYTES / 4, "{count} {bytes}");
            // The most recently freed block is reused.
            assert_eq!(allocator.alloc(layout(sizes[sizes.len() - 1])), blocks[blocks.len() - 1]);
            // A request above the limit empties the cache and is not cached itself.
            let large = allocator.alloc(layout(CACHE_BYTES + 1));
            assert_eq!(cached(&allocator), (0, 0));
            allocator.dealloc(large, layout(CACHE_BYTES + 1));
            assert_eq!(cached(&allocator), (0, 0));
            allocator.set_cache_bytes(2 * CACHE_BYTES);
            let large = allocator.alloc(layout(CACHE_BYTES + 1));
            allocator.dealloc(large, layout(CACHE_BYTES + 1));
            assert_eq!(cached(&allocator), (1, rounded(CACHE_BYTES + 1)));
        }
    }
}
