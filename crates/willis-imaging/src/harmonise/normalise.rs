//! Normalisation of intensities to one scale for all series.

use std::path::PathBuf;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::{Finding, InvalidValue, Modality};

use super::error::HarmoniseError;
use super::intensity::IntensityUnits;
use super::nyul::{self, PiecewiseLinear, Standard, order_statistics};

/// CT window: the values that become 0 and 1, HU.
const CT_WINDOW: (f64, f64) = (40.0, 240.0);
/// Range of the result for CT; with the CT window -260 to 840 HU.
const CT_CLIP: (f32, f32) = (-1.5, 4.0);
/// Range of the result for MR.
const MR_CLIP: (f32, f32) = (-2.0, 5.0);
/// Intensity of the middle of the tissue on the shipped standard scales. Air is at 0.
pub(super) const STANDARD_MIDDLE: f64 = 50.0;

/// Intensity normalisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Normalise {
    /// [`Normalise::Window`] of 40 to 240 HU for CT, [`Normalise::Percentile`] for MR.
    Auto,
    /// Maps `low` to 0 and `high` to 1; clipped to -1.5 to 4.
    Window {
        /// Value that becomes 0.
        low: f64,
        /// Value that becomes 1.
        high: f64,
    },
    /// Maps a percentile of the tissue to 0 and air to -1; clipped to -2 to 5.
    ///
    /// It uses one percentile and the physical zero because high percentiles depend on how much
    /// vessel and fat a crop holds.
    Percentile {
        /// The percentile; the median by default.
        #[serde(default = "fifty")]
        middle: f64,
    },
    /// Maps the mean of the tissue to 0 and `deviations` standard deviations above it to 1; clipped
    /// like the other kinds.
    ZScore {
        /// Standard deviations per unit of the result. The default gives MR the spread that
        /// [`Normalise::Auto`] gives it: on phantoms one unit of that is 2.2 (T2) to 3.6 (MRA)
        /// standard deviations.
        #[serde(default = "usual_deviations")]
        deviations: f64,
    },
    /// Maps to Nyúl's standard scale, then its middle to 0 and its 0 to -1; clipped like the other
    /// kinds.
    Nyul {
        /// The standard scale.
        #[serde(default)]
        standard: NyulStandard,
    },
}

fn fifty() -> f64 {
    50.0
}

fn usual_deviations() -> f64 {
    2.7
}

/// Which standard scale: `by_modality`, the name of a modality (`cta`, `mra`, `t1post`, `t2`), or
/// the path of a file that ends in `.npy` or `.npz`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NyulStandard {
    /// The shipped scale of the series' modality.
    #[default]
    ByModality,
    /// A shipped scale.
    Shipped(Modality),
    /// A scale as written by `willis volume nyul fit` or the package `intensity-normalization`.
    File(PathBuf),
}

impl TryFrom<String> for NyulStandard {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        let path = PathBuf::from(&text);
        let suffix = path.extension().map(|suffix| suffix.to_ascii_lowercase());
        if suffix.is_some_and(|suffix| suffix == "npy" || suffix == "npz") {
            return Ok(Self::File(path));
        }
        if text == "by_modality" {
            return Ok(Self::ByModality);
        }
        Modality::from_name(&text).map(Self::Shipped).ok_or_else(|| {
            let rule = "must be by_modality, cta, mra, t1post, t2 or a file that ends in .npy or .npz";
            InvalidValue::new("standard", text, rule)
        })
    }
}

impl From<NyulStandard> for String {
    fn from(standard: NyulStandard) -> Self {
        match standard {
            NyulStandard::ByModality => "by_modality".into(),
            NyulStandard::Shipped(Modality::Cta) => "cta".into(),
            NyulStandard::Shipped(Modality::Mra) => "mra".into(),
            NyulStandard::Shipped(Modality::T1Post) => "t1post".into(),
            NyulStandard::Shipped(Modality::T2) => "t2".into(),
            NyulStandard::File(path) => path.display().to_string(),
        }
    }
}

impl NyulStandard {
    /// The scale for a series; `None` when its modality decides and is unknown.
    fn load(&self, modality: Option<Modality>) -> Result<Option<Standard>, HarmoniseError> {
        Ok(match self {
            Self::ByModality => modality.map(nyul::shipped),
            Self::Shipped(modality) => Some(nyul::shipped(*modality)),
            Self::File(path) => Some(Standard::load(path)?),
        })
    }
}

