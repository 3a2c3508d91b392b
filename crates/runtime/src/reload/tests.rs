use tempfile::TempDir;

use super::*;
use crate::service::{ServiceHandle, ServiceState};

const PERIOD: Duration = Duration::from_secs(10);

/// What is in the files, unless one of them says `bad`.
fn parse(contents: &Contents) -> Result<String, Cause> {
    let texts: Vec<_> = contents.files.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes)).collect();
    let text = texts.concat();
    match text.as_str() {
        "panic" => panic!("the parser fell over"),
        text if text.contains("bad") => Err("r.yaml:1:1: this is bad".into()),
        _ => Ok(text),
    }
}

struct Files(TempDir);

impl Files {
    fn new(first: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write(first);
        files
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("r.yaml")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }
}

fn options(files: Vec<PathBuf>) -> ReloadOptions {
    ReloadOptions { files, period: PERIOD, max_bytes: 100 }
}

async fn open(path: &Path) -> Reload<String> {
    Reload::open(options(vec![path.to_owned()]), parse).await.unwrap()
}

/// What it published, once two periods have passed. They pass while nobody waits for a file.
async fn later(live: &Live<String>) -> String {
    sleep(2 * PERIOD).await;
    String::clone(&live.get())
}

fn start(reload: Reload<String>) -> ServiceHandle {
    let service = ServiceHandle::new("runtime-config", Box::new(reload));
    service.start_async().unwrap();
    service
}

async fn stop(service: &ServiceHandle) {
    service.stop_async();
    service.await_terminated().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_change_is_published_within_a_period() {
    let files = Files::new("one");
    let reload = open(&files.path()).await;
    let live = reload.live();
    assert_eq!(*live.get(), "one");
    let service = start(reload);
    let mut changes = live.changes();
    files.write("two");
    tokio::time::timeout(PERIOD + 2 * SETTLE, changes.changed()).await.unwrap().unwrap();
    assert_eq!((changes.borrow().as_str(), live.get().as_str()), ("two", "two"));
    stop(&service).await;
}

#[tokio::test(start_paused = true)]
async fn what_has_not_changed_is_not_published_again() {
    let files = Files::new("one");
    let reload = open(&files.path()).await;
    let live = reload.live();
    let mut changes = live.changes();
    changes.mark_unchanged();
    let service = start(reload);
    files.write("one");
    assert_eq!(later(&live).await, "one");
    assert!(!changes.has_changed().unwrap());
    stop(&service).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_good_value_stays_when_files_are_bad_or_gone() {
    let files = Files::new("one");
    let meter = Meter::new(Arc::new(metrics::NoopRecorder));
    let reload = open(&files.path()).await.with_metrics(&meter);
    let live = reload.live();
    let successful = |value: u8| {
        let line = format!("cortex_runtime_config_last_reload_successful {value}\n");
        assert!(meter.render_collected().contains(&line), "{}", meter.render_collected());
    };
    let hash = |text: &str| {
        let hex: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        let line = format!("cortex_runtime_config_hash{{sha256=\"{hex}\"}} 1\n");
        let told = meter.render_collected();
        assert!(told.contains(&line) && told.matches("cortex_runtime_config_hash{").count() == 1, "{told}");
    };
    successful(1);
    hash("one");
    let service = start(reload);
    for bad in ["bad", "panic", "also bad"] {
        files.write(bad);
        assert_eq!(later(&live).await, "one", "{bad}");
        successful(0);
        hash("one");
    }
    fs::remove_file(files.path()).unwrap();
    assert_eq!(later(&live).await, "one");
    successful(0);
    files.write("one");
    assert_eq!(later(&live).await, "one");
    successful(1);
    files.write("two");
    assert_eq!(later(&live).await, "two");
    successful(1);
    hash("two");
    // What was refused once may be right later, and what was right is taken again.
    files.write("bad");
    later(&live).await;
    files.write("two");
    later(&live).await;
    successful(1);
    stop(&service).await;
    assert_eq!(meter.render_collected(), "");
}

#[tokio::test]
async fn a_first_load_that_fails_is_an_error() {
    let files = Files::new("bad");
    let error = |paths: Vec<PathBuf>| async {
        match Reload::open(options(paths), parse).await {
            Ok(_) => panic!("it loaded"),
            Err(cause) => cause.to_string(),
        }
    };
    assert_eq!(error(vec![files.path()]).await, "r.yaml:1:1: this is bad");
    let gone = files.0.path().join("gone.yaml");
    let told = error(vec![gone.clone()]).await;
    assert!(told.starts_with(&format!("{}: cannot read this file: ", gone.display())), "{told}");
    let told = error(vec![files.0.path().to_owned()]).await;
    assert!(told.ends_with("it is no file"), "{told}");
    files.write(&"x".repeat(101));
    let told = error(vec![files.path()]).await;
    assert!(told.ends_with("it is larger than 100 bytes"), "{told}");
    files.write("panic");
    assert!(error(vec![files.path()]).await.starts_with("loading broke off: "));
}

#[tokio::test]
async fn several_files_come_in_order_and_share_a_hash() {
    let files = Files::new("one");
    let second = files.0.path().join("s.yaml");
    fs::write(&second, "two").unwrap();
    let hash = |contents: &Contents| Ok(contents.sha256.to_string());
    let reload = Reload::open(options(vec![files.path(), second.clone()]), hash).await.unwrap();
    let joined: String = Sha256::digest("onetwo").iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(*reload.live().get(), joined);
    let reload = Reload::open(options(vec![second, files.path()]), parse).await.unwrap();
    assert_eq!(*reload.live().get(), "twoone");
}

#[tokio::test]
async fn a_change_counts_only_when_two_reads_agree() {
    let files = Files::new("one");
    let mut reload = open(&files.path()).await;
    let live = reload.live();
    files.write("two: half");
    let path = files.path();
    let writer = async {
        // Between the first read and the second.
        sleep(SETTLE / 2).await;
        fs::write(path, "two: whole").unwrap();
    };
    let mut changes = live.changes();
    tokio::join!(reload.reload(), writer);
    changes.changed().await.unwrap();
    assert_eq!(*live.get(), "two: whole");
}

#[tokio::test(start_paused = true)]
async fn it_stops_between_reads() {
    let files = Files::new("one");
    let service = start(open(&files.path()).await);
    service.await_running().await.unwrap();
    let begun = Instant::now();
    stop(&service).await;
    assert!(begun.elapsed() < PERIOD);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_gone_leaves_the_value() {
    let files = Files::new("one");
    let reload = open(&files.path()).await;
    let live = reload.live();
    let service = start(reload);
    stop(&service).await;
    assert_eq!(service.state(), ServiceState::Terminated);
    assert_eq!(*live.get(), "one");
}
