//! Large blocks of memory, used again: a global allocator for programs that run nets.
//!
//! A net asks for the same large sizes again and again. An allocator that hands freed blocks back
//! to the system at once pays for every page anew; one that waits holds on to much more than a net
//! needs. Here a bounded number of bytes lies idle, and fresh blocks come in huge pages where the
//! system has them, which makes them cheap.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// Smaller blocks are left to the other allocator.
const LARGE: usize = 1 << 20;
/// Blocks that may lie idle.
const MAX_BLOCKS: usize = 64;
/// Bytes that may lie idle at first: with more, forward passes take more memory and hardly less
/// time.
pub const IDLE_BYTES: usize = 32 << 20;
/// Bytes that may lie idle in training, which asks for hundreds of mebibytes again in every step: a
/// step of the vessel net takes a seventh less time than with [`IDLE_BYTES`].
pub const TRAINING_IDLE_BYTES: usize = 512 << 20;
/// Alignment of fresh blocks, the smallest page there is.
const PAGE: usize = 4096;

/// An allocator of large blocks in front of one for the rest.
#[derive(Debug)]
pub struct LargeBlocks<A> {
    small: A,
    idle: Mutex<Idle>,
}

impl<A> LargeBlocks<A> {
    /// Nothing lies idle yet; `small` serves what is not large.
    pub const fn new(small: A) -> Self {
        Self {
            small,
            idle: Mutex::new(Idle {
                blocks: [Block { address: 0, size: 0 }; MAX_BLOCKS],
                count: 0,
                bytes: 0,
                max_bytes: IDLE_BYTES,
            }),
        }
    }

    /// From now on up to `bytes` may lie idle.
    pub fn keep_idle(&self, bytes: usize) {
        self.with_idle(|idle| idle.max_bytes = bytes);
    }

    fn with_idle<R>(&self, work: impl FnOnce(&mut Idle) -> R) -> R {
        // Nothing that is done with the list panics or allocates.
        work(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, size: usize) -> Option<*mut u8> {
        let block = self.with_idle(|idle| idle.take(size))?;
        Some(ptr::with_exposed_provenance_mut(block.address))
    }

    fn fresh(&self, size: usize) -> *mut u8 {
        while let Some(block) = self.with_idle(|idle| idle.make_room(size)) {
            system::unmap(block);
        }
        system::map(size)
    }

    fn give(&self, block: Block) {
        let mut surplus = self.with_idle(|idle| idle.give(block));
        while let Some(block) = surplus {
            system::unmap(block);
            surplus = self.with_idle(Idle::surplus);
        }
    }
}

/// A mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    address: usize,
    size: usize,
}

/// Blocks nobody uses, the one given back last at the end.
#[derive(Debug)]
struct Idle {
    blocks: [Block; MAX_BLOCKS],
    count: usize,
    bytes: usize,
    max_bytes: usize,
}

impl Idle {
    /// The latest block of this size, which caches may still hold.
    fn take(&mut self, size: usize) -> Option<Block> {
        let place = self.blocks[..self.count].iter().rposition(|block| block.size == size)?;
        Some(self.remove(place))
    }

    fn remove(&mut self, place: usize) -> Block {
        let block = self.blocks[place];
        self.blocks.copy_within(place + 1..self.count, place);
        self.count -= 1;
        self.bytes -= block.size;
        block
    }

    /// Takes a block in; gives out one that has to go for it.
    fn give(&mut self, block: Block) -> Option<Block> {
        let full = (self.count == MAX_BLOCKS).then(|| self.remove(0));
        self.blocks[self.count] = block;
        self.count += 1;
        self.bytes += block.size;
        full.or_else(|| self.surplus())
    }

    /// The block that has lain longest, when one is asked for that is too large ever to lie idle:
    /// such a one comes at the peak of a net's memory, where what lies idle would only add to it.
    fn make_room(&mut self, size: usize) -> Option<Block> {
        (size > self.max_bytes && self.count > 0).then(|| self.remove(0))
    }

    /// The block that has lain longest, while there is too much.
    fn surplus(&mut self) -> Option<Block> {
        (self.bytes > self.max_bytes).then(|| self.remove(0))
    }
}

/// Bytes that a request takes: an eighth more at most, so that blocks fit again.
fn rounded(size: usize) -> usize {
    size.next_multiple_of((size.next_power_of_two() / 16).max(PAGE))
}

fn is_large(layout: Layout) -> bool {
    cfg!(unix) && layout.size() >= LARGE && layout.align() <= PAGE && layout.size() <= isize::MAX as usize / 2
}

#[cfg(unix)]
mod system {
    use std::ptr;

    use super::Block;

