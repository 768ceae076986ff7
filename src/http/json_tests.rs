//! What the reader of bodies takes and refuses.

use super::*;

const NAMES: [&str; 3] = ["tokens", "model", "metadata"];

fn parse(body: &[u8]) -> Result<Object<'_, 3>, Code> {
    Object::parse(body, &NAMES).map_err(|problem| problem.code())
}

fn tokens(number: &str) -> Result<Option<u64>, Code> {
    let body = format!("{{\"tokens\":{number}}}");
    let object = parse(body.as_bytes())?;
    object.tokens("tokens").map(|tokens| tokens.map(Tokens::get)).map_err(|problem| problem.code())
}

/// What the parser would make of them if amounts were `u64` or `f64`, and why they are read from their text.
#[test]
fn the_parser_alone_cannot_tell_these_apart() {
    use serde_json::{Value, from_str};
    for float in ["1.0", "1e3", "-0", "99999999999999999999"] {
        assert!(from_str::<Value>(float).unwrap().is_f64(), "{float}");
    }
    assert!(from_str::<Value>("1e400").unwrap_err().is_syntax());
    assert!(from_str::<&RawValue>("1e400").is_ok());
}

#[test]
fn amounts_are_whole_numbers_in_digits() {
    for (number, result) in [
        ("0", Ok(0)),
        ("1", Ok(1)),
        ("1000000000000", Ok(1_000_000_000_000)),
        ("1000000000001", Err(Code::AmountOutOfRange)),
        ("9007199254740993", Err(Code::AmountOutOfRange)),
        ("18446744073709551615", Err(Code::AmountOutOfRange)),
        ("18446744073709551616", Err(Code::AmountOutOfRange)),
        ("99999999999999999999", Err(Code::AmountOutOfRange)),
        (&"9".repeat(5_000), Err(Code::AmountOutOfRange)),
        ("-1", Err(Code::InvalidAmount)),
        ("-0", Err(Code::InvalidAmount)),
        ("-99999999999999999999", Err(Code::InvalidAmount)),
        ("1.5", Err(Code::InvalidAmount)),
        ("1.0", Err(Code::InvalidAmount)),
        ("0.0", Err(Code::InvalidAmount)),
        ("1e3", Err(Code::InvalidAmount)),
        ("1E3", Err(Code::InvalidAmount)),
        ("1e400", Err(Code::InvalidAmount)),
        ("-1e400", Err(Code::InvalidAmount)),
        ("1e-400", Err(Code::InvalidAmount)),
        ("\"10\"", Err(Code::InvalidBody)),
        ("\"1e400\"", Err(Code::InvalidBody)),
        ("\"NaN\"", Err(Code::InvalidBody)),
        ("true", Err(Code::InvalidBody)),
        ("false", Err(Code::InvalidBody)),
        ("null", Err(Code::InvalidBody)),
        ("[1]", Err(Code::InvalidBody)),
        ("{}", Err(Code::InvalidBody)),
        ("NaN", Err(Code::MalformedJson)),
        ("Infinity", Err(Code::MalformedJson)),
        ("0x10", Err(Code::MalformedJson)),
        ("+1", Err(Code::MalformedJson)),
        ("01", Err(Code::MalformedJson)),
        ("1.", Err(Code::MalformedJson)),
        (".5", Err(Code::MalformedJson)),
        ("1_000", Err(Code::MalformedJson)),
        ("", Err(Code::MalformedJson)),
    ] {
        assert_eq!(tokens(number), result.map(Some), "{number}");
    }
    assert_eq!(tokens(" 7 "), Ok(Some(7)));
}

