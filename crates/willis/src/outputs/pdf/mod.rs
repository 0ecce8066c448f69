//! `report.pdf`: what the HTML report says, for printing and mailing. No time is part of it, so equal
//! input gives equal bytes.

mod sheet;

use willis_core::anatomy::ANEURYSM_PRESENT;
use willis_core::{Candidate, Severity, Site};

use self::sheet::{MARGIN, PAGE, Sheet, Style, WIDTH, Weight};
use crate::line::SeriesResult;
use crate::report::circle::{self, LabelAnchor};
use crate::report::figures::{self, View};
use crate::report::tree::{self, TreeView};
use crate::report::{RESEARCH_ONLY, SHOWN, cards, first_warnings, percent};
use crate::run::RunRecord;

const INK: [u8; 3] = [29, 36, 48];
const SOFT: [u8; 3] = [92, 102, 117];
const LINE: [u8; 3] = [227, 224, 216];
const WALL: [u8; 3] = [109, 118, 131];
const RED: [u8; 3] = [194, 53, 43];
const BLUE: [u8; 3] = [89, 208, 255];
const BLACK: [u8; 3] = [5, 7, 10];

const TITLE: Style = Style::new(20.0, Weight::Bold, INK);
const HEADING: Style = Style::new(13.0, Weight::Bold, INK);
const BODY: Style = Style::new(10.0, Weight::Regular, INK);
const STRONG: Style = Style::new(10.0, Weight::Bold, INK);
const NOTE: Style = Style::new(9.0, Weight::Regular, SOFT);
const SMALL: Style = Style::new(8.0, Weight::Regular, INK);

/// Space between the pictures of a row.
const GAP: f32 = 8.0;
/// Pixels of a plane through a candidate.
const PLANE_PIXELS: u32 = 200;

/// The report. If willis abstains, it has the reason, no probability and no candidate.
pub(super) fn report(result: &SeriesResult, run: &RunRecord) -> Vec<u8> {
    let mut sheet = Sheet::new();
    let abstains = result.prediction.abstain.is_some();
    let shown = if abstains { &[][..] } else { &result.candidates[..result.candidates.len().min(SHOWN)] };
    sheet.paragraph(MARGIN, WIDTH, "willis: intracranial aneurysm report", TITLE);
    sheet.paragraph(MARGIN, WIDTH, RESEARCH_ONLY, Style::new(9.0, Weight::Regular, RED));
    guesses(&mut sheet, result);
    verdict(&mut sheet, result);
    if !abstains {
        sites(&mut sheet, result, run);
        candidates(&mut sheet, result, shown);
    }
    projections(&mut sheet, result, shown);
    trees(&mut sheet, result, shown);
    if !abstains {
        all_candidates(&mut sheet, &result.candidates);
    }
    findings(&mut sheet, result);
    provenance(&mut sheet, result, run);
    sheet.finish("willis report", RESEARCH_ONLY)
}

fn heading(sheet: &mut Sheet, text: &str, with: f32) {
    sheet.reserve(34.0 + with);
    sheet.y += 12.0;
    sheet.paragraph(MARGIN, WIDTH, text, HEADING);
    sheet.y += 3.0;
}

fn guesses(sheet: &mut Sheet, result: &SeriesResult) {
    let warnings = first_warnings(&result.prediction.findings);
    if warnings.is_empty() {
        return;
    }
    heading(sheet, "Guessed or repaired: check before reading on", 20.0);
    for finding in warnings {
        sheet.paragraph(MARGIN, WIDTH, &format!("– {}", finding.message), BODY);
    }
}

