use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::Request;
use ringkit_config::ServerConfig;
use ringkit_kv::{Applied, Change, InMemory, Key, Precondition, Store, Stored, Subscription, Trouble};
use ringkit_ring::{InstanceDesc, RingOptions, State, Strategy};
use ringkit_runtime::{Clock, Meter};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::*;

const NOW: i64 = 1_700_000_000;

fn options(zone_awareness_enabled: bool) -> RingOptions {
    RingOptions {
        name: "ingester".into(),
        key: "ring".into(),
        heartbeat_timeout: Duration::from_secs(60),
        replication_factor: 3,
        zone_awareness_enabled,
        excluded_zones: vec![],
        strategy: Strategy::Quorum,
        detailed_metrics: true,
        ..RingOptions::default()
    }
}

fn instance(zone: &str, state: State, timestamp: i64, tokens: &[u32]) -> InstanceDesc {
    InstanceDesc {
        addr: format!("10.0.0.1:{}", 9000 + tokens.len()).into(),
        timestamp,
        state,
        tokens: tokens.to_vec().into(),
        zone: zone.into(),
        registered_timestamp: NOW - 3600,
        ..InstanceDesc::default()
    }
}

fn alive(tokens: &[u32]) -> InstanceDesc {
    instance("", State::Active, NOW, tokens)
}

fn dead(tokens: &[u32]) -> InstanceDesc {
    instance("", State::Active, NOW - 61, tokens)
}

fn ring(zone_awareness_enabled: bool, instances: &[(&str, InstanceDesc)]) -> Ring {
    let mut desc = Desc::new();
    for (id, instance) in instances {
        desc.insert(*id, instance.clone());
    }
    Ring::fixed(desc, options(zone_awareness_enabled), Clock::manual(NOW * 1000).0)
}

fn shown(ring: &Ring) -> RingPage {
    RingPage { title: "Ring".into(), ring: ring.clone(), client: None, forgets: Forgets::Never }
}

fn json_of(ring: &Ring) -> Value {
    serde_json::to_value(shown(ring).status(true)).unwrap()
}

async fn text_of(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn page_of(ring: &Ring, tokens: &str) -> String {
    let options = Options { tokens: tokens.into(), ..Options::default() };
    text_of(shown(ring).answer(&options, &HeaderMap::new())).await
}

/// The page with forgets, of a ring that the store holds too.
async fn served(
    store: impl Store,
    config: &ServerConfig,
    instances: &[(&str, InstanceDesc)],
) -> (Router, Client<Desc>) {
    let client: Client<Desc> = Client::new(Arc::new(store), &Meter::disabled());
    for (id, instance) in instances {
        client.upsert_own("ring", id, instance).await.unwrap();
    }
    let admin = Admin::open(config).unwrap();
    (routes_with_forget("/ring", "Ring", ring(false, instances), client.clone(), admin), client)
}

async fn forgetting(instances: &[(&str, InstanceDesc)]) -> (Router, Client<Desc>) {
    served(InMemory::default(), &ServerConfig::default(), instances).await
}

async fn get_from(router: &Router, path: &str, accept: &str) -> (HeaderMap, String) {
    let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    (response.headers().clone(), text_of(response).await)
}

async fn post(router: &Router, accept: &str, form: &str) -> (u16, HeaderMap, String) {
    let request = Request::post("/ring")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, accept)
        .body(Body::from(form.to_owned()))
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, text_of(response).await)
}

