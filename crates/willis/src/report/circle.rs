//! The circle of Willis as a drawing of the thirteen sites, for HTML and PDF.
//!
//! The view is that of axial slices: the patient's right is on the left, the front at the top. The
//! drawing is schematic; lengths and widths mean nothing.

use willis_core::Site;

/// Width and height of the drawing.
pub const SIZE: (f64, f64) = (640.0, 372.0);

/// Where a label's text is anchored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelAnchor {
    /// The label ends at its place.
    End,
    /// The label is centred on its place.
    Middle,
    /// The label starts at its place.
    Start,
}

/// One site of the drawing.
pub struct SiteShape {
    /// The site.
    pub site: Site,
    /// Points of smooth lines.
    pub lines: Vec<Vec<(f64, f64)>>,
    /// Width of the lines.
    pub width: f64,
    /// Baseline of the first of two lines of text.
    pub label: (f64, f64),
    /// Where the text is anchored.
    pub anchor: LabelAnchor,
    /// A line from the label to the vessel, if they are apart.
    pub leader: Option<[(f64, f64); 2]>,
    /// Name for a label.
    pub name: &'static str,
}

/// The shapes of all sites in the order in which they are drawn: the basilar tip lies on the other
/// posterior arteries.
pub fn shapes() -> Vec<SiteShape> {
    let mut shapes: Vec<SiteShape> = Site::ALL.into_iter().map(shape).collect();
    shapes.sort_by_key(|shape| shape.site == Site::BasilarTip);
    shapes
}

fn shape(site: Site) -> SiteShape {
    // Drawn for the patient's right; the left is its mirror image.
    let right = match site {
        Site::LeftInfraclinoidIca | Site::LeftSupraclinoidIca | Site::LeftMca | Site::LeftAca | Site::LeftPcom => {
            site.mirror()
        }
        other => other,
    };
    let (lines, width, label, anchor, leader): (Vec<Vec<(f64, f64)>>, _, _, _, _) = match right {
        Site::RightInfraclinoidIca => (
            vec![vec![(256.0, 196.0), (226.0, 212.0), (204.0, 240.0), (198.0, 286.0)]],
            15.0,
            (184.0, 250.0),
            LabelAnchor::End,
            None,
        ),
        Site::RightSupraclinoidIca => {
            (vec![vec![(262.0, 150.0), (266.0, 172.0), (256.0, 196.0)]], 15.0, (246.0, 174.0), LabelAnchor::End, None)
        }
        Site::RightMca => (
            vec![
                vec![(262.0, 150.0), (210.0, 148.0), (168.0, 132.0), (124.0, 134.0)],
                vec![(168.0, 132.0), (130.0, 104.0)],
            ],
            11.0,
            (118.0, 108.0),
            LabelAnchor::End,
            None,
        ),
        Site::RightAca => (
            vec![vec![(262.0, 150.0), (286.0, 124.0), (306.0, 104.0), (304.0, 74.0), (298.0, 50.0)]],
            9.0,
            (284.0, 70.0),
            LabelAnchor::End,
            None,
        ),
        Site::RightPcom => (
            vec![vec![(264.0, 180.0), (276.0, 198.0), (286.0, 218.0)]],
            6.0,
            (246.0, 334.0),
            LabelAnchor::End,
            Some([(236.0, 318.0), (274.0, 202.0)]),
        ),
        Site::Acom => (
            vec![vec![(306.0, 104.0), (334.0, 104.0)]],
            7.0,
            (320.0, 18.0),
            LabelAnchor::Middle,
            Some([(320.0, 40.0), (320.0, 96.0)]),
        ),
        Site::BasilarTip => {
            (vec![vec![(320.0, 206.0), (320.0, 232.0)]], 14.0, (320.0, 168.0), LabelAnchor::Middle, None)
        }
        _ => (
            vec![
                vec![(320.0, 236.0), (320.0, 284.0)],
                vec![(320.0, 284.0), (312.0, 304.0), (302.0, 326.0)],
                vec![(320.0, 284.0), (328.0, 304.0), (338.0, 326.0)],
                vec![(313.0, 208.0), (286.0, 218.0), (268.0, 242.0), (264.0, 280.0)],
                vec![(327.0, 208.0), (354.0, 218.0), (372.0, 242.0), (376.0, 280.0)],
            ],
            11.0,
            (320.0, 350.0),
            LabelAnchor::Middle,
            None,
        ),
    };
    let is_mirrored = right != site;
    let flip = |p: (f64, f64)| if is_mirrored { (SIZE.0 - p.0, p.1) } else { p };
    let anchor = match (anchor, is_mirrored) {
        (LabelAnchor::End, true) => LabelAnchor::Start,
        (anchor, _) => anchor,
    };
    let lines = lines.into_iter().map(|line| line.into_iter().map(flip).collect()).collect();
    SiteShape {
        site,
        lines,
        width,
        label: flip(label),
        anchor,
        leader: leader.map(|l| l.map(flip)),
        name: short_name(site),
    }
}

