use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use ringkit_config::{KvStore, KvStoreConfig, MemberlistConfig, Secret, ServerConfig};
use ringkit_kv::memberlist::MemberlistOptions;
use ringkit_kv::{Change, Codec, Decision, DecodeError, EntryId, Key, Precondition, Text};
use ringkit_ring::{Desc, InstanceDesc, State};
use ringkit_runtime::Meter;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;

/// Bytes that are no text.
const NOISE: &[u8] = &[0xff, 0x00, 0xfe];

/// Any value, as it is.
struct Whole;

impl Codec for Whole {
    fn id(&self) -> &'static str {
        "whole"
    }

    fn split(&self, stored: &[u8]) -> Result<BTreeMap<EntryId, Bytes>, DecodeError> {
        Ok(BTreeMap::from([("value".into(), Bytes::copy_from_slice(stored))]))
    }

    fn join(&self, entries: &BTreeMap<EntryId, Bytes>) -> Bytes {
        entries.values().next().cloned().unwrap_or_default()
    }

    fn check_entry(&self, _id: &str, _entry: &[u8]) -> Result<(), DecodeError> {
        Ok(())
    }
}

/// A member that has the cluster for itself: a ring under `ring/<1>`, a text under `note` and something else under `noise`.
async fn member(message_history_buffer_bytes: usize) -> Stores {
    member_with(MemberlistConfig { message_history_buffer_bytes, ..MemberlistConfig::default() }).await
}

/// The same, otherwise as this says.
async fn member_with(config: MemberlistConfig) -> Stores {
    let stores = Stores::new();
    let (meter, clock) = (Meter::disabled(), Clock::system());
    stores.set_memberlist(MemberlistOptions {
        config: MemberlistConfig {
            node_name: "me".into(),
            randomize_node_name: false,
            bind_addr: vec!["127.0.0.1".into()],
            bind_port: 0,
            cluster_label: "<b>label</b>".into(),
            ..config
        },
        zone: "<zone>".into(),
        build: "1 & 2".into(),
        meter: meter.clone(),
        clock: clock.clone(),
        proceed_after: None,
    });
    let config =
        KvStoreConfig { store: KvStore::Memberlist, prefix: String::new(), ..KvStoreConfig::default() };
    let rings = stores.client::<Desc>(&config, "test", &meter, &clock).unwrap();
    let instance = InstanceDesc {
        addr: "10.0.0.1:9095".into(),
        timestamp: clock.now_secs(),
        state: State::Leaving,
        tokens: vec![5, 7].into(),
        zone: "a".into(),
        ..InstanceDesc::default()
    };
    rings.upsert_own("ring/<1>", "i1", &instance).await.unwrap();
    rings.upsert_own("ring/<1>", "i2", &instance).await.unwrap();
    rings.remove_own("ring/<1>", "i2").await.unwrap();
    let texts = stores.client::<Text>(&config, "test", &meter, &clock).unwrap();
    texts.cas("note", |_| Decision::Write(Text::new("hello"), ())).await.unwrap();
    let store = stores.open(&config, "test", &meter, &clock).unwrap();
    let noise = Change::upsert("value", NOISE);
    store.apply(&Key::new("noise", &Whole), noise, Precondition::None).await.unwrap();
    stores
}

fn router(stores: &Stores, config: &ServerConfig, keeps_messages: bool) -> Router {
    let admin = Admin::open(config).unwrap();
    let page = Page {
        stores: stores.clone(),
        clock: Clock::system(),
        keeps_messages,
        heals_by_form: admin.takes_forms(),
    };
    page.routes(&admin)
}

async fn serving() -> (Router, Stores) {
    let stores = member(1 << 20).await;
    (router(&stores, &ServerConfig::default(), true), stores)
}

/// Status, headers and body of an answer.
async fn ask(router: &Router, request: Request<Body>) -> (u16, HeaderMap, Bytes) {
    let response = router.clone().oneshot(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap())
}

