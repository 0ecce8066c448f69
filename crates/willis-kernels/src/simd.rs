//! Vector instructions chosen at run time: a kernel is written once over [`Lanes`] and compiled for
//! each instruction set.
//!
//! Only operations on registers live here. [`dispatch`] checks the processor and hands the kernel a
//! [`Supported`] token; without the token, [`SimdKernel::run`] cannot be called.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Environment variable that limits the instruction set.
const VARIABLE: &str = "WILLIS_VECTORS";

/// A vector register of f32.
///
/// # Safety
/// The methods may use instructions that not every processor has: call them only where a
/// [`Supported`] token for the type exists. Pointers must be valid for `N` floats; they need no
/// alignment beyond that of f32.
pub(crate) trait Lanes: Copy {
    /// Floats in one register.
    const N: usize;
    /// Whether the instruction set has 32 registers instead of 16.
    const MANY_REGISTERS: bool;
    /// Whether the instruction set has a fused multiply-add, for single floats too.
    const FUSED: bool;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self * factor + addend`.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
}

/// Proof that the processor has the instructions of `V`; only [`dispatch`] makes one.
pub(crate) struct Supported<V>(PhantomData<V>);

impl<V> Clone for Supported<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Supported<V> {}

impl<V> Supported<V> {
    /// # Safety
    /// The processor must have the instructions of `V`.
    unsafe fn assume() -> Self {
        Self(PhantomData)
    }
}

/// `a * b + c` in a loop that the compiler vectorises. Without a fused instruction, `f32::mul_add`
/// would call a library function.
#[inline(always)]
pub(crate) fn mul_add<V: Lanes>(a: f32, b: f32, c: f32) -> f32 {
    if V::FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Work that is compiled once per instruction set.
pub(crate) trait SimdKernel {
    type Output;
    /// Implementations must be `#[inline(always)]`, so that the body is compiled for the caller's
    /// instruction set. The token lets the body call the methods of `V`.
    fn run<V: Lanes>(self, supported: Supported<V>) -> Self::Output;
}

/// Instruction sets that kernels are compiled for, narrowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum InstructionSet {
    Portable,
    Avx2,
    Avx512,
}

impl InstructionSet {
    const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// The value of the environment variable that stands for this instruction set.
    fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// The widest instruction set that both the processor and the environment variable allow.
    ///
    /// # Panics
    /// If the environment variable has an unknown value; see [`check_environment`].
    fn chosen() -> Self {
        static CHOSEN: OnceLock<InstructionSet> = OnceLock::new();
        *CHOSEN.get_or_init(|| match Self::widest_allowed(std::env::var_os(VARIABLE).as_deref()) {
            Ok(allowed) => allowed.min(Self::detected()),
            Err(error) => panic!("{error}"),
        })
    }

    /// The instruction set that a value of the environment variable names; the widest if the
    /// variable is not set.
    fn widest_allowed(value: Option<&OsStr>) -> Result<Self, UnknownVectors> {
        let Some(value) = value else { return Ok(Self::Avx512) };
        let named = Self::ALL.into_iter().find(|set| value == set.name());
        named.ok_or_else(|| UnknownVectors { value: value.to_owned() })
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

/// Checks the environment variables that the kernels read, so that a program can report a mistake
/// before it starts work.
///
/// `WILLIS_VECTORS` limits the vector instructions to `portable`, `avx2` or `avx512`, which lets
/// one machine test the code that other machines run. An instruction set that the processor lacks
/// is never used.
///
/// # Errors
/// If `WILLIS_VECTORS` has another value. Kernels panic with the same message.
pub fn check_environment() -> Result<(), UnknownVectors> {
    InstructionSet::widest_allowed(std::env::var_os(VARIABLE).as_deref()).map(|_| ())
}

/// The environment variable `WILLIS_VECTORS` has a value that names no instruction set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownVectors {
    value: OsString,
}

impl fmt::Display for UnknownVectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = InstructionSet::ALL.map(InstructionSet::name).join(", ");
        write!(f, "environment variable {VARIABLE} = {:?} is not one of {names}", self.value)
    }
}

impl std::error::Error for UnknownVectors {}

/// Runs `kernel` with the widest vectors that the processor has and the environment allows.
pub(crate) fn dispatch<K: SimdKernel>(kernel: K) -> K::Output {
    match InstructionSet::chosen() {
        // SAFETY: the chosen instruction set is at most the detected one, so the processor has
        // AVX-512F; every processor with AVX-512F also has AVX2 and FMA.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => unsafe { x86::avx512(kernel) },
        // SAFETY: the chosen instruction set is at most the detected one, so the processor has AVX2
        // and FMA.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => unsafe { x86::avx2(kernel) },
        // SAFETY: `Portable` is plain Rust.
        _ => kernel.run::<Portable>(unsafe { Supported::assume() }),
    }
}

