//! The ring's page in a real browser.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringkit_config::{KvStore, Layout};
use ringkit_kv::{Client, Stores};
use ringkit_ring::{Desc, InstanceDesc, State};
use ringkit_runtime::{Clock, Meter};
use ringkit_testkit::{Browser, Etcd, eventually_ok};

use crate::stores::{Member, SCALED, SOON, config, write_config};

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// A ring of so many: one that is dead, one that leaves, one that takes no writes, all others well.
async fn fill(client: &Client<Desc>, number: usize) {
    let mut ring = Desc::default();
    for place in 0..number {
        let (state, age) = match place {
            0 => (State::Active, 7200),
            1 => (State::Leaving, 0),
            2 if number > 3 => (State::ReadOnly, 0),
            _ => (State::Active, 0),
        };
        let tokens = (0..16_u32)
            .map(|token| token.wrapping_mul(268_435_456) ^ (place as u32).wrapping_mul(2_654_435_761) >> 4);
        let entry = InstanceDesc {
            addr: format!("10.0.{}.{}:9095", place / 250, place % 250).into(),
            // Far enough ahead that nobody goes stale while the test looks.
            timestamp: now() - age,
            state,
            zone: format!("zone-{}", ["a", "b", "c"][place % 3]).into(),
            registered_timestamp: now() - 86_400,
            tokens: tokens.collect::<Vec<_>>().into(),
            ..InstanceDesc::default()
        };
        ring.insert(format!("ingester-{place:04}"), entry);
    }
    client.cas("ring", |_| ringkit_kv::Decision::Write(ring.clone(), ())).await.unwrap();
}

/// Where pictures are kept, to be looked at.
fn album() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/pages");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ring_is_shown_sorted_filtered_and_an_instance_is_forgotten_by_a_click() {
    let dir = tempfile::tempdir().unwrap();
    let server = Etcd::start().await.unwrap();
    let kvstore = format!("layout: per_instance, etcd: {{endpoints: ['{}']}}", server.addr());
    write_config(dir.path(), "etcd", &kvstore, SCALED);
    // Nobody beats in this ring, so nobody must grow old while the test looks.
    let text = std::fs::read_to_string(dir.path().join("config.yaml")).unwrap();
    std::fs::write(
        dir.path().join("config.yaml"),
        text.replace("heartbeat_timeout: 12s", "heartbeat_timeout: 1h"),
    )
    .unwrap();
    let stored = config(KvStore::Etcd, server.addr(), Layout::PerInstance);
    let client = Stores::new().client::<Desc>(&stored, "test", &Meter::disabled(), &Clock::system()).unwrap();
    let browser = Browser::start(1280, 900).await.unwrap();

    for number in [3, 50, 1000] {
        let _ = client.delete("ring").await;
        fill(&client, number).await;
        let mut member = Member::start(dir.path(), "distributor", "distributor", &[]).await;
        member.ready().await;
        browser.resize(1280, 900).await.unwrap();
        let url = format!("http://{}/ingester/ring", member.addr);
        browser.open(&url).await.unwrap();
        let rows = async || browser.run("return document.querySelectorAll('tbody tr').length").await.unwrap();
        // A driver may call a large page open before all of it is there.
        let whole = || async {
            let rows = rows().await;
            if rows == number { Ok(()) } else { Err(format!("{rows} rows of {number}")) }
        };
        eventually_ok(SOON, whole).await.unwrap();
        let body = async || {
            let text = browser.run("return document.body.innerText").await.unwrap();
            text.as_str().unwrap_or_default().to_owned()
        };
        let shown = body().await;
        for word in ["Unhealthy", "LEAVING", "ACTIVE", "stale", "fresh"] {
            assert!(shown.contains(word), "{word} is not in: {}", &shown[..shown.len().min(2000)]);
        }
        std::fs::write(album().join(format!("ring-{number}.png")), browser.picture().await.unwrap()).unwrap();
        browser.resize(390, 844).await.unwrap();
        let wide =
            browser.run("return document.documentElement.scrollWidth - window.innerWidth").await.unwrap();
        assert!(wide.as_i64().is_some_and(|wide| wide <= 0), "{wide} pixels wider than a phone");
        std::fs::write(album().join(format!("ring-{number}-phone.png")), browser.picture().await.unwrap())
            .unwrap();
        browser.resize(1280, 900).await.unwrap();

        // Sorted by a click on a heading, the other way round by another; filtered by a word and by a state.
        let first = async || {
            let text =
                browser.run("return document.querySelector('#ring tbody tr td').textContent").await.unwrap();
            text.as_str().unwrap_or_default().trim().to_owned()
        };
        assert_eq!(first().await, "ingester-0000");
        for expected in ["ingester-0000".to_owned(), format!("ingester-{:04}", number - 1)] {
            browser.click("#ring th button.sort").await.unwrap();
            assert_eq!(first().await, expected);
        }
        let visible = async || {
            let script = "return [...document.querySelectorAll('#ring tbody tr')].filter(row => row.offsetParent).length";
            browser.run(script).await.unwrap()
        };
        let filter = async |id: &str, text: &str| {
            let script = format!(
                "const field = document.querySelector('{id}'); field.value = '{text}'; \
                 for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, {{ bubbles: true }}))"
            );
            browser.run(&script).await.unwrap();
        };
        filter("#filter", "zone-b").await;
        assert_eq!(visible().await, (number + 1) / 3);
        filter("#filter", "").await;
        filter("#states", "Unhealthy").await;
        assert_eq!(visible().await, 1);
        filter("#states", "").await;
        assert_eq!(visible().await, number);

        // The dead one is forgotten, with a question, and goes without loading the page anew.
        browser.run("window.kept = true").await.unwrap();
        browser.click("button[name=forget][value=ingester-0000]").await.unwrap();
        let question = browser.accept().await.unwrap();
        assert!(question.contains("ingester-0000"), "{question}");
        let gone = || async {
            let ring = client.get("ring").await.unwrap().unwrap();
            let (stored, shown) =
                (ring.value.get("ingester-0000").is_some(), body().await.contains("ingester-0000\t"));
            if stored { Err(format!("stored {stored}, shown {shown}")) } else { Ok(()) }
        };
        eventually_ok(SOON, gone).await.unwrap();
        let left = || async {
            let left = rows().await;
            if left == number - 1 { Ok(()) } else { Err(left.to_string()) }
        };
        eventually_ok(Duration::from_secs(30), left).await.unwrap();
        std::fs::write(
            album().join(format!("ring-{number}-forgotten.png")),
            browser.picture().await.unwrap(),
        )
        .unwrap();
    }
}
