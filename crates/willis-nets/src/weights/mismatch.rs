//! Differences between weights and a net.

use std::fmt;

use super::Weights;

/// Longer lists of names are cut to this many in messages.
const MAX_NAMES: usize = 10;

/// How the names and shapes of weights differ from those of a net.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Parameters of the net that the weights lack.
    pub missing: Vec<String>,
    /// Tensors of the weights that the net lacks.
    pub unexpected: Vec<String>,
    /// In both with different shapes: name, shape in the net, shape in the weights.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Mismatch {
    /// Compares a net's own weights with others.
    pub fn between(net: &Weights, weights: &Weights) -> Self {
        let mut mismatch = Self::default();
        for (name, expected) in net.shapes() {
            match weights.shape(name) {
                None => mismatch.missing.push(name.to_string()),
                Some(got) if got != expected => {
                    mismatch.misshapen.push((name.to_string(), expected.to_vec(), got.to_vec()));
                }
                Some(_) => {}
            }
        }
        let unexpected = weights.shapes().filter(|(name, _)| net.shape(name).is_none());
        mismatch.unexpected = unexpected.map(|(name, _)| name.to_string()).collect();
        mismatch
    }

    /// Whether names and shapes are the same.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }
}

impl fmt::Display for Mismatch {
    /// Writes one line per type of difference, with the first names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |difference: &str, names: &[String]| {
            if names.is_empty() {
                return Ok(());
            }
            let rest = names.len().saturating_sub(MAX_NAMES);
            let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
            writeln!(f, "{} {difference}: {}{more}", names.len(), names[..names.len() - rest].join(", "))
        };
        line("missing", &self.missing)?;
        line("unexpected", &self.unexpected)?;
        let shapes: Vec<String> = self
            .misshapen
            .iter()
            .map(|(name, expected, got)| format!("{name} is {got:?}, expected {expected:?}"))
            .collect();
        line("misshapen", &shapes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(names: &[(&str, &[usize])]) -> Weights {
        let mut weights = Weights::default();
        for (name, shape) in names {
            weights.insert(*name, shape.to_vec(), vec![0.5; shape.iter().product()]);
        }
        weights
    }

    #[test]
    fn every_difference_is_named() {
        let net = weights(&[("a", &[2]), ("b", &[3]), ("c", &[4])]);
        let other = weights(&[("a", &[2]), ("b", &[5]), ("d", &[4])]);
        let mismatch = Mismatch::between(&net, &other);
        assert_eq!(
            (mismatch.missing.as_slice(), mismatch.unexpected.as_slice()),
            (&["c".into()][..], &["d".into()][..])
        );
        let text = mismatch.to_string();
        assert!(text.contains("1 missing: c") && text.contains("b is [5], expected [3]"), "{text}");
        assert!(Mismatch::between(&net, &net).is_empty());
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..12).map(|i| format!("p{i:02}")).collect();
        let names: Vec<(&str, &[usize])> = names.iter().map(|name| (name.as_str(), &[1][..])).collect();
        let text = Mismatch::between(&weights(&names), &Weights::default()).to_string();
        assert!(text.starts_with("12 missing: p00, ") && text.trim_end().ends_with("p09 and 2 more"), "{text}");
    }
}