/// Prefetches `length` floats from an address on; the address need not be valid.
#[inline(always)]
pub(crate) fn prefetch(from: *const f32, length: usize) {
    /// Floats in a cache line.
    const LINE: usize = 16;
    for start in (0..length).step_by(LINE) {
        // SAFETY: a prefetch is a hint that never faults and changes no state of the program; the
        // address is computed without the in-bounds requirement of `add`.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(from.wrapping_add(start).cast());
        }
    }
}

/// Whether the instruction set that [`dispatch`] picks has 32 registers.
pub(crate) fn many_registers() -> bool {
    dispatch(RegisterQuery).many_registers
}

/// Floats in a register of the instruction set that [`dispatch`] picks.
pub(crate) fn lanes() -> usize {
    dispatch(RegisterQuery).lanes
}

/// Asks for the registers of the chosen instruction set.
struct RegisterQuery;

struct Registers {
    lanes: usize,
    many_registers: bool,
}

impl SimdKernel for RegisterQuery {
    type Output = Registers;

    #[inline(always)]
    fn run<V: Lanes>(self, _: Supported<V>) -> Registers {
        Registers { lanes: V::N, many_registers: V::MANY_REGISTERS }
    }
}

/// Four floats in plain Rust, which the compiler turns into one SSE or NEON register.
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
        // SAFETY: the caller passes a pointer to at least `N` readable floats; an array of f32 has
        // the alignment of f32.
        Self(unsafe { *from.cast() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller passes a pointer to at least `N` writable floats; an array of f32 has
        // the alignment of f32.
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
    use super::{Lanes, SimdKernel, Supported};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) fn avx512<K: SimdKernel>(kernel: K) -> K::Output {
        // SAFETY: this function may only be called where its target features exist.
        kernel.run::<__m512>(unsafe { Supported::assume() })
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2<K: SimdKernel>(kernel: K) -> K::Output {
        // SAFETY: this function may only be called where its target features exist.
        kernel.run::<__m256>(unsafe { Supported::assume() })
    }

    /// Implements [`Lanes`] by one intrinsic per method.
    macro_rules! impl_lanes {
        (
            $register:ty, $lanes:literal, $many_registers:literal,
            $splat:ident, $load:ident, $store:ident, $mul_add:ident, $add:ident, $sub:ident
        ) => {
            impl Lanes for $register {
                const N: usize = $lanes;
                const MANY_REGISTERS: bool = $many_registers;
                const FUSED: bool = true;

                #[inline(always)]
                unsafe fn splat(value: f32) -> Self {
                    // SAFETY: the caller has a `Supported` token, so the instruction exists.
                    unsafe { $splat(value) }
                }

                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    // SAFETY: the caller has a `Supported` token and passes a pointer to at least
                    // `N` readable floats; the instruction takes unaligned addresses.
                    unsafe { $load(from) }
                }

                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    // SAFETY: the caller has a `Supported` token and passes a pointer to at least
                    // `N` writable floats; the instruction takes unaligned addresses.
                    unsafe { $store(to, self) }
                }

                #[inline(always)]
                unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
                    // SAFETY: the caller has a `Supported` token, so the instruction exists.
                    unsafe { $mul_add(self, factor, addend) }
                }

                #[inline(always)]
                unsafe fn add(self, other: Self) -> Self {
                    // SAFETY: the caller has a `Supported` token, so the instruction exists.
                    unsafe { $add(self, other) }
                }

                #[inline(always)]
                unsafe fn sub(self, other: Self) -> Self {
                    // SAFETY: the caller has a `Supported` token, so the instruction exists.
                    unsafe { $sub(self, other) }
                }
            }
        };
    }

    impl_lanes!(
        __m512,
        16,
        true,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps,
        _mm512_sub_ps
    );
    impl_lanes!(
        __m256,
        8,
        false,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps,
        _mm256_sub_ps
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_variable_accepts_the_names_of_instruction_sets_only() {
        let allowed = |value: &str| InstructionSet::widest_allowed(Some(OsStr::new(value)));
        for set in InstructionSet::ALL {
            assert_eq!(allowed(set.name()), Ok(set));
        }
        assert_eq!(InstructionSet::widest_allowed(None), Ok(InstructionSet::Avx512));
        for value in ["", "AVX2", "sse", "avx2 "] {
            let error = allowed(value).unwrap_err().to_string();
            let expected = format!("WILLIS_VECTORS = {value:?} is not one of portable, avx2, avx512");
            assert!(error.ends_with(&expected), "{error}");
        }
    }

    #[test]
    fn the_processor_limits_the_choice() {
        assert!(InstructionSet::chosen() <= InstructionSet::detected());
    }
}
