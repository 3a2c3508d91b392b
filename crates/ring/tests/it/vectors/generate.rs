//! Tokens as Cortex and dskit choose them.

use ringkit_ring::{
    Desc, GenerateError, InstanceDesc, MinimizeSpread, RingOptions, Snapshot, SpreadMinimizing, State,
    TokenRequest, TokenStrategy,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::{count, list, number, ring, text, token, vectors};

fn minimize_spread(request: &TokenRequest<'_>, ring: &Desc) -> Result<Vec<u32>, GenerateError> {
    TokenStrategy::MinimizeSpread(MinimizeSpread::new(Some(1))).generate(request, ring)
}

#[test]
fn spread_is_minimized_as_in_cortex() {
    for case in list(&vectors("minimize_spread"), "cases") {
        let request = TokenRequest {
            id: text(case, "id"),
            zone: text(case, "zone"),
            n: count(case, "num_tokens"),
            force: case["force"].as_bool().unwrap(),
        };
        let mut ring = ring(list(case, "ring"));
        let tokens = minimize_spread(&request, &ring).unwrap();
        let expected: Vec<_> = list(case, "tokens").iter().map(token).collect();
        assert_eq!(tokens, expected, "{}", text(case, "name"));

        let mut own = InstanceDesc::clone(ring.get(request.id).unwrap());
        own.tokens = tokens.into();
        ring.insert(request.id, own);
        for (id, positions) in owned_by_zone(&ring) {
            let expected = number(&case["owned_range_by_zone_after"], &id);
            assert_eq!(i64::try_from(positions).unwrap(), expected, "{}: {id}", text(case, "name"));
        }
    }
}

/// Per instance, how much of its zone it owns.
fn owned_by_zone(ring: &Desc) -> Vec<(String, u64)> {
    let snapshot = Snapshot::first_sight(ring, 0, &RingOptions::default());
    let shares = snapshot.ownership().of_zone().to_vec();
    snapshot
        .instances()
        .iter()
        .zip(shares)
        .map(|(member, share)| (member.id.to_string(), share.positions))
        .collect()
}

#[test]
fn joiners_take_their_turns_as_in_cortex() {
    let rules = &vectors("minimize_spread")["rules"];
    let waiting = |registered_timestamp| InstanceDesc {
        registered_timestamp,
        state: State::Pending,
        ..InstanceDesc::default()
    };
    let two =
        |first, second| -> Desc { [("n1", waiting(first)), ("n2", waiting(second))].into_iter().collect() };
    let got =
        |id, n, force, ring: &Desc| match minimize_spread(&TokenRequest { id, zone: "", n, force }, ring) {
            Ok(tokens) => tokens.len(),
            Err(GenerateError::Contended { .. }) => 0,
            Err(other) => panic!("{other}"),
        };
    let (in_order, tie) = (two(1, 2), two(1, 1));
    assert_eq!(got("n1", 4, false, &Desc::new()), count(rules, "empty_ring_gets"));
    assert_eq!(got("n1", 4, false, &in_order), count(rules, "n1_earlier_registered_gets"));
    assert_eq!(got("n2", 4, true, &in_order), count(rules, "n2_later_registered_gets_with_force"));
    assert_eq!(got("n2", 4, false, &in_order), count(rules, "n2_later_registered_gets_without_force"));
    assert_eq!(got("n1", 4, false, &tie), count(rules, "tie_n1_gets_without_force"));
    assert_eq!(got("n2", 4, false, &tie), count(rules, "tie_n2_gets_without_force"));
    assert_eq!(got("n1", 0, false, &in_order), count(rules, "zero_requested"));

    let error = minimize_spread(&TokenRequest { id: "n2", zone: "", n: 4, force: false }, &tie).unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("`n1`"), "{error}");
}

fn strings(case: &Value, field: &str) -> Vec<String> {
    list(case, field).iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn of_zones(case: &Value) -> Result<SpreadMinimizing, String> {
    SpreadMinimizing::try_new(text(case, "instance"), text(case, "zone"), &strings(case, "zones"), true)
        .map_err(|error| error.to_string())
}

#[test]
fn spread_minimizing_tokens_are_those_of_dskit() {
    for case in list(&vectors("dskit_spread_minimizing"), "tokens") {
        let name = text(case, "instance");
        let generator = of_zones(case).unwrap();
        let tokens = generator.tokens();
        let first: Vec<_> = list(case, "first_tokens").iter().map(token).collect();
        assert_eq!((tokens.len(), &tokens[..first.len()]), (count(case, "count"), &first[..]), "{name}");
        assert_eq!(tokens.last(), Some(&token(&case["last_token"])), "{name}");
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, text(case, "sha256_of_sorted_tokens_as_u32_little_endian"), "{name}");
    }
}