#[test]
fn bodies_of_the_wrong_form() {
    for (body, code) in [
        ("", Code::MalformedJson),
        ("  ", Code::MalformedJson),
        ("{", Code::MalformedJson),
        ("{\"tokens\":1", Code::MalformedJson),
        ("{\"tokens\":1}}", Code::MalformedJson),
        ("{\"tokens\":1}{}", Code::MalformedJson),
        ("{\"tokens\":1,}", Code::MalformedJson),
        ("{tokens:1}", Code::MalformedJson),
        ("{\"tokens\"}", Code::MalformedJson),
        ("{\"other\":1", Code::MalformedJson),
        ("{\"model\":\"\\ud800\",\"tokens\":1}x", Code::MalformedJson),
        ("nul", Code::MalformedJson),
        ("[1,", Code::MalformedJson),
        ("[]", Code::InvalidBody),
        ("[1]", Code::InvalidBody),
        ("null", Code::InvalidBody),
        ("7", Code::InvalidBody),
        ("\"{}\"", Code::InvalidBody),
        ("{\"other\":1}", Code::UnknownField),
        ("{\"Tokens\":1}", Code::UnknownField),
        ("{\"\":1}", Code::UnknownField),
        ("{\"tokens\":1,\"tokens\":1}", Code::DuplicateField),
        ("{\"tokens\":1,\"tok\\u0065ns\":2}", Code::DuplicateField),
    ] {
        assert_eq!(parse(body.as_bytes()).unwrap_err(), code, "{body}");
    }
    assert_eq!(parse(b"{\"model\":\"\xff\"}").unwrap_err(), Code::MalformedJson);
    assert_eq!(parse(b"{\"\xff\":1}").unwrap_err(), Code::MalformedJson);
    assert_eq!(parse(b"\xef\xbb\xbf{}").unwrap_err(), Code::MalformedJson);
}

/// A body of brackets alone: neither a stack overflow nor a success.
#[test]
fn deep_nesting_is_harmless() {
    for deep in ["[".repeat(60_000), "{\"a\":".repeat(12_000)] {
        assert_eq!(parse(deep.as_bytes()).unwrap_err(), Code::MalformedJson);
        assert_eq!(tokens(&deep), Err(Code::MalformedJson));
    }
    let closed = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    assert_eq!(tokens(&closed), Err(Code::InvalidBody));
}

#[test]
fn texts_are_strings_with_their_escapes_undone() {
    let object = parse(br#"{"model":"gpt-\u0034o \"x\""}"#).unwrap();
    assert_eq!(object.text("model").unwrap().unwrap(), "gpt-4o \"x\"");
    for (body, code) in [
        (r#"{"model":1}"#, Code::InvalidBody),
        (r#"{"model":null}"#, Code::InvalidBody),
        (r#"{"model":["x"]}"#, Code::InvalidBody),
        (r#"{"model":"\ud800"}"#, Code::InvalidBody),
        (r#"{"model":""}"#, Code::InvalidModel),
        (r#"{"model":"a\u0000b"}"#, Code::InvalidModel),
        (r#"{"model":"a\nb"}"#, Code::InvalidModel),
    ] {
        let object = parse(body.as_bytes()).unwrap();
        assert_eq!(object.model("model").unwrap_err().code(), code, "{body}");
    }
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(101));
    assert_eq!(parse(long.as_bytes()).unwrap().model("model").unwrap_err().code(), Code::InvalidModel);
}

#[test]
fn metadata_is_an_object_kept_as_sent() {
    let object = parse(br#"{"metadata": {"a" : 1e400, "a":2} }"#).unwrap();
    assert_eq!(object.metadata("metadata").unwrap().unwrap().as_str(), r#"{"a" : 1e400, "a":2}"#);
    for (value, code) in
        [("[]", Code::InvalidBody), ("\"{}\"", Code::InvalidBody), ("null", Code::InvalidBody)]
    {
        let body = format!("{{\"metadata\":{value}}}");
        assert_eq!(parse(body.as_bytes()).unwrap().metadata("metadata").unwrap_err().code(), code);
    }
    let long = format!("{{\"metadata\":{{\"a\":\"{}\"}}}}", "x".repeat(1_100));
    let problem = parse(long.as_bytes()).unwrap().metadata("metadata").unwrap_err();
    assert_eq!(problem.code(), Code::InvalidMetadata);
}

#[test]
fn a_time_to_live_is_one_second_to_a_day() {
    for (number, result) in [
        ("1", Ok(1)),
        ("86400", Ok(86_400)),
        ("0", Err(Code::InvalidTtl)),
        ("86401", Err(Code::InvalidTtl)),
        ("4294967297", Err(Code::InvalidTtl)),
        ("99999999999999999999", Err(Code::InvalidTtl)),
        ("-1", Err(Code::InvalidTtl)),
        ("1.5", Err(Code::InvalidTtl)),
        ("1e3", Err(Code::InvalidTtl)),
        ("\"60\"", Err(Code::InvalidBody)),
        ("null", Err(Code::InvalidBody)),
    ] {
        let body = format!("{{\"tokens\":{number}}}");
        let ttl = parse(body.as_bytes()).unwrap().ttl_seconds("tokens").map_err(|problem| problem.code());
        assert_eq!(ttl, result.map(Some), "{number}");
    }
}
