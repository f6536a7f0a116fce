//! Numbers as a table, written as JSON or as CSV.

use serde_json::{Value, json};

use crate::record::write_json;

/// Columns with their names, and rows in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table {
    pub(crate) columns: &'static [&'static str],
    pub(crate) rows: Vec<Vec<Value>>,
}

impl Table {
    /// Appends `[{column: value, …}, …]`.
    pub(crate) fn write_items(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (place, row) in self.rows.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.push(b'{');
            for (place, (column, value)) in self.columns.iter().zip(row).enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                write_json(out, column);
                out.push(b':');
                write_json(out, value);
            }
            out.push(b'}');
        }
        out.push(b']');
    }

    /// As RFC 4180 has it: a line of names, lines that end with CR LF, quotes where they are needed; UTF-8. A text that a spreadsheet would
    /// take for a formula gets an apostrophe in front, for texts come from whoever filled a form in and are opened by somebody else; numbers
    /// are left as they are, and JSON has every text as it is.
    pub(crate) fn csv(&self) -> Vec<u8> {
        let mut out = self.columns.join(",");
        out.push_str("\r\n");
        for row in &self.rows {
            for (place, value) in row.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                match value {
                    Value::Null => {}
                    Value::String(text) => write_cell(&mut out, text),
                    other => out.push_str(&other.to_string()),
                }
            }
            out.push_str("\r\n");
        }
        out.into_bytes()
    }
}

fn write_cell(out: &mut String, text: &str) {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let quoted = formula || text.contains(['"', ',', '\r', '\n']);
    if !quoted {
        return out.push_str(text);
    }
    out.push('"');
    if formula {
        out.push('\'');
    }
    out.push_str(&text.replace('"', "\"\""));
    out.push('"');
}

/// A share from 0 to 1 with four digits; null of nothing.
#[expect(clippy::cast_precision_loss, reason = "a share for people")]
pub(crate) fn share(part: i64, whole: i64) -> Value {
    if whole <= 0 {
        return Value::Null;
    }
    json!((part as f64 / whole as f64 * 10_000.0).round() / 10_000.0)
}

/// What a row with a value of a dimension stands for: a value; records without one; records with those values that are too many, or too rare,
/// to be told.
pub(crate) fn kind(value: Option<&str>) -> &'static str {
    match value {
        None => "others",
        Some("") => "none",
        Some(_) => "value",
    }
}

/// The value itself.
pub(crate) fn shown(value: Option<String>) -> Value {
    value.filter(|value| !value.is_empty()).map_or(Value::Null, Value::String)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_quotes_and_defuses() {
        let texts = ["plain", "a,b", "say \"hi\"", "=1+1", "-5", "@x", "two\nlines", "\"=x", ""];
        let rows = texts.iter().map(|text| vec![json!(text), json!(-1), Value::Null]).collect();
        let csv = String::from_utf8(Table { columns: &["text", "number", "nothing"], rows }.csv()).expect("UTF-8");
        let expected = "text,number,nothing\r\nplain,-1,\r\n\"a,b\",-1,\r\n\"say \"\"hi\"\"\",-1,\r\n\"'=1+1\",-1,\r\n\"'-5\",-1,\r\n\"'@x\",-1,\r\n\
            \"two\nlines\",-1,\r\n\"\"\"=x\",-1,\r\n,-1,\r\n";
        assert_eq!(csv, expected);
    }

    #[test]
    fn shares() {
        assert_eq!((share(1, 3), share(0, 5), share(0, 0)), (json!(0.3333), json!(0.0), Value::Null));
    }
}
