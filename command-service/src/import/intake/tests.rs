//! What comes in, comes out, however it is cut and packed; and what is no list is refused.

use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::import::form::{Charset, Format};
use crate::import::rows::rows;

fn declared() -> Declared {
    Declared::default()
}

fn taken(
    declared: Declared,
    pieces: impl IntoIterator<Item = impl AsRef<[u8]>>,
) -> Result<(Vec<Chunk>, Taken), Refusal> {
    let mut intake = Intake::new(declared);
    let mut chunks = Vec::new();
    for piece in pieces {
        intake.push(piece.as_ref(), &mut chunks)?;
        assert!(intake.held_bytes() < 16 << 20, "{}", intake.held_bytes());
    }
    let taken = intake.finish(&mut chunks)?;
    assert_eq!(chunks.iter().map(|chunk| u64::from(chunk.rows)).sum::<u64>(), taken.rows);
    Ok((chunks, taken))
}

fn refusal(declared: Declared, bytes: &[u8]) -> &'static str {
    taken(declared, [bytes]).expect_err("refused").code()
}

/// The cells of every row, each with its number and line.
fn table(chunks: &[Chunk], form: &Form) -> Vec<(u64, u64, Vec<String>)> {
    let rows = chunks.iter().flat_map(|chunk| rows(form, chunk));
    rows.map(|row| {
        let cells = row
            .cells
            .map(|cells| form.columns.iter().map(|name| cells.get(name).unwrap_or_default().into_owned()).collect());
        (row.number, row.line, cells.unwrap_or_else(|bad| vec![bad.code.to_owned()]))
    })
    .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("into memory")
}

fn encoded(text: &str, charset: Charset, mark: bool) -> Vec<u8> {
    let with_mark = if mark { format!("\u{feff}{text}") } else { text.to_owned() };
    match charset {
        Charset::Utf8 => with_mark.into_bytes(),
        Charset::Windows1252 => encoding_rs::WINDOWS_1252.encode(text).0.into_owned(),
        Charset::Utf16Le => with_mark.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        Charset::Utf16Be => with_mark.encode_utf16().flat_map(u16::to_be_bytes).collect(),
    }
}

#[test]
fn every_compression_charset_and_line_end_gives_the_same_rows() {
    let text = "name;note\n\nJosé;\"two\nlines; \"\"quoted\"\"\"\nMüller €;x\n";
    for line_end in ["\n", "\r\n", "\r"] {
        for charset in [Charset::Utf8, Charset::Windows1252, Charset::Utf16Le, Charset::Utf16Be] {
            for mark in [false, true] {
                let bytes = encoded(&text.replace('\n', line_end), charset, mark);
                let named = !mark || charset == Charset::Windows1252;
                let declared = Declared { charset: named.then_some(charset), ..declared() };
                for (packed, compression) in [
                    (bytes.clone(), Compression::Plain),
                    (gzip(&bytes), Compression::Gzip),
                    (zstd(&bytes), Compression::Zstd),
                ] {
                    let (chunks, taken) = taken(declared, packed.chunks(3)).expect("taken");
                    assert_eq!(taken.bytes, packed.len() as u64);
                    assert_eq!(taken.form.compression, compression);
                    assert_eq!((taken.form.charset, taken.form.delimiter), (charset, b';'));
                    let note = format!("two{line_end}lines; \"quoted\"");
                    let expected = vec![
                        (1, 3, vec!["José".to_owned(), note]),
                        (2, 5, vec!["Müller €".to_owned(), "x".to_owned()]),
                    ];
                    assert_eq!(table(&chunks, &taken.form), expected, "{line_end:?} {charset:?} {compression:?}");
                }
            }
        }
    }
}