/// Name for labels: the side by its letter, arteries as radiologists abbreviate them.
pub const fn short_name(site: Site) -> &'static str {
    match site {
        Site::LeftInfraclinoidIca => "L infraclinoid ICA",
        Site::RightInfraclinoidIca => "R infraclinoid ICA",
        Site::LeftSupraclinoidIca => "L supraclinoid ICA",
        Site::RightSupraclinoidIca => "R supraclinoid ICA",
        Site::LeftMca => "L MCA",
        Site::RightMca => "R MCA",
        Site::Acom => "ACom",
        Site::LeftAca => "L ACA",
        Site::RightAca => "R ACA",
        Site::LeftPcom => "L PCom",
        Site::RightPcom => "R PCom",
        Site::BasilarTip => "Basilar tip",
        Site::OtherPosterior => "Other posterior",
    }
}

/// Smooth line through points: control points and end of each cubic segment after the first point.
pub fn segments(points: &[(f64, f64)]) -> Vec<[(f64, f64); 3]> {
    let at = |i: usize| points[i.min(points.len() - 1)];
    (0..points.len().saturating_sub(1))
        .map(|i| {
            let (before, from, to, after) = (at(i.saturating_sub(1)), at(i), at(i + 1), at(i + 2));
            let control = |p: (f64, f64), a: (f64, f64), b: (f64, f64), sign: f64| {
                (p.0 + sign * (b.0 - a.0) / 6.0, p.1 + sign * (b.1 - a.1) / 6.0)
            };
            [control(from, before, to, 1.0), control(to, from, after, -1.0), to]
        })
        .collect()
}

/// Colour of a probability: grey, yellow, orange, red.
pub fn colour(p: f64) -> [u8; 3] {
    const STOPS: [(f64, [f64; 3]); 4] = [
        (0.0, [205.0, 209.0, 216.0]),
        (0.2, [245.0, 205.0, 120.0]),
        (0.5, [232.0, 128.0, 52.0]),
        (1.0, [178.0, 24.0, 30.0]),
    ];
    let p = if p.is_finite() { p.clamp(0.0, 1.0) } else { 0.0 };
    let upper = STOPS.iter().position(|(at, _)| *at >= p).unwrap_or(STOPS.len() - 1).max(1);
    let ((low, a), (high, b)) = (STOPS[upper - 1], STOPS[upper]);
    let t = (p - low) / (high - low);
    std::array::from_fn(|i| (a[i] + (b[i] - a[i]) * t).round() as u8)
}

