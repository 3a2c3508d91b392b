//! The configuration as its users meet it.

#![expect(clippy::unwrap_used, reason = "a test's broken assumption ends the test")]

mod compare;
mod files;
mod fragments;
mod layers;
mod problems;
mod reference;
mod roundtrip;
mod runtime;
mod stores;

use ringkit_config::{LoadError, Loaded, load, parse_yaml};

/// Loads a file's text that must be good.
fn good(text: &str) -> Loaded {
    match parse_yaml("test.yaml", text) {
        Ok(loaded) => loaded,
        Err(error) => panic!("{error}\n--- in ---\n{text}"),
    }
}

/// Loads a file's text that must be bad; its problems, one per line.
fn bad(text: &str) -> Vec<String> {
    match parse_yaml("test.yaml", text) {
        Ok(_) => panic!("this was accepted:\n{text}"),
        Err(error) => lines(&error),
    }
}

fn lines(error: &LoadError) -> Vec<String> {
    error.to_string().lines().map(str::to_owned).collect()
}

fn warnings(loaded: &Loaded) -> Vec<String> {
    loaded.warnings.iter().map(ToString::to_string).collect()
}

/// Loads from a command line, split at spaces, and an environment.
fn with(args: &str, env: &[(&str, &str)]) -> Result<Loaded, LoadError> {
    let args = args.split_whitespace().map(str::to_owned);
    load(args, env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}