fn verdict(sheet: &mut Sheet, result: &SeriesResult) {
    let prediction = &result.prediction;
    sheet.y += 10.0;
    match &prediction.abstain {
        Some(reason) => {
            sheet.paragraph(MARGIN, WIDTH, "No verdict. willis abstains:", Style::new(11.0, Weight::Regular, RED));
            sheet.paragraph(MARGIN, WIDTH, reason, Style::new(20.0, Weight::Bold, INK));
        }
        None => {
            let value = prediction.present().map_or("n/a".into(), percent);
            sheet.paragraph(MARGIN, WIDTH, &value, Style::new(30.0, Weight::Bold, INK));
            sheet.paragraph(MARGIN, WIDTH, "probability that an aneurysm is present", NOTE);
        }
    }
    sheet.y += 4.0;
    let series = &prediction.series;
    let [nz, ny, nx] = series.shape_zyx;
    let [dz, dy, dx] = series.spacing_zyx_mm;
    let size = format!("{nx} × {ny} × {nz} voxels of {dx:.2} × {dy:.2} × {dz:.2} mm");
    let arteries = format!("{:.0} mm in {} branches", result.graph.length_mm(), result.graph.edges.len());
    let mut rows = vec![
        ("modality", series.modality.map_or("unknown", |m| m.name()).to_string()),
        ("series as read", size),
        ("arteries traced", arteries),
    ];
    if prediction.abstain.is_none() {
        rows.push(("candidates", result.candidates.len().to_string()));
    }
    for (name, value) in rows {
        sheet.row(&[(0.0, name), (100.0, &value)], BODY);
    }
}

fn sites(sheet: &mut Sheet, result: &SeriesResult, run: &RunRecord) {
    let of = |name: &str| result.prediction.probabilities.get(name).copied().unwrap_or(f64::NAN);
    heading(sheet, "Probability by site", 300.0);
    let scale = 0.78f32;
    let left = MARGIN + (WIDTH - circle::SIZE.0 as f32 * scale) / 2.0;
    let top = sheet.y;
    let place = |p: (f64, f64)| (left + p.0 as f32 * scale, top + p.1 as f32 * scale);
    let shapes = circle::shapes();
    for is_wall in [true, false] {
        for shape in &shapes {
            let colour = if is_wall { WALL } else { circle::colour(of(shape.site.name())) };
            let width = (shape.width as f32 + if is_wall { 2.0 } else { 0.0 }) * scale;
            for line in &shape.lines {
                let segments: Vec<_> = circle::segments(line).into_iter().map(|s| s.map(place)).collect();
                sheet.stroke(place(line[0]), &segments, width, colour);
            }
        }
    }
    for shape in &shapes {
        if let Some([a, b]) = shape.leader {
            sheet.line(place(a), place(b), 0.4, SOFT);
        }
        let (x, y) = place(shape.label);
        let value = percent(of(shape.site.name()));
        for (text, style, dy) in [(shape.name, BODY, 0.0), (value.as_str(), STRONG, 12.5)] {
            let shift = match shape.anchor {
                LabelAnchor::End => style.width(text),
                LabelAnchor::Middle => style.width(text) / 2.0,
                LabelAnchor::Start => 0.0,
            };
            sheet.text_at(x - shift, y + dy, text, style);
        }
    }
    let (width, height) = (circle::SIZE.0 as f32 * scale, circle::SIZE.1 as f32 * scale);
    sheet.text_at(left, top + height / 2.0, "R", STRONG);
    sheet.text_at(left + width - 8.0, top + height / 2.0, "L", STRONG);
    sheet.y = top + height + 4.0;
    sheet.paragraph(MARGIN, WIDTH, "Schematic, seen as axial slices are: the patient's right is on the left.", NOTE);
    sheet.y += 4.0;
    let rows = std::iter::once(ANEURYSM_PRESENT).chain(Site::ALL.into_iter().map(Site::name));
    for name in rows {
        let p = of(name);
        let value = percent(p);
        let style = if name == ANEURYSM_PRESENT { STRONG } else { BODY };
        sheet.row(&[(0.0, name), (WIDTH - style.width(&value), &value)], style);
        let full = WIDTH - 290.0;
        let bar = full * p.clamp(0.0, 1.0) as f32;
        if bar.is_finite() {
            sheet.fill([MARGIN + 230.0, sheet.y - 11.0, full, 7.0], LINE);
            sheet.fill([MARGIN + 230.0, sheet.y - 11.0, bar.max(1.0), 7.0], circle::colour(p));
        }
    }
    let note = format!(
        "Calibrated on phantom series made by willis itself, for a population in which {} carry an aneurysm. In routine \
         imaging aneurysms are far rarer (3 to 5 %): these numbers rank series and sites, and are not the chance that \
         this patient has an aneurysm.",
        percent(run.prevalence)
    );
    sheet.y += 4.0;
    sheet.paragraph(MARGIN, WIDTH, &note, NOTE);
}

