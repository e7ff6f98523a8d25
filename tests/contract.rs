//! The plugin contract in five languages: `tests/guests/contract` has one small plugin in each, and
//! all of them must do the same in every case here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "contract/connectors.rs"]
mod connectors;
#[path = "contract/fields.rs"]
mod fields;
#[path = "contract/sizes.rs"]
mod sizes;
#[path = "contract/state.rs"]
mod state;

use fields::{
    edits, edits_by_numbers, emits_a_field, filters_by_fields, sees_fields, sees_only_json,
    works_without_payloads,
};
use futures_util::future::BoxFuture;
use sizes::{
    gives_back_what_it_was_passed, is_not_asked_about_an_empty_batch, replaces_half_a_character,
    takes_a_message_of_ten_megabytes, takes_every_character_and_every_byte,
};
use state::{carries_its_count, keeps_state_in_batches, refuses_a_state, restores_a_share};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidemill::config::Limits;
use tidemill::message::metadata::{Metadata, Origin};
use tidemill::message::{Message, Payload};
use tidemill::plugin::{
    AnswerRoom, ColumnForm, Emissions, FaultKind, Forward, Http, HttpError, HttpRequest, HttpResponse,
    Instance, Outcome, Plugin, Setup, StatePart,
};
use tidemill_tests::{guest, load, setup, texts};

/// A test for each case in each language.
macro_rules! every_language {
    ($($case:ident)*) => {
        in_language! { rust: $($case)* }
        in_language! { c: $($case)* }
        in_language! { javascript: $($case)* }
        in_language! { python: $($case)* }
        in_language! { go: $($case)* }
    };
}

macro_rules! in_language {
    ($language:ident: $($case:ident)*) => {
        mod $language {
            $(
                #[tokio::test]
                async fn $case() {
                    if let Some(file) = super::guest(concat!("contract-", stringify!($language))) {
                        super::$case(super::load(&file)).await;
                    }
                }
            )*
        }
    };
}

/// The cases of the guests that ask over HTTP, in each language.
macro_rules! where_there_is_http {
    ($($language:ident: $guest:literal)*) => {
        $(
            mod $language {
                #[tokio::test]
                async fn asks_over_http_and_is_told_why_there_is_no_answer() {
                    if let Some(file) = super::super::guest($guest) {
                        super::super::asks_over_http(super::super::load(&file)).await;
                    }
                }

                #[tokio::test]
                async fn does_not_start_where_nothing_is_granted_or_its_configuration_is_wrong() {
                    if let Some(file) = super::super::guest($guest) {
                        super::super::does_not_start(super::super::load(&file)).await;
                    }
                }
            }
        )*
    };
}

mod http {
    where_there_is_http! {
        rust: "asking"
        c: "asking-c"
        javascript: "asking-javascript"
        python: "asking-python"
        go: "asking-go"
    }
}

every_language! {
    describes_itself
    refuses_a_configuration
    begins_in_a_replay_before_there_is_a_time
    forwards_all_some_and_none
    forwards_to_an_output
    emits_with_output_and_metadata
    emits_beside_what_it_forwards
    keeps_text_and_binary_apart
    sees_metadata_and_times
    rejects_with_a_reason
    ends_a_call_with_an_error
    emits_at_a_tick
    emits_at_the_end
    carries_its_count
    refuses_a_state
    restores_a_share
    sees_fields
    emits_a_field
    works_without_payloads
    sees_only_json
    edits
    sets_metadata_of_what_it_forwards
    tries_again
    keeps_state_in_batches
    gives_back_what_it_was_passed
    filters_by_fields
    edits_by_numbers
    is_not_asked_about_an_empty_batch
    takes_a_message_of_ten_megabytes
    takes_every_character_and_every_byte
}

mod halves {
    use super::*;

    in_language! { javascript: replaces_half_a_character }
    in_language! { python: replaces_half_a_character }
}

