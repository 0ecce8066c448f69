//! The error for an invalid configuration value.

use std::fmt::Display;

/// A field, its value and the rule that it violates. The message reads as one sentence:
/// `train.segment.net.heads = 3 does not divide embed_dims[2] = 64`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value} {rule}")]
pub struct InvalidValue {
    /// Path of the field in the configuration file.
    pub field: String,
    /// Its value.
    pub value: String,
    /// The rule, as a predicate: `must be between 0 and 1`.
    pub rule: String,
}

impl InvalidValue {
    /// An invalid value of a field of the table that is being validated.
    pub fn new(field: impl Into<String>, value: impl Display, rule: impl Into<String>) -> Self {
        Self { field: field.into(), value: value.to_string(), rule: rule.into() }
    }

    /// The same error with the field's path prefixed by the table that contains it.
    pub fn within(self, table: &str) -> Self {
        Self { field: format!("{table}.{}", self.field), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_field_value_and_rule() {
        let error = InvalidValue::new("heads", 3, "does not divide embed_dims[2] = 64").within("net").within("train");
        assert_eq!(error.to_string(), "train.net.heads = 3 does not divide embed_dims[2] = 64");
    }
}