    /// Fresh zeroed memory; null where there is none.
    pub fn map(size: usize) -> *mut u8 {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: an anonymous mapping at an address of the system's choice touches no other
        // memory.
        let address = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return ptr::null_mut();
        }
        // SAFETY: advice on the fresh mapping; where it is refused, pages stay small.
        #[cfg(target_os = "linux")]
        unsafe {
            libc::madvise(address, size, libc::MADV_HUGEPAGE)
        };
        address.cast()
    }

    pub fn unmap(block: Block) {
        // SAFETY: the block came from `map` with this size, and nobody uses it.
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(block.address), block.size) };
    }
}

/// Nothing is large on other systems.
#[cfg(not(unix))]
mod system {
    pub fn map(_: usize) -> *mut u8 {
        std::ptr::null_mut()
    }

    pub fn unmap(_: super::Block) {}
}

// SAFETY: large blocks are page-aligned mappings of at least the layout's size, each with one user
// at a time; the others are the other allocator's. Whose a block is, and its size, follow from its
// layout alone.
unsafe impl<A: GlobalAlloc> GlobalAlloc for LargeBlocks<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_large(layout) {
            // SAFETY: passed on.
            return unsafe { self.small.alloc(layout) };
        }
        let size = rounded(layout.size());
        self.take(size).unwrap_or_else(|| self.fresh(size))
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_large(layout) {
            // SAFETY: passed on.
            return unsafe { self.small.alloc_zeroed(layout) };
        }
        let size = rounded(layout.size());
        let Some(block) = self.take(size) else { return self.fresh(size) };
        // SAFETY: the block is at least as large, and nobody else's.
        unsafe { block.write_bytes(0, layout.size()) };
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !is_large(layout) {
            // SAFETY: passed on.
            return unsafe { self.small.dealloc(block, layout) };
        }
        self.give(Block { address: block.expose_provenance(), size: rounded(layout.size()) });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises a size that fits the alignment.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (is_large(layout), is_large(new)) {
            // SAFETY: passed on.
            (false, false) => unsafe { self.small.realloc(block, layout, new_size) },
            (true, true) if rounded(layout.size()) == rounded(new_size) => block,
            // SAFETY: two blocks, of which the smaller size is copied; the old one is the caller's
            // to give up.
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
    fn sizes_are_rounded_by_an_eighth_at_most() {
        for size in [LARGE, LARGE + 1, 3_000_000, (5 << 20) - 1, 5 << 20, 100_000_001] {
            let rounded = rounded(size);
            assert!(rounded >= size && rounded <= size + size / 8 + PAGE && rounded.is_multiple_of(PAGE), "{size}");
            assert_eq!(super::rounded(rounded), rounded);
        }
    }

    #[test]
    fn blocks_come_back_zeroed_where_asked_and_keep_their_values_when_they_grow() {
        let allocator = LargeBlocks::new(System);
        let sizes = [100, LARGE - 1, LARGE, LARGE + 5000, 3 << 20, 5 << 20];
        for (from, to) in sizes.into_iter().flat_map(|from| sizes.map(|to| (from, to))) {
            // SAFETY: blocks are used within their layouts and given back once.
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
    fn no_more_lies_idle_than_allowed() {
        let allocator = LargeBlocks::new(System);
        let idle = |allocator: &LargeBlocks<System>| allocator.with_idle(|idle| (idle.count, idle.bytes));
        let sizes: Vec<usize> = (0..2 * MAX_BLOCKS).map(|i| LARGE + i * PAGE).collect();
        // SAFETY: as above.
        unsafe {
            let blocks: Vec<*mut u8> = sizes.iter().map(|&size| allocator.alloc(layout(size))).collect();
            assert_eq!(idle(&allocator), (0, 0));
            blocks.iter().zip(&sizes).for_each(|(&block, &size)| allocator.dealloc(block, layout(size)));
            let (count, bytes) = idle(&allocator);
            assert!(count <= MAX_BLOCKS && bytes <= IDLE_BYTES && bytes > IDLE_BYTES / 4, "{count} {bytes}");
            // The last one comes back.
            assert_eq!(allocator.alloc(layout(sizes[sizes.len() - 1])), blocks[blocks.len() - 1]);
            let large = allocator.alloc(layout(IDLE_BYTES + 1));
            assert_eq!(idle(&allocator), (0, 0));
            allocator.dealloc(large, layout(IDLE_BYTES + 1));
            assert_eq!(idle(&allocator), (0, 0));
            allocator.keep_idle(2 * IDLE_BYTES);
            let large = allocator.alloc(layout(IDLE_BYTES + 1));
            allocator.dealloc(large, layout(IDLE_BYTES + 1));
            assert_eq!(idle(&allocator), (1, rounded(IDLE_BYTES + 1)));
        }
    }
}
