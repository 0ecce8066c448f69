//! `NAME=VALUE`: one setting of a case or its solver, by name.

use serde_json::Value;

use super::Setup;

/// Why a setting could not be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// There is no `=`.
    #[error("`{0}` is not NAME=VALUE")]
    NoValue(String),
    /// No setting has the name.
    #[error("no parameter is named `{name}`; there are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Every name.
        known: String,
    },
    /// Several settings have the name.
    #[error("`{name}` could be {known}; write one of them")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// The candidates.
        known: String,
    },
    /// The value has another type.
    #[error("`{name}` cannot be `{value}`: {reason}")]
    Value {
        /// Name of the setting.
        name: String,
        /// What was given.
        value: String,
        /// What is wrong.
        reason: String,
    },
}

impl Setup {
    /// The names that [`Setup::set`] knows, with their values.
    pub fn parameters(&self) -> Vec<(String, Value)> {
        let mut names = Vec::new();
        let json = serde_json::to_value(self).unwrap_or_default();
        let case = json["case"].as_object().and_then(|case| case.values().next()).cloned().unwrap_or_default();
        leaves("", &case, &mut names);
        leaves("", &json["solver"], &mut names);
        names
    }

    /// Changes the setting that an assignment such as `beta=50` or `adam.learning_rate=1e-3` names.
    /// A name may be shortened to its last parts if they are unique.
    ///
    /// # Errors
    /// when the name is unknown or ambiguous, or the value has another type
    pub fn set(&mut self, assignment: &str) -> Result<(), ParameterError> {
        let Some((name, value)) = assignment.split_once('=') else {
            return Err(ParameterError::NoValue(assignment.to_string()));
        };
        let (name, value) = (name.trim(), value.trim());
        let all: Vec<String> = self.parameters().into_iter().map(|(name, _)| name).collect();
        let suffix = format!(".{name}");
        let mut found: Vec<&String> = all.iter().filter(|each| *each == name).collect();
        if found.is_empty() {
            found = all.iter().filter(|each| each.ends_with(&suffix)).collect();
        }
        let path = match found.as_slice() {
            [one] => (*one).clone(),
            [] => return Err(ParameterError::Unknown { name: name.into(), known: all.join(", ") }),
            many => {
                let known = many.iter().map(|each| each.as_str()).collect::<Vec<_>>().join(" or ");
                return Err(ParameterError::Ambiguous { name: name.into(), known });
            }
        };
        let error = |reason: String| ParameterError::Value { name: path.clone(), value: value.into(), reason };
        let mut json = serde_json::to_value(&*self).map_err(|e| error(e.to_string()))?;
        // A number where one is expected, else text.
        let new = serde_json::from_str(value).ok().filter(Value::is_number).unwrap_or_else(|| value.into());
        let pointer = format!("/{}", path.replace('.', "/"));
        let is_solver = json["solver"].pointer(&pointer).is_some();
        let case = json["case"].as_object_mut().and_then(|case| case.values_mut().next());
        let target = match case.and_then(|case| case.pointer_mut(&pointer)) {
            Some(target) => Some(target),
            None if is_solver => json["solver"].pointer_mut(&pointer),
            None => None,
        };
        if let Some(target) = target {
            *target = new;
        }
        *self = serde_json::from_value(json).map_err(|e| error(e.to_string()))?;
        Ok(())
    }
}

fn leaves(path: &str, value: &Value, names: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                leaves(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, value, names);
            }
        }
        leaf => names.push((path.to_string(), leaf.clone())),
    }
}
