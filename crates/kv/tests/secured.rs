//! Real servers that ask who is there: TLS in both directions, ACL tokens, users and passwords, datacenters.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(all(feature = "consul", feature = "etcd"))]

use std::time::{Duration, Instant};

use ringkit_config::{ConsulConfig, EtcdConfig, KvStore, KvStoreConfig, Layout, Secret};
use ringkit_kv::conformance::Counters;
use ringkit_kv::{Client, Error, Stores};
use ringkit_runtime::{Clock, Meter};
use ringkit_testkit::{Certs, Consul, Etcd, eventually_ok, http};

const LAYOUTS: [Layout; 2] = [Layout::Single, Layout::PerInstance];
const SOON: Duration = Duration::from_secs(30);

fn on_consul(layout: Layout, consul: &ConsulConfig) -> KvStoreConfig {
    let store = KvStore::Consul;
    KvStoreConfig { store, layout, consul: consul.clone(), ..KvStoreConfig::default() }
}

fn on_etcd(layout: Layout, etcd: &EtcdConfig) -> KvStoreConfig {
    let store = KvStore::Etcd;
    KvStoreConfig { store, layout, etcd: etcd.clone(), ..KvStoreConfig::default() }
}

fn client(config: &KvStoreConfig) -> Result<Client<Counters>, Error> {
    let store = Stores::new().open(config, "test", &Meter::disabled(), &Clock::system())?;
    Ok(Client::new(store, &Meter::disabled()))
}

/// Every operation once, each as the server's rules apply to it.
async fn works(config: &KvStoreConfig) {
    let client = client(config).unwrap();
    let key = format!("ring-{}", config.layout);
    client.upsert_own(&key, "a", &1).await.unwrap();
    let mut watch = client.watch(&key).await.unwrap();
    let shown = watch.next().await.unwrap().value.unwrap();
    assert_eq!(shown.count("a"), Some(1));
    client.upsert_own(&key, "b", &2).await.unwrap();
    client.remove_own(&key, "a").await.unwrap();
    let told = async {
        loop {
            let value = watch.next().await.unwrap().value.unwrap_or_default();
            if value.count("b") == Some(2) && value.count("a").is_none() {
                break;
            }
        }
    };
    tokio::time::timeout(SOON, told).await.unwrap();
    assert!(client.list("").await.unwrap().iter().any(|name| name.ends_with(&key)));
    client.delete(&key).await.unwrap();
    assert!(client.get(&key).await.unwrap().is_none());
}

/// The failure of a write, which must be told within a few seconds.
async fn fails(config: &KvStoreConfig) -> String {
    let client = match client(config) {
        Ok(client) => client.with_deadlines(Duration::from_secs(4), Duration::from_secs(4)),
        Err(error) => return whole(&error),
    };
    let started_at = Instant::now();
    let error = client.get("ring").await.map(|_| ()).unwrap_err();
    assert!(started_at.elapsed() < Duration::from_secs(6));
    whole(&error)
}

