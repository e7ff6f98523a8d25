//! What crosses to a plugin and back, whatever its size and its content.

use super::*;

/// What crosses into a guest and out of it is the guest's to free: after far more bytes than it may
/// have, its memory is what it was.
pub(crate) async fn gives_back_what_it_was_passed(plugin: Plugin) {
    let mut instance = start_with(&plugin, r#"{"observe":true}"#).await;
    let text = format!("emit:side:hot:{}", "x".repeat(4096));
    let batch = texts(vec![text; 64]);
    for _ in 0..40 {
        instance.process(&batch).await.unwrap();
    }
    let before = instance.memory_bytes();
    for _ in 0..400 {
        instance.process(&batch).await.unwrap();
    }
    let grown = instance.memory_bytes() - before;
    assert!(grown <= 1 << 20, "{grown} bytes after 100 MiB in and out");
}

pub(crate) async fn is_not_asked_about_an_empty_batch(plugin: Plugin) {
    let mut instance = start(&plugin).await;
    let outcome = process(&mut instance, []).await;
    assert_eq!((outcome.forward, outcome.is_answer), (Forward::Nothing, false));
    assert!(outcome.emissions.is_empty() && outcome.rejections.is_empty() && outcome.retry.is_none());
    assert_eq!(texts_of(&process(&mut instance, ["count"]).await.emissions), ["1"]);
}

pub(crate) async fn takes_a_message_of_ten_megabytes(plugin: Plugin) {
    let limits = Limits { memory_bytes: 256 << 20, deadline: Duration::from_secs(5), ..Limits::default() };
    let mut instance = plugin.instantiate(&Setup { limits, ..setup("{}") }).await.unwrap();
    // Of several bytes a character, so that none may be cut.
    let text = "\u{17c}\u{f3}\u{142}w ".repeat(10_000_000 / 8);
    assert_eq!(text.len(), 10_000_000);
    let outcome = process(&mut instance, [&*format!("both:{text}"), "drop", &*text]).await;
    assert_eq!(outcome.forward, Forward::These(vec![0, 2]));
    // Not shown, where they differ.
    assert!(texts_of(&outcome.emissions) == [text]);
    // What is too large for the instance costs the call, and not the host.
    let mut small = start(&plugin).await;
    let huge = texts([format!("both:{}", "x".repeat(70 << 20))]);
    assert_eq!(small.process(&huge).await.unwrap_err().kind, FaultKind::Memory);
}

pub(crate) async fn takes_every_character_and_every_byte(plugin: Plugin) {
    let mut instance = start(&plugin).await;
    let spoken = [
        "",
        "\0",
        "\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}",
        "a\r\n\t\"\\",
        "e\u{301} \u{1f422}\u{200d}",
    ];
    let outcome =
        process(&mut instance, spoken.map(|text| format!("emit:default::{text}")).each_ref().map(|t| &**t))
            .await;
    assert_eq!(texts_of(&outcome.emissions), spoken);
    let bytes: Vec<u8> = (0..=255).collect();
    let mut batch = texts([""]);
    batch[0].payload = Payload::binary(bytes.clone());
    let outcome = instance.process(&batch).await.unwrap();
    let reversed: Vec<u8> = bytes.into_iter().rev().collect();
    assert_eq!(outcome.emissions.payload(0), Payload::binary(reversed));
}

/// A text of JavaScript or Python may have half of a surrogate pair, which has no UTF-8: the guests write one for each "½".
pub(crate) async fn replaces_half_a_character(plugin: Plugin) {
    let mut instance = start(&plugin).await;
    let orders = ["emit:default:½:a ½", "reject:½", "mark:½", "later:5:½"];
    let outcome = process(&mut instance, orders).await;
    assert_eq!(shown(&outcome.emissions), ["0 default mark=\u{fffd} a \u{fffd}"]);
    assert_eq!(outcome.rejections[0].reason, "\u{fffd}");
    assert_eq!(outcome.retry.unwrap().reason, "\u{fffd}");
    let mut metadata = Metadata::new(Arc::default(), 0);
    outcome.forward_metadata.write(0, &mut metadata);
    assert_eq!(metadata.get("mark"), "\u{fffd}");
    let fault = instance.process(&texts(["throw:a ½"])).await.unwrap_err();
    assert!(fault.detail.contains("a \u{fffd}"), "{}", fault.detail);
}
