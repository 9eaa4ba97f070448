//! Where each value of the settings came from, for `config show`.

use super::SECRET_KEYS;
use figment::value::Value;
use figment::{Figment, Source};

/// One setting: its path, its value as text (secrets hidden) and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub key: String,
    pub value: String,
    pub origin: String,
}

/// Every setting, in the order of their names.
///
/// # Errors
/// When a layer (a file, mostly) cannot be read.
pub fn settings(figment: &Figment) -> Result<Vec<Setting>, Box<figment::Error>> {
    let mut found = Vec::new();
    let all: Value = figment.extract()?;
    if let Value::Dict(_, sections) = &all {
        for (section, value) in sections {
            collect(figment, section, value, &mut found);
        }
    }
    Ok(found)
}

fn collect(figment: &Figment, key: &str, value: &Value, found: &mut Vec<Setting>) {
    match value {
        Value::Dict(_, inner) if !inner.is_empty() => {
            for (name, value) in inner {
                collect(figment, &format!("{key}.{name}"), value, found);
            }
        }
        _ => found.push(Setting { key: key.to_string(), value: shown(key, value), origin: origin(figment, key) }),
    }
}

fn origin(figment: &Figment, key: &str) -> String {
    let Some(metadata) = figment.find_metadata(key) else {
        return "default".to_string();
    };
    match &metadata.source {
        Some(Source::File(path)) => path.display().to_string(),
        _ if metadata.name == "environment variable" => {
            let keys: Vec<&str> = key.split('.').collect();
            metadata.interpolate(&figment::Profile::Default, &keys)
        }
        _ => metadata.name.to_string(),
    }
}

/// Secrets and whatever lies below a secret key are hidden; everything else is shown as TOML would write it.
fn shown(key: &str, value: &Value) -> String {
    if key.split('.').any(|part| SECRET_KEYS.contains(&part)) {
        let empty = matches!(value, Value::String(_, text) if text.is_empty())
            || matches!(value, Value::Dict(_, inner) if inner.is_empty())
            || matches!(value, Value::Empty(..));
        return if empty { "\"\"" } else { "(hidden)" }.to_string();
    }
    match value {
        Value::Empty(..) => "(unset)".to_string(),
        Value::String(_, text) => format!("{text:?}"),
        other => serde_json::to_string(other).unwrap_or_else(|_| "(not shown)".to_string()),
    }
}
