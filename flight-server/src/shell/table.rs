//! Results as tables that fit the terminal: wide cells are cut with `…`, columns beyond the edge are left out and named.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{Cell, CellAlignment, Table, presets};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns narrower than this cannot be read; rather fewer columns are shown.
const COLUMN_WIDTH_MIN: usize = 8;
/// Each column costs a border and a space on both sides, and the table one border more.
const COLUMN_FRAME: usize = 3;
const TABLE_FRAME: usize = 1;
/// Stands for what was cut off; one column wide.
const ELLIPSIS: char = '…';

/// How a table is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Columns of the terminal; no limit in a pipe or file.
    pub width: Option<usize>,
    /// Lines drawn as lines, not as ASCII.
    pub unicode: bool,
}

/// Draws the rows of a result. Lines end with a line feed.
///
/// # Errors
/// When a value cannot be shown as text.
pub fn render(schema: &Schema, batches: &[RecordBatch], style: Style) -> Result<String, ArrowError> {
    let mut columns = read_cells(schema, batches)?;
    let all = columns.len();
    let hidden_from = style.width.map_or(all, |width| fitting_columns(&columns, width));
    columns.truncate(hidden_from);
    if let Some(width) = style.width {
        let reserve = if hidden_from < all { COLUMN_FRAME + 1 } else { 0 };
        cut_cells(&mut columns, width.saturating_sub(reserve));
    }
    let mut text = draw(&columns, hidden_from < all, style.unicode);
    if hidden_from < all {
        text.push_str(&format!("{hidden_from} of {all} columns fit; --format csv shows all\n"));
    }
    Ok(text)
}

struct Column {
    /// The heading and under it the cells.
    cells: Vec<String>,
    numeric: bool,
}

impl Column {
    fn width(&self) -> usize {
        self.cells.iter().map(|cell| cell_width(cell)).max().unwrap_or(0)
    }
}

fn cell_width(cell: &str) -> usize {
    cell.lines().map(UnicodeWidthStr::width).max().unwrap_or(0)
}

fn read_cells(schema: &Schema, batches: &[RecordBatch]) -> Result<Vec<Column>, ArrowError> {
    let options = FormatOptions::default().with_null("NULL");
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (position, field) in schema.fields().iter().enumerate() {
        let mut cells = vec![printable(field.name())];
        for batch in batches {
            let formatter = ArrayFormatter::try_new(batch.column(position), &options)?;
            for row in 0..batch.num_rows() {
                cells.push(printable(&formatter.value(row).try_to_string()?));
            }
        }
        columns.push(Column { cells, numeric: is_numeric(field.data_type()) });
    }
    Ok(columns)
}

/// Control characters could move the cursor or worse; line feeds stay and make a cell of several lines.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '\n' => '\n',
            '\t' => ' ',
            control if control.is_control() => '\u{FFFD}',
            other => other,
        })
        .collect()
}