#[test]
fn streams_of_several_members_are_one_list_and_damaged_ones_are_refused() {
    for (pack, name) in [(gzip as fn(&[u8]) -> Vec<u8>, "gzip"), (zstd, "zstd")] {
        let members = [pack(b"a,b\n1,"), pack(b""), pack(b"2\n")].concat();
        let (chunks, all) = taken(declared(), members.chunks(1)).expect("taken");
        assert_eq!(table(&chunks, &all.form), [(1, 2, vec!["1".to_owned(), "2".to_owned()])], "{name}");
        for length in 5..members.len() {
            let result = taken(declared(), [&members[..length]]);
            match result {
                // Cut between two members.
                Ok((_, taken)) => assert_eq!(taken.rows, 1),
                Err(refusal) => assert!(
                    matches!(refusal, Refusal::CutOff { .. } | Refusal::NoRows | Refusal::Empty),
                    "{name} {length} {refusal}"
                ),
            }
        }
        let (chunks, more) = (pack(b"a,b\n1,2\n"), b"more");
        let after = taken(declared(), [&chunks[..], more]).expect_err("refused");
        assert!(matches!(after, Refusal::Damaged { after_end: true, .. }), "{name} {after:?}");
        let compression = Compression::parse(name);
        assert_eq!(refusal(Declared { compression, ..declared() }, b"a,b\n1,2\n"), "damaged_stream");
    }
    let mut wrong = gzip(b"a,b\n1,2\n");
    let checksum = wrong.len() - 6;
    wrong[checksum] ^= 1;
    assert_eq!(refusal(declared(), &wrong), "damaged_stream");
    // A header with every part that there can be: extra, name, comment, checksum.
    let mut parts = vec![0x1f, 0x8b, 8, 2 | 4 | 8 | 16, 0, 0, 0, 0, 0, 3, 3, 0, 1, 2, 3];
    parts.extend_from_slice(b"name\0comment\0\x01\x02");
    parts.extend_from_slice(&gzip(b"a,b\n1,2\n")[10..]);
    assert_eq!(taken(declared(), parts.chunks(1)).expect("taken").1.rows, 1);
}

#[test]
fn a_zstd_window_above_8_mib_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.window_log(24).expect("a window");
    encoder.write_all(b"a,b\n1,2\n").expect("into memory");
    assert_eq!(refusal(declared(), &encoder.finish().expect("into memory")), "window_too_large");
}

