//! The data directory: who may use it, and what it remembers about the ring.
//!
//! | name | content |
//! |---|---|
//! | `ingester.lock` | locked by the process that uses the directory |
//! | `ingester.json` | when this ingester registered, as long as it has had its data |
//! | `wal/` | log and snapshots |

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot write to `{}`, which is `blocks_storage.tsdb.dir`: {cause}; make it writable or set another", path.display())]
    NotWritable { path: PathBuf, cause: io::Error },
    #[error(
        "`{}`, which is `blocks_storage.tsdb.dir`, is in use by another ingester: give each a directory of its own",
        path.display()
    )]
    InUse { path: PathBuf },
    #[error("cannot read `{}`: {cause}", path.display())]
    Marker { path: PathBuf, cause: io::Error },
}

/// A directory that nobody else uses while this exists.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    lock: File,
}

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    registered_timestamp: i64,
}

impl DataDir {
    /// Creates the directory if need be, and takes it.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let not_writable = |cause| Error::NotWritable { path: path.to_owned(), cause };
        fs::create_dir_all(path.join("wal")).map_err(not_writable)?;
        let options =
            OpenOptions::new().write(true).create(true).truncate(false).open(path.join("ingester.lock"));
        let lock = options.map_err(not_writable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(cause)) => Err(not_writable(cause)),
        }
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.path.join("wal")
    }

    fn marker(&self) -> PathBuf {
        self.path.join("ingester.json")
    }

    /// When the ingester with this data registered (Unix seconds), if it ever did.
    ///
    /// # Errors
    ///
    /// [`Error::Marker`].
    pub(crate) fn registered_at(&self) -> Result<Option<i64>, Error> {
        let path = self.marker();
        let marker = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Marker>(&bytes).map_err(io::Error::from),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => Err(cause),
        };
        match marker {
            Ok(marker) => Ok(Some(marker.registered_timestamp)),
            Err(cause) => Err(Error::Marker { path, cause }),
        }
    }

    /// Remembers when this ingester registered (Unix seconds).
    ///
    /// # Errors
    ///
    /// [`Error::NotWritable`].
    pub(crate) fn set_registered_at(&self, registered_timestamp: i64) -> Result<(), Error> {
        let write = || {
            let temporary = self.path.join("ingester.json.tmp");
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(&Marker { registered_timestamp })?)?;
            file.sync_all()?;
            fs::rename(&temporary, self.marker())?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|cause| Error::NotWritable { path: self.path.clone(), cause })
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // The system would do it too, only later if the file is shared with a child process.
        let _ = self.lock.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cannot_use_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
        drop(first);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn the_registration_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        assert_eq!(data.registered_at().unwrap(), None);
        data.set_registered_at(1234).unwrap();
        data.set_registered_at(5678).unwrap();
        assert_eq!(data.registered_at().unwrap(), Some(5678));
        fs::write(data.marker(), "{").unwrap();
        assert!(data.registered_at().unwrap_err().to_string().contains("ingester.json"));
    }

    #[test]
    fn an_unusable_directory_is_named_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let text = DataDir::open(&file).unwrap_err().to_string();
        assert!(text.contains("blocks_storage.tsdb.dir") && text.contains("file"), "{text}");
    }
}
