use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// Serves what `page` has for a path, and 404 for all else, as long as the test runs.
pub(in crate::migrate) fn serve(
    listener: TcpListener,
    page: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) {
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let request = String::from_utf8_lossy(&request);
            let path = request.split(' ').nth(1).unwrap_or_default();
            let (status, body) = page(path)
                .map_or(("404 Not Found", "404 page not found".to_owned()), |body| ("200 OK", body));
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
    });
}

/// A process that is the ingester `id`, and sees these: id, state, address.
async fn ingester(
    host: &str,
    port: u16,
    id: &'static str,
    sees: &'static [(&'static str, &'static str, &'static str)],
) -> String {
    let listener = TcpListener::bind((host, port)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    serve(listener, move |path| match path {
        "/multikv" => Some(json!({ "instances": [{"name": id, "target": "ingester"}] }).to_string()),
        "/ingester/ring?tokens=false" => {
            let shards = sees.iter().map(|(id, state, address)| {
                let healthy = *state != "Unhealthy";
                json!({ "id": id, "state": state, "address": address, "healthy": healthy })
            });
            Some(json!({ "shards": shards.collect::<Vec<_>>() }).to_string())
        }
        "/memberlist" => Some("This instance doesn't use memberlist.".to_owned()),
        _ => None,
    });
    url
}

fn targets(given: &[&str]) -> Targets {
    Targets { given: given.iter().map(|url| (*url).to_owned()).collect(), http_port: None }
}

fn names(cluster: &Cluster) -> Vec<&str> {
    cluster.processes.iter().map(|process| process.name.as_str()).collect()
}

fn port(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn others_are_found_at_their_hosts_through_the_ring() {
    const SEES: &[(&str, &str, &str)] = &[
        ("i1", "ACTIVE", "127.0.0.1:9095"),
        ("i2", "LEAVING", "127.0.0.2:9095"),
        ("gone", "LEFT", "127.0.0.9:9095"),
    ];
    let first = ingester("127.0.0.1", 0, "i1", SEES).await;
    ingester("127.0.0.2", port(&first), "i2", SEES).await;
    let cluster = targets(&[&first]).discover().await;
    assert_eq!(names(&cluster), ["i1", "i2"]);
    assert!(cluster.silent.is_empty(), "{:?}", cluster.silent);
    assert!(cluster.processes.iter().all(|process| process.gossip.is_none()));
    // Found twice is found once.
    let again = targets(&[&first, &first.replace("127.0.0.1", "localhost")]).discover().await;
    assert_eq!(names(&again), ["i1", "i2"]);
    assert_eq!(names(&again.again().await), ["i1", "i2"]);
}

#[tokio::test]
async fn on_another_port_they_are_found_when_it_is_said() {
    const SEES: &[(&str, &str, &str)] =
        &[("i1", "ACTIVE", "127.0.0.1:9095"), ("i2", "Unhealthy", "127.0.0.3:9095")];
    let first = ingester("127.0.0.1", 0, "i1", SEES).await;
    let other = ingester("127.0.0.3", 0, "i2", SEES).await;
    let silent = targets(&[&first]).discover().await.silent;
    assert_eq!(silent.len(), 1);
    let who = "ingester `i2` at 127.0.0.3:9095 (unhealthy: bring it back, or forget it)";
    assert_eq!(silent[0].who, who);
    let asked = format!("http://127.0.0.3:{}: ", port(&first));
    assert!(silent[0].problem.starts_with(&asked), "{}", silent[0].problem);

    let named = targets(&[&first, &other]).discover().await;
    assert_eq!((names(&named), named.silent.len()), (vec!["i1", "i2"], 0));
    let ported = Targets { http_port: Some(port(&other)), ..targets(&[&first]) };
    let found = ported.discover().await;
    assert_eq!((names(&found), found.silent.len()), (vec!["i1", "i2"], 0));
}

#[tokio::test]
async fn who_cannot_be_anywhere_is_told_how_to_be_found() {
    const SEES: &[(&str, &str, &str)] =
        &[("i1", "ACTIVE", "127.0.0.1:9095"), ("i2", "ACTIVE", "127.0.0.1:9096")];
    let first = ingester("127.0.0.1", 0, "i1", SEES).await;
    let cluster = targets(&[&first]).discover().await;
    assert_eq!(cluster.silent.len(), 1);
    assert!(cluster.silent[0].to_string().contains("`i2`"), "{}", cluster.silent[0]);
    assert!(cluster.silent[0].problem.contains("--member"), "{}", cluster.silent[0]);

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = format!("http://{nobody}");
    let cluster = targets(&[&nobody]).discover().await;
    assert_eq!((cluster.processes.len(), cluster.silent[0].who.as_str()), (0, nobody.as_str()));
}

#[tokio::test]
async fn a_process_without_the_page_cannot_migrate() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    serve(listener, |_| None);
    let silent = targets(&[&url]).discover().await.silent;
    assert!(silent[0].problem.contains("no page /multikv"), "{}", silent[0]);
}

#[test]
fn members_of_gossip_are_looked_for_unless_a_ring_tells_of_them() {
    let gossip = |name: &str| {
        let members = json!([
            {"name": "a", "addr": "10.0.0.1:7946", "state": "alive"},
            {"name": "b", "addr": "10.0.0.2:7946", "state": "alive"},
            {"name": "c", "addr": "10.0.0.3:7946", "state": "alive"},
            {"name": "dead", "addr": "10.0.0.4:7946", "state": "down"},
        ]);
        Gossip::deserialize(json!({ "name": name, "members": members })).unwrap()
    };
    let shard = Shard { id: "i2".into(), address: "10.0.0.2:9095".into(), ..Shard::default() };
    let process = Process {
        url: "http://10.0.0.1:8080/prefix".into(),
        gossip: Some(gossip("a")),
        views: BTreeMap::from([("ingester", vec![shard])]),
        ..Process::default()
    };
    let found = Found { processes: vec![process], ..Found::default() };
    let unmet = found.unmet();
    let who: Vec<&str> = unmet.iter().map(|unmet| unmet.who.as_str()).collect();
    assert_eq!(who, ["gossip member `c`", "ingester `i2`"]);
    assert_eq!(unmet[0].url(None).unwrap(), "http://10.0.0.3:8080/prefix");
    // Whoever answers is known by its address, also to those who know no name of it.
    let known = json!({ "name": "z", "addr": "10.0.0.3:7946" });
    let known = Process {
        gossip: Some(Gossip::deserialize(known).unwrap()),
        url: "http://z".into(),
        ..Process::default()
    };
    let both = Found { processes: [found.processes.clone(), vec![known]].concat(), ..Found::default() };
    let who: Vec<String> = both.unmet().into_iter().map(|unmet| unmet.who).collect();
    assert_eq!(who, ["ingester `i2`"]);
    assert_eq!(unmet[1].url(Some(9009)).unwrap(), "http://10.0.0.2:9009/prefix");
    let v6 = Unmet {
        who: String::new(),
        address: "[::1]:9095".into(),
        seen_by: "http://x:9009".into(),
        is_healthy: true,
    };
    assert_eq!(v6.url(None).unwrap(), "http://[::1]:9009");
}

#[test]
fn processes_of_one_name_are_told_apart() {
    let process = |url: &str, name: &str| {
        let page = Page::deserialize(json!({ "instances": [{"name": name, "target": "ingester"}] })).unwrap();
        Process { url: url.into(), page, ..Process::default() }
    };
    let mut processes =
        [process("http://2", "m"), process("http://1", "m"), process("http://3", "z"), Process::default()];
    name(&mut processes);
    let names: Vec<&str> = processes.iter().map(|process| process.name.as_str()).collect();
    assert_eq!(names, ["", "m (http://1)", "m (http://2)", "z"]);
}