fn candidates(sheet: &mut Sheet, result: &SeriesResult, shown: &[Candidate]) {
    heading(sheet, "Candidates", 200.0);
    if shown.is_empty() {
        sheet.paragraph(MARGIN, WIDTH, "No place was proposed as a candidate.", BODY);
        return;
    }
    let note = format!(
        "The first {} of {} by probability. Each plane is {:.0} mm wide; the orange line is the border of the vessel \
         map, the blue cross the centre.",
        shown.len(),
        result.candidates.len(),
        figures::SLICE_MM
    );
    sheet.paragraph(MARGIN, WIDTH, &note, NOTE);
    let side = 104.0;
    for c in shown {
        sheet.reserve(side + 40.0);
        sheet.y += 8.0;
        let site = c.site.map_or("site not recognised", Site::name);
        sheet.paragraph(MARGIN, WIDTH, &format!("{}. {site}: {}", c.rank, percent(c.probability)), STRONG);
        let top = sheet.y + 4.0;
        for (k, view) in View::ALL.into_iter().enumerate() {
            let x = MARGIN + k as f32 * (side + GAP);
            sheet.picture([x, top, side, side], figures::slice_image(&result.map, view, c.centre, PLANE_PIXELS));
            let middle = (x + side / 2.0, top + side / 2.0);
            for (dx, dy) in [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)] {
                let at = |r: f32| (middle.0 + dx * r, middle.1 + dy * r);
                sheet.line(at(5.0), at(11.0), 0.8, BLUE);
            }
            let (first, second) = view.sides();
            let letter = Style::new(8.0, Weight::Bold, [150, 160, 172]);
            sheet.text_at(x + 3.0, middle.1 + 3.0, first, letter);
            sheet.text_at(x + side - 9.0, middle.1 + 3.0, second, letter);
        }
        sheet.y = top;
        let x = MARGIN + 3.0 * (side + GAP) + 4.0;
        for (name, value) in cards::facts(c) {
            sheet.paragraph(x, MARGIN + WIDTH - x, &format!("{name}: {value}"), SMALL);
        }
        sheet.y = sheet.y.max(top + side + 4.0);
    }
}

fn projections(sheet: &mut Sheet, result: &SeriesResult, shown: &[Candidate]) {
    let side = (WIDTH - 2.0 * GAP) / 3.0;
    heading(sheet, "Projections of the arteries", side + 40.0);
    sheet.paragraph(MARGIN, WIDTH, "Maximum of the vessel probability along each ray, over the mean intensity.", NOTE);
    let top = sheet.y + 4.0;
    for (k, view) in View::ALL.into_iter().enumerate() {
        let x = MARGIN + k as f32 * (side + GAP);
        let (image, [width_mm, height_mm]) = figures::projection_image(&result.map, view);
        let scale = side / width_mm.max(height_mm) as f32;
        let (width, height) = (width_mm as f32 * scale, height_mm as f32 * scale);
        let (left, upper) = (x + (side - width) / 2.0, top + (side - height) / 2.0);
        sheet.fill([x, top, side, side], BLACK);
        sheet.picture([left, upper, width, height], image);
        for c in shown {
            let (cx, cy) = figures::project(&result.map, view, c.centre);
            let at = (left + cx as f32 * scale, upper + cy as f32 * scale);
            mark(sheet, at, (c.diameter_mm as f32 / 2.0 + 1.5) * scale, c.rank);
        }
        caption(sheet, x, top, side, view.name(), view.sides());
    }
    sheet.y = top + side + 14.0;
}

