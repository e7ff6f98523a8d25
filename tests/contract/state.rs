//! What a plugin knows: carried from one instance to the next, shared out, and kept with the host.

use super::*;

pub(crate) async fn carries_its_count(plugin: Plugin) {
    let mut old = start(&plugin).await;
    assert_eq!(old.snapshot().await.unwrap(), None);
    process(&mut old, ["a"; 41]).await;
    let snapshot = old.snapshot().await.unwrap().unwrap();
    assert_eq!(snapshot, b"41"[..]);
    let mut new = start(&plugin).await;
    new.restore(&[snapshot], StatePart::WHOLE).await.unwrap();
    for instance in [&mut new, &mut old] {
        assert_eq!(texts_of(&process(instance, ["count"]).await.emissions), ["42"]);
    }
}

pub(crate) async fn refuses_a_state(plugin: Plugin) {
    let mut instance = start(&plugin).await;
    let fault = instance.restore(&[b"a lot".to_vec()], StatePart::WHOLE).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Restore);
    assert!(fault.detail.contains("not a count"), "{}", fault.detail);
}

/// The keys of the snapshots of all old instances are shared out by their hash, 64-bit FNV-1a.
pub(crate) async fn restores_a_share(plugin: Plugin) {
    const HASHES: [(&str, u64); 3] =
        [("a", 0xaf63_dc4c_8601_ec8c), ("BTCUSDT", 0x3e64_0dbf_f523_962c), ("foobar", 0x8594_4171_f739_67e8)];
    let snapshots = [b"a=1\nBTCUSDT=10".to_vec(), b"foobar=100".to_vec()];
    for number in 0..3 {
        let mut instance = start(&plugin).await;
        instance.restore(&snapshots, StatePart { number, of: 3 }).await.unwrap();
        let shares = HASHES.iter().zip([1, 10, 100]).filter(|((_, hash), _)| hash % 3 == u64::from(number));
        let kept: u64 = shares.map(|(_, count)| count).sum();
        let count = texts_of(&process(&mut instance, ["count"]).await.emissions);
        assert_eq!(count, [(kept + 1).to_string()], "part {number}");
    }
}

pub(crate) async fn keeps_state_in_batches(plugin: Plugin) {
    let setup = setup("{}");
    let mut instance = plugin.instantiate(&setup).await.unwrap();
    instance.set_time(Some(1_000_000));
    let outcome = process(
        &mut instance,
        [
            "save:a:0:1: one",
            "load:a",
            "save:b:250:2",
            "a",
            "load:none",
            "save:c:0:3",
            "save:c:0:-",
            "load:c",
            "load:b",
        ],
    )
    .await;
    assert_eq!(texts_of(&outcome.emissions), ["1: one", "-", "-", "2"]);
    // The next instance finds it, until its time is over.
    let mut next = plugin.instantiate(&setup).await.unwrap();
    next.set_time(Some(1_249_999));
    assert_eq!(texts_of(&process(&mut next, ["load:a", "load:b"]).await.emissions), ["1: one", "2"]);
    next.set_time(Some(1_250_000));
    assert_eq!(texts_of(&process(&mut next, ["load:b", "load:a"]).await.emissions), ["-", "1: one"]);
}
