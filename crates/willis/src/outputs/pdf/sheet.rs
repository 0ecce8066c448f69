//! Pages of a PDF: text in Helvetica, which every reader has, lines, circles and pictures, from top
//! to bottom. Lengths are points; `y` runs down from the top of the page.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::RgbImage;
use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, Str, TextStr};

/// A4.
pub(super) const PAGE: (f32, f32) = (595.0, 842.0);
/// Distance of text from the edges.
pub(super) const MARGIN: f32 = 44.0;
/// Width of the text.
pub(super) const WIDTH: f32 = PAGE.0 - 2.0 * MARGIN;
/// Lowest line of text above the footer.
const BOTTOM: f32 = PAGE.1 - 56.0;
/// Length of a quarter circle's control lines over its radius.
const ROUND: f32 = 0.552_284_8;

/// Widths of the printable ASCII characters of Helvetica, thousandths of the size.
const WIDTHS: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556,
    556, 556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833,
    722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556,
    556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334,
    260, 334, 584,
];
/// Bold letters are wider by about this factor.
const BOLD: f32 = 1.08;

/// Weight of letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Regular,
    Bold,
}

/// Size, weight and colour of text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub size: f32,
    pub weight: Weight,
    pub colour: [u8; 3],
}

impl Style {
    pub const fn new(size: f32, weight: Weight, colour: [u8; 3]) -> Self {
        Self { size, weight, colour }
    }

    /// Width of text.
    pub fn width(&self, text: &str) -> f32 {
        let wide = |byte: u8| match byte {
            32..=126 => f32::from(WIDTHS[usize::from(byte) - 32]),
            _ => 556.0,
        };
        let factor = if self.weight == Weight::Bold { BOLD } else { 1.0 };
        encoded(text).into_iter().map(wide).sum::<f32>() * self.size * factor / 1000.0
    }

    /// Lines of at most a width. A word that is wider is broken.
    pub fn wrap(&self, text: &str, width: f32) -> Vec<String> {
        let mut lines = vec![String::new()];
        let fits = |line: &str, more: &str| self.width(&format!("{line}{more}")) <= width;
        for word in text.split_whitespace() {
            let last = lines.last_mut().expect("there is a line");
            if last.is_empty() || fits(last, &format!(" {word}")) {
                if !last.is_empty() {
                    last.push(' ');
                }
                last.push_str(word);
            } else {
                lines.push(word.to_string());
            }
            while let Some(last) = lines.last_mut().filter(|line| !fits(line, "")) {
                let mut rest = String::new();
                while !fits(last, "") && last.chars().count() > 1 {
                    rest.insert(0, last.pop().expect("it has a character"));
                }
                if rest.is_empty() {
                    break;
                }
                lines.push(rest);
            }
        }
        lines
    }
}

/// Text in the encoding of the fonts (Windows code page 1252).
fn encoded(text: &str) -> Vec<u8> {
    let byte = |c: char| match c {
        ' '..='~' => c as u8,
        '\u{a0}'..='\u{ff}' => c as u8,
        '–' => 0x96,
        '—' => 0x97,
        '’' => 0x92,
        '…' => 0x85,
        _ => b'?',
    };
    text.chars().map(byte).collect()
}

/// Pages that are being written.
pub(super) struct Sheet {
    pages: Vec<Content>,
    pictures: Vec<RgbImage>,
    /// Top of what is written next.
    pub y: f32,
}

impl Sheet {
    pub fn new() -> Self {
        Self { pages: vec![Content::new()], pictures: Vec::new(), y: MARGIN }
    }

    fn content(&mut self) -> &mut Content {
        self.pages.last_mut().expect("there is a page")
    }

    /// Starts a page if less than this height is left.
    pub fn reserve(&mut self, height: f32) {
        if self.y + height > BOTTOM {
            self.pages.push(Content::new());
            self.y = MARGIN;
        }
    }

