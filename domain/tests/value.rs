//! Each value type against what people and machines really send.

mod addresses;
mod attributes;
mod names;
mod numbers;
mod text;

use domain::FieldValue;
use serde_json::Value;

/// What a value reads as, in the JSON of the log, or the code of its refusal.
fn read<T: FieldValue + serde::Serialize>(value: impl Into<Value>) -> Result<Value, &'static str> {
    match T::from_json(value.into()) {
        Ok(read) => Ok(serde_json::to_value(read).unwrap()),
        Err(invalid) => Err(invalid.code),
    }
}

/// Checks a table of inputs with what each must read as: the text, or `!code`.
fn check<T: FieldValue + serde::Serialize + serde::de::DeserializeOwned>(table: &[(&str, &str)]) {
    for (input, expected) in table {
        let found = read::<T>(*input);
        if let Some(code) = expected.strip_prefix('!') {
            assert_eq!(found, Err(code), "{input:?}");
        } else {
            assert_eq!(found, Ok(Value::from(*expected)), "{input:?}");
            // What came out is a value itself: reading it again changes nothing.
            assert_eq!(read::<T>(*expected), Ok(Value::from(*expected)), "{expected:?} again");
        }
    }
    for wrong in [Value::from(true), Value::from(vec![1]), serde_json::json!({"a": 1})] {
        assert_eq!(read::<T>(wrong.clone()), Err("wrong_type"), "{wrong}");
    }
}
