//! The attributes that tell the volumes of one series apart.

use super::super::slices::Slice;

/// How much an attribute says about the volume of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyStrength {
    /// Slices that differ in it never form one image.
    Strong,
    /// It may differ between the slices of one volume, such as the acquisition number of
    /// interleaved slices.
    Weak,
}

/// An attribute that tells volumes apart.
pub(super) struct VolumeKey {
    pub strength: KeyStrength,
    /// Sorts like the attribute.
    pub value: fn(&Slice) -> String,
    /// For messages; holds no text of the file.
    pub label: fn(&Slice) -> String,
}

/// Most significant first.
pub(super) const KEYS: [VolumeKey; 12] = {
    use KeyStrength::{Strong, Weak};
    [
        VolumeKey {
            strength: Strong,
            value: |s| format!("{}{}", u8::from(is_secondary_component(&s.time.image_type)), s.time.image_type),
            label: |s| {
                let secondary = is_secondary_component(&s.time.image_type);
                (if secondary { "phase, part, map or projection" } else { "magnitude" }).into()
            },
        },
        VolumeKey {
            strength: Strong,
            value: |s| ordered(s.time.echo_time) + &ordered(s.time.echo_number),
            label: |s| match (s.time.echo_time, s.time.echo_number) {
                (Some(hundredths), _) => format!("echo time {} ms", hundredths as f64 / 100.0),
                (None, Some(number)) => format!("echo {number}"),
                (None, None) => "no echo time".into(),
            },
        },
        VolumeKey {
            strength: Strong,
            value: |s| ordered(s.time.b_value),
            label: |s| s.time.b_value.map_or("no b-value".into(), |b| format!("b-value {b} s/mm²")),
        },
        VolumeKey {
            strength: Strong,
            value: |s| ordered(s.time.kvp),
            label: |s| s.time.kvp.map_or("no tube voltage".into(), |kv| format!("{} kV", kv as f64 / 10.0)),
        },
        VolumeKey {
            strength: Strong,
            // With contrast agent first: vessels are seen with it.
            value: |s| u8::from(!s.time.contrast).to_string(),
            label: |s| (if s.time.contrast { "with contrast agent" } else { "without contrast agent" }).into(),
        },
        VolumeKey {
            strength: Strong,
            value: |s| ordered(s.time.series_number),
            label: |s| s.time.series_number.map_or("no series number".into(), |n| format!("series number {n}")),
        },
        VolumeKey {
            strength: Weak,
            value: |s| ordered(s.time.temporal_position),
            label: |s| s.time.temporal_position.map_or("no time point".into(), |n| format!("time point {n}")),
        },
        VolumeKey { strength: Weak, value: |s| s.time.stack.clone(), label: |_| "another stack".into() },
        VolumeKey {
            strength: Weak,
            value: |s| ordered(s.time.acquisition),
            label: |s| s.time.acquisition.map_or("no acquisition number".into(), |n| format!("acquisition {n}")),
        },
        VolumeKey {
            strength: Weak,
            value: |s| ordered(s.time.trigger_time),
            label: |s| {
                let ms = |hundredths: i64| format!("trigger time {} ms", hundredths as f64 / 100.0);
                s.time.trigger_time.map_or("no trigger time".into(), ms)
            },
        },
        VolumeKey {
            strength: Weak,
            value: |s| {
                let times = [s.time.repetition_time, s.time.inversion_time, s.time.flip_angle];
                times.map(ordered).concat() + &s.time.kernel
            },
            label: |_| "other sequence or reconstruction parameters".into(),
        },
        VolumeKey {
            strength: Weak,
            value: |s| ordered(s.time.acquisition_time),
            label: |_| "acquired at another time".into(),
        },
    ]
};

/// Whether an image type is that of a phase, real or imaginary image, of a map or of a projection.
pub(super) fn is_secondary_component(image_type: &str) -> bool {
    image_type.split('\\').any(|value| {
        matches!(value, "P" | "R" | "I" | "REAL" | "IMAGINARY" | "MIP" | "PROJECTION IMAGE")
            || value.contains("PHASE")
            || value.contains("MAP")
    })
}

/// A string that sorts like the number.
fn ordered(value: Option<i64>) -> String {
    value.map_or_else(String::new, |v| format!("{:020}", v.saturating_add(1 << 40)))
}