    /// Text with its baseline at a place; does not move `y`.
    pub fn text_at(&mut self, x: f32, y: f32, text: &str, style: Style) {
        let [r, g, b] = style.colour.map(|c| f32::from(c) / 255.0);
        let font = if style.weight == Weight::Bold { Name(b"Bold") } else { Name(b"Regular") };
        let bytes = encoded(text);
        self.content()
            .begin_text()
            .set_font(font, style.size)
            .set_fill_rgb(r, g, b)
            .set_text_matrix([1.0, 0.0, 0.0, 1.0, x, PAGE.1 - y])
            .show(Str(&bytes))
            .end_text();
    }

    /// A paragraph of the given width.
    pub fn paragraph(&mut self, x: f32, width: f32, text: &str, style: Style) {
        for line in style.wrap(text, width) {
            self.reserve(style.size * 1.35);
            self.y += style.size * 1.35;
            self.text_at(x, self.y - style.size * 0.3, &line, style);
        }
    }

    /// One line of a table: texts with their left edges, relative to the margin.
    pub fn row(&mut self, cells: &[(f32, &str)], style: Style) {
        self.reserve(style.size * 1.5);
        self.y += style.size * 1.5;
        for (x, text) in cells {
            self.text_at(MARGIN + x, self.y - style.size * 0.4, text, style);
        }
    }

    /// A filled rectangle.
    pub fn fill(&mut self, [x, y, width, height]: [f32; 4], colour: [u8; 3]) {
        let [r, g, b] = colour.map(|c| f32::from(c) / 255.0);
        self.content().set_fill_rgb(r, g, b).rect(x, PAGE.1 - y - height, width, height).fill_nonzero();
    }

    /// A line through points, with round ends.
    pub fn stroke(&mut self, start: (f32, f32), segments: &[[(f32, f32); 3]], width: f32, colour: [u8; 3]) {
        use pdf_writer::types::{LineCapStyle, LineJoinStyle};
        let [r, g, b] = colour.map(|c| f32::from(c) / 255.0);
        let up = |y: f32| PAGE.1 - y;
        let content = self.content();
        content.set_line_cap(LineCapStyle::RoundCap).set_line_join(LineJoinStyle::RoundJoin);
        content.set_stroke_rgb(r, g, b).set_line_width(width).move_to(start.0, up(start.1));
        for [a, b, c] in segments {
            content.cubic_to(a.0, up(a.1), b.0, up(b.1), c.0, up(c.1));
        }
        content.stroke();
    }

    /// A straight line.
    pub fn line(&mut self, from: (f32, f32), to: (f32, f32), width: f32, colour: [u8; 3]) {
        self.stroke(from, &[[from, to, to]], width, colour);
    }

    /// A circle.
    pub fn circle(&mut self, (x, y): (f32, f32), radius: f32, width: f32, colour: [u8; 3]) {
        let k = radius * ROUND;
        let r = radius;
        let segments = [
            [(x + r, y + k), (x + k, y + r), (x, y + r)],
            [(x - k, y + r), (x - r, y + k), (x - r, y)],
            [(x - r, y - k), (x - k, y - r), (x, y - r)],
            [(x + k, y - r), (x + r, y - k), (x + r, y)],
        ];
        self.stroke((x + r, y), &segments, width, colour);
    }

    /// A picture in a rectangle.
    pub fn picture(&mut self, [x, y, width, height]: [f32; 4], picture: RgbImage) {
        let name = format!("P{}", self.pictures.len());
        self.pictures.push(picture);
        self.content()
            .save_state()
            .transform([width, 0.0, 0.0, height, x, PAGE.1 - y - height])
            .x_object(Name(name.as_bytes()))
            .restore_state();
    }

