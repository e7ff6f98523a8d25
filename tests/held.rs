//! What the host holds because of one call of a plugin: measured, and at most twice `limits.output`.
//!
//! This file is a program of its own, because it counts what the whole of it allocates. A guest's memory is
//! mapped, not allocated, and does not count.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tidemill::message::Message;
use tidemill::plugin::{Emissions, FaultKind, Setup};
use tidemill_tests::{guest, load, setup, texts};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator is; it hands everything on to the system's")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = HELD.fetch_add(layout.size(), SeqCst) + layout.size();
        MOST.fetch_max(now, SeqCst);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), SeqCst);
        unsafe { System.dealloc(block, layout) }
    }
}

/// The messages that a pipeline makes of emissions: all of one origin, as here.
fn messages(emissions: &Emissions, origin: &Message) -> Vec<Message> {
    let message = |n| {
        let mut metadata = origin.metadata.clone();
        emissions.write_metadata(n, &mut metadata);
        Message { payload: emissions.payload(n), metadata }
    };
    let mut routed = Vec::new();
    for n in 0..emissions.len() {
        // One after the other, as the pipeline does: the list grows by doubling.
        routed.push(message(n));
    }
    routed
}

#[tokio::test(flavor = "current_thread")]
async fn the_host_holds_at_most_twice_the_limit_of_output_for_one_call() {
    let plugin = load(&guest("hostile").unwrap());
    let behaviours = [
        ("honest_output", false),
        ("honest_output_each", false),
        ("honest_values", false),
        ("shared_value", false),
        ("empty_emissions", true),
        ("empty_emissions_each", true),
        ("tiny_values", true),
        ("output_flood", true),
        ("output_flood_each", true),
        ("many_rejections", true),
    ];
    for (behaviour, is_too_much) in behaviours {
        let config = format!(r#"{{"behaviour":"{behaviour}"}}"#);
        let setup: Setup = setup(&config);
        let limit = setup.limits.output_bytes;
        let mut instance = plugin.instantiate(&setup).await.unwrap();
        let batch = texts(["poison"]);
        instance.process(&texts(["one"])).await.unwrap();
        let before = HELD.load(SeqCst);
        MOST.store(before, SeqCst);
        match instance.process(&batch).await {
            Ok(outcome) => {
                assert!(!is_too_much, "{behaviour} is let through");
                let routed = messages(&outcome.emissions, &batch[0]);
                assert_eq!(routed.len(), outcome.emissions.len());
            }
            Err(fault) => {
                assert!(is_too_much, "{behaviour}: {fault}");
                assert!(matches!(fault.kind, FaultKind::Output | FaultKind::Invalid), "{behaviour}: {fault}");
            }
        }
        let most = MOST.load(SeqCst) - before;
        assert!(most <= 2 * limit, "{behaviour}: {most} bytes held, limits.output is {limit}");
    }
}
