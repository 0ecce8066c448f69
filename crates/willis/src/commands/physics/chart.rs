//! A line chart with a logarithmic axis, as SVG.

use std::fmt::Write as _;

/// A named curve.
pub(super) struct ChartLine {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 50.0;
/// Colours that people with red-green blindness can tell apart (Okabe and Ito).
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c8c00"];

/// Draws curves over a linear x axis and a logarithmic y axis. Values that are not positive are left
/// out.
pub(super) fn svg(x_label: &str, curves: &[ChartLine]) -> String {
    let positive = |curve: &ChartLine| -> Vec<(f64, f64)> {
        curve.points.iter().copied().filter(|(_, y)| y.is_finite() && *y > 0.0).collect()
    };
    let all: Vec<(f64, f64)> = curves.iter().flat_map(positive).collect();
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold(None, |range: Option<(f64, f64)>, v| {
            Some(range.map_or((v, v), |(low, high)| (low.min(v), high.max(v))))
        })
    };
    let (first, last) = range(&mut all.iter().map(|point| point.0)).unwrap_or((0.0, 1.0));
    let (low, high) = range(&mut all.iter().map(|point| point.1.log10())).unwrap_or((-1.0, 0.0));
    let (low, high) = (low.floor(), high.ceil().max(low.floor() + 1.0));
    let x = |v: f64| LEFT + (v - first) / (last - first).max(1e-9) * (WIDTH - LEFT - RIGHT);
    let y = |v: f64| TOP + (high - v.log10()) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);

    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let step = ((high - low) / 10.0).ceil().max(1.0) as i32;
    for power in (low as i32..=high as i32).step_by(step as usize) {
        let at = y(10f64.powi(power));
        let _ = writeln!(
            text,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">1e{power}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    for i in 0..=4 {
        let value = first + (last - first) * f64::from(i) / 4.0;
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value:.0}</text>",
            x(value),
            bottom + 18.0
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x_label}</text>\n\
         <path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#333\"/>",
        (LEFT + right) / 2.0,
        bottom + 38.0
    );
    for (i, curve) in curves.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let points: Vec<String> = positive(curve).iter().map(|&(a, b)| format!("{:.1},{:.1}", x(a), y(b))).collect();
        let dash = if curve.name.starts_with("loss") { " stroke-dasharray=\"5 3\"" } else { "" };
        let at = TOP + 10.0 + 20.0 * i as f64;
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"{dash}/>\n\
             <line x1=\"{:.1}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            points.join(" "),
            right + 12.0,
            right + 36.0,
            right + 42.0,
            at + 4.0,
            curve.name
        );
    }
    text.push_str("</svg>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_fill_the_frame_and_zeros_are_left_out() {
        let curve = ChartLine { name: "loss".into(), points: vec![(0.0, 1.0), (5.0, 0.0), (10.0, 0.01)] };
        let text = svg("step", &[curve]);
        let bottom = HEIGHT - BOTTOM;
        assert!(text.contains(&format!("points=\"{LEFT:.1},{TOP:.1} {:.1},{bottom:.1}\"", WIDTH - RIGHT)), "{text}");
        assert!(text.contains("1e-2") && text.contains(">loss</text>"));
        assert!(svg("step", &[]).contains("</svg>"));
    }
}