fn trees(sheet: &mut Sheet, result: &SeriesResult, shown: &[Candidate]) {
    let side = (WIDTH - 2.0 * GAP) / 3.0;
    heading(sheet, "Vessel tree", side + 40.0);
    sheet.paragraph(MARGIN, WIDTH, "Lines are as wide as the lumen, coloured by site.", NOTE);
    let top = sheet.y + 4.0;
    for (k, view) in TreeView::ALL.into_iter().enumerate() {
        let x = MARGIN + k as f32 * (side + GAP);
        let [left, upper, width, height] = tree::frame(view, &result.graph, shown);
        let scale = side / width.max(height) as f32;
        let (dx, dy) = ((width.max(height) - width) / 2.0, (width.max(height) - height) / 2.0);
        let place = |p| {
            let (px, py) = view.project(p);
            (x + (px - left + dx) as f32 * scale, top + (py - upper + dy) as f32 * scale)
        };
        sheet.fill([x, top, side, side], BLACK);
        for edge in &result.graph.edges {
            let site = result.graph.nodes[edge.from].site.or(result.graph.nodes[edge.to].site);
            for pair in edge.points.windows(2) {
                let stroke = (pair[0].radius_mm + pair[1].radius_mm).clamp(0.5, 8.0) as f32 * scale;
                sheet.line(place(pair[0].point), place(pair[1].point), stroke, figures::site_rgb(site));
            }
        }
        for c in shown {
            mark(sheet, place(c.centre), (c.diameter_mm as f32 / 2.0 + 1.0) * scale, c.rank);
        }
        caption(sheet, x, top, side, view.name(), view.sides());
    }
    sheet.y = top + side + 14.0;
}

/// A circle with a rank.
fn mark(sheet: &mut Sheet, (x, y): (f32, f32), radius: f32, rank: usize) {
    let radius = radius.clamp(3.0, 18.0);
    sheet.circle((x, y), radius, 0.8, BLUE);
    sheet.text_at(x + radius + 1.0, y - radius * 0.5, &rank.to_string(), Style::new(7.0, Weight::Bold, BLUE));
}

fn caption(sheet: &mut Sheet, x: f32, top: f32, side: f32, name: &str, (first, second): (&str, &str)) {
    let letter = Style::new(9.0, Weight::Bold, [150, 160, 172]);
    sheet.text_at(x + 3.0, top + side / 2.0, first, letter);
    sheet.text_at(x + side - 10.0, top + side / 2.0, second, letter);
    sheet.text_at(x + (side - NOTE.width(name)) / 2.0, top + side + 11.0, name, NOTE);
}

fn all_candidates(sheet: &mut Sheet, candidates: &[Candidate]) {
    if candidates.is_empty() {
        return;
    }
    heading(sheet, "All candidates", 40.0);
    let columns = [0.0, 30.0, 90.0, 270.0, 340.0, 440.0];
    let head = ["rank", "probability", "site", "diameter, mm", "centre L, P, S, mm", "to vessel, mm"];
    let cells: Vec<(f32, &str)> = columns.into_iter().zip(head).collect();
    sheet.row(&cells, Style::new(8.0, Weight::Bold, SOFT));
    for c in candidates {
        let own = [
            c.rank.to_string(),
            percent(c.probability),
            c.site.map_or("n/a", Site::name).to_string(),
            format!("{:.1}", c.diameter_mm),
            format!("{:.1}, {:.1}, {:.1}", c.centre.x, c.centre.y, c.centre.z),
            c.distance_to_vessel_mm.map_or("n/a".into(), |mm| format!("{mm:.1}")),
        ];
        let cells: Vec<(f32, &str)> = columns.into_iter().zip(own.iter().map(String::as_str)).collect();
        sheet.row(&cells, SMALL);
    }
}

fn findings(sheet: &mut Sheet, result: &SeriesResult) {
    heading(sheet, "Findings, guesses and repairs", 20.0);
    if result.prediction.findings.is_empty() {
        sheet.paragraph(MARGIN, WIDTH, "None.", BODY);
    }
    for finding in &result.prediction.findings {
        let mark = if finding.severity == Severity::Warning { "Warning: " } else { "" };
        sheet.paragraph(MARGIN, WIDTH, &format!("– {mark}{} ({})", finding.message, finding.code), BODY);
    }
}

fn provenance(sheet: &mut Sheet, result: &SeriesResult, run: &RunRecord) {
    heading(sheet, "How this was made", 40.0);
    let mut rows = vec![("willis".to_string(), run.code_version.clone())];
    rows.push(("configuration".into(), run.config_sha256.clone()));
    rows.extend(result.prediction.models.iter().map(|model| (model.name.clone(), model.sha256.clone())));
    for (name, value) in &rows {
        sheet.row(&[(0.0, name), (110.0, value)], SMALL);
    }
    debug_assert!(sheet.y < PAGE.1, "rows stay on the page");
}
