//! The tokens file, in Cortex's format: what an instance owned, kept over a restart.
//!
//! `{"previousState":"READONLY","tokens":[1,2,3],"instance":"ingester-0","checksum":"crc32c:64719458"}`; ACTIVE is left
//! out. Only ACTIVE and READONLY are stored, and unknown state names read as ACTIVE.
//!
//! Cortex and dskit know neither `instance` nor `checksum`: they ignore them, and drop them when they write. So a file
//! without them is read all the same, dskit's without a state too.
//!
//! The checksum is that of the very text which would be written without it, `{…,"instance":"ingester-0"}`, for what was
//! read: sorted tokens, no state but READONLY, no white space, no other fields.
//!
//! | file | what it is |
//! |---|---|
//! | `<path>` | what was saved last |
//! | `<path>.previous` | what was there before that, if it was a tokens file |
//! | `<path>.tmp`, `<path>.previous.tmp` | left by a crash, and never read |

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ringkit_ring::{State, Tokens};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::error::Error;

/// What a tokens file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokensFile {
    /// Sorted; duplicates are kept as read.
    pub tokens: Tokens,
    /// The state to go back to: ACTIVE or READONLY.
    pub previous_state: State,
}

/// What to do about a tokens file that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCorrupt {
    /// Do not start.
    Fail,
    /// Go on with the ring's entry; without one, with new tokens.
    Ring,
    /// Go on with the previous copy; without a good one, as [`OnCorrupt::Ring`].
    Previous,
    /// Go on with new tokens, even if the ring has an entry.
    Regenerate,
}

/// What there is to start from.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What the file says, or its previous copy.
    pub file: Option<TokensFile>,
    /// Why the file is not used.
    pub problem: Option<Error>,
    /// Whether the tokens of the ring's entry are not to be used either.
    pub regenerate: bool,
}

/// What is wrong with a tokens file, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Its directory is not there. It is not made: that would hide that a disk is not mounted.
    #[error("its directory `{}` does not exist: create it, or set another tokens file path", directory.display())]
    NoDirectory {
        /// The directory.
        directory: PathBuf,
    },
    /// A directory or something else is in its place.
    #[error("is not a regular file: set the path of a file")]
    NotAFile,
    /// It is there and cannot be read. It is not replaced either: it may be another instance's.
    #[error("cannot be read: {cause}; make it readable, or set another tokens file path")]
    Unreadable {
        /// What the operating system said.
        cause: io::Error,
    },
    /// It is far larger than any tokens file. It is not replaced.
    #[error("{bytes} bytes are too many for a tokens file: set another path, or delete the file")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// It is cut off, or something else altogether.
    #[error("not a tokens file: {cause}; delete it, or say by tokens_file_on_corrupt what to use instead")]
    NotTokens {
        /// Where it stops being one.
        cause: serde_json::Error,
    },
    /// It does not say what was written to it.
    #[error(
        "damaged: its checksum is `{computed}` and not `{stated}`; delete it, or say by tokens_file_on_corrupt what to \
         use instead (if it was changed by hand, take the checksum out of it)"
    )]
    Damaged {
        /// The checksum in the file.
        stated: String,
        /// The checksum of what is in the file.
        computed: String,
    },
    /// It is another instance's, whose tokens this one must not claim. It is not replaced.
    #[error(
        "belongs to instance `{owner}`, and this is instance `{instance}`: set the tokens file path of this instance, \
         or delete the file if it is left over"
    )]
    Foreign {
        /// Whose it is.
        owner: String,
        /// Who asked.
        instance: String,
    },
    /// It cannot be used, and there was no version before it.
    #[error("{problem}; and there is no previous copy")]
    NoPrevious {
        /// What is wrong with the file.
        problem: Box<Problem>,
    },
    /// Neither it nor the version before it can be used.
    #[error("{problem}; and the previous copy does not help: {previous}")]
    BadPrevious {
        /// What is wrong with the file.
        problem: Box<Problem>,
        /// What is wrong with its previous copy.
        previous: Box<Error>,
    },
    /// The disk failed or is full.
    #[error("cannot be saved: `{}`: {cause}", at.display())]
    Unsaved {
        /// What could not be written.
        at: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
}

/// Reads the file of `instance`; `None` = there is none. Blocks on the disk.
///
/// # Errors
///
/// [`Error::TokensFile`] if the file cannot be read, is not a whole tokens file or is another instance's, and if not even
/// its directory is there. Nothing is touched.
pub fn load(path: &Path, instance: &str) -> Result<Option<TokensFile>, Error> {
    let stored = find(path, instance).map_err(|problem| about(path, problem))?;
    Ok(stored.map(|stored| stored.file))
}

/// Reads what the file at `path` said before it was last saved; `None` = that is not known. Blocks on the disk.
///
/// # Errors
///
/// As [`load`], about the copy.
pub fn load_previous(path: &Path, instance: &str) -> Result<Option<TokensFile>, Error> {
    load(&previous_of(path), instance)
}

