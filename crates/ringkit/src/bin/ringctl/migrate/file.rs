//! The file that processes read their runtime configuration from, as it is here: read, and written only if nobody else did.

use std::fs::{File, Permissions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringkit_config::{MultiRuntimeConfig, RuntimeConfig};
use ringkit_runtime::{Contents, Reload, ReloadOptions};
use tempfile::NamedTempFile;

use super::edit::{self, BLOCK, Change};

/// The hash of a file without anything in it.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Who may read a file that is made: processes may run as somebody else.
const MODE: u32 = 0o644;

/// The files of a runtime configuration, one behind the other, as they were read.
#[derive(Debug)]
pub(super) struct RuntimeFiles {
    paths: Vec<PathBuf>,
    /// Of the file that is changed.
    text: String,
    /// Which of the paths that is.
    changed: usize,
    exists: bool,
    /// As processes report it.
    pub(super) sha256: String,
}

impl RuntimeFiles {
    /// Reads the files that `list` names as `runtime_config.file` does.
    ///
    /// # Errors
    ///
    /// In words, if a file cannot be read, or it cannot be told which of several is to be changed.
    pub(super) async fn read(list: &str) -> Result<Self, String> {
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        let paths: Vec<PathBuf> = names.map(PathBuf::from).collect();
        if let [path] = &paths[..]
            && !exists(path)?
        {
            let (text, sha256) = (String::new(), EMPTY.to_owned());
            return Ok(Self { paths, text, changed: 0, exists: false, sha256 });
        }
        let contents = contents(&paths).await?;
        let mut texts = Vec::new();
        for (name, bytes) in contents.files {
            let text = String::from_utf8(bytes).map_err(|_| format!("{name}: this file is not UTF-8"))?;
            texts.push((name, text));
        }
        let with_block = texts.iter().enumerate().filter(|(_, (_, text))| edit::has_block(text));
        let with_block: Vec<usize> = with_block.map(|(at, _)| at).collect();
        let changed = match &with_block[..] {
            // The last one wins.
            [] => texts.len().saturating_sub(1),
            [only] => *only,
            _ => return Err(format!("several of these files have `{BLOCK}`: keep it in one of them")),
        };
        let (_, text) = texts.into_iter().nth(changed).ok_or("there is no file")?;
        Ok(Self { paths, text, changed, exists: true, sha256: contents.sha256.to_string() })
    }

    /// What messages call it.
    pub(super) fn name(&self) -> String {
        self.path().display().to_string()
    }

    fn path(&self) -> &Path {
        self.paths.get(self.changed).map_or(Path::new(""), PathBuf::as_path)
    }

    /// What it says of stores, as far as it can be read.
    pub(super) fn said(&self) -> Option<MultiRuntimeConfig> {
        edit::read(&self.text).ok()
    }

    /// What it would be with a change.
    ///
    /// # Errors
    ///
    /// In words, if that has to be done by hand.
    pub(super) fn with(&self, change: &Change) -> Result<String, String> {
        edit::edit(&self.text, change).map_err(|why| {
            let yaml = change.yaml();
            format!("{}: cannot be changed safely: {why}; write there by hand:\n{yaml}", self.name())
        })
    }

    /// Writes a change, at once and as a whole, and returns the new hash.
    ///
    /// # Errors
    ///
    /// In words, if somebody else changed a file meanwhile, or it cannot be written; nothing was then.
    pub(super) async fn write(&self, change: &Change) -> Result<String, String> {
        let text = self.with(change)?;
        let name = self.name();
        let failed = |cause: std::io::Error| format!("{name}: cannot write this file: {cause}");
        // What a link leads to is replaced, not the link.
        let (path, lock) = if self.exists {
            let path = self.path().canonicalize().map_err(failed)?;
            let Some(lock) = lock(&path).map_err(failed)? else { return Err(overtaken(&name)) };
            (path, Some(lock))
        } else {
            (self.path().to_owned(), None)
        };
        if !self.is_unchanged().await? {
            return Err(overtaken(&name));
        }
        self.replace(&path, &text).map_err(failed)?;
        drop(lock);
        Ok(contents(&self.paths).await?.sha256.to_string())
    }

    async fn is_unchanged(&self) -> Result<bool, String> {
        if !self.exists {
            return Ok(!exists(self.path())?);
        }
        Ok(*contents(&self.paths).await?.sha256 == *self.sha256)
    }

    fn replace(&self, path: &Path, text: &str) -> std::io::Result<()> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = NamedTempFile::new_in(dir)?;
        file.write_all(text.as_bytes())?;
        if self.exists {
            let old = path.metadata()?;
            // As far as we may.
            let _ = fchown(file.as_file(), Some(old.uid()), Some(old.gid()));
            file.as_file().set_permissions(old.permissions())?;
        } else {
            file.as_file().set_permissions(Permissions::from_mode(MODE))?;
        }
        file.as_file().sync_all()?;
        let kept = if self.exists { file.persist(path) } else { file.persist_noclobber(path) };
        kept.map_err(|error| error.error)?;
        // So that the new name outlives the machine; not all file systems can.
        let _ = File::open(dir).and_then(|dir| dir.sync_all());
        Ok(())
    }
}

fn overtaken(name: &str) -> String {
    format!(
        "{name}: somebody else is changing this file, or has since it was read; nothing was written. \
         Look at `ringctl migrate status`, and begin again"
    )
}

/// Takes the file for ourselves; `None` if somebody else has. Where files cannot be locked, nobody notices.
fn lock(path: &Path) -> std::io::Result<Option<File>> {
    let file = File::open(path)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(None),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(file)),
    }
}

fn exists(path: &Path) -> Result<bool, String> {
    match path.metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(format!("{}: cannot read this file: {error}", path.display())),
    }
}

/// The files and their hash, as processes read them.
async fn contents(paths: &[PathBuf]) -> Result<Contents, String> {
    let files = paths.to_vec();
    let period = Duration::from_secs(1);
    let options = ReloadOptions { files, period, max_bytes: RuntimeConfig::MAX_BYTES };
    let read = Reload::open(options, |contents: &Contents| Ok(contents.clone())).await;
    let read = read.map_err(|cause| cause.to_string())?;
    Ok(Contents::clone(&read.live().get()))
}

#[cfg(test)]
mod tests;