/// An error with all its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn path(certs: &Certs, name: &str) -> String {
    certs.path(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_over_tls_in_both_directions() {
    let certs = Certs::new(&["127.0.0.1"]).unwrap();
    let server = Consul::start_with_tls(&certs, "").await.unwrap();
    let good = ConsulConfig {
        host: server.https_addr().unwrap().to_string(),
        tls_enabled: true,
        tls_ca_path: path(&certs, "ca.pem"),
        tls_cert_path: path(&certs, "client.pem"),
        tls_key_path: path(&certs, "client.key"),
        ..ConsulConfig::default()
    };
    for layout in LAYOUTS {
        works(&on_consul(layout, &good)).await;
    }
    // Whoever asked for TLS gets it, whatever stands before the address.
    let plain = ConsulConfig { host: format!("http://{}", good.host), ..good.clone() };
    works(&on_consul(Layout::Single, &plain)).await;
    let fails = async |config: ConsulConfig| fails(&on_consul(Layout::Single, &config)).await;

    let nobody = ConsulConfig { tls_cert_path: String::new(), tls_key_path: String::new(), ..good.clone() };
    // In TLS 1.3 a server refuses after the handshake, so that the client may see nothing but an end.
    fails(nobody).await;

    let others = Certs::new(&["127.0.0.1"]).unwrap();
    let stranger = ConsulConfig { tls_ca_path: path(&others, "ca.pem"), ..good.clone() };
    let error = fails(stranger.clone()).await;
    assert!(error.contains("certificate"), "{error}");
    works(&on_consul(Layout::Single, &ConsulConfig { tls_insecure_skip_verify: true, ..stranger })).await;

    let error = fails(ConsulConfig { tls_ca_path: "/does/not/exist.pem".into(), ..good.clone() }).await;
    assert!(error.contains("tls_ca_path") && error.contains("/does/not/exist.pem"), "{error}");
    let error = fails(ConsulConfig { tls_key_path: path(&certs, "ca.pem"), ..good }).await;
    assert!(error.contains("tls_cert_path") || error.contains("tls_key_path"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_whose_certificate_names_another_host() {
    let certs = Certs::new(&["consul.example"]).unwrap();
    let server = Consul::start_with_tls(&certs, "").await.unwrap();
    let unnamed = ConsulConfig {
        host: server.https_addr().unwrap().to_string(),
        tls_enabled: true,
        tls_ca_path: path(&certs, "ca.pem"),
        tls_cert_path: path(&certs, "client.pem"),
        tls_key_path: path(&certs, "client.key"),
        ..ConsulConfig::default()
    };
    let error = fails(&on_consul(Layout::Single, &unnamed)).await;
    assert!(error.contains("certificate"), "{error}");
    let named = ConsulConfig { tls_server_name: "consul.example".into(), ..unnamed };
    works(&on_consul(Layout::Single, &named)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_with_access_control() {
    const ROOT: &str = "7a1b0c2e-8d4f-4f7c-9a55-0f2f6f2d1c11";
    let rules =
        format!("acl {{ enabled = true default_policy = \"deny\" tokens {{ master = \"{ROOT}\" }} }}");
    let server = Consul::start_with(&rules).await.unwrap();
    let put = async |path: &str, body: serde_json::Value| {
        let body = body.to_string();
        let put = || async {
            let header = [("X-Consul-Token", ROOT)];
            let answer = http::request(server.addr(), "PUT", path, &header, body.as_bytes()).await.unwrap();
            if answer.status == 200 { Ok(answer.text()) } else { Err(answer.text()) }
        };
        // Access control comes up a moment after the server.
        eventually_ok(SOON, || async { put().await.map(drop) }).await.unwrap();
    };
    let policy =
        serde_json::json!({ "Name": "rings", "Rules": "key_prefix \"collectors/\" { policy = \"write\" }" });
    put("/v1/acl/policy", policy).await;
    let secret = "0d7a6f7e-5a0b-4b5e-b0f3-3a9d1a6d7c22";
    put("/v1/acl/token", serde_json::json!({ "SecretID": secret, "Policies": [{ "Name": "rings" }] })).await;

    let good = ConsulConfig {
        host: server.addr().to_string(),
        acl_token: Secret::new(secret),
        ..ConsulConfig::default()
    };
    for layout in LAYOUTS {
        works(&on_consul(layout, &good)).await;
        // The token's rights end with the prefix.
        let outside = KvStoreConfig { prefix: "elsewhere/".into(), ..on_consul(layout, &good) };
        let started_at = Instant::now();
        let error = client(&outside).unwrap().upsert_own("ring", "a", &1).await.unwrap_err().to_string();
        assert!(error.contains("403") && error.contains("acl_token"), "{error}");
        assert!(started_at.elapsed() < Duration::from_secs(3), "what is refused is not tried again");

        let wrong = "99999999-5a0b-4b5e-b0f3-3a9d1a6d7c22";
        let stranger = ConsulConfig { acl_token: Secret::new(wrong), ..good.clone() };
        let error = fails(&on_consul(layout, &stranger)).await;
        assert!(error.contains("403") && error.contains("acl_token") && !error.contains(wrong), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_in_a_datacenter_of_another_name() {
    let server = Consul::start_with("datacenter = \"eu-1\"").await.unwrap();
    let config = |datacenter: &str| ConsulConfig {
        host: server.addr().to_string(),
        datacenter: datacenter.into(),
        ..ConsulConfig::default()
    };
    for layout in LAYOUTS {
        works(&on_consul(layout, &config("eu-1"))).await;
        let error = fails(&on_consul(layout, &config("us-1"))).await;
        assert!(error.contains("No path to datacenter"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_over_tls_in_both_directions() {
    let certs = Certs::new(&["127.0.0.1", "etcd.example"]).unwrap();
    let server = Etcd::start_with_tls(&certs).await.unwrap();
    let good = EtcdConfig {
        endpoints: vec![server.addr().to_string()],
        tls_enabled: true,
        tls_ca_path: path(&certs, "ca.pem"),
        tls_cert_path: path(&certs, "client.pem"),
        tls_key_path: path(&certs, "client.key"),
        ..EtcdConfig::default()
    };
    for layout in LAYOUTS {
        works(&on_etcd(layout, &good)).await;
    }
    let named = EtcdConfig { tls_server_name: "etcd.example".into(), ..good.clone() };
    works(&on_etcd(Layout::Single, &named)).await;

    let fails = async |config: EtcdConfig| fails(&on_etcd(Layout::Single, &config)).await;
    fails(EtcdConfig { tls_cert_path: String::new(), tls_key_path: String::new(), ..good.clone() }).await;
    fails(EtcdConfig { tls_server_name: "elsewhere.example".into(), ..good.clone() }).await;
    let others = Certs::new(&["127.0.0.1"]).unwrap();
    let stranger = EtcdConfig { tls_ca_path: path(&others, "ca.pem"), ..good.clone() };
    let error = fails(stranger).await;
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    let error = fails(EtcdConfig { tls_cert_path: "/does/not/exist.pem".into(), ..good }).await;
    assert!(error.contains("tls_cert_path") && error.contains("/does/not/exist.pem"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_with_users() {
    let mut server = Etcd::start().await.unwrap();
    let addr = server.addr();
    let post = async |path: &str, body: serde_json::Value| {
        let answer = http::post(addr, path, &[], body.to_string().as_bytes()).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    };
    // Base64, as the gateway wants it: collectors/ and the key after all that begin so.
    let rights = serde_json::json!({ "permType": "READWRITE", "key": "Y29sbGVjdG9ycy8=", "range_end": "Y29sbGVjdG9yczA=" });
    post("/v3/auth/user/add", serde_json::json!({ "name": "root", "password": "root" })).await;
    post("/v3/auth/user/grant", serde_json::json!({ "user": "root", "role": "root" })).await;
    post("/v3/auth/role/add", serde_json::json!({ "name": "rings" })).await;
    post("/v3/auth/role/grant", serde_json::json!({ "name": "rings", "perm": rights })).await;
    post("/v3/auth/user/add", serde_json::json!({ "name": "ingester", "password": "secret" })).await;
    post("/v3/auth/user/grant", serde_json::json!({ "user": "ingester", "role": "rings" })).await;
    let good = EtcdConfig {
        endpoints: vec![addr.to_string()],
        username: "ingester".into(),
        password: Secret::new("secret"),
        ..EtcdConfig::default()
    };
    // Whoever is configured with a user before the server asks for one goes on when it does.
    let early = client(&on_etcd(Layout::Single, &good)).unwrap();
    early.upsert_own("early", "a", &1).await.unwrap();
    post("/v3/auth/enable", serde_json::json!({})).await;
    early.upsert_own("early", "a", &2).await.unwrap();

    let mut running = Vec::new();
    for layout in LAYOUTS {
        works(&on_etcd(layout, &good)).await;
        let outside = KvStoreConfig { prefix: "elsewhere/".into(), ..on_etcd(layout, &good) };
        let error = client(&outside).unwrap().upsert_own("ring", "a", &1).await.unwrap_err().to_string();
        assert!(error.contains("permission denied"), "{error}");
        let stranger = EtcdConfig { password: Secret::new("wrong-word"), ..good.clone() };
        let error = fails(&on_etcd(layout, &stranger)).await;
        assert!(error.contains("authentication failed") && !error.contains("wrong-word"), "{error}");
        let client = client(&on_etcd(layout, &good)).unwrap();
        let key = format!("kept-{layout}");
        client.upsert_own(&key, "a", &1).await.unwrap();
        let mut watch = client.watch(&key).await.unwrap();
        watch.next().await.unwrap();
        running.push((client, key, watch));
    }
    // Somebody changes the users, which makes the tokens of all others old.
    let login = http::post(addr, "/v3/auth/authenticate", &[], br#"{"name":"root","password":"root"}"#).await;
    let login: serde_json::Value = serde_json::from_slice(&login.unwrap().body).unwrap();
    let token = [("Authorization", login["token"].as_str().unwrap())];
    let body = br#"{"name":"another","password":"x"}"#;
    let added = http::request(addr, "POST", "/v3/auth/user/add", &token, body).await.unwrap();
    assert_eq!(added.status, 200, "{}", added.text());
    for (client, key, _) in &running {
        client.upsert_own(key, "a", &1).await.unwrap();
        client.get(key).await.unwrap().unwrap();
    }

    // A server that begins anew has forgotten who logged in.
    server.kill(0).unwrap();
    server.start_again(0).await.unwrap();
    for (client, key, mut watch) in running {
        let write = || async { client.upsert_own(&key, "a", &2).await.map(drop) };
        eventually_ok(SOON, write).await.unwrap();
        let told =
            async { while watch.next().await.unwrap().value.unwrap_or_default().count("a") != Some(2) {} };
        tokio::time::timeout(SOON, told).await.unwrap();
    }
}