async fn post_for_json(router: &Router, form: &str) -> Value {
    let (status, _, answer) = post(router, "application/json", form).await;
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

async fn stored_ids(client: &Client<Desc>) -> Vec<String> {
    let view = client.get("ring").await.unwrap().unwrap();
    view.value.iter().map(|(id, _)| id.to_string()).collect()
}

/// The first `count` fields.
fn first(object: &Value, count: usize) -> Map<String, Value> {
    let fields = object.as_object().unwrap().iter().take(count);
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn names(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn json_begins_with_cortexs_field_by_field() {
    let mut fresh = instance("", State::Pending, NOW, &[]);
    fresh.registered_timestamp = 0;
    let ring = ring(
        false,
        &[
            ("i2", fresh),
            ("i1", instance("a", State::Active, NOW, &[1_000_000_000, 3_000_000_000])),
            ("i3", instance("b", State::Active, NOW - 61, &[5])),
        ],
    );
    let whole = json_of(&ring);
    let mut cortexs = first(&whole, 3);
    let shards = whole["shards"].as_array().unwrap().iter().map(|shard| Value::Object(first(shard, 7)));
    cortexs["shards"] = shards.collect();
    assert_eq!(
        serde_json::to_string(&cortexs).unwrap(),
        "{\"shards\":[\
         {\"id\":\"i1\",\"state\":\"ACTIVE\",\"address\":\"10.0.0.1:9002\",\"timestamp\":\"2023-11-14 22:13:20 +0000 UTC\",\
         \"registered_timestamp\":\"2023-11-14 21:13:20 +0000 UTC\",\"zone\":\"a\",\"tokens\":[1000000000,3000000000]},\
         {\"id\":\"i2\",\"state\":\"PENDING\",\"address\":\"10.0.0.1:9000\",\"timestamp\":\"2023-11-14 22:13:20 +0000 UTC\",\
         \"registered_timestamp\":\"\",\"zone\":\"\",\"tokens\":null},\
         {\"id\":\"i3\",\"state\":\"Unhealthy\",\"address\":\"10.0.0.1:9001\",\"timestamp\":\"2023-11-14 22:12:19 +0000 UTC\",\
         \"registered_timestamp\":\"2023-11-14 21:13:20 +0000 UTC\",\"zone\":\"b\",\"tokens\":[5]}],\
         \"now\":\"2023-11-14T22:13:20Z\",\"storageLastUpdated\":\"2023-11-14T22:13:20Z\"}"
    );
    assert!(
        serde_json::to_string(&shown(&ring).status(true))
            .unwrap()
            .starts_with("{\"shards\":[{\"id\":\"i1\",")
    );
}

#[test]
fn json_goes_on_with_what_cortex_does_not_tell() {
    let mut versioned = instance("a", State::Leaving, NOW - 3, &[1 << 31]);
    versioned.versions.insert(1, 7);
    let others = [
        ("i2", instance("a", State::Active, NOW - 61, &[(1 << 31) + (1 << 30)])),
        // Its clock is ahead; what counts is when it was heard here.
        ("i3", instance("a", State::Joining, NOW + 500, &[])),
    ];
    let json = json_of(&ring(false, &[("i1", versioned), others[0].clone(), others[1].clone()]));
    assert_eq!(names(&json)[3..], ["token_conflicts", "token_conflict_count", "store_trouble", "summary"]);
    let shards = &json["shards"];
    assert_eq!(
        names(&shards[0])[7..],
        [
            "heartbeat_age_seconds",
            "healthy",
            "ownership",
            "ownership_diff",
            "heartbeat_fresh",
            "stored_state",
            "token_count",
            "versions"
        ]
    );
    assert_eq!(shards[0]["heartbeat_age_seconds"], 3);
    assert_eq!((&shards[0]["healthy"], &shards[0]["ownership"]), (&json!(true), &json!(0.75)));
    assert_eq!((&shards[0]["token_count"], &shards[0]["versions"]), (&json!(1), &json!({"1": 7})));
    assert_eq!((&shards[1]["healthy"], &shards[1]["heartbeat_fresh"]), (&json!(false), &json!(false)));
    assert_eq!((&shards[1]["state"], &shards[1]["stored_state"]), (&json!("Unhealthy"), &json!("ACTIVE")));
    assert!(!names(&shards[1]).contains(&"versions"));
    assert_eq!(shards[2]["heartbeat_age_seconds"], 0);
    assert_eq!((&shards[2]["ownership"], &shards[2]["ownership_diff"]), (&json!(0.0), &Value::Null));
    let states = "3 members: 1 JOINING, 1 LEAVING, 1 Unhealthy (last known as 1 ACTIVE)";
    let rest = "2 tokens; no token conflicts; store last heard 2023-11-14T22:13:20Z (0s ago)";
    assert_eq!(json["summary"], format!("{states}; {rest}"));
}

#[test]
fn an_empty_ring_has_null_shards() {
    let json = json_of(&ring(false, &[]));
    assert_eq!((names(&json)[0], &json["shards"]), ("shards", &Value::Null));
    assert_eq!(json["summary"], "0 members; 0 tokens; no token conflicts; nothing heard from the store");
}

#[test]
fn tokens_that_several_claim_are_listed_up_to_a_hundred() {
    let two = json_of(&ring(false, &[("i1", alive(&[1, 5])), ("i2", alive(&[5, 9])), ("i3", alive(&[7]))]));
    assert_eq!(two["token_conflicts"], json!([{"token": 5, "owners": ["i1", "i2"]}]));
    assert_eq!(two["token_conflict_count"], 1);
    let many: Vec<u32> = (0..150).collect();
    let many = json_of(&ring(false, &[("i1", alive(&many)), ("i2", alive(&many))]));
    let listed = many["token_conflicts"].as_array().unwrap();
    assert_eq!((listed.len(), &listed[99]["token"]), (100, &json!(99)));
    assert_eq!(many["token_conflict_count"], 150);
}

#[tokio::test]
async fn token_conflicts_are_on_the_page() {
    let page = page_of(&ring(false, &[("<1>", alive(&[1, 5])), ("i2", alive(&[5]))]), "").await;
    assert!(page.contains("<li>5: &lt;1&gt;, i2</li>"), "{page}");
    assert!(page.contains(
        "<p id=\"summary\" class=\"bad\">2 members: 2 ACTIVE, 0 Unhealthy; 3 tokens; 1 token conflict; "
    ));
    let page = page_of(&ring(false, &[("i1", alive(&[1, 5]))]), "").await;
    assert!(page.contains("<div id=\"conflicts\"></div>"));
    assert!(page.contains(
        "<p id=\"summary\" class=\"good\">1 member: 1 ACTIVE, 0 Unhealthy; 2 tokens; no token conflicts; "
    ));
}

#[tokio::test]
async fn the_page_tells_state_by_word_and_colour_and_age_and_ownership() {
    const DIFF: &str = "</td><td data-label=\"Diff From Expected\" class=\"number\">";
    let ring = ring(
        false,
        &[
            ("i1", instance("a", State::Active, NOW - 3, &[1 << 31])),
            ("i2", instance("b", State::Leaving, NOW - 20, &[(1 << 31) + (1 << 30)])),
            ("i3", instance("b", State::Active, NOW - 3700, &[])),
        ],
    );
    let page = page_of(&ring, "").await;
    assert!(page.contains("<td data-label=\"State\" class=\"good\">ACTIVE</td>"), "{page}");
    assert!(page.contains("<td data-label=\"State\" class=\"busy\">LEAVING</td>"));
    assert!(page.contains("<td data-label=\"State\" class=\"bad\">Unhealthy <small>was ACTIVE</small></td>"));
    assert!(page.contains("3s ago <span class=\"good\">fresh</span>"));
    assert!(page.contains("20s ago <span class=\"good\">fresh</span>"));
    assert!(page.contains("1h 1m ago <span class=\"bad\">stale</span>"));
    // A token owns what lies before it: three quarters and one quarter of the circle, a third each being fair.
    assert!(page.contains(&format!("75.00%{DIFF}+55.56%")), "{page}");
    assert!(page.contains(&format!("25.00%{DIFF}-33.33%")));
    assert!(page.contains(&format!("0.00%{DIFF}</td>")));
    assert!(!page.contains("2147483648"));
    assert!(page_of(&ring, "true").await.contains("<h2>Tokens of i1</h2>\n<p>2147483648</p>"));
}

#[tokio::test]
async fn zones_share_the_circle_on_their_own() {
    const DIFF: &str = "</td><td data-label=\"Diff From Expected\" class=\"number\">";
    let ring = ring(
        true,
        &[
            ("i1", instance("a", State::Active, NOW, &[7])),
            ("i2", instance("b", State::Active, NOW, &[1 << 31])),
            ("i3", instance("b", State::Active, NOW, &[0])),
        ],
    );
    let page = page_of(&ring, "").await;
    assert!(page.contains(&format!("100.00%{DIFF}+0.00%")), "{page}");
    assert_eq!(page.matches(&format!(">50.00%{DIFF}+0.00%")).count(), 2, "{page}");
}

#[tokio::test]
async fn names_from_the_ring_are_escaped() {
    let page = page_of(&ring(false, &[("<i>", instance("&", State::Active, NOW, &[1]))]), "true").await;
    let cells =
        "<td data-label=\"Instance ID\">&lt;i&gt;</td><td data-label=\"Availability Zone\">&amp;</td>";
    assert!(page.contains(cells), "{page}");
    assert!(page.contains("Tokens of &lt;i&gt;"));
}

#[tokio::test]
async fn versions_have_a_column_if_anybody_has_some() {
    let mut versioned = alive(&[1]);
    versioned.versions.extend([(1, 7), (2, 3)]);
    let page = page_of(&ring(false, &[("i1", versioned), ("i2", alive(&[2]))]), "").await;
    assert!(page.contains("<th scope=\"col\">Versions</th>"), "{page}");
    assert!(page.contains("<td data-label=\"Versions\">1=7, 2=3</td>"));
    assert!(page.contains("<td data-label=\"Versions\"></td>"));
    let page = page_of(&ring(false, &[("i2", alive(&[2]))]), "").await;
    assert!(!page.contains("<th scope=\"col\">Versions</th>"));
}

#[tokio::test]
async fn one_address_gives_page_and_json_and_tokens_can_be_left_out() {
    let (router, _) = forgetting(&[("i1", alive(&[1, 2]))]).await;
    let (headers, page) = get_from(&router, "/ring", "text/html").await;
    assert_eq!(headers["vary"], "accept");
    assert_eq!(headers["cache-control"], "no-store");
    assert!(page.starts_with("<!doctype html>"));
    let (headers, json) = get_from(&router, "/ring?tokens=false", "application/json").await;
    assert_eq!(headers["vary"], "accept");
    let json: Value = serde_json::from_str(&json).unwrap();
    let shard = &json["shards"][0];
    assert_eq!((&shard["tokens"], &shard["token_count"]), (&Value::Null, &json!(2)));
    let (_, json) = get_from(&router, "/ring", "application/json").await;
    assert!(json.contains("\"tokens\":[1,2]"), "{json}");
}

#[tokio::test]
async fn only_the_pages_own_script_may_run() {
    let (router, _) = forgetting(&[]).await;
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let (headers, page) = get_from(&router, "/ring", "text/html").await;
        let policy = headers["content-security-policy"].to_str().unwrap().to_owned();
        let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        assert!(page.contains(&format!("<script nonce=\"{nonce}\">")), "{policy}");
        assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
        assert_eq!(page.matches("<script").count(), 1);
        assert_eq!(page.matches("</script").count(), 1, "the script does not end itself");
        nonces.push(nonce);
    }
    assert_ne!(nonces[0], nonces[1]);
}

#[tokio::test]
async fn what_is_told_is_escaped() {
    let (router, _) = forgetting(&[]).await;
    let (_, page) = get_from(&router, "/ring?told=%3Cb%3E%22hi%22%20%26", "text/html").await;
    assert!(page.contains("role=\"status\" tabindex=\"-1\">&lt;b&gt;&quot;hi&quot; &amp;</p>"), "{page}");
    assert!(!page.contains("<b>\"hi\""));
}

#[tokio::test]
async fn forgetting_answers_programs_in_json_with_what_became_of_whom() {
    let (router, client) = forgetting(&[("i1", alive(&[1])), ("i2", alive(&[2]))]).await;
    assert_eq!(
        post_for_json(&router, "forget=i1").await,
        json!({
            "forgotten": ["i1"], "unknown": [], "failed": [], "acknowledged_by": "inmemory",
            "message": "Forgot i1: inmemory has acknowledged the removal. An instance that is alive comes back with its next heartbeat.",
        })
    );
    assert_eq!(stored_ids(&client).await, ["i2"]);
}

#[tokio::test]
async fn forgetting_somebody_unknown_is_success_and_says_so() {
    let (router, client) = forgetting(&[("i1", alive(&[1]))]).await;
    let answer = post_for_json(&router, "forget=nobody").await;
    assert_eq!((&answer["forgotten"], &answer["unknown"]), (&json!([]), &json!(["nobody"])));
    let message = answer["message"].as_str().unwrap();
    assert!(message.starts_with("nobody was not in the ring as this process sees it"), "{message}");
    assert_eq!(post(&router, "text/html", "forget=nobody").await.0, 302);
    assert_eq!(stored_ids(&client).await, ["i1"]);
}

#[tokio::test]
async fn what_the_store_holds_is_removed_even_if_it_is_not_seen_here() {
    let (router, client) = forgetting(&[("i1", alive(&[1]))]).await;
    client.upsert_own("ring", "unseen", &alive(&[2])).await.unwrap();
    assert_eq!(post_for_json(&router, "forget=unseen").await["unknown"], json!(["unseen"]));
    assert_eq!(stored_ids(&client).await, ["i1"]);
}

#[tokio::test]
async fn all_unhealthy_are_forgotten_and_nobody_else() {
    let joining = instance("", State::Joining, NOW - 60, &[]);
    let leaving = instance("", State::Leaving, NOW - 61, &[3]);
    let (router, client) =
        forgetting(&[("i1", alive(&[1])), ("i2", dead(&[2])), ("i3", leaving), ("i4", joining)]).await;
    let (_, page) = get_from(&router, "/ring", "text/html").await;
    assert!(
        page.contains("<button name=\"forget_unhealthy\" value=\"true\">Forget all unhealthy (2)</button>"),
        "{page}"
    );
    let answer = post_for_json(&router, "forget_unhealthy=true").await;
    assert_eq!((&answer["forgotten"], &answer["failed"]), (&json!(["i2", "i3"]), &json!([])));
    assert!(answer["message"].as_str().unwrap().starts_with("Forgot i2, i3: "), "{answer}");
    assert_eq!(stored_ids(&client).await, ["i1", "i4"]);
    // This ring stands still, so the same are asked for again.
    assert_eq!(post_for_json(&router, "forget_unhealthy=true").await["failed"], json!([]));
}

#[tokio::test]
async fn where_nobody_is_unhealthy_nobody_is_forgotten() {
    let (router, client) = forgetting(&[("i1", alive(&[1]))]).await;
    let answer = post_for_json(&router, "forget_unhealthy=true").await;
    assert_eq!(answer["forgotten"], json!([]));
    assert_eq!(answer["message"], "Nobody is unhealthy: there was nothing to forget.");
    assert_eq!(stored_ids(&client).await, ["i1"]);
    let (_, page) = get_from(&router, "/ring", "text/html").await;
    assert!(page.contains("<form method=\"post\" id=\"forget-unhealthy\" hidden>"), "{page}");
}

#[tokio::test]
async fn many_names_are_cut_short_in_words_but_not_in_json() {
    let ids: Vec<String> = (0..8).map(|i| format!("i{i}{}", "x".repeat(200))).collect();
    let members: Vec<(&str, InstanceDesc)> = ids.iter().map(|id| (id.as_str(), dead(&[]))).collect();
    let (router, _) = forgetting(&members).await;
    let answer = post_for_json(&router, "forget_unhealthy=true").await;
    assert_eq!(answer["forgotten"], json!(ids));
    let message = answer["message"].as_str().unwrap();
    assert!(message.starts_with("Forgot 8 instances (i0") && message.contains("x…, i1"), "{message}");
    assert!(message.contains(" and 3 more): inmemory has acknowledged") && message.len() < 700, "{message}");
}

#[tokio::test]
async fn who_says_nobody_is_told_what_to_say() {
    let (router, client) = forgetting(&[("i1", dead(&[1]))]).await;
    for form in ["", "forget=", "forget_unhealthy=false", "page=1"] {
        let (status, _, answer) = post(&router, "text/html", form).await;
        assert_eq!(status, 400, "{form}");
        assert!(answer.starts_with("say whom to forget: "), "{answer}");
    }
    assert_eq!(stored_ids(&client).await, ["i1"]);
}

#[tokio::test]
async fn browsers_are_sent_back_to_the_page_which_tells_what_happened() {
    let (router, _) = forgetting(&[("<1> & ü", alive(&[1])), ("i2", alive(&[2]))]).await;
    let (status, headers, _) = post(&router, "text/html", "page=1&forget=%3C1%3E+%26+%C3%BC").await;
    assert_eq!(status, 303);
    let location = headers["location"].to_str().unwrap();
    assert!(location.starts_with("?told=Forgot%20%3C1%3E%20%26%20%C3%BC%3A%20inmemory%20has"), "{location}");
    let (_, page) = get_from(&router, &format!("/ring{location}"), "text/html").await;
    assert!(page.contains("Forgot &lt;1&gt; &amp; ü: inmemory has acknowledged the removal."), "{page}");
    // A form of somebody else, as Cortex answers it.
    let (status, headers, _) = post(&router, "text/html", "forget=i2").await;
    assert_eq!((status, headers["location"].to_str().unwrap()), (302, "#"));
}

#[tokio::test]
async fn rows_have_forms_only_where_forms_can_do_it() {
    const BUTTON: &str = "<button name=\"forget\" value=\"i1\">Forget</button>";
    let members = [("i1", alive(&[1]))];
    let (router, _) = forgetting(&members).await;
    let (_, page) = get_from(&router, "/ring", "text/html").await;
    assert!(page.contains(BUTTON) && page.contains("data-forget=\"form\"") && !page.contains("id=\"token\""));

    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "secret\n").unwrap();
    let config =
        ServerConfig { admin_token_file: token.path().to_str().unwrap().into(), ..ServerConfig::default() };
    let (router, client) = served(InMemory::default(), &config, &members).await;
    let (_, page) = get_from(&router, "/ring", "text/html").await;
    assert!(!page.contains(BUTTON) && page.contains("data-forget=\"token\""), "{page}");
    assert!(page.contains("<input type=\"password\" id=\"token\""));
    assert!(!page.contains("secret"));
    assert_eq!(post(&router, "application/json", "forget=i1").await.0, 401);
    assert_eq!(stored_ids(&client).await, ["i1"]);

    let page = page_of(&ring(false, &members), "").await;
    assert!(
        !page.contains(BUTTON)
            && page.contains("data-forget=\"never\"")
            && !page.contains("forget_unhealthy\" ")
    );
}

/// A store that does not remove `whom`.
struct Refusing {
    inner: InMemory,
    whom: &'static str,
    answers: bool,
    trouble: Option<Trouble>,
}

impl Refusing {
    fn to_remove(whom: &'static str, answers: bool) -> Self {
        Self { inner: InMemory::default(), whom, answers, trouble: None }
    }
}

#[async_trait]
impl Store for Refusing {
    fn backend(&self) -> &'static str {
        "refusing"
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, ringkit_kv::Error> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, ringkit_kv::Error> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), ringkit_kv::Error> {
        self.inner.delete(key).await
    }

    async fn delete_at(&self, key: &Key, version: u64) -> Result<bool, ringkit_kv::Error> {
        self.inner.delete_at(key, version).await
    }

    async fn apply(
        &self,
        key: &Key,
        change: Change,
        when: Precondition,
    ) -> Result<Applied, ringkit_kv::Error> {
        match change.removals.iter().any(|id| id.as_str() == self.whom) {
            true if self.answers => {
                Err(ringkit_kv::Error::Refused { backend: "refusing", reason: "not that one".into() })
            }
            true => Err(ringkit_kv::Error::Unavailable { backend: "refusing", cause: "it is down".into() }),
            false => self.inner.apply(key, change, when).await,
        }
    }

    async fn watch(&self, key: &Key) -> Result<Subscription, ringkit_kv::Error> {
        self.inner.watch(key).await
    }

    fn synced(&self) -> watch::Receiver<bool> {
        self.inner.synced()
    }

    fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        watch::Sender::new(self.trouble.clone()).subscribe()
    }
}

