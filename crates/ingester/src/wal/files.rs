//! The few file operations the log needs, as a trait: tests put in one that fails when told to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// A directory tree on some disk.
pub(crate) trait Files: Send + Sync + 'static {
    /// Names of the files in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// The whole content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Creates an empty file, or empties one that exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>>;
    /// Cuts a file and makes that durable.
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()>;
    /// Gives a file another name in the same directory, replacing what has that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, removals and renames in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file open for appending.
pub(crate) trait Output: Send {
    /// Hands all bytes to the operating system.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Waits until everything written is on disk.
    fn sync(&mut self) -> io::Result<()>;
}

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Disk;

impl Files for Disk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is not text is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        Ok(Box::new(DiskFile(file)))
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

struct DiskFile(File);

impl Output for DiskFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// A file system in memory that fails when told to.
#[cfg(test)]
pub(crate) mod faulty {
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    /// Clones share the files. `budget` bytes can still be written; then writes are cut short and fail, as on a full disk.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Faulty(Arc<Mutex<State>>);

    #[derive(Debug, Default)]
    struct State {
        files: BTreeMap<PathBuf, Vec<u8>>,
        budget: Option<usize>,
        fail_sync: bool,
        /// Called names, to check the order of operations.
        calls: Vec<String>,
    }

    impl Faulty {
        pub(crate) fn set_budget(&self, bytes: Option<usize>) {
            self.0.lock().budget = bytes;
        }

        pub(crate) fn fail_syncs(&self, fail: bool) {
            self.0.lock().fail_sync = fail;
        }

        pub(crate) fn calls(&self) -> Vec<String> {
            self.0.lock().calls.clone()
        }

        pub(crate) fn paths(&self) -> Vec<PathBuf> {
            self.0.lock().files.keys().cloned().collect()
        }

        pub(crate) fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
            edit(self.0.lock().files.get_mut(path).expect("no such file"));
        }

        /// An independent copy: what a crash at this moment would leave behind.
        pub(crate) fn fork(&self) -> Self {
            let state = self.0.lock();
            Self(Arc::new(Mutex::new(State { files: state.files.clone(), ..State::default() })))
        }

        fn log(&self, call: &str, path: &Path) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.0.lock().calls.push(format!("{call} {name}"));
        }
    }

    fn missing() -> io::Error {
        io::ErrorKind::NotFound.into()
    }

    impl Files for Faulty {
        fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
            let state = self.0.lock();
            let inside = state.files.keys().filter(|path| path.parent() == Some(dir));
            Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
        }

        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            self.0.lock().files.get(path).cloned().ok_or_else(missing)
        }

        fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
            self.log("create", path);
            self.0.lock().files.insert(path.to_owned(), Vec::new());
            Ok(Box::new(FaultyFile { files: self.clone(), path: path.to_owned() }))
        }

        fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
            self.log("truncate", path);
            let mut state = self.0.lock();
            let file = state.files.get_mut(path).ok_or_else(missing)?;
            file.truncate(usize::try_from(len).unwrap());
            Ok(())
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.log("rename", to);
            let mut state = self.0.lock();
            let file = state.files.remove(from).ok_or_else(missing)?;
            state.files.insert(to.to_owned(), file);
            Ok(())
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            self.log("remove", path);
            self.0.lock().files.remove(path).map(drop).ok_or_else(missing)
        }

        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            self.log("sync_dir", dir);
            Ok(())
        }
    }

    struct FaultyFile {
        files: Faulty,
        path: PathBuf,
    }

    impl Output for FaultyFile {
        fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
            let mut state = self.files.0.lock();
            let allowed = state.budget.map_or(bytes.len(), |budget| budget.min(bytes.len()));
            state.budget = state.budget.map(|budget| budget - allowed);
            let file = state.files.get_mut(&self.path).ok_or_else(missing)?;
            file.extend_from_slice(&bytes[..allowed]);
            if allowed < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        fn sync(&mut self) -> io::Result<()> {
            self.files.log("sync", &self.path);
            if self.files.0.lock().fail_sync { Err(io::Error::other("injected")) } else { Ok(()) }
        }
    }
}
