//! What a file that is no list seems to be, by its first bytes.

/// How many bytes [`what_it_is`] looks at: `tar` says its name after 257.
pub(super) const HEAD_BYTES: usize = 512;

const SAVE_AS_CSV: &str = "save it as CSV and send that";
const UNPACK: &str = "unpack it and send the list in it, plain or packed with gzip or zstd";
const EXPORT: &str = "export the list as CSV and send that";
const A_LIST: &str = "send a list as CSV or NDJSON";
const TWICE: &str = "it is packed twice; pack it once";

const MAGIC: &[(&[u8], &str, &str)] = &[
    (b"\x89PNG\r\n\x1a\n", "a PNG image", A_LIST),
    (b"\xff\xd8\xff", "a JPEG image", A_LIST),
    (b"GIF8", "a GIF image", A_LIST),
    (b"%PDF-", "a PDF document", EXPORT),
    (b"{\\rtf", "an RTF document", EXPORT),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document such as .xls", SAVE_AS_CSV),
    (b"PK\x05\x06", "an empty zip archive", A_LIST),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (b"BZh", "packed with bzip2", UNPACK),
    (b"\xfd7zXZ\0", "packed with xz", UNPACK),
    (b"\x1f\x8b\x08", "packed with gzip", TWICE),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", TWICE),
    (b"PAR1", "a Parquet file", EXPORT),
    (b"ARROW1", "an Arrow file", EXPORT),
    (b"Obj\x01", "an Avro file", EXPORT),
    (b"SQLite format 3\0", "a SQLite database", EXPORT),
    (b"PGDMP", "a dump of PostgreSQL", EXPORT),
    (b"\x7fELF", "a program", A_LIST),
    (b"MZ\x90\0", "a program", A_LIST),
];

/// What the bytes seem to be and what to send instead; none if they may be a list.
pub(super) fn what_it_is(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    if head.starts_with(b"PK\x03\x04") {
        let contains = |text: &[u8]| memchr::memmem::find(head, text).is_some();
        return Some(if contains(b"[Content_Types].xml") || contains(b"xl/") {
            ("an Office document such as .xlsx", SAVE_AS_CSV)
        } else if contains(b"mimetypeapplication/vnd.oasis") {
            ("an OpenDocument file such as .ods", SAVE_AS_CSV)
        } else {
            ("a zip archive", UNPACK)
        });
    }
    if head.get(257..262) == Some(b"ustar") {
        return Some(("a tar archive", UNPACK));
    }
    if let Some((_, what, instead)) = MAGIC.iter().find(|(magic, ..)| head.starts_with(magic)) {
        return Some((what, instead));
    }
    let text = head.trim_ascii_start();
    let starts = |with: &[u8]| text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    if starts(b"<!doctype html") || starts(b"<html") {
        return Some(("a web page", "perhaps the download wanted a login; send a list as CSV or NDJSON"));
    }
    if starts(b"<?xml") || starts(b"<!doctype") {
        return Some(("XML", EXPORT));
    }
    if starts(b"[{") || starts(b"[\n") || starts(b"[\r") || starts(b"[ ") {
        return Some(("one JSON list", "write an object a line (jq -c '.[]')"));
    }
    None
}
