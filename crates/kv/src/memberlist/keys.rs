//! The keys that gossip is sealed with: from the configuration, or from a file that is read again when it changes.

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringkit_config::Secret;
use ringkit_gossip::seal::ClusterKey;

use super::BACKEND;
use crate::error::Error;

/// The keys of `encryption_keys`.
pub(super) fn configured(keys: &[Secret]) -> Result<Vec<ClusterKey>, Error> {
    let parsed = (1..).zip(keys).map(|(number, key)| {
        let wrong = |reason: String| Error::Misconfigured {
            backend: BACKEND,
            key: "encryption_keys",
            reason: format!("cannot be used: key {number} {reason}"),
        };
        parse(key.expose()).map_err(wrong)
    });
    parsed.collect()
}

/// A file with keys.
pub(super) struct KeysFile {
    path: PathBuf,
    /// What was found in it last, good or bad, so that it is told once.
    last: Result<Secret, String>,
}

impl KeysFile {
    /// Reads a file for the first time.
    pub(super) fn open(path: &str) -> Result<(Self, Vec<ClusterKey>), Error> {
        let mut file = Self { path: path.into(), last: Err(String::new()) };
        match file.take(std::fs::read_to_string(path)) {
            Some(Ok(keys)) => Ok((file, keys)),
            told => {
                let reason = told.and_then(Result::err).unwrap_or_else(|| "holds nothing".to_owned());
                let reason = format!("cannot be used: `{path}` {reason}");
                Err(Error::Misconfigured { backend: BACKEND, key: "encryption_keys_file", reason })
            }
        }
    }

    /// Reads the file again: `None` if it is as it was, else its keys, or what is wrong with them.
    pub(super) async fn poll(&mut self) -> Option<Result<Vec<ClusterKey>, String>> {
        let read = tokio::fs::read_to_string(&self.path).await;
        self.take(read)
    }

    /// Where the file is.
    pub(super) fn path(&self) -> String {
        self.path.display().to_string()
    }

    fn take(&mut self, read: io::Result<String>) -> Option<Result<Vec<ClusterKey>, String>> {
        let found = read.map(Secret::new).map_err(|cause| format!("cannot be read: {cause}"));
        if found == self.last {
            return None;
        }
        self.last = found;
        Some(match &self.last {
            Ok(text) => parse_file(text.expose()),
            Err(reason) => Err(reason.clone()),
        })
    }
}

/// One key a line; what begins with `#` is for people.
fn parse_file(text: &str) -> Result<Vec<ClusterKey>, String> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let keys = lines.map(|(number, line)| parse(line).map_err(|reason| format!("in line {number} {reason}")));
    let keys: Vec<ClusterKey> = keys.collect::<Result<_, _>>()?;
    // Without keys all would go out in clear: nobody means that who left the file in place.
    if keys.is_empty() { Err("holds no key".to_owned()) } else { Ok(keys) }
}

/// Says what is wrong without repeating any of it.
fn parse(text: &str) -> Result<ClusterKey, String> {
    let bytes = STANDARD.decode(text.trim()).map_err(|_| "is not base64".to_owned())?;
    ClusterKey::from_bytes(&bytes).map_err(|cause| format!("is no key: {cause}"))
}
