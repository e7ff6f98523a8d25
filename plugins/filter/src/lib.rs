//! Forwards the messages for which the conditions in `where` hold, and rejects what is not JSON.

use serde::Deserialize;
use tidemill_plugin::condition::{Conditions, Match, Op, Rule};
use tidemill_plugin::{Description, Message, Out, Plugin, Result, export};

export!(Filter);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default = "trades", rename = "where")]
    rules: Vec<Rule>,
    #[serde(default, rename = "match")]
    mode: Match,
}

/// The trades of an exchange's combined stream.
fn trades() -> Vec<Rule> {
    vec![Rule { field: "/data/e".into(), op: Op::Eq, value: Some("trade".into()) }]
}

struct Filter {
    conditions: Conditions,
}

impl Plugin for Filter {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        if config.rules.is_empty() && config.mode == Match::Any {
            return Err(
                "`where` is empty, and with `match = \"any\"` nothing would go on: name a condition".into()
            );
        }
        description.only_json();
        description.without_payloads();
        Ok(Self { conditions: Conditions::compile(&config.rules, config.mode, description)? })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        if self.conditions.hold(message) {
            out.forward();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_plugin::testing::Harness;

    fn filter(config: &str) -> Result<Harness<Filter>, String> {
        Harness::try_new(config)
    }

    #[test]
    fn without_a_configuration_trades_go_on() {
        let mut plugin = filter("{}").unwrap();
        let processed =
            plugin.process([r#"{"data":{"e":"trade"}}"#, r#"{"data":{"e":"depthUpdate"}}"#, "{}"]);
        assert_eq!(processed.texts(), [r#"{"data":{"e":"trade"}}"#]);
        assert!(processed.rejected.is_empty());
    }

    #[test]
    fn one_condition_of_several_is_enough_for_any() {
        let rules = r#"[{"field":"/p","op":"gt","value":100},{"field":"/side","op":"eq","value":"buy"}]"#;
        let messages =
            [r#"{"p":"100.5"}"#, r#"{"p":1,"side":"buy"}"#, r#"{"p":101,"side":"buy"}"#, r#"{"p":1}"#];
        let mut all = filter(&format!(r#"{{"where":{rules}}}"#)).unwrap();
        assert_eq!(all.process(messages).texts(), messages[2..3]);
        let mut any = filter(&format!(r#"{{"where":{rules},"match":"any"}}"#)).unwrap();
        assert_eq!(any.process(messages).texts(), messages[..3]);
    }

    #[test]
    fn what_is_not_json_is_rejected() {
        let processed = filter("{}").unwrap().process([r#"{"data":{"e":"trade"}"#, "", "ping", "{}"]);
        assert!(processed.sent.is_empty());
        let reasons: Vec<_> =
            processed.rejected.iter().map(|(nth, reason)| (*nth, reason.as_str())).collect();
        assert_eq!(
            reasons,
            [(0, "not JSON (at byte 21)"), (1, "not JSON (at byte 0)"), (2, "not JSON (at byte 0)")]
        );
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        for (config, error) in [
            (r#"{"wehre":[]}"#, "unknown key `wehre`: did you mean `where`?"),
            (
                r#"{"where":[],"match":"any"}"#,
                "`where` is empty, and with `match = \"any\"` nothing would go on: name a condition",
            ),
            (r#"{"match":"some"}"#, "`match` must be \"all\" or \"any\", got \"some\""),
            (
                r#"{"where":[{"field":"p","op":"exists"}]}"#,
                "`where[0].field`: \"p\" is not a JSON pointer: it must start with `/`, like \"/p\"",
            ),
            (r#"{"where":[{"field":"/p","op":"eq"}]}"#, "missing key `where[0].value`: this `op` needs it"),
        ] {
            assert_eq!(filter(config).err().as_deref(), Some(error));
        }
    }
}