#[test]
fn a_bomb_is_refused_early_and_memory_stays_flat() {
    // 200 MiB of blank lines after a row, of which any number would be taken.
    let bomb = zstd(&[b"name\nAda\n".to_vec(), vec![b'\n'; 200 << 20]].concat());
    let mut intake = Intake::new(declared());
    let mut rest = &bomb[..];
    let mut out = Vec::new();
    let refusal = loop {
        let stepped = intake.step(&mut rest, &mut out);
        assert!(out.len() < 64 && intake.held_bytes() < 16 << 20, "{} {}", out.len(), intake.held_bytes());
        out.clear();
        match stepped {
            Ok(more) => assert!(more, "{} bytes of {} are left", rest.len(), bomb.len()),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refusal, Refusal::Bomb);
    assert_eq!(intake.finish(&mut out), Err(Refusal::Refused));
    assert_eq!(intake.push(b"more", &mut out), Err(Refusal::Refused));
    // In one push as well, and after much that did not expand.
    assert_eq!(taken(declared(), [&bomb]).expect_err("refused"), Refusal::Bomb);
}

#[test]
fn a_line_without_an_end_is_refused_after_256_kib() {
    let piece = vec![b'x'; 64 << 10];
    for start in ["name,note\n", "name,note\n1,\"", "{\"a\":\"", ""] {
        let mut intake = Intake::new(declared());
        let mut out = Vec::new();
        intake.push(start.as_bytes(), &mut out).expect("a beginning");
        // 10 GB, of which the fewest are asked for.
        let mut pieces = 0_u64;
        let refusal = (0..160_000).find_map(|_| {
            pieces += 1;
            let refused = intake.push(&piece, &mut out).err();
            assert!(intake.held_bytes() < 4 << 20, "{}", intake.held_bytes());
            refused
        });
        let code = refusal.expect("refused").code();
        assert_eq!(code, if start.ends_with(",\"") { "open_quote" } else { "record_too_long" }, "{start}");
        assert!(pieces <= 6, "{pieces}");
    }
}

#[test]
fn any_number_of_blank_lines_needs_no_memory() {
    let piece = vec![b'\n'; 64 << 10];
    let mut intake = Intake::new(declared());
    let mut out = Vec::new();
    for start in ["", "name\n", "Ada\n"] {
        intake.push(start.as_bytes(), &mut out).expect("taken");
        for _ in 0..64 {
            intake.push(&piece, &mut out).expect("taken");
            assert!(intake.held_bytes() < 4 << 20, "{}", intake.held_bytes());
        }
    }
    intake.push(b"Grace", &mut out).expect("taken");
    let taken = intake.finish(&mut out).expect("taken");
    let lines = 64 * 64 * 1024;
    let expected = [(1, 2 * lines + 2, vec!["Ada".to_owned()]), (2, 3 * lines + 3, vec!["Grace".to_owned()])];
    assert_eq!(table(&out, &taken.form), expected);
    assert!(out.iter().all(|chunk| chunk.text.len() <= CHUNK_BYTES_MAX));
}

#[test]
fn what_is_no_list_is_refused_with_what_it_seems_to_be() {
    let mut tar = vec![b'x'; 600];
    tar[257..262].copy_from_slice(b"ustar");
    let cases: &[(&[u8], &str)] = &[
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "PNG"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "JPEG"),
        (b"GIF89a", "GIF"),
        (b"%PDF-1.7\n", "PDF"),
        (b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0aaaabbbbcccc\x13\0\0\0[Content_Types].xml", ".xlsx"),
        (b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0mimetypeapplication/vnd.oasis.opendocument", ".ods"),
        (b"PK\x03\x04\x14\0\0\0list.csv", "zip"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0", ".xls"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"SQLite format 3\0\x10\0", "SQLite"),
        (&tar, "tar"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\0\0", "xz"),
        (b"7z\xbc\xaf\x27\x1c\0", "7z"),
        (b"  <!DOCTYPE html><html>", "web page"),
        (b"\xef\xbb\xbf<HTML>", "web page"),
        (b"<?xml version=\"1.0\"?>", "XML"),
        (b"[{\"a\":1}]", "JSON list"),
        (b"\x7fELF\x02", "program"),
        (b"PGDMP\x01", "PostgreSQL"),
    ];
    for (bytes, what) in cases {
        for packed in [bytes.to_vec(), gzip(bytes), zstd(bytes)] {
            let refusal = taken(declared(), [packed]).expect_err("refused");
            assert_eq!(refusal.code(), "not_a_list", "{what}");
            assert!(refusal.to_string().contains(what), "{what}: {refusal}");
        }
    }
    let twice = taken(declared(), [gzip(&gzip(b"a\n1\n"))]).expect_err("refused");
    assert!(twice.to_string().contains("twice"), "{twice}");
    let plain = Declared { compression: Some(Compression::Plain), ..declared() };
    assert_eq!(refusal(plain, &zstd(b"a\n1\n")), "not_a_list");
}

#[test]
fn nul_bytes_are_refused_with_their_line_and_a_hint_of_utf_16() {
    let nul = |bytes: &[u8]| taken(declared(), [bytes]).expect_err("refused");
    assert_eq!(nul(b"a,b\n1,\"x\ny\"\n2,\0\n"), Refusal::NulByte { line: 4, utf_16: false });
    for charset in [Charset::Utf16Le, Charset::Utf16Be] {
        let bytes = encoded("name,note\nA,b\n", charset, false);
        assert_eq!(nul(&bytes), Refusal::NulByte { line: 1, utf_16: true });
        assert!(nul(&bytes).to_string().contains("UTF-16"));
        assert_eq!(taken(Declared { charset: Some(charset), ..declared() }, [bytes]).expect("taken").1.rows, 1);
    }
    let zeros = vec![0; 1 << 20];
    assert_eq!(nul(&zeros).code(), "nul_byte");
}

#[test]
fn empty_files_and_bad_headers_are_refused() {
    for empty in [&b""[..], b"\n", b" \r\n\t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"] {
        assert_eq!(refusal(declared(), empty), "empty_file", "{empty:?}");
        assert_eq!(refusal(declared(), &gzip(empty)), "empty_file", "{empty:?}");
    }
    for header in [&b"name,note"[..], b"name,note\n", b"name,note\r\n \r\n\n", b"sep=;\nname;note\n"] {
        assert_eq!(refusal(declared(), header), "no_rows");
    }
    let twice = taken(declared(), ["Name,b, name \n1,2,3"]).expect_err("refused");
    assert_eq!(twice, Refusal::DuplicateColumn { name: "name".to_owned(), first: 1, second: 3 });
    assert_eq!(refusal(declared(), b"na\xefme,b\n1,2\n"), "header_not_of_charset");
    assert_eq!(refusal(declared(), b"a,b\n1,\"2\n3,4\n"), "open_quote");
    let open = taken(declared(), ["a,b\n1,2\n\"x\n\",\"y\nz,4\n5,6"]).expect_err("refused");
    assert_eq!(open, Refusal::OpenQuote { line: 4 });
    for delimiter in [b'"', b'\n', b'\r', 0, 0xe4] {
        assert_eq!(refusal(Declared { delimiter: Some(delimiter), ..declared() }, b"a\n1\n"), "invalid_delimiter");
    }
    let columns = |count: usize| (0..count).map(|n| format!("c{n}")).collect::<Vec<_>>().join(";") + "\n1\n";
    assert_eq!(taken(declared(), [columns(1000)]).expect("taken").1.form.columns.len(), 1000);
    assert_eq!(refusal(declared(), columns(1001).as_bytes()), "too_many_columns");
    assert_eq!(refusal(declared(), columns(10_000_000 / 100).as_bytes()), "too_many_columns");
    let mut intake = Intake::new(declared());
    let piece = "column,".repeat(10_000);
    let pieces = (0..1_000).find(|_| intake.push(piece.as_bytes(), &mut Vec::new()).is_err());
    assert!(pieces.is_some_and(|pieces| pieces < 6), "10,000,000 columns are refused at 256 KiB");
}

#[test]
fn headers_are_read_as_people_send_them() {
    let form = |text: &str| taken(declared(), [text]).expect("taken").1.form;
    assert_eq!(form("a,b\n1,2").delimiter, b',');
    assert_eq!(form("a;\"b,c,d,e\"\n1;2").delimiter, b';');
    assert_eq!(form("a\tb c\n1\t2").delimiter, b'\t');
    assert_eq!(form("a|b\n1|2").delimiter, b'|');
    assert_eq!(form("a\n1").delimiter, b',');
    let (chunks, all) = taken(declared(), ["sep=|\r\na,b|c\r\n1|2\r\n"]).expect("taken");
    assert_eq!(all.form.columns, ["a,b", "c"]);
    assert_eq!(table(&chunks, &all.form), [(1, 3, vec!["1".to_owned(), "2".to_owned()])]);
    assert_eq!(form("Name,, Mail ,\"two\nlines\"\n1").columns, ["Name", "column 2", "Mail", "two\nlines"]);
    let declared = Declared { delimiter: Some(b'^'), ..declared() };
    assert_eq!(taken(declared, ["a^\"b^c\"^d\n1"]).expect("taken").1.form.columns, ["a", "b^c", "d"]);
}

#[test]
fn chunks_hold_at_most_1000_rows_and_768_kib() {
    let short: String = "n\n".to_owned() + &"x\n".repeat(2_500);
    let (chunks, all) = taken(declared(), [short]).expect("taken");
    assert_eq!(
        chunks.iter().map(|chunk| (chunk.first_row, chunk.first_line, chunk.rows)).collect::<Vec<_>>(),
        [(1, 2, 1000), (1001, 1002, 1000), (2001, 2002, 500)]
    );
    assert_eq!(all.text_bytes, 5_002);
    let long = "n\n".to_owned() + &("y".repeat(200 << 10) + "\n").repeat(9);
    let (chunks, _) = taken(declared(), [&long]).expect("taken");
    assert_eq!(chunks.iter().map(|chunk| chunk.rows).collect::<Vec<_>>(), [3, 3, 3]);
    assert!(chunks.iter().all(|chunk| chunk.text.len() <= CHUNK_BYTES_MAX));
    assert_eq!("n\n".to_owned() + &chunks.iter().map(|chunk| &*chunk.text).collect::<String>(), long);
    let longest = "n\n".to_owned() + &"z".repeat(RECORD_BYTES_MAX) + "\n";
    assert_eq!(taken(declared(), [&longest]).expect("taken").1.rows, 1);
    assert_eq!(refusal(declared(), longest.replace("z\n", "zz\n").as_bytes()), "record_too_long");
}

#[test]
fn ndjson_is_a_record_a_line() {
    let text = "\n{\"a\":\"x\\ny\",\"b\":{\"c\":[1,\"d\"]}}\r\n\n{\"a\":\"\\\"\"}\n[1]\n{bad\n";
    let (chunks, all) = taken(declared(), text.as_bytes().chunks(1)).expect("taken");
    assert_eq!((all.form.format, all.rows), (Format::NdJson, 4));
    let rows: Vec<_> = chunks.iter().flat_map(|chunk| rows(&all.form, chunk)).collect();
    assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 4, 5, 6]);
    assert_eq!(rows[0].text, "{\"a\":\"x\\ny\",\"b\":{\"c\":[1,\"d\"]}}");
    let first = rows[0].cells.as_ref().expect("an object");
    assert_eq!((first.get("A").as_deref(), first.get("b.c").as_deref()), (Some("x\ny"), Some("[1,\"d\"]")));
    let codes: Vec<_> = rows.iter().filter_map(|row| row.cells.as_ref().err()).map(|bad| bad.code).collect();
    assert_eq!(codes, ["not_an_object", "not_json"]);
    // Declared, a list may begin with anything.
    let declared = Declared { format: Some(Format::NdJson), ..declared() };
    assert_eq!(taken(declared, ["x\n{}\n"]).expect("taken").1.rows, 2);
}

#[test]
fn short_rows_are_filled_with_blanks_and_long_or_damaged_ones_are_bad() {
    let (chunks, all) = taken(declared(), [&b"a,b\n1\n1,2,, \n1,2,3\n\xff,2\n,\n"[..]]).expect("taken");
    let cells: Vec<Vec<String>> = table(&chunks, &all.form).into_iter().map(|(_, _, cells)| cells).collect();
    let one = |text: &str| vec![text.to_owned()];
    assert_eq!(
        cells,
        [
            vec!["1".to_owned(), String::new()],
            vec!["1".to_owned(), "2".to_owned()],
            one("too_many_cells"),
            one("not_of_charset"),
            vec![String::new(), String::new()],
        ]
    );
}

/// Text of what matters to the splitter, and characters of several bytes.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => "[a-cä€\u{1f980}]{1,4}",
        4 => Just(",".to_owned()),
        3 => Just("\n".to_owned()),
        2 => Just("\r\n".to_owned()),
        1 => Just("\r".to_owned()),
        2 => Just("\"".to_owned()),
        1 => Just(" ".to_owned()),
        1 => Just("\"a\nb\"".to_owned()),
    ];
    proptest::collection::vec(piece, 1..120).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn pieces_do_not_matter(text in text(), cuts in proptest::collection::vec(1_usize..40, 1..20), packing in 0..3) {
        let bytes = match packing {
            0 => text.clone().into_bytes(),
            1 => gzip(text.as_bytes()),
            _ => zstd(text.as_bytes()),
        };
        let whole = taken(declared(), [&bytes]);
        prop_assert_eq!(&taken(declared(), bytes.chunks(1)), &whole);
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(&taken(declared(), pieces), &whole);
    }

    #[test]
    fn records_are_those_of_the_csv_crate(text in text()) {
        let with_header = format!("x,y\n{text}\n");
        if let Ok((chunks, taken)) = taken(declared(), [&with_header]) {
            let text: String = chunks.iter().map(|chunk| &*chunk.text).collect();
            prop_assert!(with_header.contains(&text));
            let rows: Vec<_> = chunks.iter().flat_map(|chunk| rows(&taken.form, chunk)).collect();
            let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(with_header.as_bytes());
            let records: Vec<_> = reader.records().skip(1).map(|record| record.expect("text")).collect();
            let records = records.iter().filter(|record| record.len() != 1 || !record[0].trim().is_empty() || record[0].is_empty());
            let mut fields = crate::import::fields::Fields::new(b',');
            let mine: Vec<Vec<String>> = rows.iter().map(|row| {
                let record = fields.read(row.text);
                (0..record.len()).map(|index| record.get(index).expect("a cell").to_owned()).collect()
            }).filter(|cells: &Vec<String>| cells.len() != 1 || !cells[0].trim().is_empty() || cells[0].is_empty()).collect();
            let theirs: Vec<Vec<String>> = records.map(|record| record.iter().map(str::to_owned).collect()).collect();
            prop_assert_eq!(mine, theirs);
        }
    }
}
