//! What a hostile plugin can do to an instance: each thing ends in the fault that names it, the host
//! lives, and the next instance works.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::pin::pin;
use std::sync::LazyLock;
use std::time::Duration;
use tidemill::config::{Limits, Redacted};
use tidemill::plugin::{FaultKind, Forward, Instance, LoadProblem, Plugin, Setup, StatePart};
use tidemill::telemetry::Metrics;
use tidemill_tests::{engine, guest, load, load_quickly, setup, texts};

/// Enough for everything that ends by itself on a busy machine, too little for a test to wait for.
const DEADLINE: Duration = Duration::from_millis(200);

fn hostile() -> Plugin {
    load(&guest("hostile").expect("guests in Rust are always built"))
}

/// The same, as it runs until it is optimised.
fn quick() -> &'static Plugin {
    static QUICK: LazyLock<Plugin> =
        LazyLock::new(|| load_quickly(&guest("hostile").expect("guests in Rust are always built")));
    &QUICK
}

fn order(behaviour: &str, place: &str) -> Setup {
    let limits = Limits { deadline: DEADLINE, ..Limits::default() };
    Setup { limits, ..setup(&format!(r#"{{"behaviour":"{behaviour}","where":"{place}"}}"#)) }
}

async fn start(behaviour: &str, place: &str) -> Instance {
    hostile().instantiate(&order(behaviour, place)).await.unwrap()
}

/// What `process` ends in when a message says `poison`; checks that the instance is no longer used,
/// and that another one is not harmed.
async fn poisoned(behaviour: &str) -> FaultKind {
    fault(behaviour).await.0
}

/// The same, with what it says.
async fn fault(behaviour: &str) -> (FaultKind, String) {
    let (kind, detail) = fault_of(&hostile(), behaviour).await;
    let (quick, quick_detail) = fault_of(quick(), behaviour).await;
    assert_eq!(kind, quick, "what is optimised ends in {detail}, and what is not in {quick_detail}");
    (kind, detail)
}

async fn fault_of(plugin: &Plugin, behaviour: &str) -> (FaultKind, String) {
    let start = async || plugin.instantiate(&order(behaviour, "process")).await.unwrap();
    let mut instance = start().await;
    let honest = texts(["one", "two"]);
    assert_eq!(instance.process(&honest).await.unwrap().forward, Forward::All);
    let poison = texts(["one", "poison", "thirteen"]);
    let fault = instance.process(&poison).await.expect_err(behaviour);
    assert!(!fault.detail.is_empty());
    instance.process(&honest).await.expect_err("an instance at fault is not called again");
    let mut next = start().await;
    assert_eq!(next.process(&honest).await.unwrap().forward, Forward::All);
    (fault.kind, fault.detail)
}

#[tokio::test]
async fn an_endless_loop_ends_at_its_deadline() {
    let (kind, detail) = fault("endless_loop").await;
    assert_eq!(kind, FaultKind::Deadline);
    assert!(detail.starts_with("process ran longer than "), "{detail}");
    assert!(detail.contains(", in guest_hostile::"), "it says where it was: {detail}");
}

#[tokio::test]
async fn a_guest_that_sleeps_and_spins_in_turn_ends_at_its_deadline() {
    assert_eq!(poisoned("sleep_and_spin").await, FaultKind::Deadline);
    let init = hostile().instantiate(&order("sleep_and_spin", "init")).await.unwrap_err();
    assert_eq!(init.kind, FaultKind::Init);
    assert!(init.detail.contains("longer than 5s"), "{init}");
}

#[tokio::test]
async fn what_a_guest_may_have_of_wasi_it_has() {
    let mut instance = start("seed_and_wait", "process").await;
    for _ in 0..3 {
        assert_eq!(instance.process(&texts(["poison"])).await.unwrap().forward, Forward::All);
    }
}

#[tokio::test]
async fn random_bytes_and_handles_are_no_way_to_work_without_an_end() {
    let (kind, detail) = fault("random_flood").await;
    assert_eq!(kind, FaultKind::Trap, "{detail}");
    let (kind, detail) = fault("handle_flood").await;
    assert_eq!(kind, FaultKind::Trap, "{detail}");
}

#[tokio::test]
async fn a_memory_bomb_ends_at_its_limit() {
    assert_eq!(poisoned("memory_bomb").await, FaultKind::Memory);
}

#[tokio::test]
async fn a_deep_recursion_ends_in_a_trap() {
    assert_eq!(poisoned("deep_recursion").await, FaultKind::Trap);
}

#[tokio::test]
async fn a_panic_and_an_error_end_in_a_trap() {
    assert_eq!(poisoned("panic").await, FaultKind::Trap);
    assert_eq!(poisoned("error").await, FaultKind::Trap);
}

#[tokio::test]
async fn the_detail_of_a_panic_is_its_message_and_where_it_happened() {
    let (_, detail) = fault("panic").await;
    assert!(detail.starts_with("panicked at "), "{detail}");
    let (message, frames) = detail.split_once("; process: ").unwrap();
    assert!(message.ends_with("a panic that was asked for"), "{detail}");
    assert!(frames.contains(", in guest_hostile::"), "{detail}");
    for own in ["core::", "std::", "rust_", "_ZN", "_R", "cabi_"] {
        assert!(!frames.contains(own), "{own} in {detail}");
    }
}

#[tokio::test]
async fn what_a_guest_says_of_a_fault_is_one_line() {
    let (_, detail) = fault("forge").await;
    assert!(!detail.contains(['\n', '\x1b']), "{detail}");
    assert!(detail.contains(r"first line\n2030-01-01"), "{detail}");
}

#[tokio::test]
async fn a_guest_that_quotes_its_configuration_shows_no_secret() {
    const SECRET: &str = "s3cr3t_of_the_host";
    let told = |behaviour: &str, place: &str| {
        let config = format!(r#"{{"behaviour":"{behaviour}","where":"{place}","token":"{SECRET}"}}"#);
        let shown = config.replace(SECRET, "***");
        Setup { config: Redacted::new(config, shown), ..order(behaviour, place) }
    };
    for (behaviour, place) in [("quote_config", "init"), ("quote_config_in_a_panic", "init")] {
        let refused = hostile().instantiate(&told(behaviour, place)).await.unwrap_err();
        assert!(refused.detail.contains("***") && !refused.detail.contains(SECRET), "{refused}");
    }
    for place in ["process", "tick", "finish", "snapshot", "restore"] {
        for behaviour in ["quote_config", "quote_config_in_a_panic"] {
            let mut instance = hostile().instantiate(&told(behaviour, place)).await.unwrap();
            let fault = match place {
                "process" => instance.process(&texts(["poison"])).await.map(drop),
                "tick" => instance.tick(1).await.map(drop),
                "finish" => instance.finish().await.map(drop),
                "snapshot" => instance.snapshot().await.map(drop),
                _ => instance.restore(&[Vec::new()], StatePart::WHOLE).await,
            };
            let fault = fault.unwrap_err();
            assert!(fault.detail.contains("***") && !fault.detail.contains(SECRET), "{place}: {fault}");
        }
    }
}

#[tokio::test]
async fn pointers_that_a_guest_describes_lead_to_one_place_each() {
    for (behaviour, detail) in [
        ("field_no_pointer", "\"price\" in fields, which is no JSON pointer"),
        ("field_bad_escape", "\"/a~2b\" in fields, which is no JSON pointer"),
        ("edit_whole_message", "\"\" in edits, which is the whole message"),
        ("edit_within_edit", "\"/a/b\" and \"/a\" in edits: one is in the other"),
        ("edit_twice", "\"/a\" and \"/a\" in edits: one is in the other"),
    ] {
        let fault = hostile().instantiate(&order(behaviour, "init")).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Init);
        assert!(fault.detail.contains(detail), "{behaviour}: {fault}");
    }
}

#[tokio::test]
async fn names_that_a_guest_describes_are_bounded_in_number_and_length() {
    for behaviour in
        ["many_outputs", "many_reads", "many_fields", "many_edits", "long_output", "long_write", "long_field"]
    {
        let fault = hostile().instantiate(&order(behaviour, "init")).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Init);
        assert!(fault.detail.contains("more than") && fault.detail.len() < 1000, "{fault}");
    }
}

#[tokio::test]
async fn every_change_of_metrics_counts_and_names_are_bounded() {
    let metrics = Metrics::default();
    let run = async |behaviour: &str| {
        let setup = Setup { metrics: metrics.guest("test", behaviour), ..order(behaviour, "process") };
        let mut instance = hostile().instantiate(&setup).await.unwrap();
        instance.process(&texts(["poison"])).await.unwrap();
    };
    run("metric_changes").await;
    let text = metrics.encode();
    for (name, value) in [("seen_total", "10000.0"), ("done_total", "1.0"), ("took_count", "10000")] {
        let sample =
            format!("tidemill_guest_{name}{{pipeline=\"test\",transform=\"metric_changes\"}} {value}");
        assert!(text.contains(&sample), "{sample} in\n{text}");
    }
    run("metric_names").await;
    let names = metrics.encode().lines().filter(|line| line.starts_with("tidemill_guest_name_")).count();
    assert_eq!(names, 64);
}

#[tokio::test]
async fn the_state_of_a_transform_is_bounded() {
    // Time enough to copy 64 MiB on a busy machine.
    let limits = Limits { deadline: Duration::from_secs(20), ..Limits::default() };
    let setup = Setup { limits, ..order("state_flood", "process") };
    let mut instance = hostile().instantiate(&setup).await.unwrap();
    instance.process(&texts(["poison"])).await.unwrap();
    assert_eq!(setup.state.len(), 63, "values of 1 MiB in 64 MiB, with what an entry costs");
}

#[tokio::test]
async fn a_snapshot_has_memory_of_its_own_and_does_not_cost_the_instance() {
    let mut instance = start("nearly_full", "process").await;
    let honest = texts(["one"]);
    instance.process(&texts(["poison"])).await.unwrap();
    let limit = Limits::default().memory_bytes;
    for _ in 0..3 {
        let snapshot = instance.snapshot().await.unwrap().unwrap();
        assert_eq!(snapshot.len(), 12 << 20);
        assert!(instance.memory_bytes() > limit && instance.memory_bytes() <= 2 * limit);
        instance.process(&honest).await.unwrap();
    }
    let mut next = start("nearly_full", "process").await;
    next.restore(&[vec![1; 30 << 20]], StatePart::WHOLE).await.unwrap();
    next.process(&honest).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_is_too_large_is_a_refusal_and_the_instance_lives() {
    let mut instance = start("huge_snapshot", "process").await;
    for _ in 0..2 {
        let refused = instance.snapshot().await.unwrap_err();
        assert_eq!((refused.kind, refused.is_refusal), (FaultKind::Snapshot, true), "{refused}");
        assert_eq!(instance.process(&texts(["one"])).await.unwrap().forward, Forward::All);
    }
}

#[tokio::test]
async fn what_is_little_to_return_and_much_to_keep_ends_at_the_limit_of_output() {
    for behaviour in ["empty_emissions", "empty_emissions_each", "tiny_values"] {
        let (kind, detail) = fault(behaviour).await;
        assert_eq!(kind, FaultKind::Output, "{behaviour}: {detail}");
    }
    let mut shared = start("shared_value", "process").await;
    let emissions = shared.process(&texts(["poison"])).await.unwrap().emissions;
    assert_eq!(emissions.len(), 3_000);
}

#[tokio::test]
async fn a_flood_of_output_ends_at_its_limit() {
    assert_eq!(poisoned("output_flood").await, FaultKind::Output);
    assert_eq!(poisoned("output_flood_each").await, FaultKind::Output);
}

#[tokio::test]
async fn a_flood_of_lines_costs_nobody_anything() {
    let mut instance = start("log_flood", "process").await;
    let outcome = instance.process(&texts(["poison"])).await.unwrap();
    assert_eq!(outcome.forward, Forward::All);
}

#[tokio::test]
async fn a_lie_is_found() {
    let lies = [
        "end_beyond_data",
        "ends_descending",
        "binary_short",
        "binary_unknown",
        "invalid_utf8",
        "split_character",
        "origins_short",
        "origins_descending",
        "origin_out_of_range",
        "outputs_short",
        "unknown_output",
        "too_many_writings",
        "values_short",
        "value_ends_beyond_data",
        "value_invalid_utf8",
        "setting_out_of_range",
        "settings_descending",
        "forward_metadata_short",
        "too_many_forward_writings",
        "too_many_edits",
        "edits_short",
        "edits_each_long",
        "edit_infinite",
        "edit_no_json",
        "edit_two_values",
        "edit_invalid_utf8",
        "edit_ends_beyond_data",
        "edit_absent_unknown",
        "edit_absent_with_bytes",
        "retry_out_of_range",
        "retry_of_what_is_forwarded",
        "retry_and_forward_all",
        "retry_before_an_emission",
        "retry_before_a_rejection",
        "forward_out_of_range",
        "forward_descending",
        "forward_twice",
        "forward_outputs_short",
        "forward_unknown_output",
        "rejected_out_of_range",
        "rejected_twice",
        "rejected_and_forwarded",
        "rejected_and_emitted",
    ];
    for lie in lies {
        assert_eq!(poisoned(lie).await, FaultKind::Invalid, "{lie}");
    }
}

#[tokio::test]
async fn a_lie_outside_of_a_batch_is_found() {
    for lie in ["origins", "end_beyond_data", "unknown_output", "invalid_utf8"] {
        let tick = start(lie, "tick").await.tick(1).await.expect_err(lie);
        let finish = start(lie, "finish").await.finish().await.expect_err(lie);
        assert_eq!((tick.kind, finish.kind), (FaultKind::Invalid, FaultKind::Invalid), "{lie}");
    }
}

#[tokio::test]
async fn timers_and_ends_have_the_limits_of_batches() {
    let cases = [
        ("endless_loop", FaultKind::Deadline),
        ("memory_bomb", FaultKind::Memory),
        ("panic", FaultKind::Trap),
        ("output_flood", FaultKind::Output),
    ];
    for (behaviour, kind) in cases {
        let tick = start(behaviour, "tick").await.tick(1).await.expect_err(behaviour);
        let finish = start(behaviour, "finish").await.finish().await.expect_err(behaviour);
        assert_eq!((tick.kind, finish.kind), (kind, kind), "{behaviour}");
    }
}

#[tokio::test]
async fn starting_and_swapping_have_faults_of_their_own() {
    for behaviour in ["panic", "error", "memory_bomb", "deep_recursion"] {
        let init = hostile().instantiate(&order(behaviour, "init")).await.expect_err(behaviour);
        let snapshot = start(behaviour, "snapshot").await.snapshot().await.expect_err(behaviour);
        let restore = start(behaviour, "restore")
            .await
            .restore(&[Vec::new()], StatePart::WHOLE)
            .await
            .expect_err(behaviour);
        let kinds = (init.kind, snapshot.kind, restore.kind);
        assert_eq!(kinds, (FaultKind::Init, FaultKind::Snapshot, FaultKind::Restore), "{behaviour}");
    }
    let endless = start("endless_loop", "snapshot").await.snapshot().await.unwrap_err();
    assert_eq!(endless.kind, FaultKind::Snapshot);
}

#[tokio::test]
async fn what_a_call_that_failed_did_to_the_state_is_undone() {
    let setup = order("state_then_panic", "process");
    let mut instance = hostile().instantiate(&setup).await.unwrap();
    instance.process(&texts(["poison"])).await.unwrap_err();
    let mut next = hostile().instantiate(&setup).await.unwrap();
    let outcome = next.process(&texts(["remembered"])).await.unwrap();
    assert_eq!(outcome.emissions.payload(0).as_text(), Some(""));
    assert!(setup.state.is_empty());
}

#[tokio::test(flavor = "current_thread")]
async fn an_endless_loop_gives_its_thread_to_its_neighbours() {
    let mut endless = start("endless_loop", "process").await;
    let mut neighbour = start("panic", "process").await;
    let (poison, honest) = (texts(["poison"]), texts(["one"]));
    let mut call = pin!(endless.process(&poison));
    let mut served = 0;
    let fault = loop {
        tokio::select! {
            biased;
            ended = &mut call => break ended.unwrap_err(),
            outcome = neighbour.process(&honest) => {
                outcome.unwrap();
                served += 1;
            }
        }
    };
    assert_eq!(fault.kind, FaultKind::Deadline);
    assert!(served >= 10, "{served} calls of a neighbour in {DEADLINE:?}");
}

#[test]
fn a_file_cut_short_is_refused() {
    let whole = std::fs::read(guest("hostile").expect("guests in Rust are always built")).unwrap();
    for length in [0, 1, 7, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
        let error = engine().load("cut", &whole[..length]).unwrap_err();
        let expected = match &error.problem {
            LoadProblem::Empty => length == 0,
            // A header alone is a whole component in which nothing is.
            LoadProblem::NoPlugin(_) => length == 8,
            problem => {
                matches!(problem, LoadProblem::Truncated(_) | LoadProblem::Malformed(_)) && length != 0
            }
        };
        assert!(expected, "{length} bytes: {error}");
    }
}

#[test]
fn proposals_to_webassembly_that_no_plugin_needs_are_off() {
    for module in [
        "(memory i64 1)",
        "(table i64 1 funcref)",
        "(memory 1 1 shared)",
        "(tag)",
        "(func $f return_call $f)",
        "(type (struct))",
    ] {
        let wasm = wat::parse_str(format!("(component (core module {module}))")).unwrap();
        let problem = engine().load("modern", &wasm).unwrap_err().problem;
        assert!(matches!(problem, LoadProblem::Malformed(_)), "{module}: {problem}");
    }
}

#[test]
fn what_is_no_plugin_is_refused_and_says_why() {
    let refused = |wat: &str| engine().load("stranger", &wat::parse_str(wat).unwrap()).unwrap_err().problem;
    assert!(matches!(refused("(module)"), LoadProblem::CoreModule));
    assert!(matches!(refused("(component)"), LoadProblem::NoPlugin(_)));
    let greeter = r#"(component
        (core module $module (func (export "greet")))
        (core instance $instance (instantiate $module))
        (func (export "greet") (canon lift (core func $instance "greet"))))"#;
    assert!(matches!(refused(greeter), LoadProblem::NoPlugin(found) if found.contains("greet")));
    let needy = r#"(component
        (import "other:host/thing" (instance (export "use" (func))))
        (instance $empty)
        (export "tidemill:plugin/transformer@0.1.0" (instance $empty)))"#;
    assert!(
        matches!(refused(needy), LoadProblem::MissingImports(missing) if missing.contains("other:host/thing"))
    );
    let hollow =
        r#"(component (instance $empty) (export "tidemill:plugin/transformer@0.1.0" (instance $empty)))"#;
    assert!(matches!(refused(hollow), LoadProblem::Mismatch(_)));
    let newer =
        r#"(component (instance $empty) (export "tidemill:plugin/transformer@0.2.0" (instance $empty)))"#;
    assert!(matches!(refused(newer), LoadProblem::OtherContract(found) if found.ends_with("0.2.0")));
    assert!(matches!(engine().load("text", b"not a plugin").unwrap_err().problem, LoadProblem::NotWasm));
}
