use crate::toy::{eventually, get_as, get_from, post_to, start, start_ready, url};

#[tokio::test]
async fn ready_says_ready_or_every_reason_why_not() {
    let running = start("").await;
    let (status, reasons) = get_from(&running, "/ready").await;
    assert_eq!(status, 503);
    assert!(reasons.ends_with("Toy not ready: it is asleep\n"), "{reasons}");
    post_to(&running, "/toy/wake").await;
    running.ready().await.unwrap();
    assert_eq!(get_from(&running, "/ready").await, (200, "ready".into()));
    let _ = running.stop().await;
}

#[tokio::test]
async fn services_are_listed_in_html_and_json() {
    let running = start_ready("").await;
    let (status, html) = get_from(&running, "/services").await;
    assert_eq!(status, 200);
    assert!(html.contains("<td>toy</td><td class=\"good\">Running</td>"), "{html}");
    let (_, json) = get_as(&running, "/services", "text/html, application/json").await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["services"],
        serde_json::json!([
            {"name": "ring", "status": "Running"},
            {"name": "server", "status": "Running"},
            {"name": "toy", "status": "Running"},
        ])
    );
    assert!(json["now"].as_str().unwrap().ends_with('Z'));
    let _ = running.stop().await;
}

#[tokio::test]
async fn the_index_links_every_section() {
    let running = start_ready("").await;
    let (status, html) = get_from(&running, "/").await;
    assert_eq!(status, 200);
    for link in ["/services", "/config?mode=diff", "/ready", "/metrics", "/ingester/ring"] {
        assert!(html.contains(&format!("href=\"{link}\"")), "{link} in {html}");
    }
    assert!(html.contains("<a href=\"/toy/&lt;1&gt;\">Play &amp; &quot;break&quot;</a>"), "{html}");
    let (admin, dangerous) = (html.find("Admin Endpoints:").unwrap(), html.find("Dangerous:").unwrap());
    assert!(admin < dangerous);
    let _ = running.stop().await;
}

#[tokio::test]
async fn the_configuration_is_shown_in_full_as_difference_and_as_defaults() {
    let running = start_ready("").await;
    let (status, all) = get_from(&running, "/config").await;
    assert_eq!(status, 200);
    let (ours, default) = ("graceful_shutdown_timeout: 5s", "graceful_shutdown_timeout: 30s");
    assert!(all.contains(ours) && all.contains("log_format:"), "{all}");
    let (_, diff) = get_from(&running, "/config?mode=diff").await;
    assert!(diff.contains(ours) && !diff.contains("log_format:"), "{diff}");
    let (_, defaults) = get_from(&running, "/config?mode=defaults").await;
    assert!(defaults.contains(default) && !defaults.contains(ours), "{defaults}");
    assert_eq!(get_from(&running, "/config?mode=odd").await.0, 400);
    let _ = running.stop().await;
}

#[tokio::test]
async fn an_empty_ring_is_shown_on_both_its_paths() {
    let running = start_ready("").await;
    for path in ["/ring", "/ingester/ring"] {
        assert!(get_from(&running, path).await.1.contains("Ingester Ring Status"));
        let (_, json) = get_as(&running, path, "application/json").await;
        assert!(json.starts_with("{\"shards\":null,\"now\":\""), "{json}");
    }
    let _ = running.stop().await;
}

#[tokio::test]
async fn an_instance_can_be_forgotten_by_post_and_not_from_a_foreign_page() {
    use ringkit_ring::{Desc, InstanceDesc};
    let stores = ringkit_kv::Stores::new();
    let config = crate::toy::config("");
    let (meter, clock) = (ringkit_runtime::Meter::disabled(), ringkit_runtime::Clock::system());
    let kv = config.kv(ringkit_config::RingName::Ingester);
    let client = stores.client::<Desc>(&kv, "test", &meter, &clock).unwrap();
    let instance = InstanceDesc { timestamp: clock.now_secs(), ..InstanceDesc::default() };
    client.upsert_own("ring", "ghost", &instance).await.unwrap();
    let running = crate::toy::app(config).stores(stores).start().await.unwrap();
    eventually("the ring is read", async || get_from(&running, "/ring").await.1.contains("ghost")).await;
    assert!(
        get_from(&running, "/ingester/ring").await.1.contains("<button name=\"forget\" value=\"ghost\">")
    );

    let post = |site: &'static str| {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let request = http.post(url(&running, "/ingester/ring")).header("sec-fetch-site", site);
        request.header("content-type", "application/x-www-form-urlencoded").body("forget=ghost").send()
    };
    assert_eq!(post("cross-site").await.unwrap().status().as_u16(), 403);
    assert!(client.get("ring").await.unwrap().unwrap().value.contains("ghost"));
    let answer = post("same-origin").await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["location"].to_str().unwrap()), (302, "#"));
    eventually("it is gone", async || !get_from(&running, "/ring").await.1.contains("ghost")).await;
    let _ = running.stop().await;
}

