//! Heads of real people from files, on which a phantom's arteries are drawn.
//!
//! Label maps give the tissues of whole heads, a CT gives their bone. Both are placed by landmarks
//! in the coordinates of the mean head, so that the circle of Willis has its place.

mod ct_head;
mod label_head;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use willis_core::Modality;
use willis_core::files::FileError;
use willis_core::files::hash::sha256_hex;

use self::ct_head::CtHead;
use self::label_head::LabelHead;
use crate::head::{HeadAnatomy, TISSUE_COUNT, Tissue};
use crate::mix::LookAlikes;
use crate::random::Draw;

/// Number of brightness values of a head: one per [`Tissue`], then that of the dural sinuses.
pub(crate) const BRIGHTNESS_COUNT: usize = TISSUE_COUNT + 1;
/// Position of the dural sinuses among them.
pub(crate) const SINUS: usize = TISSUE_COUNT;

/// Why the files of an [`AnatomyLibrary`] cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnatomyError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder cannot be listed.
    #[error("cannot list {path}: {source}; give a folder of label maps (.nii or .nii.gz)")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Cause reported by the operating system.
        source: std::io::Error,
    },
    /// No file of the folder is the label map of a whole head.
    #[error("{path} has no label map of a whole head (FreeSurfer's numbers, with chiasm 85, eyes 506 and skin 511)")]
    NoHead {
        /// The folder.
        path: PathBuf,
    },
}

/// Heads of real people.
#[derive(Debug, Clone)]
pub struct AnatomyLibrary {
    labels: Vec<LabelHead>,
    ct: Vec<CtHead>,
    left_out: Vec<String>,
    fingerprint: String,
}

impl PartialEq for AnatomyLibrary {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl AnatomyLibrary {
    /// Reads the label maps of a folder and the CT of a head, where they are given.
    ///
    /// The maps have the numbers of SynthSeg's training maps. The CT is the head of the Visible
    /// Human Female at 1 mm, with the origin of its distribution.
    ///
    /// # Errors
    /// [`AnatomyError`] when a file cannot be read or no map shows a whole head.
    pub fn read(labels: Option<&Path>, bone: Option<&Path>) -> Result<Self, AnatomyError> {
        let mut library = Self { labels: Vec::new(), ct: Vec::new(), left_out: Vec::new(), fingerprint: String::new() };
        let mut contents = Vec::new();
        if let Some(folder) = labels {
            for path in maps_in(folder)? {
                let image = willis_core::files::nifti::read(&path)?;
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                match LabelHead::new(&image) {
                    Some(head) => {
                        contents.extend_from_slice(sha256_hex(head.bytes()).as_bytes());
                        library.labels.push(head);
                    }
                    None => library.left_out.push(name),
                }
            }
            if library.labels.is_empty() {
                return Err(AnatomyError::NoHead { path: folder.to_path_buf() });
            }
        }
        if let Some(path) = bone {
            let head = CtHead::new(&willis_core::files::nifti::read(path)?);
            contents.extend_from_slice(sha256_hex(&head.bytes()).as_bytes());
            library.ct.push(head);
        }
        library.fingerprint = sha256_hex(&contents)[..12].to_string();
        Ok(library)
    }

    /// Names of the files in the folder that are no label maps of whole heads.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Hash of the heads: the bytes of a phantom depend on it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// Label maps of a folder in the order of their names.
fn maps_in(folder: &Path) -> Result<Vec<PathBuf>, AnatomyError> {
    let failed = |source| AnatomyError::Folder { path: folder.to_path_buf(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.to_string_lossy();
        if name.ends_with(".nii.gz") || name.ends_with(".nii") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// What a head shows at a position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadSample {
    /// Brightness.
    pub value: f32,
    /// Share of cerebrospinal fluid, 0 to 1.
    pub fluid: f32,
    /// Share of air.
    pub air: f32,
    /// Whether the position is inside the cranial cavity.
    pub inside: bool,
}

/// Where the tissues of a phantom's head come from.
#[derive(Debug, Clone)]
enum HeadSource {
    /// Built from ellipsoids and noise.
    Drawn,
    /// A label map of the library.
    Labels(usize),
    /// A CT of the library.
    Ct(usize),
}

/// The head of one phantom.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    drawn: HeadAnatomy,
    library: Option<Arc<AnatomyLibrary>>,
    source: HeadSource,
    /// 1 or -1: whether left and right are exchanged.
    mirror: f32,
}

impl Head {
    /// A head that is built from ellipsoids and noise.
    pub fn drawn(look_alikes: LookAlikes, rng: &mut ChaCha8Rng) -> Self {
        let drawn = HeadAnatomy::draw(look_alikes, rng);
        Self { drawn, library: None, source: HeadSource::Drawn, mirror: 1.0 }
    }

    /// Replaces the drawn head by one of the library, in most cases.
    pub fn or_real(self, library: Option<&Arc<AnatomyLibrary>>, modality: Modality, rng: &mut ChaCha8Rng) -> Self {
        let Some(library) = library else { return self };
        let of_ct = if modality == Modality::Cta && !library.ct.is_empty() { 0.4 } else { 0.0 };
        let of_labels = if library.labels.is_empty() { 0.0 } else { 0.8 - of_ct };
        let source = match rng.weighted(&[1.0 - of_ct - of_labels, of_labels, of_ct]) {
            1 => HeadSource::Labels(rng.weighted(&vec![1.0; library.labels.len()])),
            2 => HeadSource::Ct(rng.weighted(&vec![1.0; library.ct.len()])),
            _ => HeadSource::Drawn,
        };
        let mirror = if rng.chance(0.5) { -1.0 } else { 1.0 };
        Self { library: Some(Arc::clone(library)), source, mirror, ..self }
    }

    /// The head at a position of the mean head, `near_artery_mm` from the nearest arterial wall,
    /// with one brightness per tissue.
    pub fn sample(&self, p: [f32; 3], near_artery_mm: f32, brightness: &[f32; BRIGHTNESS_COUNT]) -> HeadSample {
        let mirrored = [p[0] * self.mirror, p[1], p[2]];
        match (&self.source, &self.library) {
            (HeadSource::Labels(i), Some(library)) => {
                let ring = self.drawn.cistern_width(p);
                library.labels[*i].sample(mirrored, near_artery_mm, ring, brightness)
            }
            (HeadSource::Ct(i), Some(library)) => library.ct[*i].sample(mirrored, brightness),
            _ => {
                let (tissue, inside) = self.drawn.tissue(p, near_artery_mm);
                let share = |is: bool| f32::from(u8::from(is));
                HeadSample {
                    value: brightness[tissue as usize],
                    fluid: share(tissue == Tissue::Csf && inside),
                    air: share(tissue == Tissue::Air),
                    inside,
                }
            }
        }
    }
}