/// Reads the file of `instance`, or what is to take its place. Blocks on the disk.
///
/// That there is no file is no problem. That there is no directory for it is one, but nothing was lost by it: no tokens are
/// regenerated then.
///
/// # Errors
///
/// As [`load`], by [`OnCorrupt::Fail`] only.
pub fn load_or(path: &Path, instance: &str, on_corrupt: OnCorrupt) -> Result<Loaded, Error> {
    let problem = match find(path, instance) {
        Ok(stored) => {
            let file = stored.map(|stored| stored.file);
            return Ok(Loaded { file, ..Loaded::default() });
        }
        Err(problem) => problem,
    };
    let lost = !matches!(problem, Problem::NoDirectory { .. });
    match on_corrupt {
        OnCorrupt::Fail => Err(about(path, problem)),
        OnCorrupt::Previous if lost => Ok(previous_instead(path, instance, problem)),
        OnCorrupt::Ring | OnCorrupt::Previous | OnCorrupt::Regenerate => {
            let regenerate = lost && on_corrupt == OnCorrupt::Regenerate;
            Ok(Loaded { file: None, problem: Some(about(path, problem)), regenerate })
        }
    }
}

fn previous_instead(path: &Path, instance: &str, problem: Problem) -> Loaded {
    let copy = previous_of(path);
    let found = find(&copy, instance).and_then(|found| match (found, &problem) {
        // Cortex's files name nobody. Beside a file that is another's, such a copy is most likely that one's too.
        (Some(Stored { instance: None, .. }), Problem::Foreign { owner, .. }) => {
            Err(foreign(owner, instance))
        }
        (found, _) => Ok(found),
    });
    let (file, problem) = match found {
        Ok(Some(stored)) => (Some(stored.file), problem),
        Ok(None) => (None, Problem::NoPrevious { problem: Box::new(problem) }),
        Err(previous) => {
            let previous = Box::new(about(&copy, previous));
            (None, Problem::BadPrevious { problem: Box::new(problem), previous })
        }
    };
    Loaded { file, problem: Some(about(path, problem)), regenerate: false }
}

/// Replaces the file of `instance`, so that at any moment, power loss included, there is the old or the new one, and keeps
/// the old one as the previous copy. Blocks on the disk.
///
/// # Errors
///
/// [`Error::TokensFile`] if the file there is or may be another instance's, if there is no directory for it, and if the disk
/// fails or is full. The file that was there is still there, unless all that failed is the last step, which makes the new
/// name outlive a power loss.
pub fn save(path: &Path, instance: &str, file: &TokensFile) -> Result<(), Error> {
    save_by(path, instance, file, fill)
}

/// How a file that was just made gets its content, all of which must have reached the disk.
type Fill = fn(&mut File, &[u8]) -> io::Result<()>;

fn fill(file: &mut File, text: &[u8]) -> io::Result<()> {
    file.write_all(text)?;
    file.sync_all()
}

fn save_by(path: &Path, instance: &str, file: &TokensFile, fill: Fill) -> Result<(), Error> {
    replace(path, instance, file, fill).map_err(|problem| about(path, problem))
}

fn replace(path: &Path, instance: &str, file: &TokensFile, fill: Fill) -> Result<(), Problem> {
    let old = worth_keeping(path, instance)?;
    let text = render(file, Some(instance)).map_err(io::Error::from).map_err(unsaved(path))?;
    let temporary = with_suffix(path, ".tmp");
    // Before anything else is touched: on a full disk this is what fails.
    write_new(&temporary, &text, fill).map_err(unsaved(&temporary))?;
    let copy = previous_of(path);
    if let Some(old) = old
        && let Err(problem) = keep(&copy, instance, &old, fill)
    {
        // The new tokens matter more than a copy of the old ones.
        let error = about(&copy, problem);
        warn!(%error, "saving the tokens file without keeping the version before");
    }
    rename(&temporary, path).map_err(unsaved(path))?;
    // The new names themselves must survive a power loss too.
    let directory = directory_of(path);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(unsaved(directory))
}

/// What is to be replaced, unless it is damaged: then it must not take the place of a good copy.
fn worth_keeping(path: &Path, instance: &str) -> Result<Option<Vec<u8>>, Problem> {
    let Some(text) = read(path)? else { return Ok(None) };
    match parse(&text).and_then(|stored| stored.of(instance)) {
        Ok(_) => Ok(Some(text)),
        Err(foreign @ Problem::Foreign { .. }) => Err(foreign),
        Err(_) => Ok(None),
    }
}

/// Makes `text`, which was found good, the previous copy.
///
/// Written anew and not linked: some file systems have no links, links to others' files may be forbidden, and renaming one
/// link of a file over another, as after a crash half-way, does nothing and leaves both.
fn keep(copy: &Path, instance: &str, text: &[u8], fill: Fill) -> Result<(), Problem> {
    if let Err(foreign @ Problem::Foreign { .. }) = find(copy, instance) {
        return Err(foreign);
    }
    let temporary = with_suffix(copy, ".tmp");
    write_new(&temporary, text, fill).map_err(unsaved(&temporary))?;
    rename(&temporary, copy).map_err(unsaved(copy))
}

