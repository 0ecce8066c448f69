//! Writes VTK image data (`.vti`), which ParaView opens: arrays of numbers on a regular grid.
//!
//! # Source
//! VTK file formats, XML, serial ImageData with inline ASCII arrays.

use std::fmt::Write as _;
use std::path::Path;

use willis_core::files::FileError;
use willis_core::files::atomic::write_atomically;

/// A regular grid; x varies fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageGrid {
    /// Points along x, y and z.
    pub counts: [usize; 3],
    /// First point.
    pub origin: [f64; 3],
    /// Distance of neighbours.
    pub spacing: [f64; 3],
}

/// One array on a grid.
#[derive(Debug, Clone, PartialEq)]
pub struct PointArray {
    /// Name; letters, digits and underscores.
    pub name: String,
    /// Numbers per point.
    pub components: usize,
    /// Values, the components of a point together.
    pub values: Vec<f64>,
}

/// Writes arrays on a grid.
///
/// # Errors
/// [`FileError::Write`] when the file cannot be written
///
/// # Panics
/// if an array has another number of values than the grid (programmer error)
pub fn write(path: &Path, grid: &ImageGrid, arrays: &[PointArray]) -> Result<(), FileError> {
    let [nx, ny, nz] = grid.counts;
    let list = |values: [f64; 3]| values.map(|v| v.to_string()).join(" ");
    let extent = format!("0 {} 0 {} 0 {}", nx - 1, ny - 1, nz - 1);
    let mut text = format!(
        "<?xml version=\"1.0\"?>\n<VTKFile type=\"ImageData\" version=\"1.0\" byte_order=\"LittleEndian\">\n\
         <ImageData WholeExtent=\"{extent}\" Origin=\"{}\" Spacing=\"{}\">\n<Piece Extent=\"{extent}\">\n<PointData>\n",
        list(grid.origin),
        list(grid.spacing),
    );
    for array in arrays {
        assert_eq!(array.values.len(), nx * ny * nz * array.components, "values of {}", array.name);
        let _ = writeln!(
            text,
            "<DataArray type=\"Float32\" Name=\"{}\" NumberOfComponents=\"{}\" format=\"ascii\">",
            array.name, array.components
        );
        for row in array.values.chunks(nx * array.components) {
            let numbers: Vec<String> = row.iter().map(|&v| (v as f32).to_string()).collect();
            text.push_str(&numbers.join(" "));
            text.push('\n');
        }
        text.push_str("</DataArray>\n");
    }
    text.push_str("</PointData>\n</Piece>\n</ImageData>\n</VTKFile>\n");
    write_atomically(path, |file| file.write_all(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_written_in_the_order_of_the_grid() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.vti");
        let grid = ImageGrid { counts: [2, 3, 1], origin: [0.0, -1.0, 0.0], spacing: [0.5, 1.0, 1.0] };
        let values = (0..6).map(f64::from).collect();
        write(&path, &grid, &[PointArray { name: "u".into(), components: 1, values }]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("WholeExtent=\"0 1 0 2 0 0\" Origin=\"0 -1 0\" Spacing=\"0.5 1 1\""), "{text}");
        assert!(text.contains("Name=\"u\" NumberOfComponents=\"1\" format=\"ascii\">\n0 1\n2 3\n4 5\n</DataArray>"));
    }
}
