use ringkit_ring::{Desc, InstanceDesc, RingOptions, State, Strategy};
use ringkit_runtime::Clock;

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

fn ring(zone_awareness_enabled: bool, instances: &[(&str, InstanceDesc)]) -> Ring {
    let mut desc = Desc::new();
    for (id, instance) in instances {
        desc.insert(*id, instance.clone());
    }
    Ring::fixed(desc, options(zone_awareness_enabled), Clock::manual(NOW * 1000).0)
}

fn json(ring: &Ring) -> String {
    serde_json::to_string(&status(ring)).unwrap()
}

async fn page_of(ring: &Ring, tokens: &str) -> String {
    let response = html("Ring", ring, &Options { tokens: tokens.into() }, false);
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn json_is_cortexs_field_by_field() {
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
    assert_eq!(
        json(&ring),
        "{\"shards\":[\
         {\"id\":\"i1\",\"state\":\"ACTIVE\",\"address\":\"10.0.0.1:9002\",\"timestamp\":\"2023-11-14 22:13:20 +0000 UTC\",\
         \"registered_timestamp\":\"2023-11-14 21:13:20 +0000 UTC\",\"zone\":\"a\",\"tokens\":[1000000000,3000000000]},\
         {\"id\":\"i2\",\"state\":\"PENDING\",\"address\":\"10.0.0.1:9000\",\"timestamp\":\"2023-11-14 22:13:20 +0000 UTC\",\
         \"registered_timestamp\":\"\",\"zone\":\"\",\"tokens\":null},\
         {\"id\":\"i3\",\"state\":\"Unhealthy\",\"address\":\"10.0.0.1:9001\",\"timestamp\":\"2023-11-14 22:12:19 +0000 UTC\",\
         \"registered_timestamp\":\"2023-11-14 21:13:20 +0000 UTC\",\"zone\":\"b\",\"tokens\":[5]}],\
         \"now\":\"2023-11-14T22:13:20Z\",\"storageLastUpdated\":\"2023-11-14T22:13:20Z\"}"
    );
}

#[test]
fn an_empty_ring_has_null_shards() {
    assert!(json(&ring(false, &[])).starts_with("{\"shards\":null,"));
}

#[tokio::test]
async fn the_page_tells_state_by_word_and_colour_and_age_and_ownership() {
    let ring = ring(
        false,
        &[
            ("i1", instance("a", State::Active, NOW - 3, &[1 << 31])),
            ("i2", instance("b", State::Leaving, NOW - 20, &[(1 << 31) + (1 << 30)])),
            ("i3", instance("b", State::Active, NOW - 3700, &[])),
        ],
    );
    let page = page_of(&ring, "").await;
    assert!(page.contains("<td class=\"good\">ACTIVE</td>"), "{page}");
    assert!(page.contains("<td class=\"busy\">LEAVING</td>"));
    assert!(page.contains("<td class=\"bad\">Unhealthy</td>"));
    assert!(page.contains("3s ago") && page.contains("20s ago") && page.contains("1h 1m ago"));
    // A token owns what lies before it: three quarters and one quarter of the circle, a third each being fair.
    assert!(page.contains("75.00%</td><td class=\"number\">+55.56%"), "{page}");
    assert!(page.contains("25.00%</td><td class=\"number\">-33.33%"));
    assert!(page.contains("0.00%</td><td class=\"number\"></td>"));
    assert!(!page.contains("2147483648"));
    assert!(page_of(&ring, "true").await.contains("<h2>Tokens of i1</h2>\n<p>2147483648</p>"));
}

#[tokio::test]
async fn zones_share_the_circle_on_their_own() {
    let ring = ring(
        true,
        &[
            ("i1", instance("a", State::Active, NOW, &[7])),
            ("i2", instance("b", State::Active, NOW, &[1 << 31])),
            ("i3", instance("b", State::Active, NOW, &[0])),
        ],
    );
    let page = page_of(&ring, "").await;
    assert!(page.contains("100.00%</td><td class=\"number\">+0.00%"), "{page}");
    assert_eq!(page.matches("50.00%</td><td class=\"number\">+0.00%").count(), 2, "{page}");
}

#[tokio::test]
async fn names_from_the_ring_are_escaped() {
    let page = page_of(&ring(false, &[("<i>", instance("&", State::Active, NOW, &[1]))]), "true").await;
    assert!(page.contains("<td>&lt;i&gt;</td><td>&amp;</td>"), "{page}");
    assert!(page.contains("Tokens of &lt;i&gt;"));
}
