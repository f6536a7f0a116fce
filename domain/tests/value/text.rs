//! Lines, paragraphs and job levels.

use domain::value::{JobTitleLevel, Line, Paragraph};

use super::{check, read};

#[test]
fn a_line_is_trimmed_and_holds_no_breaks_and_no_control_characters() {
    check::<Line<10>>(&[
        ("Acme", "Acme"),
        ("  Acme\u{a0} ", "Acme"),
        ("a\tb", "a b"),
        ("a\r\nb", "a b"),
        ("a\nb", "a b"),
        ("a\u{2028}b", "a b"),
        ("\u{feff}Acme\u{200b}", "Acme"),
        // e and a combining acute become one character.
        ("Cafe\u{301}", "Caf\u{e9}"),
        ("日本電気株式会社", "日本電気株式会社"),
        ("👩\u{200d}🔬", "👩\u{200d}🔬"),
        ("0123456789", "0123456789"),
        ("ééééééééé\u{e9}", "éééééééééé"),
        ("01234567890", "!too_long"),
        ("éééééééééée", "!too_long"),
        ("", "!empty"),
        (" \t\n", "!empty"),
        ("\u{200b}", "!empty"),
        ("a\0b", "!control_character"),
        ("a\u{1b}[31mb", "!control_character"),
        ("a\u{7f}", "!control_character"),
        ("a\u{9f}b", "!control_character"),
    ]);
    assert_eq!(read::<Line<10>>(5), Err("wrong_type"));
}

#[test]
fn the_length_is_counted_after_composing() {
    let decomposed = "e\u{301}".repeat(10);
    assert_eq!(read::<Line<10>>(decomposed), Ok("é".repeat(10).into()));
}

#[test]
fn a_paragraph_keeps_its_line_breaks() {
    check::<Paragraph<20>>(&[
        ("one\r\ntwo\rthree\nfour", "one\ntwo\nthree\nfour"),
        ("one\n\ntwo\n", "one\n\ntwo"),
        ("one\ttwo", "one two"),
        ("one\u{2029}two", "one\ntwo"),
        ("a\u{b}b", "!control_character"),
        ("a\u{c}b", "!control_character"),
        ("\n\r\n", "!empty"),
        ("123456789012345678901", "!too_long"),
    ]);
}

#[test]
fn a_job_level_is_recognised_or_kept() {
    check::<JobTitleLevel>(&[
        ("C-Level", "c_suite"),
        ("CXO", "c_suite"),
        ("c_suite", "c_suite"),
        ("C Suite", "c_suite"),
        ("Vice President", "vp"),
        ("V.P.", "vp"),
        ("Co-Founder", "founder"),
        ("Entry Level", "entry"),
        ("Manager", "manager"),
        ("SENIOR", "senior"),
        ("Chief of Everything", "Chief of Everything"),
        ("other", "other"),
        ("部長", "部長"),
        ("", "!empty"),
    ]);
    for known in JobTitleLevel::KNOWN {
        assert_eq!(JobTitleLevel::parse(known).unwrap().as_str(), known);
    }
    assert_eq!(read::<JobTitleLevel>("x".repeat(101)), Err("too_long"));
}
