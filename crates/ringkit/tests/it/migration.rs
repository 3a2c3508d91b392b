//! Rings move from one store to another under load: by Cortex's guide, without a restart, back again, and while things go wrong.
//!
//! Real servers, and two distributors, three or six ingesters in three zones and two store-gateways as processes. A write fails if no
//! distributor answers it with 2xx: one attempt, plus one on the other after a refused or cut connection; a distributor leaves the
//! rotation a second before its restart. Every process is asked five times a second for the rings that it follows. The verdict of
//! each test is the same: no write failed, nothing that was acknowledged is missing, and at no moment was a living instance missing
//! from anybody's view; it is printed as a row of figures.
//!
//! - [`site`]: files and command lines; [`pair`]: two stores and the configuration that names both
//! - [`world`]: the cluster, restarts, the verdict; [`traffic`]: the load; [`record`]: the views
//! - [`ctl`]: `ringctl migrate` and the page `/multikv`
//! - [`guide`], [`live`], [`faults`], [`bad_input`]: what is done

mod bad_input;
mod ctl;
mod faults;
mod guide;
mod live;
mod pair;
mod record;
mod site;
mod traffic;
mod world;

use std::time::Duration;

use ringkit_config::{Config, RuntimeConfig, RuntimeFile};
use site::Timing;
use world::Order;

const STORES: [&str; 3] = ["consul", "etcd", "memberlist"];

#[tokio::test(flavor = "multi_thread")]
async fn m1_the_guide_to_the_letter_loses_nothing() {
    guide::followed(Timing::SCALED, 3, Order::IngestersFirst).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m2_a_live_migration_without_a_restart() {
    live::moves(Timing::SCALED, "consul", "memberlist").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m3_there_and_back() {
    live::goes_there_and_back(Timing::SCALED, "consul", "memberlist").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_a_secondary_that_hangs_or_dies_costs_a_ring_write_nothing() {
    faults::the_secondary_fails(Timing::SCALED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_a_primary_that_dies_and_comes_back_empty_flaps_nobody() {
    faults::the_primary_fails(Timing::SCALED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_a_ring_that_the_secondary_cannot_hold_stays_where_it_is() {
    faults::the_ring_is_too_large(Timing::SCALED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_gossip_without_peers_is_red_and_cannot_be_switched_to() {
    faults::there_are_no_peers(Timing::SCALED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_a_split_label_is_red_and_cannot_be_switched_to() {
    faults::the_label_is_split(Timing::SCALED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_a_clock_that_is_ten_minutes_ahead_is_named() {
    faults::a_clock_is_wrong(Timing::SCALED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_an_ingester_killed_mid_switch_harms_nobody_else() {
    faults::an_ingester_is_killed_mid_switch(Timing::SCALED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_a_process_that_reloads_late_harms_nobody() {
    faults::one_process_reloads_late(Timing::SCALED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_a_process_restarted_with_the_old_file_harms_nobody() {
    faults::one_process_restarts_with_the_old_file(Timing::SCALED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_two_operators_at_once_leave_one_state() {
    faults::two_operators_at_once(Timing::SCALED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runtime_configurations_that_make_no_sense_change_nothing() {
    bad_input::of_the_runtime_configuration(Timing::SCALED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_of_stores_that_is_none_is_refused_at_the_start() {
    bad_input::of_the_configuration().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_on_one_store_are_not_concerned_by_two() {
    bad_input::of_processes_on_one_store().await;
}

#[test]
fn the_files_that_the_page_for_operators_shows_can_be_loaded() {
    let page = include_str!("../../../../docs/migration.md");
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let (mut mains, mut runtimes) = (0, 0);
    for text in blocks {
        if text.starts_with("ring:") {
            let loaded = ringkit_config::parse_yaml("migration.md", text);
            loaded.unwrap_or_else(|error| panic!("{error}\n{text}"));
            mains += 1;
        } else if text.starts_with("multi_kv_config:") {
            let file = RuntimeFile { name: "migration.md", bytes: text.as_bytes() };
            let read = RuntimeConfig::new(&Config::default()).read(&[file]);
            read.unwrap_or_else(|error| panic!("{error}\n{text}"));
            runtimes += 1;
        }
    }
    assert_eq!((mains, runtimes), (4, 1));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_the_guide_to_the_letter_in_every_order() {
    for order in Order::ALL {
        for ingesters in [3, 6] {
            guide::followed(Timing::REAL, ingesters, order).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_the_guide_to_the_letter_with_a_minute_before_each_join() {
    let join_after = Some(Duration::from_secs(60));
    guide::followed(Timing { join_after, ..Timing::REAL }, 3, Order::IngestersFirst).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_migrations_in_all_directions() {
    for from in STORES {
        for to in STORES.into_iter().filter(|to| *to != from) {
            live::moves(Timing::REAL, from, to).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_migrations_called_off_in_every_phase_in_all_directions() {
    for from in STORES {
        for to in STORES.into_iter().filter(|to| *to != from) {
            live::goes_there_and_back(Timing::REAL, from, to).await;
            live::is_called_off_at_the_end(Timing::REAL, from, to).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_stores_that_fail_for_long() {
    faults::the_secondary_fails(Timing::REAL).await;
    faults::the_primary_fails(Timing::REAL).await;
    faults::the_ring_is_too_large(Timing::REAL).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_gossip_that_is_no_cluster() {
    faults::there_are_no_peers(Timing::REAL).await;
    faults::the_label_is_split(Timing::REAL).await;
    faults::a_clock_is_wrong(Timing::REAL).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_what_operators_do_at_the_wrong_moment() {
    faults::an_ingester_is_killed_mid_switch(Timing::REAL).await;
    faults::one_process_reloads_late(Timing::REAL).await;
    faults::one_process_restarts_with_the_old_file(Timing::REAL).await;
    faults::two_operators_at_once(Timing::REAL).await;
}
