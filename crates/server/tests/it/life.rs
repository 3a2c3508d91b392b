use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringkit_runtime::ServiceState;
use ringkit_server::{ExitReason, Running};

use crate::toy::{
    FAIL_INIT, FAIL_RUN, FAIL_START, LINGER, SLOW_START, SLOW_STOP, Strings, TOY, app, config, eventually,
    get_from, post_to, start, start_ready, url,
};

#[tokio::test]
async fn roles_stop_first_and_listeners_last() {
    let running = start_ready("").await;
    let address = running.http_addr;
    let report = running.stop().await;
    assert!(report.is_clean());
    let steps: Vec<&str> = report.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["toy", "ring", "server", "background work"]);
    TcpListener::bind(address).expect("the port is free again");
}

#[tokio::test]
async fn a_service_that_does_not_stop_in_time_is_reported_and_left_behind() {
    let running = start_ready(SLOW_STOP).await;
    let begun = Instant::now();
    let report = running.stop().await;
    assert_eq!(report.late, ["toy"]);
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert_eq!(report.steps.len(), 4, "the others were stopped all the same: {report}");
}

#[tokio::test]
async fn a_failing_service_ends_the_process_and_is_named() {
    for (how, words) in [
        (FAIL_RUN, "`toy` failed while running: the toy ran against a wall"),
        (FAIL_START, "`toy` failed while starting: the toy has no battery"),
    ] {
        let mut running = start(how).await;
        let reason = running.wait().await;
        assert!(!reason.is_success());
        assert!(reason.to_string().ends_with(words), "{reason}");
        assert!(running.ready().await.unwrap_err().ends_with(words));
        let steps = running.stop().await.steps;
        assert_eq!(steps.last().unwrap().name, "background work");
    }
}

#[tokio::test]
async fn a_module_that_cannot_be_built_fails_the_start_and_frees_the_ports() {
    let (http, grpc) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = http.local_addr().unwrap();
    let error = app(config(FAIL_INIT)).listeners(http, grpc).start().await.unwrap_err();
    assert_eq!(error.to_string(), "error initialising module `toy`: the toy does not fit in the box");
    TcpListener::bind(address).expect("the port is free again");
}

#[tokio::test]
async fn an_unknown_target_names_the_known_ones() {
    let error = app(config("")).targets(vec!["tyo".into()]).start().await.unwrap_err();
    assert_eq!(error.to_string(), "unknown target `tyo`: known targets are all, toy");
}