impl Normalise {
    /// Checks every value once, when the configuration is loaded.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        match self {
            Self::Window { low, .. } if !low.is_finite() => Err(InvalidValue::new("low", low, "must be finite")),
            Self::Window { low, high } if !(high > low && high.is_finite()) => {
                Err(InvalidValue::new("high", high, format!("must be finite and greater than low = {low}")))
            }
            Self::Percentile { middle } if !(1.0..=99.0).contains(middle) => {
                Err(InvalidValue::new("middle", middle, "must lie between 1 and 99"))
            }
            Self::ZScore { deviations } if !(0.1..=100.0).contains(deviations) => {
                Err(InvalidValue::new("deviations", deviations, "must lie between 0.1 and 100"))
            }
            Self::Auto | Self::Window { .. } | Self::Percentile { .. } | Self::ZScore { .. } | Self::Nyul { .. } => {
                Ok(())
            }
        }
    }
}

/// A series about to be normalised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Intensities {
    pub modality: Option<Modality>,
    pub units: IntensityUnits,
    /// Value between air and tissue.
    pub threshold: f32,
    /// Lowest value of the series.
    pub lowest: f32,
}

/// A map of intensities to the working scale.
#[derive(Debug, Clone, PartialEq)]
enum Scaling {
    /// `(v − zero) · slope`.
    Linear { zero: f32, slope: f32 },
    /// `(v − zero) / unit`.
    Ratio { zero: f32, unit: f32 },
    /// Onto a standard scale, whose `middle` becomes 0 and whose 0 becomes -1.
    Standard { line: PiecewiseLinear, middle: f64 },
}

impl Scaling {
    /// The map that a rule chooses for the voxels of a series.
    fn choose(
        rule: &Normalise,
        voxels: &[f32],
        series: Intensities,
        findings: &mut Vec<Finding>,
    ) -> Result<Self, HarmoniseError> {
        let window = |low: f64, high: f64| Self::Linear { zero: low as f32, slope: (1.0 / (high - low)) as f32 };
        match (rule, series.units) {
            (Normalise::Auto, IntensityUnits::Hounsfield) => Ok(window(CT_WINDOW.0, CT_WINDOW.1)),
            (Normalise::Auto, IntensityUnits::Arbitrary) => Self::percentile(fifty(), &series.tissue(voxels), series),
            (Normalise::Window { low, high }, _) => Ok(window(*low, *high)),
            (Normalise::Percentile { middle }, _) => Self::percentile(*middle, &series.tissue(voxels), series),
            (Normalise::ZScore { deviations }, _) => Self::z_score(*deviations, &series.tissue(voxels)),
            (Normalise::Nyul { standard }, _) => match standard.load(series.modality)? {
                Some(standard) => {
                    let line = standard.map(&series.tissue(voxels))?;
                    let middle = standard.at(50.0);
                    if middle <= 0.0 {
                        return Err(HarmoniseError::BadStandard { middle });
                    }
                    Ok(Self::Standard { line, middle })
                }
                None => {
                    let message = "the modality is unknown, so it has no standard scale; normalised as by kind = auto";
                    findings.push(Finding::warning("no-standard-scale", message));
                    Self::choose(&Normalise::Auto, voxels, series, findings)
                }
            },
        }
    }

    fn percentile(middle: f64, tissue: &[f32], series: Intensities) -> Result<Self, HarmoniseError> {
        let rank = (tissue.len() as f64 * middle / 100.0) as usize;
        let middle = *order_statistics(tissue, &[rank]).first().ok_or(HarmoniseError::Empty)?;
        // In magnitude images air is 0, even if a crop shows none.
        let unit = middle - series.lowest.min(0.0);
        if unit <= f32::EPSILON * middle.abs() {
            return Err(HarmoniseError::NoContrast);
        }
        Ok(Self::Ratio { zero: middle, unit })
    }

    fn z_score(deviations: f64, tissue: &[f32]) -> Result<Self, HarmoniseError> {
        // Sums in fixed parts, so that they do not depend on the number of threads.
        let sum = |f: &(dyn Fn(f64) -> f64 + Sync)| {
            let parts = tissue.par_chunks(1 << 16).map(|part| part.iter().map(|&v| f(v.into())).sum::<f64>());
            parts.collect::<Vec<f64>>().into_iter().sum::<f64>() / tissue.len() as f64
        };
        let mean = sum(&|v| v);
        let deviation = sum(&|v| (v - mean).powi(2)).sqrt();
        if tissue.is_empty() {
            return Err(HarmoniseError::Empty);
        }
        if deviation <= f64::from(f32::EPSILON) * mean.abs() {
            return Err(HarmoniseError::NoContrast);
        }
        Ok(Self::Ratio { zero: mean as f32, unit: (deviation * deviations) as f32 })
    }