/// The drawing as SVG, each site with its probability.
pub fn svg(probability: impl Fn(Site) -> f64) -> String {
    use std::fmt::Write as _;
    let (width, height) = SIZE;
    let mut svg = format!(
        "<svg viewBox='0 0 {width} {height}' class='circle' role='img' aria-label='Probability by site, drawn on the circle of Willis'>"
    );
    let shapes = shapes();
    let path = |line: &Vec<(f64, f64)>| {
        let mut d = format!("M{:.1} {:.1}", line[0].0, line[0].1);
        for [a, b, c] in segments(line) {
            let _ = write!(d, "C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}", a.0, a.1, b.0, b.1, c.0, c.1);
        }
        d
    };
    // All outlines first, so that vessels join.
    for shape in &shapes {
        for line in &shape.lines {
            let _ = write!(svg, "<path class='wall' d='{}' stroke-width='{}'/>", path(line), shape.width + 2.0);
        }
    }
    for shape in &shapes {
        let [r, g, b] = colour(probability(shape.site));
        for line in &shape.lines {
            let _ = write!(svg, "<path d='{}' stroke='rgb({r},{g},{b})' stroke-width='{}'/>", path(line), shape.width);
        }
    }
    for shape in &shapes {
        if let Some([a, b]) = shape.leader {
            let _ = write!(svg, "<path class='leader' d='M{:.1} {:.1}L{:.1} {:.1}'/>", a.0, a.1, b.0, b.1);
        }
        let anchor = match shape.anchor {
            LabelAnchor::End => "end",
            LabelAnchor::Middle => "middle",
            LabelAnchor::Start => "start",
        };
        let (x, y) = shape.label;
        let _ = write!(
            svg,
            "<text x='{x}' y='{y}' text-anchor='{anchor}'>{}<tspan class='value' x='{x}' dy='16'>{}</tspan></text>",
            shape.name,
            super::percent(probability(shape.site))
        );
    }
    let _ = write!(
        svg,
        "<text class='sideletter' x='14' y='190'>R</text><text class='sideletter' x='{}' y='190' text-anchor='end'>L</text></svg>",
        width - 14.0
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Box of a label: letters are at most 7.2 wide at 13 points.
    fn label_box(shape: &SiteShape) -> [f64; 4] {
        let width = 7.2 * shape.name.len().max("100.0 %".len()) as f64;
        let (x, y) = shape.label;
        let left = match shape.anchor {
            LabelAnchor::End => x - width,
            LabelAnchor::Middle => x - width / 2.0,
            LabelAnchor::Start => x,
        };
        [left, y - 12.0, left + width, y + 20.0]
    }

    #[test]
    fn labels_are_inside_and_do_not_overlap() {
        let shapes = shapes();
        for (i, a) in shapes.iter().enumerate() {
            let [left, top, right, bottom] = label_box(a);
            assert!(left >= 0.0 && top >= 0.0 && right <= SIZE.0 && bottom <= SIZE.1, "{} is cut off", a.name);
            for b in &shapes[i + 1..] {
                let other = label_box(b);
                let apart = right < other[0] || other[2] < left || bottom < other[1] || other[3] < top;
                assert!(apart, "{} and {} overlap", a.name, b.name);
            }
            for b in &shapes {
                for p in b.lines.iter().flatten() {
                    let r = b.width / 2.0;
                    let apart = p.0 + r < left || p.0 - r > right || p.1 + r < top || p.1 - r > bottom;
                    assert!(apart, "{} lies on {}", a.name, b.name);
                }
            }
        }
    }

    #[test]
    fn sides_are_mirror_images() {
        for shape in shapes() {
            let other = super::shape(shape.site.mirror());
            if shape.site != shape.site.mirror() {
                for (a, b) in shape.lines.iter().flatten().zip(other.lines.iter().flatten()) {
                    assert_eq!((a.0, a.1), (SIZE.0 - b.0, b.1));
                }
                // The patient's right is on the left of the picture.
                assert_eq!(shape.site.name().starts_with("Right"), shape.lines[0][1].0 < SIZE.0 / 2.0);
            }
        }
    }

    #[test]
    fn colours_run_from_grey_to_red() {
        assert_eq!(colour(0.0), [205, 209, 216]);
        assert_eq!(colour(1.0), [178, 24, 30]);
        assert_eq!(colour(f64::NAN), colour(0.0));
        assert_eq!(colour(0.35), [239, 167, 86]);
    }
}
