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
    /// What is found in it instead since it was looked at last. It counts when it is found once more: whoever writes the file
    /// may not have finished.
    next: Option<Result<Secret, String>>,
}

impl KeysFile {
    /// Reads a file for the first time.
    pub(super) fn open(path: &str) -> Result<(Self, Vec<ClusterKey>), Error> {
        let last = found(std::fs::read_to_string(path));
        let keys = keys_of(&last).map_err(|reason| {
            let reason = format!("cannot be used: `{path}` {reason}");
            Error::Misconfigured { backend: BACKEND, key: "encryption_keys_file", reason }
        })?;
        Ok((Self { path: path.into(), last, next: None }, keys))
    }

    /// Reads the file again: `None` if it is as it was, or is not read for the second time as it is now; else its keys, or what
    /// is wrong with them.
    pub(super) async fn poll(&mut self) -> Option<Result<Vec<ClusterKey>, String>> {
        let now = found(tokio::fs::read_to_string(&self.path).await);
        let before = self.next.take();
        if now == self.last {
            return None;
        }
        if before.as_ref() != Some(&now) {
            self.next = Some(now);
            return None;
        }
        self.last = now;
        Some(keys_of(&self.last))
    }

    /// Whether it is to be read once more before what is new in it counts.
    pub(super) fn is_changing(&self) -> bool {
        self.next.is_some()
    }

    /// Where the file is.
    pub(super) fn path(&self) -> String {
        self.path.display().to_string()
    }
}

fn found(read: io::Result<String>) -> Result<Secret, String> {
    read.map(Secret::new).map_err(|cause| format!("cannot be read: {cause}"))
}

fn keys_of(found: &Result<Secret, String>) -> Result<Vec<ClusterKey>, String> {
    match found {
        Ok(text) => parse_file(text.expose()),
        Err(reason) => Err(reason.clone()),
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
