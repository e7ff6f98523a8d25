//! What a plugin is shown of JSON, and what it changes in it.

use super::*;

pub(crate) async fn sees_fields(plugin: Plugin) {
    let mut instance = start_with(&plugin, r#"{"fields":true,"blind":true}"#).await;
    let outcome = process(
        &mut instance,
        [
            r#"{"do":"show","price":1.5,"a/b":"ż\u00f3\n🐢","set":[[1, {"x":null}],"\u0041"]}"#,
            r#" {"set":{"0":true,"1":-1e3},"a\/b":"","price":"12.25","do":"sh\u006fw"}"#,
            r#"{"do":"show"}"#,
            r#"{"do":"show","price":"x","a/b":7,"set":[]}"#,
            r#"{"do":"drop","do":"show","price":1,"price":null}"#,
            "not JSON",
            r#"{"do":"drop"}"#,
            r#"{"do":"show","price":0.01,"set":[ "" ,[ ] ]}"#,
        ],
    )
    .await;
    assert_eq!(
        shown(&outcome.emissions),
        [
            "0 default mark=old 150|żó\n🐢|[1, {\"x\":null}]|\"\\u0041\"",
            "1 default mark=old 1225||true|-1e3",
            "2 default mark=old -|-|-|-",
            "3 default mark=old -|-|-|-",
            "4 default mark=old -|-|-|-",
            "7 default mark=old 1|-|\"\"|[ ]",
        ]
    );
    assert_eq!(outcome.forward, Forward::These(vec![5]));
}

pub(crate) async fn emits_a_field(plugin: Plugin) {
    for config in [r#"{"symbol":true}"#, r#"{"symbol":true,"blind":true}"#] {
        let mut instance = start_with(&plugin, config).await;
        let outcome =
            process(&mut instance, [r#"{"s":"BTC\nUSDT"}"#, r#"{"s":""}"#, r#"{"s":1}"#, "no JSON"]).await;
        assert_eq!(texts_of(&outcome.emissions), ["BTC\nUSDT", "", "-", "-"]);
        assert_eq!(outcome.forward, Forward::Nothing);
    }
}

pub(crate) async fn works_without_payloads(plugin: Plugin) {
    let mut instance = start_with(&plugin, r#"{"blind":true}"#).await;
    assert!(!instance.description().payloads);
    let mut batch = texts(["drop", "", "fail:seen"]);
    batch.push(Message { payload: Payload::binary(vec![0xff]), ..batch[0].clone() });
    assert_eq!(instance.process(&batch).await.unwrap().forward, Forward::All);
    assert_eq!(shown(&instance.tick(7).await.unwrap()), ["- default mark=timer tick:7:4"]);
    // Metadata and times are seen all the same.
    let mut instance = start_with(&plugin, r#"{"blind":true,"observe":true}"#).await;
    assert_eq!(process(&mut instance, ["a"]).await.forward, Forward::All);
}

pub(crate) async fn sees_only_json(plugin: Plugin) {
    let mut instance = start_with(&plugin, r#"{"fields":true,"json":true}"#).await;
    let outcome =
        process(&mut instance, ["{", "[]", "", r#"{"do":"show"}"#, r#"{"do":"drop"}"#, "{} x", "null"]).await;
    assert_eq!(outcome.forward, Forward::These(vec![1, 6]));
    assert_eq!(shown(&outcome.emissions), ["3 default mark=old -|-|-|-"]);
    let mut rejections: Vec<_> = outcome.rejections.iter().map(|r| (r.message, r.reason.as_str())).collect();
    rejections.sort_unstable();
    let expected = [(0, "not JSON (at byte 1)"), (2, "not JSON (at byte 0)"), (5, "not JSON (at byte 3)")];
    assert_eq!(rejections, expected);
    // Nobody asks the plugin about a batch that is not for it.
    let outcome = process(&mut instance, ["x", "y"]).await;
    assert_eq!((outcome.rejections.len(), outcome.is_answer), (2, false));
    assert_eq!(shown(&instance.tick(7).await.unwrap()), ["- default mark=timer tick:7:4"]);
}

pub(crate) async fn edits(plugin: Plugin) {
    let mut instance = start_with(&plugin, r#"{"fields":true,"blind":true}"#).await;
    let deep = r#"{"do":"edit","deep":{"note" : [1],"x":1 },"set":["",""],"note":7,"price":1e2 }"#;
    let batch = [
        r#"{"do":"edit", "price" : "1.25" ,"set":[ {"y": 2} ]}"#,
        r#"{"do":"drop"}"#,
        r#"{"price":1,"note":2}"#,
        deep,
        r#"{"do":"edit","set":[null,true]}"#,
        r#"{"do":"edit","deep":{},"set":[1,"\"ż"]}"#,
        r#"{"do":"show"}"#,
        r#"{"do":"edit"}"#,
    ];
    let outcome = process(&mut instance, batch).await;
    assert_eq!(outcome.forward, Forward::These(vec![0, 2, 3, 4, 5, 7]));
    let edited = |place: usize, index: usize| {
        let payload = outcome.edited.payload(place, &Payload::text(batch[index]));
        let shown = |payload: Payload| payload.as_text().unwrap().to_owned();
        payload.map(|payload| payload.map(shown)).map_err(str::to_owned)
    };
    let of = |text: &str| Ok(Some(text.to_owned()));
    assert_eq!(edited(0, 0), of(r#"{"do":"edit", "price" : 2.5 ,"set":[ {"y": 2} ],"note":{"y": 2}}"#));
    assert_eq!(edited(1, 2), Ok(None));
    assert_eq!(edited(2, 3), of(r#"{"do":"edit","deep":{"x":1 },"set":["",""],"price":200.0 }"#));
    assert_eq!(edited(3, 4), Err("the message has no object for /deep/note".into()));
    assert_eq!(edited(4, 5), of(r#"{"do":"edit","deep":{"note":"\"ż"},"set":[1,"\"ż"],"note":1}"#));
    assert_eq!(edited(5, 7), Ok(None));
    // Nothing is copied where nothing is edited.
    assert!(
        process(&mut instance, ["{}", r#"{"do":"drop"}"#]).await.edited.payload(0, &Payload::text("{}"))
            == Ok(None)
    );
}

pub(crate) async fn filters_by_fields(plugin: Plugin) {
    for config in [r#"{"filter":true}"#, r#"{"filter":true,"blind":true}"#] {
        let mut instance = start_with(&plugin, config).await;
        let batch = [
            r#"{"p":100.5,"s":"BTCUSDT"}"#,
            r#"{"p":"100.01","s":"BTC\u0055SDT"}"#,
            r#"{"p":100,"s":"BTCUSDT"}"#,
            r#"{"p":1000,"s":"ETHUSDT"}"#,
            r#"{"p":1000}"#,
            r#"{"s":"BTCUSDT"}"#,
            "not JSON",
        ];
        assert_eq!(process(&mut instance, batch).await.forward, Forward::These(vec![0, 1]), "{config}");
    }
}

pub(crate) async fn edits_by_numbers(plugin: Plugin) {
    for config in [r#"{"notional":true}"#, r#"{"notional":true,"blind":true}"#] {
        let mut instance = start_with(&plugin, config).await;
        let batch = [r#"{"p":"57123.5","q":2}"#, r#"{"p":1,"q":2,"notional":0}"#, r#"{"p":1}"#];
        let outcome = process(&mut instance, batch).await;
        assert_eq!(outcome.forward, Forward::All);
        let edited = |n: usize| {
            let payload = outcome.edited.payload(n, &Payload::text(batch[n])).unwrap();
            payload.map(|payload| payload.as_text().unwrap().to_owned())
        };
        assert_eq!(edited(0).unwrap(), r#"{"p":"57123.5","q":2,"notional":114247.0}"#);
        assert_eq!(edited(1).unwrap(), r#"{"p":1,"q":2,"notional":2.0}"#);
        assert_eq!(edited(2), None);
    }
}
