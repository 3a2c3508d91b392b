use axum::body::Body;
use axum::http::Request;
use ringkit_config::{Config, KvStore, KvStoreConfig, MemberlistConfig, MultiConfig, RingName};
use ringkit_kv::Client;
use ringkit_kv::memberlist::MemberlistOptions;
use ringkit_kv::multi::MultiRuntime;
use ringkit_ring::{Desc, InstanceDesc};
use ringkit_runtime::{Clock, Meter};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt as _;

use super::*;

const JSON: &str = "application/json";

/// One ring in memory, mirrored to a member that has its cluster for itself.
struct World {
    stores: Stores,
    router: Router,
    /// Kept, so that the store follows.
    runtime: watch::Sender<MultiRuntime>,
    /// Kept, so that the store is there.
    client: Client<Desc>,
}

fn page(stores: &Stores, config: &Config, runs: &[&str]) -> Router {
    let page = Page {
        stores: stores.clone(),
        live: Live::fixed(RuntimeConfig::new(config)),
        identity: Identity::of(config, |role| runs.contains(&role)),
    };
    page.routes()
}

fn config() -> Config {
    let mut config = Config::default();
    let kv = &mut config.ingester.lifecycler.ring.kvstore;
    kv.store = KvStore::Multi;
    kv.multi = MultiConfig {
        primary: Some(KvStore::Inmemory),
        secondary: Some(KvStore::Memberlist),
        mirror_enabled: true,
        ..MultiConfig::default()
    };
    config.ingester.lifecycler.id = "<i>1".into();
    config
}

async fn world() -> World {
    let (stores, meter, clock) = (Stores::new(), Meter::disabled(), Clock::system());
    stores.set_memberlist(MemberlistOptions {
        config: MemberlistConfig {
            bind_addr: vec!["127.0.0.1".into()],
            bind_port: 0,
            ..MemberlistConfig::default()
        },
        zone: String::new(),
        build: String::new(),
        meter: meter.clone(),
        proceed_after: None,
        clock: clock.clone(),
    });
    let runtime = watch::Sender::new(MultiRuntime::default());
    stores.set_multi_runtime(runtime.subscribe());
    let config = config();
    let kv = KvStoreConfig { prefix: String::new(), ..config.kv(RingName::Ingester) };
    let client = stores.client::<Desc>(&kv, "<b>ring</b>", &meter, &clock).unwrap();
    let instance = InstanceDesc { timestamp: clock.now_secs(), ..InstanceDesc::default() };
    client.upsert_own("ring/<1>", "i1", &instance).await.unwrap();
    let router = page(&stores, &config, &["ring", "ingester"]);
    World { stores, router, runtime, client }
}

async fn get_as(router: &Router, accept: &str) -> (HeaderMap, String) {
    let request = Request::get("/multikv").header(header::ACCEPT, accept).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers().clone();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn json_of(router: &Router) -> Value {
    serde_json::from_str(&get_as(router, JSON).await.1).unwrap()
}

/// Asks until the answer is as it must become.
async fn eventually(router: &Router, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..3000 {
        let json = json_of(router).await;
        if holds(&json) {
            return json;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{what}: {}", json_of(router).await)
}

#[tokio::test]
async fn whoever_keeps_no_ring_in_two_stores_says_so_and_still_who_it_is() {
    let mut config = Config::default();
    config.store_gateway.sharding_ring.instance_id = "g1".into();
    let router = page(&Stores::new(), &config, &["store-gateway"]);
    let (headers, text) = get_as(&router, "text/html").await;
    assert_eq!(text, "This instance doesn't use multi KV.");
    assert!(headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    assert_eq!(
        json_of(&router).await,
        json!({
            "generation": 0,
            "config_hash": null,
            "instances": [{"name": "g1", "target": "store-gateway"}],
            "stores": [],
            "runtime": {"primary": null, "mirror_enabled": null, "force": false, "per_ring": []},
            "rings": [{"ring": "store-gateway", "store": "consul", "multi": null}],
        })
    );
}

#[tokio::test]
async fn json_has_all_that_is_known_of_a_store_and_who_the_process_is() {
    let World { router, stores: _stores, runtime: _runtime, client: _client } = world().await;
    let (headers, _) = get_as(&router, JSON).await;
    assert_eq!(headers["vary"], "accept");
    assert_eq!(headers["cache-control"], "no-store");
    let is_mirrored = |json: &Value| {
        let key = &json["stores"][0]["keys"][0];
        key["compared"] == true && key["stores"][1]["entries"] == 1
    };
    let json = eventually(&router, "the entry is in both", is_mirrored).await;
    assert_eq!(json["instances"], json!([{"name": "<i>1", "target": "ingester"}]));
    assert_eq!(
        json["rings"],
        json!([{"ring": "ingester", "store": "multi", "multi": {
            "primary": "inmemory", "secondary": "memberlist", "mirror_enabled": true, "read_mode": "auto", "switch_gate": true,
        }}])
    );
    let report = &json["stores"][0];
    assert_eq!((&report["primary"], &report["mirror"]), (&json!("inmemory"), &json!(true)));
    assert_eq!(report["keys"][0]["key"], "ring/<1>");
    assert_eq!(report["keys"][0]["stores"][0]["missing"], json!({"num": 0, "ids": []}));
}

#[tokio::test]
async fn the_page_tells_all_and_what_others_have_named_is_escaped() {
    let World { router, stores: _stores, runtime, client: _client } = world().await;
    let (headers, page) = get_as(&router, "text/html").await;
    for part in [
        "<h1>Multi KV Status</h1>",
        "<td>&lt;i&gt;1 (ingester)</td>",
        "<h2>&lt;b&gt;ring&lt;/b&gt;</h2>",
        "<th scope=\"row\">Primary</th><td>inmemory</td>",
        "<th scope=\"row\">Mirror</th><td>on (async)</td>",
        "<th scope=\"row\">Wanted</th><td>nothing else</td>",
        "<td data-label=\"Key\">ring/&lt;1&gt;</td>",
        "<td data-label=\"Store\">memberlist</td><td data-label=\"Part\">secondary</td>",
        "<h3>Gate</h3>",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    assert!(!page.contains("<b>ring") && !page.contains("<i>1"));
    let policy = headers["content-security-policy"].to_str().unwrap();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(page.contains(&format!("<script nonce=\"{nonce}\">")) && policy.contains("default-src 'none'"));
    assert_eq!((page.matches("<script").count(), page.matches("</script").count()), (1, 1));

    // A lone member cannot vouch for what it alone has: the switch waits, and the page says what for.
    let asked = MultiRuntime { primary: Some(KvStore::Memberlist), generation: 4, ..MultiRuntime::default() };
    runtime.send_replace(asked);
    let waits = |json: &Value| {
        let switch = &json["stores"][0]["switch"];
        switch["generation"] == 4
            && (switch["wanted_primary"] == "memberlist" || json["stores"][0]["primary"] == "memberlist")
    };
    let json = eventually(&router, "what is asked for is known", waits).await;
    let (_, page) = get_as(&router, "text/html").await;
    assert!(page.contains("<th scope=\"row\">Taken over</th><td>generation 4, "), "{json}: {page}");
}
