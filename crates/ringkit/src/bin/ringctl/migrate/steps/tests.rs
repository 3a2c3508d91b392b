use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use ringkit_config::{Config, MultiRuntimeConfig, RuntimeConfig, RuntimeFile};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::args::{self, Outcome};
use crate::migrate::cluster::tests::serve;

/// A process that does at once what its file says, and whatever a test makes of that.
struct Fake {
    url: String,
    odd: Arc<Mutex<Odd>>,
}

/// What a process does otherwise.
#[derive(Default)]
struct Odd {
    /// It has another file than all others.
    file: Option<PathBuf>,
    /// Why it does not switch.
    blocked: Option<String>,
    /// It does nothing of what a lower generation asks for.
    deaf_until: u64,
}

/// What a file asks for, and its hash.
fn read(path: &Path) -> (MultiRuntimeConfig, String) {
    let bytes = std::fs::read(path).unwrap();
    let file = RuntimeFile { name: "f", bytes: &bytes };
    let (config, _) = RuntimeConfig::new(&Config::default()).read(&[file]).unwrap();
    let hash = std::thread::scope(|scope| {
        let hashing = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(RuntimeFiles::read(path.to_str().unwrap())).unwrap().sha256
        });
        hashing.join().unwrap()
    });
    (config.multi_kv_config, hash)
}

async fn fake(file: &Path, name: &'static str) -> Fake {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let odd = Arc::new(Mutex::new(Odd::default()));
    let (file, shared) = (file.to_owned(), Arc::clone(&odd));
    serve(listener, move |path| match path {
        "/multikv" => Some(page(&file, name, &shared.lock())),
        "/memberlist" => Some("This instance doesn't use memberlist.".to_owned()),
        _ => None,
    });
    Fake { url, odd }
}

/// The page of a process that is told to be in Consul, with etcd beside it.
fn page(file: &Path, name: &str, odd: &Odd) -> String {
    let (said, hash) = read(odd.file.as_deref().unwrap_or(file));
    let hears = said.generation >= odd.deaf_until;
    let wanted = said.primary.filter(|_| hears).unwrap_or(KvStore::Consul);
    let is_blocked = odd.blocked.is_some() && wanted == KvStore::Etcd;
    let primary = if is_blocked { KvStore::Consul } else { wanted };
    let secondary = if primary == KvStore::Consul { KvStore::Etcd } else { KvStore::Consul };
    let mirror = hears && said.mirror_enabled == Some(true);
    let reasons: BTreeMap<&str, &String> = odd.blocked.iter().map(|why| ("missing", why)).collect();
    let blocked = if is_blocked { reasons.clone() } else { BTreeMap::new() };
    json!({
        "generation": said.generation, "config_hash": hash, "instances": [{"name": name, "target": "ingester"}],
        "runtime": {"primary": said.primary, "mirror_enabled": said.mirror_enabled, "force": said.force},
        "rings": [{"ring": "ingester", "store": "multi", "multi": {"primary": "consul", "switch_gate": true}}],
        "stores": [{
            "kv_name": "ingester-ring", "primary": primary, "secondary": secondary, "mirror": mirror,
            "stores": [{"name": primary, "up": true}, {"name": secondary, "up": true}],
            "switch": {
                "generation": if hears { said.generation } else { 0 },
                "gate_open": odd.blocked.is_none(), "gate_reasons": reasons,
                "wanted_primary": is_blocked.then_some(KvStore::Etcd), "blocked": blocked,
            },
            "keys": [{"key": "ring", "compared": true, "stores": [{"entries": 1}, {"entries": 1}]}],
        }],
    })
    .to_string()
}

struct World {
    _dir: TempDir,
    file: PathBuf,
    fakes: Vec<Fake>,
}

/// Two processes and their file.
async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("runtime.yaml");
    std::fs::write(&file, "overrides: {} # ours\n").unwrap();
    let fakes = vec![fake(&file, "a").await, fake(&file, "b").await];
    World { _dir: dir, file, fakes }
}