#[test]
fn an_instance_owns_as_much_as_in_dskit_when_all_before_it_are_there() {
    let zones = ["zone-a", "zone-b", "zone-c"];
    for case in list(&vectors("dskit_spread_minimizing"), "tokens") {
        let field = "owned_range_when_all_instances_up_to_this_one_are_present";
        let Some(expected) = case[field].as_u64() else { continue };
        let zone = text(case, "zone");
        let (_, index) = text(case, "instance").rsplit_once('-').unwrap();
        let last: usize = index.parse().unwrap();
        let zone_index = zones.iter().position(|name| *name == zone).unwrap();
        let instances = ringkit_ring::ZonePlacement::new(zone_index).take(last + 1).enumerate();
        let ring: Desc = instances
            .map(|(index, tokens)| {
                let entry =
                    InstanceDesc { zone: zone.into(), tokens: tokens.into(), ..InstanceDesc::default() };
                (format!("{index:05}"), entry)
            })
            .collect();
        assert_eq!(owned_by_zone(&ring)[last].1, expected, "{}", text(case, "instance"));
    }
}

#[test]
fn tokens_that_are_taken_are_passed_over_as_in_dskit() {
    let file = vectors("dskit_spread_minimizing");
    let fixed = SpreadMinimizing::try_new("x-1", "zone-a", &["zone-a", "zone-b", "zone-c"], false).unwrap();
    let fixed_tokens = fixed.tokens().to_vec();
    let taken = InstanceDesc { tokens: vec![fixed_tokens[0]].into(), ..InstanceDesc::default() };
    let ring = [("other", taken)].into_iter().collect();
    let expected: Vec<_> = list(&file, "partial").iter().map(token).collect();
    let mut strategy = TokenStrategy::SpreadMinimizing(fixed.into());
    let request = |n| TokenRequest { id: "x-1", zone: "zone-a", n, force: false };
    assert_eq!(strategy.generate(&request(4), &ring).unwrap(), expected);
    assert_eq!(strategy.generate(&request(511), &ring).unwrap().len(), 511);
    let too_many = GenerateError::Exhausted { requested: 512, tokens: fixed_tokens[1..].to_vec() };
    assert_eq!(strategy.generate(&request(512), &ring), Err(too_many));
}

#[test]
fn what_cannot_have_spread_minimizing_tokens_is_refused_as_in_dskit() {
    for case in list(&vectors("dskit_spread_minimizing"), "errors") {
        assert_eq!(of_zones(case).unwrap_err(), text(case, "error"));
    }
    for id in ["", "-", "7", "x-", "x-1-", "x-99999999999999999999", "x-16384"] {
        assert!(SpreadMinimizing::try_new(id, "a", &["a"], false).is_err(), "{id}");
    }
    let last = SpreadMinimizing::try_new("any-name-016383", "b", &["c", "b", "a"], false);
    assert!(last.is_ok(), "nothing is computed before it is asked for");
}

#[test]
fn instances_join_in_turn_as_in_dskit() {
    for case in list(&vectors("dskit_spread_minimizing"), "can_join") {
        let mut ring = Desc::new();
        if case["has_previous"].as_bool().unwrap() {
            let tokens = (0..count(case, "previous_tokens") as u32).collect();
            ring.insert("x-0", InstanceDesc { tokens, ..InstanceDesc::default() });
        }
        let strategy = |id, in_turn| {
            let fixed = SpreadMinimizing::try_new(id, "a", &["a"], in_turn).unwrap();
            TokenStrategy::SpreadMinimizing(fixed.into())
        };
        let found = strategy("x-1", true).can_join(&ring);
        assert_eq!(found.err().map(|error| error.to_string()).as_deref(), case["error"].as_str(), "{case}");
        assert_eq!(strategy("x-0", true).can_join(&ring), Ok(()), "the first waits for nobody");
        assert_eq!(strategy("x-1", false).can_join(&ring), Ok(()), "nor does who is not told to");
    }
}