fn is_numeric(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

/// How many columns from the left fit with a readable width.
fn fitting_columns(columns: &[Column], width: usize) -> usize {
    let least = |column: &Column| column.width().min(COLUMN_WIDTH_MIN) + COLUMN_FRAME;
    let all: usize = columns.iter().map(least).sum::<usize>() + TABLE_FRAME;
    if all <= width {
        return columns.len();
    }
    let mut used = TABLE_FRAME + COLUMN_FRAME + 1;
    let mut fitting = 0;
    for column in columns {
        used += least(column);
        if used > width {
            break;
        }
        fitting += 1;
    }
    fitting.max(1)
}

/// Cuts the widest columns to one common width, the largest with which the table fits.
fn cut_cells(columns: &mut [Column], width: usize) {
    let room = width.saturating_sub(TABLE_FRAME + COLUMN_FRAME * columns.len());
    let natural: Vec<usize> = columns.iter().map(Column::width).collect();
    let total_at = |limit: usize| natural.iter().map(|width| (*width).min(limit)).sum::<usize>();
    let widest = natural.iter().copied().max().unwrap_or(0);
    if total_at(widest) <= room {
        return;
    }
    let limit = (1..widest).rev().find(|limit| total_at(*limit) <= room).unwrap_or(1);
    for column in columns {
        for cell in &mut column.cells {
            if cell_width(cell) > limit {
                let lines: Vec<String> = cell.lines().map(|line| cut(line, limit)).collect();
                *cell = lines.join("\n");
            }
        }
    }
}

fn cut(line: &str, limit: usize) -> String {
    if line.width() <= limit {
        return line.to_string();
    }
    let mut kept = String::new();
    let mut used = 1;
    for letter in line.chars() {
        used += letter.width().unwrap_or(0);
        if used > limit {
            break;
        }
        kept.push(letter);
    }
    kept.push(ELLIPSIS);
    kept
}

fn draw(columns: &[Column], more: bool, unicode: bool) -> String {
    let mut table = Table::new();
    table.load_preset(if unicode { presets::UTF8_FULL_CONDENSED } else { presets::ASCII_FULL_CONDENSED });
    // Without this the table would measure the terminal itself and colour cells.
    table.force_no_tty();
    let row = |position: usize| {
        let mut cells: Vec<Cell> = columns
            .iter()
            .map(|column| {
                let cell = Cell::new(&column.cells[position]);
                match column.numeric {
                    true => cell.set_alignment(CellAlignment::Right),
                    false => cell,
                }
            })
            .collect();
        if more {
            cells.push(Cell::new(ELLIPSIS));
        }
        cells
    };
    table.set_header(row(0));
    let rows = columns.first().map_or(0, |column| column.cells.len());
    for position in 1..rows {
        table.add_row(row(position));
    }
    let mut text = table.to_string();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use std::sync::Arc;

    fn wide(columns: usize) -> RecordBatch {
        let long = "Über die Maßen lang: 日本語 und noch viel mehr Text, der nicht in eine Zeile passt";
        let mut named: Vec<(String, ArrayRef)> = vec![("id".to_string(), Arc::new(Int64Array::from(vec![Some(1), None])))];
        for column in 1..columns {
            named.push((format!("text_{column}"), Arc::new(StringArray::from(vec![Some(long), Some("kurz")]))));
        }
        RecordBatch::try_from_iter(named).unwrap()
    }

    fn lines(batch: &RecordBatch, width: Option<usize>) -> Vec<String> {
        let style = Style { width, unicode: true };
        let text = render(&batch.schema(), std::slice::from_ref(batch), style).unwrap();
        text.lines().map(str::to_string).collect()
    }

    #[test]
    fn tables_fit_narrow_and_wide_terminals() {
        for columns in [1, 2, 3, 5, 16] {
            for width in [60, 80, 200] {
                let lines = lines(&wide(columns), Some(width));
                for line in &lines {
                    assert!(line.width() <= width, "{columns} columns at {width}: {line}");
                }
            }
        }
    }

    #[test]
    fn room_is_used_and_cut_cells_are_marked() {
        let lines = lines(&wide(3), Some(60));
        assert!(lines[0].width() >= 56, "{}", lines[0]);
        assert!(lines.iter().any(|line| line.contains('…')));
        assert!(lines.iter().any(|line| line.contains("NULL")));
    }

    #[test]
    fn columns_that_do_not_fit_are_counted() {
        let lines = lines(&wide(16), Some(60));
        assert!(lines.last().unwrap().contains("of 16 columns fit"), "{lines:?}");
    }

    #[test]
    fn nothing_is_cut_in_a_pipe() {
        let lines = lines(&wide(16), None);
        assert!(!lines.iter().any(|line| line.contains('…')));
        assert!(lines[0].width() > 1_000);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let column: ArrayRef = Arc::new(StringArray::from(vec!["a\u{1b}[2Jb\tc"]));
        let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
        let text = lines(&batch, Some(60)).join("\n");
        assert!(!text.contains('\u{1b}') && !text.contains('\t'));
    }
}
