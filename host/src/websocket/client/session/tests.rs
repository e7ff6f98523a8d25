//! The schedule of a session, with a connector that never connects and time that passes at once.

use super::*;
use crate::config::{EndpointText, Mode, Reconnect};
use crate::connections::Connections;
use crate::telemetry::Metrics;
use crate::websocket::client::connect_error::ConnectProblem;
use std::cell::RefCell;
use std::future::poll_fn;
use tokio::time::Instant;

thread_local! {
    /// What the connector answers next, from the end; what is not there is a connection that is closed.
    static ANSWERS: RefCell<Vec<ConnectProblem>> = const { RefCell::new(Vec::new()) };
    /// When it was asked, and for which url.
    static DIALS: RefCell<Vec<(Instant, usize)>> = const { RefCell::new(Vec::new()) };
}

#[expect(clippy::needless_pass_by_value, reason = "as what dials in its place takes it")]
fn refuse(settings: Arc<SessionSettings>, attempt: Attempt) -> Dialling {
    let url = attempt.url;
    DIALS.with_borrow_mut(|dials| dials.push((Instant::now(), url)));
    let problem =
        ANSWERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| ConnectProblem::Closed("gone".to_owned()));
    Box::pin(async move { Err(ConnectError::new(&settings.client.urls[url], problem)) })
}

fn status(status: u16, retry_after: Option<u64>) -> ConnectProblem {
    let status = hyper::StatusCode::from_u16(status).expect("a status");
    ConnectProblem::Status { status, location: None, retry_after: retry_after.map(Duration::from_secs) }
}

fn session(when_exhausted: WhenExhausted, change: impl FnOnce(&mut Reconnect)) -> (Session, Metrics) {
    session_by(when_exhausted, change, refuse)
}

fn session_by(
    when_exhausted: WhenExhausted,
    change: impl FnOnce(&mut Reconnect),
    dial_once: DialOnce,
) -> (Session, Metrics) {
    let endpoint = Endpoint::client("ws://one/");
    let Mode::Client(mut client) = endpoint.mode.clone() else { panic!("a client endpoint") };
    client.urls.push(EndpointText::plain("ws://two/"));
    client.reconnect.jitter = 0.0;
    change(&mut client.reconnect);
    let metrics = Metrics::default();
    let settings = SessionSettings {
        endpoint,
        client,
        packing: None,
        connector: None,
        secrets: RememberedSecrets::default(),
    };
    let session = Session::dialling_by(
        settings,
        when_exhausted,
        Connections::default().open(metrics.endpoint("p", "source")),
        dial_once,
    );
    (session, metrics)
}

