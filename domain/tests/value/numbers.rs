//! Counts, revenue, dates.

use domain::value::{Count, FoundingDate, Revenue};
use serde_json::Value;

use super::{check, read};
use crate::json;

#[test]
fn a_count_is_a_whole_number_in_its_range() {
    for (text, expected) in [
        ("0", Ok(0)),
        ("50", Ok(50)),
        ("10000000000", Ok(10_000_000_000_i64)),
        ("10000000001", Err("out_of_range")),
        ("-1", Err("out_of_range")),
        ("9223372036854775808", Err("out_of_range")),
        ("1e400", Err("unreadable")),
        ("1e300", Err("out_of_range")),
        ("2.5", Err("not_an_integer")),
        ("2.0", Err("not_an_integer")),
        ("\"5\"", Err("wrong_type")),
        ("true", Err("wrong_type")),
        ("[1]", Err("wrong_type")),
    ] {
        let found = match serde_json::from_str::<Value>(text) {
            Ok(value) => read::<Count>(value),
            Err(_) => Err("unreadable"),
        };
        assert_eq!(found, expected.map(Value::from), "{text}");
    }
}

#[test]
fn revenue_is_any_64_bit_integer() {
    for number in [0, -5, i64::MIN, i64::MAX] {
        assert_eq!(read::<Revenue>(number), Ok(number.into()));
    }
    for (text, code) in [
        ("9223372036854775808", "out_of_range"),
        ("-9223372036854775809", "out_of_range"),
        ("18446744073709551616", "out_of_range"),
        ("1.5", "not_an_integer"),
        ("1e3", "not_an_integer"),
    ] {
        assert_eq!(read::<Revenue>(json(text)), Err(code), "{text}");
    }
}

#[test]
fn a_founding_date_is_one_of_the_calendar() {
    check::<FoundingDate>(&[
        ("1998", "1998"),
        (" 1998-09 ", "1998-09"),
        ("1998-09-04", "1998-09-04"),
        ("2024-02-29", "2024-02-29"),
        ("0578", "0578"),
        ("2023-02-29", "!invalid_date"),
        ("1900-02-29", "!invalid_date"),
        ("1998-13", "!invalid_date"),
        ("1998-00", "!invalid_date"),
        ("1998-04-31", "!invalid_date"),
        ("1998-04-00", "!invalid_date"),
        ("0000", "!invalid_date"),
        ("98", "!invalid_date"),
        ("1998-9", "!invalid_date"),
        ("1998-09-04T00:00:00Z", "!invalid_date"),
        ("1998-09-04-01", "!invalid_date"),
        ("1998-", "!invalid_date"),
        ("2022.0", "!invalid_date"),
        ("+998", "!invalid_date"),
        ("１９９８", "!invalid_date"),
        ("", "!empty"),
    ]);
    assert_eq!(read::<FoundingDate>(1998), Ok("1998".into()));
    for number in ["-1", "98", "10000", "2022.0"] {
        assert_eq!(read::<FoundingDate>(json(number)), Err("invalid_date"), "{number}");
    }
}