impl World {
    fn options(&self, with_file: bool, flags: &[&str]) -> Options {
        let mut line: Vec<String> = ["migrate", "switch", "--timeout", "1s"].map(str::to_owned).into();
        line.extend(self.fakes.iter().flat_map(|fake| ["--url".to_owned(), fake.url.clone()]));
        if with_file {
            line.extend(["--runtime-config".to_owned(), self.file.display().to_string()]);
        }
        line.extend(flags.iter().map(|flag| (*flag).to_owned()));
        match args::parse(const { &[crate::migrate::SWITCH] }, &line) {
            Outcome::Run(_, parsed) => crate::migrate::options(&parsed).unwrap(),
            Outcome::Help(text) | Outcome::Wrong(text) => panic!("{text}"),
        }
    }

    fn told(&self) -> Options {
        self.options(true, &["--json"])
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap()
    }

    #[track_caller]
    fn says(&self, primary: &str, mirror: bool, generation: u64) {
        let block = format!("  primary: {primary}\n  mirror_enabled: {mirror}\n  generation: {generation}\n");
        let text = self.text();
        assert!(text.starts_with("overrides: {} # ours\n\nmulti_kv_config:\n"), "{text}");
        assert!(text.contains(&block), "{block} is not in {text}");
    }
}

#[track_caller]
fn done(end: Result<End, End>) -> End {
    let end = end.unwrap_or_else(|end| panic!("{end:?}"));
    assert!(end.reasons.is_empty() && end.silent.is_empty(), "{end:?}");
    end
}

