//! What a body may not ask for where the API has no token: whoever can reach the port could have the
//! host send its variables and files anywhere, and read and write any file.

use super::api_error::ApiError;
use crate::config::{BodyError, Mistake};
use serde_json::Value;

/// What helps.
const HINT: &str = "set `token` under [admin], or write it into the configuration file";

/// Lets a body through that takes no `${}` and names no end of type `file`. A body that is not JSON is for
/// whoever reads it.
pub(super) fn check(body: &[u8]) -> Result<(), ApiError> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return Ok(()) };
    let mut mistakes = Vec::new();
    look(&body, &mut String::new(), &mut mistakes);
    if mistakes.is_empty() { Ok(()) } else { Err(BodyError::Wrong(mistakes).into()) }
}

fn look(value: &Value, pointer: &mut String, mistakes: &mut Vec<Mistake>) {
    let length = pointer.len();
    match value {
        Value::String(text) => {
            let message = if takes_variable(text) {
                "without a token, the API takes no `${}`"
            } else if text == "file" && is_type_of_end(pointer) {
                "without a token, the API takes no end of type `file`"
            } else if is_file_of_tls(pointer) {
                "without a token, the API takes no files of `tls`; give it as base64"
            } else {
                return;
            };
            let (pointer, message, hint) = (pointer.clone(), message.to_owned(), Some(HINT.to_owned()));
            mistakes.push(Mistake { pointer, message, hint });
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                pointer.push_str(&format!("/{index}"));
                look(value, pointer, mistakes);
                pointer.truncate(length);
            }
        }
        Value::Object(members) => {
            for (key, value) in members {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
                look(value, pointer, mistakes);
                pointer.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether something in a string is filled in; `$${` is a literal.
fn takes_variable(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if !rest[..at].ends_with('$') {
            return true;
        }
        rest = &rest[at + 2..];
    }
    false
}

/// Whether this names a file with certificates or a key.
fn is_file_of_tls(pointer: &str) -> bool {
    let parts: Vec<&str> = pointer.split('/').skip(1).collect();
    let files = ["ca", "cert", "key", "client_ca"];
    let is_end = |end: &[&str]| matches!(end, [] | ["source" | "dead_letter"] | ["sinks", _]);
    matches!(&parts[..], [end @ .., "tls", file] if is_end(end) && files.contains(file))
}

/// Whether this is the `type` of a source, a sink or the dead letters, and no key of a plugin.
fn is_type_of_end(pointer: &str) -> bool {
    let parts: Vec<&str> = pointer.split('/').skip(1).collect();
    matches!(parts[..], ["type"] | ["source" | "dead_letter", "type"] | ["sinks", _, "type"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn places(body: &Value) -> Vec<String> {
        let mut mistakes = Vec::new();
        look(body, &mut String::new(), &mut mistakes);
        mistakes.into_iter().map(|mistake| mistake.pointer).collect()
    }

    #[test]
    fn variables_and_files_are_found_wherever_they_stand() {
        let body = json!({
            "source": { "type": "file", "path": "/etc/passwd" },
            "transforms": [{ "plugin": "p", "config": { "type": "file", "a/b": ["x", "${HOME}"] } }],
            "sinks": [{ "type": "websocket", "headers": { "X": "a${file:/etc/shadow}" } }, { "type": "file" }],
            "dead_letter": { "type": "file" },
        });
        let mut found = places(&body);
        found.sort();
        let expected = [
            "/dead_letter/type",
            "/sinks/0/headers/X",
            "/sinks/1/type",
            "/source/type",
            "/transforms/0/config/a~1b/1",
        ];
        assert_eq!(found, expected);
        assert_eq!(places(&json!({ "type": "file" })), ["/type"]);
        let tls =
            json!({ "sinks": [{ "tls": { "ca": "/dev/zero", "key_base64": "x", "server_name": "y" } }] });
        assert_eq!(places(&tls), ["/sinks/0/tls/ca"]);
        assert_eq!(places(&json!({ "tls": { "cert": "a.pem" } })), ["/tls/cert"]);
        assert_eq!(places(&json!({ "a": "$${HOME}", "b": "$5", "c": "file" })), [""; 0]);
        assert_eq!(places(&json!("$$${X}")), [""; 0], "as the configuration reads it");
        assert_eq!(places(&json!("$${a}${X}")), [""]);
    }
}