/// Drives the session until it has dialled so often; the seconds between two dials.
async fn waits(session: &mut Session, dials: usize) -> Vec<u64> {
    poll_fn(|cx| {
        let _ = session.poll_event(cx);
        if DIALS.with_borrow(Vec::len) >= dials { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    DIALS.with_borrow(|dials| dials.windows(2).map(|two| (two[1].0 - two[0].0).as_secs()).collect())
}

#[tokio::test(start_paused = true)]
async fn attempts_wait_twice_as_long_each_time_up_to_the_longest() {
    let (mut session, _) = session(WhenExhausted::Fail, |_| {});
    assert_eq!(waits(&mut session, 8).await, [1, 2, 4, 8, 16, 30, 30]);
    let urls = DIALS.with_borrow(|dials| dials.iter().map(|(_, url)| *url).collect::<Vec<_>>());
    assert_eq!(urls, [0, 1, 0, 1, 0, 1, 0, 1], "each attempt takes the next url");
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_says_decides_about_the_wait() {
    ANSWERS.set(vec![status(429, Some(1)), status(503, Some(90)), status(404, None), status(401, None)]);
    let (mut session, _) = session(WhenExhausted::Fail, |_| {});
    // Two refusals that last, one that names a time, and one whose time is shorter than ours.
    assert_eq!(waits(&mut session, 6).await, [30, 30, 90, 8, 16]);
}

#[tokio::test(start_paused = true)]
async fn a_time_to_wait_counts_whatever_the_refusal_and_up_to_an_hour() {
    let of_proxy =
        ConnectProblem::Proxy { proxy: "http://p".to_owned(), problem: Box::new(status(407, Some(50))) };
    let answers = [status(418, Some(40)), status(301, Some(45)), of_proxy, status(404, Some(u64::MAX))];
    ANSWERS.set(answers.into_iter().rev().collect());
    let (mut session, _) = session(WhenExhausted::Fail, |_| {});
    assert_eq!(waits(&mut session, 5).await, [40, 45, 50, 3600]);
}

#[tokio::test(start_paused = true)]
async fn the_first_dial_is_no_attempt_and_a_source_fails_after_the_last() {
    let (mut session, metrics) = session(WhenExhausted::Fail, |reconnect| reconnect.max_attempts = Some(2));
    let change = poll_fn(|cx| session.poll_event(cx)).await;
    assert_eq!(
        change,
        SessionEvent::Unavailable("failed to connect to WebSocket ws://one/: gone".to_owned())
    );
    assert_eq!(DIALS.with_borrow(Vec::len), 3);
    assert_eq!(session.state(), EndpointState::Failed);
    assert!(metrics.encode().contains("state=\"failed\"} 1"), "{}", metrics.encode());
}

#[tokio::test(start_paused = true)]
async fn a_sink_goes_on_trying_at_the_longest_delay_and_says_so_once() {
    let (mut session, _) = session(WhenExhausted::Persist, |reconnect| reconnect.max_attempts = Some(1));
    let change = poll_fn(|cx| session.poll_event(cx)).await;
    assert!(matches!(change, SessionEvent::Unavailable(_)));
    assert!(session.is_unavailable());
    assert_eq!(waits(&mut session, 5).await, [1, 30, 30, 30]);
    assert!(session.is_unavailable());
}

#[tokio::test(start_paused = true)]
async fn without_reconnection_one_dial_is_all() {
    for when_exhausted in [WhenExhausted::Fail, WhenExhausted::Persist] {
        DIALS.take();
        let (mut session, _) = session(when_exhausted, |reconnect| reconnect.enabled = false);
        assert!(matches!(poll_fn(|cx| session.poll_event(cx)).await, SessionEvent::Unavailable(_)));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(poll_fn(|cx| Poll::Ready(session.poll_event(cx))).await.is_pending());
        assert_eq!((DIALS.with_borrow(Vec::len), session.state()), (1, EndpointState::Failed));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_interrupted_at_once() {
    ANSWERS.set(vec![status(503, Some(3600))]);
    let (mut session, _) = session(WhenExhausted::Persist, |_| {});
    waits(&mut session, 1).await;
    assert!(poll_fn(|cx| Poll::Ready(session.poll_event(cx))).await.is_pending());
    assert_eq!(session.state(), EndpointState::Waiting);
    let before = Instant::now();
    poll_fn(|cx| session.poll_close(cx, 1001)).await;
    assert_eq!((before.elapsed(), session.state()), (Duration::ZERO, EndpointState::Closed));
}

#[tokio::test(start_paused = true)]
async fn each_dial_is_told_its_number_and_what_the_last_one_came_to() {
    thread_local! {
        static ATTEMPTS: RefCell<Vec<(u32, Option<u16>)>> = const { RefCell::new(Vec::new()) };
    }
    fn note(settings: Arc<SessionSettings>, attempt: Attempt) -> Dialling {
        let status = attempt.last.as_ref().and_then(|last| last.status);
        ATTEMPTS.with_borrow_mut(|attempts| attempts.push((attempt.number, status)));
        refuse(settings, attempt)
    }
    ANSWERS.set(vec![status(401, None), status(503, None)]);
    let (mut session, _) = session_by(WhenExhausted::Fail, |_| {}, note);
    waits(&mut session, 3).await;
    assert_eq!(ATTEMPTS.take(), [(1, None), (2, Some(503)), (3, Some(401))]);
}

#[test]
fn a_refusal_is_slowed_down_only_where_the_next_dial_is_the_same_again() {
    let error = || ConnectError::new(&EndpointText::plain("ws://a"), status(401, Some(7)));
    assert!(error().advice().slow_down);
    let advice = error().planned().advice();
    assert_eq!((advice.slow_down, advice.at_least), (false, Some(Duration::from_secs(7))));
}