async fn get_as(router: &Router, query: &str, accept: &str) -> (u16, HeaderMap, String) {
    let request = Request::get(format!("/memberlist{query}")).header(header::ACCEPT, accept);
    let (status, headers, body) = ask(router, request.body(Body::empty()).unwrap()).await;
    (status, headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn page_of(router: &Router, query: &str) -> String {
    let (status, _, page) = get_as(router, query, "text/html").await;
    assert_eq!(status, 200, "{page}");
    page
}

async fn post_to(router: &Router, content_type: &str, accept: &str, body: &str) -> (u16, HeaderMap, String) {
    let request = Request::post("/memberlist/heal")
        .header(header::CONTENT_TYPE, content_type)
        .header(header::ACCEPT, accept)
        .body(Body::from(body.to_owned()))
        .unwrap();
    let (status, headers, body) = ask(router, request).await;
    (status, headers, String::from_utf8(body.to_vec()).unwrap())
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

#[tokio::test]
async fn whoever_does_not_gossip_says_so() {
    let router = router(&Stores::new(), &ServerConfig::default(), false);
    for accept in ["text/html", JSON] {
        let (status, headers, text) = get_as(&router, "", accept).await;
        assert_eq!((status, text.as_str()), (200, "This instance doesn't use memberlist."));
        assert!(headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    }
    assert_eq!(post_to(&router, FORM, JSON, "key=ring").await.0, 404);
}

#[tokio::test]
async fn the_page_tells_all_and_what_others_have_written_is_escaped() {
    let (router, _stores) = serving().await;
    let page = page_of(&router, "?told=%3Cb%3E").await;
    for part in [
        "<h1>Memberlist Status</h1>",
        "<td data-label=\"Name\">me <small>this one</small></td>",
        "<td>&lt;b&gt;label&lt;/b&gt;</td>",
        "<td data-label=\"Zone\">&lt;zone&gt;</td>",
        "<td data-label=\"Build\">1 &amp; 2</td>",
        "<td data-label=\"State\" class=\"good\">alive</td>",
        "<td data-label=\"Key\">ring/&lt;1&gt;</td><td data-label=\"Codec\">ringDesc</td>",
        "<a href=\"?viewKey=ring%2F%3C1%3E&amp;format=json-pretty\">json-pretty</a>",
        "<a href=\"?downloadKey=note\">download</a>",
        "<button name=\"key\" value=\"ring/&lt;1&gt;\">Heal</button>",
        "<code>memberlist.join_members</code> is empty",
        "There is no cluster key: nothing is sealed.",
        "<h2>Refusals</h2>",
        "<a href=\"?deleteMessages=true\">Forget all messages</a>",
        "tabindex=\"-1\">&lt;b&gt;</p>",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    assert!(page.contains("<p id=\"summary\" class=\"good\">"), "{page}");
    assert!(!page.contains("<zone>") && !page.contains("<b>label"));
}

#[tokio::test]
async fn the_page_tells_whether_clear_gossip_is_accepted() {
    for require_encryption in [true, false] {
        let key = Secret::new("MDEyMzQ1Njc4OWFiY2RlZg==");
        let config = MemberlistConfig {
            encryption_keys: vec![key],
            require_encryption,
            ..MemberlistConfig::default()
        };
        let page = page_of(&router(&member_with(config).await, &ServerConfig::default(), false), "").await;
        assert!(page.contains("seals and opens"), "{page}");
        assert_eq!(page.contains("Clear gossip is still accepted"), !require_encryption, "{page}");
    }
}

#[tokio::test]
async fn only_the_pages_own_script_may_run() {
    let (router, _stores) = serving().await;
    let (_, headers, page) = get_as(&router, "", "text/html").await;
    let policy = headers["content-security-policy"].to_str().unwrap();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(page.contains(&format!("<script nonce=\"{nonce}\">")) && policy.contains("default-src 'none'"));
    assert_eq!((page.matches("<script").count(), page.matches("</script").count()), (1, 1));
    assert_eq!(headers["vary"], "accept");
    assert_eq!(headers["cache-control"], "no-store");
}

#[tokio::test]
async fn without_a_buffer_the_page_says_how_to_keep_messages() {
    let stores = member(0).await;
    let page = page_of(&router(&stores, &ServerConfig::default(), false), "").await;
    assert!(page.contains("<code>memberlist.message_history_buffer_bytes</code>"), "{page}");
    assert!(!page.contains("deleteMessages"));
}

#[tokio::test]
async fn json_is_cortexs_with_one_more_field() {
    let (router, _stores) = serving().await;
    let (status, headers, text) = get_as(&router, "", JSON).await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, JSON));
    let json: Value = serde_json::from_str(&text).unwrap();
    let names = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(
        names(&json),
        ["Now", "Memberlist", "SortedMembers", "Store", "SentMessages", "ReceivedMessages", "Ringkit"]
    );
    assert!(json["Now"].as_str().unwrap().ends_with('Z'));
    assert_eq!(json["Memberlist"], json!({}));
    let member = &json["SortedMembers"][0];
    assert_eq!(
        names(member),
        ["Name", "Addr", "Port", "Meta", "State", "PMin", "PMax", "PCur", "DMin", "DMax", "DCur"]
    );
    assert_eq!(
        (&member["Name"], &member["Addr"], &member["State"]),
        (&json!("me"), &json!("127.0.0.1"), &json!(0))
    );
    let port = member["Port"].as_u64().unwrap();
    assert_eq!(json["Ringkit"]["addr"], format!("127.0.0.1:{port}"));
    assert_eq!((&json["Store"]["note"], &json["Store"]["ring/<1>"]), (&json!({}), &json!({})));
    assert_eq!((&json["Ringkit"]["name"], &json["Ringkit"]["zone"]), (&json!("me"), &json!("<zone>")));
}

#[tokio::test]
async fn a_ring_is_shown_in_words_and_as_json() {
    let (router, _stores) = serving().await;
    const KEY: &str = "?viewKey=ring%2F%3C1%3E";
    let (_, headers, words) = get_as(&router, KEY, "text/html").await;
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(words.starts_with("codec ringDesc, version "), "{words}");
    assert!(words.contains("\"i1\": LEAVING, zone \"a\", address \"10.0.0.1:9095\", heartbeat "), "{words}");
    assert!(words.contains(", 2 tokens\n\"i2\": removed "), "{words}");
    assert_eq!(get_as(&router, &format!("{KEY}&format=struct"), "").await.2.lines().count(), 3);

    let (_, headers, line) = get_as(&router, &format!("{KEY}&format=json"), "").await;
    assert_eq!(headers["content-type"], JSON);
    let json: Value = serde_json::from_str(&line).unwrap();
    let instance = &json["ingesters"]["i1"];
    assert_eq!(
        (&instance["state"], &instance["tokens"], &instance["addr"]),
        (&json!("LEAVING"), &json!([5, 7]), &json!("10.0.0.1:9095"))
    );
    assert!(json["removed"]["i2"]["age_seconds"].is_u64(), "{line}");
    let (_, headers, pretty) = get_as(&router, &format!("{KEY}&format=json-pretty"), "").await;
    assert_eq!(headers["content-type"], JSON);
    assert!(pretty.starts_with("{\n    \"ingesters\": {\n        \"i1\": {\n"), "{pretty}");
    assert_eq!(serde_json::from_str::<Value>(&pretty).unwrap()["ingesters"], json["ingesters"]);
}

#[tokio::test]
async fn other_values_are_shown_as_text_or_base64_and_can_be_taken_away() {
    let (router, _stores) = serving().await;
    for (query, expected) in [
        ("?viewKey=note", "hello"),
        ("?viewKey=note&format=json", "\"hello\""),
        ("?viewKey=note&format=json-pretty", "\"hello\"\n"),
        ("?viewKey=noise", "/wD+"),
        ("?viewKey=noise&format=json", "\"/wD+\""),
    ] {
        let (status, _, text) = get_as(&router, query, "").await;
        assert_eq!((status, text.as_str()), (200, expected), "{query}");
    }
    let download = Request::get("/memberlist?downloadKey=noise").body(Body::empty()).unwrap();
    let (status, headers, bytes) = ask(&router, download).await;
    assert_eq!((status, &bytes[..]), (200, NOISE));
    assert_eq!(headers["content-type"], "application/octet-stream");
    let disposition = headers["content-disposition"].to_str().unwrap();
    assert!(
        disposition.starts_with("attachment; filename=") && disposition.ends_with("-noise"),
        "{disposition}"
    );
    let download = Request::get("/memberlist?downloadKey=ring%2F%3C1%3E").body(Body::empty()).unwrap();
    let (_, headers, _) = ask(&router, download).await;
    assert!(headers["content-disposition"].to_str().unwrap().ends_with("-ring/_1_"));
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_makes_no_sense_400() {
    let (router, _stores) = serving().await;
    for (query, expected) in [
        ("?viewKey=nothing", 404),
        ("?viewKey=", 404),
        ("?downloadKey=nothing", 404),
        ("?viewMsg=18446744073709551615", 404),
        ("?viewMsg=one", 400),
        ("?viewMsg=-1", 400),
        ("?viewKey=note&format=xml", 400),
        ("?viewMsg=1&format=xml", 400),
    ] {
        assert_eq!(get_as(&router, query, JSON).await.0, expected, "{query}");
    }
}

#[tokio::test]
async fn messages_are_forgotten_on_demand() {
    let (router, _stores) = serving().await;
    let (status, headers, _) = get_as(&router, "?deleteMessages=true", "").await;
    assert_eq!((status, headers["location"].to_str().unwrap()), (302, "?deleteMessages=false"));
    assert!(page_of(&router, "?deleteMessages=false").await.starts_with("<!doctype html>"));
}

#[tokio::test]
async fn healing_needs_post_and_a_key_that_is_there() {
    let (router, _stores) = serving().await;
    let get = Request::get("/memberlist/heal?key=note").body(Body::empty()).unwrap();
    assert_eq!(ask(&router, get).await.0, 405);
    for (body, expected) in
        [("", 400), ("key=", 400), ("key=nothing", 404), ("key=_members", 404), ("key=note&id=nobody", 404)]
    {
        assert_eq!(post_to(&router, FORM, JSON, body).await.0, expected, "{body}");
    }
    assert!((400..500).contains(&post_to(&router, JSON, JSON, "{").await.0));
}

#[tokio::test]
async fn healing_says_how_much_was_rewritten() {
    let (router, _stores) = serving().await;
    let message = "Healed entry `value` of `note`: 1 register rewritten, so that what this member holds there is for all the \
                   newest there is.";
    let (status, _, answer) = post_to(&router, FORM, JSON, "key=note&id=value").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        serde_json::from_str::<Value>(&answer).unwrap(),
        json!({"key": "note", "id": "value", "rewritten": 1, "message": message})
    );
    let body = r#"{"key": "ring/<1>", "id": "i1"}"#;
    let (_, _, answer) = post_to(&router, JSON, JSON, body).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let rewritten = answer["rewritten"].as_u64().unwrap();
    assert!(rewritten > 1, "{answer}");
    let expected = format!("Healed entry `i1` of `ring/<1>`: {rewritten} registers rewritten, ");
    assert!(answer["message"].as_str().unwrap().starts_with(&expected), "{answer}");
    let (status, _, answer) = post_to(&router, FORM, "", "key=note&id=value").await;
    assert_eq!((status, answer), (200, format!("{message}\n")));
    let (status, headers, _) = post_to(&router, FORM, "text/html", "page=1&key=note&id=value").await;
    let location = headers["location"].to_str().unwrap();
    assert_eq!(status, 303);
    assert!(location.starts_with("../memberlist?told=Healed%20entry%20%60value%60%20of%20"), "{location}");
}

#[tokio::test]
async fn healing_says_if_there_was_nothing_to_heal() {
    let (router, _stores) = serving().await;
    // Nothing is ahead of the clock, and what was removed is not brought back.
    let (status, _, answer) = post_to(&router, FORM, JSON, "key=note&id=").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        serde_json::from_str::<Value>(&answer).unwrap(),
        json!({"key": "note", "id": null, "rewritten": 0, "message": "Nothing had to be healed of `note`."})
    );
    let (_, _, answer) = post_to(&router, JSON, "", r#"{"key": "ring/<1>", "id": "i2"}"#).await;
    assert_eq!(answer, "Nothing had to be healed of entry `i2` of `ring/<1>`.\n");
}

#[tokio::test]
async fn healing_asks_for_the_token_if_there_is_one() {
    let stores = member(0).await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "secret\n").unwrap();
    let config =
        ServerConfig { admin_token_file: token.path().to_str().unwrap().into(), ..ServerConfig::default() };
    let router = router(&stores, &config, false);
    assert_eq!(post_to(&router, FORM, JSON, "key=note").await.0, 401);
    let page = page_of(&router, "").await;
    assert!(page.contains("<input type=\"password\" id=\"token\"") && !page.contains("secret"), "{page}");
    assert!(page.contains("class=\"heal\" hidden>"));
}