#[track_caller]
fn refused(end: Result<End, End>, part: &str) -> End {
    let end = end.expect_err("it was not refused");
    let said: Vec<String> = end.reasons.iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|reason| reason.contains(part)), "{part} is not in {end:?}");
    end
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_is_written_and_waited_for_and_done_once() {
    let world = world().await;
    let told = world.told();
    refused(switch(&told, KvStore::Etcd).await, "is not mirrored");
    refused(finish(&told).await, "nothing was switched");
    done(abort(&told).await);
    assert_eq!(world.text(), "overrides: {} # ours\n", "there was nothing to abort");

    let end = done(start(&told, KvStore::Etcd).await);
    assert!(end.is_done() && end.written, "{end:?}");
    world.says("consul", true, 1);
    let again = done(start(&told, KvStore::Etcd).await);
    assert!(again.is_done() && again.change.is_none(), "{again:?}");
    refused(finish(&world.options(true, &["--json", "--to", "etcd"])).await, "comes first");

    done(switch(&told, KvStore::Etcd).await);
    world.says("etcd", true, 2);
    assert!(done(switch(&told, KvStore::Etcd).await).change.is_none());
    refused(start(&told, KvStore::Etcd).await, "etcd is the primary already");

    done(finish(&told).await);
    world.says("etcd", false, 3);
    assert!(done(finish(&told).await).change.is_none());

    // Back from the very end: mirrored first, and only then not any more.
    done(abort(&told).await);
    world.says("consul", false, 5);
    assert!(done(abort(&told).await).change.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_the_change_is_printed_and_waited_for_when_it_was_made() {
    let world = world().await;
    let told = world.options(false, &["--json"]);
    let end = start(&told, KvStore::Etcd).await.unwrap_err();
    assert!(end.reasons.is_empty() && !end.is_done() && !end.written, "{end:?}");
    let change = end.change.unwrap();
    assert_eq!((change.primary, change.mirror_enabled, change.generation), (KvStore::Consul, true, 1));
    assert_eq!(world.text(), "overrides: {} # ours\n");
    std::fs::write(&world.file, format!("overrides: {{}} # ours\n\n{}", change.yaml())).unwrap();
    assert!(done(start(&told, KvStore::Etcd).await).is_done());
    // Back takes two steps, by hand as well.
    let text = world.text().replace("primary: consul", "primary: etcd");
    std::fs::write(&world.file, text).unwrap();
    let back = abort(&told).await.unwrap_err().change.unwrap();
    assert_eq!((back.primary, back.mirror_enabled, back.generation), (KvStore::Consul, true, 2));
    std::fs::write(&world.file, format!("overrides: {{}} # ours\n\n{}", back.yaml())).unwrap();
    let off = abort(&told).await.unwrap_err().change.unwrap();
    assert_eq!((off.primary, off.mirror_enabled, off.generation), (KvStore::Consul, false, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_refuses_a_switch_unless_it_is_forced() {
    let world = world().await;
    done(start(&world.told(), KvStore::Etcd).await);
    world.fakes[1].odd.lock().blocked = Some("2 entries are missing in etcd".to_owned());
    let end = refused(switch(&world.told(), KvStore::Etcd).await, "b, ingester-ring: 2 entries are missing");
    assert!(!end.written, "{end:?}");
    world.says("consul", true, 1);
    // Asked for anyway, by somebody who knows better; a process that does not follow is told all the same.
    let forced = world.options(true, &["--json", "--force"]);
    let end = refused(
        switch(&forced, KvStore::Etcd).await,
        "b, ingester-ring: its primary is still consul: 2 entries are missing in etcd",
    );
    assert!(end.written && !end.is_done(), "{end:?}");
    assert!(world.text().contains("  force: true\n"), "{}", world.text());
    world.fakes[1].odd.lock().blocked = None;
    assert!(done(switch(&world.told(), KvStore::Etcd).await).change.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_another_file_or_nothing_holds_all_up() {
    let world = world().await;
    let other = world.file.with_file_name("other.yaml");
    std::fs::write(&other, "overrides: {}\n").unwrap();
    world.fakes[1].odd.lock().file = Some(other);
    refused(start(&world.told(), KvStore::Etcd).await, "b: runs with the runtime configuration ");
    world.fakes[1].odd.lock().file = None;
    world.fakes[1].odd.lock().deaf_until = 9;
    let end =
        refused(start(&world.told(), KvStore::Etcd).await, "b, ingester-ring: has taken over generation 0");
    assert!(end.written, "{end:?}");
    world.says("consul", true, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_silent_holds_all_up_but_an_abort() {
    let world = world().await;
    done(start(&world.told(), KvStore::Etcd).await);
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = world.options(true, &["--json", "--member", &format!("http://{nobody}")]);
    let end = switch(&silent, KvStore::Etcd).await.unwrap_err();
    assert_eq!((end.silent.len(), end.reasons.len(), end.written), (1, 0, false));
    let end = abort(&silent).await.unwrap();
    assert_eq!((end.silent.len(), end.reasons.len(), end.written), (1, 0, true));
    world.says("consul", false, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_somebody_else_ends_the_wait() {
    let world = world().await;
    world.fakes[1].odd.lock().deaf_until = 9;
    let mut told = world.told();
    told.timeout = Duration::from_secs(60);
    let waiting = start(&told, KvStore::Etcd);
    let overtaking = async {
        while !world.text().contains("generation: 1") {
            sleep(Duration::from_millis(10)).await;
        }
        let text = world.text().replace("generation: 1", "generation: 4");
        std::fs::write(&world.file, text).unwrap();
    };
    let (end, ()) = tokio::join!(waiting, overtaking);
    refused(end, "somebody else asked for generation 4");
}

#[test]
fn what_came_of_a_step_is_told_to_programs() {
    let change = Change { primary: KvStore::Etcd, mirror_enabled: true, generation: 2, force: false };
    let end = End {
        reasons: vec![Reason::general("no")],
        silent: vec![Silent { who: "w".into(), problem: "p".into() }],
        ..End::nothing_to_do("said").with(&change, true)
    };
    assert_eq!(
        end.json(),
        json!({
            "done": false,
            "said": ["said"],
            "reasons": [{"process": null, "ring": null, "why": "no"}],
            "silent": [{"who": "w", "problem": "p"}],
            "change": {"primary": "etcd", "mirror_enabled": true, "generation": 2, "force": false},
            "yaml": "multi_kv_config:\n  primary: etcd\n  mirror_enabled: true\n  generation: 2\n",
            "written": true,
        })
    );
    assert_eq!(only(["consul"]), Some(KvStore::Consul));
    assert_eq!(
        (only(["consul", "etcd"]), only(["zookeeper"]), only(Vec::<String>::new())),
        (None, None, None)
    );
}
