use async_trait::async_trait;
use parking_lot::Mutex;

use super::*;
use crate::Phase;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What happened, in order.
type Diary = Arc<Mutex<Vec<String>>>;

struct Toy {
    name: &'static str,
    diary: Diary,
    start_takes: Duration,
    stop_takes: Duration,
    fails: Option<Phase>,
}

impl Toy {
    fn note(&self, what: &str) {
        self.diary.lock().push(format!("{what} {}", self.name));
    }

    fn fail(&self, phase: Phase) -> Result<(), Cause> {
        if self.fails == Some(phase) { Err(format!("{} broke", self.name).into()) } else { Ok(()) }
    }
}

#[async_trait]
impl Service for Toy {
    async fn start(&mut self, _: &CancellationToken) -> Result<(), Cause> {
        self.note("starting");
        tokio::time::sleep(self.start_takes).await;
        self.fail(Phase::Start)?;
        self.note("started");
        Ok(())
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), Cause> {
        self.fail(Phase::Run)?;
        stop.cancelled().await;
        Ok(())
    }

    async fn stop(&mut self, _: Option<&Cause>) -> Result<(), Cause> {
        self.note("stopping");
        tokio::time::sleep(self.stop_takes).await;
        self.note("stopped");
        Ok(())
    }
}

/// Modules as `name: dependencies`; a name in brackets has no service.
fn modules(graph: &[(&'static str, &[&'static str])]) -> (Modules<Diary>, Diary) {
    with(graph, |toy| toy)
}

fn with(graph: &[(&'static str, &[&'static str])], adapt: fn(Toy) -> Toy) -> (Modules<Diary>, Diary) {
    let mut modules = Modules::new();
    for &(name, dependencies) in graph {
        let has_service = !name.starts_with('(');
        let init: Init<Diary> = Box::new(move |diary: &mut Diary| {
            diary.lock().push(format!("init {name}"));
            let toy =
                Toy { name, diary: Arc::clone(diary), start_takes: SECOND, stop_takes: SECOND, fails: None };
            Ok(has_service.then(|| Box::new(adapt(toy)) as Box<dyn Service>))
        });
        modules.register(Module { name, visible: true, dependencies: dependencies.to_vec(), init }).unwrap();
    }
    (modules, Diary::default())
}

fn position(diary: &Diary, what: &str) -> usize {
    let diary = diary.lock();
    diary.iter().position(|note| note == what).unwrap_or_else(|| panic!("no `{what}` in {diary:?}"))
}

fn all_of(diary: &Diary, what: &str) -> Vec<String> {
    let notes = diary.lock();
    notes.iter().filter_map(|note| note.strip_prefix(what)).map(str::to_owned).collect()
}

#[test]
fn modules_are_built_once_after_their_dependencies_and_no_others() {
    let (modules, mut diary) =
        modules(&[("d", &["b", "c"]), ("c", &["a"]), ("b", &["a"]), ("a", &[]), ("unused", &[])]);
    modules.init(&["d", "b"], &mut diary).unwrap();
    assert_eq!(all_of(&diary, "init "), ["a", "b", "c", "d"]);
}

#[test]
fn circles_are_rejected_before_anything_is_built() {
    let (modules, mut diary) = modules(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]);
    let error = modules.init(&["a"], &mut diary).unwrap_err();
    assert_eq!(error.to_string(), "modules depend on each other in a circle: b -> c -> b");
    assert!(diary.lock().is_empty());
}

#[test]
fn unknown_names_are_errors_that_name_the_known_ones() {
    let (modules_, mut diary) = modules(&[("b", &[]), ("a", &[])]);
    let error = modules_.init(&["ingestor"], &mut diary).unwrap_err();
    assert_eq!(error.to_string(), "unknown target `ingestor`: known targets are a, b");
    let (modules_, mut diary) = modules(&[("a", &["gone"])]);
    let error = modules_.init(&["a"], &mut diary).unwrap_err();
    assert_eq!(
        error.to_string(),
        "module `a` depends on `gone`, which is not registered: known modules are a"
    );
}

#[test]
fn a_name_cannot_be_taken_twice() {
    let (mut modules, _) = modules(&[("a", &[])]);
    let again = Module { name: "a", visible: true, dependencies: vec![], init: Box::new(|_| Ok(None)) };
    assert!(matches!(modules.register(again), Err(Error::DuplicateModule { name }) if name == "a"));
}

#[test]
fn an_error_in_a_constructor_names_the_module() {
    let mut modules: Modules<()> = Modules::new();
    let init: Init<()> = Box::new(|()| Err("no disk".into()));
    modules.register(Module { name: "store", visible: true, dependencies: vec![], init }).unwrap();
    let error = modules.init(&["store"], &mut ()).unwrap_err();
    assert_eq!(error.to_string(), "error initialising module `store`: no disk");
}

#[tokio::test(start_paused = true)]
async fn services_start_after_all_they_depend_on_run_and_independent_ones_at_once() {
    // `(api)` has no service: what depends on it waits for what it depends on.
    let (modules, mut diary) = modules(&[
        ("server", &[]),
        ("(api)", &["server"]),
        ("kv", &["(api)"]),
        ("ring", &["(api)"]),
        ("top", &["kv", "ring"]),
    ]);
    let group = modules.init(&["top"], &mut diary).unwrap();
    let started = Instant::now();
    group.start(&CancellationToken::new()).await.unwrap();
    // Three levels of a second each.
    assert_eq!(started.elapsed().as_secs(), 3);
    for (first, second) in [("server", "kv"), ("server", "ring"), ("kv", "top"), ("ring", "top")] {
        let (first, second) = (format!("started {first}"), format!("starting {second}"));
        assert!(position(&diary, &first) < position(&diary, &second), "{first} before {second}");
    }
    assert!(group.services().all(|service| service.state() == ServiceState::Running));
}