#[tokio::test]
async fn the_target_all_is_every_visible_role() {
    let running = app(config("")).targets(vec!["all".into()]).start().await.unwrap();
    assert_eq!(running.services().keys().collect::<Vec<_>>(), ["ring", "server", "toy"]);
    let _ = running.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_address_key_and_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config("");
    config.server.http_listen_port = taken.local_addr().unwrap().port();
    let error = app(config).start().await.unwrap_err().to_string();
    for part in [
        &format!("cannot listen on {}: ", taken.local_addr().unwrap()),
        "`server.http_listen_port`",
        "-server.http-listen-port",
        "another process has this port: stop it or choose another port",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[tokio::test]
async fn two_roles_with_one_path_are_an_error_not_a_panic() {
    fn init(
        process: &mut ringkit_server::Process,
    ) -> Result<Option<Box<dyn ringkit_runtime::Service>>, ringkit_runtime::Cause> {
        process.http(axum::Router::new().route("/toy/echo", axum::routing::post(async || "mine")));
        Ok(None)
    }
    let rival = ringkit_server::Role { name: "rival", visible: true, dependencies: &["toy"], init };
    let error = app(config("")).roles(&[rival]).targets(vec!["rival".into()]).start().await.unwrap_err();
    assert!(error.to_string().contains("/toy/echo"), "{error}");
}

#[tokio::test]
async fn requests_in_flight_are_finished_before_the_listeners_close() {
    let running = start_ready("").await;
    let begun = Instant::now();
    let waiting = tokio::spawn(reqwest::get(url(&running, "/toy/linger")));
    in_flight(&running, "toy_linger").await;
    let report = running.stop().await;
    assert!(report.is_clean() && begun.elapsed() >= LINGER, "{report}");
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.text().await.unwrap(), "at last");
}

#[tokio::test]
async fn connections_that_do_not_end_are_cut_after_the_grace_period() {
    let mut config = config("");
    config.server.graceful_shutdown_timeout = Duration::from_millis(100);
    let running = app(config).start().await.unwrap();
    post_to(&running, "/toy/wake").await;
    running.ready().await.unwrap();
    let waiting = tokio::spawn(reqwest::get(url(&running, "/toy/wait")));
    in_flight(&running, "toy_wait").await;
    assert!(running.stop().await.is_clean(), "the grace period is not the deadline");
    assert!(waiting.await.unwrap().is_err(), "the connection was cut");
}

#[tokio::test]
async fn an_interrupted_start_stops_what_had_started() {
    let running = start(SLOW_START).await;
    eventually("the toy is starting", async || running.services()["toy"] == ServiceState::Starting).await;
    let report = running.stop().await;
    assert!(report.is_clean(), "{report}");
}

#[tokio::test]
async fn abort_frees_the_ports_at_once_and_cuts_connections() {
    let running = start_ready(SLOW_STOP).await;
    let waiting = tokio::spawn(reqwest::get(url(&running, "/toy/wait")));
    in_flight(&running, "toy_wait").await;
    let toy = running.service("toy").unwrap();
    let (http, grpc) = (running.http_addr, running.grpc_addr);
    running.abort();
    let listeners =
        (TcpListener::bind(http).expect("free at once"), TcpListener::bind(grpc).expect("free at once"));
    assert!(waiting.await.unwrap().is_err(), "the connection was cut");
    assert!(toy.await_terminated().await.is_err());
    assert_eq!(toy.failure().unwrap().cause.to_string(), "aborted");
    // A successor on the same ports.
    let (http, grpc) = listeners;
    let running = app(config("")).listeners(http, grpc).start().await.unwrap();
    assert_eq!(get_from(&running, "/toy/1").await, (200, "toy".into()));
    let _ = running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_an_answer_after_an_abort() {
    for round in 0..50 {
        let running = start_ready("").await;
        // The port is free after the abort: whoever has it by then may well say nothing.
        let client = || reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
        let clients: Vec<_> = (0..4).map(|_| client()).collect();
        let ask = |client: &reqwest::Client| client.get(url(&running, "/toy/1")).send();
        for client in &clients {
            assert!(ask(client).await.is_ok());
        }
        let asked: Vec<_> = clients.iter().map(ask).collect();
        running.abort();
        for answer in asked {
            assert!(answer.await.is_err(), "an answer in round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_told_of_an_abort() {
    for round in 0..200 {
        let running = start_ready("").await;
        let (strings, toy) = (running.get::<Strings>().unwrap(), running.service(TOY.name).unwrap());
        running.abort();
        assert!(toy.await_terminated().await.is_err());
        assert_eq!(toy.failure().unwrap().cause.to_string(), "aborted", "round {round}");
        assert!(!strings.0.stopped.load(Ordering::Acquire), "stopped in order in round {round}");
    }
}

#[tokio::test]
async fn two_apps_in_one_process_share_nothing() {
    let (one, two) = (start_ready("").await, start_ready("").await);
    get_from(&one, "/toy/1").await;
    get_from(&one, "/toy/1").await;
    get_from(&two, "/toy/1").await;
    assert!(get_from(&one, "/metrics").await.1.contains("toy_requests_total 2\n"));
    assert!(get_from(&two, "/metrics").await.1.contains("toy_requests_total 1\n"));
    let _ = one.stop().await;
    assert_eq!(get_from(&two, "/ready").await.1, "ready");
    let _ = two.stop().await;
}

#[tokio::test]
async fn a_connection_limit_makes_others_wait() {
    let mut config = config("");
    config.server.http_listen_conn_limit = 1;
    let running = app(config).start().await.unwrap();
    let first = tokio::net::TcpStream::connect(running.http_addr).await.unwrap();
    let second = tokio::spawn(reqwest::get(url(&running, "/toy/1")));
    let waited = tokio::time::timeout(Duration::from_millis(200), second).await;
    assert!(waited.is_err(), "the only place is taken");
    drop(first);
    assert_eq!(get_from(&running, "/toy/1").await.1, "toy");
    let _ = running.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_times_out() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut config = config("");
    config.server.http_server_read_timeout = Duration::from_millis(100);
    let running = app(config).start().await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(running.http_addr).await.unwrap();
    stream.write_all(b"POST /toy/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    read.expect("the server answers or hangs up").unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(!answer.contains(" 200 "), "{answer}");
    let _ = running.stop().await;
}

#[tokio::test]
async fn an_answer_given_before_the_body_was_read_reaches_its_sender() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let running = start_ready("").await;
    for _ in 0..20 {
        let mut stream = tokio::net::TcpStream::connect(running.http_addr).await.unwrap();
        let head = "POST /toy/refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // Not all of it: a sender that goes on for ever is cut.
        for _ in 0..64 {
            stream.write_all(&[0; 65536]).await.expect("the server goes on reading for a while");
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("no reset");
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("too much"), "{answer}");
    }
    let _ = running.stop().await;
}

#[tokio::test]
async fn a_service_stopped_on_its_own_leaves_the_process_up_and_unready() {
    let running = start_ready("").await;
    let toy = running.service(TOY.name).unwrap();
    toy.stop_async();
    toy.await_terminated().await.unwrap();
    let (status, reasons) = get_from(&running, "/ready").await;
    assert_eq!(
        (status, reasons.as_str()),
        (503, "Some services are not Running:\nRunning: 2\nTerminated: 1\n")
    );
    let _ = running.stop().await;
}

#[tokio::test]
async fn a_service_may_end_the_process_in_order() {
    use async_trait::async_trait;
    use ringkit_runtime::{CancellationToken, Cause, Service, StopProcess};
    struct Done;
    #[async_trait]
    impl Service for Done {
        async fn run(&mut self, _: CancellationToken) -> Result<(), Cause> {
            Err(StopProcess.into())
        }
    }
    let done = ringkit_server::Role {
        name: "done",
        visible: true,
        dependencies: &[],
        init: |_| Ok(Some(Box::new(Done))),
    };
    let mut running = app(config("")).roles(&[done]).targets(vec!["done".into()]).start().await.unwrap();
    let reason = running.wait().await;
    assert!(matches!(&reason, ExitReason::Requested { by } if by == "done"), "{reason}");
    let _ = running.stop().await;
}

async fn in_flight(running: &Running, route: &str) {
    let line = format!("cortex_inflight_requests{{method=\"GET\",route=\"{route}\"}} 1\n");
    eventually("the request is in flight", async || get_from(running, "/metrics").await.1.contains(&line))
        .await;
}
