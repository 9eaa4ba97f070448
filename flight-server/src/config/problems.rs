//! Settings of unknown names and wrong types, in words. Values of secrets are in none of them.

use super::{Config, SECRET_KEYS};
use crate::error::Error;
use crate::limits;
use figment::error::Kind;
use figment::providers::Serialized;
use figment::value::{Dict, Value};
use figment::{Figment, Metadata, Profile};

/// Reads the settings without those that are wrong, and says what is wrong with these.
pub fn read(figment: &Figment) -> (Option<Config>, Vec<Error>) {
    let mut problems = vec![];
    let Ok(mut values) = figment.extract::<Dict>() else {
        // A layer cannot be read at all.
        return (None, figment.extract_lossy::<Config>().err().map(|error| Error::config(describe(&error))).into_iter().collect());
    };
    let mut left = figment.clone();
    while problems.len() < limits::WRONG_SETTINGS_MAX {
        let mut error = match left.extract_lossy::<Config>() {
            Ok(config) => return (Some(config), problems),
            Err(error) => error,
        };
        let key = key_of(&error);
        // The layer that said it is known by what there was at first.
        error.metadata = figment.find_metadata(&key).cloned().or(error.metadata);
        problems.push(Error::config(describe(&error)));
        let path: Vec<&str> = key.split('.').collect();
        if !remove(&mut values, &path) {
            break;
        }
        left = Figment::from(Serialized::defaults(&values));
    }
    (None, problems)
}

/// Takes out a value, or the list that it is in.
fn remove(values: &mut Dict, path: &[&str]) -> bool {
    match path {
        [] => false,
        [last] => values.remove(*last).is_some(),
        [first, rest @ ..] => match values.get_mut(*first) {
            Some(Value::Dict(_, below)) => remove(below, rest),
            Some(_) => values.remove(*first).is_some(),
            None => false,
        },
    }
}

/// The setting that an error is about. The path may or may not hold an unknown name itself, by the depth at which it was found.
fn key_of(error: &figment::Error) -> String {
    let key = error.path.join(".");
    match &error.kind {
        Kind::UnknownField(name, _) => match error.path.last() {
            Some(last) if last == name => key,
            None => name.clone(),
            Some(_) => format!("{key}.{name}"),
        },
        _ => key,
    }
}

/// An error of reading, for people.
pub fn describe(error: &figment::Error) -> String {
    let place = error.metadata.as_ref().map_or_else(String::new, |metadata| format!(" in {}", place_of(metadata, error)));
    let key = key_of(error);
    match &error.kind {
        Kind::UnknownField(_, known) => format!("unknown setting '{key}'{place}; known here: {}", known.join(", ")),
        kind if key.is_empty() => format!("the settings{place} cannot be read: {}", without_values(kind)),
        kind if key.split('.').any(|part| SECRET_KEYS.contains(&part)) => format!("setting '{key}'{place}: {}", without_values(kind)),
        kind => format!("setting '{key}'{place}: {kind}"),
    }
}

fn place_of(metadata: &Metadata, error: &figment::Error) -> String {
    match &metadata.source {
        Some(figment::Source::File(path)) => path.display().to_string(),
        _ if metadata.name == "environment variable" => {
            let keys: Vec<&str> = error.path.iter().map(String::as_str).collect();
            match &error.kind {
                Kind::UnknownField(..) => "the environment".to_string(),
                _ => metadata.interpolate(&Profile::Default, &keys),
            }
        }
        _ => format!("a {}", metadata.name),
    }
}

/// What is wrong, without what was found: that may be a secret.
fn without_values(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => format!("it is of the wrong type, expected {expected}"),
        Kind::InvalidLength(_, expected) => format!("it is of the wrong length, expected {expected}"),
        Kind::UnknownVariant(_, known) => format!("it is none of {}", known.join(", ")),
        Kind::Message(text) => without_lines(text),
        Kind::Unsupported(_) | Kind::UnsupportedKey(..) => "it is of a type that settings cannot have".to_string(),
        other => other.to_string(),
    }
}

/// Readers of TOML quote the line that they do not understand, framed by bars.
fn without_lines(text: &str) -> String {
    let is_quoted = |line: &str| line.trim_start().trim_start_matches(|letter: char| letter.is_ascii_digit()).trim_start().starts_with('|');
    let kept: Vec<&str> = text.lines().filter(|line| !is_quoted(line) && !line.trim().is_empty()).map(str::trim).collect();
    kept.join(": ")
}

#[cfg(test)]
mod tests {
    use crate::config::{Environment, Flags, Layers};

    const SECRET: &str = "very-secret-text-0";

    fn said(toml: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bowshot.toml");
        std::fs::write(&file, toml).unwrap();
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let layers = Layers::read(Some(&file), Environment::new(variables), Flags::default()).unwrap();
        let (config, problems) = layers.all_problems();
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        // One at a time, it is the same.
        match layers.config() {
            Ok(_) => assert!(said.is_empty() && config.is_some()),
            Err(error) => assert_eq!(error.to_string(), said[0]),
        }
        assert!(!said.concat().contains(SECRET), "{said:#?}");
        said
    }

    #[test]
    fn every_wrong_setting_is_told_with_its_place() {
        let toml = "[server]\nliste = '127.0.0.1:1'\nhttp_listen = 'nowhere'\n[coordinator]\nregin = 'eu'\n[coordinator.query]\nmax_waiting = 'many'\n[wroker]\nnode_id = 'a'\n";
        let said = said(toml, &[("BOWSHOT__TLS__CLIENT_AUTH", "maybe")]);
        for word in [
            "'server.liste'",
            "server.http_listen",
            "'coordinator.regin'",
            "coordinator.query.max_waiting",
            "'wroker'",
            "BOWSHOT__TLS__CLIENT_AUTH",
        ] {
            assert!(said.iter().any(|text| text.contains(word)), "{word}: {said:#?}");
        }
        assert_eq!(said.len(), 6, "{said:#?}");
        assert!(said.iter().filter(|text| text.contains("bowshot.toml")).count() == 5, "{said:#?}");
    }

    #[test]
    fn no_secret_is_told_however_it_is_mistyped() {
        for toml in [
            format!("[coordinator]\ncluster_token = {SECRET}\n"),
            format!("[coordinator]\ncluster_token = ['{SECRET}']\n"),
            format!("[auth]\nusers = '{SECRET}'\n"),
            format!("[auth]\ntokens = {{ ana = ['{SECRET}'] }}\n"),
            format!("[auth]\ntokens = '{SECRET}\n"),
            format!("[[coordinator.storage]]\nurl = 's3://a'\nsecret_access_key = ['{SECRET}']\n"),
            format!("[coordinator]\nstorage = '{SECRET}'\n"),
            format!("[worker]\ncluster_token = {{ is = '{SECRET}' }}\n"),
        ] {
            assert!(!said(&toml, &[]).is_empty(), "{toml}");
        }
        assert!(!said("", &[("BOWSHOT__AUTH__USERS", SECRET)]).is_empty());
        assert!(said("", &[("BOWSHOT__COORDINATOR__CLUSTER_TOKEN", SECRET)]).is_empty());
    }
}
