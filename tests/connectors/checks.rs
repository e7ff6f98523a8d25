//! Connectors that are tried out: by `tidemill check`, by the HTTP API, and as a plugin alone.

use super::*;
use serde_json::{Value, json};
use tidemill_tests::commands::{command, tidemill};
use tidemill_tests::sockets::{close_code_at_the_end, closed};

#[tokio::test(flavor = "multi_thread")]
async fn a_check_tries_connectors_out_and_asks_them_where_it_dials() {
    let exchange = Exchange::open().await;
    let file = exchange.folder.path("tidemill.toml");
    let check = |config: &str, more: &[&str]| {
        std::fs::write(&file, config).unwrap();
        let (code, shown, errors) = tidemill(&exchange.folder, &[&["check"][..], more].concat());
        (code, errors + &shown)
    };
    let right = exchange.pipeline(&exchange.before_connect("", ""), "");
    let (code, told) = check(&right, &[]);
    assert_eq!(code, Some(0), "{told}");

    exchange.folder.install("asking", &guest("asking").unwrap());
    for (wrong, expected) in [
        (
            right.replace("\"minting\"", "\"asking\""),
            "pipeline p, source: plugin asking of before_connect does not start: it is a transform",
        ),
        (
            right.replace("/mint\"", "/mint\", n = 1"),
            "plugin minting of before_connect does not start: init refused",
        ),
        (
            right.replace("/mint\"", "/mint\", n = \"${file:gone}\""),
            "plugin minting of before_connect does not start: `config`: failed to read ",
        ),
        (
            right.replace(&format!(", allow = [\"http://{}\"]", exchange.tokens.address), ""),
            "`allow = [\"https://api.example.com\"]` in `before_connect`",
        ),
        (
            right.replace("name = \"p\"", "name = \"p\"\ntransforms = [{ plugin = \"minting\" }]"),
            "pipeline p, transform minting: plugin minting does not start: it is a connector",
        ),
    ] {
        let (code, told) = check(&wrong, &[]);
        assert!(
            code == Some(78) && told.contains(expected) && told.contains("tidemill.toml:"),
            "{code:?} {told}"
        );
    }
    let (code, told) = check(&right.replace("\"minting\"", "\"mintign\""), &[]);
    let there_is_none = told.contains("there is no plugins/mintign.wasm yet; the pipeline waits for it");
    assert!(code == Some(0) && there_is_none && told.contains("did you mean \"minting\"?"), "{told}");

    // A check of the connections mints, dials with that, and sends nothing.
    let refused = async {
        let (asked, ()) = tokio::join!(exchange.mint("token of-a-check"), async {
            let dialled = exchange.feed.caller().await;
            assert_eq!(dialled.header("authorization"), "Bearer of-a-check");
            dialled.respond("403 Forbidden", &[], "").await;
        });
        assert_eq!(asked, "number=1&calls=1&kept=1");
    };
    std::fs::write(&file, &right).unwrap();
    let mut command = command(&exchange.folder, &["check", "--connect"]);
    let (checked, ()) = tokio::join!(tokio::task::spawn_blocking(move || command.output()), refused);
    let checked = checked.unwrap().unwrap();
    let errors = String::from_utf8(checked.stderr).unwrap();
    assert!(checked.status.code() == Some(1) && errors.contains("403 Forbidden"), "{errors}");
    assert!(!errors.contains("of-a-check"), "{errors}");

    let (_, listed, _) = tidemill(&exchange.folder, &["plugins", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let minting = listed["plugins"].as_array().unwrap().iter().find(|row| row["name"] == "minting").unwrap();
    assert_eq!(
        (&minting["uses"][0]["pipeline"], &minting["uses"][0]["endpoint"]),
        (&json!("p"), &json!("source"))
    );

    let (_, inspected, _) = tidemill(&exchange.folder, &["plugin", "inspect", "plugins/minting.wasm"]);
    assert!(inspected.contains(": connector of the contract 0.1.0, "), "{inspected}");
    let needed = "needs allow = [\"https://api.example.com\"] in before_connect of the endpoint";
    assert!(inspected.contains(needed), "{inspected}");
    let (code, _, errors) = tidemill(&exchange.folder, &["plugin", "run", "plugins/minting.wasm"]);
    assert!(code == Some(78) && errors.contains("it is a connector"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_waits_for_its_connector_and_the_api_asks_it_for_a_check() {
    let exchange = Exchange::open().await;
    std::fs::remove_file(exchange.folder.path("plugins/minting.wasm")).unwrap();
    let host = exchange.run();
    blocking(|| {
        host.wait_until("it waits", |now| now.count("tidemill_pipelines", &["state=\"waiting\""]) == 1);
    });
    let (_, pipelines) = blocking(|| host.get("/api/v1/pipelines"));
    assert!(pipelines.contains("minting"), "{pipelines}");
    exchange.folder.install("minting", &guest("minting").unwrap());
    let socket = exchange.connect("first").await;

    let tokens = exchange.tokens.address;
    let endpoint = json!({
        "type": "websocket",
        "url": format!("ws://{}/check", exchange.feed.address),
        "before_connect": {
            "plugin": "minting", "config": { "url": format!("http://{tokens}/mint") },
            "allow": [format!("http://{tokens}")],
        },
    });
    let exchanged = async {
        assert_eq!(exchange.mint("token of-a-check").await, "number=1&calls=1&kept=1");
        let dialled = exchange.feed.caller().await;
        assert_eq!(dialled.target(), "/check?token=of-a-check");
        let mut checked = dialled.accept().await;
        assert_eq!(closed(&mut checked).await.0, 1000, "nothing else is sent");
        close_code_at_the_end(checked).await;
    };
    let answer = tokio::task::spawn_blocking(move || {
        let answer = host.json("POST", "/api/v1/connections/check", &endpoint);
        (host, answer)
    });
    let (answered, ()) = tokio::join!(answer, exchanged);
    let (host, answer) = answered.unwrap();
    assert_eq!(answer, (200, json!({ "reachable": true })));
    drop(host);
    close_code_at_the_end(socket).await;
}