async fn describes_itself(plugin: Plugin) {
    let instance = start(&plugin).await;
    let description = instance.description();
    let form = match &**plugin.name() {
        "contract-javascript" | "contract-python" => ColumnForm::Each,
        _ => ColumnForm::Packed,
    };
    assert_eq!(description.form, form);
    assert_eq!(description.outputs, ["side".into()]);
    assert_eq!(description.writes, ["mark".into()]);
    assert_eq!(description.tick, Some(Duration::from_millis(50)));
    assert_eq!((description.reads.len(), description.times), (0, false));
    let observing = start_with(&plugin, r#"{"observe":true}"#).await;
    assert_eq!(observing.description().reads, ["room".into()]);
    assert!(observing.description().times);
    let guarding = start_with(&plugin, r#"{"guards":true}"#).await;
    assert_eq!((description.guards, guarding.description().guards), (false, true));
}

async fn refuses_a_configuration(plugin: Plugin) {
    let fault = plugin.instantiate(&setup(r#"{"refuse":true}"#)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Init);
    assert!(fault.detail.contains("refused, as asked"), "{}", fault.detail);
}

async fn begins_in_a_replay_before_there_is_a_time(plugin: Plugin) {
    let setup = Setup { is_replay: true, ..setup("{}") };
    let mut instance = plugin.instantiate(&setup).await.unwrap();
    instance.set_time(Some(1_723_100_000_000_000));
    assert_eq!(instance.process(&texts(["one"])).await.unwrap().forward, Forward::All);
}

async fn forwards_all_some_and_none(plugin: Plugin) {
    let mut instance = start(&plugin).await;
    let outcome = process(&mut instance, ["a", "", "c: d"]).await;
    assert_eq!(outcome.forward, Forward::All);
    let outcome = process(&mut instance, ["a", "drop", "c", "drop"]).await;
    assert_eq!(outcome.forward, Forward::These(vec![0, 2]));
    let outcome = process(&mut instance, ["drop", "drop"]).await;
    assert_eq!(outcome.forward, Forward::Nothing);
    assert!(outcome.emissions.is_empty() && outcome.rejections.is_empty());
}

async fn forwards_to_an_output(plugin: Plugin) {
    let mut instance = start(&plugin).await;
    let outcome = process(&mut instance, ["a", "forward:side", "drop", "b"]).await;
    assert_eq!(outcome.forward, Forward::These(vec![0, 1, 3]));
    assert_eq!(outcome.forward_outputs, [0, 1, 0]);
    let outcome = process(&mut instance, ["a"]).await;
    assert!(outcome.forward_outputs.iter().all(|output| *output == 0));
}

async fn emits_with_output_and_metadata(plugin: Plugin) {
    let mut instance = start(&plugin).await;
    // Only some have a mark, then all, then none: each crosses in its own way.
    let outcome = process(
        &mut instance,
        ["emit:side:hot:one: with a colon", "drop", "emit:default::żółw 🐢", "emit:side:-:"],
    )
    .await;
    assert_eq!(outcome.forward, Forward::Nothing);
    assert_eq!(
        shown(&outcome.emissions),
        ["0 side mark=hot one: with a colon", "2 default mark=old żółw 🐢", "3 side mark= "]
    );
    let outcome = process(&mut instance, ["emit:default:ü:a", "emit:default:-:b"]).await;
    assert_eq!(shown(&outcome.emissions), ["0 default mark=ü a", "1 default mark= b"]);
    let outcome = process(&mut instance, ["emit:side::a", "emit:side::b"]).await;
    assert_eq!(shown(&outcome.emissions), ["0 side mark=old a", "1 side mark=old b"]);
}

async fn emits_beside_what_it_forwards(plugin: Plugin) {
    let mut instance = start(&plugin).await;
    let outcome = process(&mut instance, ["both:a", "b"]).await;
    assert_eq!(outcome.forward, Forward::All);
    assert_eq!(shown(&outcome.emissions), ["0 default mark=old a"]);
}

async fn keeps_text_and_binary_apart(plugin: Plugin) {
    let mut instance = start(&plugin).await;
    let mut batch = texts(["count", "", "count"]);
    batch[1].payload = Payload::binary(vec![0xff, 0, b':', 1]);
    let outcome = instance.process(&batch).await.unwrap();
    let payloads: Vec<Payload> = (0..3).map(|i| outcome.emissions.payload(i)).collect();
    let reversed = Payload::binary(vec![1, b':', 0, 0xff]);
    assert_eq!(payloads, [Payload::text("1"), reversed, Payload::text("3")]);
}

async fn sees_metadata_and_times(plugin: Plugin) {
    let mut instance = start_with(&plugin, r#"{"observe":true}"#).await;
    let (seven, nowhere) = (Origin::new([("room", "7")]), Arc::default());
    let at = |text: &str, origin: &Arc<Origin>, time| Message {
        payload: Payload::text(text),
        metadata: Metadata::new(origin.clone(), time),
    };
    // The same value for all crosses once, values that differ one by one.
    let one_room = [at("room", &seven, 1), at("room", &seven, 2)];
    let outcome = instance.process(&one_room).await.unwrap();
    assert_eq!(texts_of(&outcome.emissions), ["7", "7"]);
    let mut rooms = vec![at("room", &seven, 1), at("room", &nowhere, 2), at("room", &seven, 3)];
    rooms[2].metadata.set(&"room".into(), "ósmy");
    let outcome = instance.process(&rooms).await.unwrap();
    assert_eq!(texts_of(&outcome.emissions), ["7", "", "ósmy"]);
    // The largest number of microseconds that a double holds exactly: the year 2255.
    let times = [at("time", &nowhere, 1_723_075_200_000_001), at("time", &nowhere, (1 << 53) - 1)];
    let outcome = instance.process(&times).await.unwrap();
    assert_eq!(texts_of(&outcome.emissions), ["1723075200000001", "9007199254740991"]);
}

async fn rejects_with_a_reason(plugin: Plugin) {
    let mut instance = start(&plugin).await;
    let outcome = process(&mut instance, ["reject:no: thanks", "a", "reject:"]).await;
    assert_eq!(outcome.forward, Forward::These(vec![1]));
    let rejections: Vec<_> = outcome.rejections.iter().map(|r| (r.message, r.reason.as_str())).collect();
    assert_eq!(rejections, [(0, "no: thanks"), (2, "")]);
}

async fn ends_a_call_with_an_error(plugin: Plugin) {
    let mut instance = start(&plugin).await;
    let fault = instance.process(&texts(["a", "fail:out of order"])).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.detail.contains("out of order"), "{}", fault.detail);
    instance.process(&texts(["a"])).await.unwrap_err();
    let outcome = process(&mut start(&plugin).await, ["a"]).await;
    assert_eq!(outcome.forward, Forward::All);
}

async fn emits_at_a_tick(plugin: Plugin) {
    let mut instance = start(&plugin).await;
    assert!(instance.tick(4).await.unwrap().is_empty());
    process(&mut instance, ["a", "b"]).await;
    let emissions = instance.tick(1_723_075_200_000_001).await.unwrap();
    assert_eq!(shown(&emissions), ["- default mark=timer tick:1723075200000001:2"]);
}

async fn emits_at_the_end(plugin: Plugin) {
    let mut instance = start(&plugin).await;
    process(&mut instance, ["a", "drop", "c"]).await;
    let emissions = instance.finish().await.unwrap();
    assert_eq!(shown(&emissions), ["- side mark=old finish:3"]);
}

async fn sets_metadata_of_what_it_forwards(plugin: Plugin) {
    let mut instance = start(&plugin).await;
    let marks = |outcome: &Outcome, count: usize| -> Vec<String> {
        let mark = |place| {
            let mut metadata = Metadata::new(Origin::new([("mark", "old")]), 0);
            outcome.forward_metadata.write(place, &mut metadata);
            metadata.get("mark").into_owned()
        };
        (0..count).map(mark).collect()
    };
    // Only some have a mark, then all, then none: each crosses in its own way.
    let outcome =
        process(&mut instance, ["a", "mark:hot", "drop", "mark:-", "forward:side", "mark:ü: b"]).await;
    assert_eq!(outcome.forward, Forward::These(vec![0, 1, 3, 4, 5]));
    assert_eq!(marks(&outcome, 5), ["old", "hot", "", "old", "ü: b"]);
    let outcome = process(&mut instance, ["drop", "mark:1", "mark:-"]).await;
    assert_eq!(marks(&outcome, 2), ["1", ""]);
    let outcome = process(&mut instance, ["a", "b"]).await;
    assert!(outcome.forward_metadata.is_empty());
}

async fn tries_again(plugin: Plugin) {
    let mut instance = start(&plugin).await;
    let outcome =
        process(&mut instance, ["a", "emit:side::b", "reject:no", "later:1500:not yet: wait", "reject:no"])
            .await;
    assert_eq!(outcome.forward, Forward::These(vec![0]));
    assert_eq!(shown(&outcome.emissions), ["1 side mark=old b"]);
    assert_eq!(outcome.rejections.len(), 1);
    let retry = outcome.retry.unwrap();
    assert_eq!((retry.message, &*retry.reason, retry.after.as_millis()), (3, "not yet: wait", 1500));
    let retry = process(&mut instance, ["later:0:"]).await.retry.unwrap();
    assert_eq!((retry.message, &*retry.reason, retry.after.as_millis()), (0, "", 0));
}

/// Answers what the path of a request says.
#[derive(Default)]
struct Answers {
    asked: Mutex<Vec<HttpRequest>>,
}

impl Http for Answers {
    fn send<'a>(
        &'a self,
        request: HttpRequest,
        _: &'a AnswerRoom,
    ) -> BoxFuture<'a, Result<HttpResponse, HttpError>> {
        let answer = match request.url.rsplit('/').next().unwrap() {
            "invalid" => Err(HttpError::Invalid("no url".into())),
            "denied" => Err(HttpError::Denied("not granted".into())),
            "late" => Err(HttpError::Timeout),
            "large" => Err(HttpError::TooLarge(18_446_744_073_709)),
            "broken" => Err(HttpError::Failed("cut off".into())),
            path => {
                let headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
                Ok(HttpResponse { status: 404, headers, body: format!("ó {path}").into_bytes() })
            }
        };
        self.asked.lock().unwrap().push(request);
        Box::pin(async move { answer })
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(10)
    }
}

async fn asks_over_http(plugin: Plugin) {
    let answers = Arc::new(Answers::default());
    let setup = Setup { http: Some(answers.clone()), ..setup(r#"{"timeout_ms":250}"#) };
    let mut instance = plugin.instantiate(&setup).await.unwrap();
    let one = "POST https://a.example/x x-key:1 x-other:a # {\"a\":\"ó\"}";
    let several: Vec<String> = ["invalid", "denied", "late", "large", "broken", "y", ""]
        .map(|path| format!("GET https://a.example/{path}"))
        .into();
    let outcome = process(&mut instance, [one, &several.join("\n"), "GET https://a.example/denied"]).await;
    let told = "the request is invalid: no url\n\
                the request is denied: not granted\n\
                the answer took too long\n\
                the answer has more than 18446744073709 bytes\n\
                the request failed: cut off\n\
                404 ó y\n\
                404 ó ";
    assert_eq!(texts_of(&outcome.emissions), ["404 ó x", told, "the request is denied: not granted"]);
    let asked = answers.asked.lock().unwrap();
    let HttpRequest { method, url, headers, body, timeout, .. } = &asked[0];
    assert_eq!(
        (&**method, &**url, timeout),
        ("POST", "https://a.example/x", &Some(Duration::from_millis(250)))
    );
    assert_eq!(headers, &[("x-key".to_owned(), "1".to_owned()), ("x-other".to_owned(), "a".to_owned())]);
    assert_eq!(body, "{\"a\":\"ó\"}".as_bytes());
    assert!(asked[1..].iter().all(|request| request.method == "GET" && request.body.is_empty()));
    assert_eq!(asked.len(), 9);
}

async fn does_not_start(plugin: Plugin) {
    let refused = async |http: Option<Arc<dyn Http>>, config: &str| {
        let setup = Setup { http, ..setup(config) };
        let fault = plugin.instantiate(&setup).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Init);
        fault.detail
    };
    let detail = refused(None, "{}").await;
    assert!(
        detail.contains("tidemill:plugin/http") && detail.contains("no requests are granted"),
        "{detail}"
    );
    for (config, key) in [(r#"{"timeout_ms":"soon"}"#, "timeout_ms"), (r#"{"timeouts":1}"#, "timeouts")] {
        let detail = refused(Some(Arc::<Answers>::default()), config).await;
        assert!(
            detail.contains("init refused its configuration") && detail.contains(key),
            "{config}: {detail}"
        );
    }
}

async fn start(plugin: &Plugin) -> Instance {
    start_with(plugin, "{}").await
}

async fn start_with(plugin: &Plugin, config: &str) -> Instance {
    plugin.instantiate(&setup(config)).await.unwrap()
}

async fn process<const N: usize>(instance: &mut Instance, batch: [&str; N]) -> Outcome {
    instance.process(&texts(batch)).await.unwrap()
}

fn texts_of(emissions: &Emissions) -> Vec<String> {
    let text = |i| emissions.payload(i).as_text().expect("the fixtures answer text with text").to_owned();
    (0..emissions.len()).map(text).collect()
}

/// One line an emission: origin, output, the metadata `mark` if the origin's was `old`, text.
fn shown(emissions: &Emissions) -> Vec<String> {
    let texts = texts_of(emissions);
    let line = |(i, text): (usize, String)| {
        let origin = emissions.origin(i).map_or("-".to_owned(), |origin| origin.to_string());
        let output = ["default", "side"][usize::from(emissions.output(i))];
        let mut metadata = Metadata::new(Origin::new([("mark", "old")]), 0);
        emissions.write_metadata(i, &mut metadata);
        format!("{origin} {output} mark={} {text}", metadata.get("mark"))
    };
    texts.into_iter().enumerate().map(line).collect()
}
