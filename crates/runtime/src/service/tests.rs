use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::StopProcess;

/// What a toy does in each phase.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Go,
    Fail,
    Panic,
    Hang,
}

struct Toy {
    start: Act,
    run: Act,
    stop: Act,
    seen: Arc<Mutex<Vec<String>>>,
}

async fn act(what: Act, name: &str) -> Result<(), Cause> {
    match what {
        Act::Go => Ok(()),
        Act::Fail => Err(format!("{name} broke").into()),
        Act::Panic => panic!("{name} panicked"),
        Act::Hang => std::future::pending().await,
    }
}

#[async_trait]
impl Service for Toy {
    async fn start(&mut self, _: &CancellationToken) -> Result<(), Cause> {
        self.seen.lock().push("start".into());
        act(self.start, "start").await
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), Cause> {
        self.seen.lock().push("run".into());
        if self.run == Act::Hang {
            stop.cancelled().await;
            return Ok(());
        }
        act(self.run, "run").await
    }

    async fn stop(&mut self, failure: Option<&Cause>) -> Result<(), Cause> {
        let failure = failure.map_or_else(|| "nothing".into(), ToString::to_string);
        self.seen.lock().push(format!("stop after {failure}"));
        act(self.stop, "stop").await
    }
}

fn toy(start: Act, run: Act, stop: Act) -> (ServiceHandle, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::default();
    let service = Toy { start, run, stop, seen: Arc::clone(&seen) };
    (ServiceHandle::new("toy", Box::new(service)), seen)
}

#[tokio::test]
async fn a_life_in_order_is_new_starting_running_stopping_terminated() {
    let (toy, seen) = toy(Act::Go, Act::Hang, Act::Go);
    assert_eq!(toy.state(), ServiceState::New);
    toy.start_async().unwrap();
    assert_eq!(toy.state(), ServiceState::Starting);
    toy.await_running().await.unwrap();
    assert_eq!(toy.state(), ServiceState::Running);
    toy.stop_async();
    toy.await_terminated().await.unwrap();
    assert_eq!(toy.state(), ServiceState::Terminated);
    assert!(toy.failure().is_none());
    assert_eq!(*seen.lock(), ["start", "run", "stop after nothing"]);
}

#[tokio::test]
async fn only_a_new_service_can_be_started() {
    let (toy, _) = toy(Act::Go, Act::Hang, Act::Go);
    toy.start_async().unwrap();
    toy.await_running().await.unwrap();
    let error = toy.start_async().unwrap_err();
    assert_eq!(error.to_string(), "service `toy` is Running, expected New");
}

#[tokio::test]
async fn stopping_a_new_service_terminates_it_without_calling_it() {
    let (toy, seen) = toy(Act::Go, Act::Go, Act::Go);
    toy.stop_async();
    toy.await_terminated().await.unwrap();
    assert!(toy.start_async().is_err());
    let error = toy.await_running().await.unwrap_err();
    assert_eq!(error.to_string(), "service `toy` is Terminated, expected Running");
    assert!(seen.lock().is_empty());
}

#[tokio::test]
async fn a_failed_start_is_failed_and_stop_is_not_called() {
    for start in [Act::Fail, Act::Panic] {
        let (toy, seen) = toy(start, Act::Go, Act::Go);
        toy.start_async().unwrap();
        let error = toy.await_running().await.unwrap_err();
        let words = if start == Act::Fail { "start broke" } else { "panicked: start panicked" };
        assert_eq!(error.to_string(), format!("service `toy` is Failed, expected Running, failure: {words}"));
        assert_eq!(toy.failure().unwrap().phase, Phase::Start);
        assert_eq!(*seen.lock(), ["start"]);
    }
}