    fn at(&self, v: f32) -> f32 {
        match self {
            Self::Linear { zero, slope } => (v - zero) * slope,
            Self::Ratio { zero, unit } => (v - zero) / unit,
            Self::Standard { line, middle } => ((line.apply(v.into()) - middle) / middle) as f32,
        }
    }
}

/// Normalises voxels in place; NaN becomes the lower end of the result's range.
///
/// # Errors
/// `Empty` without a finite voxel, `NoContrast` when all tissue has one value, `Nyul` or
/// `BadStandard` when the standard scale cannot be read or used.
pub(super) fn apply(
    voxels: &mut [f32],
    rule: &Normalise,
    series: Intensities,
    findings: &mut Vec<Finding>,
) -> Result<(), HarmoniseError> {
    let scaling = Scaling::choose(rule, voxels, series, findings)?;
    let (lowest, highest) = match (rule, series.units) {
        (Normalise::Window { .. }, _) => CT_CLIP,
        (Normalise::Percentile { .. }, _) | (_, IntensityUnits::Arbitrary) => MR_CLIP,
        (_, IntensityUnits::Hounsfield) => CT_CLIP,
    };
    voxels.par_chunks_mut(1 << 16).for_each(|part| {
        for v in part {
            let mapped = scaling.at(*v);
            *v = if mapped.is_nan() { lowest } else { mapped.clamp(lowest, highest) };
        }
    });
    Ok(())
}

/// The tissue of a series on the scale of the shipped standards: air at 0, its middle at
/// [`STANDARD_MIDDLE`].
pub(super) fn tissue_on_standard(voxels: &[f32], series: Intensities) -> Result<Vec<f32>, HarmoniseError> {
    let scaling = Scaling::choose(&Normalise::Auto, voxels, series, &mut Vec::new())?;
    let middle = STANDARD_MIDDLE as f32;
    Ok(series.tissue(voxels).into_iter().map(|v| middle * (scaling.at(v) + 1.0)).collect())
}