#[tokio::test]
async fn routes_that_change_something_take_post_only_and_the_token() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "secret\n").unwrap();
    let mut config = crate::toy::config("");
    config.server.admin_token_file = token.path().to_str().unwrap().into();
    let running = crate::toy::app(config).start().await.unwrap();
    assert_eq!(get_from(&running, "/toy/reset").await.0, 405);
    assert_eq!(post_to(&running, "/toy/reset").await, 401);
    let request = reqwest::Client::new().post(url(&running, "/toy/reset")).bearer_auth("secret");
    assert_eq!(request.send().await.unwrap().status().as_u16(), 200);
    let _ = running.stop().await;
}

#[tokio::test]
async fn metrics_count_requests_by_method_route_and_status() {
    let running = start_ready("").await;
    for id in ["1", "2", "3"] {
        get_from(&running, &format!("/toy/{id}")).await;
    }
    assert_eq!(get_from(&running, "/nowhere/at/all").await.0, 404);
    assert_eq!(post_to(&running, "/services").await, 405);
    let (status, metrics) = get_from(&running, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "cortex_request_duration_seconds_count{method=\"GET\",route=\"toy_id\",status_code=\"200\",ws=\"false\"} 3\n",
        "cortex_request_duration_seconds_bucket{method=\"GET\",route=\"toy_id\",status_code=\"200\",ws=\"false\",le=\"100\"} 3\n",
        "cortex_request_duration_seconds_count{method=\"GET\",route=\"other\",status_code=\"404\",ws=\"false\"} 1\n",
        "cortex_request_duration_seconds_count{method=\"POST\",route=\"services\",status_code=\"405\",ws=\"false\"} 1\n",
        "cortex_response_message_bytes_count{method=\"GET\",route=\"toy_id\"} 3\n",
        "cortex_inflight_requests{method=\"GET\",route=\"metrics\"} 1\n",
        "cortex_inflight_requests{method=\"GET\",route=\"toy_id\"} 0\n",
        "cortex_tcp_connections_limit{protocol=\"http\"} 0\n",
        "toy_requests_total 3\n",
        // Collected at scrape time, by the ring.
        "cortex_ring_tokens_total{name=\"ingester\"} 0\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
        assert!(metrics.contains(&format!("\n{name} ")), "{name}");
    }
    assert!(metrics.contains("cortex_build_info{version=\""));
    assert!(!metrics.contains("cortex_tcp_connections{protocol=\"http\"} 0\n"), "somebody is asking");
    assert!(metrics.contains("cortex_tcp_connections{protocol=\"grpc\"} 0\n"));
    let _ = running.stop().await;
}

#[tokio::test]
async fn a_panic_in_a_handler_is_a_500_and_counted_and_the_connection_lives() {
    let running = start_ready("").await;
    let client = reqwest::Client::new();
    let answer = client.get(url(&running, "/toy/panic")).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 500);
    assert_eq!(answer.text().await.unwrap(), "internal error: the request's handler panicked\n");
    let metrics = client.get(url(&running, "/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("ringkit_request_panics_total 1\n"), "{metrics}");
    let line = "count{method=\"GET\",route=\"toy_panic\",status_code=\"500\",ws=\"false\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
    assert!(metrics.contains("cortex_inflight_requests{method=\"GET\",route=\"toy_panic\"} 0\n"));
    assert!(metrics.contains("cortex_tcp_connections{protocol=\"http\"} 1\n"), "{metrics}");
    let _ = running.stop().await;
}

#[tokio::test]
async fn everything_moves_below_a_path_prefix() {
    let mut config = crate::toy::config("");
    config.server.http_path_prefix = "/v1/".into();
    let running = crate::toy::app(config).start().await.unwrap();
    assert_eq!(post_to(&running, "/v1/toy/wake").await, 200);
    running.ready().await.unwrap();
    assert_eq!(get_from(&running, "/v1/ready").await.1, "ready");
    assert_eq!(get_from(&running, "/ready").await.0, 404);
    assert!(get_from(&running, "/v1").await.1.contains("href=\"/v1/services\""));
    assert!(get_from(&running, "/v1/metrics").await.1.contains("route=\"v1_ready\""));
    let _ = running.stop().await;
}