#[tokio::test]
async fn a_failed_run_is_told_to_stop_and_is_the_failure_even_if_stop_fails_too() {
    let (toy, seen) = toy(Act::Go, Act::Fail, Act::Fail);
    toy.start_async().unwrap();
    toy.await_terminated().await.unwrap_err();
    let failure = toy.failure().unwrap();
    assert_eq!(failure.to_string(), "`toy` failed while running: run broke");
    assert_eq!(*seen.lock(), ["start", "run", "stop after run broke"]);
}

#[tokio::test]
async fn a_panic_in_run_is_a_failure_and_stop_still_cleans_up() {
    let (toy, seen) = toy(Act::Go, Act::Panic, Act::Go);
    toy.start_async().unwrap();
    toy.await_terminated().await.unwrap_err();
    assert_eq!(toy.failure().unwrap().to_string(), "`toy` failed while running: panicked: run panicked");
    assert_eq!(seen.lock().last().unwrap(), "stop after panicked: run panicked");
}

#[tokio::test]
async fn a_run_that_returns_leads_to_stop() {
    let (toy, seen) = toy(Act::Go, Act::Go, Act::Go);
    toy.start_async().unwrap();
    toy.await_terminated().await.unwrap();
    assert_eq!(*seen.lock(), ["start", "run", "stop after nothing"]);
}

#[tokio::test]
async fn a_failed_stop_is_failed() {
    let (toy, _) = toy(Act::Go, Act::Go, Act::Fail);
    toy.start_async().unwrap();
    toy.await_terminated().await.unwrap_err();
    assert_eq!(toy.failure().unwrap().phase, Phase::Stop);
}

#[tokio::test(start_paused = true)]
async fn a_start_under_way_is_dropped_when_stopping_is_requested_and_stop_cleans_up() {
    let (toy, seen) = toy(Act::Hang, Act::Go, Act::Go);
    toy.start_async().unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(toy.state(), ServiceState::Starting);
    toy.stop_async();
    toy.await_terminated().await.unwrap();
    assert_eq!(*seen.lock(), ["start", "stop after nothing"], "run is never called");
}

#[tokio::test]
async fn an_aborted_service_is_failed_and_not_stopped() {
    let (toy, seen) = toy(Act::Go, Act::Hang, Act::Go);
    toy.start_async().unwrap();
    toy.await_running().await.unwrap();
    toy.abort();
    toy.await_terminated().await.unwrap_err();
    assert_eq!(*seen.lock(), ["start", "run"]);
    assert_eq!(toy.state(), ServiceState::Failed);
    assert_eq!(toy.failure().unwrap().cause.to_string(), "aborted");
}

#[tokio::test]
async fn dropping_the_last_handle_drops_the_service() {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    #[async_trait]
    impl Service for Flag {
        async fn run(&mut self, _: CancellationToken) -> Result<(), Cause> {
            std::future::pending().await
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let handle = ServiceHandle::new("flag", Box::new(Flag(Arc::clone(&dropped))));
    handle.start_async().unwrap();
    handle.await_running().await.unwrap();
    let mut states = handle.watch();
    drop(handle.clone());
    tokio::task::yield_now().await;
    assert!(!dropped.load(Ordering::Acquire), "a clone is left");
    drop(handle);
    states.wait_for(|state| state.is_final()).await.unwrap();
    assert!(dropped.load(Ordering::Acquire));
}

#[tokio::test]
async fn a_service_may_ask_the_process_to_stop() {
    struct Done;
    #[async_trait]
    impl Service for Done {
        async fn run(&mut self, _: CancellationToken) -> Result<(), Cause> {
            Err(StopProcess.into())
        }
    }
    let done = ServiceHandle::new("done", Box::new(Done));
    done.start_async().unwrap();
    done.await_terminated().await.unwrap_err();
    assert!(done.failure().unwrap().is_stop_request());
    let (toy, _) = toy(Act::Go, Act::Fail, Act::Go);
    toy.start_async().unwrap();
    toy.await_terminated().await.unwrap_err();
    assert!(!toy.failure().unwrap().is_stop_request());
}
