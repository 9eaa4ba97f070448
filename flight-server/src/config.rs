//! Settings: one TOML file, then `BOWSHOT__SECTION__KEY` variables, then flags; the later wins.

mod auth;
mod environment;
mod origin;
mod problems;
mod tls;

pub use auth::{AuthConfig, AuthMode, JwtConfig};
pub use environment::Environment;
pub use origin::Setting;
pub use tls::{CertificateName, ClientAuth, TlsConfig};

use crate::error::{Error, Result};
use bowshot_engine::{CoordinatorConfig, WorkerConfig};
use clap::ValueEnum;
use figment::providers::{Format, Serialized, Toml};
use figment::value::Dict;
use figment::{Figment, Metadata, Profile, Provider};
use problems::describe;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The file that is read when none is named, if it is there.
pub const DEFAULT_FILE: &str = "bowshot.toml";

/// Keys whose values never leave the process; `storage` holds bucket secrets in its entries.
const SECRET_KEYS: [&str; 5] = ["cluster_token", "users", "tokens", "storage", "secret_access_key"];

/// All settings of a process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where clients reach the server.
    pub server: ServerConfig,
    /// Who may use it.
    pub auth: AuthConfig,
    /// How connections of clients are encrypted.
    pub tls: TlsConfig,
    /// The coordinator of the server.
    pub coordinator: CoordinatorConfig,
    /// The worker of this process: required for `bowshot worker`; with `bowshot server` its presence adds a worker.
    pub worker: Option<WorkerConfig>,
}

/// Where clients reach the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address of Flight SQL. Default 127.0.0.1:47470.
    pub listen: SocketAddr,
    /// Address of `/healthz`, `/readyz` and `/metrics`. Default 127.0.0.1:47471.
    pub http_listen: SocketAddr,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 47470)), http_listen: SocketAddr::from(([127, 0, 0, 1], 47471)) }
    }
}

/// Settings given as flags, the strongest layer.
#[derive(Debug, Default)]
pub struct Flags {
    values: Dict,
}

impl Flags {
    /// Sets `section.key` (or deeper) when the flag was given.
    pub fn set(&mut self, key: &str, value: Option<impl Into<figment::value::Value>>) {
        if let Some(value) = value {
            let nested = figment::util::nest(key, value.into());
            if let figment::value::Value::Dict(_, dict) = nested {
                merge(&mut self.values, dict);
            }
        }
    }
}

fn merge(into: &mut Dict, from: Dict) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(figment::value::Value::Dict(_, inner)), figment::value::Value::Dict(_, more)) => {
                merge(inner, more);
            }
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

impl Provider for Flags {
    fn metadata(&self) -> Metadata {
        Metadata::named("flag")
    }

    fn data(&self) -> std::result::Result<figment::value::Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// What settings are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// `bowshot server`, with a worker in its process if the settings have one.
    Server,
    /// `bowshot worker`.
    Worker,
}

/// The layers of settings, not yet checked.
pub struct Layers {
    figment: Figment,
    /// Sections that a layer names.
    sections: Vec<String>,
    file: Option<PathBuf>,
}

impl Layers {
    /// Reads the file (the named one, or the default one where it exists), the variables and the flags.
    ///
    /// # Errors
    /// When a named file does not exist.
    pub fn read(file: Option<&Path>, environment: Environment, flags: Flags) -> Result<Self> {
        let file = match file {
            Some(named) if !named.is_file() => {
                return Err(Error::config(format!("the settings file {} does not exist", named.display())));
            }
            Some(named) => Some(named.to_path_buf()),
            None => Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.is_file()),
        };
        // A worker exists only where a layer names one, so its section has no default to start from.
        let (mut figment, mut given) = (Figment::from(Defaults), Figment::new());
        if let Some(file) = &file {
            figment = figment.merge(Toml::file_exact(file));
            given = given.merge(Toml::file_exact(file));
        }
        let given = given.merge(&environment).merge(&flags).extract::<Dict>();
        let sections = given.map(|given| given.into_keys().collect()).unwrap_or_default();
        Ok(Self { figment: figment.merge(environment).merge(flags), sections, file })
    }

    /// What these settings are for: a worker where they have that section and none of a server's.
    pub fn role(&self) -> Role {
        let named = |section: &str| self.sections.iter().any(|known| known == section);
        if named("worker") && !["server", "coordinator", "auth"].into_iter().any(named) { Role::Worker } else { Role::Server }
    }

    /// The settings without those that have a wrong name or type, and what is wrong with these; no settings when nothing can be read.
    pub fn all_problems(&self) -> (Option<Config>, Vec<Error>) {
        problems::read(&self.figment)
    }

    /// The settings, checked for unknown names and wrong types.
    ///
    /// # Errors
    /// [`Error::Config`] that names the setting and where it was set.
    pub fn config(&self) -> Result<Config> {
        self.figment.extract_lossy().map_err(|error| Error::config(describe(&error)))
    }

    /// Every setting with its origin.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub fn settings(&self) -> Result<Vec<Setting>> {
        self.config()?;
        origin::settings(&self.figment).map_err(|error| Error::config(describe(&error)))
    }

    /// The file that was read, if any.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

