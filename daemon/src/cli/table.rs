//! Columns of text, aligned the way kubectl aligns them, and the server's `Table` answers in them.

pub use crate::jsonpath::text;

use serde_json::Value;
use std::io::{self, Write};

/// Between two columns, as kubectl has it.
const PADDING: usize = 3;
/// No column is narrower than this, as kubectl has it.
const MIN_WIDTH: usize = 6;

/// Rows of cells. Widths only grow, so that rows that arrive later (`--watch`) stay in their columns.
#[derive(Debug, Default)]
pub struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    /// Prints the rows in columns wide enough for all of them.
    pub fn print(&mut self, out: &mut impl Write, rows: &[Vec<String>]) -> io::Result<()> {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
        for row in &rows {
            // The last cell of a row needs no column: nothing stands behind it.
            let aligned = row.len().saturating_sub(1);
            if self.widths.len() < aligned {
                self.widths.resize(aligned, MIN_WIDTH);
            }
            for (width, cell) in self.widths.iter_mut().zip(&row[..aligned]) {
                *width = (*width).max(cell.chars().count() + PADDING);
            }
        }
        for row in &rows {
            let Some((last, cells)) = row.split_last() else { continue };
            for (cell, width) in cells.iter().zip(&self.widths) {
                write!(out, "{cell:<width$}")?;
            }
            writeln!(out, "{last}")?;
        }
        Ok(())
    }
}

/// A cell stays in its line; a control character must not move the cursor of somebody's terminal.
fn one_line(cell: &str) -> String {
    let (first, more) = match cell.split_once(['\n', '\r', '\u{c}']) {
        Some((first, _)) => (first, "..."),
        None => (cell, ""),
    };
    first.chars().map(|c| if c.is_control() { ' ' } else { c }).chain(more.chars()).collect()
}

