//! Taylor numbers: a value with its first three derivatives along one direction.
//!
//! A closed formula evaluated in Taylor numbers gives the exact derivatives of its value. Hard
//! boundary conditions and the checks of exact solutions use them. The coefficients are
//! `c_k = f⁽ᵏ⁾ / k!`, so that products are convolutions.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// Coefficients of a Taylor polynomial of degree 3.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taylor([f64; 4]);

impl Taylor {
    /// A constant.
    pub const fn constant(value: f64) -> Self {
        Self([value, 0.0, 0.0, 0.0])
    }

    /// A coordinate that changes along the direction at this rate.
    pub const fn variable(value: f64, rate: f64) -> Self {
        Self([value, rate, 0.0, 0.0])
    }

    /// The value.
    pub fn value(self) -> f64 {
        self.0[0]
    }

    /// The derivative of an order up to 3 along the direction.
    pub fn derivative(self, order: usize) -> f64 {
        self.0[order] * [1.0, 1.0, 2.0, 6.0][order]
    }

    /// e to this power.
    pub fn exp(self) -> Self {
        let mut e = [self.0[0].exp(), 0.0, 0.0, 0.0];
        for k in 1..4 {
            e[k] = (1..=k).map(|j| j as f64 * self.0[j] * e[k - j]).sum::<f64>() / k as f64;
        }
        Self(e)
    }

    /// Sine and cosine.
    pub fn sin_cos(self) -> (Self, Self) {
        let (mut s, mut c) = ([self.0[0].sin(), 0.0, 0.0, 0.0], [self.0[0].cos(), 0.0, 0.0, 0.0]);
        for k in 1..4 {
            let sum = |of: &[f64; 4]| (1..=k).map(|j| j as f64 * self.0[j] * of[k - j]).sum::<f64>() / k as f64;
            (s[k], c[k]) = (sum(&c), -sum(&s));
        }
        (Self(s), Self(c))
    }

    /// Sine.
    pub fn sin(self) -> Self {
        self.sin_cos().0
    }

    /// Cosine.
    pub fn cos(self) -> Self {
        self.sin_cos().1
    }
}

impl From<f64> for Taylor {
    fn from(value: f64) -> Self {
        Self::constant(value)
    }
}

impl Neg for Taylor {
    type Output = Self;
    fn neg(self) -> Self {
        self * -1.0
    }
}

impl Add for Taylor {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|k| self.0[k] + other.0[k]))
    }
}

impl Sub for Taylor {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|k| self.0[k] - other.0[k]))
    }
}

impl Mul for Taylor {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self(std::array::from_fn(|k| (0..=k).map(|j| self.0[j] * other.0[k - j]).sum()))
    }
}

impl Div for Taylor {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let mut q = [0.0; 4];
        for k in 0..4 {
            q[k] = (self.0[k] - (0..k).map(|j| q[j] * other.0[k - j]).sum::<f64>()) / other.0[0];
        }
        Self(q)
    }
}

impl Add<f64> for Taylor {
    type Output = Self;
    fn add(self, other: f64) -> Self {
        self + Self::constant(other)
    }
}

impl Sub<f64> for Taylor {
    type Output = Self;
    fn sub(self, other: f64) -> Self {
        self + -other
    }
}

impl Mul<f64> for Taylor {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        Self(self.0.map(|c| c * factor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_of_a_formula() {
        let x = Taylor::variable(0.4, 1.0);
        // f = e^{2x} sin(x) / (1 + x²)
        let f = |x: f64| (2.0 * x).exp() * x.sin() / (1.0 + x * x);
        let y = (x * 2.0).exp() * x.sin() / (x * x + 1.0);
        let h = 1e-3;
        let at = |k: f64| f(0.4 + k * h);
        let want = [
            at(0.0),
            (at(-2.0) - 8.0 * at(-1.0) + 8.0 * at(1.0) - at(2.0)) / (12.0 * h),
            (-at(-2.0) + 16.0 * at(-1.0) - 30.0 * at(0.0) + 16.0 * at(1.0) - at(2.0)) / (12.0 * h * h),
            (at(2.0) - 2.0 * at(1.0) + 2.0 * at(-1.0) - at(-2.0)) / (2.0 * h * h * h),
        ];
        for (order, want) in want.into_iter().enumerate() {
            assert!((y.derivative(order) - want).abs() < 1e-4, "{order}: {} {want}", y.derivative(order));
        }
        let (s, c) = x.sin_cos();
        assert!((s * s + c * c - 1.0).0.iter().all(|c| c.abs() < 1e-15));
        assert_eq!((-(x - x) + 2.0).value(), 2.0);
    }
}
