//! The tokens file, in Cortex's format: what an instance owned, kept over a restart.
//!
//! `{"previousState":"READONLY","tokens":[1,2,3]}`; ACTIVE is left out. Only ACTIVE and READONLY are stored, and unknown
//! state names read as ACTIVE. dskit's files, which have no state, read as well.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ringkit_ring::{State, Tokens};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// What a tokens file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokensFile {
    /// Sorted; duplicates are kept as read.
    pub tokens: Tokens,
    /// The state to go back to: ACTIVE or READONLY.
    pub previous_state: State,
}

#[derive(Deserialize, Serialize)]
struct Json {
    #[serde(rename = "previousState", default, skip_serializing_if = "Option::is_none")]
    previous_state: Option<String>,
    #[serde(default)]
    tokens: Option<Vec<u32>>,
}

/// No instance has anywhere near as many tokens: a larger file is some other file.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Reads the file; `None` = there is none. Blocks on the disk.
///
/// # Errors
///
/// [`Error::TokensFile`] if the file cannot be read or is not a tokens file. It is not touched.
pub fn load(path: &Path) -> Result<Option<TokensFile>, Error> {
    let problem = |problem: String| Error::TokensFile { path: path.to_owned(), problem };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(problem(error.to_string())),
    };
    if metadata.len() > MAX_FILE_BYTES {
        return Err(problem(format!("{} bytes are too many for a tokens file", metadata.len())));
    }
    let text = fs::read(path).map_err(|error| problem(error.to_string()))?;
    parse(&text).map(Some).map_err(|error| problem(format!("not a tokens file: {error}")))
}

fn parse(text: &[u8]) -> Result<TokensFile, serde_json::Error> {
    let json: Json = serde_json::from_slice(text)?;
    let mut tokens = json.tokens.unwrap_or_default();
    tokens.sort_unstable();
    let previous_state = match json.previous_state.as_deref() {
        Some("READONLY") => State::ReadOnly,
        _ => State::Active,
    };
    Ok(TokensFile { tokens: tokens.into(), previous_state })
}

/// Replaces the file, so that at any moment, power loss included, there is the old or the new one. Blocks on the disk.
///
/// # Errors
///
/// [`Error::TokensFile`]; the previous file is still there.
pub fn save(path: &Path, file: &TokensFile) -> Result<(), Error> {
    write_and_rename(path, &render(file))
        .map_err(|error| Error::TokensFile { path: path.to_owned(), problem: format!("cannot be saved: {error}") })
}

fn render(file: &TokensFile) -> Vec<u8> {
    let previous_state = (file.previous_state == State::ReadOnly).then(|| State::ReadOnly.to_string());
    let json = Json { previous_state, tokens: Some(file.tokens.to_vec()) };
    serde_json::to_vec(&json).unwrap_or_default()
}

fn write_and_rename(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    // The new name itself must survive a power loss too.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
