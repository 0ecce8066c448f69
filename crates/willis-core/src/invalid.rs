//! A configuration value that breaks a rule, named so that a user can find and mend it.

use std::fmt::Display;

/// Field, value and the rule it breaks; reads as one sentence:
/// `train.segment.net.heads = 3 does not divide embed_dims[2] = 64`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value} {rule}")]
pub struct InvalidValue {
    /// Path of the field in the configuration file.
    pub field: String,
    /// What it was set to.
    pub value: String,
    /// The rule, as a predicate: `must lie between 0 and 1`.
    pub rule: String,
}

impl InvalidValue {
    /// A field of the table that is being validated.
    pub fn new(field: impl Into<String>, value: impl Display, rule: impl Into<String>) -> Self {
        Self { field: field.into(), value: value.to_string(), rule: rule.into() }
    }

    /// The same value, seen from the table that holds this one.
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