struct Defaults;

impl Provider for Defaults {
    fn metadata(&self) -> Metadata {
        Metadata::named("default")
    }

    fn data(&self) -> std::result::Result<figment::value::Map<Profile, Dict>, figment::Error> {
        let mut settings = Serialized::defaults(Config::default()).data()?;
        for section in settings.values_mut() {
            section.remove("worker");
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(toml: &str, variables: &[(&str, &str)], flags: Flags) -> (tempfile::TempDir, Layers) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bowshot.toml");
        std::fs::write(&file, toml).unwrap();
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let layers = Layers::read(Some(&file), Environment::new(variables), flags).unwrap();
        (folder, layers)
    }

    #[test]
    fn flags_win_over_variables_over_the_file_and_each_origin_is_known() {
        let mut flags = Flags::default();
        flags.set("server.listen", Some("127.0.0.1:3"));
        let (_folder, layers) = layers(
            "[server]\nlisten = '127.0.0.1:1'\nhttp_listen = '127.0.0.1:1'\n[coordinator]\nregion = 'eu'\n",
            &[
                ("BOWSHOT__SERVER__LISTEN", "127.0.0.1:2"),
                ("BOWSHOT__SERVER__HTTP_LISTEN", "127.0.0.1:2"),
                ("BOWSHOT__COORDINATOR__CLUSTER_TOKEN", "1234567890123456"),
                ("BOWSHOT_OTHER", "ignored"),
            ],
            flags,
        );
        let config = layers.config().unwrap();
        assert_eq!(config.server.listen.port(), 3);
        assert_eq!(config.server.http_listen.port(), 2);
        assert_eq!(config.coordinator.cluster_token, "1234567890123456");
        assert!(config.worker.is_none());
        let settings = layers.settings().unwrap();
        let find = |key: &str| settings.iter().find(|setting| setting.key == key).unwrap();
        assert_eq!(find("server.listen").origin, "flag");
        assert_eq!(find("server.http_listen").origin, "BOWSHOT__SERVER__HTTP_LISTEN");
        assert!(find("coordinator.region").origin.ends_with("bowshot.toml"));
        assert_eq!(find("auth.mode").origin, "default");
        assert_eq!(find("coordinator.cluster_token").value, "(hidden)");
    }

    #[test]
    fn an_unknown_setting_is_named_with_its_file() {
        let (_folder, layers) = layers("[server]\nliste = '127.0.0.1:1'\n", &[], Flags::default());
        let message = layers.config().unwrap_err().to_string();
        assert!(message.contains("unknown setting 'server.liste' in "), "{message}");
        assert!(message.contains("bowshot.toml"), "{message}");
        assert!(message.contains("listen, http_listen") || message.contains("listen"), "{message}");
    }

    #[test]
    fn an_unknown_variable_is_an_error_too() {
        let (_folder, layers) = layers("", &[("BOWSHOT__SERVER__LISTEM", "x")], Flags::default());
        let message = layers.config().unwrap_err().to_string();
        assert!(message.contains("unknown setting 'server.listem'"), "{message}");
    }

    #[test]
    fn a_worker_exists_when_a_layer_names_one() {
        let (_folder, layers) = layers(
            "",
            &[
                ("BOWSHOT__WORKER__NODE_ID", "node-1"),
                ("BOWSHOT__WORKER__MEMORY_BYTES", "1000"),
                ("BOWSHOT__WORKER__VOLUMES", "{data=\"/data\"}"),
            ],
            Flags::default(),
        );
        let worker = layers.config().unwrap().worker.unwrap();
        assert_eq!((worker.node_id.as_str(), worker.memory_bytes), ("node-1", 1000));
        assert_eq!(worker.volumes["data"], PathBuf::from("/data"));
    }

    #[test]
    fn a_wrong_type_names_the_setting() {
        let (_folder, layers) = layers("[server]\nlisten = 'nowhere'\n", &[], Flags::default());
        let message = layers.config().unwrap_err().to_string();
        assert!(message.contains("server.listen"), "{message}");
    }

    #[test]
    fn whatever_a_settings_file_says_is_taken_or_refused_without_its_secrets() {
        let token = "1234567890123456";
        let file = format!(
            "[server]\nlisten = '127.0.0.1:1'\n[coordinator]\nregion = 'eu'\ncluster_token = '{token}'\nmemory_bytes = 1000\n[worker]\nnode_id = 'n'\nvolumes = [{{ name = 'd', path = '/d' }}]\n[auth]\nusers = {{ ana = '$argon2id$x' }}\n"
        );
        bowshot_mutations::near_texts(&[&file], |case| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("bowshot.toml");
            std::fs::write(&path, case).unwrap();
            let read = Layers::read(Some(&path), Environment::new(std::iter::empty()), Flags::default());
            if let Err(error) = read.and_then(|layers| layers.config()) {
                assert!(!error.to_string().contains(token), "{error}");
            }
        });
    }
}
