//! Runtime choice of vector instructions: a kernel is written once over [`Lanes`] and compiled for
//! each instruction set. Only register-level operations live here.

use std::sync::OnceLock;

/// A vector register of f32.
///
/// # Safety
/// Every method may use instructions that only exist where [`dispatch`] found them: call them only
/// from [`Kernel::run`], and pass pointers to at least `N` readable (or writable) floats.
pub(crate) trait Lanes: Copy {
    /// Floats in one register.
    const N: usize;
    /// Whether the instruction set has 32 registers instead of 16.
    const MANY_REGISTERS: bool;
    /// Whether it multiplies and adds in one instruction, single floats too.
    const FUSED: bool;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self * factor + addend`.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
}

/// `a * b + c` in a loop that compilers turn into vector code; without the instruction
/// `f32::mul_add` would call a library.
#[inline(always)]
pub(crate) fn mul_add<V: Lanes>(a: f32, b: f32, c: f32) -> f32 {
    if V::FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Work that is compiled once per instruction set.
pub(crate) trait Kernel {
    type Output;
    /// Must be `#[inline(always)]`, so that the body takes on the caller's instruction set.
    fn run<V: Lanes>(self) -> Self::Output;
}

/// Instruction sets a kernel is compiled for, narrowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Vectors {
    Portable,
    Avx2,
    Avx512,
}

impl Vectors {
    /// The widest of this processor, or what `WILLIS_VECTORS` (portable, avx2, avx512) asks for
    /// where that is narrower: so that one machine can test what others run.
    fn chosen() -> Self {
        static CHOSEN: OnceLock<Vectors> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let asked = match std::env::var("WILLIS_VECTORS").as_deref() {
                Ok("portable") => Self::Portable,
                Ok("avx2") => Self::Avx2,
                _ => Self::Avx512,
            };
            asked.min(Self::detected())
        })
    }

    #[cfg(target_arch = "x86_64")]
    fn detected() -> Self {
        if is_x86_feature_detected!("avx512f") {
            Self::Avx512
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            Self::Avx2
        } else {
            Self::Portable
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn detected() -> Self {
        Self::Portable
    }
}

/// Runs `kernel` with the widest vectors of this processor.
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    match Vectors::chosen() {
        // SAFETY: no more is chosen than was detected.
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx512 => unsafe { x86::avx512(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx2 => unsafe { x86::avx2(kernel) },
        _ => kernel.run::<Portable>(),
    }
}

/// Asks for `length` floats from an address on, wherever it points, before they are read.
#[inline(always)]
pub(crate) fn prefetch(from: *const f32, length: usize) {
    /// Floats of a line of the cache.
    const LINE: usize = 16;
    for start in (0..length).step_by(LINE) {
        // SAFETY: a prefetch of any address is allowed and reads nothing that the program sees.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(from.wrapping_add(start).cast());
        }
    }
}

/// Whether the vectors that [`dispatch`] picks come with 32 registers.
pub(crate) fn many_registers() -> bool {
    dispatch(Ask).1
}

/// Floats of one of the vectors that [`dispatch`] picks.
pub(crate) fn lanes() -> usize {
    dispatch(Ask).0
}

/// What the chosen vectors are.
struct Ask;

impl Kernel for Ask {
    type Output = (usize, bool);

    #[inline(always)]
    fn run<V: Lanes>(self) -> Self::Output {
        (V::N, V::MANY_REGISTERS)
    }
}

/// Four floats in plain Rust; compilers turn them into one SSE or NEON register.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 4]);

impl Lanes for Portable {
    const N: usize = 4;
    const MANY_REGISTERS: bool = cfg!(target_arch = "aarch64");
    const FUSED: bool = cfg!(target_arch = "aarch64");

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller passes at least `N` readable floats; arrays of f32 need no more
        // alignment.
        Self(unsafe { *from.cast() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller passes at least `N` writable floats.
        unsafe { *to.cast() = self.0 }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(std::array::from_fn(|lane| {
            let (a, b, c) = (self.0[lane], factor.0[lane], addend.0[lane]);
            mul_add::<Self>(a, b, c)
        }))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + other.0[lane]))
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] - other.0[lane]))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Kernel, Lanes};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) fn avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<__m512>()
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<__m256>()
    }

    // SAFETY of both impls: the trait's contract (feature present, pointers valid) is the
    // intrinsics' contract; loads and stores are the unaligned forms.
    impl Lanes for __m512 {
        const N: usize = 16;
        const MANY_REGISTERS: bool = true;
        const FUSED: bool = true;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { _mm512_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self) }
        }

        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            unsafe { _mm512_fmadd_ps(self, factor, addend) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { _mm512_add_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            unsafe { _mm512_sub_ps(self, other) }
        }
    }

    impl Lanes for __m256 {
        const N: usize = 8;
        const MANY_REGISTERS: bool = false;
        const FUSED: bool = true;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self) }
        }

        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            unsafe { _mm256_fmadd_ps(self, factor, addend) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { _mm256_add_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            unsafe { _mm256_sub_ps(self, other) }
        }
    }
}