/// What to show of the server's tables.
#[derive(Clone, Copy, Debug, Default)]
pub struct TableStyle {
    pub detail: Detail,
    pub namespaces: Namespaces,
    pub labels: Labels,
    pub headers: Headers,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    #[default]
    Narrow,
    /// `-o wide`: the columns of lower priority too.
    Wide,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Namespaces {
    #[default]
    Hide,
    Show,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Labels {
    #[default]
    Hide,
    Show,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Headers {
    #[default]
    Show,
    Hide,
}

/// A table of one resource type that may go on for as long as a watch does.
#[derive(Debug, Default)]
pub struct TablePrinter {
    style: TableStyle,
    /// Put before each name where tables of several types stand together: `pod/`.
    prefix: String,
    columns: Columns,
    /// Which of the server's columns are shown; known from the first table, which alone must define them.
    shown: Option<Vec<Column>>,
}

#[derive(Debug)]
struct Column {
    index: usize,
    is_name: bool,
}

impl TablePrinter {
    pub fn new(style: TableStyle, prefix: String) -> Self {
        Self { style, prefix, ..Self::default() }
    }

    /// Prints a `meta.k8s.io/v1` `Table`; the headers before the first row only.
    pub fn print(&mut self, out: &mut impl Write, table: &Value) -> io::Result<()> {
        let none = Vec::new();
        let definitions = table["columnDefinitions"].as_array().unwrap_or(&none);
        let mut lines = Vec::new();
        if self.shown.is_none() {
            let shown = choose(definitions, self.style.detail);
            if self.style.headers == Headers::Show {
                lines.push(self.header(&shown, definitions));
            }
            self.shown = Some(shown);
        }
        let shown = self.shown.as_deref().unwrap_or_default();
        let rows = table["rows"].as_array().unwrap_or(&none);
        lines.extend(rows.iter().map(|row| self.row(shown, row)));
        self.columns.print(out, &lines)
    }

    fn header(&self, shown: &[Column], definitions: &[Value]) -> Vec<String> {
        let mut line = Vec::new();
        if self.style.namespaces == Namespaces::Show {
            line.push("NAMESPACE".to_owned());
        }
        line.extend(shown.iter().map(|column| text(&definitions[column.index]["name"]).to_uppercase()));
        if self.style.labels == Labels::Show {
            line.push("LABELS".to_owned());
        }
        line
    }

    fn row(&self, shown: &[Column], row: &Value) -> Vec<String> {
        let metadata = &row["object"]["metadata"];
        let mut line = Vec::new();
        if self.style.namespaces == Namespaces::Show {
            line.push(text(&metadata["namespace"]));
        }
        line.extend(shown.iter().map(|column| {
            let cell = text(&row["cells"][column.index]);
            if column.is_name { format!("{}{cell}", self.prefix) } else { cell }
        }));
        if self.style.labels == Labels::Show {
            line.push(labels_text(&metadata["labels"]));
        }
        line
    }
}

fn choose(definitions: &[Value], detail: Detail) -> Vec<Column> {
    definitions
        .iter()
        .enumerate()
        .filter(|(_, column)| detail == Detail::Wide || column["priority"].as_i64().unwrap_or(0) == 0)
        .map(|(index, column)| Column { index, is_name: column["format"] == "name" })
        .collect()
}

/// `a=b,c=d`, or `<none>`.
pub fn labels_text(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods() -> Value {
        json!({"columnDefinitions": [
                {"name": "Name", "format": "name"}, {"name": "Ready"}, {"name": "Restarts"},
                {"name": "Node", "priority": 1}],
            "rows": [
                {"cells": ["web-1", "1/1", 0, "pc1"],
                 "object": {"metadata": {"namespace": "lab", "labels": {"app": "web"}}}},
                {"cells": ["a-long-name", "0/1", 12, "pc2"], "object": {"metadata": {"namespace": "default"}}}]})
    }

    fn printed(printer: &mut TablePrinter, table: &Value) -> String {
        let mut out = Vec::new();
        printer.print(&mut out, table).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_stand_where_kubectl_puts_them() {
        let narrow = printed(&mut TablePrinter::default(), &pods());
        assert_eq!(
            narrow,
            "NAME          READY   RESTARTS\nweb-1         1/1     0\na-long-name   0/1     12\n"
        );
        let style =
            TableStyle { detail: Detail::Wide, namespaces: Namespaces::Show, ..TableStyle::default() };
        let wide = printed(&mut TablePrinter::new(style, "pod/".into()), &pods());
        assert!(wide.starts_with("NAMESPACE   NAME              READY   RESTARTS   NODE\n"), "{wide}");
        assert!(wide.contains("lab         pod/web-1         1/1     0          pc1\n"), "{wide}");
    }

    #[test]
    fn labels_and_headers_are_a_choice() {
        let style = TableStyle { labels: Labels::Show, headers: Headers::Hide, ..TableStyle::default() };
        let text = printed(&mut TablePrinter::new(style, String::new()), &pods());
        assert_eq!(text, "web-1         1/1   0     app=web\na-long-name   0/1   12    <none>\n");
    }

    #[test]
    fn later_rows_of_a_watch_keep_to_the_columns_without_a_second_header() {
        let mut printer = TablePrinter::default();
        printed(&mut printer, &pods());
        let later = json!({"columnDefinitions": null, "rows": [{"cells": ["x", "1/1", 3, "pc1"]}]});
        assert_eq!(printed(&mut printer, &later), "x             1/1     3\n");
    }

    #[test]
    fn a_cell_cannot_break_the_line_or_drive_the_terminal() {
        let mut out = Vec::new();
        Columns::default().print(&mut out, &[vec!["a\u{1b}[2Jb\nc".into(), "d".into()]]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a [2Jb...   d\n");
    }

    #[test]
    fn a_hostile_table_prints_nothing_and_does_not_panic() {
        for table in
            [json!(null), json!({"rows": 3}), json!({"columnDefinitions": [{"name": 1}], "rows": [{}]})]
        {
            printed(&mut TablePrinter::default(), &table);
        }
    }
}
