//! Opens what the plugin `encrypt` has sealed, or another program with AES-256-GCM: whole payloads, or fields.
//!
//! What does not open with the key is rejected, and so is a message in which a name on the way to a field stands twice. A payload becomes a text message if it is UTF-8. A field that is not
//! there stays so; what a field is opened to must be JSON.

use tidemill_plugin::json::{Fields, Value};
use tidemill_plugin::{Description, Message, Out, Plugin, Result, export};
use tidemill_seal::{Cipher, Config, Format, Target, from_base64};

export!(Decrypt);

/// Why something is rejected.
const DOES_NOT_OPEN: &str = "does not open: it was encrypted with another key, or changed";

struct Decrypt {
    cipher: Cipher,
    target: Target,
}

impl Plugin for Decrypt {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        let (cipher, target) = config.build(description)?;
        Ok(Self { cipher, target })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        match &self.target {
            Target::Payload(format) => {
                let opened = match format {
                    Format::Binary => self.cipher.open(message.as_bytes()),
                    Format::Base64 => {
                        let sealed = from_base64(message.as_bytes().trim_ascii());
                        self.cipher.open(&sealed.ok_or("the message is not base64")?)
                    }
                };
                let opened = opened.ok_or_else(|| format!("the message {DOES_NOT_OPEN}"))?;
                out.emit().binary(std::str::from_utf8(&opened).is_err()).bytes(&opened);
            }
            Target::Fields(members) => {
                let members = members.of(message)?;
                out.forward();
                for member in members {
                    let Some(value) = message.get(member.field) else { continue };
                    let named = |what| format!("the field {} {what}", member.pointer);
                    let sealed = value.string().and_then(|text| from_base64(text.as_bytes()));
                    let opened = self.cipher.open(&sealed.ok_or_else(|| named("is no string of base64"))?);
                    let opened = opened.ok_or_else(|| named(DOES_NOT_OPEN))?;
                    Fields::default()
                        .find(&opened)
                        .map_err(|_| named("opens to something that is not JSON"))?;
                    out.set(member.edit, Value::of_checked(&opened));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};
    use tidemill_plugin::testing::{Harness, Processed};
    use tidemill_seal::to_base64;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn decrypt(rest: &str) -> Harness<Decrypt> {
        Harness::try_new(&format!(r#"{{"key":"{KEY}"{rest}}}"#)).unwrap()
    }

    fn sealed(open: impl AsRef<[u8]>) -> Vec<u8> {
        Cipher::of_base64(KEY).unwrap().seal(open.as_ref(), [3; 18]).unwrap()
    }

    fn reason(processed: Processed) -> String {
        assert!(processed.sent.is_empty());
        processed.rejected.into_iter().next().unwrap().1
    }

    #[test]
    fn a_payload_is_text_again_if_it_was() {
        let sent = decrypt("").process([
            to_base64(&sealed("é")),
            to_base64(&sealed([0xff])),
            to_base64(&sealed("")),
        ]);
        let sent: Vec<_> = sent.sent.iter().map(|sent| (&sent.bytes[..], sent.binary)).collect();
        assert_eq!(sent, [("é".as_bytes(), false), (&[0xff], true), (b"", false)]);
        let sent = decrypt(r#","format":"binary""#).process([&sealed("é")[..]]).sent;
        assert_eq!((&sent[0].bytes[..], sent[0].binary), ("é".as_bytes(), false));
    }

    #[test]
    fn fields_are_json_again() {
        let [object, text] = [r#"{ "n":1.50 }"#, r#""\u0061""#].map(|open| to_base64(&sealed(open)));
        let message = format!(r#"{{"a":{{"b" : "{object}"}},"c":"{text}","d":"{text}"}}"#);
        let sent = decrypt(r#","fields":["/a/b","/c","/absent"]"#).process([message.as_str(), "{}"]);
        assert_eq!(
            sent.texts(),
            [&format!(r#"{{"a":{{"b" : {{ "n":1.50 }}}},"c":"\u0061","d":"{text}"}}"#), "{}"]
        );
    }

    #[test]
    fn what_does_not_open_is_rejected() {
        let mut changed = sealed("x");
        changed[12] ^= 1;
        for (message, expected) in [
            ("not base64", "the message is not base64"),
            ("", "the message does not open: it was encrypted with another key, or changed"),
            (
                &to_base64(&changed),
                "the message does not open: it was encrypted with another key, or changed",
            ),
        ] {
            assert_eq!(reason(decrypt("").process([message])), expected);
        }
        let mut fields = decrypt(r#","fields":["/a"]"#);
        for (value, expected) in [
            (json!(1), "the field /a is no string of base64"),
            (json!("?"), "the field /a is no string of base64"),
            (
                json!(to_base64(&changed)),
                "the field /a does not open: it was encrypted with another key, or changed",
            ),
            (json!(to_base64(&sealed("x"))), "the field /a opens to something that is not JSON"),
        ] {
            assert_eq!(reason(fields.process([json!({ "a": value }).to_string()])), expected);
        }
        assert_eq!(reason(fields.process(["ping"])), "not JSON (at byte 0)");
    }

    #[test]
    fn a_message_of_which_a_member_would_stay_sealed_or_be_lost_is_rejected() {
        let [a, b] = ["1", "2"].map(|open| to_base64(&sealed(open)));
        for (field, message, name) in [
            ("/f", format!(r#"{{"f":"{a}","f":"{b}"}}"#), "f"),
            ("/f", format!(r#"{{"f":"{a}","\u0066":"{b}"}}"#), "f"),
            ("/x/f", format!(r#"{{"x":{{"f":"{a}"}},"x":5}}"#), "x"),
            ("/x/0/f", format!(r#"{{"x":[{{"f":"{a}","f":"{b}"}}]}}"#), "f"),
        ] {
            let processed = decrypt(&format!(r#","fields":["{field}"]"#)).process([message.as_str()]);
            assert_eq!(reason(processed), format!("{name:?} stands twice in one object"), "{message}");
        }
        let other = format!(r#"{{"x":[{{"f":"{a}"}},{{"f":1,"f":2}}],"y":1,"y":2}}"#);
        let opened = decrypt(r#","fields":["/x/0/f"]"#).process([other.as_str()]);
        assert_eq!(opened.texts(), [r#"{"x":[{"f":1},{"f":1,"f":2}],"y":1,"y":2}"#]);
    }

    fn documents() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<String>().prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                prop::collection::btree_map("[abc]", inner, 0..4)
                    .prop_map(|members| Json::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_encrypted_comes_back(document in documents(), chance in any::<tidemill_seal::Chance>()) {
            let cipher = Cipher::of_base64(KEY).unwrap();
            let open = document.to_string();
            let sealed = to_base64(&cipher.seal(open.as_bytes(), chance).unwrap());
            let whole = decrypt("").process([sealed.as_str()]);
            prop_assert_eq!(whole.texts(), [open.as_str()]);
            let field = decrypt(r#","fields":["/f"]"#).process([format!(r#"{{"f":"{sealed}"}}"#)]);
            prop_assert_eq!(field.texts(), [format!(r#"{{"f":{open}}}"#)]);
        }
    }
}
