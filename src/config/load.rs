//! Reads the layers. Later ones win: the `config.yaml` this crate was built with, the file, the environment.

use std::path::Path;

use config::{Environment, File, FileFormat};

use super::checks::{ConfigError, invalid};
use super::layers;
use super::schema::{Backend, Config};
use crate::complaint::Complaint;

/// The annotated defaults, which are also the file that ships with the project.
const DEFAULTS: &str = include_str!("../../config.yaml");
/// Read when no file is named and this one exists.
const DEFAULT_FILE: &str = "config.yaml";

impl Config {
    /// Reads the layers and checks the result.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_with(file, environment(None))
    }

    fn load_with(file: Option<&Path>, environment: Environment) -> Result<Self, ConfigError> {
        let unreadable = |error: config::ConfigError| ConfigError::new(one_line(&error));
        let defaults = config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Yaml)).build();
        let defaults = defaults.map_err(unreadable)?;
        let mut given = config::Config::builder();
        let path = file.unwrap_or_else(|| Path::new(DEFAULT_FILE));
        // What the configuration names is looked for from where it is itself.
        let mut base = Path::new("");
        if file.is_some() || path.exists() {
            given = given.add_source(file_layer(path).map_err(unreadable)?);
            base = path.parent().unwrap_or(base);
        }
        let given = given.add_source(environment).build().map_err(unreadable)?;
        let merged = config::Config::builder().add_source(defaults.clone()).add_source(given.clone()).build();
        let mut tree: layers::Tree = merged.and_then(config::Config::try_deserialize).map_err(unreadable)?;
        let default_tree: layers::Tree = defaults.clone().try_deserialize().map_err(unreadable)?;
        if let Some(key) = layers::not_whole(&tree, &default_tree) {
            return Err(invalid(&key, "must be a whole number"));
        }
        let files = layers::fetch_secrets(&mut tree, base)?;
        let merged = from_tree(tree).map_err(unreadable)?;
        let mut config: Self = serde_path_to_error::deserialize(merged).map_err(|error| {
            let complaint = Complaint::of(&one_line(error.inner()));
            let path = error.path().to_string();
            match complaint.field {
                Some(field) if path == "." => invalid(&field, complaint.problem),
                Some(field) if path.split('.').next_back() != Some(&field) => {
                    invalid(&format!("{path}.{field}"), complaint.problem)
                }
                _ => invalid(&path, complaint.problem),
            }
        })?;
        config.resolve(base);
        config.validate().map_err(|error| error.naming(&files))?;
        let (given, defaults) = (given.try_deserialize(), defaults.try_deserialize());
        let (given, defaults) = (given.map_err(unreadable)?, defaults.map_err(unreadable)?);
        config.unused = layers::of_other_backend(config.backend, &given, &defaults);
        match (config.backend, config.unused) {
            (Backend::Embedded, Some(key)) => {
                let problem =
                    "is set, but backend is embedded, which does not use it: set backend: distributed, or remove it";
                Err(invalid(key, problem))
            }
            _ => Ok(config),
        }
    }
}

impl Config {
    /// Relative paths begin at `base`. One that is empty says nothing.
    fn resolve(&mut self, base: &Path) {
        let paths = [
            &mut self.embedded.data_dir,
            &mut self.auth.external.jwks_file,
            &mut self.mysql.tls_ca_file,
            &mut self.redis.tls_ca_file,
            &mut self.rabbitmq.tls_ca_file,
        ];
        for path in paths.into_iter().filter(|path| !path.as_os_str().is_empty()) {
            *path = base.join(&path);
        }
    }
}

fn environment(source: Option<config::Map<String, String>>) -> Environment {
    Environment::with_prefix("SECKILL").prefix_separator("__").separator("__").source(source)
}

/// The file, with the spelling of the Go original's keys brought to ours.
fn file_layer(path: &Path) -> Result<config::Config, config::ConfigError> {
    let file = config::Config::builder().add_source(File::from(path).format(FileFormat::Yaml)).build()?;
    let mut root: layers::Tree = file.try_deserialize()?;
    for section in ["mysql", "redis"] {
        let Some(value) = root.get_mut(section) else { continue };
        if let config::ValueKind::Table(keys) = &mut value.kind
            && let Some(size) = keys.remove("poolSize")
        {
            keys.insert("pool_size".to_owned(), size);
        }
    }
    from_tree(root)
}

fn from_tree(tree: layers::Tree) -> Result<config::Config, config::ConfigError> {
    let mut builder = config::Config::builder();
    for (key, value) in tree {
        builder = builder.set_override(key, value)?;
    }
    builder.build()
}

fn one_line(error: &impl std::fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