#[tokio::test(start_paused = true)]
async fn stopping_reverses_the_order_over_all_targets() {
    // Two targets that share `kv`: it must wait for both, whichever target brought it in.
    let (modules, mut diary) = modules(&[("kv", &[]), ("ingester", &["kv"]), ("gateway", &["kv"])]);
    let group = modules.init(&["ingester", "gateway"], &mut diary).unwrap();
    group.start(&CancellationToken::new()).await.unwrap();
    let report = group.stop(|_| MINUTE).await;
    assert!(report.is_clean());
    assert_eq!(report.steps.last().unwrap().name, "kv");
    for dependent in ["ingester", "gateway"] {
        assert!(position(&diary, &format!("stopped {dependent}")) < position(&diary, "stopping kv"));
    }
    assert!(group.services().all(|service| service.state() == ServiceState::Terminated));
}

#[tokio::test(start_paused = true)]
async fn who_misses_the_deadline_is_aborted_and_named_and_the_rest_goes_on() {
    let (modules, mut diary) = with(&[("kv", &[]), ("slow", &["kv"])], |toy| Toy {
        stop_takes: if toy.name == "slow" { MINUTE * 60 } else { SECOND },
        ..toy
    });
    let group = modules.init(&["slow"], &mut diary).unwrap();
    group.start(&CancellationToken::new()).await.unwrap();
    let report = group.stop(|name| if name == "slow" { MINUTE } else { SECOND * 2 }).await;
    assert_eq!(report.late, ["slow"]);
    assert_eq!(all_of(&diary, "stopped "), ["kv"]);
    assert_eq!(group.service("slow").unwrap().state(), ServiceState::Failed);
    assert_eq!(report.to_string(), "slow 60.0s (late, aborted), kv 1.0s");
}

#[tokio::test(start_paused = true)]
async fn a_failing_start_is_named_and_dependents_never_start() {
    let (modules, mut diary) = with(&[("kv", &[]), ("ring", &["kv"]), ("top", &["ring"])], |toy| Toy {
        fails: (toy.name == "ring").then_some(Phase::Start),
        ..toy
    });
    let group = modules.init(&["top"], &mut diary).unwrap();
    let error = group.start(&CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "error starting module: `ring` failed while starting: ring broke");
    assert!(group.stop(|_| MINUTE).await.is_clean());
    assert_eq!(all_of(&diary, "starting "), ["kv", "ring"]);
    assert_eq!(all_of(&diary, "stopped "), ["kv"]);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_start_stops_what_was_started_or_half_started_in_order() {
    let (modules, mut diary) = modules(&[("kv", &[]), ("ring", &["kv"]), ("top", &["ring"])]);
    let group = modules.init(&["top"], &mut diary).unwrap();
    let stop = CancellationToken::new();
    let interrupt = async {
        tokio::time::sleep(SECOND * 3 / 2).await;
        stop.cancel();
    };
    let (started, ()) = futures::join!(group.start(&stop), interrupt);
    assert_eq!(
        started.unwrap_err().to_string(),
        "stopped while starting: these were not running yet: ring, top"
    );
    assert!(group.stop(|_| MINUTE).await.is_clean());
    assert_eq!(all_of(&diary, "started "), ["kv"]);
    assert_eq!(all_of(&diary, "stopped "), ["ring", "kv"], "the half-started one first");
    assert!(group.services().all(|service| service.state() == ServiceState::Terminated));
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_is_noticed_and_an_orderly_end_is_none() {
    let (modules, mut diary) = with(&[("fine", &[]), ("broken", &[])], |toy| Toy {
        fails: (toy.name == "broken").then_some(Phase::Run),
        ..toy
    });
    let group = modules.init(&["fine", "broken"], &mut diary).unwrap();
    group.service("fine").unwrap().stop_async();
    group.service("broken").unwrap().start_async().unwrap();
    assert_eq!(group.failed().await.to_string(), "`broken` failed while running: broken broke");
    let quiet = Group::default();
    assert!(tokio::time::timeout(MINUTE, quiet.failed()).await.is_err(), "no services, no failure");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_group_ends_its_services() {
    let (modules, mut diary) = modules(&[("a", &[])]);
    let group = modules.init(&["a"], &mut diary).unwrap();
    group.start(&CancellationToken::new()).await.unwrap();
    let mut states = group.service("a").unwrap().watch();
    drop(group);
    assert_eq!(*states.wait_for(|state| state.is_final()).await.unwrap(), ServiceState::Failed);
    assert!(all_of(&diary, "stopping ").is_empty());
}

#[test]
fn only_visible_modules_are_offered() {
    let mut modules: Modules<()> = Modules::new();
    for (name, visible) in [("ring", false), ("ingester", true)] {
        let init: Init<()> = Box::new(|()| Ok(None));
        modules.register(Module { name, visible, dependencies: vec![], init }).unwrap();
    }
    assert_eq!(modules.visible(), ["ingester"]);
    // Hidden ones can be targets all the same, as in Cortex.
    assert!(modules.init(&["ring"], &mut ()).is_ok());
}
