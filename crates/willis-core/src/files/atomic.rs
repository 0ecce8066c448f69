//! Atomic writes.
//!
//! On Linux, content is written to a file without a name (`O_TMPFILE`), which is linked to its name
//! once it is complete. If the process is killed before, the kernel frees the file. Where this is
//! not supported, content is written to a temporary name that ends in `.part`. The writer locks
//! that file, and the next write into the folder removes files whose writers are gone.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::FileError;

/// Start of temporary names.
const PREFIX: &str = ".willis-";

/// End of temporary names.
const SUFFIX: &str = ".part";

/// Folder through which `linkat` reaches the open files of this process.
#[cfg(target_os = "linux")]
const OWN_FILES: &str = "/proc/self/fd";

/// Size of the write buffer, bytes.
const BUFFER: usize = 1 << 18;

/// Writes a file so that readers see either the old content or the new, never a part of it.
///
/// The content is flushed to the disk before it replaces the old file. The folder must exist.
///
/// # Errors
/// [`FileError::Write`] when the folder is missing or full, or when `write` fails; the old file is
/// unchanged then.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), FileError> {
    write_durably(path, Durability::Flushed, write)
}

/// Whether a file outlives a loss of power right after it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The content is on the disk before it replaces the old file.
    Flushed,
    /// The system writes the content to the disk when it likes, which takes a fraction of the time:
    /// for results that can be made again in seconds. After a loss of power the file may be cut
    /// short; if only the process is killed, it is still whole or not there.
    Unflushed,
}

/// As [`write_atomically`], with a choice of durability.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_durably(
    path: &Path,
    durability: Durability,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), FileError> {
    replace(path, durability, write).map_err(|source| FileError::Write { path: path.to_path_buf(), source })
}

fn replace(
    path: &Path,
    durability: Durability,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    remove_abandoned(folder);
    match unnamed(folder) {
        Some(mut file) => {
            fill(&mut file, durability, write)?;
            publish(&file, folder, path)
        }
        None => replace_named(folder, path, durability, write),
    }
}

/// Writes to a temporary name and renames it.
fn replace_named(
    folder: &Path,
    path: &Path,
    durability: Durability,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = loop {
        let file = builder().tempfile_in(folder)?;
        lock(file.as_file());
        // Another process may have removed it as abandoned before it was locked.
        if file.path().exists() {
            break file;
        }
    };
    fill(file.as_file_mut(), durability, write)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    // Temporary files are private by default; results are as readable as any other file of the
    // user.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

fn fill(
    file: &mut File,
    durability: Durability,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(BUFFER, &mut *file);
    write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    match durability {
        Durability::Flushed => file.sync_all(),
        Durability::Unflushed => Ok(()),
    }
}

/// Marks a temporary file as in use until it is closed.
fn lock(file: &File) {
    // Where locks are not supported, `remove_abandoned` cannot lock the file either, and leaves it.
    let _ = file.lock();
}

/// Removes temporary files of processes that ended while writing, as far as possible.
fn remove_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_temporary = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_temporary && is_file && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            // Another process may have removed it first.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Opens a file without a name; `None` where that is not supported.
#[cfg(target_os = "linux")]
fn unnamed(folder: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    if !Path::new(OWN_FILES).exists() {
        return None;
    }
    let mut options = File::options();
    options.write(true).mode(0o666).custom_flags(libc::O_TMPFILE);
    let file = options.open(folder).ok()?;
    lock(&file);
    Some(file)
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_folder: &Path) -> Option<File> {
    None
}

/// Links an unnamed file to its name and replaces the file that has the name.
#[cfg(target_os = "linux")]
fn publish(file: &File, folder: &Path, path: &Path) -> io::Result<()> {
    match link(file, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        done => return done,
    }
    // A link cannot replace a file, but a rename can.
    let temporary = builder().make_in(folder, |temporary| link(file, temporary))?;
    temporary.into_temp_path().persist(path).map_err(|error| error.error)
}

#[cfg(not(target_os = "linux"))]
fn publish(_file: &File, _folder: &Path, _path: &Path) -> io::Result<()> {
    unreachable!("files without a name exist only on Linux")
}

/// Links an open file to an unused name.
#[cfg(target_os = "linux")]
fn link(file: &File, path: &Path) -> io::Result<()> {
    use std::ffi::CString;
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    let from = CString::new(format!("{OWN_FILES}/{}", file.as_raw_fd()))?;
    let to = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: both pointers are NUL-terminated strings that outlive the call, which keeps neither.
    let result =
        unsafe { libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::AT_SYMLINK_FOLLOW) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// Environment variable of the child process that is killed: the folder it writes into.
    const FOLDER: &str = "WILLIS_TEST_ATOMIC_FOLDER";

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        type Replace = fn(&Path, &Path) -> io::Result<()>;
        let fail = |w: &mut dyn Write| {
            w.write_all(b"half of the new")?;
            Err(io::Error::other("disk on fire"))
        };
        let ways: [Replace; 2] = [
            |_, path| replace(path, Durability::Unflushed, |w| w.write_all(b"old")),
            |folder, path| replace_named(folder, path, Durability::Flushed, |w| w.write_all(b"new")),
        ];
        for (way, content) in ways.into_iter().zip(["old", "new"]) {
            way(folder.path(), &path).unwrap();
            let failed = write_atomically(&path, fail);
            assert!(failed.unwrap_err().to_string().contains("a.txt: disk on fire"));
            assert!(replace_named(folder.path(), &path, Durability::Flushed, fail).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(names(folder.path()), ["a.txt"]);
        }
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none").join("a.txt");
        assert!(matches!(write_atomically(&path, |_| Ok(())), Err(FileError::Write { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_result_has_the_permissions_of_any_other_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        fs::write(&plain, "").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        let ours = folder.path().join("ours");
        for _ in 0..2 {
            write_atomically(&ours, |_| Ok(())).unwrap();
            assert_eq!(mode(&ours), mode(&plain));
        }
    }

    #[test]
    fn only_abandoned_temporary_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at(".willis-old.part"), "abandoned").unwrap();
        fs::write(at("mine.part"), "of somebody else").unwrap();
        let busy = File::create(at(".willis-busy.part")).unwrap();
        busy.lock().unwrap();
        write_atomically(&at("a.txt"), |_| Ok(())).unwrap();
        assert_eq!(names(folder.path()), [".willis-busy.part", "a.txt", "mine.part"]);
        drop(busy);
        write_atomically(&at("a.txt"), |_| Ok(())).unwrap();
        assert_eq!(names(folder.path()), ["a.txt", "mine.part"]);
    }

    /// The body of the child process that the next test starts; does nothing otherwise.
    #[test]
    fn child_that_is_killed_while_writing() {
        let Some(folder) = std::env::var_os(FOLDER) else { return };
        let path = Path::new(&folder).join("a.txt");
        let result = write_atomically(&path, |writer| {
            writer.write_all(&vec![1; 2 * BUFFER])?;
            fs::write(Path::new(&folder).join("started"), "")?;
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        });
        panic!("was not killed: {result:?}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_killed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomically(&path, |w| w.write_all(b"old")).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "files::atomic::tests::child_that_is_killed_while_writing"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(50);
        while !folder.path().join("started").exists() {
            assert!(Instant::now() < deadline, "the child did not start to write");
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if unnamed(folder.path()).is_none() {
            // Without `O_TMPFILE`, the next write removes the temporary file.
            write_atomically(&folder.path().join("started"), |_| Ok(())).unwrap();
        }
        assert_eq!(names(folder.path()), ["a.txt", "started"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }
}
