//! From arguments, files and environment to a [`Config`].

use crate::{Config, problems::{LoadError, Warning}};

/// A configuration, and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The effective configuration.
    pub config: Config,
    /// What is odd about it, but no reason not to run.
    pub warnings: Vec<Warning>,
    /// Arguments that are no flags.
    pub rest: Vec<String>,
}

impl Loaded {
    /// Every key with its value and where it came from: `key: value  # file:line`.
    pub fn origins_yaml(&self) -> String {
        todo!()
    }
}

/// Loads from the arguments after the program's name, and the environment's variables.
///
/// # Errors
///
/// Everything that is wrong, at once.
pub fn load(
    args: impl IntoIterator<Item = String>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, LoadError> {
    let _ = (args, env);
    todo!()
}

/// Loads from the text of one file over the defaults.
///
/// # Errors
///
/// Everything that is wrong, at once.
pub fn parse_yaml(file_name: &str, text: &str) -> Result<Loaded, LoadError> {
    let _ = (file_name, text);
    todo!()
}