#[tokio::test]
async fn h15_who_cannot_be_forgotten_is_named_and_the_others_are_forgotten() {
    let members = [("i1", dead(&[])), ("i2", dead(&[])), ("i3", dead(&[]))];
    let store = Refusing::to_remove("i2", true);
    let (router, client) = served(store, &ServerConfig::default(), &members).await;
    let answer = post_for_json(&router, "forget_unhealthy=true").await;
    assert_eq!(answer["forgotten"], json!(["i1", "i3"]));
    let error = "refusing refused a request: not that one";
    assert_eq!(answer["failed"], json!([{"id": "i2", "error": error}]));
    let message = answer["message"].as_str().unwrap();
    assert!(message.ends_with(&format!(" 1 could not be forgotten, first i2: {error}.")), "{message}");
    assert_eq!(stored_ids(&client).await, ["i2"]);
    let (status, _, answer) = post(&router, "application/json", "forget=i2").await;
    assert_eq!((status, answer.as_str()), (500, "refusing refused a request: not that one\n"));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stops_answering_is_not_asked_for_each_of_the_others() {
    let members = [("i1", dead(&[])), ("i2", dead(&[])), ("i3", dead(&[]))];
    let store = Refusing::to_remove("i2", false);
    let (router, client) = served(store, &ServerConfig::default(), &members).await;
    let answer = post_for_json(&router, "forget_unhealthy=true").await;
    assert_eq!(answer["forgotten"], json!(["i1"]));
    assert!(answer["failed"][0]["error"].as_str().unwrap().contains("it is down"), "{answer}");
    assert_eq!(answer["failed"][1]["error"], "not tried, because the store did not answer before");
    assert_eq!(stored_ids(&client).await, ["i2", "i3"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_forgotten_at_all_is_an_error() {
    let store = Refusing::to_remove("i1", false);
    let (router, _) = served(store, &ServerConfig::default(), &[("i1", dead(&[]))]).await;
    for form in ["forget=i1", "forget_unhealthy=true", "page=1&forget=i1"] {
        let (status, _, answer) = post(&router, "text/html", form).await;
        assert_eq!(status, 503, "{form}");
        assert!(answer.contains("it is down"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_is_told_of() {
    let now = Instant::now();
    let trouble = Trouble { heard: now, since: now, cause: "connection refused".into() };
    let store = Refusing { trouble: Some(trouble), ..Refusing::to_remove("", true) };
    let (router, _) = served(store, &ServerConfig::default(), &[("i1", alive(&[1]))]).await;
    tokio::time::advance(Duration::from_secs(35)).await;
    let words = "refusing has not answered for 35s: connection refused";
    let (_, json) = get_from(&router, "/ring", "application/json").await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["store_trouble"], words);
    let (_, page) = get_from(&router, "/ring", "text/html").await;
    assert!(
        page.contains("<p id=\"summary\" class=\"bad\">1 member: 1 ACTIVE, 0 Unhealthy; 1 token;"),
        "{page}"
    );
    assert!(page.contains(words));
}