impl Intensities {
    /// Finite voxels above the threshold, or all finite voxels when none is above it.
    fn tissue(&self, voxels: &[f32]) -> Vec<f32> {
        let finite = voxels.iter().copied().filter(|v| v.is_finite());
        let tissue: Vec<f32> = finite.clone().filter(|&v| v > self.threshold).collect();
        if tissue.is_empty() { finite.collect() } else { tissue }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CT: Intensities =
        Intensities { modality: None, units: IntensityUnits::Hounsfield, threshold: -300.0, lowest: -3024.0 };
    const MR: Intensities =
        Intensities { modality: None, units: IntensityUnits::Arbitrary, threshold: 20.0, lowest: 0.0 };

    fn normalised<const N: usize>(mut voxels: [f32; N], rule: &Normalise, series: Intensities) -> [f32; N] {
        apply(&mut voxels, rule, series, &mut Vec::new()).unwrap();
        voxels
    }

    #[test]
    fn values_out_of_range_are_named() {
        let error = |rule: Normalise| rule.validate().unwrap_err().to_string();
        let window = |low, high| error(Normalise::Window { low, high });
        assert_eq!(window(5.0, 5.0), "high = 5 must be finite and greater than low = 5");
        assert_eq!(window(f64::NAN, 5.0), "low = NaN must be finite");
        assert_eq!(error(Normalise::Percentile { middle: 0.0 }), "middle = 0 must lie between 1 and 99");
        assert_eq!(error(Normalise::ZScore { deviations: 0.0 }), "deviations = 0 must lie between 0.1 and 100");
        assert_eq!(Normalise::Window { low: 0.0, high: 1.0 }.validate(), Ok(()));
    }

    #[test]
    fn hounsfield_units_and_mr_by_hand() {
        let ct = normalised([-3024.0, 40.0, 240.0, 3000.0, f32::NAN], &Normalise::Auto, CT);
        assert_eq!(ct, [-1.5, 0.0, 1.0, 4.0, -1.5]);
        let voxels = [0.0, 0.0, 0.0, 90.0, 100.0, 110.0, 300.0, 10_000.0, 80.0];
        let mr = normalised(voxels, &Normalise::Auto, MR);
        // The upper median of the tissue (80, 90, 100, 110, 300, 10000) is 110.
        assert_eq!(mr[..2], [-1.0, -1.0]);
        assert_eq!(mr[5..8], [0.0, 190.0 / 110.0, 5.0]);
        assert_eq!(normalised(voxels, &Normalise::Percentile { middle: 50.0 }, MR), mr);
        let flat = apply(
            &mut [0.0; 4],
            &Normalise::Percentile { middle: 50.0 },
            Intensities { threshold: 0.0, ..MR },
            &mut Vec::new(),
        );
        assert!(matches!(flat, Err(HarmoniseError::NoContrast)));
    }

    #[test]
    fn z_scores_by_hand() {
        // Mean 100 and variance 1000 of the tissue; air does not count.
        let mr = normalised([0.0, 80.0, 120.0, 140.0, f32::NAN, 60.0], &Normalise::ZScore { deviations: 2.0 }, MR);
        let unit = 2.0 * 1000f32.sqrt();
        for (got, value) in mr.iter().zip([0.0, 80.0, 120.0, 140.0]) {
            assert!((got - ((value - 100.0) / unit).max(-2.0)).abs() < 1e-6, "{mr:?}");
        }
        assert_eq!(mr[4], -2.0);
        let flat = apply(&mut [50.0; 4], &Normalise::ZScore { deviations: 1.0 }, MR, &mut Vec::new());
        assert!(matches!(flat, Err(HarmoniseError::NoContrast)));
    }

    #[test]
    fn standards_are_named_in_the_configuration() {
        let parse = |text: &str| serde_json::from_str::<Normalise>(text);
        let nyul = |standard| Normalise::Nyul { standard };
        for (text, standard) in [
            (r#"{"kind":"nyul"}"#, NyulStandard::ByModality),
            (r#"{"kind":"nyul","standard":"mra"}"#, NyulStandard::Shipped(Modality::Mra)),
            (r#"{"kind":"nyul","standard":"T1post"}"#, NyulStandard::Shipped(Modality::T1Post)),
            (r#"{"kind":"nyul","standard":"ours.npz"}"#, NyulStandard::File("ours.npz".into())),
        ] {
            assert_eq!(parse(text).unwrap(), nyul(standard.clone()));
            let again = serde_json::to_string(&nyul(standard.clone())).unwrap();
            assert_eq!(parse(&again).unwrap(), nyul(standard));
        }
        let error = parse(r#"{"kind":"nyul","standard":"pd"}"#).unwrap_err().to_string();
        assert!(error.contains("standard = pd must be by_modality, cta"), "{error}");
        assert_eq!(parse(r#"{"kind":"percentile"}"#).unwrap(), Normalise::Percentile { middle: 50.0 });
        assert!(parse(r#"{"kind":"z_score","sd":1}"#).is_err());
    }

    #[test]
    fn nyul_without_a_modality_is_declared() {
        let mut findings = Vec::new();
        let mut voxels = [0.0, 90.0, 100.0, 110.0];
        let rule = Normalise::Nyul { standard: NyulStandard::ByModality };
        apply(&mut voxels, &rule, MR, &mut findings).unwrap();
        assert_eq!(voxels, normalised([0.0, 90.0, 100.0, 110.0], &Normalise::Auto, MR));
        assert_eq!(findings[0].code, "no-standard-scale");
    }

    /// Scanner gain and a gamma change the values, not the result.
    #[test]
    fn nyul_undoes_gain_and_monotone_distortion() {
        let voxels: Vec<f32> = (0..4000).map(|i| 30.0 + (i % 200) as f32).collect();
        let series = Intensities { modality: Some(Modality::Mra), ..MR };
        let rule = Normalise::Nyul { standard: NyulStandard::ByModality };
        let run = |f: &dyn Fn(f32) -> f32| {
            let mut mapped: Vec<f32> = voxels.iter().map(|&v| f(v)).collect();
            apply(&mut mapped, &rule, series, &mut Vec::new()).unwrap();
            mapped
        };
        let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let plain = run(&|v| v);
        assert!(distance(&plain, &run(&|v| 3.0 * v)) < 1e-4);
        assert!(distance(&plain, &run(&|v| v.powf(1.1))) < 0.06);
    }
}
