//! Settings from variables: `BOWSHOT__SERVER__LISTEN=…` is the setting `server.listen`.

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

/// Starts the name of every variable that is a setting.
pub const PREFIX: &str = "BOWSHOT__";

/// The settings among some variables. Values are text unless they read as a list or table (`[…]`, `{…}`): a token of
/// digits must not turn into a number on the way.
pub struct Environment {
    variables: Vec<(String, String)>,
}

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Self {
        Self::new(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))))
    }

    /// The given variables; those without the prefix are left out.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut variables: Vec<_> = variables
            .into_iter()
            .filter_map(|(name, value)| {
                let setting = name.strip_prefix(PREFIX)?.to_lowercase();
                Some((setting, value))
            })
            .collect();
        variables.sort();
        Self { variables }
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment variable")
            .interpolater(|_: &Profile, keys: &[&str]| format!("{PREFIX}{}", keys.join("__").to_uppercase()))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut settings = Dict::new();
        for (setting, value) in &self.variables {
            let keys: Vec<&str> = setting.split("__").collect();
            insert(&mut settings, &keys, parse(value));
        }
        Ok(Profile::Default.collect(settings))
    }
}

fn parse(value: &str) -> Value {
    let structured = value.starts_with('[') || value.starts_with('{');
    match value.parse::<Value>() {
        Ok(parsed) if structured => parsed,
        _ => Value::from(value),
    }
}

fn insert(settings: &mut Dict, keys: &[&str], value: Value) {
    match keys {
        [] => {}
        [last] => {
            settings.insert((*last).to_string(), value);
        }
        [first, rest @ ..] => {
            let below = settings.entry((*first).to_string()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, below) = below {
                insert(below, rest, value);
            }
        }
    }
}
