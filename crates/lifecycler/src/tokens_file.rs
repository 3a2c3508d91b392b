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
    // By way of a map, because a struct would also be read from an array.
    let map: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text)?;
    let json: Json = serde_json::from_value(map.into())?;
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
    write_and_rename(path, &render(file)).map_err(|error| Error::TokensFile {
        path: path.to_owned(),
        problem: format!("cannot be saved: {error}"),
    })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(state: State, tokens: &[u32]) -> TokensFile {
        TokensFile { tokens: tokens.into(), previous_state: state }
    }

    #[test]
    fn it_is_written_as_cortex_writes_it() {
        let text = |file| String::from_utf8(render(&file)).unwrap();
        assert_eq!(text(file(State::ReadOnly, &[1, 2])), r#"{"previousState":"READONLY","tokens":[1,2]}"#);
        assert_eq!(text(file(State::Active, &[])), r#"{"tokens":[]}"#);
    }

    #[test]
    fn what_cortex_and_dskit_write_is_read() {
        let cases = [
            (r#"{"tokens":[3,1,3]}"#, file(State::Active, &[1, 3, 3])),
            (r#"{"previousState":"ACTIVE","tokens":null}"#, file(State::Active, &[])),
            (r#"{"previousState":"READONLY","tokens":[1],"more":{}}"#, file(State::ReadOnly, &[1])),
            (r#"{"previousState":"NONSENSE"}"#, file(State::Active, &[])),
            (r#"{"previousState":"LEAVING","tokens":[4294967295]}"#, file(State::Active, &[u32::MAX])),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text.as_bytes()).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn files_are_read_and_written_again_as_by_cortex() {
        let vectors = include_str!("../../ring/tests/vectors/primitives.json");
        let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
        let cases = vectors["token_file"].as_array().unwrap();
        assert_eq!(cases.len(), 12);
        for case in cases {
            let read = parse(case["file_content"].as_str().unwrap().as_bytes());
            assert_eq!(read.is_err(), case["error"].is_string(), "{case}");
            let Ok(read) = read else { continue };
            assert_eq!(read.previous_state.to_string(), case["previous_state"].as_str().unwrap(), "{case}");
            let tokens: Option<Vec<u32>> = serde_json::from_value(case["tokens"].clone()).unwrap();
            assert_eq!(*read.tokens, tokens.clone().unwrap_or_default(), "{case}");
            // No list and an empty one are the same here, and read as the same.
            let rewritten = String::from_utf8(render(&read)).unwrap();
            let rewritten = if tokens.is_none() { rewritten.replace("[]", "null") } else { rewritten };
            assert_eq!(rewritten, case["rewritten_as"].as_str().unwrap(), "{case}");
        }
    }

    #[test]
    fn what_is_no_tokens_file_is_an_error_that_names_the_file_and_leaves_it_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        assert_eq!(load(&path).unwrap(), None);
        for text in
            ["", "[]", "{", r#"{"tokens":[-1]}"#, r#"{"tokens":[4294967296]}"#, r#"{"previousState":3}"#]
        {
            fs::write(&path, text).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_failed_save_leaves_the_previous_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        let old = file(State::Active, &[1]);
        save(&path, &old).unwrap();
        // The temporary file cannot be made where a directory is.
        fs::create_dir(directory.path().join("tokens.tmp")).unwrap();
        assert!(save(&path, &file(State::Active, &[2])).is_err());
        assert_eq!(load(&path).unwrap(), Some(old));
    }

    proptest! {
        #[test]
        fn what_is_saved_is_loaded(mut tokens: Vec<u32>, read_only: bool) {
            tokens.sort_unstable();
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("tokens");
            let file = file(if read_only { State::ReadOnly } else { State::Active }, &tokens);
            save(&path, &file).unwrap();
            save(&path, &file).unwrap();
            prop_assert_eq!(load(&path).unwrap(), Some(file));
            prop_assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
        }
    }
}
