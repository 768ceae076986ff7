//! Comma-separated values as RFC 4180 has them, safe to open in a spreadsheet.

use std::fmt::{Display, Write};

/// How a cell begins that a spreadsheet takes for a formula (OWASP, CSV injection), in its wide forms too.
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// Rows of cells; lines end in CR LF.
#[derive(Debug, Default)]
pub struct Csv {
    text: String,
    in_row: bool,
}

impl Csv {
    /// Begins with a row of these names.
    pub fn with_header(names: &[&str]) -> Self {
        let mut csv = Self::default();
        names.iter().for_each(|name| csv.text(name));
        csv.end_row();
        csv
    }

    /// A text of whatever origin. What would be a formula gets an apostrophe in front.
    pub fn text(&mut self, cell: &str) {
        self.separate();
        let guard = if cell.starts_with(FORMULA) { "'" } else { "" };
        if cell.contains([',', '"', '\r', '\n']) || cell.starts_with(' ') || cell.ends_with(' ') {
            let _ = write!(self.text, "\"{guard}{}\"", cell.replace('"', "\"\""));
        } else {
            let _ = write!(self.text, "{guard}{cell}");
        }
    }

    /// A number or a time of our own, as it is: below zero it begins with a minus.
    pub fn value(&mut self, cell: impl Display) {
        self.separate();
        let _ = write!(self.text, "{cell}");
    }

    /// As [`Self::text`]; empty when there is none.
    pub fn optional_text(&mut self, cell: Option<&str>) {
        self.text(cell.unwrap_or_default());
    }

    /// As [`Self::value`]; empty when there is none.
    pub fn optional_value(&mut self, cell: Option<impl Display>) {
        match cell {
            Some(cell) => self.value(cell),
            None => self.text(""),
        }
    }

    pub fn end_row(&mut self) {
        self.text.push_str("\r\n");
        self.in_row = false;
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.text.into_bytes()
    }

    fn separate(&mut self) {
        if self.in_row {
            self.text.push(',');
        }
        self.in_row = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(cell: &str) -> String {
        let mut csv = Csv::default();
        csv.text("a");
        csv.text(cell);
        csv.end_row();
        String::from_utf8(csv.into_bytes()).unwrap()
    }

    #[test]
    fn cells_are_quoted_where_they_have_to_be() {
        for (cell, written) in [
            ("", "a,\r\n"),
            ("plain", "a,plain\r\n"),
            ("a,b", "a,\"a,b\"\r\n"),
            ("say \"hi\"", "a,\"say \"\"hi\"\"\"\r\n"),
            ("two\r\nlines", "a,\"two\r\nlines\"\r\n"),
            (" blank", "a,\" blank\"\r\n"),
            ("olá", "a,olá\r\n"),
        ] {
            assert_eq!(line(cell), written, "{cell:?}");
        }
    }

    #[test]
    fn no_cell_is_a_formula() {
        for (cell, written) in [
            ("=1+1", "a,'=1+1\r\n"),
            ("=HYPERLINK(\"http://x\",\"y\")", "a,\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\"\r\n"),
            ("+1", "a,'+1\r\n"),
            ("-1", "a,'-1\r\n"),
            ("@SUM(1)", "a,'@SUM(1)\r\n"),
            ("\t=1", "a,'\t=1\r\n"),
            ("\r=1", "a,\"'\r=1\"\r\n"),
            ("＝1", "a,'＝1\r\n"),
            ("a=1", "a,a=1\r\n"),
        ] {
            assert_eq!(line(cell), written, "{cell:?}");
        }
    }

    #[test]
    fn a_number_of_ours_stays_a_number() {
        let mut csv = Csv::with_header(&["tokens", "cost"]);
        csv.value(-15);
        csv.optional_value(None::<&str>);
        csv.end_row();
        assert_eq!(csv.into_bytes(), b"tokens,cost\r\n-15,\r\n");
    }
}
