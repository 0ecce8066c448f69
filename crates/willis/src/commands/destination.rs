//! Where results go, checked before any work starts.

use std::path::Path;

use anyhow::bail;
use willis_core::Image;
use willis_core::files::{FileError, mha, nifti};

/// A format in which an image can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// `.nii` or `.nii.gz`.
    Nifti,
    /// `.mha`.
    MetaImage,
}

impl ImageFormat {
    /// The format that a file name asks for.
    ///
    /// # Errors
    /// when it asks for none that can be written, or the file cannot be created.
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        file(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        // A name that is all suffix, such as `.nii`, is refused.
        let ends = |suffix: &str| name.strip_suffix(suffix).is_some_and(|stem| !stem.is_empty());
        if ends(".nii") || ends(".nii.gz") {
            Ok(Self::Nifti)
        } else if ends(".mha") {
            Ok(Self::MetaImage)
        } else {
            bail!("cannot write {}: the name must end in .nii, .nii.gz or .mha", path.display())
        }
    }

    /// Writes an image.
    ///
    /// # Errors
    /// when the file cannot be written.
    pub fn write(self, path: &Path, image: &Image<f32>) -> Result<(), FileError> {
        match self {
            Self::Nifti => nifti::write_compact(path, image),
            Self::MetaImage => mha::write(path, image),
        }
    }
}

/// Checks that a NIfTI file can be created.
///
/// # Errors
/// when the name ends in another suffix, or the file cannot be created.
pub fn nifti_file(path: &Path) -> anyhow::Result<()> {
    match ImageFormat::of(path)? {
        ImageFormat::Nifti => Ok(()),
        ImageFormat::MetaImage => bail!("cannot write {}: the name must end in .nii or .nii.gz", path.display()),
    }
}

/// Checks that a file can be created: its folder exists, and it is not itself a folder.
///
/// # Errors
/// when it cannot.
pub fn file(path: &Path) -> anyhow::Result<()> {
    if path.is_dir() {
        bail!("{} is a folder; give the name of a file", path.display());
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            bail!("the folder {} does not exist; create it or choose another", parent.display())
        }
        _ => Ok(()),
    }
}

/// Checks that no result overwrites the input or another result.
///
/// # Errors
/// when two of them are the same file.
pub fn distinct(input: &Path, results: &[&Path]) -> anyhow::Result<()> {
    let place = |path: &&Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A file that does not exist yet is known by its folder and name.
        let new = || Some(folder.canonicalize().ok()?.join(path.file_name()?));
        path.canonicalize().ok().or_else(new).unwrap_or_else(|| path.to_path_buf())
    };
    let source = place(&input);
    let places: Vec<_> = results.iter().map(place).collect();
    for (i, (path, at)) in results.iter().zip(&places).enumerate() {
        if *at == source {
            bail!("{} is the input and would be overwritten; give another name", path.display());
        }
        if places[..i].contains(at) {
            bail!("{} is named for two results; give each its own name", path.display());
        }
    }
    Ok(())
}

/// Checks that a folder exists or can be created.
///
/// # Errors
/// when it or a part of its path is a file.
pub fn folder(path: &Path) -> anyhow::Result<()> {
    let file = path.ancestors().find(|part| part.exists() && !part.is_dir());
    match file {
        Some(file) => bail!("{} is a file; give the name of a folder for the results", file.display()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ask_for_formats() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| ImageFormat::of(&folder.path().join(name));
        for (name, format) in
            [("a.nii", ImageFormat::Nifti), ("a.b.NII.GZ", ImageFormat::Nifti), ("a.mha", ImageFormat::MetaImage)]
        {
            assert_eq!(of(name).unwrap(), format, "{name}");
        }
        for name in ["a", "a.nrrd", "a.gz", ".nii", "a.mhd", "a.hdr"] {
            assert!(of(name).unwrap_err().to_string().contains(".nii, .nii.gz or .mha"), "{name}");
        }
        assert!(of("missing/a.nii").unwrap_err().to_string().contains("does not exist"));
        assert!(ImageFormat::of(folder.path()).unwrap_err().to_string().contains("is a folder"));
        assert!(nifti_file(&folder.path().join("a.mha")).is_err());
    }

    #[test]
    fn results_overwrite_neither_the_input_nor_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let [input, a, b] = ["in.nii", "a.nii", "b.nii"].map(|name| folder.path().join(name));
        std::fs::write(&input, "").unwrap();
        distinct(&input, &[&a, &b]).unwrap();
        let again = folder.path().join(".").join("in.nii");
        let error = |results: &[&Path]| distinct(&input, results).unwrap_err().to_string();
        assert!(error(&[&a, &again]).contains("is the input"));
        assert!(error(&[&a, &b, &folder.path().join("./a.nii")]).contains("two results"));
    }

    #[test]
    fn a_file_is_not_a_folder_for_results() {
        let parent = tempfile::tempdir().unwrap();
        let taken = parent.path().join("taken");
        std::fs::write(&taken, "").unwrap();
        for path in [taken.clone(), taken.join("below")] {
            assert!(folder(&path).unwrap_err().to_string().contains("is a file"));
        }
        assert!(folder(parent.path()).is_ok() && folder(&parent.path().join("new/deep")).is_ok());
    }
}
