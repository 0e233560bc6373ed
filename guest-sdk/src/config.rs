//! The configuration of the microservice, from its application's manifest; `wasi:config` is behind
//! it. Values may change while the instance runs: see
//! [`configuration_changed`](crate::Microservice::configuration_changed).

use std::fmt::Display;
use std::str::FromStr;

use crate::agent;

/// The value of `key`, or `None` when there is no such key.
pub fn get(key: &str) -> Result<Option<String>, ConfigError> {
    agent::configuration(key).map_err(ConfigError)
}

/// All keys with their values.
pub fn get_all() -> Result<Vec<(String, String)>, ConfigError> {
    agent::configuration_all().map_err(ConfigError)
}

/// The value of `key` as a `T`, or `None` when there is no such key. A value that is not a `T`
/// gives an error that names the key and the value.
pub fn parse<T>(key: &str) -> Result<Option<T>, ConfigError>
where
    T: FromStr<Err: Display>,
{
    let Some(value) = get(key)? else {
        return Ok(None);
    };
    match value.parse() {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(ConfigError(format!(
            "the configuration `{key}` cannot be `{value}`: {error}"
        ))),
    }
}

/// Why a configuration value could not be read. Its text is meant for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(String);

impl Display for ConfigError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// For `?` in the functions of a microservice whose errors are texts.
impl From<ConfigError> for String {
    fn from(error: ConfigError) -> String {
        error.0
    }
}
