//! Encrypts the whole payload of each message, or the values of fields, with AES-256-GCM.
//!
//! What is sealed, and how, is in `seal`, which the plugin `decrypt` has too. A field that is not there stays so.

use tidemill_plugin::{Description, Message, Out, Plugin, Result, export, random};
use tidemill_seal::{Chance, Cipher, Config, Format, Target, to_base64};

export!(Encrypt);

/// Bytes of one random number that are used, of the 53 bits that it has.
const NUMBER_BYTES: usize = 6;

struct Encrypt {
    cipher: Cipher,
    target: Target,
}

impl Plugin for Encrypt {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        let (cipher, target) = config.build(description)?;
        description.guards();
        Ok(Self { cipher, target })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let seal = |open| self.cipher.seal(open, chance());
        match &self.target {
            Target::Payload(Format::Base64) => {
                out.emit().binary(false).text(&to_base64(&seal(message.as_bytes())?));
            }
            Target::Payload(Format::Binary) => {
                out.emit().binary(true).bytes(&seal(message.as_bytes())?);
            }
            Target::Fields(members) => {
                let members = members.of(message)?;
                out.forward();
                for member in members {
                    if let Some(value) = message.get(member.field) {
                        out.set(member.edit, to_base64(&seal(value.raw())?));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Random bytes for a nonce.
fn chance() -> Chance {
    let mut bytes = Chance::default();
    for number in bytes.chunks_mut(NUMBER_BYTES) {
        let drawn = (random::next() * (1u64 << (8 * NUMBER_BYTES)) as f64) as u64;
        number.copy_from_slice(&drawn.to_le_bytes()[..NUMBER_BYTES]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_plugin::testing::Harness;
    use tidemill_seal::from_base64;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn encrypt(rest: &str) -> Harness<Encrypt> {
        Harness::try_new(&format!(r#"{{"key":"{KEY}"{rest}}}"#)).unwrap()
    }

    fn opened(text: &str) -> String {
        let sealed = from_base64(text).unwrap();
        String::from_utf8(Cipher::of_base64(KEY).unwrap().open(&sealed).unwrap()).unwrap()
    }

    #[test]
    fn a_whole_payload_becomes_text_or_bytes() {
        let sent = encrypt("").process(["ping", "", r#"{"a":1}"#]);
        assert!(sent.sent.iter().all(|sent| !sent.binary));
        assert_eq!(sent.texts().into_iter().map(opened).collect::<Vec<_>>(), ["ping", "", r#"{"a":1}"#]);
        let sent = encrypt(r#","format":"binary""#).process([&b"\xff\x00"[..]]).sent;
        assert!(sent[0].binary);
        assert_eq!(Cipher::of_base64(KEY).unwrap().open(&sent[0].bytes).unwrap(), b"\xff\x00");
    }

    #[test]
    fn fields_become_strings_and_other_bytes_stay() {
        let mut plugin = encrypt(r#","fields":["/user/card","/n"]"#);
        let messages =
            [r#"{ "user":{"card": {"no" : 1.50}},"x":"\u0061","n":"\u0062" }"#, r#"{"user":{}}"#, "[]"];
        let sent = plugin.process(messages);
        assert_eq!(sent.texts()[1..], messages[1..]);
        let value: serde_json::Value = serde_json::from_str(sent.texts()[0]).unwrap();
        let (card, n) = (value["user"]["card"].as_str().unwrap(), value["n"].as_str().unwrap());
        let expected = format!(r#"{{ "user":{{"card": "{card}"}},"x":"\u0061","n":"{n}" }}"#);
        assert_eq!(sent.texts()[0], expected);
        assert_eq!((opened(card), opened(n)), (r#"{"no" : 1.50}"#.into(), r#""\u0062""#.into()));
    }

    #[test]
    fn no_two_messages_are_sealed_alike_but_in_a_replay() {
        let sealed = |seed| {
            let mut plugin = encrypt("");
            plugin.host.seed = seed;
            let sent = plugin.process(["same", "same"]);
            assert_ne!(sent.texts()[0], sent.texts()[1]);
            sent
        };
        assert_eq!(sealed(1), sealed(1));
        assert_ne!(sealed(1), sealed(2));
    }

    #[test]
    fn with_fields_what_is_not_json_is_rejected() {
        let processed = encrypt(r#","fields":["/a"]"#).process(["ping"]);
        assert_eq!(processed.rejected, [(0, "not JSON (at byte 0)".to_owned())]);
    }

    #[test]
    fn an_element_of_an_array_is_no_field_and_does_not_go_on_in_the_clear() {
        let processed = encrypt(r#","fields":["/a/0"]"#).process([r#"{"a":["secret"]}"#]);
        assert_eq!(processed.rejected, [(0, "the message has no object for /a/0".to_owned())]);
        assert!(processed.sent.is_empty());
    }

    #[test]
    fn a_message_with_two_members_of_which_one_would_go_on_in_the_clear_does_not_go_on() {
        let messages = [
            r#"{"b":{"c":"SECRET"},"b":5}"#,
            r#"{"b":{"c":"SECRET","c":1}}"#,
            r#"{"b":[5],"b":{"c":1}}"#,
            r#"{"b":{"c":"SECRET"},"\u0062":{}}"#,
        ];
        let processed = encrypt(r#","fields":["/b/c"]"#).process(messages);
        assert!(processed.sent.is_empty());
        let why: Vec<_> = processed.rejected.iter().map(|(_, why)| why.as_str()).collect();
        let twice = |name: &str| format!("{name:?} stands twice in one object");
        assert_eq!(why, [twice("b"), twice("c"), twice("b"), twice("b")]);
        let others = [
            r#"{"x":1,"x":2,"b":[{"c":1},{"c":1}]}"#,
            "7",
            "null",
            "true",
            "-1",
            "1.5",
            r#""b""#,
            "[[]]",
            r#"{"b":1e400,"\ud800":1,"\ud800":2}"#,
            " {\"b\":12345678901234567890123}\n",
        ];
        assert_eq!(encrypt(r#","fields":["/b/c"]"#).process(others).texts(), others);
    }

    #[test]
    fn elements_of_arrays_are_looked_into_for_two_members_of_one_name() {
        for (field, message, name) in [
            ("/a/0/b", r#"{"a":[{"b":"A","b":"B"}]}"#, "b"),
            ("/a/0/b", r#"{"a":[{"b":"A","\u0062":"B"}]}"#, "b"),
            ("/a/1/0/b/c", r#"{"a":[0,[{"b":{"c":"A"},"b":5}]]}"#, "b"),
            ("/0/b", r#"[{"b":"A","b":"B"}]"#, "b"),
            ("/a/0/b", r#"{"a":[{"b":"A"}],"a":[5]}"#, "a"),
            ("/a/0/b~1c", r#"{"a":[{"b/c":"A","b/c":"B"}]}"#, "b/c"),
        ] {
            let processed = encrypt(&format!(r#","fields":["{field}"]"#)).process([message]);
            assert_eq!(
                processed.rejected,
                [(0, format!("{name:?} stands twice in one object"))],
                "{message}"
            );
        }
        let other = r#"{"a":[{},{"b":"A","b":"B"}]}"#;
        assert_eq!(
            encrypt(r#","fields":["/a/0/c"]"#)
                .process([other.replace("{},", "{\"c\":1},").as_str()])
                .sent
                .len(),
            1
        );
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        for (rest, error) in [
            (
                r#","fields":["/a"],"format":"binary""#,
                "`format`: \"binary\" is for whole payloads, and a field is text: leave `format` or `fields` out",
            ),
            (
                r#","fields":["/a","b"]"#,
                "`fields[1]`: \"b\" is not a JSON pointer: it must start with `/`, like \"/b\"",
            ),
            (r#","fields":[""]"#, "`fields[0]`: \"\" is the whole message: leave `fields` out for that"),
            (
                r#","fields":["/a/b","/ab","/a"]"#,
                "`fields[2]`: \"/a\" and \"/a/b\" are one in the other: leave one out",
            ),
            (r#","format":"hex""#, "`format` must be \"base64\" or \"binary\", got \"hex\""),
        ] {
            let config = format!(r#"{{"key":"{KEY}"{rest}}}"#);
            assert_eq!(Harness::<Encrypt>::try_new(&config).err().as_deref(), Some(error));
        }
        assert_eq!(Harness::<Encrypt>::try_new("{}").err().as_deref(), Some("missing key `key`"));
    }
}
