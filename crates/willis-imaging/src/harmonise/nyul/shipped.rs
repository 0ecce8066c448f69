//! Standard scales that come with willis, one per modality.
//!
//! `standards/README.md` names the images and the command that made them.

use willis_core::Modality;

use super::standard::Standard;

/// The standard scale of a modality. On it air is 0 and the median of the tissue is 50; for CT
/// -160 HU is 0 and 40 HU is 50.
pub fn shipped(modality: Modality) -> Standard {
    let bytes: &[u8] = match modality {
        Modality::Cta => include_bytes!("standards/cta.npy"),
        Modality::Mra => include_bytes!("standards/mra.npy"),
        Modality::T1Post => include_bytes!("standards/t1post.npy"),
        Modality::T2 => include_bytes!("standards/t2.npy"),
    };
    Standard::from_npy(bytes).expect("a test reads every standard that is shipped")
}