    /// The document; every page ends with the footer and its number.
    pub fn finish(mut self, title: &str, footer: &str) -> Vec<u8> {
        let count = self.pages.len();
        let soft = Style::new(8.0, Weight::Regular, [92, 102, 117]);
        let pages = std::mem::take(&mut self.pages);
        let pages: Vec<Content> = pages
            .into_iter()
            .enumerate()
            .map(|(i, content)| {
                self.pages = vec![content];
                self.text_at(MARGIN, PAGE.1 - 30.0, footer, soft);
                let number = format!("{} / {count}", i + 1);
                self.text_at(PAGE.0 - MARGIN - soft.width(&number), PAGE.1 - 30.0, &number, soft);
                self.pages.pop().expect("the page was put there")
            })
            .collect();
        document(title, pages, &self.pictures)
    }
}

/// Objects of the file: catalogue, page tree, two fonts, information, pictures, pages.
fn document(title: &str, pages: Vec<Content>, pictures: &[RgbImage]) -> Vec<u8> {
    let (catalogue, tree, regular, bold, information) =
        (Ref::new(1), Ref::new(2), Ref::new(3), Ref::new(4), Ref::new(5));
    let picture = |i: usize| Ref::new(6 + i as i32);
    let page = |i: usize| Ref::new(6 + (pictures.len() + 2 * i) as i32);
    let content = |i: usize| Ref::new(7 + (pictures.len() + 2 * i) as i32);
    let mut pdf = Pdf::new();
    pdf.catalog(catalogue).pages(tree);
    pdf.document_info(information).title(TextStr(title)).producer(TextStr("willis"));
    pdf.pages(tree).kids((0..pages.len()).map(page)).count(pages.len() as i32);
    for (id, name) in [(regular, Name(b"Helvetica")), (bold, Name(b"Helvetica-Bold"))] {
        pdf.type1_font(id).base_font(name).encoding_predefined(Name(b"WinAnsiEncoding"));
    }
    for (i, image) in pictures.iter().enumerate() {
        let samples = deflated(image.as_raw());
        let mut object = pdf.image_xobject(picture(i), &samples);
        object.filter(Filter::FlateDecode);
        object.width(image.width() as i32).height(image.height() as i32);
        object.color_space().device_rgb();
        object.bits_per_component(8);
    }
    for (i, drawn) in pages.into_iter().enumerate() {
        let mut object = pdf.page(page(i));
        object.media_box(Rect::new(0.0, 0.0, PAGE.0, PAGE.1)).parent(tree).contents(content(i));
        let mut resources = object.resources();
        resources.fonts().pair(Name(b"Regular"), regular).pair(Name(b"Bold"), bold);
        let mut objects = resources.x_objects();
        for k in 0..pictures.len() {
            objects.pair(Name(format!("P{k}").as_bytes()), picture(k));
        }
        objects.finish();
        resources.finish();
        object.finish();
        let bytes = deflated(drawn.finish().as_slice());
        pdf.stream(content(i), &bytes).filter(Filter::FlateDecode);
    }
    pdf.finish()
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("writing to memory cannot fail");
    encoder.finish().expect("writing to memory cannot fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style::new(10.0, Weight::Regular, [0; 3]);

    #[test]
    fn lines_are_no_wider_than_the_page() {
        assert!((PLAIN.width("Ab 1") - 20.57).abs() < 1e-4);
        let text = "one two three ".repeat(30) + &"0123456789".repeat(20);
        let lines = PLAIN.wrap(&text, 120.0);
        assert!(lines.iter().all(|line| PLAIN.width(line) <= 120.0), "{lines:?}");
        assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
    }

    #[test]
    fn a_full_page_is_followed_by_another() {
        let mut sheet = Sheet::new();
        for _ in 0..200 {
            sheet.paragraph(MARGIN, WIDTH, "one line, 3 × 2 mm² – 5 %", PLAIN);
            assert!(sheet.y <= BOTTOM);
        }
        let bytes = sheet.finish("title", "footer");
        assert!(bytes.starts_with(b"%PDF-") && bytes.ends_with(b"%%EOF"));
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("/Type /Page\n").count(), 4, "{text}");
    }
}
