//! Connectors in five languages: `tests/guests/dialling` has one in each, and all of them do the same.

use super::*;
use tidemill::plugin::{ConnectorInstance, DialAttempt, DialEnding, DialRefusal, PlannedDial, PluginKind};

/// A test for each case in each language.
macro_rules! connectors {
    ($($language:ident: $guest:literal)*) => {
        $(
            mod $language {
                #[tokio::test]
                async fn changes_what_is_dialled_and_is_told_what_the_last_came_to() {
                    if let Some(file) = super::guest($guest) {
                        super::changes_what_is_dialled(super::load(&file)).await;
                    }
                }

                #[tokio::test]
                async fn asks_over_http_and_refuses_and_says_until_when() {
                    if let Some(file) = super::guest($guest) {
                        super::asks_and_refuses(super::load(&file)).await;
                    }
                }

                #[tokio::test]
                async fn has_a_timer_and_refuses_a_configuration() {
                    if let Some(file) = super::guest($guest) {
                        super::has_a_timer(super::load(&file)).await;
                    }
                }
            }
        )*
    };
}

connectors! {
    rust: "dialling"
    c: "dialling-c"
    javascript: "dialling-javascript"
    python: "dialling-python"
    go: "dialling-go"
}

async fn connector(plugin: &Plugin, config: &str) -> ConnectorInstance {
    plugin.instantiate_connector(&setup_of_connector(config)).await.unwrap()
}

fn setup_of_connector(config: &str) -> Setup {
    Setup { kind: PluginKind::Connector, http: Some(Arc::<Answers>::default()), ..setup(config) }
}

fn planned() -> PlannedDial {
    PlannedDial {
        url: "wss://a.example/feed?a=1".into(),
        headers: vec![("authorization".into(), "old".into()), ("X-Key".into(), "1".into())],
        subprotocols: vec!["v2".into(), "v1".into()],
        first_messages: vec![Payload::text("one"), Payload::binary(vec![0xff, 0])],
    }
}

/// Asks what is to be dialled after a dial that ended so.
async fn after(instance: &mut ConnectorInstance, detail: &str) -> Result<PlannedDial, DialRefusal> {
    let last = DialEnding {
        outcome: "closed",
        detail: detail.to_owned(),
        status: None,
        close_code: Some(4001),
        lasted: Duration::from_millis(1 << 33),
    };
    instance.before_connect(DialAttempt { dial: planned(), number: 7, last: Some(last) }).await.unwrap()
}

async fn changes_what_is_dialled(plugin: Plugin) {
    let mut instance = connector(&plugin, r#"{"key":"t0ken"}"#).await;
    let attempt = || DialAttempt { dial: planned(), number: 1, last: None };
    for _ in 0..3 {
        let dialled = instance.before_connect(attempt()).await.unwrap().unwrap();
        assert_eq!(dialled.url, planned().url);
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(dialled.headers, [header("X-Key", "1"), header("Authorization", "Bearer t0ken")]);
        assert_eq!(dialled.subprotocols, planned().subprotocols);
        let first = [planned().first_messages, vec![Payload::text("hello żółw")]].concat();
        assert_eq!(dialled.first_messages, first);
    }
    let dialled = after(&mut instance, "told").await.unwrap();
    assert_eq!(dialled.headers[2], ("X-Told".to_owned(), "7 closed 0 4001 8589934592".to_owned()));
    assert_eq!((&dialled.headers[..2], &dialled.url), (&planned().headers[..], &planned().url));
    let dialled = after(&mut instance, "url:wss://b.example/ż").await.unwrap();
    assert_eq!(dialled.url, "wss://b.example/ż");
    let ending = DialEnding {
        outcome: "refused",
        detail: "told".into(),
        status: Some(401),
        close_code: None,
        lasted: Duration::ZERO,
    };
    let dialled =
        instance.before_connect(DialAttempt { last: Some(ending), ..attempt() }).await.unwrap().unwrap();
    assert_eq!(dialled.headers[2].1, "1 refused 401 0 0");
}

async fn asks_and_refuses(plugin: Plugin) {
    let mut instance = connector(&plugin, r#"{"key":"t0ken"}"#).await;
    let dialled = after(&mut instance, "ask:https://a.example/x").await.unwrap();
    assert_eq!(dialled.headers[2], ("X-Answer".to_owned(), "ó x".to_owned()));
    for (order, reason, retry_after) in [
        ("ask:https://a.example/denied", "the request is denied: not granted", None),
        ("refuse:the market is closed", "the market is closed", None),
        ("later:too many requests", "too many requests", Some(Duration::from_millis(250))),
    ] {
        let refusal = after(&mut instance, order).await.unwrap_err();
        assert_eq!(refusal, DialRefusal { reason: reason.into(), retry_after });
    }
    // It goes on after a refusal.
    assert!(after(&mut instance, "told").await.is_ok());
}

async fn has_a_timer(plugin: Plugin) {
    assert_eq!(connector(&plugin, r#"{"key":"a"}"#).await.tick_interval(), None);
    let mut instance = connector(&plugin, r#"{"key":"a","tick_ms":50}"#).await;
    assert_eq!(instance.tick_interval(), Some(Duration::from_millis(50)));
    instance.tick(1_723_075_200_000_002).await.unwrap();
    let fault = instance.tick(1_723_075_200_000_001).await.unwrap_err();
    assert!(fault.is_refusal && fault.detail.contains("1723075200000001 is odd"), "{fault}");
    assert!(after(&mut instance, "told").await.is_ok());
    for (config, key) in [("{}", "key"), (r#"{"key":"a","tock_ms":1}"#, "tock_ms"), (r#"{"key":7}"#, "key")] {
        let fault = plugin.instantiate_connector(&setup_of_connector(config)).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Init);
        assert!(
            fault.detail.contains("init refused its configuration") && fault.detail.contains(key),
            "{fault}"
        );
    }
}
