use ringkit_ring::{InstanceDesc, State};

use super::*;

const NOW: i64 = 1_700_000_000;

struct Case {
    readiness: Readiness,
    tokens: Tokens,
    check: ReadinessCheck,
    min_ready_duration: Duration,
}

impl Case {
    fn new(ring: &[(&str, State, i64)]) -> Self {
        let entry = |state, age, tokens: &[u32]| InstanceDesc {
            addr: "10.0.0.1:9095".into(),
            state,
            timestamp: NOW - age,
            tokens: tokens.into(),
            ..InstanceDesc::default()
        };
        let ring: Desc = ring.iter().map(|(id, state, age)| (*id, entry(*state, *age, &[1]))).collect();
        let mut readiness = Readiness::default();
        readiness.saw_ring((!ring.is_empty()).then(|| Arc::new(ring)));
        let (check, min_ready_duration) = (ReadinessCheck::Ring, Duration::ZERO);
        Self { readiness, tokens: vec![1].into(), check, min_ready_duration }
    }

    fn at(&mut self, secs: u64) -> Result<(), String> {
        let subject = Subject {
            id: "me",
            tokens: &self.tokens,
            heartbeat_timeout: Duration::from_secs(60),
            min_ready_duration: self.min_ready_duration,
            zone: "",
            check: self.check,
        };
        self.readiness.check(&subject, Duration::from_secs(secs), NOW)
    }

    fn reason(mut self) -> String {
        self.at(0).unwrap_err()
    }
}

const ACTIVE: State = State::Active;

#[test]
fn reasons_name_what_is_missing() {
    assert_eq!(Case::new(&[]).reason(), "no ring returned from the KV store");
    let tokenless = Case { tokens: Tokens::empty(), ..Case::new(&[("me", ACTIVE, 0)]) };
    assert!(tokenless.reason().starts_with("this instance owns no tokens"));
    let unknown = Case { readiness: Readiness::default(), ..Case::new(&[]) };
    assert_eq!(unknown.reason(), "the KV store has not answered yet");
    let mut failing = Case::new(&[("me", ACTIVE, 0)]);
    failing.readiness.set_store_problem(Part::Watch, Some("refused".into()));
    assert_eq!(failing.reason(), "error talking to the KV store, trying again: refused");
}

#[test]
fn with_ring_health_every_instance_counts_without_only_ones_own() {
    let stale = [("me", ACTIVE, 0), ("other", ACTIVE, 61)];
    assert_eq!(Case::new(&stale).reason(), "instance 10.0.0.1:9095 past heartbeat timeout");
    let leaving = [("me", ACTIVE, 0), ("other", State::Leaving, 0)];
    assert_eq!(Case::new(&leaving).reason(), "instance 10.0.0.1:9095 in state LEAVING");
    for ring in [stale, leaving] {
        let mut own_only = Case { check: ReadinessCheck::Own, ..Case::new(&ring) };
        assert_eq!(own_only.at(0), Ok(()));
    }
    let absent = Case { check: ReadinessCheck::Own, ..Case::new(&[("other", ACTIVE, 0)]) };
    assert_eq!(absent.reason(), "instance me not found in the ring");
    assert_eq!(Case::new(&[("me", State::ReadOnly, 0)]).at(0), Ok(()), "read-only instances are ready");
}

#[test]
fn it_must_have_been_ready_for_a_while_without_interruption() {
    let mut case = Case { min_ready_duration: Duration::from_secs(15), ..Case::new(&[("me", ACTIVE, 0)]) };
    assert_eq!(case.at(100).unwrap_err(), "waiting for 15s after being ready, 15s left");
    assert!(case.at(114).is_err());
    case.readiness.set_store_problem(Part::Watch, Some("refused".into()));
    assert!(case.at(115).is_err());
    case.readiness.set_store_problem(Part::Watch, None);
    assert!(case.at(116).is_err());
    assert!(case.at(130).is_err());
    assert_eq!(case.at(131), Ok(()));
}

#[test]
fn once_ready_it_stays_ready() {
    let mut case = Case::new(&[("me", ACTIVE, 0)]);
    assert_eq!(case.at(0), Ok(()));
    case.readiness.saw_ring(None);
    case.readiness.set_store_problem(Part::Watch, Some("refused".into()));
    assert_eq!(case.at(1), Ok(()));
}

#[test]
fn a_store_works_again_only_when_all_of_it_does() {
    let mut readiness = Readiness::default();
    let problem = || Some("refused".to_owned());
    assert!(readiness.set_store_problem(Part::Watch, problem()));
    assert!(!readiness.set_store_problem(Part::Write, problem()));
    assert!(!readiness.set_store_problem(Part::Watch, None));
    assert!(readiness.set_store_problem(Part::Write, None));
    assert!(!readiness.set_store_problem(Part::Write, None));
}

#[test]
fn with_zone_health_only_ones_own_zone_counts() {
    let entry = |zone: &str, age: i64| InstanceDesc {
        addr: "10.0.0.1:9095".into(),
        timestamp: NOW - age,
        zone: zone.into(),
        tokens: vec![1].into(),
        ..InstanceDesc::default()
    };
    let ready = |others: &[(&str, &str, i64)]| {
        let mut ring: Desc = others.iter().map(|(id, zone, age)| (*id, entry(zone, *age))).collect();
        ring.insert("me", entry("a", 0));
        let mut readiness = Readiness::default();
        readiness.saw_ring(Some(Arc::new(ring)));
        let subject = Subject {
            id: "me",
            tokens: &vec![1].into(),
            heartbeat_timeout: Duration::from_secs(60),
            min_ready_duration: Duration::ZERO,
            zone: "a",
            check: ReadinessCheck::Zone,
        };
        readiness.check(&subject, Duration::ZERO, NOW)
    };
    assert_eq!(ready(&[("neighbour", "a", 0), ("stranger", "b", 100)]), Ok(()));
    let reason = ready(&[("neighbour", "a", 100)]).unwrap_err();
    assert_eq!(reason, "in the zone `a`, instance neighbour: instance 10.0.0.1:9095 past heartbeat timeout");
}