/// Makes a file that does not stay if it cannot be filled.
fn write_new(path: &Path, text: &[u8], fill: Fill) -> io::Result<()> {
    // What a crash left behind goes first instead of being written to: it may be a link, or read-only.
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = File::create_new(path)?;
    fill(&mut file, text).inspect_err(|_| drop(fs::remove_file(path)))
}

/// Renames over what is there; `from` does not stay behind if that fails.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).inspect_err(|_| drop(fs::remove_file(from)))
}

/// A good file.
#[derive(Debug)]
struct Stored {
    file: TokensFile,
    /// Whose it is, unless Cortex, dskit or a hand wrote it.
    instance: Option<String>,
}

impl Stored {
    fn of(self, instance: &str) -> Result<Self, Problem> {
        if let Some(owner) = self.instance.as_deref()
            && owner != instance
        {
            return Err(foreign(owner, instance));
        }
        Ok(self)
    }
}

fn find(path: &Path, instance: &str) -> Result<Option<Stored>, Problem> {
    match read(path)? {
        Some(text) => parse(&text)?.of(instance).map(Some),
        None => Ok(None),
    }
}

/// No instance has anywhere near as many tokens: a larger file is some other file.
const MAX_FILE_BYTES: u64 = 64 << 20;

fn read(path: &Path) -> Result<Option<Vec<u8>>, Problem> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            let directory = directory_of(path);
            return match directory.try_exists() {
                Ok(false) => Err(Problem::NoDirectory { directory: directory.to_owned() }),
                _ => Ok(None),
            };
        }
        Err(cause) => return Err(Problem::Unreadable { cause }),
    };
    // Reading a pipe, for one, could last for ever.
    if !metadata.is_file() {
        return Err(Problem::NotAFile);
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(Problem::TooLarge { bytes: metadata.len() });
    }
    fs::read(path).map(Some).map_err(|cause| Problem::Unreadable { cause })
}

#[derive(Deserialize, Serialize)]
struct Json {
    #[serde(rename = "previousState", default, skip_serializing_if = "Option::is_none")]
    previous_state: Option<String>,
    #[serde(default)]
    tokens: Option<Vec<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
}

impl Json {
    /// Without a checksum: what the checksum is taken of.
    fn new(file: &TokensFile, instance: Option<&str>) -> Self {
        let previous_state = (file.previous_state == State::ReadOnly).then(|| State::ReadOnly.to_string());
        let mut tokens = file.tokens.to_vec();
        // As they will be read: in any other order, the checksum would not be that of what is read.
        tokens.sort_unstable();
        Self { previous_state, tokens: Some(tokens), instance: instance.map(str::to_owned), checksum: None }
    }

    fn sum(&self) -> serde_json::Result<String> {
        let text = serde_json::to_vec(self)?;
        Ok(format!("crc32c:{:08x}", crc32c::crc32c(&text)))
    }
}

/// Exactly as Cortex does if no instance is given.
fn render(file: &TokensFile, instance: Option<&str>) -> serde_json::Result<Vec<u8>> {
    let mut json = Json::new(file, instance);
    if instance.is_some() {
        json.checksum = Some(json.sum()?);
    }
    serde_json::to_vec(&json)
}

fn parse(text: &[u8]) -> Result<Stored, Problem> {
    let json = decode(text).map_err(|cause| Problem::NotTokens { cause })?;
    let mut tokens = json.tokens.unwrap_or_default();
    tokens.sort_unstable();
    let previous_state = match json.previous_state.as_deref() {
        Some("READONLY") => State::ReadOnly,
        _ => State::Active,
    };
    let file = TokensFile { tokens: tokens.into(), previous_state };
    // Before anybody asks whose it is: a damaged name is no other instance's.
    if let Some(stated) = json.checksum {
        let again = Json::new(&file, json.instance.as_deref());
        let computed = again.sum().map_err(|cause| Problem::NotTokens { cause })?;
        if stated != computed {
            return Err(Problem::Damaged { stated, computed });
        }
    }
    Ok(Stored { file, instance: json.instance })
}

fn decode(text: &[u8]) -> serde_json::Result<Json> {
    // By way of a map, because a struct would also be read from an array.
    let map: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text)?;
    serde_json::from_value(map.into())
}

fn about(path: &Path, problem: Problem) -> Error {
    Error::TokensFile { path: path.to_owned(), problem }
}

fn foreign(owner: &str, instance: &str) -> Problem {
    Problem::Foreign { owner: owner.to_owned(), instance: instance.to_owned() }
}

fn unsaved(at: &Path) -> impl FnOnce(io::Error) -> Problem {
    move |cause| Problem::Unsaved { at: at.to_owned(), cause }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn previous_of(path: &Path) -> PathBuf {
    with_suffix(path, ".previous")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
