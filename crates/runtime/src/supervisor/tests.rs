use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Counts how many of its clones are alive.
#[derive(Clone, Default)]
struct Alive(Arc<AtomicUsize>);

struct Life(Arc<AtomicUsize>);

impl Alive {
    fn one(&self) -> Life {
        self.0.fetch_add(1, Ordering::AcqRel);
        Life(Arc::clone(&self.0))
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_cancels_the_rest_and_is_kept() {
    let tasks = Supervisor::new("tasks");
    let stop = tasks.stop_token();
    tasks.spawn("obedient", async move {
        stop.cancelled().await;
        Err("too late to be the first".into())
    });
    tasks.spawn("broken", async { Err("broke".into()) });
    assert_eq!(tasks.failed().await.to_string(), "`broken` failed while running: broke");
    assert!(tasks.shutdown(MINUTE).await.is_clean());
    assert_eq!(&*tasks.failure().unwrap().name, "broken");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure() {
    let tasks = Supervisor::new("tasks");
    tasks.spawn("clumsy", async { panic!("oh {}", 1) });
    assert_eq!(tasks.failed().await.cause.to_string(), "panicked: oh 1");
    assert!(tasks.stop_token().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_then_aborts_and_names_the_late() {
    let (tasks, alive) = (Supervisor::new("tasks"), Alive::default());
    let (stop, life) = (tasks.stop_token(), alive.one());
    tasks.spawn("slow", async move {
        let _life = life;
        stop.cancelled().await;
        tokio::time::sleep(MINUTE / 2).await;
        Ok(())
    });
    let life = alive.one();
    tasks.spawn("deaf", async move {
        let _life = life;
        std::future::pending().await
    });
    let report = tasks.shutdown(MINUTE).await;
    assert_eq!(report.late, ["deaf"]);
    let [step] = report.steps.as_slice() else { panic!("{report:?}") };
    assert!(step.late && step.took >= MINUTE && step.took < MINUTE * 2);
    assert_eq!((alive.count(), tasks.num_tasks()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_idle_supervisor_shuts_down_at_once() {
    let tasks = Supervisor::new("tasks");
    tasks.spawn("quick", async { Ok(()) });
    let report = tasks.shutdown(MINUTE).await;
    assert!(report.is_clean());
    assert!(report.steps.iter().all(|step| step.took < MINUTE));
}

#[tokio::test(start_paused = true)]
async fn tasks_may_start_others_while_a_shutdown_waits_and_not_afterwards() {
    let (tasks, alive) = (Supervisor::new("tasks"), Alive::default());
    let (stop, owner, life) = (tasks.stop_token(), tasks.clone(), alive.one());
    tasks.spawn("parent", async move {
        stop.cancelled().await;
        owner.spawn("child", async move {
            tokio::time::sleep(MINUTE / 2).await;
            drop(life);
            Ok(())
        });
        Ok(())
    });
    assert!(tasks.shutdown(MINUTE).await.is_clean());
    assert_eq!(alive.count(), 0);
    let life = alive.one();
    tasks.spawn("too late", async move {
        let _life = life;
        std::future::pending().await
    });
    assert_eq!((alive.count(), tasks.num_tasks()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_outlives_the_last_owner() {
    let (tasks, alive) = (Supervisor::new("tasks"), Alive::default());
    let stop = tasks.stop_token();
    for _ in 0..3 {
        let life = alive.one();
        tasks.spawn("task", async move {
            let _life = life;
            std::future::pending().await
        });
        let life = alive.one();
        tasks.spawn_detached_work("work", async move {
            let _life = life;
            std::future::pending::<()>().await;
        });
    }
    drop(tasks.clone());
    tokio::time::sleep(MINUTE).await;
    assert_eq!(alive.count(), 6);
    drop(tasks);
    assert!(stop.is_cancelled());
    // Virtual time passes only when every task has had its turn.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(alive.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn detached_work_that_panics_concerns_nobody_else() {
    let tasks = Supervisor::new("tasks");
    tasks.spawn_detached_work("clumsy", async { panic!("oh") });
    tokio::time::sleep(MINUTE).await;
    assert!(tasks.failure().is_none());
    assert!(!tasks.stop_token().is_cancelled());
    assert_eq!(tasks.num_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn abort_all_drops_everything_without_waiting() {
    let (tasks, alive) = (Supervisor::new("tasks"), Alive::default());
    let life = alive.one();
    tasks.spawn("task", async move {
        let _life = life;
        std::future::pending().await
    });
    tasks.abort_all();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(alive.count(), 0);
}
