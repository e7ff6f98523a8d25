//! Components of the contract 0.1 as they were built when it was frozen, kept in `tests/frozen`: this host does with each
//! what every host before it did. And one that wants a newer contract is told so in a sentence.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::future::BoxFuture;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tidemill::message::metadata::{Metadata, Origin};
use tidemill::message::{Message, Payload};
use tidemill::plugin::{
    AnswerRoom, DialAttempt, DialEnding, DialRefusal, Emissions, Forward, Http, HttpError, HttpRequest,
    HttpResponse, Instance, Outcome, PlannedDial, Plugin, PluginKind, Setup, StatePart,
};
use tidemill_tests::host::{Folder, binary};
use tidemill_tests::{engine, root, setup, texts};

/// What a component makes of a batch with a configuration: a line for each thing that becomes of a message, by message.
struct FrozenCase {
    config: &'static str,
    batch: &'static [&'static str],
    told: &'static [&'static str],
}

/// These lines never change, as the components do not: a host that gives others breaks plugins that somebody runs.
const CASES: &[FrozenCase] = &[
    FrozenCase {
        config: "{}",
        batch: &["a", "drop", "forward:side", "mark:hot", "mark:-", ""],
        told: &[
            "0 forwarded mark=old",
            "2 forwarded to side mark=old",
            "3 forwarded mark=hot",
            "4 forwarded mark=",
            "5 forwarded mark=old",
        ],
    },
    FrozenCase {
        config: "{}",
        batch: &["emit:side:hot:one: two", "both:b", "emit:default:-:żółw 🐢", "emit:default::"],
        told: &[
            "0 emitted to side mark=hot one: two",
            "1 forwarded mark=old",
            "1 emitted mark=old b",
            "2 emitted mark= żółw 🐢",
            "3 emitted mark=old ",
        ],
    },
    FrozenCase {
        config: "{}",
        batch: &["a", "reject:no: thanks", "later:1500:not yet", "b"],
        told: &["0 forwarded mark=old", "1 rejected no: thanks", "2 put off for 1500 ms not yet"],
    },
    FrozenCase {
        config: r#"{"filter":true,"blind":true}"#,
        batch: &[r#"{"p":"100.5","s":"BTCUSDT"}"#, r#"{"p":99,"s":"BTCUSDT"}"#, r#"{"p":101}"#, "no JSON"],
        told: &["0 forwarded mark=old"],
    },
    FrozenCase {
        config: r#"{"notional":true}"#,
        batch: &[r#"{"p":"1.5", "q":4}"#, r#"{"notional":1,"p":2,"q":3}"#],
        told: &[
            r#"0 forwarded mark=old as {"p":"1.5", "q":4,"notional":6.0}"#,
            r#"1 forwarded mark=old as {"notional":6.0,"p":2,"q":3}"#,
        ],
    },
    FrozenCase {
        config: r#"{"fields":true,"json":true}"#,
        batch: &[
            r#"{"do":"show","price":1.5,"a/b":"ż\u00f3","set":[[1, {"x":null}],"\u0041"]}"#,
            r#"{"do":"edit","price":2,"note":0,"deep":{},"set":["",[1]]}"#,
            "{",
        ],
        told: &[
            "0 emitted mark=old 150|żó|[1, {\"x\":null}]|\"\\u0041\"",
            r#"1 forwarded mark=old as {"do":"edit","price":4.0,"deep":{"note":[1]},"set":["",[1]]}"#,
            "2 rejected not JSON (at byte 1)",
        ],
    },
];

/// The languages, each with a component.
macro_rules! in_every_language {
    ($($language:ident)*) => {
        const LANGUAGES: &[&str] = &[$(stringify!($language)),*];

        $(
            mod $language {
                #[tokio::test]
                async fn it_does_what_it_did() {
                    super::it_does_what_it_did(super::frozen(stringify!($language))).await;
                }

                #[tokio::test]
                async fn it_goes_on_with_the_state_that_it_had() {
                    super::it_goes_on_with_the_state_that_it_had(super::frozen(stringify!($language))).await;
                }
            }
        )*
    };
}

in_every_language! { rust c go javascript python }

/// Languages that have a connector, too.
macro_rules! connectors {
    ($($language:ident)*) => {
        const CONNECTORS: &[&str] = &[$(concat!("connector-", stringify!($language))),*];

        mod connectors {
            $(
                #[tokio::test]
                async fn $language() {
                    let plugin = super::frozen(concat!("connector-", stringify!($language)));
                    super::it_dials_as_it_did(plugin).await;
                }
            )*
        }
    };
}

connectors! { rust c go javascript }

/// The digests of all components, packed as they are: another file in their place would prove nothing.
const DIGESTS: &[(&str, &str)] = &[
    ("rust", "ead7323e51a3bb1d2960c055d098d4d82c5745e5899a59901aeffdaa49d65178"),
    ("c", "3c145b9af9aa0c1a890e14bf6298e144325bfdb8f8d2464370731d49a40dcb77"),
    ("go", "cfe0e56c40577cae331d08333e43f0574eb4340347145880a3733d2b25802fd1"),
    ("javascript", "8492481dbf3302ed3e5ab34b97b41f9867defd42f0305f936497f9306866498f"),
    ("python", "efae23f03abf8ee5d6dfb9ded9d4e8d6d8fd3e77fedf84d4cb995f149b30b476"),
    ("connector-rust", "86b68b4640e04f6d9fe8434ec8a92247d3b32992c411314c62415b63f608eede"),
    ("connector-c", "b0e2db23a3298f16e98454d27f695eda3e4bc38c54e173fb0842850a444351cc"),
    ("connector-go", "b185a18b3a27ec5495352042f317518392863a64057b25ff50db6fab2eebec07"),
    ("connector-javascript", "60c6bcf74ab00cdbc1be2cf2bc3187048bf875c0cf18046feb1ddd62b398aeb2"),
];

#[test]
fn every_component_is_as_it_was_and_is_run() {
    let kept = fs::read_dir(root().join("tests/frozen/0.1")).unwrap();
    let mut kept: Vec<_> = kept.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    kept.sort();
    let run: BTreeSet<_> =
        LANGUAGES.iter().chain(CONNECTORS).map(|name| format!("{name}.wasm.zst")).collect();
    assert_eq!(kept, Vec::from_iter(run));
    for (name, digest) in DIGESTS {
        let file = fs::read(root().join(format!("tests/frozen/0.1/{name}.wasm.zst"))).unwrap();
        assert_eq!(hex(&file), *digest, "{name} is never made again");
    }
    assert_eq!(DIGESTS.len(), kept.len());
}

fn hex(file: &[u8]) -> String {
    Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The component of a language, as it was.
fn component(language: &str) -> Vec<u8> {
    let path = root().join(format!("tests/frozen/0.1/{language}.wasm.zst"));
    zstd::decode_all(fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .unwrap()
}

fn frozen(language: &str) -> Plugin {
    engine().load(language, &component(language)).unwrap()
}

async fn it_does_what_it_did(plugin: Plugin) {
    for FrozenCase { config, batch, told } in CASES {
        let mut instance = plugin.instantiate(&setup(config)).await.unwrap();
        let batch = texts(*batch);
        let outcome = instance.process(&batch).await.unwrap();
        assert_eq!(lines(&outcome, &batch), *told, "{config}");
    }
    let mut instance = start(&plugin).await;
    instance.process(&texts(["a", "b"])).await.unwrap();
    let ticked = instance.tick(1_723_075_200_000_001).await.unwrap();
    assert_eq!(emitted(&ticked, 0), "emitted mark=timer tick:1723075200000001:2");
    let ended = instance.finish().await.unwrap();
    assert_eq!(emitted(&ended, 0), "emitted to side mark=old finish:2");
    let refused = plugin.instantiate(&setup(r#"{"refuse":true}"#)).await.unwrap_err();
    assert!(refused.detail.contains("refused, as asked"), "{refused}");
}

async fn it_goes_on_with_the_state_that_it_had(plugin: Plugin) {
    // As they were taken of these components then.
    for (snapshots, part, count) in [
        (vec![&b"41"[..]], StatePart::WHOLE, "42"),
        (vec![&b"a=1\nBTCUSDT=10"[..], b"foobar=100"], StatePart { number: 0, of: 3 }, "111"),
        (vec![&b"a=1\nBTCUSDT=10"[..], b"foobar=100"], StatePart { number: 1, of: 3 }, "2"),
    ] {
        let mut instance = start(&plugin).await;
        instance.restore(&snapshots, part).await.unwrap();
        let outcome = instance.process(&texts(["count"])).await.unwrap();
        assert_eq!(emitted(&outcome.emissions, 0), format!("emitted mark=old {count}"));
        assert_eq!(instance.snapshot().await.unwrap().unwrap(), count);
    }
    // What is kept with the host.
    let setup = setup("{}");
    let mut first = plugin.instantiate(&setup).await.unwrap();
    first.set_time(Some(1_000_000));
    first.process(&texts(["save:a:0:one", "save:b:250:two"])).await.unwrap();
    let mut next = plugin.instantiate(&setup).await.unwrap();
    for (time_us, expected) in [(1_249_999, ["one", "two"]), (1_250_000, ["one", "-"])] {
        next.set_time(Some(time_us));
        let loaded = next.process(&texts(["load:a", "load:b"])).await.unwrap().emissions;
        assert_eq!([0, 1].map(|n| loaded.payload(n)), expected.map(tidemill::message::Payload::text));
    }
}

/// Requests that nobody answers.
struct Nobody;

impl Http for Nobody {
    fn send<'a>(
        &'a self,
        request: HttpRequest,
        _: &'a AnswerRoom,
    ) -> BoxFuture<'a, Result<HttpResponse, HttpError>> {
        Box::pin(async move { Err(HttpError::Denied(request.url)) })
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(1)
    }
}

async fn it_dials_as_it_did(plugin: Plugin) {
    let setup =
        |config: &str| Setup { kind: PluginKind::Connector, http: Some(Arc::new(Nobody)), ..setup(config) };
    let refused = plugin.instantiate_connector(&setup("{}")).await.unwrap_err();
    assert!(refused.detail.contains("key"), "{refused}");
    let mut instance = plugin.instantiate_connector(&setup(r#"{"key":"t0ken","tick_ms":50}"#)).await.unwrap();
    assert_eq!(instance.tick_interval(), Some(Duration::from_millis(50)));
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let planned = PlannedDial {
        url: "wss://a.example/feed".into(),
        headers: vec![header("authorization", "old"), header("X-Key", "1")],
        subprotocols: vec!["v2".into(), "v1".into()],
        first_messages: vec![Payload::text("one"), Payload::binary(vec![0xff, 0])],
    };
    let first = DialAttempt { dial: planned.clone(), number: 1, last: None };
    let changed = PlannedDial {
        headers: vec![header("X-Key", "1"), header("Authorization", "Bearer t0ken")],
        first_messages: [planned.first_messages.clone(), vec![Payload::text("hello żółw")]].concat(),
        ..planned.clone()
    };
    assert_eq!(instance.before_connect(first).await.unwrap(), Ok(changed));
    let refusal = |reason: &str, retry_after| Err(DialRefusal { reason: reason.into(), retry_after });
    let told = vec![
        header("authorization", "old"),
        header("X-Key", "1"),
        header("X-Told", "7 closed 401 4001 1500"),
    ];
    for (detail, expected) in [
        ("told", Ok(PlannedDial { headers: told, ..planned.clone() })),
        ("url:wss://b.example/ż", Ok(PlannedDial { url: "wss://b.example/ż".into(), ..planned.clone() })),
        ("ask:https://a.example/", refusal("the request is denied: https://a.example/", None)),
        ("refuse:the market is closed", refusal("the market is closed", None)),
        ("later:too often", refusal("too often", Some(Duration::from_millis(250)))),
    ] {
        let last = DialEnding {
            outcome: "closed",
            detail: detail.into(),
            status: Some(401),
            close_code: Some(4001),
            lasted: Duration::from_millis(1500),
        };
        let attempt = DialAttempt { dial: planned.clone(), number: 7, last: Some(last) };
        assert_eq!(instance.before_connect(attempt).await.unwrap(), expected, "{detail}");
    }
    instance.tick(2).await.unwrap();
    let fault = instance.tick(1).await.unwrap_err();
    assert!(fault.is_refusal && fault.detail.contains("1 is odd"), "{fault}");
}

async fn start(plugin: &Plugin) -> Instance {
    plugin.instantiate(&setup("{}")).await.unwrap()
}

/// What became of a batch, by message.
fn lines(outcome: &Outcome, batch: &[Message]) -> Vec<String> {
    let forwarded: Vec<usize> = match &outcome.forward {
        Forward::Nothing => Vec::new(),
        Forward::All => (0..batch.len()).collect(),
        Forward::These(indices) => indices.iter().map(|index| *index as usize).collect(),
    };
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (place, index) in forwarded.into_iter().enumerate() {
        let to = to(outcome.forward_outputs.get(place).copied().unwrap_or(0));
        let mut metadata = marked();
        if !outcome.forward_metadata.is_empty() {
            outcome.forward_metadata.write(place, &mut metadata);
        }
        let edited = outcome.edited.payload(place, &batch[index].payload).unwrap();
        let edited = edited.map_or(String::new(), |payload| format!(" as {}", payload.as_text().unwrap()));
        lines.push((index, format!("forwarded{to} mark={}{edited}", metadata.get("mark"))));
    }
    let emissions = &outcome.emissions;
    lines.extend((0..emissions.len()).map(|n| (emissions.origin(n).unwrap(), emitted(emissions, n))));
    lines.extend(
        outcome
            .rejections
            .iter()
            .map(|rejection| (rejection.message as usize, format!("rejected {}", rejection.reason))),
    );
    lines.extend(outcome.retry.iter().map(|retry| {
        (retry.message as usize, format!("put off for {} ms {}", retry.after.as_millis(), retry.reason))
    }));
    lines.sort_by_key(|(message, _)| *message);
    lines.into_iter().map(|(message, line)| format!("{message} {line}")).collect()
}

fn emitted(emissions: &Emissions, n: usize) -> String {
    let mut metadata = marked();
    emissions.write_metadata(n, &mut metadata);
    let (payload, to) = (emissions.payload(n), to(emissions.output(n)));
    format!("emitted{to} mark={} {}", metadata.get("mark"), payload.as_text().unwrap())
}

fn marked() -> Metadata {
    Metadata::new(Origin::new([("mark", "old")]), 0)
}

fn to(output: u16) -> &'static str {
    ["", " to side"][usize::from(output)]
}

/// The component in Rust, with another version of the contract in all its names.
fn of_version(version: &str) -> Vec<u8> {
    let mut wasm = component("rust");
    let (old, new) = (b"@0.1.0", format!("@{version}"));
    assert_eq!(new.len(), old.len(), "the names keep their lengths");
    let places: Vec<usize> = (0..wasm.len() - old.len()).filter(|&at| wasm[at..].starts_with(old)).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| wasm[at..at + old.len()].copy_from_slice(new.as_bytes()));
    wasm
}

#[tokio::test]
async fn one_that_was_built_for_a_later_patch_runs() {
    let plugin = engine().load("later", &of_version("0.1.7")).unwrap();
    let outcome = start(&plugin).await.process(&texts(["a", "drop"])).await.unwrap();
    assert_eq!(outcome.forward, Forward::These(vec![0]));
}

#[test]
fn one_that_wants_a_newer_contract_is_told_which_and_what_to_do() {
    let folder = Folder::default();
    let file: PathBuf = folder.path("newer.wasm");
    fs::write(&file, of_version("0.2.0")).unwrap();
    let told = |args: &[&str]| {
        let mut command = Command::new(binary());
        command.current_dir(folder.path("")).arg("plugin").args(args).arg(&file);
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (code, said) = told(&["inspect"]);
    let sentence = "problem  it is for the contract 0.2.0, and this host speaks 0.1.0\n";
    assert!(code == Some(1) && said.contains(sentence), "{said}");
    let (code, said) = told(&["run", "--text", "a"]);
    let sentence = "error: failed to load plugin newer: the component exports \
                    tidemill:plugin/transformer@0.2.0, this host speaks tidemill:plugin@0.1.0\n\
                    hint: build it with the SDK of this host's version\n";
    assert!(code == Some(1) && said == sentence, "{said}");
}
